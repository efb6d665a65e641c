"""Makes this folder a package: one of lmms-eval's requirements installs a top-level package of the same name."""

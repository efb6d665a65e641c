"""A backend's reader bound to a projector and a prompt format, and the readings kept on disk."""

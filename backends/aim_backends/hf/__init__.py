"""What every transformers backbone shares: loading, reading, writing. A family adds only what is special to it."""

from aim_backends.hf.backend import TransformersBackend

__all__ = ["TransformersBackend"]

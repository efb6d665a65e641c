"""A third-party AIM backend around a toy multimodal LLM."""

from aim_echo.backend import EchoBackend

__all__ = ["EchoBackend"]

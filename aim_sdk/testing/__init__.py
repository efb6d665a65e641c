"""Checks, strategies and tiny models for authors of backends."""

"""Measurements on the projector kinds."""

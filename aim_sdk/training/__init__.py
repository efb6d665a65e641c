"""Corpora, episodes and the trainer."""

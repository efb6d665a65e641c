"""Reads files as people have them, and writes our own."""

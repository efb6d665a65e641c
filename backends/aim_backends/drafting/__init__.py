"""Drafts a row of the families' table from what transformers says of a type: `python -m aim_backends.drafting`."""

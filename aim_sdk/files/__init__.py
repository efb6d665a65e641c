"""Files as people have them, and as ours are written."""

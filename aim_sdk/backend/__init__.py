"""What the author of a backend implements, and what they may call."""

"""Training recipes for real backbones, and what they need, computed."""

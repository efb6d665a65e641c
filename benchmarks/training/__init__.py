"""Training experiments: settings, and the scripts that run them."""

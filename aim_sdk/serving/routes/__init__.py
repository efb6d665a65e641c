"""What the service answers to, by address."""

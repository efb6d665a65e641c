"""What a backbone does with its demonstrations, measured on the user's own model and data."""

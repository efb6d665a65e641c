"""What precedes each query in the prompt, and what is asked of the backbone after it."""

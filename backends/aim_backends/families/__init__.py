"""What is special about single families of transformers: one row of the table each, and code for those that need it."""

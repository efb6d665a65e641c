"""What is special to single families of transformers: a row of the table each, and code for those that need it."""

"""What engines share that are not transformers: most of it puts a prompt together from embeddings."""

"""What engines share that put a prompt together from embeddings themselves: pocket and llama.cpp."""

"""How good embeddings are, by each protocol."""

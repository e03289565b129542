"""How good a run's embeddings are, by each protocol, and the report."""

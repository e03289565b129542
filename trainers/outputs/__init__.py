"""What is in a run's workdir: its files, pictures and held-out examples, and the report."""

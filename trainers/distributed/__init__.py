"""Several processes: strategy, cluster, what workers agree on, and being told to stop."""

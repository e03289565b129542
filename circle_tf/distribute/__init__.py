"""What replicas exchange, what XLA compiles, and variables that replicas share out."""

"""From examples to the batches of a step, here or in other processes."""

"""Training: models, optimizer, callbacks, checkpoints, and the loop that puts them together."""

"""A run: models, optimizer, callbacks, checkpoints, and the files in its workdir."""

"""The commands that train and evaluate, and their data."""

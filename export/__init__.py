"""The commands that bring a finished run to TF Serving."""

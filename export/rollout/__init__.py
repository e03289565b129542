"""Which versions are served, under which labels, and TF Serving's own files."""

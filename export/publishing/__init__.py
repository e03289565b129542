"""From a finished run to a new version of a model, with what it holds and whence it comes."""

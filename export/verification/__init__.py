"""Is a SavedModel fit to be served? Its files, and its answers in a C++ session."""

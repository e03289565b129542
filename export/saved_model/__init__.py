"""A SavedModel to be served: what it holds, its warm-up requests, and it in a C++ session."""

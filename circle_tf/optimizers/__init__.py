"""Updates of some rows of a variable, by any Keras optimizer."""

"""Updates of some rows of a variable, and rates of some variables, by any Keras optimizer."""

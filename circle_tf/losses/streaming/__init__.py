"""Circle loss without the whole matrix of similarities: exact, tile by tile."""

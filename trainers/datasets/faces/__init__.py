"""Sets of faces: to train on, and to verify and identify with."""

"""Checks of arguments, errors for people, files written whole, and a quiet start."""

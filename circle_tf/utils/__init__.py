"""Checks of arguments, and files that are written whole."""

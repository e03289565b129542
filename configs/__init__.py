"""Recipes: data only, one Python file each; `get_config()` returns what a run is made of."""

"""Lets griffe, which imports nothing, see what docstrings and lazy modules say."""

import ast
import re

import griffe

_TABLES = {"_ROOM_OF", "_MODULES"}  # Public name: the module that it is imported from.
_KERAS_ASKS = {  # Keras calls these; who uses the library does not.
    "build",
    "compile_from_config",
    "compute_output_spec",
    "get_compile_config",
    "get_config",
    "load_own_variables",
    "make_test_function",
    "make_train_function",
}
_TITLES = {
    r"^(\s*)Example:$": r"\1Examples:",
    r"^(\s*)Call arguments:$": r"\1Other Args: Call arguments",
    r"::$": ":",
}


class Docstrings(griffe.Extension):
    """Section titles as griffe knows them, names that are imported when asked for, less noise."""

    def on_object(self, *, obj, loader, **kwargs):
        """Rewrites the titles of sections, and leaves out what only Keras calls."""
        if obj.name in _KERAS_ASKS:
            obj.public = False
        if obj.docstring:
            for ours, theirs in _TITLES.items():
                text = obj.docstring.value
                obj.docstring.value = re.sub(ours, theirs, text, flags=re.MULTILINE)

    def on_module(self, *, mod, loader, **kwargs):
        """Adds the lazy names."""
        for table in _TABLES & set(mod.attributes):
            value = ast.literal_eval(str(mod.attributes[table].value))
            if isinstance(value, dict):
                for name, room in value.items():
                    mod.set_member(name, griffe.Alias(name, f"{mod.path}.{room}.{name}"))

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
_REWRITTEN = {
    r"^(\s*)Example:$": r"\1Examples:",
    r"^(\s*)Call arguments:$": r"\1Other Args: Call arguments",
    r"::$": ":",
    r"(?<![/`\[])\bdocs/([\w-]+)\.md": r"[\g<0>](../\1.html)",
}


class Docstrings(griffe.Extension):
    """Section titles as griffe knows them, names that are imported when asked for, less noise."""

    def on_object(self, *, obj, loader, **kwargs):
        """Rewrites docstrings."""
        if obj.docstring:
            for ours, theirs in _REWRITTEN.items():
                text = obj.docstring.value
                obj.docstring.value = re.sub(ours, theirs, text, flags=re.MULTILINE)

    def on_class(self, *, cls, loader, **kwargs):
        """Leaves out what only Keras calls."""
        for name in _KERAS_ASKS & set(cls.members):
            cls.del_member(name)

    def on_module(self, *, mod, loader, **kwargs):
        """Adds the lazy names."""
        for table in _TABLES & set(mod.attributes):
            value = ast.literal_eval(str(mod.attributes[table].value))
            if isinstance(value, dict):
                for name, room in value.items():
                    mod.set_member(name, griffe.Alias(name, f"{mod.path}.{room}.{name}"))

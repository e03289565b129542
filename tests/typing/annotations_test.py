"""What is public is annotated, and a type checker has seen it used.

That it uses the types rightly, and sees what is wrong, `make lint` tells: it runs mypy on
consumer.py and wrong_uses.py.
"""

import ast
import importlib
import inspect
import pathlib

import pytest

import circle_tf

HERE = pathlib.Path(__file__).absolute().parent
MODULES = ["", "addons.callbacks", "addons.losses", "addons.optimizers", "run_files"]
MODULES += [name for name in circle_tf.__all__ if inspect.ismodule(getattr(circle_tf, name))]


def _ours(function):
    return inspect.isfunction(function) and function.__module__.startswith("circle_tf")


def _methods(cls):
    """The public methods and properties of a class, and what its bases of ours add."""
    for base in cls.__mro__:
        for name, value in vars(base).items():
            value = getattr(value, "fget", getattr(value, "__func__", value))
            if (not name.startswith("_") or name in ("__init__", "__call__")) and _ours(value):
                yield value


def _public():
    """All functions that users call or that type checkers complete."""
    for module in (importlib.import_module(f"circle_tf.{name}".strip(".")) for name in MODULES):
        for value in (getattr(module, name) for name in module.__all__):
            yield from _methods(value) if inspect.isclass(value) else [value] * _ours(value)


FUNCTIONS = {f"{value.__module__}.{value.__qualname__}": value for value in _public()}


def test_functions_are_found():
    assert {
        "circle_tf.losses.circle.circle_loss",
        "circle_tf.layers.heads.CircleHead.__init__",
        "circle_tf.serving.gallery.Gallery.load",
        "circle_tf.serving.gallery.Gallery.dim",
        "circle_tf.run_files.load_model",
    } <= FUNCTIONS.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_are_annotated(name):
    signature = inspect.signature(FUNCTIONS[name])
    given = {**signature.parameters}
    for first in ("self", "cls"):
        given.pop(first, None)
    bare = [name for name, parameter in given.items() if parameter.annotation is parameter.empty]
    assert (bare, signature.return_annotation is not signature.empty) == ([], True)


def test_a_type_checker_sees_every_public_name_used():
    used = {
        node.attr
        for node in ast.walk(ast.parse((HERE / "consumer.py").read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert {*circle_tf.__all__} - used == set()

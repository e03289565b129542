"""The seam between Keras 3 and Keras 2, on whichever of them runs."""

import ast
import pathlib

import keras
import pytest
import tensorflow as tf

from circle_tf import compat
from tests import stacks

LIBRARY = pathlib.Path(compat.__file__).parent


def test_the_running_keras_is_told():
    assert compat.IS_KERAS_3 == hasattr(keras, "KerasTensor")


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_exact_weights_are_not_rounded_in_a_call(policy):
    class Layer(keras.layers.Layer):
        def build(self, input_shape):
            self.exact = compat.add_exact_weight(self, name="w", shape=(2,), initializer="ones")
            self.built = True

        def call(self, inputs):
            (exact,) = stacks.tensors([self.exact])
            return exact + 1e-5

    assert float(Layer(dtype=policy)(tf.zeros([2]))[0]) > 1


@stacks.needs_keras_3
def test_the_default_stack_is_let_through():
    compat.require_keras_3("anything")
    spec = compat.output_spec((None, 3), "float32")
    assert spec.shape == (None, 3) and spec.dtype == "float32"


@pytest.mark.skipif(compat.IS_KERAS_3, reason="the refusal is of the other stack")
def test_the_other_stack_is_told_what_to_do():
    with pytest.raises(NotImplementedError, match=r"Pooling needs Keras 3.*docs/migrating"):
        compat.require_keras_3("Pooling")


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=lambda path: path.stem)
def test_no_other_module_asks_for_the_version(path):
    names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "attr")}
    assert path.name == "compat.py" or not names & {"IS_KERAS_3", "KerasTensor"}

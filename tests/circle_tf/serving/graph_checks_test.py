"""What a graph is said to hold is what its served outputs run, at any depth, and no more."""

import tensorflow as tf

from circle_tf.serving import graph_checks
from tests import stacks

pytestmark = stacks.needs_keras_3


def _graph(function):
    spec = tf.TensorSpec([None], tf.float32)
    concrete = tf.function(function, input_signature=[spec]).get_concrete_function()
    return concrete.graph.as_graph_def(), [tensor.name for tensor in concrete.outputs]


def _ops(function):
    return {node.op for node in graph_checks.served_nodes(*_graph(function))}


def test_finds_what_outputs_need_through_nested_functions():
    inner = tf.function(lambda x: tf.exp(x))
    outer = tf.function(lambda x: inner(x) + 1.0)
    assert {"Exp", "AddV2", "Placeholder"} <= _ops(lambda x: outer(x) * 2.0)


def test_finds_branches_and_loops():
    def loop(x):
        x = tf.while_loop(lambda y: tf.reduce_sum(y) < 1, lambda y: [tf.sinh(y)], [x])[0]
        return tf.cond(x[0] > 0, lambda: tf.cosh(x), lambda: tf.atan(x))

    assert {"Sinh", "Cosh", "Atan"} <= _ops(loop)


def test_leaves_out_what_no_output_needs():
    def with_spare_part(x):
        tf.exp(x)
        return tf.sin(x)

    assert "Sin" in _ops(with_spare_part) and "Exp" not in _ops(with_spare_part)


def test_control_inputs_count():
    def checked(x):
        with tf.control_dependencies([tf.debugging.Assert(x[0] > 0, [x])]):
            return tf.identity(x)

    assert "Assert" in _ops(checked)


def test_names_what_is_forbidden_and_why():
    noisy = tf.function(lambda x: x + tf.random.stateless_uniform([1], [1, 2]))
    found = graph_checks.forbidden_nodes(*_graph(lambda x: noisy(x) * 2.0))
    assert found == sorted(set(found)) and len(found) > 0
    assert all("StatelessRandom" in one and "(random numbers)" in one for one in found)


def test_a_plain_graph_holds_nothing_forbidden():
    assert graph_checks.forbidden_nodes(*_graph(lambda x: tf.nn.softmax(x))) == []

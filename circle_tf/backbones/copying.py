"""Weights from one net into the same net for images of another size, layer by layer."""

import difflib
import itertools
import re

import keras

from circle_tf.backbones import positions, weight_files

__all__ = ["copy"]

_SHOWN = 3  # Differences that an error tells.


def copy(trained, net, *, path, name, partial=False):
    """Gives a net the weights of another one.

    Layers are told apart by their order and their weights' names and shapes; Keras' own names
    count the layers of a process. The images' size may differ: see `positions.fitted`.

    Args:
        trained: `keras.Model`, to copy from.
        net: `keras.Model`, to copy to.
        path: where the former is from, for errors.
        name: what to call the latter in errors.
        partial: whether to copy the layers that are alike where not all are, with a warning.

    Raises:
        ValueError: another net; then nothing is changed.
    """
    there, here = list(_layers(trained)), list(_layers(net))
    theirs, ours = list(map(_described, there)), list(map(_described, here))
    pairs = itertools.zip_longest(theirs, ours)
    differ = [(number, *pair) for number, pair in enumerate(pairs, 1) if pair[0] != pair[1]]
    if differ and not partial:
        shown = "; ".join(
            f"layer {number}: {other or 'none'} there, {own or 'none'} here"
            for number, other, own in differ[:_SHOWN]
        )
        raise ValueError(
            f"{path} holds another net than {name} for images of "
            f"{net.input_shape[-1]} channel(s): {len(differ)} of {len(here)} layers with "
            f"weights differ ({shown}{'; ...' if len(differ) > _SHOWN else ''}). To load what "
            "fits, set partial_weights."
        )
    alike = difflib.SequenceMatcher(None, theirs, ours, autojunk=False).get_matching_blocks()
    places = [(block.a + n, block.b + n) for block in alike for n in range(block.size)]
    if missing := [here[n].name for n in sorted({*range(len(here))} - {b for _, b in places})]:
        weight_files.tell_missing(missing, of=len(here), path=path, name=name)
    values = [_values(here[b], there[a]) for a, b in places]
    for (_, number), weights in zip(places, values, strict=True):
        here[number].set_weights(weights)


def _values(layer, other):
    return [
        positions.fitted(weight, layer, other_weight, other)
        if positions.depends_on_size(weight)
        else keras.ops.convert_to_numpy(other_weight)
        for weight, other_weight in zip(layer.weights, other.weights, strict=True)
    ]


def _layers(model):
    """The layers that have weights, also of nets within, in the order of the graph."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        elif layer.weights:
            yield layer


def _described(layer):
    return " ".join(map(_described_weight, layer.weights))


def _described_weight(weight):
    # Unnamed weights are `variable_7`, by their number in the process.
    name, shape = re.sub(r"_\d+$", "", weight.name), list(weight.shape)
    if positions.depends_on_size(weight):
        shape = ["positions", *([] if name == "position_ids" else shape[-1:])]
    return f"{name} {shape}"

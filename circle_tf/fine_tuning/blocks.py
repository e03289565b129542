"""The blocks of a net, from its input to its output: what its depth is counted in."""

import difflib
import math
import re
from typing import NamedTuple

import keras

__all__ = ["Block", "blocks_of", "first_trained"]

# As keras.applications, keras-cv and KerasHub name the layers of a block: conv2_block1_1_conv,
# block1a_dwconv, block_8_project, transformer_block_3.
_NAMED = re.compile(r"(.*(?:block|expanded_conv|encoder_layer)_?\d*[a-z]?)(?:_|$)")
_MERGES = (keras.layers.Add, keras.layers.Average, keras.layers.Concatenate)


class Block(NamedTuple):
    """Layers at one depth, and the name that they have in common, or that of the first."""

    name: str
    layers: list


class _Unit(NamedTuple):
    path: str
    layer: keras.layers.Layer

    @property
    def is_merge(self):
        return isinstance(self.layer, _MERGES)

    @property
    def has_kernel(self):
        return any(len(weight.shape) > 1 for weight in self.layer.weights)


def blocks_of(net):
    """The layers of a net that have weights, in blocks, in the order of the graph.

    Layers named as those of a block are one. Where none is, a block ends where branches merge; of
    a net without branches each layer with a kernel is one. Normalisation goes with what is before.

    Args:
        net: keras.Model; nets within it are taken apart.

    Returns:
        list of `Block`, from the input to the output.

    Raises:
        ValueError: the net has no weights.

    Example:
        >>> names = ["stem", "block_1_conv", "block_1_bn", "block_2_conv"]
        >>> net = keras.Sequential([keras.Input((2,)), *(
        ...     keras.layers.BatchNormalization(name=name) if "bn" in name
        ...     else keras.layers.Dense(2, name=name) for name in names)])
        >>> [(block.name, len(block.layers)) for block in blocks_of(net)]
        [('stem', 1), ('block_1', 2), ('block_2', 1)]
    """
    units = list({id(unit.layer): unit for unit in _units(net)}.values())
    if not any(unit.layer.weights for unit in units):
        raise ValueError(
            f"Expected a backbone with weights; {net.name!r} has none. Build it, or give the model "
            "that holds the layers."
        )
    named = any(_name_of(unit) for unit in units)
    found = _by_name(units) if named else _by_structure(units)
    return [Block(name, layers) for name, layers in found.items()]


def first_trained(blocks, start):
    """The number of the first block that trains.

    Args:
        blocks: as of `blocks_of`.
        start: None for all, a share 0..1 of the blocks that stays frozen (1: none trains), or the
            name of a block or of a layer in it, or how a block's name begins, up to a `_`.

    Returns:
        int, from 0 to the number of blocks.

    Raises:
        ValueError: a share out of range, a name that none has.

    Example:
        >>> blocks = [Block("stem", []), Block("block_1", []), Block("block_2", [])]
        >>> [first_trained(blocks, start) for start in (None, 0.5, 1, "block_1")]
        [0, 2, 3, 1]
    """
    if start is None:
        return 0
    if not isinstance(start, str):
        if not 0 <= start <= 1:
            raise ValueError(
                "unfreeze_from must be a share from 0 to 1 of the blocks, or the name of one; "
                f"found {start!r}."
            )
        return math.ceil(round(start * len(blocks), 6))
    for number, block in enumerate(blocks):
        last = block.name.rpartition("/")[2]
        names = {block.name, last, *(layer.name for layer in block.layers)}
        if start in names or last.startswith(f"{start}_"):
            return number
    known = [block.name.rpartition("/")[2] for block in blocks]
    close = difflib.get_close_matches(start, known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Its blocks: {', '.join(known)}."
    raise ValueError(f"unfreeze_from: the backbone has no block or layer {start!r}. {hint}")


def _units(layer, path=""):
    for below in _keras_private().layers_within(layer):
        if _is_taken_apart(below):
            yield from _units(below, f"{path}{below.name}/")
        else:
            unit = _Unit(path + below.name, below)
            if below.weights or unit.is_merge:
                yield unit


def _is_taken_apart(layer):
    below = _keras_private().layers_within(layer)
    held = {id(weight) for inner in below for weight in inner.weights}
    if not held or any(id(weight) not in held for weight in layer.weights):
        return False
    # An encoder may be a layer that holds its blocks.
    blocks = [inner for inner in below if _NAMED.match(inner.name)]
    return isinstance(layer, keras.Model) or len(blocks) > 1


def _name_of(unit):
    folder, _, name = unit.path.rpartition("/")
    found = _NAMED.match(name)
    return found and f"{folder}/{found[1]}".lstrip("/")


def _by_name(units):
    names = {_name_of(unit) for unit in units} - {None}
    groups, group = {}, None
    for unit in (unit for unit in units if unit.layer.weights):
        name = _name_of(unit)
        # Without a name: the stem, or what stands between blocks or behind them.
        if name or group is None or (group in names and unit.has_kernel):
            group = name or unit.path
        groups.setdefault(group, []).append(unit.layer)
    return groups


def _by_structure(units):
    merges, groups, ended = any(unit.is_merge for unit in units), {}, True
    for unit in units:
        if unit.is_merge:
            ended = True
            continue
        if ended or (unit.has_kernel and not merges):
            groups[unit.path] = []
            ended = False
        groups[next(reversed(groups))].append(unit.layer)
    return _joined(groups)


def _joined(groups):
    """Groups without a kernel go with the one before."""
    joined = {}
    for name, layers in groups.items():
        has_kernel = any(len(w.shape) > 1 for layer in layers for w in layer.weights)
        if has_kernel or not joined:
            joined[name] = layers
        else:
            joined[next(reversed(joined))] += layers
    return joined


def _keras_private():
    from circle_tf.training import keras_private  # Needs Keras 3.

    return keras_private

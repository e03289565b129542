"""Nets of the user's: what a function makes, and what a `.keras` file holds."""

import importlib

import keras

from circle_tf.backbones import pretrained, weight_files

__all__ = ["is_file", "is_function", "outputs"]


def is_file(name):
    """Whether a backbone's name is the path of a saved model."""
    return name.endswith(".keras")


def is_function(name):
    """Whether a backbone's name is `module:function`."""
    return ":" in name and not is_file(name)


def outputs(inputs, name, *, weights=None, partial=False):
    """What a net of the user's makes of pixels.

    Args:
        inputs: Keras tensor `[B, H, W, C]`, pixels in 0..255; the net scales them itself.
        name: str, `module:function` (called with `(H, W, C)`, it returns a `keras.Model`) or the
            path of a `.keras` file, of which all up to a layer named `features` is taken where
            there is one.
        weights: path of a file with the net's weights, or None for those that it comes with.
        partial: whether the file may hold a part of them.

    Returns:
        Keras tensor: features `[B, F]`, tokens `[B, T, F]` or maps `[B, H, W, F]`.

    Raises:
        ValueError: no such function, or what it returns is no net for these images.
    """
    shape = tuple(inputs.shape[1:])
    net = _from_file(name) if is_file(name) else _from_function(name, shape)
    _check(net, name, shape)
    weight_files.load(net, weights, name=name, partial=partial)
    found = net(inputs)
    if isinstance(found, (dict, list, tuple)) or len(found.shape) not in (2, 3, 4):
        raise ValueError(
            f"The backbone {name!r} must end in one tensor: features [B, F], tokens [B, T, F] or "
            f"maps [B, H, W, F]; found {_shapes(found)}."
        )
    return found


def _from_file(path):
    model = pretrained.load_model(path)
    return pretrained.up_to_features(model) or model


def _from_function(name, shape):
    module, _, function = name.rpartition(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except AttributeError as error:
        raise ValueError(f"The module {module!r} has no function {function!r}.") from error
    except Exception as error:  # Whatever the user's module raises when it is imported.
        raise ValueError(
            f"The backbone {name!r} means the function {function!r} of a module {module!r}, which "
            f"cannot be imported ({_said(error)}). Run the command where the module is, or put its "
            "folder on PYTHONPATH."
        ) from error
    try:
        return make(shape)
    except Exception as error:
        raise ValueError(f"The backbone {name!r} failed with {shape}: {_said(error)}.") from error


def _check(net, name, shape):
    if not isinstance(net, keras.Model):
        raise ValueError(
            f"The backbone {name!r} must return a keras.Model from pixels to features; found "
            f"{type(net).__name__}."
        )
    wanted = [tuple(tensor.shape[1:]) for tensor in net.inputs or []]
    fits = len(wanted) == 1 and len(wanted[0]) == 3
    if not fits or any(side not in (None, own) for side, own in zip(wanted[0], shape, strict=True)):
        raise ValueError(
            f"The backbone {name!r} takes {' and '.join(map(str, wanted)) or 'nothing'}; expected "
            f"one batch of images {shape}, the size of the data set's images."
        )


def _shapes(found):
    return [tuple(tensor.shape) for tensor in keras.tree.flatten(found)]


def _said(error):
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0].rstrip('.')}" if text else type(error).__name__

"""Weights of a net from a file of weights alone."""

import os
import re
import warnings

__all__ = ["listed", "load", "tell_missing"]

_SHOWN = 8  # Layers that an error or a warning names.


def load(net, path, *, name, partial=False):
    """Gives a net the weights in a file.

    Args:
        net: `keras.Model`.
        path: its file, `.weights.h5` or Keras' older `.h5`; None for none.
        name: what to call the net in an error.
        partial: whether to load what fits where not all does, with a warning of what does not.

    Raises:
        ValueError: they are another net's; with `partial`, of none of its layers.
    """
    if path is None:
        return
    try:
        missing, problem = _loaded(net, os.fspath(path), partial=partial)
    except (ValueError, KeyError, OSError) as error:
        # Keras adds an example and a list of all layers, in paragraphs.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(_other(path, name, " ".join(lines[:2]))) from error
    if problem and not partial:
        raise ValueError(_other(path, name, f"{problem}. To load what fits, set partial_weights"))
    if missing:
        tell_missing(missing, of=len(_with_weights(net)), path=path, name=name)


def tell_missing(missing, *, of, path, name):
    """Warns of layers that a file had no weights for.

    Args:
        missing: list of str, names of layers.
        of: int, how many layers of the net have weights.
        path: the file.
        name: what to call the net.

    Raises:
        ValueError: it had weights for none.
    """
    if len(missing) >= of:
        raise ValueError(f"{path} holds weights of no layer of {name}: nothing is loaded.")
    warnings.warn(
        f"{len(missing)} of {of} layers of {name} keep their own weights, for which {path} has "
        f"none that fit: {listed(missing)}.",
        stacklevel=2,
    )


def listed(names, *, shown=_SHOWN):
    """The first of several names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _loaded(net, path, *, partial):
    """Names of layers whose weights are not in the file, and what is wrong, or None."""
    older = not path.endswith((".weights.h5", ".weights.json"))
    # By order an older file fits a net of the same layers only; by name also a part of it.
    how = {"by_name": True} if older and partial else {}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        net.load_weights(path, skip_mismatch=partial or not older, **how)
    told = [str(entry.message) for entry in told if issubclass(entry.category, UserWarning)]
    # Keras' last line of `.weights.h5` names all layers; older files have a warning for each.
    missing = [
        found
        for text in told
        for found in re.findall(r"<\w+ name=([^,>]+)|\(named ([^ )]+)", text.splitlines()[-1])
    ]
    missing = list(dict.fromkeys("".join(found) for found in missing))
    if how:
        missing += [
            layer for layer in _with_weights(net) if layer not in _names_in(path) | {*missing}
        ]
    if missing:
        return missing, f"{len(missing)} layers differ ({listed(missing)})"
    if told:
        return missing, told[0].splitlines()[0]
    surplus = 0 if older else _weights_in(path) - len(net.variables)
    problem = f"it holds {surplus} weights more than the net has" if surplus > 0 else None
    return missing, problem


def _with_weights(net):
    return [layer.name for layer in net.layers if layer.weights]


def _names_in(path):
    """Names of the layers in one of Keras' older files."""
    import h5py  # Keras brings it.

    with h5py.File(path) as file:
        group = file if "layer_names" in file.attrs else file["model_weights"]
        return {getattr(name, "decode", lambda name=name: name)() for name in group}


def _weights_in(path):
    """How many weights a `.weights.h5` file holds, without an optimizer's; 0 of several files."""
    import h5py

    if path.endswith(".json"):
        return 0
    found = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, entry: (
                found.append(name)
                if isinstance(entry, h5py.Dataset) and not name.startswith(("optimizer", "metrics"))
                else None
            )
        )
    return len(found)


def _other(path, name, problem):
    return f"{path} does not hold the weights of {name} alone, as Keras writes them: {problem}."

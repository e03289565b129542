"""Weights of a net from a file of weights alone."""

import warnings

__all__ = ["load"]


def load(net, path, *, name):
    """Gives a net the weights in a file.

    Args:
        net: `keras.Model`.
        path: its file, `.weights.h5` or Keras' older `.h5`; None for none.
        name: what to call the net in an error.

    Raises:
        ValueError: they are another net's.
    """
    if path is None:
        return
    try:
        with warnings.catch_warnings():
            # Keras warns of layers that keep their random weights, before it fails or does not.
            warnings.simplefilter("error", UserWarning)
            net.load_weights(path)
    except (ValueError, KeyError, OSError, UserWarning) as error:
        # Keras adds an example and a list of all layers, in paragraphs.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(
            f"{path} does not hold the weights of {name} alone, as Keras writes them: "
            f"{' '.join(lines[:2])}"
        ) from error

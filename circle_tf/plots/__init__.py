"""Pictures of embeddings and of training, as matplotlib figures and for TensorBoard.

Each function is imported when it is first asked for: `circle_tf.plots.sheets` is for programs
without TensorFlow too.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # What type checkers, which do not run `__getattr__`, know the names by.
    from circle_tf.plots.decisions import *
    from circle_tf.plots.figures import *
    from circle_tf.plots.projector import *

_MODULES = {
    "decision_thresholds": "decisions",
    "figure_to_image": "figures",
    "retrieval_sheet": "figures",
    "save_png": "figures",
    "similarity_histograms": "figures",
    "similarity_scatter": "figures",
    "training_curves": "figures",
    "write_projector": "projector",
}

__all__ = list(_MODULES)


if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"circle_tf.plots.{_MODULES[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})

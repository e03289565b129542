"""Circle loss for TensorFlow: train embedding models on class-level and pair-wise labels.

    model.compile(optimizer="adam", loss=circle_tf.CircleLoss(margin=0.4, gamma=80.0))
    model.fit(circle_tf.pk_dataset(images, labels, classes_per_batch=32, examples_per_class=4))

The maths stands in `circle_loss`; losses, layers and heads decide where similarities and masks
come from. See Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity Optimization",
CVPR 2020.
"""

import importlib
import sys
from typing import TYPE_CHECKING

import wrapt

from circle_tf.version import __version__

if TYPE_CHECKING:  # What type checkers, which do not run `__getattr__`, know the names by.
    from circle_tf import addons as addons
    from circle_tf import backbones as backbones
    from circle_tf import baselines as baselines
    from circle_tf import callbacks as callbacks
    from circle_tf import fine_tuning as fine_tuning
    from circle_tf import metrics as metrics
    from circle_tf import plots as plots
    from circle_tf import records as records
    from circle_tf import retrieval as retrieval
    from circle_tf import schedules as schedules
    from circle_tf.callbacks import *
    from circle_tf.data import *
    from circle_tf.evaluation import *
    from circle_tf.layers import *
    from circle_tf.losses import *
    from circle_tf.serving import *
    from circle_tf.training import *

# Public name: the room that exports it. Rooms are imported when they are asked for (PEP 562), so
# that neither the version nor what commands do before TensorFlow's start costs its import.
_ROOM_OF = {
    "Calibration": "evaluation",
    "CircleHead": "layers",
    "CircleLoss": "losses",
    "ClassCircleLoss": "losses",
    "Confusion": "evaluation",
    "CosineClassifier": "layers",
    "CrossBatchCircleLoss": "layers",
    "CrossBatchMemory": "layers",
    "DiagnosticsCallback": "callbacks",
    "EmbeddingModel": "training",
    "Gallery": "serving",
    "LabelInspection": "evaluation",
    "PKSampler": "data",
    "PairwiseCircle": "layers",
    "RecordFiles": "data",
    "RetrievalCallback": "callbacks",
    "Suspect": "evaluation",
    "Threshold": "evaluation",
    "UnitEmbedding": "layers",
    "calibrate": "evaluation",
    "circle_loss": "losses",
    "cmc": "evaluation",
    "detection_and_identification_rate": "evaluation",
    "distractor_identification": "evaluation",
    "flip_test_embeddings": "evaluation",
    "inspect_labels": "evaluation",
    "k_fold_accuracy": "evaluation",
    "k_reciprocal_distances": "evaluation",
    "mean_average_precision_at_r": "evaluation",
    "nearest_classes": "evaluation",
    "nearest_neighbours": "evaluation",
    "normalized_mutual_information": "evaluation",
    "pair_similarities": "evaluation",
    "pk_dataset": "data",
    "precision_at_1": "evaluation",
    "r_precision": "evaluation",
    "recall_at_k": "evaluation",
    "reidentification_report": "evaluation",
    "retrieval_report": "evaluation",
    "save_servable": "serving",
    "tar_at_far": "evaluation",
    "template_embeddings": "evaluation",
    "template_report": "evaluation",
    "verification_report": "evaluation",
}
_MODULES = (
    "addons",
    "backbones",
    "baselines",
    "callbacks",
    "fine_tuning",
    "metrics",
    "plots",
    "records",
    "retrieval",
    "schedules",
)
_WITHOUT_KERAS = {"utils", "version"}

__all__ = ["__version__", *_MODULES, *_ROOM_OF]


if not TYPE_CHECKING:  # Else a checker would take every name for known.

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module 'circle_tf' has no attribute {name!r}")
        importlib.import_module("keras")  # First, so that no room is half imported when all are.
        _import_rooms()
        room = sys.modules[f"circle_tf.{_ROOM_OF.get(name, name)}"]
        return globals().setdefault(name, getattr(room, name) if name in _ROOM_OF else room)


def __dir__():
    return sorted({*globals(), *__all__})


def _import_rooms():
    for room in sorted({*_MODULES, *_ROOM_OF.values()}):
        importlib.import_module(f"circle_tf.{room}")


# A `.keras` file loads after `import circle_tf` alone, before or after `import keras`: our classes
# register as soon as there is a Keras to register with.
@wrapt.when_imported("keras")
def _register(_keras):
    ours = (name.split(".")[1] for name in sys.modules if name.startswith("circle_tf."))
    if set(ours) <= _WITHOUT_KERAS:  # Else a room is being imported by its path.
        _import_rooms()

"""Looks for wrong labels and confused classes in labelled images, by a finished run's model.

    python -m trainers.inspect --workdir=runs/photos
    python -m trainers.inspect --workdir=runs/photos --split=train
    python -m trainers.inspect --workdir=runs/photos --images=more_photos --output=looked_at

Prints the most suspect; writes all of them to suspects.csv, the confused classes to
confused_classes.csv, and of both a sheet of pictures with their nearest neighbours.
"""

from absl import flags

from circle_tf.utils import quiet
from trainers.cli import commands

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.")
_BEST = flags.DEFINE_bool("best", False, "The model that was best in training, not the last.")
_SPLIT = flags.DEFINE_enum(
    "split",
    "test",
    ["test", "train"],
    "Which examples of the run's data: test, which it has not learnt, or train, of whose errors "
    "it has learnt some.",
)
_IMAGES = flags.DEFINE_string("images", "", "A folder per class of other images to look at.")
_OUTPUT = flags.DEFINE_string("output", "", "Folder to write to; default: inspection/ in the run.")
_EXAMPLES = flags.DEFINE_integer(
    "examples", 50_000, "At most so many, of whole classes: all are compared.", lower_bound=2
)
_SHOWN = flags.DEFINE_integer("shown", 20, "Rows of each sheet.", lower_bound=1)
flags.mark_flags_as_required(["workdir"])


def main(argv):
    """Looks, and tells where the rest is written."""
    del argv
    quiet.import_tensorflow(log_level=3)
    from trainers.outputs import inspection

    inspection.inspect_run(
        _WORKDIR.value,
        images=_IMAGES.value,
        split=_SPLIT.value,
        best=_BEST.value,
        output=_OUTPUT.value,
        examples=_EXAMPLES.value,
        shown=_SHOWN.value,
    )


if __name__ == "__main__":
    commands.run(main)

r"""Embeds images with a run's model and keeps them as a gallery to publish.

    python -m export.gallery --workdir=runs/photos --images=gallery_photos --output=gallery.npz
    python -m export.publish --workdir=runs/photos --base_path=models/photos --gallery=gallery.npz

The file names the model that made it: publishing it with another one is refused.
"""

from absl import flags

from circle_tf import run_files
from circle_tf.utils import command_lines, quiet
from export.cli import console, runs


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    flags.DEFINE_string("workdir", None, "Directory of a finished training run.", required=True)
    flags.DEFINE_bool("best", False, "With the model that was best in training, not the last.")
    flags.DEFINE_string(
        "images",
        "held_out",
        "Folder of images, a sub-folder per class if there are classes; held_out: the examples "
        "that the run kept.",
    )
    flags.DEFINE_string("output", None, "File to write, .npz.", required=True)
    flags.DEFINE_integer(
        "thumbnails",
        96,
        "Longer side of the thumbnails that go with it in pixels; 64 MiB of them at most; 0 for "
        "none.",
        0,
        1024,
    )
    flags.DEFINE_bool(
        "skip_unreadable",
        False,
        "Leave out files of a folder of images that cannot be read; without, refuse the folder.",
    )


def main(argv):
    """Embeds and writes."""
    del argv
    options = flags.FLAGS
    run = runs.read(options.workdir, best=options.best)
    quiet.import_tensorflow()
    from export.publishing import gallery_sources

    model = runs.load_model(options.workdir, best=options.best)
    shape = run.image_shape or model.input_shape[1:]
    gallery = gallery_sources.load(
        options.images,
        run=run,
        model=model,
        image_shape=shape,
        skip_unreadable=options.skip_unreadable,
        thumbnails=options.thumbnails,
    )
    gallery.save(options.output)
    print(f"Wrote {len(gallery)} embeddings of {gallery.dim} numbers to {options.output}.")
    print(f"  model  {gallery.source}")
    base_path = run_files.RunFiles(options.workdir).suggested_base_path
    words = [f"--workdir={options.workdir}", f"--base_path={base_path}"]
    words += [f"--gallery={options.output}", *(["--best"] if options.best else [])]
    print(f"Next: {command_lines.python_module('export.publish', *words)}")


if __name__ == "__main__":
    define_flags()
    console.run(main)

r"""Asks a server for the nearest neighbours of images.

    python -m export.query --model=glyphs --image=a.png                  # in the model's gallery
    python -m export.query --model=glyphs --build=shop --index=shop.npz  # an index kept here
    python -m export.query --model=glyphs --image=a.png --index=shop.npz --sheet=found.png
    python -m export.query --model=glyphs --held_out=runs/glyphs/held_out.npz --sheet=found.png
    python -m export.query --model=glyphs --image=a.png --same_as=b.png  # Are both of one class?

--target=localhost:8500 is asked by gRPC, --target=http://localhost:8501 by REST: TF Serving, or
`python -m export.serve`.
"""

import json
import os

from absl import flags

from circle_tf.utils import command_lines
from export.cli import console


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    flags.DEFINE_string("target", "localhost:8500", "host:port (gRPC) or http://host:port (REST).")
    flags.DEFINE_string("model", None, "Name of the model on the server.", required=True)
    flags.DEFINE_integer("version", None, "Version to ask; the latest without.", 1)
    flags.DEFINE_string("label", None, "Label of the version to ask, as stable or canary.")
    flags.DEFINE_multi_string("image", [], "Image file, or folder of them. May be repeated.")
    flags.DEFINE_string(
        "held_out", None, "Instead of --image: a run's held_out.npz, whose classes are known."
    )
    flags.DEFINE_integer("count", 5, "How many examples of --held_out to ask about.", 1)
    flags.DEFINE_string(
        "same_as", None, "Image file: say of each --image whether it is of one class with this one."
    )
    flags.DEFINE_bool("json", False, "Print answers as JSON.")
    flags.DEFINE_string("index", None, "Search this index, not the gallery that the model holds.")
    flags.DEFINE_string("build", None, "Embed this folder and write it to --index.")
    flags.DEFINE_bool("skip_unreadable", False, "--build: leave out files that the server refuses.")
    flags.DEFINE_integer("k", 5, "Neighbours to show.", 1)
    flags.DEFINE_enum("backend", "exact", ["exact", "faiss"], "What searches an --index.")
    flags.DEFINE_string("sheet", None, "Also draw queries and neighbours to this file, .png.")
    flags.DEFINE_string(
        "gallery_images",
        None,
        "Folder of the pictures that the model's gallery names, for --sheet.",
    )
    flags.DEFINE_integer("batch_size", 32, "Images a call.", 1)
    flags.DEFINE_float("timeout", 10, "Seconds that a call may take.", 0.001)


def main(argv):
    """Builds an index, asks, or both."""
    del argv
    options = flags.FLAGS
    check_flags(options)
    from export import client

    if not client.is_rest(options.target):
        from circle_tf.utils import quiet

        quiet.import_tensorflow()
    which = {"version": options.version, "label": options.label}
    with client.connect(
        options.target, model=options.model, timeout=options.timeout, **which
    ) as served:
        if options.build:
            print("\n".join(build(served, options)), flush=True)
        if options.same_as:
            print("\n".join(verify(served, options)))
        elif options.image or options.held_out:
            print("\n".join(ask(served, options)))


def check_flags(options):
    """Refuses flags that contradict each other, before anything is loaded.

    Args:
        options: flag values.

    Raises:
        console.ExportError: they do.
    """
    if options.image and options.held_out:
        raise console.ExportError("Give either --image or --held_out.")
    if not (options.image or options.held_out or options.build):
        raise console.ExportError(
            "Give --image=FILE_OR_FOLDER or --held_out=FILE to ask, or --build=FOLDER for an index."
        )
    if options.same_as and not options.image:
        raise console.ExportError("--same_as=FILE needs --image=FILE_OR_FOLDER to compare with it.")
    if options.same_as and (options.index or options.build or options.sheet):
        raise console.ExportError("--same_as=FILE goes without --index, --build and --sheet.")
    if options.json and options.build:
        raise console.ExportError("--json is for answers: build the index by a command of its own.")
    if options.build and not options.index:
        raise console.ExportError("--build=FOLDER needs --index=FILE to write to.")


def build(served, options):
    """Builds an index; returns what to print, in lines."""
    from export.client import index

    made = index.build(
        served,
        options.build,
        batch_size=options.batch_size,
        progress=True,
        skip_unreadable=options.skip_unreadable,
    )
    made.save(options.index)
    line = f"Wrote {len(made)} embeddings of {made.embeddings.shape[1]} numbers to {options.index}."
    if options.image or options.held_out:
        return [line]
    words = {name: getattr(options, name) for name in ("target", "model", "version", "label")}
    words |= {"index": options.index, "image": os.path.join(made.folder, str(made.ids[0]))}
    given = [f"--{name}={value}" for name, value in words.items() if value is not None]
    return [line, f"Next: {command_lines.python_module('export.query', *given)}"]


def ask(served, options):
    """Asks for all queries; returns what to print, in lines."""
    from export.client import answers

    asked = answers.queries(options.image, held_out=options.held_out, count=options.count)
    found = answers.find(
        served,
        asked,
        k=options.k,
        index=options.index,
        backend=options.backend,
        batch_size=options.batch_size,
    )
    lines = answers.table(asked, found)
    if options.json:
        lines = [json.dumps(answers.as_json(asked, found), indent=1, ensure_ascii=False)]
    if options.sheet:
        found.draw(options.sheet, asked, folder=options.gallery_images)
    if options.sheet and not options.json:
        lines.append(f"Drew {options.sheet}.")
    return lines


def verify(served, options):
    """Compares with one image; returns what to print, in lines."""
    from export.client import answers

    asked = answers.queries(options.image)
    found = answers.verify(served, asked, options.same_as, batch_size=options.batch_size)
    if options.json:
        return [json.dumps(found, indent=1, ensure_ascii=False)]
    return [
        f"{one['a']}: {'the same' if one['same'] else 'not the same'} as {one['b']}, "
        f"{one['similarity']:.4f} (the same from {one['threshold']:.4f} on)"
        for one in found
    ]


if __name__ == "__main__":
    define_flags()
    console.run(main)

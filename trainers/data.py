r"""Looks at images, one's own or a published data set, and packs them into TFRecord files.

    python -m trainers.data check --path=FOLDER_OR_TABLE_OR_SHARDS
    python -m trainers.data check --dataset=market1501 --path=FOLDER
    python -m trainers.data convert --path=FOLDER_OR_TABLE --output=SHARDS
    python -m trainers.data check --dataset=tfds:cars196 --path=DATA_DIR
    python -m trainers.data convert --dataset=recordio --path=FOLDER --output=SHARDS

`check` of a published data set tells whether the download is complete and laid out as its authors
do, and what is wrong; of one's own images, how many classes and images there are, their sizes, and
what is wrong. `convert` writes a folder with one sub-folder per class, or the images of a table, as
TFRecord files with an index, which are faster to read from disks that are slow at many small files;
of a published data set, and of a table that divides its images, each part (train, test, query,
gallery) into a folder of its own. Interrupted, the same command goes on.
"""

import contextlib
import os
import sys

from absl import flags

from circle_tf.utils import command_lines, quiet
from trainers.cli import commands

_PATH = flags.DEFINE_string(
    "path", "", "Folder with a sub-folder per class, or table (.csv, .parquet); check: or TFRecord."
)
_COLUMNS = flags.DEFINE_list(
    "columns", [], "Of a table or tfds: what it calls its columns, as label=species,path=file."
)
_DATASET = flags.DEFINE_string(
    "dataset",
    "",
    "A published data set: market1501, msmt17, cub200, cars196, sop, inshop, omniglot, recordio; "
    "tfds:NAME of TensorFlow Datasets; check: also lfw, face_bin, ijbc.",
)
_OUTPUT = flags.DEFINE_string("output", "", "convert: the folder to make for the shards.")
_SHARD_MEGABYTES = flags.DEFINE_integer(
    "shard_megabytes", 128, "convert: size of a shard, about.", lower_bound=1
)

_PROCESSES = flags.DEFINE_integer(
    "processes", 1, "Processes that look at images and write shards.", lower_bound=1
)
_PARALLEL = flags.DEFINE_integer("parallel", 4, "convert: shards written at a time.", lower_bound=1)


def convert(
    path: str,
    *,
    output: str,
    dataset: str = "",
    columns=None,
    shard_bytes: int = 128 << 20,
    workers: int = 4,
    processes: int = 1,
) -> str:
    """Writes images as TFRecord files with indices.

    Each record is a `tf.train.Example` with the features `image` (the file's bytes as they are),
    `label` (int64), `class` (its name), `path` (the file's, within the folder) and, where it is
    known, `camera` (int64). A part of an image, by a table's box, becomes a PNG file. The output
    folder appears when all is written, not before; an interrupted conversion goes on when the same
    is asked for again.

    Args:
        path: folder with a sub-folder for each class, or table (CSV or Parquet); of a published
            data set, where it is.
        output: folder to make; must not exist. Of a published data set, and of a table that is
            divided, each part gets a folder.
        dataset: "", one of `trainers.datasets.LAYOUTS`, "omniglot", "recordio", or
            tfds:NAME, whose data_dir `path` is.
        columns: of a table, as of `trainers.datasets.table.collect`.
        shard_bytes: size of a shard, about.
        workers: shards that are written at a time, by threads of one process.
        processes: above 1: so many processes look at the images and write shards, one each at a
            time, but of recordio. What they write is the same.

    Returns:
        What was done, in lines to print.

    Raises:
        DataError: the output exists, or the images cannot be used.
        OSError: the disk is full, or nothing may be written there.
    """
    from circle_tf.utils.files import disk_errors
    from trainers import datasets
    from trainers.datasets import base, packing, sources

    source = sources.Source(path, dataset, columns)
    output = os.path.normpath(output)
    if os.path.lexists(output):
        raise base.DataError(f"{output} exists and is not overwritten: remove it or name another.")
    options = {"shard_bytes": shard_bytes, "workers": workers}
    # Beside it lies what is written until it is complete.
    with (
        disk_errors(os.path.dirname(output) or "."),
        packing.folder_when_complete(output) as partial,
    ):
        if dataset == "recordio":
            told = _convert_recordio(path, partial, **options)
        elif dataset in datasets.LAYOUTS:
            told = _convert_layout(source, partial, processes=processes, **options)
        else:
            told = _convert_parts(source, partial, processes=processes, **options)
    return "\n".join([*told, f"All is in {output}."])


def _convert_parts(source, output, *, processes, **options):
    """Divided images a part to a folder; a class has the same label in all of them."""
    from trainers.datasets import collection, packing, sources

    parts = sources.collect(source)
    names = sorted({name for found in parts.values() for name in found.class_names})
    numbers, told = {name: number for number, name in enumerate(names)}, []
    with _workers(source, processes) as pool:
        for part, whole in parts.items():
            folder = output if part == "all" else os.path.join(output, part)
            found = collection.drop_unreadable(whole, look=pool and pool.look(part))
            shards = packing.pack(
                packing.of_collection(found, numbers=numbers),
                folder,
                pool=pool and pool.pack(part, whole, found, numbers=numbers, folder=folder),
                **options,
            )
            wrote = _wrote(len(found.labels), len(found.class_names), shards)
            told += [*found.notes, wrote if part == "all" else f"{part}: {wrote}"]
    return told


def _workers(source, processes):
    """Other processes, in a `with` block; None of one."""
    from trainers.datasets import workers

    return contextlib.nullcontext() if processes == 1 else workers.Workers(source, processes)


def _convert_layout(source, output, **options):
    from trainers import datasets

    layout = datasets.read_layout(source.dataset, source.path)
    return [*layout.problems, *_convert_parts(source, output, **options)]


def _convert_recordio(path, output, **options):
    from trainers.datasets import packing
    from trainers.datasets.faces.recordio import RecordIO

    with RecordIO(path) as records:
        shards = packing.pack(packing.of_recordio(records), output, **options)
        return [f"Wrote {len(records)} images in {shards} shards, as they are: none was decoded."]


def _wrote(images, classes, shards):
    return f"Wrote {images} images of {classes} classes in {shards} shards."


def check(path: str, *, dataset: str = "", columns=None, processes: int = 1) -> str:
    """Tells what people's own images are, and what is wrong with them.

    Args:
        path: folder with a sub-folder for each class, table (CSV or Parquet), TFRecord file, or
            folder of such files; of TensorFlow Datasets the data_dir, or empty.
        dataset: "", omniglot, or tfds:NAME.
        columns: of a table, as of `trainers.datasets.table.collect`.
        processes: that look at the images.

    Returns:
        The report, in lines.

    Raises:
        DataError: there is nothing that could be used.
    """
    from trainers.datasets import base, collection, parts, sources, table

    source = sources.Source(path, dataset, columns)
    found, name, lines, problems = sources.collect(source), dataset or path, [], []
    with _workers(source, processes) as pool:
        for part, images in found.items():
            looks = collection.looks(images, look=pool and pool.look(part))
            title = name if part == "all" else f"{name}, {part}"
            told, wrong = _judged(images, looks, title=title, part=part)
            lines += told
            problems += wrong
    if "query" in found:
        problems += parts.unmatched(*(table.seen_by(found[part]) for part in ("query", "gallery")))
    return "\n".join([*lines, *base.findings(problems, none="Nothing is wrong.")])


def _judged(found, looks, *, title, part):
    """(lines, problems) of one part."""
    import numpy as np

    sizes = np.array([look for look in looks if not isinstance(look, str)]).reshape(-1, 2)
    faults = [
        f"unreadable: {name}: {look}"
        for name, look in zip(found.names, looks, strict=True)
        if isinstance(look, str)
    ]
    readable = np.array([not isinstance(look, str) for look in looks])
    counts = np.bincount(found.labels[readable], minlength=len(found.class_names))
    problems = [*found.notes, *faults]
    if part in ("all", "train"):
        problems += _class_problems(counts, found.class_names, is_divided=part == "train")
    lines = [
        f"{title}: {len(looks)} images of {len(found.class_names)} classes, "
        f"{len(faults)} unreadable.",
        f"Images of a class: {counts.min()} to {counts.max()}, median {np.median(counts):g}.",
        *_size_lines(sizes),
    ]
    return lines, problems


def check_dataset(name: str, path: str) -> str:
    """Tells whether a published data set is complete and laid out right, and what is wrong.

    Args:
        name: one of `trainers.datasets.LAYOUTS`, or of `checks.CHECKS` (faces).
        path: the folder it was unpacked into.

    Returns:
        The report, in lines.

    Raises:
        DataError: the name is unknown, or the data set is not there.
    """
    from trainers import datasets
    from trainers.datasets import base
    from trainers.datasets.faces import checks
    from trainers.datasets.published import layouts

    if name in checks.CHECKS:
        return "\n".join(checks.CHECKS[name](path))
    if name not in datasets.LAYOUTS:
        known = ", ".join([*datasets.LAYOUTS, *checks.CHECKS])
        raise base.DataError(f"Expected a data set of {known}; found {name!r}.")
    return "\n".join(layouts.check(datasets.read_layout(name, path)))


def _class_problems(counts, names, *, is_divided):
    """What training would stumble over, given readable images per class."""
    from trainers.datasets import base

    problems = []
    for number, text in ((0, "no readable image"), (1, "one image, which has no other to match")):
        classes = [names[label] for label in range(len(names)) if counts[label] == number]
        if classes:
            problems.append(f"{len(classes)} classes have {text}: {base.sentence_list(classes)}.")
    usable = int((counts > 0).sum())
    if usable < 2:
        problems.append(f"{usable} classes are not enough to train on: there must be two or more.")
    elif usable < 4 and not is_divided:
        problems.append(
            f"{usable} classes are too few to hold any out: give trainers.train others to test on, "
            "--config.dataset.test_path=PATH."
        )
    return problems


def _size_lines(sizes):
    """Histogram of the shorter sides, in powers of two."""
    if not len(sizes):
        return []
    shorter = sizes.min(axis=1)
    lines = [f"Shorter side: {shorter.min()} to {shorter.max()} pixels."]
    powers = [int(side - 1).bit_length() for side in shorter]
    for power in range(min(powers), max(powers) + 1):
        count = powers.count(power)
        bar = "#" * round(40 * count / len(powers))
        lines.append(f"  {(1 << power) // 2 + 1:>6} - {1 << power:<6} {count:>8} {bar}".rstrip())
    return lines


def _main(verb):
    quiet.import_tensorflow(log_level=3)  # What goes wrong is raised as well.
    if not _PATH.value and not _DATASET.value.startswith("tfds:"):
        raise commands.ConfigError("Give the images as --path=FOLDER.")
    columns = _columns(_COLUMNS.value)
    if verb == "check":
        name = _DATASET.value
        is_own = name in ("", "omniglot") or name.startswith("tfds:")
        options = {"dataset": name, "columns": columns, "processes": _PROCESSES.value}
        print(check(_PATH.value, **options) if is_own else check_dataset(name, _PATH.value))
        return
    if not _OUTPUT.value:
        raise commands.ConfigError("Give the folder to make for the shards as --output=FOLDER.")
    print(
        convert(
            _PATH.value,
            output=_OUTPUT.value,
            dataset=_DATASET.value,
            columns=columns,
            shard_bytes=_SHARD_MEGABYTES.value << 20,
            workers=_PARALLEL.value,
            processes=_PROCESSES.value,
        )
    )
    _print_next(_OUTPUT.value)


def _print_next(output):
    """The commands that look at shards and train on them."""
    shards = os.path.join(output, "train")
    shards = shards if os.path.isdir(shards) else output
    check_them = command_lines.python_module("trainers.data", "check", f"--path={shards}")
    print(f"Next: {check_them}")
    options = [f"--config.dataset.path={shards}"]
    if os.path.isdir(test := os.path.join(output, "test")):
        options.append(f"--config.dataset.test_path={test}")
    train = command_lines.python_module(
        "trainers.train", "--config=configs/tfrecord.py", *options, "--workdir=runs/tfrecord"
    )
    print(f"      {train}")


def _columns(given):
    """The mapping of --columns."""
    from trainers.datasets import table

    found = dict(pair.partition("=")[::2] for pair in given)
    if odd := [f"{name}={value}" for name, value in found.items() if name not in table.COLUMNS]:
        raise commands.ConfigError(
            f"--columns takes {', '.join(f'{name}=NAME' for name in table.COLUMNS)}, with commas "
            f"between; found {odd[0]!r}."
        )
    return found


def _verb():
    """Takes `check` or `convert` from the command line, which flags do not know."""
    if sys.argv[1:] and sys.argv[1] in ("check", "convert"):
        return sys.argv.pop(1)
    if not {"--help", "-h", "--helpfull", "--helpshort"} & set(sys.argv):
        sys.exit(f"error: expected `check` or `convert`.\n{__doc__}")
    return "check"


if __name__ == "__main__":
    chosen = _verb()
    commands.run(lambda argv: _main(chosen))

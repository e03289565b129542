r"""Looks at images, one's own or a published data set, and packs them into TFRecord files.

    python -m trainers.data check --path=FOLDER_OR_SHARDS
    python -m trainers.data check --dataset=market1501 --path=FOLDER
    python -m trainers.data convert --path=FOLDER --output=SHARDS

`check` of a published data set tells whether the download is complete and laid out as its authors
do, and what is wrong; of one's own images, how many classes and images there are, their sizes, and
what is wrong. `convert` writes a folder with one sub-folder per class as TFRecord files with an
index, which are faster to read from disks that are slow at many small files.
"""

import contextlib
import os
import shutil
import sys

from absl import flags

from trainers import commands, quiet

_PATH = flags.DEFINE_string("path", "", "Folder with a sub-folder per class; check: or TFRecord.")
_DATASET = flags.DEFINE_string(
    "dataset", "", "check: a published data set: market1501, msmt17, cub200, cars196, sop, inshop."
)
_OUTPUT = flags.DEFINE_string("output", "", "convert: the folder to make for the shards.")
_SHARD_MEGABYTES = flags.DEFINE_integer(
    "shard_megabytes", 128, "convert: size of a shard, about.", lower_bound=1
)


def convert(path: str, *, output: str, shard_bytes: int = 128 << 20) -> str:
    """Writes the images of a folder as TFRecord files with indices.

    Each record is a `tf.train.Example` with the features `image` (the file's bytes as they are),
    `label` (int64, the class's place in alphabetical order), `class` (its name) and `path` (the
    file's, within the folder). The output folder appears when all is written, not before.

    Args:
        path: folder with a sub-folder for each class.
        output: folder to make; must not exist.
        shard_bytes: size of a shard, about.

    Returns:
        What was done, in lines to print.

    Raises:
        DataError: the output exists, or the images cannot be used.
    """
    from trainers.datasets import base, collection, folder

    output = os.path.normpath(output)
    if os.path.lexists(output):
        raise base.DataError(f"{output} exists and is not overwritten: remove it or name another.")
    found = collection.drop_unreadable(folder.collect(path))
    with _folder_when_complete(output) as partial:
        shards = _write_shards(found, partial, shard_bytes=shard_bytes)
    return "\n".join(
        [
            *found.notes,
            f"Wrote {len(found.labels)} images of {len(found.class_names)} classes in {shards} "
            f"shards to {output}.",
        ]
    )


def check(path: str) -> str:
    """Tells what a folder or TFRecord files hold, and what is wrong with them.

    Args:
        path: folder with a sub-folder for each class, TFRecord file, or folder of such files.

    Returns:
        The report, in lines.

    Raises:
        DataError: there is nothing that could be used.
    """
    import numpy as np

    from trainers.datasets import collection, folder, tfrecord

    found = tfrecord.collect(path) if _holds_records(path) else folder.collect(path)
    looks = collection.inspect(found, rows=np.arange(len(found.labels)))
    sizes = np.array([look for look in looks if not isinstance(look, str)]).reshape(-1, 2)
    faults = [
        f"unreadable: {name}: {look}"
        for name, look in zip(found.names, looks, strict=True)
        if isinstance(look, str)
    ]
    readable = np.array([not isinstance(look, str) for look in looks])
    counts = np.bincount(found.labels[readable], minlength=len(found.class_names))
    problems = [*found.notes, *faults, *_class_problems(counts, found.class_names)]
    return "\n".join(
        [
            f"{path}: {len(looks)} images of {len(found.class_names)} classes, "
            f"{len(faults)} unreadable.",
            f"Images of a class: {counts.min()} to {counts.max()}, median {np.median(counts):g}.",
            *_size_lines(sizes),
            *(["Wrong or odd:"] if problems else ["Nothing is wrong."]),
            *(f"  {problem}" for problem in problems),
        ]
    )


def check_dataset(name: str, path: str) -> str:
    """Tells whether a published data set is complete and laid out right, and what is wrong.

    Args:
        name: one of `trainers.datasets.LAYOUTS`.
        path: the folder it was unpacked into.

    Returns:
        The report, in lines.

    Raises:
        DataError: the name is unknown, or the data set is not there.
    """
    from trainers import datasets
    from trainers.datasets import layouts

    return "\n".join(layouts.check(datasets.read_layout(name, path)))


def _class_problems(counts, names):
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
    elif usable < 4:
        problems.append(f"{usable} classes are too few to hold any out: give test_path to train.")
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


def _holds_records(path):
    if os.path.isfile(path):
        return True
    return os.path.isdir(path) and any("tfrecord" in name for name in os.listdir(path))


@contextlib.contextmanager
def _folder_when_complete(output):
    """A folder to write into, which gets its name only when all went well."""
    partial = f"{output}.{os.getpid()}.partial"
    os.makedirs(partial)
    try:
        yield partial
        os.rename(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_shards(found, folder, *, shard_bytes):
    """Writes shards with their indices; returns how many."""
    import numpy as np
    import tensorflow as tf
    import tqdm

    from circle_tf.records import write_index

    sizes = np.array([os.path.getsize(file) for file in found.examples])
    count = min(len(sizes), max(1, -(-int(sizes.sum()) // shard_bytes)))
    # The shard in which the middle of each image comes to lie.
    shard_of = ((np.cumsum(sizes) - sizes / 2) * count / sizes.sum()).astype(int)
    with tqdm.tqdm(total=len(sizes), desc="writing images", disable=None) as bar:
        for shard in range(count):
            path = os.path.join(folder, f"images-{shard:05d}-of-{count:05d}.tfrecord")
            with tf.io.TFRecordWriter(path) as writer:
                for row in np.flatnonzero(shard_of == shard):
                    writer.write(_example(found, row).SerializeToString())
                    bar.update()
            write_index(path)
    return count


def _example(found, row):
    import tensorflow as tf

    label, file = int(found.labels[row]), found.examples[row]
    with open(file, "rb") as stream:
        content = stream.read()
    texts = {
        "image": content,
        "class": os.fsencode(found.class_names[label]),
        "path": os.fsencode(os.path.relpath(file, found.root)),
    }
    feature = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
        for name, text in texts.items()
    }
    feature["label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    return tf.train.Example(features=tf.train.Features(feature=feature))


def _main(verb):
    quiet.import_tensorflow()
    if not _PATH.value:
        raise commands.ConfigError("Give the images as --path=FOLDER.")
    if verb == "check":
        name = _DATASET.value
        print(check_dataset(name, _PATH.value) if name else check(_PATH.value))
        return
    if not _OUTPUT.value:
        raise commands.ConfigError("Give the folder to make for the shards as --output=FOLDER.")
    print(convert(_PATH.value, output=_OUTPUT.value, shard_bytes=_SHARD_MEGABYTES.value << 20))
    print(
        f"Next: python -m trainers.data check --path={_OUTPUT.value}\n"
        "      python -m trainers.train --config=configs/tfrecord.py "
        f"--config.dataset.path={_OUTPUT.value} --workdir=runs/tfrecord"
    )


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

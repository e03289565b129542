"""People's own labelled images, checked, and divided into classes to train on and to test on."""

import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tqdm
from absl import logging

from circle_tf.data import decoding, pipeline
from circle_tf.utils import errors, files
from trainers.datasets import base, images, places, views

__all__ = [
    "Collection",
    "drop_unreadable",
    "held_out",
    "inspect",
    "looks",
    "name_hash",
    "to_dataset",
    "turned",
]


_LOOK = np.dtype([("mark", np.uint64), ("height", np.int32), ("width", np.int32)])
_PIECE, _PIECES = 2048, 64  # Images after which what is known is kept; and at most so many times.


@dataclasses.dataclass(frozen=True, eq=False)
class Collection:
    """Labelled images as they were found.

    Args:
        root: where they were found, for messages.
        examples: paths `[N]`, or as of `base.Split` what is fetched.
        labels: class of each example `[N]`, positions in `class_names`.
        class_names: name of each class.
        names: what to call each example in messages `[N]`.
        fingerprints: a text for each example `[N]` that changes when its content does.
        identities: as of `base.Split`.
        content: `fn(bytes of file or record) -> bytes of the image`, in TensorFlow operations.
        notes: what is odd about them, in lines to print.
        cameras: as of `base.Split`.
    """

    root: str
    examples: object
    labels: np.ndarray
    class_names: tuple[str, ...]
    names: np.ndarray
    fingerprints: np.ndarray
    identities: np.ndarray
    content: Callable[[tf.Tensor], tf.Tensor]
    notes: tuple[str, ...] = ()
    cameras: np.ndarray | None = None

    def take(self, rows) -> "Collection":
        """Some of the examples; classes left without any go too."""
        kept = np.unique(self.labels[rows])
        return dataclasses.replace(
            self,
            examples=self.examples.take(rows),
            labels=base.relabel(self.labels[rows], classes=kept),
            class_names=tuple(self.class_names[label] for label in kept),
            names=self.names[rows],
            fingerprints=self.fingerprints[rows],
            identities=self.identities[rows],
            cameras=None if self.cameras is None else self.cameras[rows],
        )

    def split(self, image_shape) -> base.Split:
        """The examples with what decodes them to `(H, W, C)`."""
        return base.Split(
            self.examples,
            self.labels,
            self.class_names,
            decoding.image_decoder(image_shape, decode=self.decode),
            cameras=self.cameras,
            identities=self.identities,
            fingerprints=self.fingerprints,
        )

    def file_content(self, row) -> bytes:
        """The bytes of an image file: the example's own, or of a part of an image a PNG."""
        if not hasattr(self.examples, "fetch"):
            return places.read(self.examples[row])
        data = tf.constant(self.examples.fetch([row])[0])
        if isinstance(self.examples, views.Views):
            return tf.io.encode_png(self.decode(data)).numpy()
        return self.content(data).numpy()

    def sizes(self) -> np.ndarray:
        """Bytes of each example `[N]`, 0 where it is not there."""
        files = self._files()
        if hasattr(files, "fetch"):
            return files.lengths
        found = places.statuses(files)
        return np.array([0 if status is None else status.size for status in found])

    def path_within(self, row) -> str:
        """Where an example lies in the data set."""
        files = self._files()
        if hasattr(files, "fetch"):
            return str(self.names[row])
        root = self.root if os.path.isdir(self.root) else os.path.dirname(self.root)
        return files[row].removeprefix(root).lstrip("/")

    def _files(self):
        """Paths, or what is fetched, beneath parts of images."""
        is_part = isinstance(self.examples, views.Views)
        return self.examples.examples if is_part else self.examples

    def decode(self, data):
        """The image of a file or record as it is shown, `[H, W, 3]` uint8, in TensorFlow."""
        if isinstance(self.examples, views.Views):
            return views.decode(data, content=self.content)
        return decoding.decode(self.content(data))


def to_dataset(name: str, collection: Collection, tests: Collection | None, config) -> base.Dataset:
    """Checks the images and divides the classes.

    Args:
        name: name of the data set.
        collection: what to train on, and where `tests` is None to test on too.
        tests: what to test on, or None to hold classes of `collection` out.
        config: the fields of `images.image_shape`, `test_fraction` (share of the classes to hold
            out, default 0.2), `test_classes` (names of the classes to hold out, instead of a
            share; default: none), `turned_classes` (default False; True: images turned by 90, 180
            and 270 degrees are classes to train on as well), `verify` (default True: decode every
            image once before training starts).

    Returns:
        The data set; without queries and gallery.

    Raises:
        DataError: no image can be read, or there are too few classes.
    """
    shape = images.image_shape(config)
    parts = [part for part in (collection, tests) if part is not None]
    if config.get("verify", True):
        parts = [drop_unreadable(part) for part in parts]
    _check_classes(parts[0], at_least=2, use="train on")
    notes = [note for part in parts for note in part.notes]
    if tests is None:
        if names := config.get("test_classes", ()):
            parts = _hold_out_named(parts[0], names)
        else:
            parts = _hold_out(parts[0], fraction=config.get("test_fraction", 0.2))
    train, test = parts
    notes += _class_notes(train, test)
    if config.get("turned_classes", False):
        train = turned(train)
    return base.Dataset(
        name=name,
        train=train.split(shape),
        test=test.split(shape),
        queries=None,
        gallery=None,
        image_shape=shape,
        report="\n".join(
            [f"{name}: {_describe(train)} to train on, {_describe(test)} to test on."] + notes
        ),
    )


def turned(found: Collection) -> Collection:
    """The images, and as classes of their own the same turned by 90, 180 and 270 degrees.

    Args:
        found: images that are not turned.

    Returns:
        Four times as many images of four times as many classes.
    """
    count, classes = len(found.labels), len(found.class_names)
    turns = np.repeat(np.arange(4), count)
    rows = np.tile(np.arange(count), 4)
    angles = ["", *(f" turned {90 * turn}" for turn in (1, 2, 3))]
    told = np.array(angles, object)[turns]
    is_part = isinstance(found.examples, views.Views)
    files = found.examples.examples if is_part else found.examples
    boxes = found.examples.boxes[rows] if is_part else np.zeros([len(rows), 4], np.int64)
    return dataclasses.replace(
        found,
        examples=views.Views(files.take(rows), boxes, turns),
        labels=found.labels[rows] + classes * turns,
        class_names=tuple(f"{name}{turn}" for turn in angles for name in found.class_names),
        names=found.names[rows],
        fingerprints=found.fingerprints[rows] + told,
        identities=found.identities[rows] + told,
        cameras=None if found.cameras is None else found.cameras[rows],
    )


def drop_unreadable(collection: Collection, *, look=None) -> Collection:
    """The collection without the images that cannot be decoded, which are told by path.

    Args:
        collection: labelled images.
        look: as of `looks`.

    Returns:
        The readable ones; `notes` tells of the others.

    Raises:
        DataError: no image can be decoded.
    """
    found = looks(collection, look=look)
    is_bad = np.array([isinstance(fault, str) for fault in found], bool)
    bad, good = np.flatnonzero(is_bad), np.flatnonzero(~is_bad)
    if not len(bad):
        return collection
    if not len(good):
        raise base.DataError(
            f"{collection.root}: none of {len(bad)} images can be decoded. The first: "
            f"{collection.names[0]}: {found[0]}"
        )
    for row in bad:
        logging.warning("Skipped %s: %s", collection.names[row], found[row])
    note = (
        f"{collection.root}: skipped {len(bad)} unreadable of {len(found)} images: "
        f"{base.sentence_list(collection.names[bad])}."
    )
    return dataclasses.replace(collection.take(good), notes=(*collection.notes, note))


def looks(collection: Collection, *, look=None) -> list[tuple[int, int] | str]:
    """Decodes images, but those that were readable before and have not changed since.

    What is known of them is kept in the user's cache folder, piece by piece: where that was stopped
    in between, the next time goes on.

    Args:
        collection: labelled images.
        look: `fn(collection, rows=, tell=)` as `inspect`, which it is by default.

    Returns:
        Of each, height and width in pixels; or what is wrong with it, in a line.
    """
    look, known = look or inspect, _known_readable(collection.root)
    marks = np.array([name_hash(text) for text in collection.fingerprints], np.uint64)
    places = np.searchsorted(known["mark"], marks)
    is_known = np.isin(marks, known["mark"])
    found = [None] * len(marks)
    for row in np.flatnonzero(is_known):
        found[row] = known[places[row]].item()[1:]
    unknown = np.flatnonzero(~is_known)
    # No bar where it would only flash by.
    hidden = True if len(unknown) < 1000 else None
    with tqdm.tqdm(total=len(unknown), desc="checking images", disable=hidden) as bar:
        for rows in _pieces(unknown):
            for row, seen in zip(rows, look(collection, rows=rows, tell=bar.update), strict=True):
                found[row] = seen
            good = [(marks[row], *found[row]) for row in rows if not isinstance(found[row], str)]
            known = np.unique(np.concatenate([known, np.array(good, _LOOK)]))
            _remember_readable(collection.root, known)
    return found


def _pieces(rows):
    count = min(_PIECES, -(-len(rows) // _PIECE))
    return np.array_split(rows, count) if count else []


def inspect(collection: Collection, *, rows: np.ndarray, tell=None) -> list[tuple[int, int] | str]:
    """Decodes images.

    Args:
        collection: labelled images.
        rows: which examples to decode `[n]`.
        tell: `fn()` that is called after each, or None.

    Returns:
        Of each, height and width in pixels; or what is wrong with it, in a line.
    """
    examples = pipeline.as_examples(collection.examples, decode=collection.decode)
    load = pipeline.decoder(examples, decode=collection.decode)

    def look(row):
        try:
            image = load(pipeline.gather(examples, tf.constant([row], tf.int64))[0])
        except tf.errors.OpError as error:
            return errors.reason(error)
        except UnicodeDecodeError:  # TensorFlow's message holds bytes of the file.
            return "its bytes are not those of an image"
        return tuple(image.shape[:2])

    found = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for seen in pool.map(look, rows):
            found.append(seen)
            if tell is not None:
                tell()
    return found


def _hold_out(collection, *, fraction):
    tested = held_out(collection.class_names, fraction)
    if tested is None:
        count = len(collection.class_names)
        raise base.DataError(
            f"{collection.root}: expected enough classes to train on two or more and to hold two "
            f"or more out for testing, found {count} classes and test_fraction {fraction}. Give "
            "classes to test on as --config.dataset.test_path=PATH (the same path tests on the "
            "classes trained on)." + "".join(f" {note}" for note in collection.notes)
        )
    return _divide(collection, tested=tested)


def held_out(names, fraction):
    """Places of the classes to hold out, by a hash of their names: the same on every machine.

    Args:
        names: of the classes.
        fraction: share to hold out, two at least.

    Returns:
        Indices `[n]`; None where fewer than two would be left on either side.
    """
    count = max(2, round(fraction * len(names)))
    if not 0 < fraction < 1 or len(names) - count < 2:
        return None
    return np.argsort([name_hash(name) for name in names], kind="stable")[:count]


def _hold_out_named(collection, names):
    """Divides the classes as they were divided before, whatever classes have come or gone."""
    tested = np.flatnonzero(np.isin(collection.class_names, list(names)))
    if len(tested) < 2 or len(collection.class_names) - len(tested) < 2:
        raise base.DataError(
            f"{collection.root}: expected two or more classes to train on and two or more of those "
            f"that were held out ({base.sentence_list(sorted(names))}), found "
            f"{len(collection.class_names) - len(tested)} and {len(tested)}. Put back what is gone."
        )
    return _divide(collection, tested=tested)


def _divide(collection, *, tested):
    in_test = np.isin(collection.labels, tested)
    return [collection.take(np.flatnonzero(~in_test)), collection.take(np.flatnonzero(in_test))]


def _check_classes(collection, *, at_least, use):
    if len(collection.class_names) < at_least:
        raise base.DataError(
            f"{collection.root}: expected {at_least} or more classes to {use}, found "
            f"{len(collection.class_names)}: {base.sentence_list(collection.class_names)}."
            + "".join(f" {note}" for note in collection.notes)
        )


def _class_notes(train, test):
    notes = []
    for part, use in ((train, "train on"), (test, "test on")):
        counts = np.bincount(part.labels, minlength=len(part.class_names))
        single = [part.class_names[label] for label in np.flatnonzero(counts == 1)]
        if single:
            notes.append(
                f"{len(single)} classes to {use} have one image, which has no other to be "
                f"matched with: {base.sentence_list(single)}."
            )
    common = sorted(set(train.class_names) & set(test.class_names))
    if common:
        notes.append(
            f"{len(common)} classes to test on are trained on too: {base.sentence_list(common)}."
        )
    return notes


def _describe(collection):
    return f"{len(collection.labels)} images of {len(collection.class_names)} classes"


def name_hash(text):
    """A whole number that is the same for a name on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest())


def _cache_path(root):
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if folder.startswith("~"):  # Of users without a home, as in containers: looked at each time.
        raise FileNotFoundError("There is no home folder to cache in.")
    place = root if places.is_remote(root) else os.path.abspath(root)
    return pathlib.Path(folder, "circle-tf", "readable", f"{name_hash(place):016x}.npy")


def _known_readable(root):
    try:
        found = np.load(_cache_path(root), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        found = None
    # Earlier versions kept no sizes.
    return found if found is not None and found.dtype == _LOOK else np.zeros([0], _LOOK)


def _remember_readable(root, known):
    try:
        with files.replacing(_cache_path(root)) as partial, open(partial, "wb") as stream:
            np.save(stream, known)
    except OSError as error:  # a cache that cannot be written costs time only
        logging.info("The list of readable images is not kept: %s", error)

"""What looks wrong in labelled images: as a table, as CSV files and as sheets of pictures."""

import contextlib
import csv
import os

import numpy as np

from circle_tf.evaluation import label_errors, neighbours
from circle_tf.plots import sheets
from circle_tf.utils import image_files, shares
from circle_tf.utils.files import disk_errors, replacing
from trainers.cli import commands
from trainers.datasets import collection, folder
from trainers.evaluation import metrics
from trainers.outputs import report, run_data

__all__ = ["inspect_run"]

_NEIGHBOURS = 7  # in a row of a sheet
_PRINTED = 10
_WHY = {"label": "looks like", "lonely": "fits no class"}


def inspect_run(path, *, images="", split="test", best=False, output="", examples=50_000, shown=20):
    """Looks for wrong labels, prints the most suspect, writes CSV files and sheets.

    Args:
        path: str, directory of the finished run whose model embeds.
        images: str, folder with a sub-folder per class; empty: the run's own data.
        split: `test` or `train`, of the run's data.
        best: bool, the model that was best during training, not the last.
        output: str, folder to write to; empty: `inspection` in the run.
        examples: int, at most so many, of whole classes.
        shown: int, rows of each sheet.

    Returns:
        str, the folder, which holds `suspects.csv`, `confused_classes.csv`, and `suspects.png` and
        `confused_classes.png` where there are any.

    Raises:
        commands.ConfigError: no such run, or the labels cannot be compared.
        trainers.datasets.DataError: the data cannot be used.
        OSError: the disk is full, or nothing may be written there.
    """
    files, model, which = report.open_finished(path, best=best)
    looked_at = _Looked.at(files, model, images=images, split=split, examples=examples)
    print(f"{looked_at.told}, compared by {which['file']} of {path} after step {which['step']:,}.")
    if split == "train" and not images:
        print("The model has trained on them, and has learnt some of the wrong labels as well.")
    with commands.config_errors():
        found = label_errors.inspect_labels(looked_at.embeddings, looked_at.labels)
    print(_table(looked_at, found))
    output = output or os.path.join(files.path, "inspection")
    with disk_errors(output):
        os.makedirs(output, exist_ok=True)
        _write_csv(os.path.join(output, "suspects.csv"), _suspect_rows(looked_at, found))
        _write_csv(os.path.join(output, "confused_classes.csv"), _confusion_rows(looked_at, found))
        for name, title, chosen in (
            (
                "suspects",
                "Labels that neighbours contradict, and what fits no class",
                found.suspects,
            ),
            ("confused_classes", "Classes that are mistaken for each other", found.confusions),
        ):
            rows = [one.row for one in chosen[:shown]]
            _write_sheet(os.path.join(output, f"{name}.png"), looked_at, rows, title=title)
    print(f"Written to {output}.")
    return output


class _Looked:
    """The examples that are looked at, and their embeddings `[n, D]`."""

    def __init__(self, split, rows, embeddings, told):
        self.split, self.rows, self.embeddings, self.told = split, rows, embeddings, told
        self.labels = split.labels[rows]

    @classmethod
    def at(cls, files, model, *, images, split, examples):
        if images:
            found = collection.drop_unreadable(folder.collect(images))
            told, chosen = f"of {images}", found.split(model.input_shape[1:])
        else:
            dataset = run_data.load(files, files.recipe())
            run_data.warn(files, dataset)
            told, chosen = f"to {split} on", getattr(dataset, split)
        rows = np.arange(len(chosen))
        if len(chosen) > examples:
            rows = metrics.choose_classes(chosen, examples=examples)
        embeddings = metrics.embed(model, chosen, rows)
        classes = len(np.unique(chosen.labels[rows]))
        count = (
            f"{len(rows):,} examples"
            if len(rows) == len(chosen)
            else (f"{len(rows):,} of {len(chosen):,} examples (--examples)")
        )
        return cls(chosen, rows, embeddings, f"{count} of {classes:,} classes {told}")

    def class_of(self, row):
        """The name of an example's class."""
        return self.split.class_names[self.labels[row]]

    def image_of(self, row):
        """The path of an example, or what else it is known by."""
        place = self.rows[row]
        if self.split.decode is not None and isinstance(self.split.examples, np.ndarray | list):
            return str(self.split.examples[place])
        identities = self.split.identities
        return f"example {place}" if identities is None else str(identities[place])


def _table(looked_at, found):
    """The numbers, and the most suspect."""
    names = looked_at.split.class_names
    kinds = [one.kind for one in found.suspects]
    lines = [
        f"{kinds.count('label'):,} labels look wrong, {kinds.count('lonely'):,} examples fit no "
        f"class, {sum(one.count for one in found.confusions):,} are nearest to one of another."
    ]
    if kinds:
        lines += ["", f"{'own':>6}{'other':>7}  most suspect"]
    for one in found.suspects[:_PRINTED]:
        other = f" {names[one.other_label]}" if one.kind == "label" else ""
        lines.append(
            f"{one.own_similarity:>6.3f}{one.other_similarity:>7.3f}  "
            f"{image_files.printable(looked_at.image_of(one.row))}: "
            f"{names[one.label]}, {_WHY[one.kind]}{other}"
        )
    if found.confusions:
        lines += ["", f"{'share':>6}{'count':>7}  most confused classes"]
    for one in found.confusions[:_PRINTED]:
        first, second = (names[label] for label in one.labels)
        lines.append(f"{shares.as_text(one.share, '.2f'):>6}{one.count:>7,}  {first}, {second}")
    return "\n".join([*lines, ""])


def _suspect_rows(looked_at, found):
    yield (
        *("image", "class", "kind", "score", "own_similarity"),
        *("other_class", "other_similarity", "nearest_image"),
    )
    for one in found.suspects:
        yield (
            looked_at.image_of(one.row),
            looked_at.class_of(one.row),
            one.kind,
            f"{one.score:.4f}",
            "" if np.isnan(one.own_similarity) else f"{one.own_similarity:.4f}",
            looked_at.class_of(one.nearest_row),
            f"{one.other_similarity:.4f}",
            looked_at.image_of(one.nearest_row),
        )


def _confusion_rows(looked_at, found):
    yield ("first_class", "second_class", "count", "share", "image", "nearest_image")
    for one in found.confusions:
        yield (
            *(looked_at.split.class_names[label] for label in one.labels),
            one.count,
            f"{one.share:.4f}",
            looked_at.image_of(one.row),
            looked_at.image_of(one.nearest_row),
        )


def _write_csv(path, rows):
    # Names of files need not be UTF-8: their bytes are written as they are.
    with (
        replacing(path) as partial,
        open(partial, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file).writerows(rows)


def _write_sheet(path, looked_at, rows, *, title):
    """A row for each example: it, and what is nearest to it; nothing of an earlier look stays."""
    if not rows:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
        return
    from PIL import Image

    depth = min(_NEIGHBOURS, len(looked_at.rows) - 1)
    found = neighbours.iterate_neighbours(looked_at.embeddings, rows, np.full(len(rows), depth))
    chunks = [(nearest[:, :depth], cosines[:, :depth]) for _, nearest, cosines in found]
    nearest, cosines = (np.concatenate(values) for values in zip(*chunks, strict=True))
    drawn = np.column_stack([rows, nearest])
    pictures = looked_at.split.images(looked_at.rows[drawn.ravel()])
    pictures = pictures.reshape(*drawn.shape, *pictures.shape[1:])
    sheet = []
    for row, others, scores, (own, *shown) in zip(rows, nearest, cosines, pictures, strict=True):
        label = looked_at.class_of(row)
        sheet.append([(own, label, None)])
        for picture, other, score in zip(shown, others, scores, strict=True):
            name = looked_at.class_of(other)
            sheet[-1].append((picture, f"{score:.2f}\n{name}", name == label))
    with replacing(path) as partial:
        Image.fromarray(sheets.draw(sheet, title=title)).save(partial, format="PNG")

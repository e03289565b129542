"""Queries of `export.query`, and what is found for them."""

import dataclasses
import os

import numpy as np

from circle_tf.utils import files
from export.cli import console, image_files, runs
from export.client import client
from export.client import index as indexes

__all__ = ["Found", "Queries", "as_json", "find", "queries", "table", "verify"]


@dataclasses.dataclass(frozen=True, eq=False)
class Queries:
    """Images to ask about.

    Args:
        images: list of paths, or pixels `[Q, H, W, C]` uint8.
        names: list of str, what to call them.
        known: dict of id to pixels, of the examples whose names begin with their class and a
            slash; empty where classes are not known.
    """

    images: list | np.ndarray
    names: list
    known: dict

    def is_right(self, query, found):
        """Whether an id is of the query's class; None where that is not known."""
        if not self.known:
            return None
        return str(found).rpartition("/")[0] == self.names[query].rpartition("/")[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """Neighbours of each query, the nearest first.

    Args:
        ids: list of lists of str.
        scores: list of lists of float, cosines.
        folder: where the images are that ids name; "" if that is not known.
        classes: list of lists of (name, cosine), the nearest of the classes that the model was
            trained on, the nearest first; empty where it tells none.
        thresholds: list of float, from which cosine on a neighbour names the class of each query;
            empty where the model decides nothing.
    """

    ids: list
    scores: list
    folder: str
    classes: list = ()
    thresholds: list = ()

    def is_known(self, query, score):
        """Whether a neighbour with this score names the query's class; None if nobody decides."""
        return score >= self.thresholds[query] if self.thresholds else None

    def draw(self, path, asked, *, folder=None):
        """Draws queries and neighbours.

        Args:
            path: file to write, `.png`.
            asked: Queries.
            folder: where the images are that ids name, if not where they were.
        """
        from PIL import Image

        from circle_tf.plots import sheets  # Here: whoever draws nothing needs no library.

        rows = []
        for query, (ids, scores) in enumerate(zip(self.ids, self.scores, strict=True)):
            row = [(asked.images[query], asked.names[query], None)]
            for name, score in zip(ids, scores, strict=True):
                picture = self._picture(name, asked, folder or self.folder)
                word = _word(self.is_known(query, score))
                caption = f"{score:.2f} {word}" if word else f"{score:.3f}"  # What has room.
                row.append((picture, f"{caption}\n{name}", asked.is_right(query, name)))
            rows.append(row)
        with files.replacing(path) as partial, open(partial, "wb") as stream:
            Image.fromarray(sheets.draw(rows)).save(stream, format="PNG", optimize=True)

    def _picture(self, name, asked, folder):
        path = os.path.join(folder, name) if folder else None
        return path if path and os.path.isfile(path) else asked.known.get(name)


def queries(images, *, held_out=None, count=5):
    """What to ask about.

    Args:
        images: list of files and folders.
        held_out: a run's held_out.npz to take examples from instead, or None.
        count: int, how many examples to take, evenly spread.

    Returns:
        Queries.

    Raises:
        console.ExportError: there are no images, or the file is broken.
        FileNotFoundError: there is no such file.
    """
    if held_out is not None:
        return _held_out(held_out, count)
    paths = []
    for path in images:
        if os.path.isdir(path):
            paths += [os.path.join(path, name) for name in image_files.inside(path)]
        elif os.path.isfile(path):
            paths.append(path)
        else:
            raise console.ExportError(f"There is no file or folder {path!r}.")
    return Queries(paths, paths, {})


def _held_out(path, count):
    found = runs.HeldOut.load(path)
    names = [f"{name}/{number}" for number, name in enumerate(found.names)]  # As export.gallery.
    rows = np.unique(np.linspace(0, len(names) - 1, min(count, len(names))).astype(int))
    known = dict(zip(names, found.images, strict=True))
    return Queries(found.images[rows], [names[row] for row in rows], known)


def find(served, asked, *, k, index=None, backend="exact", batch_size=32):
    """Asks the server, or an index through its embeddings.

    Args:
        served: client.Client.
        asked: Queries.
        k: int, neighbours of each; of the model's gallery at most what it was published with.
        index: file of an index, or None for the model's gallery.
        backend: what searches the index.
        batch_size: int, images a call.

    Returns:
        Found. An example that is in the gallery itself is not its own neighbour.

    Raises:
        console.ExportError: another model made the index, or the model has neither a gallery nor
            names of classes.
        client.ServerError: a request was refused or not answered.
    """
    folder, classes, thresholds = "", [], []
    options = {"batch_size": batch_size, "progress": True}
    if index is None:
        searches, names_classes = _has(served, asked)
        if names_classes:
            classes = _pairs(*served.classify(asked.images, **options), k)
        if not searches:
            nothing = [[] for _ in asked.names]
            return Found(nothing, nothing, folder, classes)
        neighbours = served.search(asked.images, **options)
        ids, scores = neighbours
        if neighbours.threshold is not None:
            thresholds = neighbours.threshold.tolist()
    else:
        found = indexes.Index.load(index)
        found.check(served)
        folder, most = found.folder, min(k + bool(asked.known), len(found))
        embeddings = served.embed(asked.images, **options)
        ids, scores = found.search(embeddings, k=most, backend=backend)
    pairs = [
        [pair for pair in row if pair[0] != name][:k]
        for name, row in zip(asked.names, _pairs(ids, scores, None), strict=True)
    ]
    return Found(
        [[n for n, _ in row] for row in pairs],
        [[s for _, s in row] for row in pairs],
        folder,
        classes,
        thresholds,
    )


def verify(served, asked, other, *, batch_size=32):
    """Asks whether images are of one class with another one.

    Args:
        served: client.Client.
        asked: Queries of files.
        other: path of a file, which each of them is compared with.
        batch_size: int, pairs a call.

    Returns:
        list of dicts: `a`, `b`, `similarity`, `same`, `threshold`.

    Raises:
        console.ExportError: there is no such file, or the model was published without a threshold.
        client.ServerError: a request was refused or not answered.
    """
    if not os.path.isfile(other):
        raise console.ExportError(f"There is no file {other!r}.")
    if "verify_bytes" not in served.signatures():
        raise console.ExportError(
            f"{served.model!r} has no signature verify_bytes: it was published without a "
            "threshold. python -m trainers.evaluate finds thresholds, python -m export.publish "
            "--false_accept_rate takes one."
        )
    others = [other] * len(asked.images)
    found = served.verify(asked.images, others, batch_size=batch_size, progress=True)
    return [
        {"a": name, "b": other, "similarity": cosine, "same": same, "threshold": threshold}
        for name, cosine, same, threshold in zip(
            asked.names, *(values.tolist() for values in found), strict=True
        )
    ]


def _pairs(names, scores, k):
    """`[Q]` lists of (name, score) of the first k."""
    return [
        list(zip(map(str, row), map(float, values), strict=True))[:k]
        for row, values in zip(names, scores, strict=True)
    ]


def _has(served, asked):
    """Whether the model has a gallery, and names of classes; one of both it must have."""
    signatures = served.signatures()
    wanted = client.signature(asked.images, "ids")[1]
    found = wanted in signatures, client.signature(asked.images, "classes")[1] in signatures
    if not any(found):
        raise console.ExportError(
            f"{served.model!r} has no signature {wanted}: it was published without a gallery. "
            "Publish it with --gallery, or search an index of your own: --build and --index."
        )
    return found


def as_json(asked, found):
    """The same as `table`, for programs.

    Args:
        asked: Queries.
        found: Found.

    Returns:
        list of dicts: `query`, `classes` and `neighbours`, each with `score`; where the model
        decides, `threshold`, `unknown`, and of each neighbour `known`; where classes are known, of
        each neighbour `same_class`.
    """
    answers = []
    for query, (ids, scores) in enumerate(zip(found.ids, found.scores, strict=True)):
        neighbours = [
            {"id": name, "score": score}
            | _unless_none(known=found.is_known(query, score))
            | _unless_none(same_class=asked.is_right(query, name))
            for name, score in zip(ids, scores, strict=True)
        ]
        answer = {"query": asked.names[query], "neighbours": neighbours}
        if found.classes:
            named = found.classes[query]
            answer["classes"] = [{"class": name, "score": score} for name, score in named]
        if found.thresholds:
            answer["threshold"] = found.thresholds[query]
            answer["unknown"] = not any(one["known"] for one in neighbours)
        answers.append(answer)
    return answers


def _unless_none(**values):
    return {name: value for name, value in values.items() if value is not None}


def _word(known):
    return {None: "", True: "known", False: "unknown"}[known]


def table(asked, found):
    """Lines for a terminal.

    Args:
        asked: Queries.
        found: Found.

    Returns:
        list of str.
    """
    lines, right = [], []
    for query, (ids, scores) in enumerate(zip(found.ids, found.scores, strict=True)):
        lines.append(asked.names[query] + _decision(found, query))
        for name, score in found.classes[query] if found.classes else ():
            lines.append(f"  class {score:6.4f}  {name}")
        for rank, (name, score) in enumerate(zip(ids, scores, strict=True), 1):
            is_right = asked.is_right(query, name)
            mark = {None: "", True: "  same class", False: ""}[is_right]
            word = f"{_word(found.is_known(query, score)):<9}" if found.thresholds else ""
            lines.append(f"  {rank:>3}  {score:7.4f}  {word}{name}{mark}")
            right += [is_right] if rank == 1 else []
    if asked.known and right:
        lines.append(f"The nearest is of the same class for {sum(right)} of {len(right)}.")
    return lines


def _decision(found, query):
    if not found.thresholds:
        return ""
    threshold = found.thresholds[query]
    if any(found.is_known(query, score) for score in found.scores[query]):
        return f": known, from {threshold:.4f} on"
    return f": unknown, nothing from {threshold:.4f} on"

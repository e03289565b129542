"""An index of embeddings on the client's side: built through a server, searched here."""

import dataclasses
import os
import sys
import zipfile

import numpy as np

from circle_tf.utils import files
from export.cli import console, image_files

__all__ = ["Index", "build", "probe"]

_CHUNK_BYTES = 256 << 20
_SAME_MODEL = 0.999  # Cosine of a model's embeddings with those of its half-precision variants.
_PROBES = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """Embeddings to search in, and how the model that made them embeds the probe images.

    A server does not tell which weights it serves, and a version's number says nothing about
    another server. The embeddings of images that never change do: they are the fingerprint.

    Args:
        embeddings: `[N, D]` float32, rows of length 1.
        ids: `[N]` str, what a search answers with; of a folder the paths within it.
        probes: `[P, D]` float32, the model's embeddings of `probe` images.
        model: name of the model, to be told.
        folder: where the images are; "" if they are not files.
    """

    embeddings: np.ndarray
    ids: np.ndarray
    probes: np.ndarray
    model: str = ""
    folder: str = ""

    def __len__(self):
        return len(self.embeddings)

    def check(self, served):
        """Refuses a server whose model is not the one that made the index.

        Args:
            served: client.Client.

        Raises:
            console.ExportError: it embeds the probe images differently.
            client.ServerError: it does not answer.
        """
        found = probe(served)
        same = found.shape == self.probes.shape
        cosine = float(np.min(np.sum(found * self.probes, axis=1))) if same else None
        if not same or cosine < _SAME_MODEL:
            how = f"cosine {cosine:.3f}" if same else f"{found.shape[1]} numbers an embedding"
            raise console.ExportError(
                f"The index was made by another model than {served.model!r} serves now ({how} on "
                "the probe images): distances to it mean nothing. Build it again: "
                "python -m export.query --build=FOLDER --index=FILE."
            )

    def search(self, embeddings, *, k, backend="exact"):
        """The nearest rows.

        Args:
            embeddings: `[Q, D]`, rows of length 1.
            k: int in 1..N.
            backend: `exact`, or `faiss` for faiss.IndexFlatIP, which orders ties its own way.

        Returns:
            `(ids, scores)`: `[Q, k]` str and `[Q, k]` float32 cosines, the nearest first; of equal
            ones the earlier row.

        Raises:
            console.ExportError: k is out of range, D is another one, or faiss is not installed.

        Example:
            >>> index = Index(np.eye(3, dtype=np.float32), np.array(["a", "b", "c"]), np.eye(3))
            >>> index.search(np.array([[0.0, 0.8, 0.6]]), k=2)[0]
            array([['b', 'c']], dtype='<U1')
        """
        queries = np.asarray(embeddings, np.float32)
        if not 1 <= k <= len(self):
            raise console.ExportError(f"k must be in 1..{len(self)}, the index's rows; found {k}.")
        if queries.ndim != 2 or queries.shape[1] != self.embeddings.shape[1]:
            raise console.ExportError(
                f"The index holds embeddings of {self.embeddings.shape[1]} numbers; found queries "
                f"of shape {list(queries.shape)}."
            )
        search = _faiss if backend == "faiss" else _exact
        rows, scores = search(self.embeddings, queries, k)
        return self.ids[rows], scores

    def save(self, path):
        """Writes the index whole or not at all.

        Args:
            path: the file, `.npz`.
        """
        with files.replacing(path) as partial, open(partial, "wb") as stream:
            np.savez(stream, **dataclasses.asdict(self))

    @classmethod
    def load(cls, path):
        """Reads an index.

        Args:
            path: file that `save` wrote.

        Returns:
            Index.

        Raises:
            console.ExportError: it is not an index.
            FileNotFoundError: there is no such file.
        """
        try:
            with np.load(path) as found:
                texts = {name: str(found[name]) for name in ("model", "folder")}
                return cls(found["embeddings"], found["ids"], found["probes"], **texts)
        except (KeyError, ValueError, zipfile.BadZipFile, AttributeError, EOFError) as error:
            raise console.ExportError(
                f"{path} is not an index ({error}). Build one: python -m export.query "
                "--build=FOLDER --index=FILE."
            ) from error


def build(served, folder, *, batch_size=32, progress=False, skip_unreadable=False):
    """Embeds all images of a folder.

    Files that the server refuses are told on stderr, each in a line.

    Args:
        served: client.Client.
        folder: its path.
        batch_size: int, images a call.
        progress: whether to show a progress bar.
        skip_unreadable: whether to leave these files out, and not to refuse the folder.

    Returns:
        Index; ids are the paths within the folder.

    Raises:
        console.ExportError: there are no images, some are refused, or the server changed the model
            meanwhile.
        client.ServerError: the server does not answer, or refuses all.
    """
    names = image_files.inside(folder)
    probes = probe(served)
    paths = [os.path.join(folder, name) for name in names]
    refused = {}
    embeddings = served.embed(paths, batch_size=batch_size, progress=progress, refused=refused)
    for error in refused.values():
        print(f"unreadable: {error.message}", file=sys.stderr)
    if refused and not skip_unreadable:
        raise console.ExportError(
            f"{folder}: {len(refused)} of {len(paths)} images were refused. Repair or remove them, "
            "or leave them out by --skip_unreadable."
        )
    kept = [name for number, name in enumerate(names) if number not in refused]
    index = Index(embeddings, np.array(kept), probes, served.model, os.path.abspath(folder))
    index.check(served)
    return index


def probe(served):
    """How a model embeds images that never change.

    Args:
        served: client.Client.

    Returns:
        `[P, D]` float32.

    Raises:
        console.ExportError: the model takes no images.
        client.ServerError: it does not answer.
    """
    shape = served.signatures().get("serving_default", {}).get("images")
    if shape is None or len(shape) != 4:
        raise console.ExportError(
            f"The signature serving_default of {served.model!r} takes no images [B, H, W, C]: "
            "publish the model by python -m export.publish."
        )
    return served.embed(_probe_images([64 if size < 0 else size for size in shape[1:]]))


def _probe_images(shape):
    """`[P, H, W, C]`: blocks of random colours, finer from one image to the next."""
    random = np.random.default_rng(0)
    height, width, channels = shape
    images = []
    for cells in range(2, 2 + _PROBES):
        colours = random.integers(0, 256, (cells, cells, channels))
        rows, columns = (np.arange(size) * cells // size for size in (height, width))
        images.append(colours[rows][:, columns])
    return np.stack(images).astype(np.float32)


def _exact(rows, queries, k):
    """Row numbers and scores of the k nearest, as a stable sort of all would have them."""
    found = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), np.float32)
    step = max(1, _CHUNK_BYTES // (4 * len(rows)))
    for start in range(0, len(queries), step):
        for query, cosines in enumerate(queries[start : start + step] @ rows.T, start=start):
            near = np.flatnonzero(cosines >= -np.partition(-cosines, k - 1)[k - 1])  # And all ties.
            found[query] = near[np.argsort(-cosines[near], kind="stable")[:k]]
            scores[query] = cosines[found[query]]
    return found, scores


def _faiss(rows, queries, k):
    try:
        import faiss
    except ImportError as error:
        raise console.ExportError(
            "--backend=faiss needs faiss-cpu: pip install 'circle-tf[search]'."
        ) from error
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(np.ascontiguousarray(rows))
    scores, found = index.search(np.ascontiguousarray(queries), k)
    return found, scores

"""What a published version knows of its gallery's rows beside their embeddings: for the page.

A server that answers requests reads none of it.
"""

import base64
import os
import zipfile

import numpy as np

__all__ = ["PATH", "Pictures", "write"]

PATH = os.path.join("assets.extra", "gallery.npz")


def write(path, gallery):
    """Writes ids, classes and thumbnails into a SavedModel that is not published yet.

    Args:
        path: directory of the SavedModel.
        gallery: circle_tf.Gallery.
    """
    file = os.path.join(path, PATH)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    thumbnails = gallery.thumbnails or [b""] * len(gallery)
    content = {
        "ids": gallery.ids.astype(str),
        "ends": np.cumsum([len(thumbnail) for thumbnail in thumbnails]),
        "thumbnails": np.frombuffer(b"".join(thumbnails), np.uint8),
    }
    if gallery.classes is not None:
        content["classes"] = gallery.classes
    np.savez(file, **content)


class Pictures:
    """Classes and thumbnails by id.

    Args:
        path: directory of a published version; of one without them nothing is known.
    """

    def __init__(self, path):
        self._rows, self._classes = {}, None
        self._ends, self._thumbnails = np.zeros(0, np.int64), np.zeros(0, np.uint8)
        try:
            with np.load(os.path.join(path, PATH)) as stored:
                ids = stored["ids"].tolist()
                self._rows = {name: row for row, name in reversed([*enumerate(ids)])}  # The first.
                self._ends, self._thumbnails = stored["ends"], stored["thumbnails"]
                self._classes = stored["classes"] if "classes" in stored else None
        except (FileNotFoundError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            pass  # An answer needs none of it.

    def of(self, name):
        """What is known of a row.

        Args:
            name: its id, str.

        Returns:
            dict: `class` and `thumbnail`, a data URL; without what is not known.
        """
        row = self._rows.get(name)
        if row is None:
            return {}
        found = {} if self._classes is None else {"class": str(self._classes[row])}
        start = self._ends[row - 1] if row else 0
        content = self._thumbnails[start : self._ends[row]].tobytes()
        if content:
            found["thumbnail"] = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
        return found

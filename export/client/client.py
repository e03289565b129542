"""A client of TF Serving, by gRPC or by REST, that knows nothing of the models' code.

    with client.connect("localhost:8500", model="glyphs") as served:
        embeddings = served.embed(["a.png", "b.png"])

It needs neither the library nor the training code; gRPC needs tensorflow-serving-api, REST needs
requests only.
"""

import dataclasses
import random
import time
from typing import NamedTuple

import numpy as np
import tqdm

from circle_tf.utils import errors
from export.cli import console
from export.client import images as images_of
from export.client import transports
from export.client.transports import Answer, ServerError

__all__ = [
    "Answer",
    "Client",
    "Neighbours",
    "ServerError",
    "Verified",
    "connect",
    "is_rest",
    "signature",
]

_RETRIED = "UNAVAILABLE"  # The only status that says that the request was not worked on.
_SIGNATURES = {  # Output: the signatures that have it, for pixels and for files.
    "embeddings": ("serving_default", "serving_bytes"),
    "ids": ("search_image", "search_bytes"),
    "classes": ("top_classes", "top_classes_bytes"),
    "same": ("verify", "verify_bytes"),
}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest of a gallery, the nearest first: `ids, scores = neighbours`.

    Args:
        ids: `[N, k]` str or int.
        scores: `[N, k]` float32 cosines.
        unknown: `[N]` bool, whether even the nearest is below the threshold; None of a version that
            was published without one.
        threshold: `[N]` float32, the threshold, the same of all; or None.
    """

    ids: np.ndarray
    scores: np.ndarray
    unknown: np.ndarray | None = None
    threshold: np.ndarray | None = None

    def __iter__(self):
        return iter((self.ids, self.scores))


class Verified(NamedTuple):
    """Whether pairs of images are of one class.

    Args:
        similarity: `[N]` float32 cosines.
        same: `[N]` bool, whether they are at or above the threshold.
        threshold: `[N]` float32, the threshold, the same of all.
    """

    similarity: np.ndarray
    same: np.ndarray
    threshold: np.ndarray


def is_rest(target):
    """Whether a target is a URL, for REST, and not host:port, for gRPC.

    Example:
        >>> is_rest("http://localhost:8501"), is_rest("localhost:8500")
        (True, False)
    """
    return target.startswith(("http://", "https://"))


def connect(target, *, model, version=None, label=None, timeout=10.0, attempts=4):
    """Prepares to ask a server; nothing is sent yet.

    Args:
        target: `host:port` for gRPC, `http://host:port` for REST.
        model: its name on the server.
        version: int; None for the latest, or for that of `label`.
        label: str such as `stable`; None for none.
        timeout: float, seconds a call may take, attempts and pauses between them together.
        attempts: int >= 1, how often a call is made if the server is UNAVAILABLE. No other error
            is tried again, for another attempt would end in the same way or do the work twice.

    Returns:
        Client, a context manager.

    Raises:
        console.ExportError: options that contradict each other.
    """
    if version is not None and label is not None:
        raise console.ExportError(
            f"Give a version or a label, not both; found {version} and {label!r}."
        )
    if not timeout > 0 or attempts < 1:
        raise console.ExportError(
            f"timeout must be above 0 and attempts 1 or more; found {timeout} and {attempts}."
        )
    kind = transports.Rest if is_rest(target) else transports.Grpc
    transport = kind(target, model=model, version=version, label=label)
    return Client(transport, timeout=timeout, attempts=attempts)


class Client:
    """Asks one model of one server. Made by `connect`; use as a context manager, or `close` it.

    Args:
        transport: `transports.Grpc` or `transports.Rest`.
        timeout: float, seconds a call may take.
        attempts: int, how often a call is made if the server is UNAVAILABLE.
    """

    def __init__(self, transport, *, timeout, attempts):
        self._transport = transport
        self._timeout = timeout
        self._attempts = attempts

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Closes the connection."""
        self._transport.close()

    @property
    def model(self):
        """Name of the model."""
        return self._transport.model

    def predict(self, inputs, *, signature="serving_default"):
        """Runs a signature.

        Args:
            inputs: dict of name to array; strings as bytes.
            signature: its name.

        Returns:
            Answer.

        Raises:
            ServerError: it was refused, or there was no answer in time.
        """
        arrays = {name: _as_array(value) for name, value in inputs.items()}
        return self._retried(lambda left: self._transport.predict(arrays, signature, timeout=left))

    def signatures(self):
        """What the model can be asked.

        Returns:
            dict of signature to dict of input name to shape, a tuple with -1 for any size.

        Raises:
            ServerError: there is no such model, or no answer in time.
        """
        return self._retried(lambda left: self._transport.signatures(timeout=left))

    def embed(self, images, *, batch_size=32, progress=False, refused=None):
        """Embeds images, in batches.

        Args:
            images: paths of image files, which are sent as they are and decoded by the server, or
                the bytes of such files, or PIL images, in a list or another iterable; one of these
                alone is a batch of one. Or pixels `[N, H, W, C]`, 0..255.
            batch_size: int, images a call.
            progress: whether to show a progress bar on a terminal.
            refused: dict to fill: files that the server refuses are left out, and their places in
                `images` are its keys, ServerErrors its values. Without it the first is an error.

        Returns:
            `[N, D]` float32; N without those refused.

        Raises:
            ServerError: an image was refused, and which; or there was no answer in time.
            console.ExportError: there are no images, or what is given is none.
            OSError: a file cannot be read.
        """
        options = {"batch_size": batch_size, "progress": progress, "refused": refused}
        return self._found(images, "embeddings", **options)["embeddings"]

    def search(self, images, *, batch_size=32, progress=False):
        """Asks for the nearest of the gallery that the model holds.

        Args:
            images: as for `embed`.
            batch_size: int, images a call.
            progress: whether to show a progress bar on a terminal.

        Returns:
            Neighbours.

        Raises:
            ServerError: as `embed`, or the model has no gallery.
        """
        found = self._found(images, "ids", batch_size=batch_size, progress=progress)
        ids, scores = _texts(found["ids"]), found["scores"]
        return Neighbours(ids, scores, found.get("unknown"), found.get("threshold"))

    def verify(self, a, b, *, batch_size=32, progress=False):
        """Asks whether pairs of images are of one class, by the published threshold.

        Args:
            a: images, as for `embed`: the first of each pair.
            b: images, as many and of the same kind, files or pixels: the second.
            batch_size: int, pairs a call.
            progress: whether to show a progress bar on a terminal.

        Returns:
            Verified.

        Raises:
            ServerError: as `embed`, or the model was published without a threshold.
            console.ExportError: as `embed`, or they are not as many or of another kind.
        """
        pairs = images_of.as_pairs(a, b)
        found = self._found(pairs, "same", batch_size=batch_size, progress=progress)
        return Verified(found["similarity"], found["same"], found["threshold"])

    def classify(self, images, *, batch_size=32, progress=False):
        """Asks a class-level model for the nearest of the classes that it was trained on.

        Args:
            images: as for `embed`.
            batch_size: int, images a call.
            progress: whether to show a progress bar on a terminal.

        Returns:
            `(classes, scores)`: `[N, n]` str, and `[N, n]` float32 cosines, the nearest first.

        Raises:
            ServerError: as `embed`, or the model has no names of classes.
        """
        found = self._found(images, "classes", batch_size=batch_size, progress=progress)
        return _texts(found["classes"]), found["scores"]

    def _found(self, images, output, *, batch_size, progress=False, refused=None):
        """All outputs, by name, of the signature that has this one."""
        if not isinstance(images, images_of.Pairs):
            images = images_of.as_images(images)
        chosen = signature(images, output)[1]
        starts = range(0, len(images), batch_size)
        bar = tqdm.tqdm(total=len(images), unit=" images", disable=None if progress else True)
        found = []
        with bar:
            for start in starts:
                batch = images[start : start + batch_size]
                found.append(self._ask(batch, start, chosen, refused))
                bar.update(len(batch))
        if not any(found):  # All were refused.
            raise next(iter(refused.values()))
        answers = [part for part in found if part]
        # Of all batches: another version may have become the latest in between.
        names = set.intersection(*(set(part) for part in answers))
        return {name: np.concatenate([part[name] for part in answers]) for name in names}

    def _ask(self, batch, start, signature, refused):
        """The outputs of a batch, without the images that go to `refused`; {} if none is left."""
        try:
            return self.predict(images_of.as_inputs(batch), signature=signature).outputs
        except ServerError as error:
            if error.code != "INVALID_ARGUMENT" or images_of.are_pixels(batch):
                raise
            culprits = self._culprits(batch, start, signature)
            if refused is None:
                raise next((culprit for _, culprit in culprits), error) from error
            found = dict(culprits)
            if not found:
                raise
        refused.update(found)
        rest = [image for number, image in enumerate(batch, start) if number not in found]
        if not rest:
            return {}
        return self.predict(images_of.as_inputs(rest), signature=signature).outputs

    def _culprits(self, batch, start, signature):
        """`(number, error)` of each file that is refused: of a batch a server does not say which.

        Each is asked for alone, of pairs each side beside itself.
        """
        for number, image, alone in images_of.each_alone(batch, start):
            try:
                self.predict(images_of.as_inputs(alone), signature=signature)
            except ServerError as error:
                yield (
                    number,
                    ServerError(
                        error.code, f"{images_of.name(image, number)}: {errors.reason(error)}"
                    ),
                )

    def _retried(self, ask):
        """`ask(seconds left)`, again with pauses while the server is UNAVAILABLE."""
        end = time.monotonic() + self._timeout
        for attempt in range(1, self._attempts + 1):
            try:
                return ask(max(end - time.monotonic(), 1e-3))
            except ServerError as error:
                # Full jitter: clients that fail together do not come back together.
                pause = random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))
                late = time.monotonic() + pause >= end
                if error.code != _RETRIED or attempt == self._attempts or late:
                    raise
            time.sleep(pause)


def signature(images, output):
    """Which signature to ask for images.

    Args:
        images: list of files, or pixels, or `images.Pairs` of these.
        output: `embeddings`, `ids` of the model's gallery, `classes`, or `same` of pairs.

    Returns:
        `(input, signature)`, their names.

    Example:
        >>> signature(["a.png"], "classes")
        ('image_bytes', 'top_classes_bytes')
    """
    by_pixels, by_bytes = _SIGNATURES[output]
    return ("images", by_pixels) if images_of.are_pixels(images) else ("image_bytes", by_bytes)


def _texts(values):
    """Strings that came as bytes as str; all others as they are."""
    return np.char.decode(values.astype(bytes), "utf-8") if values.dtype == object else values


def _as_array(value):
    array = np.asarray(value)
    if array.dtype.kind == "S" and not isinstance(value, np.ndarray):
        return np.array(value, object)  # NumPy's own strings lose zeros at their ends.
    return array

"""A client of TF Serving, by gRPC or by REST, that knows nothing of the models' code.

    with client.connect("localhost:8500", model="glyphs") as served:
        embeddings = served.embed(["a.png", "b.png"])

It needs neither the library nor the training code; gRPC needs tensorflow-serving-api, REST needs
requests only.
"""

import random
import time

import numpy as np
import tqdm

from circle_tf.utils import errors
from export.cli import console
from export.client import images as images_of
from export.client import transports
from export.client.transports import Answer, ServerError

__all__ = ["Answer", "Client", "ServerError", "connect", "is_rest", "signature"]

_RETRIED = "UNAVAILABLE"  # The only status that says that the request was not worked on.
_SIGNATURES = {  # Output: the signatures that have it, for pixels and for files.
    "embeddings": ("serving_default", "serving_bytes"),
    "ids": ("search_image", "search_bytes"),
    "classes": ("top_classes", "top_classes_bytes"),
}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


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
        return self.map(images, "embeddings", **options)[0]

    def search(self, images, *, batch_size=32, progress=False):
        """Asks for the nearest of the gallery that the model holds.

        Args:
            images: as for `embed`.
            batch_size: int, images a call.
            progress: whether to show a progress bar on a terminal.

        Returns:
            `(ids, scores)`: `[N, k]` str or int, and `[N, k]` float32 cosines, the nearest first.

        Raises:
            ServerError: as `embed`, or the model has no gallery.
        """
        kinds = ("ids", "scores")
        ids, scores = self.map(images, *kinds, batch_size=batch_size, progress=progress)
        return _texts(ids), scores

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
        kinds = ("classes", "scores")
        classes, scores = self.map(images, *kinds, batch_size=batch_size, progress=progress)
        return _texts(classes), scores

    def map(self, images, *outputs, batch_size, progress=False, refused=None):
        """Outputs of all images, by the signature that has the first; see `embed`, `search`."""
        images = images_of.as_images(images)
        name, chosen = signature(images, outputs[0])
        starts = range(0, len(images), batch_size)
        bar = tqdm.tqdm(total=len(images), unit=" images", disable=None if progress else True)
        found = []
        with bar:
            for start in starts:
                batch = images[start : start + batch_size]
                found.append(self._ask(batch, start, name, chosen, refused))
                bar.update(len(batch))
        if not any(found):  # All were refused.
            raise next(iter(refused.values()))
        return [np.concatenate([part[output] for part in found if part]) for output in outputs]

    def _ask(self, batch, start, name, signature, refused):
        """The outputs of a batch, without the images that go to `refused`; {} if none is left."""
        try:
            return self.predict({name: images_of.as_batch(batch)}, signature=signature).outputs
        except ServerError as error:
            if error.code != "INVALID_ARGUMENT" or isinstance(batch, np.ndarray):
                raise
            culprits = self._culprits(batch, start, name, signature)
            if refused is None:
                raise next((culprit for _, culprit in culprits), error) from error
            found = dict(culprits)
            if not found:
                raise
        refused.update(found)
        rest = [image for number, image in enumerate(batch, start) if number not in found]
        if not rest:
            return {}
        return self.predict({name: images_of.as_batch(rest)}, signature=signature).outputs

    def _culprits(self, batch, start, name, signature):
        """`(number, error)` of each file that is refused: of a batch a server does not say which.

        Each is asked for alone.
        """
        for number, image in enumerate(batch, start):
            try:
                self.predict({name: images_of.as_batch([image])}, signature=signature)
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
        images: list of files, or pixels.
        output: `embeddings`, `ids` of the model's gallery, or `classes`.

    Returns:
        `(input, signature)`, their names.

    Example:
        >>> signature(["a.png"], "classes")
        ('image_bytes', 'top_classes_bytes')
    """
    by_pixels, by_bytes = _SIGNATURES[output]
    return ("images", by_pixels) if isinstance(images, np.ndarray) else ("image_bytes", by_bytes)


def _texts(values):
    """Strings that came as bytes as str; all others as they are."""
    return np.char.decode(values.astype(bytes), "utf-8") if values.dtype == object else values


def _as_array(value):
    array = np.asarray(value)
    if array.dtype.kind == "S" and not isinstance(value, np.ndarray):
        return np.array(value, object)  # NumPy's own strings lose zeros at their ends.
    return array

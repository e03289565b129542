"""What one client may ask of the server."""

import dataclasses
import os

from export.server import errors

__all__ = ["Limits"]


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one client may ask of the server.

    A tensor is checked before it is made: a message of some bytes can ask for any number of
    elements, by a shape that its values do not fill.

    Args:
        max_bytes: largest request, and largest tensor that one may stand for.
        max_elements: elements of a tensor, or tf.Examples; in JSON also lists count. The default,
            33,554,432, is 222 images of 224 x 224 in colour.
        max_requests: requests under way, for gRPC and REST each; one more is refused.
        max_connections: HTTP connections.
        threads: requests worked on at once, for gRPC and REST each.
        seconds: how long an HTTP request may take to arrive, and again to be answered.
    """

    max_bytes: int = 256 << 20
    max_elements: int = 1 << 25
    max_requests: int = 256
    max_connections: int = 1024
    threads: int = max(4, 2 * (os.cpu_count() or 1))
    seconds: float = 30.0

    def check(self, what, *, elements, size=0):
        """Refuses what is too large.

        Args:
            what: str, what it is.
            elements: int, how many it has.
            size: int, its bytes in memory.

        Raises:
            errors.TooLarge: it has more elements or bytes than allowed.

        Example:
            >>> Limits(max_elements=9).check("A tensor", elements=10)
            Traceback (most recent call last):
            export.server.errors.TooLarge: RESOURCE_EXHAUSTED: A tensor of 10 elements is larger \
than the 9 allowed.
        """
        for found, most, unit in (
            (elements, self.max_elements, "elements"),
            (size, self.max_bytes, "bytes"),
        ):
            if found > most:
                raise errors.TooLarge(
                    f"{what} of {found} {unit} is larger than the {most} allowed."
                )

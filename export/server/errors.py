"""Errors as a server tells them: a code of gRPC and a message, and the HTTP status for the code."""

import grpc
import tensorflow as tf
from absl import logging

__all__ = ["ServingError", "TooLarge", "from_exception", "http_status"]

_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}
_HTTP = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class ServingError(Exception):
    """The answer to a request that cannot be served.

    Args:
        message: str for the client.
        code: `grpc.StatusCode`.
    """

    def __init__(self, message, *, code=grpc.StatusCode.INVALID_ARGUMENT):
        super().__init__(message)
        self.code = code

    def __str__(self):
        """As TensorFlow writes a status: `INVALID_ARGUMENT: message`."""
        return f"{self.code.name}: {self.message}"

    @property
    def message(self):
        """The message without the code."""
        return self.args[0]


class TooLarge(ServingError):
    """More than is allowed: HTTP's 413 says that to try again will not help, as its 429 would.

    Args:
        message: str for the client.
    """

    def __init__(self, message):
        super().__init__(message, code=grpc.StatusCode.RESOURCE_EXHAUSTED)


def from_exception(error):
    """What a client is told of an exception.

    What the session answers is passed on. Of anything else, which would be a fault of this
    server, the client learns nothing; it goes to the log.

    Args:
        error: Exception.

    Returns:
        ServingError.
    """
    if isinstance(error, ServingError):
        return error
    if isinstance(error, tf.errors.OpError):
        code = _BY_NUMBER.get(error.error_code, grpc.StatusCode.UNKNOWN)
        return ServingError(error.message, code=code)
    if isinstance(error, MemoryError):
        return ServingError("Out of memory.", code=grpc.StatusCode.RESOURCE_EXHAUSTED)
    logging.error("A request met a fault of the server.", exc_info=error)
    return ServingError("Internal error of the server.", code=grpc.StatusCode.INTERNAL)


def http_status(code):
    """The HTTP status for a code.

    Args:
        code: `grpc.StatusCode`.

    Returns:
        int.

    Example:
        >>> http_status(grpc.StatusCode.RESOURCE_EXHAUSTED)
        429
    """
    return _HTTP.get(code, 500)

"""A client of TF Serving, by gRPC or by REST, and an index of embeddings to search in.

It knows nothing of the models' code: it imports no TensorFlow, no Keras, and of circle_tf only what
needs neither.
"""

from export.client.client import (
    Answer,
    Client,
    Neighbours,
    ServerError,
    Verified,
    connect,
    is_rest,
    signature,
)

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

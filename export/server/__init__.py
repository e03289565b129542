"""A local model server that answers as TF Serving does, for development and tests.

    from export.server import Server, for_model

    with Server(for_model("glyphs", "models/glyphs")) as server:
        server.wait_until_available("glyphs")
        channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")

As a command: `python -m export.serve`. What it is not stands in the docstring of Server.
"""

from export.server.config import for_model
from export.server.errors import ServingError
from export.server.limits import Limits
from export.server.server import Server

__all__ = ["Limits", "Server", "ServingError", "for_model"]

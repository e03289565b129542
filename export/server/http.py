"""An HTTP server in a thread: uvicorn, with limits for clients that are slow or too many."""

import asyncio
import socket
import threading

import uvicorn
from uvicorn.protocols.http import h11_impl

__all__ = ["HTTPServer"]

_MAX_HEADER_BYTES = 64 << 10


class HTTPServer:
    """Serves an ASGI application until `stop`.

    Args:
        application: ASGI application.
        host: address to listen at.
        port: int; 0 for a free one.
        seconds: float, how long a client may take for its request line and headers, and how long
            a connection may rest between requests.
        max_connections: int; further ones are closed at once.

    Attributes:
        port: int.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, application, *, host, port, seconds, max_connections):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=512)
        except OSError as error:
            raise OSError(f"REST cannot listen at {host}:{port}: {error.strerror}") from error
        # Connections inherit it. asyncio sets it only for sockets that name their protocol; without
        # it each answer waits 40 ms for the client to acknowledge its headers.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = self._socket.getsockname()[1]
        config = uvicorn.Config(
            application,
            http=_protocol(seconds, max_connections),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            timeout_keep_alive=int(max(1, seconds)),
        )
        self._config = config
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()

    def stop(self, grace):
        """Takes no more requests and waits for those under way.

        Args:
            grace: float, seconds; what is not done by then is cut off.
        """
        self._config.timeout_graceful_shutdown = max(1, int(grace))
        self._server.should_exit = True
        self._thread.join(grace + 5)
        self._socket.close()

    def _run(self):
        asyncio.run(self._server.serve(sockets=[self._socket]))


def _protocol(seconds, max_connections):
    """The protocol class of uvicorn, which has no limits of its own for slow clients."""

    class Protocol(h11_impl.H11Protocol):
        """Closes a connection whose client does not come to the end of its headers."""

        def connection_made(self, transport):
            super().connection_made(transport)
            self._headers_due = None
            if len(self.connections) > max_connections:
                transport.close()
                return
            self._headers_due = self.loop.call_later(seconds, self._close_if_waiting)

        def handle_events(self):
            super().handle_events()
            if self.cycle is not None and self._headers_due is not None:
                self._headers_due.cancel()
                self._headers_due = None

        def on_response_complete(self):
            super().on_response_complete()
            if self._headers_due is None and not self.transport.is_closing():
                self._headers_due = self.loop.call_later(seconds, self._close_if_waiting)

        def connection_lost(self, exc):
            if self._headers_due is not None:
                self._headers_due.cancel()
            super().connection_lost(exc)

        def _close_if_waiting(self):
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Protocol

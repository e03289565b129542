"""Which names a browser may call this server by."""

import ipaddress
import urllib.parse

from starlette import datastructures, responses

__all__ = ["KnownHosts"]


class KnownHosts:
    """An ASGI application behind a check of the Host header.

    A page from elsewhere can have the name of its own server resolved to this machine (DNS
    rebinding); the browser then lets it read what this server answers. It still sends that name.
    No name is resolved for an address, so these are let in. Starlette's TrustedHostMiddleware would
    have to know each of them, and does not tell what to do.

    Args:
        application: ASGI application.
        names: host names to answer to beside `localhost`.
    """

    def __init__(self, application, *, names):
        self._application = application
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope, receive, send):
        """Answers one request, by ASGI."""
        answer = self._application
        if scope["type"] == "http":
            host = datastructures.Headers(scope=scope).get("host", "")
            if not self._is_known(host):
                message = f"This server does not go by the name {host!r}: start it with --ui_hosts."
                answer = responses.JSONResponse({"error": message}, status_code=400)
        await answer(scope, receive, send)

    def _is_known(self, host):
        try:
            name = urllib.parse.urlsplit(f"//{host}").hostname or ""
            if name in self._names:
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

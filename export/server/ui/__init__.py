"""A page to try a model with: drop an image, see its nearest neighbours in the gallery.

It has no build step and fetches nothing from elsewhere: its Content-Security-Policy forbids that.
All it knows of models comes from the REST API beside it.
"""

import pathlib

from starlette import responses, routing

__all__ = ["routes"]

_FOLDER = pathlib.Path(__file__).parent
_FILES = {"/": ("page.html", "text/html"), "/ui/page.css": ("page.css", "text/css")}
_FILES["/ui/page.js"] = ("page.js", "text/javascript")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def routes(*, models):
    """The routes of the page.

    Args:
        models: `fn() -> iterable of str`, the names of the models that are served.

    Returns:
        list of `starlette.routing.Route`.
    """

    def names(request):
        del request
        return responses.JSONResponse(sorted(models()), headers=_HEADERS)

    files = [routing.Route(path, _file(*found)) for path, found in _FILES.items()]
    return [*files, routing.Route("/ui/models", names)]


def _file(name, media_type):
    content = (_FOLDER / name).read_bytes()

    def answer(request):
        del request
        return responses.Response(content, media_type=media_type, headers=_HEADERS)

    return answer

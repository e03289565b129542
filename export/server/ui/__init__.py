"""A page to try a model with: drop an image, see its nearest neighbours in the gallery.

It has no build step and fetches nothing from elsewhere: its Content-Security-Policy forbids that.
What it knows of models comes from the REST API beside it; classes and thumbnails of a gallery's
rows, which no model answers with, from the files that were published beside the model.
"""

import functools
import os
import pathlib

from starlette import responses, routing

from export.saved_model import pictures
from export.server import errors

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


def routes(*, models, path_of):
    """The routes of the page.

    Args:
        models: `fn() -> iterable of str`, the names of the models that are served.
        path_of: `fn(name, version) -> str`, the directory of a version that is served; else
            ServingError.

    Returns:
        list of `starlette.routing.Route`.
    """

    def names(request):
        del request
        return responses.JSONResponse(sorted(models()), headers=_HEADERS)

    def gallery(request):
        name, version = (request.path_params[part] for part in ("name", "version"))
        try:
            found = _pictures(path_of(name, version))
        except errors.ServingError as error:
            return responses.JSONResponse({"error": error.message}, 404, headers=_HEADERS)
        ids = request.query_params.getlist("id")
        return responses.JSONResponse([found.of(one) for one in ids], headers=_HEADERS)

    files = [routing.Route(path, _file(*found)) for path, found in _FILES.items()]
    galleries = routing.Route("/ui/gallery/{name}/{version:int}", gallery)
    return [*files, routing.Route("/ui/models", names), galleries]


def _pictures(path):
    file = os.path.join(path, pictures.PATH)
    # Another version may come to stand where one was removed.
    return _read_pictures(path, os.stat(file).st_mtime_ns if os.path.exists(file) else 0)


@functools.lru_cache(maxsize=4)
def _read_pictures(path, written):
    del written
    return pictures.Pictures(path)


def _file(name, media_type):
    content = (_FOLDER / name).read_bytes()

    def answer(request):
        del request
        return responses.Response(content, media_type=media_type, headers=_HEADERS)

    return answer

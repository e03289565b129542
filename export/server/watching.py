"""Reading models.config again when it changes, as TF Serving does on request."""

import threading

from export.cli import console
from export.server import config as configs
from export.server import errors

__all__ = ["Watch"]


class Watch:
    """A thread that takes over a models.config whenever its content has changed.

    Args:
        path: of models.config.
        reload: `fn(config)`, raises errors.ServingError if it refuses.
        tell: `fn(line)`, told what became of it.
    """

    def __init__(self, path, *, reload, tell):
        self._path = path
        self._reload = reload
        self._tell = tell
        self._known = self._read()
        self._stopped = threading.Event()
        self._thread = None

    def start(self, seconds):
        """Begins to look.

        Args:
            seconds: float, time between two looks.
        """
        self._thread = threading.Thread(target=self._run, args=(seconds,), daemon=True)
        self._thread.start()

    def stop(self):
        """Ends the thread."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, seconds):
        while not self._stopped.wait(seconds):
            self.look()

    def look(self):
        """Takes over what the file says, if that is new; refusals are told once."""
        found = self._read()
        if found == self._known:
            return
        self._known = found
        try:
            if isinstance(found, console.ExportError):
                raise found
            self._reload(found, is_active=lambda: not self._stopped.is_set())
            self._tell(f"Took over {self._path}")
        except (console.ExportError, errors.ServingError) as error:
            self._tell(f"Did not take over {self._path}: {error}")

    def _read(self):
        try:
            return configs.read(self._path)
        except console.ExportError as error:
            return error

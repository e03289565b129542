"""Which versions are served: found in the base paths, loaded, handed to requests, unloaded."""

import contextlib
import os
import threading
import time

import grpc
from absl import logging
from tensorflow_serving.apis import get_model_status_pb2

from export.server import config as configs
from export.server import errors
from export.server.models import Model, State, Version

__all__ = ["Manager"]


class Manager:
    """Keeps the versions that the configuration asks for open, and hands them to requests.

    One thread looks at the base paths and loads and unloads one version at a time. A new version
    is loaded before an old one is unloaded, and an old one is closed only when the last request
    that uses it is answered.

    Args:
        open_version: `fn(path) -> session.SavedModelSession`, loads and warms up.
        poll_seconds: float, time between two looks at the base paths.
        labels_for_unavailable: whether a label may name a version that is not available (yet).
        tell: `fn(line)`, told of every version that begins or ends to be served.
    """

    def __init__(self, *, open_version, poll_seconds, labels_for_unavailable, tell):
        self._open_version = open_version
        self._poll_seconds = poll_seconds
        self._labels_for_unavailable = labels_for_unavailable
        self._tell = tell
        self._changed = threading.Condition()
        self._models = {}
        self._config = None
        self._awake = True
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="versions", daemon=True)

    def start(self, config):
        """Takes the first configuration and begins to load.

        Args:
            config: `ModelServerConfig`.

        Raises:
            errors.ServingError: the configuration is wrong.
        """
        self._configure(config)
        self._thread.start()

    def stop(self):
        """Unloads everything; waits for the requests that are under way."""
        with self._changed:
            self._stopping = True
            self._wake()
        if self._thread.is_alive():
            self._thread.join()

    def reload(self, config, *, is_active=lambda: True):
        """Takes another configuration and waits for the models that are new in it.

        Args:
            config: `ModelServerConfig`; if it is refused, the old one stays in force.
            is_active: `fn() -> bool`, whether somebody still waits for the answer.

        Raises:
            errors.ServingError: the configuration is wrong, or a new model cannot be loaded.
        """
        new = self._configure(config)
        with self._changed:
            while is_active() and not self._stopping:
                waiting = [name for name in new if not self._models[name].available()]
                if not waiting:
                    return
                failed = [name for name in waiting if self._models[name].has_failed()]
                if failed:
                    raise self._unavailable(failed)
                self._changed.wait(0.1)

    def wait_until_available(self, name, *, timeout, version=None):
        """Waits until a model, or one version of it, answers requests.

        Args:
            name: the model's name.
            timeout: float, seconds.
            version: int, or None for any.

        Returns:
            int, the version; the highest of those available.

        Raises:
            TimeoutError: it does not; the message says what is known of its versions.
            errors.ServingError: all that there is failed to load.
        """
        end = time.monotonic() + timeout
        with self._changed:
            while True:
                model = self._models.get(name)
                numbers = [v.number for v in model.available()] if model else []
                if numbers and version in (None, *numbers):
                    return version or numbers[-1]
                if model is not None and model.has_failed(version):
                    raise self._unavailable([name])
                left = end - time.monotonic()
                if left <= 0 or self._stopping:
                    known = model.describe() if model else "none"
                    wanted = name if version is None else f"{name}/{version}"
                    raise TimeoutError(f"{wanted} is not available. Its versions: {known}.")
                self._changed.wait(left)

    @contextlib.contextmanager
    def serving(self, spec):
        """Holds a version for a request: it is not closed until the request is done.

        Args:
            spec: `ModelSpec`.

        Yields:
            Version.

        Raises:
            errors.ServingError: there is no such version.
        """
        with self._changed:
            version = self._find(spec)
            version.users += 1
        try:
            yield version
        finally:
            with self._changed:
                version.users -= 1
                if not version.users and version.state == State.UNLOADING:
                    self._wake()

    def status(self, spec):
        """The states of a model's versions, the highest first.

        Args:
            spec: `ModelSpec`.

        Returns:
            `GetModelStatusResponse`.

        Raises:
            errors.ServingError: NOT_FOUND, no such model or version.
        """
        response = get_model_status_pb2.GetModelStatusResponse()
        with self._changed:
            number = self._number(spec)
            known = self._models[spec.name].versions if spec.name in self._models else {}
            for version in sorted(known, reverse=True) if number is None else {number} & set(known):
                found = response.model_version_status.add(
                    version=version, state=known[version].state
                )
                error = known[version].error
                found.status.error_code = error.code.value[0] if error else 0
                found.status.error_message = error.message if error else ""
        if not response.model_version_status:
            wanted = "any versions" if number is None else f"version {number}"
            raise errors.ServingError(
                f"Could not find {wanted} of model {spec.name}", code=grpc.StatusCode.NOT_FOUND
            )
        return response

    def is_model(self, name):
        """Whether a model of that name is configured.

        Args:
            name: str.

        Returns:
            bool.
        """
        model = self._models.get(name)
        return model is not None and model.config is not None

    def models(self):
        """The models that are configured.

        Returns:
            dict of name to base path.
        """
        with self._changed:
            served = [model for model in self._models.values() if model.config is not None]
            return {model.name: model.config.base_path for model in served}

    def path_of(self, name, version):
        """Where a version that answers requests is.

        Args:
            name: the model's name.
            version: int.

        Returns:
            str, its directory.

        Raises:
            errors.ServingError: there is no such version.
        """
        with self._changed:
            model = self._models.get(name)
            for found in model.available() if model else []:
                if found.number == version:
                    return found.path
        raise errors.ServingError(
            f"Servable not found for request: Specific({name}, {version})",
            code=grpc.StatusCode.NOT_FOUND,
        )

    def _find(self, spec):
        """The version that answers a request; ServingError if there is none."""
        if not spec.name:
            raise errors.ServingError("ModelSpec has no name specified.")
        number = self._number(spec)
        model = self._models.get(spec.name)
        for version in reversed(model.available() if model else []):
            if number in (None, version.number):
                return version
        wanted = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
        raise errors.ServingError(
            f"Servable not found for request: {wanted}", code=grpc.StatusCode.NOT_FOUND
        )

    def _number(self, spec):
        """The version that is asked for, by number or label; None for the latest."""
        choice = spec.WhichOneof("version_choice")
        if choice == "version":
            return spec.version.value
        if choice is None:
            return None
        labels = self._models[spec.name].labels if spec.name in self._models else {}
        if spec.version_label not in labels:
            raise errors.ServingError(f"Unrecognized servable version label: {spec.version_label}")
        return labels[spec.version_label]

    def _configure(self, config):
        """Checks a configuration and puts it in force; returns the names of new models."""
        with self._changed:
            configs.check(config, before=self._config)
            wanted = {model.name: model for model in config.model_config_list.config}
            for model in wanted.values():
                self._check_labels(model)
            new = [name for name in wanted if not self.is_model(name)]
            for name in wanted.keys() - self._models.keys():
                self._models[name] = Model(name)
            for name, model in self._models.items():
                model.config = wanted.get(name)
                model.labels = dict(wanted[name].version_labels) if name in wanted else {}
                if name in new:
                    model.aspired = set()  # Nothing is known of its base path yet.
            self._config = config
            self._wake()
        return new

    def _check_labels(self, config):
        """A label may only name what is available, so that no request fails for it."""
        model = self._models.get(config.name)
        available = {v.number for v in model.available()} if model else set()
        before = model.labels if model else {}
        for label, number in sorted(config.version_labels.items()):
            moves = before.get(label, number) != number
            if number not in available and (moves or not self._labels_for_unavailable):
                raise errors.ServingError(
                    f"Request to assign label to version {number} of model {config.name}, which "
                    "is not currently available for inference",
                    code=grpc.StatusCode.FAILED_PRECONDITION,
                )

    def _unavailable(self, names):
        text = ", ".join(self._models[name].failures() for name in names)
        return errors.ServingError(
            f"{len(names)} model(s) did not become available: {{{text}}}",
            code=grpc.StatusCode.UNKNOWN,
        )

    def _wake(self):
        self._awake = True
        self._changed.notify_all()

    def _run(self):
        while not self._stopping:
            try:
                self._look()
                while not self._stopping and self._advance():
                    pass
            except Exception:  # Such as a base path that goes away while it is read.
                logging.exception("Looking for versions failed; it is tried again.")
            with self._changed:
                if not self._awake:
                    self._changed.wait(self._poll_seconds)
                self._awake = False
        self._unload_all()

    def _look(self):
        with self._changed:
            for model in self._models.values():
                model.look()

    def _advance(self):
        """Takes one step for one model; returns whether there was one to take."""
        for model in list(self._models.values()):
            if self._close_unused(model) or self._unload(model) or self._load(model):
                return True
        return False

    def _load(self, model):
        with self._changed:
            number = model.to_load()
            if number is None or model.config is None:
                return False
            path = os.path.join(model.config.base_path, str(number))
            version = model.versions[number] = Version(model.name, number, path=path)
            version.state = State.LOADING
            self._changed.notify_all()
        try:
            opened, error = self._open_version(path), None
        except Exception as exception:
            opened, error = None, self._load_error(exception, version)
        with self._changed:
            version.opened, version.error = opened, error
            version.state = State.END if error else State.AVAILABLE
            self._changed.notify_all()
        self._tell(f"Cannot load {version}: {error}" if error else f"Serving {version}")
        return True

    def _load_error(self, exception, version):
        """Without the path, which is no client's business."""
        if isinstance(exception, OSError):
            exception = errors.ServingError(str(exception), code=grpc.StatusCode.NOT_FOUND)
        error = errors.from_exception(exception)
        return errors.ServingError(
            error.message.replace(version.path, str(version)), code=error.code
        )

    def _unload(self, model):
        with self._changed:
            version = model.to_unload()
            if version is None:
                return False
            version.state = State.UNLOADING
            self._changed.notify_all()
        return True

    def _close_unused(self, model):
        with self._changed:
            unused = [
                version
                for version in model.versions.values()
                if version.state == State.UNLOADING and not version.users
            ]
        for version in unused:
            version.opened.close()
            with self._changed:
                version.opened = None
                version.state = State.END
                self._changed.notify_all()
            self._tell(f"Unloaded {version}")
        return bool(unused)

    def _unload_all(self):
        with self._changed:
            for model in self._models.values():
                for version in model.available():
                    version.state = State.UNLOADING
            self._changed.notify_all()
        for model in self._models.values():
            with self._changed:
                while any(version.users for version in model.versions.values()):
                    self._changed.wait()
            self._close_unused(model)

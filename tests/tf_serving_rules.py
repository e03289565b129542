"""How a stock TF Serving takes a models.config, by its own rules: no models, only what is said.

From `ServerCore::ReloadConfig` and `UpdateModelVersionLabelMap` in
tensorflow_serving/model_servers/server_core.cc: labels are checked against the versions that are
available before anything of the configuration is loaded, and a refused configuration changes
nothing. `PollFilesystemAndReloadConfig` in server.cc takes the file again at every poll.
"""

import os

from export.client.transports import ServerError
from export.rollout import models_config


class StockServer:
    """Stands where a `servers.Server` does, and keeps what was refused.

    Args:
        path: the models.config that it polls: whenever it is called, it takes that first.
        name: the model's.
        lenient: its --allow_version_labels_for_unavailable_models.
        broken: versions that it cannot load.
    """

    target = "stock:8500"

    def __init__(self, path, *, name, lenient=True, broken=()):
        self._path, self._name = path, name
        self._lenient, self._broken = lenient, broken
        self.available, self.by_label, self.refused = set(), {}, []

    def poll(self):
        """Takes the file, as far as it is right."""
        if not os.path.exists(self._path):
            return
        try:
            self.reload(models_config.read(self._path))
        except ServerError as error:
            self.refused.append(error.message)

    def reload(self, config):
        entry = models_config.model(config, self._name)
        labels = dict(entry.version_labels) if entry else {}
        for label, version in labels.items():
            new = self.by_label.get(label, version) == version
            if version not in self.available and not (self._lenient and new):
                raise ServerError(
                    "FAILED_PRECONDITION",
                    f"Request to assign label to version {version} of model {self._name}, which "
                    "is not currently available for inference",
                )
        listed = set(entry.model_version_policy.specific.versions) if entry else set()
        self.by_label, self.available = labels, listed - set(self._broken)

    def states(self):
        self.poll()
        return dict.fromkeys(self.available)

    def loaded(self):
        self.poll()
        return self.available

    def labels(self, names):
        self.poll()
        found = {label: self.by_label[label] for label in names if label in self.by_label}
        return {label: version for label, version in found.items() if version in self.available}

    def wait_until_loaded(self, versions):
        self.poll()
        if missing := set(versions) - self.available:
            raise ServerError("FAILED_PRECONDITION", f"it cannot load {sorted(missing)}")

    def check_labels(self, labels):
        found = self.labels(labels)
        if found != labels:
            raise ServerError("FAILED_PRECONDITION", f"labels are {found}, not {labels}")

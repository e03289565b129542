"""What the server knows of its models: their versions, the states of these, and their labels."""

import os

import grpc
from tensorflow_serving.apis import get_model_status_pb2

from export.rollout import versions
from export.server import errors

__all__ = ["Model", "State", "Version", "find", "states"]

State = get_model_status_pb2.ModelVersionStatus.State
_LARGEST = 2**63 - 1  # TF Serving reads a version as int64.


class Version:
    """One version of a model.

    Args:
        model: the model's name.
        number: int.
        path: its directory.

    Attributes:
        state: State.
        error: errors.ServingError it ended with, or None.
        opened: session.SavedModelSession while there is one, else None.
        users: int, requests that are using `opened`.
    """

    def __init__(self, model, number, *, path):
        self.model = model
        self.number = number
        self.path = path
        self.state = State.START
        self.error = None
        self.opened = None
        self.users = 0

    def __str__(self):
        return f"{self.model}/{self.number}"


class Model:
    """A model that is or was configured.

    Args:
        name: str.

    Attributes:
        config: `ModelConfig`, or None once it is no longer served.
        labels: dict of label to version.
        versions: dict of number to Version, also of those that ended.
        aspired: set of the numbers that should be served.
    """

    def __init__(self, name):
        self.name = name
        self.config = None
        self.labels = {}
        self.versions = {}
        self.aspired = set()

    def available(self):
        """The versions that answer requests, ascending."""
        found = (v for v in self.versions.values() if v.state == State.AVAILABLE)
        return sorted(found, key=lambda version: version.number)

    def look(self):
        """Reads the base path and sets `aspired`; leaves it if the base path is not there."""
        if self.config is None:
            self.aspired = set()
        elif os.path.isdir(self.config.base_path):
            found = versions.existing(self.config.base_path)
            self.aspired = self._chosen([number for number in found if number <= _LARGEST])
        for number in self.versions.keys() - self.aspired:
            if self.versions[number].state == State.END:
                self.versions[number].error = None  # It may be tried again when it is back.

    def _chosen(self, numbers):
        """The versions that the policy wants of those that exist."""
        policy = self.config.model_version_policy
        choice = policy.WhichOneof("policy_choice")
        if choice == "all":
            return set(numbers)
        if choice == "specific":
            return set(numbers) & set(policy.specific.versions)
        return set(numbers[-(policy.latest.num_versions or 1) :])

    def to_unload(self):
        """The next version to unload, or None: as long as nothing better serves, all stay."""
        available = self.available()
        if self.aspired and not any(v.number in self.aspired for v in available):
            return None
        return next((v for v in available if v.number not in self.aspired), None)

    def to_load(self):
        """The number of the next version to load, the highest first, or None."""
        for number in sorted(self.aspired, reverse=True):
            version = self.versions.get(number)
            if version is None or (version.state == State.END and version.error is None):
                return number
        return None

    def has_failed(self, number=None):
        """Whether a version, or all that there are, cannot be loaded.

        Args:
            number: int, or None for all that should be served.
        """
        numbers = self.aspired if number is None else {number}
        wanted = [self.versions.get(number) for number in numbers]
        return bool(wanted) and all(v is not None and v.error is not None for v in wanted)

    def failures(self):
        """The versions that cannot be loaded, and why, as TF Serving tells them."""
        return ", ".join(
            f"{{{{name: {self.name} version: {v.number}}} due to error: {v.error}}}"
            for v in self.versions.values()
            if v.error
        )

    def describe(self):
        """The versions and their states, in words."""
        states = [
            f"{v.number} {State.Name(v.state)}" + (f" ({v.error})" if v.error else "")
            for v in self.versions.values()
        ]
        return ", ".join(states) or "none"


def find(models, spec):
    """The version that answers a request.

    Args:
        models: dict of name to Model.
        spec: `ModelSpec`.

    Returns:
        Version.

    Raises:
        errors.ServingError: there is none.
    """
    if not spec.name:
        raise errors.ServingError("ModelSpec has no name specified.")
    number = _number(models, spec)
    model = models.get(spec.name)
    for version in reversed(model.available() if model else []):
        if number in (None, version.number):
            return version
    wanted = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
    raise errors.ServingError(
        f"Servable not found for request: {wanted}", code=grpc.StatusCode.NOT_FOUND
    )


def states(models, spec):
    """The states of the versions that a request asks for.

    Args:
        models: dict of name to Model.
        spec: `ModelSpec`.

    Returns:
        list of (number, State, errors.ServingError or None), the highest version first.

    Raises:
        errors.ServingError: NOT_FOUND, there are none.
    """
    number = _number(models, spec)
    found = models[spec.name].versions if spec.name in models else {}
    if number is not None:
        found = {number: found[number]} if number in found else {}
    if not found:
        wanted = "any versions" if number is None else f"version {number}"
        raise errors.ServingError(
            f"Could not find {wanted} of model {spec.name}", code=grpc.StatusCode.NOT_FOUND
        )
    return [(n, found[n].state, found[n].error) for n in sorted(found, reverse=True)]


def _number(models, spec):
    """The version that is asked for, by number or label; None for the latest."""
    choice = spec.WhichOneof("version_choice")
    if choice == "version":
        return spec.version.value
    if choice is None:
        return None
    labels = models[spec.name].labels if spec.name in models else {}
    if spec.version_label not in labels:
        raise errors.ServingError(f"Unrecognized servable version label: {spec.version_label}")
    return labels[spec.version_label]

"""What the server knows of its models: their versions, the states of these, and their labels."""

import os

from tensorflow_serving.apis import get_model_status_pb2

from export.rollout import versions

__all__ = ["Model", "State", "Version"]

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

"""Pictures of a run."""


class Pictures:
    """Stub."""

    def __init__(self, config, *, dataset, files):
        pass

    def before(self, model):
        """Stub."""

    def after(self, model):
        """Stub."""

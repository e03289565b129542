"""Dtypes of layers whose results are float32 under every precision policy."""

__all__ = ["loss_dtype", "without_autocast"]


def loss_dtype(layer):
    """float64 for a layer of that policy, else float32: str."""
    return "float64" if layer.dtype_policy.variable_dtype == "float64" else "float32"


def without_autocast(config):
    """A layer's config without `autocast`, which its constructor sets itself: dict."""
    config.pop("autocast", None)
    return config

"""The commands that bring a finished run to TF Serving."""

import importlib.metadata

# By its metadata: commands parse their flags before anything imports TensorFlow.
if any(found.version.startswith("2.") for found in importlib.metadata.distributions(name="keras")):
    raise ImportError(
        "export needs Keras 3 (TensorFlow 2.16 to 2.21); found Keras 2, the stack of TensorFlow "
        "Addons. Make an environment without it: see docs/migrating-from-addons.md."
    )

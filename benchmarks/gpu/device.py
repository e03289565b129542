"""What the other sections ran on."""

import shutil
import subprocess

import keras
import tensorflow as tf

import circle_tf
from benchmarks.gpu import table

_QUERY = ("name", "driver_version", "memory.total", "memory.used")


def rows(limits):
    """Versions, and each GPU."""
    build = tf.sysconfig.get_build_info()
    built = {name: build.get(name, "none") for name in ("cuda_version", "cudnn_version")}
    yield table.measured(
        "versions",
        f"circle-tf {circle_tf.__version__}, TensorFlow {tf.__version__}, Keras "
        f"{keras.__version__}, built for CUDA {built['cuda_version']}, cuDNN "
        f"{built['cudnn_version']}",
    )
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        details = tf.config.experimental.get_device_details(gpu)
        capability = ".".join(map(str, details.get("compute_capability", ("unknown",))))
        name = details.get("device_name", "a GPU without a name")
        yield table.measured(gpu.name, f"{name}, compute capability {capability}")
    told = _nvidia_smi()
    if told:
        yield table.measured("nvidia-smi", told)
    if told and not gpus:
        yield table.failed(
            "GPU", "nvidia-smi tells of a GPU and TensorFlow finds none: its CUDA libraries lack"
        )
    elif not gpus:
        yield table.skipped("GPU", "there is none: all that follows ran on the CPU")
    if limits.small:
        yield table.measured("sizes", "small: times and memory say nothing of a GPU")


def _nvidia_smi():
    """The driver's own words on name, version and memory; "" where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
    return "; ".join(f"{line}" for line in told.splitlines())

r"""Serves models on this machine as TF Serving would: gRPC at 8500, REST at 8501.

    python -m export.serve --model_name=glyphs --model_base_path=models/glyphs
    python -m export.serve --models_config=models/models.config

It runs the same C++ session and gives the same answers, but it is for development and tests: no
batching, request logging, gzip, TLS or authentication. In production run tensorflow/serving.
Ctrl-C or SIGTERM ends it once the requests under way are answered.
"""

import gc
import os
import signal
import threading
import urllib.parse

from absl import flags

from circle_tf.utils import quiet
from export.cli import console
from export.rollout import versions


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    flags.DEFINE_string("models_config", None, "File with a ModelServerConfig (models.config).")
    flags.DEFINE_string("model_name", None, "Without --models_config: name of the only model.")
    flags.DEFINE_string("model_base_path", None, "Without --models_config: its base path.")
    flags.DEFINE_string(
        "host",
        "127.0.0.1",
        "Address to listen at. 0.0.0.0 lets everybody in who reaches this machine: there is no "
        "authentication, and clients may reload the configuration.",
    )
    flags.DEFINE_integer("grpc_port", 8500, "Port for gRPC; 0 for a free one.", 0, 65535)
    flags.DEFINE_integer("rest_port", 8501, "Port for REST; 0 for a free one.", 0, 65535)
    flags.DEFINE_bool("ui", False, "Also serve a page to try a model with, at / of the REST port.")
    flags.DEFINE_list(
        "ui_hosts",
        [],
        "With --ui: names to call the server by in a browser, beside localhost, --host and all "
        "addresses. Other names are refused: a page from elsewhere may have its own lead here.",
    )
    flags.DEFINE_float(
        "file_system_poll_wait_seconds", 1, "Time between two looks for versions.", 0.01
    )
    flags.DEFINE_float(
        "model_config_file_poll_wait_seconds",
        0,
        "Time between two looks whether --models_config has changed; 0 for never.",
        0,
    )
    flags.DEFINE_bool(
        "allow_version_labels_for_unavailable_models",
        False,
        "Accept labels of versions that are not loaded yet; at the start none is.",
    )
    flags.DEFINE_string(
        "monitoring_path", "/monitoring/prometheus/metrics", "Where Prometheus finds the metrics."
    )
    flags.DEFINE_float("grace_seconds", 10, "Time for requests under way at the end.", 0)
    flags.DEFINE_integer("max_request_bytes", 256 << 20, "Largest request.", 1)
    flags.DEFINE_integer(
        "max_tensor_elements",
        1 << 25,
        "Most elements of a tensor of a request, filled or not: 222 images of 224 x 224 in colour.",
        1,
    )
    flags.DEFINE_integer("max_concurrent_requests", 256, "Requests under way, per port.", 1)
    flags.DEFINE_integer("rest_api_timeout_in_ms", 30000, "Time for a REST request.", 1)


def main(argv):
    """Serves until a signal comes."""
    del argv
    options = flags.FLAGS
    check_flags(options)
    quiet.import_tensorflow()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    server = start(options)
    try:
        await_models(server, stopped)
        if stopped.is_set():
            return
        print("\n".join(ready(server, options)), flush=True)
        stopped.wait()
        print("Stopping: no more requests are taken.", flush=True)
    finally:
        server.stop(options.grace_seconds)


def check_flags(options):
    """Refuses flags that do not say what to serve, before TensorFlow is loaded.

    Args:
        options: flag values.

    Raises:
        console.ExportError: too many or too few flags, or no such path.
    """
    single = options.model_name, options.model_base_path
    if (options.models_config is None) != all(single) or any(single) != all(single):
        raise console.ExportError(
            "Give either --models_config=FILE or both --model_name=NAME and --model_base_path=DIR."
        )
    if options.models_config is not None and not os.path.isfile(options.models_config):
        raise console.ExportError(f"There is no file {options.models_config!r}.")
    if options.model_base_path is not None and not os.path.isdir(options.model_base_path):
        raise console.ExportError(
            f"There is no base path {options.model_base_path!r}. Publish a model first: "
            "python -m export.publish."
        )


def start(options):
    """Starts the server.

    Args:
        options: flag values.

    Returns:
        server.Server.
    """
    from export import server

    # Full collections of garbage, which the lists of a JSON body of 64 small images bring on, would
    # look at all that TensorFlow's modules hold: 200 ms. Models come later, and can be collected.
    gc.freeze()
    config = options.models_config
    if config is None:
        config = server.for_model(options.model_name, options.model_base_path)
    return server.Server(
        config,
        host=options.host,
        grpc_port=options.grpc_port,
        rest_port=options.rest_port,
        ui=options.ui,
        ui_hosts=options.ui_hosts,
        poll_seconds=options.file_system_poll_wait_seconds,
        config_poll_seconds=options.model_config_file_poll_wait_seconds,
        labels_for_unavailable=options.allow_version_labels_for_unavailable_models,
        monitoring_path=options.monitoring_path,
        limits=server.Limits(
            max_bytes=options.max_request_bytes,
            max_elements=options.max_tensor_elements,
            max_requests=options.max_concurrent_requests,
            seconds=options.rest_api_timeout_in_ms / 1000,
        ),
        tell=lambda line: print(f"{line}\n", end="", flush=True),  # Whole lines, from any thread.
    )


def await_models(server, stopped):
    """Waits until all models can be used, as long as it takes for a first version to be there.

    Args:
        server: server.Server.
        stopped: `threading.Event`, ends the waiting.

    Raises:
        console.ExportError: a model has versions, and all of them are broken.
    """
    from export.server import errors

    for name, base_path in server.models().items():
        waits = False
        while not stopped.is_set():
            try:
                server.wait_until_available(name, timeout=1)
                break
            except errors.ServingError as error:
                raise console.ExportError(error.message) from error
            except TimeoutError:
                if not waits and not versions.existing(base_path):
                    print(f"Waiting for a first version of {name} in {base_path}", flush=True)
                    waits = True


def ready(server, options):
    """What a user wants to know when the server listens, in lines.

    Args:
        server: server.Server.
        options: flag values.

    Returns:
        list of str.
    """
    rest = f"http://{options.host}:{server.rest_port}"
    name = urllib.parse.quote(next(iter(server.models())), safe="")
    lines = [f"gRPC  {options.host}:{server.grpc_port}", f"REST  {rest}/v1/models/{name}"]
    if options.ui:
        lines.append(f"Page  {rest}/")
    return lines


if __name__ == "__main__":
    define_flags()
    console.run(main)

r"""Publishes the model of a finished run as the next version that TF Serving picks up.

    python -m export.publish --workdir=runs/glyphs --base_path=models/glyphs

The SavedModel is verified in TensorFlow's C++ session before it appears as BASE_PATH/VERSION.
"""

import os
import shlex

from absl import flags

from circle_tf.utils import command_lines, quiet
from export.cli import console, rollout_flags, runs

IMAGE_TAG = "2.20.0"


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    flags.DEFINE_string("workdir", None, "Directory of a finished training run.", required=True)
    flags.DEFINE_string("base_path", None, "Directory of the model's versions.", required=True)
    flags.DEFINE_bool("best", False, "The model that was best in training, not the last.")
    flags.DEFINE_integer(
        "version", None, "Version to publish; default: one above the highest.", lower_bound=1
    )
    flags.DEFINE_list("signatures", None, "Signatures; default: all that run and gallery allow.")
    flags.DEFINE_string(
        "gallery",
        None,
        "What the searches search in: a file of export.gallery, a folder of images, or held_out, "
        "the run's held-out examples. Default: no searches.",
    )
    flags.DEFINE_bool(
        "skip_unreadable",
        False,
        "Leave out files of a --gallery of images that cannot be read; without, refuse the folder.",
    )
    flags.DEFINE_integer(
        "thumbnails",
        96,
        "Longer side of the thumbnails of the gallery's images in pixels, for the page of "
        "export.serve --ui; 64 MiB of them at most; 0 for none.",
        0,
        1024,
    )
    flags.DEFINE_integer("k", 10, "Neighbours that searches return.", lower_bound=1)
    flags.DEFINE_enum(
        "weights", "float32", ["float32", "float16", "bfloat16"], "How large weights are stored."
    )
    flags.DEFINE_bool(
        "xla", False, "XLA compiles the model; serve with --xla_cpu_compilation_enabled=true."
    )
    flags.DEFINE_list("batch_sizes", ["1", "8", "64"], "Batch sizes to warm up: the server's.")
    flags.DEFINE_integer(
        "max_batch_size", 1024, "Most images, pairs or embeddings of a request.", lower_bound=1
    )
    flags.DEFINE_integer(
        "max_pixels",
        1 << 26,
        "Most pixels of an image file, height times width: decoding takes 18 bytes each.",
        lower_bound=1,
    )
    flags.DEFINE_float(
        "false_accept_rate",
        None,
        "Decide by the thresholds that trainers.evaluate found at this rate. Default: the lowest "
        "rate that the examples were enough for, or none.",
        lower_bound=0,
        upper_bound=1,
    )
    flags.DEFINE_list("lite", [], "LiteRT models to add: float32, float16, int8.")
    flags.DEFINE_list("onnx", [], "Signatures to add as ONNX models: serving_default.")
    flags.DEFINE_string(
        "models_config", None, "models.config to list it in; default: the one beside --base_path."
    )
    flags.DEFINE_bool("list", True, "List it: as stable if it is the first, else as canary.")
    rollout_flags.define_servers()


def main(argv):
    """Publishes, and tells what was done and what comes next."""
    del argv
    options = flags.FLAGS
    run = runs.read(options.workdir, best=options.best)
    sizes = _batch_sizes(options.batch_sizes)
    quiet.import_tensorflow()
    from export.publishing import publisher
    from export.rollout import lifecycle, servers

    config = options.models_config or lifecycle.default_config(options.base_path)
    name = lifecycle.model_name(options.base_path)
    with servers.connected(options.server, model=name, timeout=options.timeout) as asked:
        published = publisher.publish(
            run,
            base_path=options.base_path,
            version=options.version,
            models_config=config if options.list else None,
            servers=asked,
            options=_what(options, sizes),
        )
    print(report(published, run=run))
    print(next_steps(published, options, config=config))


def _what(options, sizes):
    from export.publishing import publisher

    return publisher.Options(
        signatures=tuple(options.signatures) if options.signatures is not None else None,
        gallery=options.gallery,
        skip_unreadable=options.skip_unreadable,
        thumbnails=options.thumbnails,
        k=options.k,
        weights=options.weights,
        xla=options.xla,
        batch_sizes=sizes,
        lite=tuple(options.lite),
        onnx=tuple(options.onnx),
        max_batch_size=options.max_batch_size,
        max_pixels=options.max_pixels,
        false_accept_rate=options.false_accept_rate,
    )


def _batch_sizes(values):
    try:
        sizes = tuple(int(value) for value in values)
    except ValueError as error:
        raise console.ExportError(
            f"--batch_sizes must be whole numbers; found {values}."
        ) from error
    if not sizes or min(sizes) < 1:
        raise console.ExportError(f"--batch_sizes must be 1 or more each; found {values}.")
    return sizes


def report(published, *, run):
    """What a user wants to know after publishing, in lines."""
    from export.publishing import thresholds

    lines = [
        *(f"  {line}" for line in published.verified.summary()),
        *_variant_lines(published.manifest["variants"]),
        *(f"  {line}" for line in thresholds.summary(published.manifest, run=run)),
        f"Published {published.path}",
        f"  {'fingerprint':<16} {published.manifest['fingerprint']}",
    ]
    gallery = published.manifest["gallery"]
    if gallery is not None and gallery["thumbnails"]:
        size = f"{gallery['thumbnail_bytes']:,} bytes"
        lines.insert(
            -2,
            f"  {'thumbnails':<16} {gallery['thumbnails']} of {gallery['rows']} images, {size}; "
            "--thumbnails=0 leaves them out",
        )
    labels = [label for label, version in published.labels.items() if _is(published, version)]
    if labels:
        lines.append(f"  {'label':<16} {', '.join(labels)}")
    elif published.labels:
        lines.append(f"  {'label':<16} none yet: servers must have loaded it first")
    return "\n".join(lines)


def next_steps(published, options, *, config):
    """The commands that come next, in lines that a shell takes as they are."""
    lines = ["Next:", "  check it again"]
    words = [f"--model={published.path}", f"--workdir={options.workdir}"]
    words += ["--best"] if options.best else []
    lines.append(f"    {command_lines.python_module('export.verify', *words)}")
    if published.labels:
        lines.append("  serve it here (gRPC 8500, REST 8501)")
        # Labels are given before any version is available, of this server as of TF Serving.
        words = f"--models_config={config}", "--model_config_file_poll_wait_seconds=1"
        lines.append(f"    {command_lines.python_module('export.serve', *words)} \\")
        lines.append("      --allow_version_labels_for_unavailable_models")
        if not any(_is(published, version) for version in published.labels.values()):
            lines.append(
                "  label it canary, once it is loaded by the servers (all of them, by gRPC)"
            )
            server = "localhost:8500"
            lines.append(f"    {rollout_flags.command('labels', options, server=server)}")
        elif len(published.labels) > 1:
            lines.append("  give it to all clients")
            lines.append(f"    {rollout_flags.command('promote', options)}")
    base_path = os.path.abspath(options.base_path)
    name = os.path.basename(base_path)
    mount = ["-e", f"MODEL_NAME={name}", "-v", f"{base_path}:/models/{name}"]
    lines += [
        "  serve it with TF Serving",
        "    docker run --rm -p 8500:8500 -p 8501:8501 \\",
        f"      {shlex.join(mount)} tensorflow/serving:{IMAGE_TAG}",
    ]
    return "\n".join(lines)


def _is(published, version):
    return os.path.basename(published.path) == str(version)


def _variant_lines(found):
    rows = []
    for name, facts in found.items():
        recall = facts.get("recall_at_1")
        shown = "" if recall is None else f", recall@1 {recall:.4f}"
        rows.append(
            f"  {name:<16} {facts['bytes']:,} bytes, cosine {facts['cosine']:.5f} (lowest "
            f"{facts['lowest_cosine']:.5f}){shown}"
        )
    return rows


if __name__ == "__main__":
    define_flags()
    console.run(main)

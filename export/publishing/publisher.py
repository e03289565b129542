"""From a finished run to a verified version that TF Serving can pick up."""

import contextlib
import dataclasses
import os

import numpy as np

from circle_tf.serving import servable, signatures
from circle_tf.serving.weights import as_float32
from circle_tf.utils import quiet
from circle_tf.utils.files import disk_errors
from export.cli import console, runs
from export.publishing import gallery_sources, manifest, thresholds, variants
from export.rollout import lifecycle, versions
from export.saved_model import pictures, warmup
from export.saved_model.contents import Contents
from export.verification import checks, probes, session_checks

__all__ = ["Options", "Published", "publish", "warmup_requests"]


@dataclasses.dataclass(frozen=True)
class Published:
    """A published version.

    Args:
        path: its directory.
        manifest: dict, see `export.publishing.manifest`.
        verified: checks.Verification.
        labels: dict of label to version, as models.config has them now.
    """

    path: str
    manifest: dict
    verified: checks.Verification
    labels: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Options:
    """What to publish beside the model, and how.

    Args:
        signatures: names, or None for all that the run and the gallery allow.
        gallery: see `export.publishing.gallery_sources.load`; None for no search.
        skip_unreadable: see there.
        k: int, neighbours of searches.
        weights: how large weights are stored.
        xla: whether XLA compiles the model.
        batch_sizes: batch sizes to warm up.
        lite: kinds of LiteRT models to make, of `export.publishing.variants.LITE`.
        onnx: signatures to make an ONNX model of.
        max_batch_size: int, the most rows of a batch that is answered.
        max_pixels: int, the most pixels of an image file that is decoded.
        thumbnails: int, the longer side of small pictures of the gallery's images in pixels, for
            the page of `export.serve --ui`; 0 for none.
        false_accept_rate: float, of the thresholds to decide by; None for the lowest reliable.
    """

    signatures: tuple[str, ...] | None = None
    gallery: str | None = None
    skip_unreadable: bool = False
    k: int = 10
    weights: str = "float32"
    xla: bool = False
    batch_sizes: tuple[int, ...] = (1,)
    lite: tuple[str, ...] = ()
    onnx: tuple[str, ...] = ()
    max_batch_size: int = Contents.max_batch_size
    max_pixels: int = Contents.max_pixels
    thumbnails: int = 96
    false_accept_rate: float | None = None


def publish(
    run, *, base_path, version=None, options=None, models_config=None, servers=(), tell=print
):
    """Exports the run's model, verifies it, and only then gives it its place by rename.

    Whatever happens on the way, `base_path` holds whole, verified versions and nothing else that
    a server would read. Two publishers at once wait for each other.

    Args:
        run: runs.Run, a finished run.
        base_path: directory of the served model's versions, on a local disk; made if needed.
        version: int above all existing ones; default: one more than the highest.
        options: Options; default: the model alone, all signatures.
        models_config: path of a models.config to list the version in; None for none.
        servers: `export.rollout.servers.Server`s that follow models_config.
        tell: `fn(line)` for progress.

    Returns:
        Published.

    Raises:
        console.ExportError: the run's model cannot be loaded or served, the gallery is another
            model's, it fails a check, the version is taken, or a server does not follow; then
            the version is there and not listed.
        OSError: the disk is full, or nothing may be written there.
    """
    versions.choose(base_path, wanted=version)  # Before anything is made or waited for.
    options = options or Options()
    variants.check(lite=options.lite, onnx=options.onnx)
    chosen = thresholds.choose(
        run, rate=options.false_accept_rate, signatures=options.signatures or ()
    )
    _check_batch_sizes(options)
    with disk_errors(base_path), versions.exclusive(base_path, tell=tell):
        version = versions.choose(base_path, wanted=version)
        tell(f"Loading {os.path.join(run.workdir, 'best.keras' if run.best else 'model.keras')}")
        model = runs.load_model(run.workdir, best=run.best)
        contents = _contents(run, model, options, chosen)
        with versions.staging(base_path) as stage:
            staged = os.path.join(stage, str(version))
            content, verified = _stage(
                staged,
                run,
                model,
                contents,
                chosen=chosen,
                options=options,
                base_path=base_path,
                tell=tell,
            )
            path = os.path.join(base_path, str(version))
            os.rename(staged, path)
        labels = {}
        if models_config is not None:  # Before anybody prunes: a version is safe once listed.
            labels = lifecycle.add(
                base_path, version=version, config=models_config, servers=servers, tell=tell
            )
    return Published(path, content, verified, labels)


def _check_batch_sizes(options):
    largest = max(*options.batch_sizes, *session_checks.BATCH_SIZES)
    if options.max_batch_size < largest:
        raise console.ExportError(
            f"max_batch_size must be {largest} or more, the largest batch that is warmed up or "
            f"verified; found {options.max_batch_size}."
        )


def _stage(staged, run, model, contents, *, chosen, options, base_path, tell):
    """Everything that is to be in the version's directory; `(manifest, Verification)`."""
    tell("Exporting" + _precision_note(model))
    with _for_people():
        with quiet.stderr_kept_back():  # oneDNN tells of the CPU's lack of half precision.
            contents.save(model, staged, image_shape=run.image_shape)
        requests = warmup_requests(model, contents, batch_sizes=options.batch_sizes, run=run)
        warmup.write(staged, requests, model_name=lifecycle.model_name(base_path))
    if contents.gallery is not None:
        pictures.write(staged, contents.gallery)
    tell("Verifying in a C++ session, as TF Serving runs it")
    verified = checks.verify_servable(staged, model=model, contents=contents)
    made = variants.make(staged, run=run, model=model, lite=options.lite, onnx=options.onnx)
    content = manifest.describe(
        staged,
        run=run,
        version=int(os.path.basename(staged)),
        verified=verified,
        contents=contents,
        model=model,
        thresholds=chosen,
        variants=variants.report(staged, run=run, model=model, made=made),
    )
    manifest.write(staged, content)
    return content, verified


def warmup_requests(model, contents, *, batch_sizes, run):
    """A request of every signature for each batch size.

    Args:
        model: `keras.Model`.
        contents: contents.Contents.
        batch_sizes: ints.
        run: runs.Run.

    Returns:
        List of warmup.Request.
    """
    shape = run.image_shape or model.input_shape[1:]
    requests = []
    for size in sorted(set(batch_sizes)):
        images = servable.probe_images(shape, batch_size=size)
        for name in contents.signatures:
            embeddings = None
            if contents.gallery is not None:
                rows = np.arange(size) % len(contents.gallery)
                embeddings = contents.gallery.embeddings[rows]
            inputs = probes.good_inputs(name, images, embeddings=embeddings)
            requests.append(warmup.Request(name, inputs))
    return requests


def _contents(run, model, options, chosen):
    shape = run.image_shape or model.input_shape[1:]
    gallery = None
    if options.gallery:
        gallery = gallery_sources.load(
            options.gallery,
            run=run,
            model=model,
            image_shape=shape,
            skip_unreadable=options.skip_unreadable,
            thumbnails=options.thumbnails,
        )
    class_weights, class_names = run.class_weights(), run.class_names()
    found = {name: chosen[name]["threshold"] for name in chosen}
    names = options.signatures
    if names is None:
        names = _possible(shape, gallery, class_weights, found.get("verification"))
    return Contents(
        signatures=("serving_default", *(n for n in names if n != "serving_default")),
        gallery=gallery,
        k=min(options.k, len(gallery)) if gallery is not None else options.k,
        class_weights=class_weights if set(names) & set(signatures.NEEDS_CLASS_WEIGHTS) else None,
        class_names=class_names if set(names) & set(signatures.NEEDS_CLASS_NAMES) else None,
        weights=options.weights,
        jit_compile=options.xla,
        max_batch_size=options.max_batch_size,
        max_pixels=options.max_pixels,
        verification_threshold=found.get("verification"),
        search_threshold=None if gallery is None else found.get("search"),
    )


def _possible(shape, gallery, class_weights, verification_threshold):
    """The signatures that can be made."""
    names = set(signatures.NAMES)
    if gallery is None:
        names -= set(signatures.NEEDS_GALLERY)
    elif gallery.classes is None:
        names -= set(signatures.NEEDS_CLASSES)
    if class_weights is None:
        names -= set(signatures.NEEDS_CLASS_WEIGHTS)
    if verification_threshold is None:
        names -= set(signatures.NEEDS_THRESHOLD)
    if shape[-1] not in (1, 3):
        names -= set(signatures.DECODE)
    return tuple(name for name in signatures.NAMES if name in names)


def _precision_note(model):
    is_float32 = as_float32(model) is model
    return "" if is_float32 else " in float32 (it was trained in another precision)"


@contextlib.contextmanager
def _for_people():
    try:
        yield
    except ValueError as error:
        raise console.ExportError(str(error)) from error

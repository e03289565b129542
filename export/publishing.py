"""From a finished run to a verified version that TF Serving can pick up."""

import dataclasses
import os

from circle_tf import clones, servable
from export import console, manifest, runs, verification, versions

__all__ = ["Published", "publish"]


@dataclasses.dataclass(frozen=True)
class Published:
    """A published version.

    Args:
        path: its directory.
        manifest: dict, see `export.manifest`.
        verified: verification.Verification.
    """

    path: str
    manifest: dict
    verified: verification.Verification


def publish(run, *, base_path, version=None, tell=print):
    """Exports the run's model, verifies it, and only then gives it its place by rename.

    Whatever happens on the way, `base_path` holds whole, verified versions and nothing else that
    a server would read. Two publishers at once wait for each other.

    Args:
        run: runs.Run, a finished run.
        base_path: directory of the served model's versions, on a local disk; made if needed.
        version: int above all existing ones; default: one more than the highest.
        tell: `fn(line)` for progress.

    Returns:
        Published.

    Raises:
        console.ExportError: the run's model cannot be loaded or served, it fails a check, or
            the version is taken.
    """
    versions.choose(base_path, wanted=version)  # Before anything is made or waited for.
    with versions.exclusive(base_path, tell=tell):
        version = versions.choose(base_path, wanted=version)
        tell(f"Loading {os.path.join(run.workdir, 'model.keras')}")
        model = runs.load_model(run.workdir)
        with versions.staging(base_path) as stage:
            tell("Exporting" + _precision_note(model))
            staged = _export(model, os.path.join(stage, str(version)), run=run)
            tell("Verifying in a C++ session, as TF Serving runs it")
            verified = verification.verify_servable(staged, model=model)
            content = manifest.describe(staged, run=run, version=version, verified=verified)
            manifest.write(staged, content)
            path = os.path.join(base_path, str(version))
            os.rename(staged, path)
    return Published(path, content, verified)


def _precision_note(model):
    is_float32 = clones.as_float32(model) is model
    return "" if is_float32 else " in float32 (it was trained in another precision)"


def _export(model, path, *, run):
    try:
        return servable.save_servable(model, path, image_shape=run.image_shape)
    except ValueError as error:
        raise console.ExportError(str(error)) from error

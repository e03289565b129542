"""The wheel holds the library, works away from the checkout, and the sdist holds everything."""

import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).absolute().parents[1]

# Each builds the archives (5 s, once) or starts a process that imports TensorFlow (10 s).
pytestmark = pytest.mark.slow


def _run(*command, cwd):
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def _tracked():
    """Returns the files of version control, or None where this is no clone or git is missing."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return None
    names = _run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    return {name for name in names if (ROOT / name).is_file()}


def _copy(directory):
    """Copies what could be committed: the build leaves its traces, and must not meet old ones."""
    unwanted = (".git", ".venv*", "_build", "dist", "runs", "models", "bazel-*", "*.egg-info")
    ignore = shutil.ignore_patterns(*unwanted, "site", "__pycache__", ".*_cache", ".hypothesis")
    return shutil.copytree(ROOT, directory, ignore=ignore)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Builds the sdist, and from it the wheel, with the setuptools that is installed."""
    directory = tmp_path_factory.mktemp("packaging")
    tree = _copy(directory / "tree")
    _run(sys.executable, "-m", "build", "--no-isolation", f"--outdir={directory}", cwd=tree)
    return directory


def test_the_wheel_holds_the_library_alone(archives):
    (wheel,) = archives.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    code = {name for name in names if ".dist-info/" not in name}
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "circle_tf").rglob("*.py")}
    assert code == sources | {"circle_tf/py.typed"}
    assert wheel.stat().st_size < 400e3  # What is in it is above: 845 kB of sources were 311 kB.
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_sdist_holds_everything(archives):
    (sdist,) = archives.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = _tracked()
    if expected is None:
        expected = {"BUILD", "Makefile", "requirements.lock", "trainers/train.py", ".ci/run"}
    assert expected - names == set()


_USER = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import circle_tf, tensorflow as tf
assert pathlib.Path(circle_tf.__file__).is_relative_to(sys.argv[1]), circle_tf.__file__
embeddings = tf.constant([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
loss = circle_tf.CircleLoss(margin=0.25, gamma=8.0)([7, 7, 9, 9], embeddings)
print(f"{circle_tf.__version__} {float(loss):.6f}")
"""


def test_the_wheel_works_from_another_folder(archives, tmp_path):
    (wheel,) = archives.glob("*.whl")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "user.py").write_text(_USER)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q")
    _run(*pip, "--no-deps", "--no-index", f"--target={site}", wheel, cwd=tmp_path)
    version, loss = _run(sys.executable, "user.py", site, cwd=elsewhere).split()
    assert version == wheel.name.split("-")[1]
    assert 0 < float(loss) < 100

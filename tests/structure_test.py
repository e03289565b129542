"""The dependencies: one way only, and one import site for what is heavy or ageing."""

import ast
import graphlib
import pathlib
import subprocess
import sys
import textwrap
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).absolute().parents[1]

# Each room, a package or a module, and the rooms beside it that it may import.
ROOMS = {
    "circle_tf": {
        "version": set(),
        "compat": set(),
        "utils": {"compat"},
        "ops": {"compat", "utils"},
        "distribute": {"compat", "utils", "ops"},
        "losses": {"compat", "utils", "ops", "distribute"},
        "optimizers": {"compat", "utils"},
        "layers": {"compat", "utils", "ops", "distribute", "losses", "optimizers"},
        "training": {"compat", "utils", "ops", "distribute", "losses", "layers", "optimizers"},
        "fine_tuning": {"compat", "utils", "data", "optimizers", "training"},
        "metrics": {"ops", "distribute", "losses"},
        "evaluation": {"utils", "ops"},
        "callbacks": {"utils", "ops", "losses", "evaluation"},
        "data": {"utils"},
        "backbones": {"compat", "utils"},
        "serving": {"compat", "utils", "ops", "data"},
        "plots": {"utils", "ops", "evaluation"},
        "addons": {"compat", "ops", "losses", "optimizers", "baselines"},
        "baselines": {"losses"},
        "records": {"data"},
        "retrieval": {"evaluation"},
        "schedules": {"utils"},
        "run_files": {"layers", "backbones"},
    },
    "trainers": {
        "cli": set(),
        "datasets": {"cli"},
        "input": {"cli"},
        "distributed": {"cli"},
        "evaluation": {"cli", "datasets"},
        "outputs": {"cli", "datasets", "evaluation"},
        "training": {"cli", "datasets", "input", "distributed", "evaluation", "outputs"},
        "tuning": {"cli", "evaluation", "outputs"},
    },
    "export": {
        "cli": set(),
        "saved_model": {"cli"},
        "verification": {"cli", "saved_model"},
        "rollout": {"cli", "client"},
        "client": {"cli"},
        "publishing": {"cli", "saved_model", "verification", "rollout"},
        "server": {"cli", "saved_model", "rollout"},
    },
}
COMMANDS = {  # They come in through all doors, and nobody imports them but each other.
    "trainers": {"train", "evaluate", "inspect", "data", "launch", "tune"},
    "export": {"publish", "verify", "gallery", "serving_files", "serve", "query"}
    | {"labels", "promote", "rollback", "prune"},
}
PACKAGES = {  # Package: the others of ours that it may import.
    "circle_tf": set(),
    "configs": set(),
    "trainers": {"circle_tf", "configs"},
    "export": {"circle_tf"},
    "benchmarks": {"circle_tf", "configs", "export", "trainers"},
}
SITES = {  # Heavy or ageing: the modules that may import it, in functions only.
    "keras_cv": {"circle_tf.backbones.keras_cv"},
    "keras_hub": {"circle_tf.backbones.keras_hub"},
    "h5py": {"circle_tf.backbones.weight_files"},
    "matplotlib": {
        "benchmarks.comparison",
        "benchmarks.paper_figures",
        "circle_tf.plots.canvas",
        "circle_tf.plots.decisions",  # For the type, as figures.
        "circle_tf.plots.figures",
        "trainers.datasets.glyphs",  # Needs its fonts only.
        "trainers.tuning.pictures",
    },
    "scipy": {"benchmarks.comparison", "trainers.datasets.published.cars196"},
    "optuna": {"trainers.tuning.study"},
    "sklearn": {"circle_tf.evaluation.clustering", "trainers.datasets.digits"},
    "tensorflow_datasets": {"trainers.datasets.tfds"},
    "pyarrow": {"trainers.datasets.table_files"},
    "tensorboard": {"circle_tf.plots.projector"},
    "faiss": {"export.client.index"},
    "tensorflow_addons": set(),
}


class Import(NamedTuple):
    """A dotted name, and whether it is imported as soon as its importer is."""

    name: str
    eager: bool

    @property
    def package(self):
        return self.name.partition(".")[0]


def _names(node):
    """Yields the dotted names that a statement or a call imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, f"line {node.lineno}: import by absolute name"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
        yield ast.unparse(node.args[0]).removeprefix("f").strip("'\"")


def _imports(node, *, eager=True):
    """Returns every import below `node`, those in functions or for type checkers as not eager."""
    found = [Import(name, eager) for name in _names(node)]
    inner = eager and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    inner = inner and not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    for child in ast.iter_child_nodes(node):
        found += _imports(child, eager=inner)
    return found


def _modules():
    """Returns {dotted name: imports} of all modules of ours; a package is named `x.__init__`."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): _imports(
            ast.parse(path.read_text())
        )
        for path in paths
    }


MODULES = _modules()


def _module(name):
    """Returns our module that holds the dotted `name`, or None if it is not ours."""
    while name:
        for candidate in (name, f"{name}.__init__"):
            if candidate in MODULES:
                return candidate
        name = name.rpartition(".")[0]
    return None


def _ours(module):
    return {_module(found.name) for found in MODULES[module]} - {None, module}


def _room(module):
    return module.split(".")[1]


def _modules_of(package):
    return [module for module in MODULES if module.partition(".")[0] == package]


def test_imports_are_found_wherever_they_stand():
    source = """
        import a.b
        from c import d as e
        if True:
            import f
        def lazy():
            from g.h import i
            return importlib.import_module(f"j.{k}"), importlib.import_module("l")
        class Eager:
            import m
        if TYPE_CHECKING:
            import n
        """
    found = _imports(ast.parse(textwrap.dedent(source)))
    assert {entry.name for entry in found if entry.eager} == {"a.b", "c.d", "f", "m"}
    assert {entry.name for entry in found if not entry.eager} == {"g.h.i", "j.{k}", "l", "n"}


@pytest.mark.parametrize("package", ROOMS)
def test_every_room_says_what_it_may_import(package):
    rooms = {_room(module) for module in _modules_of(package)} - {"__init__"}
    assert rooms == ROOMS[package].keys() | COMMANDS.get(package, set())


@pytest.mark.parametrize(
    ("package", "room"), [(package, room) for package in ROOMS for room in ROOMS[package]]
)
def test_rooms_import_only_those_below_them(package, room):
    modules = [module for module in _modules_of(package) if _room(module) == room]
    found = {other for name in modules for other in _ours(name) if other in _modules_of(package)}
    assert {_room(other) for other in found} - {room} <= ROOMS[package][room]


def test_rooms_have_an_order():
    for rooms in ROOMS.values():
        assert list(graphlib.TopologicalSorter(rooms).static_order())


def test_there_are_no_cycles():
    order = list(graphlib.TopologicalSorter({name: _ours(name) for name in MODULES}).static_order())
    assert order.index("circle_tf.ops.numerics") < order.index("circle_tf.losses.circle")


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_those_below_them(package):
    found = {entry.package for name in _modules_of(package) for entry in MODULES[name]}
    assert found & PACKAGES.keys() - {package} <= PACKAGES[package]


def test_the_library_needs_tensorflow_keras_and_numpy_only():
    imports = {entry for name in _modules_of("circle_tf") for entry in MODULES[name]}
    eager = {entry.package for entry in imports if entry.eager} - set(sys.stdlib_module_names)
    assert eager == {"circle_tf", "keras", "numpy", "tensorflow", "wrapt"}


def test_pytorch_stays_in_the_scripts_of_the_peers():
    """They run under a Python without TensorFlow, so all that they import must do without it."""
    peers = {name for name in _modules_of("benchmarks") if name.endswith("_peers")}
    needed = set(peers)
    while found := {other for name in needed for other in _ours(name)} - needed:
        needed |= found
    packages = {name: {entry.package for entry in MODULES[name]} for name in MODULES}
    assert {name for name in MODULES if "torch" in packages[name]} == peers
    imported = set().union(*(packages[name] for name in needed)) - set(sys.stdlib_module_names)
    assert imported <= {"benchmarks", "numpy", "torch", "pytorch_metric_learning"}


def test_sheets_are_drawn_without_tensorflow():
    """Clients of a server draw them too."""
    needed = {"circle_tf.plots.sheets"}
    while found := {other for name in needed for other in _ours(name)} - needed:
        needed |= found
    packages = {entry.package for name in needed for entry in MODULES[name]}
    assert packages - set(sys.stdlib_module_names) == {"PIL", "circle_tf", "numpy"}


def test_configs_import_no_tensorflow():
    packages = {entry.package for name in _modules_of("configs") for entry in MODULES[name]}
    assert packages - set(sys.stdlib_module_names) == {"configs", "ml_collections"}


@pytest.mark.parametrize("package", SITES)
def test_heavy_packages_have_their_import_sites(package):
    imports = [(name, entry) for name, found in MODULES.items() for entry in found]
    sites = {name: entry.eager for name, entry in imports if entry.package == package}
    assert sites == dict.fromkeys(SITES[package], False)


_BARE_IMPORT = """
import logging, os, random, socket, sys
import keras, tensorflow as tf

def state():
    loggers = [logging.root, *map(logging.getLogger, sorted(logging.root.manager.loggerDict))]
    handlers = [(logger.name, logger.level, *logger.handlers) for logger in loggers]
    return dict(os.environ), random.getstate(), handlers, keras.config.dtype_policy().name

def refuse(*args, **kwargs):
    raise AssertionError("a socket was opened")

def can_still_set(threads):  # TensorFlow refuses once its context, and with it devices, is up.
    try:
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        return False
    return True

socket.socket.__init__ = refuse
modules, before = set(sys.modules), state()  # Keras itself loads what is installed.
import circle_tf
assert state() == before
loaded = {name.partition(".")[0] for name in sys.modules.keys() - modules}
assert loaded - sys.stdlib_module_names == {"circle_tf"}, loaded
assert can_still_set(1)
tf.constant(1)
assert not can_still_set(2)
"""


_LAZY = """
import sys
import circle_tf
assert circle_tf.__version__ and "EmbeddingModel" in dir(circle_tf)
assert not {"keras", "numpy", "tensorflow"} & sys.modules.keys()
import keras
assert "circle_tf>EmbeddingModel" in keras.saving.get_custom_objects()
for name in circle_tf.__all__:
    assert getattr(circle_tf, name) is not None
assert not hasattr(circle_tf, "no_such_name")
"""


def test_the_library_is_imported_when_it_is_needed_and_registers_with_keras():
    command = [sys.executable, "-c", _LAZY]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_import_has_no_side_effects():
    """No GPU memory is taken, nothing is logged, no socket is opened, nothing heavy is loaded."""
    command = [sys.executable, "-c", _BARE_IMPORT]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""

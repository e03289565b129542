"""Bazel's targets agree with the tree, told without Bazel: BUILD reads as Python."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).absolute().parents[1]
LIBRARIES = {"circle_tf", "configs", "trainers", "export", "benchmarks"}


def _glob(patterns, exclude=()):
    """Returns the files that Bazel's glob would; names with a dot count, folders do not."""
    found = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    unwanted = {path for pattern in exclude for path in ROOT.glob(pattern)}
    return sorted(path.relative_to(ROOT).as_posix() for path in found - unwanted)


def _targets():
    """Runs BUILD with rules that only note what they are given; returns {name: (rule, fields)}."""
    targets, loaded = {}, []

    def rule(kind):
        def declare(*, name, **fields):
            assert name not in targets, f"two targets are named {name}"
            targets[name] = kind, fields

        return declare

    names = {kind: rule(kind) for kind in ("py_binary", "py_library", "py_test", "filegroup")}
    names |= {"glob": _glob, "load": lambda *args: loaded.append(args)}
    names["package"] = lambda **_: None
    exec(compile((ROOT / "BUILD").read_text(), "BUILD", "exec"), names)
    assert loaded == [("@rules_python//python:defs.bzl", "py_binary", "py_library", "py_test")]
    return targets


TARGETS = _targets()


def _of(kind):
    return {name: fields for name, (found, fields) in TARGETS.items() if found == kind}


def test_every_test_file_has_its_target():
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*_test.py")}
    assert {name + ".py" for name in _of("py_test")} == files
    for name, fields in _of("py_test").items():
        assert fields["srcs"] == [f"{name}.py", fields["main"]]
        assert fields["args"][0] == "pytest" and fields["args"][-1] == f"{name}.py"


@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_libraries_hold_all_their_sources(name):
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / name).rglob("*.py")}
    assert files and set(_of("py_library")[name]["srcs"]) == files


def test_commands_name_modules_that_their_libraries_hold():
    modules = {name: fields["args"][0] for name, fields in _of("py_binary").items()}
    assert set(modules.values()) >= {"trainers.train", "export.publish"}
    for name, module in modules.items():
        fields = TARGETS[name][1]
        sources = {path for dep in fields["deps"] for path in TARGETS[dep[1:]][1]["srcs"]}
        assert module.replace(".", "/") + ".py" in sources


@pytest.mark.parametrize("name", TARGETS)
def test_files_and_dependencies_exist(name):
    fields = TARGETS[name][1]
    named = {*fields.get("srcs", ()), *fields.get("deps", ()), *fields.get("data", ())}
    targets = {label for label in named if label.startswith(":")}
    assert {label.removeprefix(":") for label in targets} <= TARGETS.keys()
    assert all((ROOT / path).is_file() for path in named - targets)


def test_the_version_is_the_library_s():
    version = re.search(r'__version__ = "(.*)"', (ROOT / "circle_tf" / "version.py").read_text())
    assert f'version = "{version[1]}"' in (ROOT / "MODULE.bazel").read_text()

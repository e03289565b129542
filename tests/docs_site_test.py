"""The site has a page for every document, and its reference has every public name."""

import importlib
import inspect
import pathlib
import re

import pytest

import circle_tf

ROOT = pathlib.Path(__file__).absolute().parents[1]
REFERENCE = "\n".join(page.read_text() for page in sorted(ROOT.glob("docs/reference/*.md")))
MODULES = (
    "addons backbones baselines callbacks fine_tuning metrics plots records retrieval schedules"
).split()
DIRECTIVE = re.compile(
    r"^::: (circle_tf[\w.]*)(?:\n    options:\n      members: (\[.*\]))?", re.MULTILINE
)


def _resolve(name):
    """What a dotted name stands for."""
    for cut in range(name.count(".") + 1):
        module, *attributes = name.rsplit(".", cut) if cut else (name,)
        try:
            value = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        for attribute in attributes:
            value = getattr(value, attribute)
        return value
    raise ModuleNotFoundError(name)


def _public(module):
    return {f"{module.__name__}.{name}" for name in module.__all__}


def _shown():
    """The names that the reference documents, or says to be the same as one that it documents."""
    names = set(re.findall(r"`(circle_tf\.\w[\w.]*)`", REFERENCE))
    for name, members in DIRECTIVE.findall(REFERENCE):
        value = _resolve(name)
        all_members = getattr(value, "__all__", ())
        chosen = re.findall(r"\w+", members) if members else all_members
        names |= {name, *(f"{name}.{member}" for member in chosen)}
    return names


@pytest.mark.parametrize("module", ["", *MODULES])
def test_every_public_name_is_in_the_reference(module):
    assert _public(getattr(circle_tf, module) if module else circle_tf) - _shown() == set()


def test_every_public_module_is_looked_at():
    modules = {name for name in circle_tf.__all__ if inspect.ismodule(getattr(circle_tf, name))}
    assert modules == set(MODULES)


def test_what_the_reference_documents_exists():
    assert DIRECTIVE.findall(REFERENCE)
    for name, _ in DIRECTIVE.findall(REFERENCE):
        assert _resolve(name).__doc__


def test_nothing_is_documented_twice():
    names = [name for name, _ in DIRECTIVE.findall(REFERENCE)]
    assert len(names) == len(set(names))


def test_every_document_is_in_the_navigation():
    pages = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text().split("\nnav:")[1]))
    documents = {str(path.relative_to(ROOT / "docs")) for path in ROOT.glob("docs/**/*.md")}
    assert pages == documents | {"index.md", "changelog.md", "contributing.md"}

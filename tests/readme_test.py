"""What the documents show runs, and what they name exists."""

import importlib.util
import pathlib
import re
import runpy
import shlex

import pytest

import circle_tf

ROOT = pathlib.Path(__file__).absolute().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FOLDERS = "benchmarks circle_tf configs docs export notebooks tests third_party trainers".split()

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
_PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./*-]*")
_MODULE = re.compile(r"python -m ([\w.]+)")
_MAKE = re.compile(r"(?:^|`)make ([a-z-]+)", re.MULTILINE)
_FIELD = re.compile(r"--config\.([\w.]+)=")
_API = re.compile(r"circle_tf\.((?!py\b)[A-Za-z_][\w.]*\w)")

documents = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def _code(text):
    """Returns what stands in fences and between backticks, one piece a line."""
    fenced = [body for _, body in _FENCE.findall(text)]
    return "\n".join(fenced + re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)))


def _anchors(text):
    """Returns the anchors of a document's headings, as its readers on the web reach them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _has_attributes(name):
    value = circle_tf
    for part in name.split("."):
        if not hasattr(value, part):
            return importlib.util.find_spec(f"circle_tf.{name}") is not None
        value = getattr(value, part)
    return True


def _has_field(config, name):
    *sections, field = name.split(".")
    for section in sections:
        config = config.get(section, {})
    return field in config


def test_the_readme_is_read():
    text = (ROOT / "README.md").read_text()
    assert {"trainers.train", "trainers.evaluate", "export.publish"} <= set(_MODULE.findall(text))
    assert {"demo", "test"} <= set(_MAKE.findall(text))
    assert "python" in {language for language, _ in _FENCE.findall(text)}


@documents
def test_python_blocks_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # For what they write.
    namespace = {"__name__": "__main__"}
    for language, body in _FENCE.findall(path.read_text()):
        if language == "python":
            exec(compile(body, path.name, "exec"), namespace)


@documents
def test_links_lead_somewhere(path):
    text = path.read_text()
    for target, anchor in _LINK.findall(text):
        file = path.parent / target if target else path
        assert file.exists(), f"{path.name} links to {target}, which does not exist"
        if anchor:
            assert anchor in _anchors(file.read_text()), f"{target}#{anchor}"


@documents
def test_named_paths_exist(path):
    names = {name.rstrip(".") for name in _PATH.findall(_code(path.read_text()))}
    assert {name for name in names if not any(ROOT.glob(name))} == set()


@documents
def test_named_modules_exist(path):
    names = set(_MODULE.findall(path.read_text()))
    assert {name for name in names if importlib.util.find_spec(name) is None} == set()


def _flags_of(module):
    """The flags that a command defines, and those that it must be given."""
    sources = [ROOT / f"{module.replace('.', '/')}.py"]
    if "rollout_flags.define" in sources[0].read_text():
        sources.append(ROOT / "export" / "cli" / "rollout_flags.py")
    text = "".join(source.read_text() for source in sources)
    defined = re.findall(r'DEFINE_(\w+)\(\s*"(\w+)"([^)]*)', text)
    marked = "".join(re.findall(r"mark_flags_as_required\(([^)]*)\)", text))
    needed = {name for _, name, rest in defined if "required=True" in rest or f'"{name}"' in marked}
    switches = {f"no{name}" for kind, name, _ in defined if kind == "bool"}
    return {name for _, name, _ in defined} | switches, needed


@documents
def test_named_commands_have_the_flags_that_they_take_and_need(path):
    blocks = [body for language, body in _FENCE.findall(path.read_text()) if language == "bash"]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    for words in (shlex.split(line, comments=True) for line in lines if " -m " in line):
        module = words[words.index("-m") + 1]
        if module.partition(".")[0] not in ("export", "trainers") or module == "trainers.launch":
            continue
        given = {word[2:].partition("=")[0].partition(".")[0] for word in words if word[:2] == "--"}
        defined, needed = _flags_of(module)
        assert given <= defined, f"{module} has no {given - defined}"
        assert needed <= given, f"{module} needs {needed - given}"


@documents
def test_named_make_targets_exist(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(_MAKE.findall(path.read_text())) <= targets


@documents
def test_named_config_fields_exist(path):
    config = runpy.run_path(str(ROOT / "configs" / "base.py"))["get_config"]()
    names = set(_FIELD.findall(path.read_text())) - {"section.field", "field"}
    assert {name for name in names if not _has_field(config, name)} == set()


@documents
def test_named_parts_of_the_library_exist(path):
    names = set(_API.findall(_code(path.read_text())))
    assert {name for name in names if not _has_attributes(name)} == set()

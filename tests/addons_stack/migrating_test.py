"""The blocks of the migration page that use Addons run on its stack.

They are fenced as `py`; those for today's stack are fenced as `python` and run with the README's.
"""

import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).absolute().parents[2] / "docs" / "migrating-from-addons.md"
BEFORE = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_blocks_with_addons_run(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_addons", reason="before: on the stack of make test-addons")
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for body in BEFORE:
        exec(compile(body, PAGE.name, "exec"), namespace)


def test_every_block_with_addons_is_found():
    assert PAGE.read_text().count("import tensorflow_addons as tfa\n") == len(
        [body for body in BEFORE if "import tensorflow_addons as tfa" in body]
    )

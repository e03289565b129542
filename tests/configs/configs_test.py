import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

import configs
from configs import base

FOLDER = pathlib.Path(configs.__file__).parent
RECIPES = sorted(
    path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "base", "paper")
)


def fields(config, prefix=""):
    for name, value in config.items():
        if hasattr(value, "items"):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def recipe(name):
    return importlib.import_module(f"configs.{name}").get_config()


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_the_base_fields_and_no_others(name):
    assert list(fields(recipe(name))) == list(fields(base.get_config()))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_locked(name):
    with pytest.raises((AttributeError, KeyError)):
        recipe(name).learning_rat = 0.1


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_made_afresh(name):
    recipe(name).optimizer.learning_rate = 123.0
    assert recipe(name).optimizer.learning_rate != 123.0


@pytest.mark.parametrize("name", RECIPES)
def test_docstring_gives_the_command(name):
    docstring = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text()))
    assert f"python -m trainers.train --config=configs/{name}.py" in docstring


@pytest.mark.parametrize("name", RECIPES)
def test_checkpoints_and_evaluations_happen_within_the_run(name):
    config = recipe(name)
    assert config.eval_every <= config.steps and config.checkpoint_every <= config.steps


def test_recipes_import_no_tensorflow():
    code = "import sys\n" + "".join(f"import configs.{name}\n" for name in RECIPES)
    code += "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=FOLDER.parent)

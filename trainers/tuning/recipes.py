"""A recipe as a file that `--config` takes."""

import pprint

import ml_collections

from circle_tf.utils.files import replacing
from configs import base

__all__ = ["write"]


def write(path, config, *, told):
    """Writes a recipe: what differs from configs/base.py.

    Args:
        path: the file, `.py`.
        config: recipe, an ml_collections.ConfigDict.
        told: str, the file's docstring.
    """
    usual = _leaves(base.get_config())
    changed = {name: value for name, value in _leaves(config).items() if value != usual[name]}
    lines = [
        f'"""{told}"""',
        "",
        "from configs import base",
        "",
        "",
        "def get_config():",
        '    """What differs from configs/base.py."""',
        "    config = base.get_config()",
        "    config.update_from_flattened_dict(",
        *(f"        {line}" for line in pprint.pformat(changed, width=88).splitlines()),
        "    )",
        "    return config",
        "",
    ]
    with replacing(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))


def _leaves(config):
    leaves = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            leaves |= {f"{name}.{inner}": leaf for inner, leaf in _leaves(value).items()}
        else:
            leaves[name] = value
    return leaves

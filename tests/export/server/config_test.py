"""models.config, read and refused."""

import pytest

from export.cli import console
from export.server import config, errors

MODEL = 'config { name: "m" base_path: "/m" model_platform: "tensorflow" }'


def test_reads_models_config(tmp_path):
    path = tmp_path / "models.config"
    path.write_text(f"model_config_list {{ {MODEL} }}")
    found = config.read(str(path))
    config.check(found)
    assert [model.base_path for model in found.model_config_list.config] == ["/m"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("", "lists no models"),
        ("model_config_list { config { nam: 1 } }", 'no field named "nam"'),
        (b"\xff\xfe", "not a ModelServerConfig"),
    ],
)
def test_unreadable_files(tmp_path, text, message):
    path = tmp_path / "models.config"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(console.ExportError, match=message):
        config.read(str(path))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("base_path", "m", "Expected model m to have an absolute path or URI"),
        ("model_platform", "", "Illegal setting neither"),
        ("model_platform", "caffe", "Model m requests unsupported platform caffe"),
    ],
)
def test_models_that_are_refused(name, value, message):
    found = config.for_model("m", "/m")
    setattr(found.model_config_list.config[0], name, value)
    with pytest.raises(errors.ServingError, match=message):
        config.check(found)


def test_the_deprecated_type_is_a_platform():
    found = config.for_model("m", "/m")
    found.model_config_list.config[0].model_platform = ""
    found.model_config_list.config[0].model_type = 1
    config.check(found, before=config.for_model("m", "/m"))


def test_a_file_that_is_refused_is_tried_again_and_told_once(tmp_path):
    path = tmp_path / "models.config"
    path.write_text(f"model_config_list {{ {MODEL} }}")
    told, answers = [], ["no", "no", "later", "", "", "no", ""]

    def reload(found, *, is_active):
        assert is_active() and len(found.model_config_list.config) == 1
        if answer := answers.pop(0):
            raise errors.ServingError(answer)

    watch = config.Watch(str(path), reload=reload, tell=told.append)
    while answers:
        watch.look()
    took = f"Took over {path}"
    refused = [f"Did not take over {path}: INVALID_ARGUMENT: {why}" for why in ("no", "later")]
    assert told == [*refused, took, refused[0], took]
    path.write_text("model_config_list { config {")
    watch.look()
    watch.look()
    assert len(told) == 6 and "not a ModelServerConfig" in told[-1]

"""Files for TF Serving are right or refused, field by field."""

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import platform_config_pb2

from export.cli import console
from export.rollout import server_config, serving_protos


def _batching(**changes):
    options = {"batch_sizes": [1, 8, 64], "timeout_micros": 500, "threads": 2, "queue": 10}
    return server_config.batching(**{**options, **changes})


@pytest.mark.parametrize("name", list(server_config.KINDS))
def test_what_is_written_is_read_back(tmp_path, name):
    made = {
        "batching.config": _batching(),
        "monitoring.config": server_config.monitoring(),
        "platform.config": server_config.platform(batching=_batching()),
    }[name]
    path = str(tmp_path / name)
    server_config.write(path, made)
    assert server_config.read(path) == made


def test_batching_is_written_as_tf_serving_documents_it(tmp_path):
    server_config.write(str(tmp_path / "batching.config"), _batching())
    lines = (tmp_path / "batching.config").read_text().split("\n")
    assert "max_batch_size {" in lines and "allowed_batch_sizes: 64" in lines


def test_the_platform_file_is_one_of_tf_serving(tmp_path):
    server_config.write(str(tmp_path / "platform.config"), server_config.platform())
    text = (tmp_path / "platform.config").read_text()
    name = "[type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig]"
    assert name in text and "enable_model_warmup: true" in text
    public = platform_config_pb2.PlatformConfigMap()
    text_format.Parse(text, public, descriptor_pool=serving_protos.pool())
    assert list(public.platform_configs) == ["tensorflow"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_sizes": [1, 64, 8]}, "strictly increasing; found .1, 64, 8."),
        ({"batch_sizes": [1, 8, 8]}, "strictly increasing"),
        ({"batch_sizes": [0, 8]}, "1 or more and strictly"),
        ({"batch_sizes": []}, "max_batch_size must be 1 or more; found 0"),
        ({"threads": 0}, "num_batch_threads must be 1 or more"),
        ({"timeout_micros": -1}, "batch_timeout_micros must be 0 or more"),
    ],
)
def test_bad_batching(changes, message):
    with pytest.raises(console.ExportError, match=message):
        _batching(**changes)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("batching.config", "max_batch_sizes { value: 8 }", 'no field named "max_batch_sizes"'),
        ("batching.config", "max_batch_size { value: x }", "x"),
        ("batching.config", "allowed_batch_sizes: 8", "max_batch_size is missing"),
        (
            "batching.config",
            "max_batch_size { value: 9 } allowed_batch_sizes: 8",
            "the last of allowed_batch_sizes, 8, must be max_batch_size, 9",
        ),
        ("monitoring.config", "prometheus { enable: true }", "no field named"),
        ("monitoring.config", "prometheus_config { enable: false }", "does not enable"),
        ("monitoring.config", 'prometheus_config { enable: true path: "m" }', "begin with /"),
        ("platform.config", "", "must configure 'tensorflow'"),
        ("other.config", "", "expected a file named batching.config"),
    ],
)
def test_bad_files(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(console.ExportError, match=message):
        server_config.read(str(tmp_path / name))

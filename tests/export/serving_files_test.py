"""Files for TF Serving are filled from their templates; what is wrong in one is said in words."""

import re

import pytest

from export import serving_files
from export.cli import console


def _fill(**changes):
    options = {"batch_sizes": [1, 8, 64], "timeout_micros": 500, "threads": 2, "queue": 10}
    return serving_files.fill(**{**options, **changes})


def test_the_files_hold_what_is_asked_for_and_are_right():
    made = _fill()
    assert made.keys() == serving_files.FIELDS.keys()
    for name, text in made.items():
        serving_files.check(name, text)
        assert "$" not in text
    lines = [
        "max_batch_size { value: 64 }",
        *("allowed_batch_sizes: 1", "allowed_batch_sizes: 8", "allowed_batch_sizes: 64"),
        "batch_timeout_micros { value: 500 }",
        "num_batch_threads { value: 2 }",
        "max_enqueued_batches { value: 10 }",
    ]
    written = made["batching.config"].splitlines()
    assert [line for line in written if not line.startswith("#")] == lines
    assert re.findall(r"^ {12}(.*)", made["platform.config"], re.M) == lines


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
        _fill(**changes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("batching.config", "max_batch_size: {\n  value: 8\n}\nallowed_batch_sizes: [2, 8]"),
        ("batching.config", 'max_batch_size {value:8} thread_pool_name {value: "a: b{"}'),
        ("monitoring.config", "prometheus_config { enable: true }  # odd: {"),
        ("platform.config", _fill()["platform.config"].replace('"', "'")),
        (
            "platform.config",
            _fill()["platform.config"].replace(
                "legacy_config {", "legacy_config { session_config { gpu_options { odd { a: 1 } } }"
            ),
        ),
    ],
)
def test_other_spellings_are_right(name, text):
    serving_files.check(f"models/{name}", text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("batching.config", "max_batch_sizes { value: 8 }", 'no field named "max_batch_sizes"'),
        ("batching.config", "max_batch_size { value: x }", "max_batch_size must be a whole number"),
        ("batching.config", "max_batch_size: 8", "written max_batch_size { value: 8 }"),
        ("batching.config", "max_batch_size { value: 8", "its braces do not match"),
        ("batching.config", "allowed_batch_sizes: 8", "max_batch_size is missing"),
        ("batching.config", "allowed_batch_sizes: x", "must be whole numbers; found x"),
        (
            "batching.config",
            "max_batch_size { value: 9 } allowed_batch_sizes: 8",
            "the last of allowed_batch_sizes, 8, must be max_batch_size, 9",
        ),
        ("monitoring.config", "prometheus { enable: true }", 'no field named "prometheus"'),
        ("monitoring.config", "prometheus_config { enable: false }", "does not enable"),
        ("monitoring.config", 'prometheus_config { enable: true path: "m" }', "begin with /"),
        ("platform.config", "", "must configure 'tensorflow'"),
        (
            "platform.config",
            'platform_configs { key: "tensorflow" }',
            "must hold a tensorflow.serv",
        ),
        ("platform.config", _fill()["platform.config"].replace("true", "false"), "warmup is off"),
        (
            "platform.config",
            _fill()["platform.config"].replace("{ value: 2 }", "{ value: 0 }"),
            "num_batch_threads must be 1 or more; found 0",
        ),
    ],
)
def test_bad_files(name, text, message):
    with pytest.raises(console.ExportError, match=f"^models/{name}: .*{message}"):
        serving_files.check(f"models/{name}", text)

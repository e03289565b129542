"""Image backbones of KerasHub: tiny members with random weights, from folders of presets."""

import os
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf import layers
from circle_tf.backbones import by_name, keras_hub
from tests import hub_presets, processes, stacks

pytestmark = stacks.needs_keras_3

SHAPE, LARGER = (32, 32, 3), (48, 48, 3)
_QUICK = {"vit"}


@pytest.fixture(scope="module", params=["clip"])
def preset(request, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("presets") / request.param)
    return folder, hub_presets.save(folder, request.param)


def saved(tmp_path, family, shape=SHAPE):
    folder = str(tmp_path / family)
    return folder, hub_presets.save(folder, family, shape)


def pixels(shape=SHAPE, *, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (2, *shape)).astype(np.float32)


def features(model, images):
    return tf.function(model)(images, training=False).numpy()


def embedder(folder, shape, **arguments):
    backbone = by_name.build(f"keras_hub:{folder}", shape, **arguments)
    embeddings = layers.UnitEmbedding(4, name="embedding")(backbone.output)
    return circle_tf.EmbeddingModel(backbone.input, embeddings)


def _whole_way(tmp_path, family):
    """A member embeds, learns by all its weights, is saved, loaded and served, at another size."""
    folder, _ = saved(tmp_path, family)
    model = embedder(folder, LARGER)
    images = pixels(LARGER)

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            target = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
            loss = tf.reduce_sum((model(images, training=True) - target) ** 2)
        found = tape.gradient(loss, model.trainable_variables)
        return [tf.reduce_max(tf.abs(tf.convert_to_tensor(gradient))) for gradient in found]

    still = [
        weight.path
        for weight, largest in zip(model.trainable_variables, gradients(), strict=True)
        if not 0 < largest < np.inf and "key/bias" not in weight.path  # Softmax ignores these.
    ]
    assert not still
    expected = features(model, images)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(features(again, images), expected)
    circle_tf.save_servable(again, tmp_path / "1", image_shape=LARGER)
    served = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    (name,) = served.structured_input_signature[1]
    (found,) = served(**{name: tf.constant(images)}).values()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("family", sorted(_QUICK))
def test_members_go_the_whole_way(tmp_path, family):
    _whole_way(tmp_path, family)


# Slow: ten more nets; MobileNet's grouped convolutions are compiled, Swin's masks are traced.
@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(hub_presets.FAMILIES.keys() - _QUICK))
def test_more_members_go_the_whole_way(tmp_path, family):
    _whole_way(tmp_path, family)


@pytest.fixture
def bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def _in_half_precision(tmp_path, family):
    folder, _ = saved(tmp_path, family)
    keras.config.set_dtype_policy("float32")
    expected = features(embedder(folder, SHAPE), pixels())
    keras.config.set_dtype_policy("mixed_bfloat16")
    backbone = by_name.build(f"keras_hub:{folder}", SHAPE)
    assert backbone.compute_dtype == "bfloat16" and backbone.output.dtype == "bfloat16"
    assert {weight.dtype for weight in backbone.trainable_weights} == {"float32"}
    assert np.isfinite(features(backbone, pixels())).all() and np.isfinite(expected).all()


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("family", ["clip"])
def test_members_run_in_half_precision(tmp_path, family):
    _in_half_precision(tmp_path, family)


# Slow: ten more nets.
@pytest.mark.slow
@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("family", sorted(hub_presets.FAMILIES.keys() - {"clip"}))
def test_more_members_run_in_half_precision(tmp_path, family):
    _in_half_precision(tmp_path, family)


def test_the_presets_own_converter_and_weights_are_within(preset):
    import keras_hub as hub

    folder, backbone = preset
    converter = hub.layers.ImageConverter(scale=hub_presets.SCALE, offset=hub_presets.OFFSET)
    tokens = backbone.vision_encoder({"images": converter(pixels())})
    found = by_name.build(f"keras_hub:{folder}", SHAPE)
    np.testing.assert_allclose(features(found, pixels()), tokens[:, 0], atol=1e-5)
    average = by_name.build(f"keras_hub:{folder}", SHAPE, pooling="average")
    expected = tf.reduce_mean(tokens[:, 1:], axis=1)
    np.testing.assert_allclose(features(average, pixels()), expected, atol=1e-5)


def test_random_weights_are_asked_for(preset):
    folder, _ = preset
    own, again = (by_name.build(f"keras_hub:{folder}", SHAPE) for _ in range(2))
    noise = by_name.build(f"keras_hub:{folder}", SHAPE, weights="random")
    np.testing.assert_array_equal(features(own, pixels()), features(again, pixels()))
    assert np.abs(features(noise, pixels()) - features(own, pixels())).max() > 1e-2
    (numbers,) = [w.numpy() for w in noise.weights if w.name == "position_ids"]
    np.testing.assert_array_equal(numbers, [range(17)])  # KerasHub's own are zeros.


def test_weights_of_another_preset_or_of_a_run_at_another_size(tmp_path, preset):
    folder, _ = preset
    other, _ = saved(tmp_path, "clip", LARGER)
    expected = by_name.build(f"keras_hub:{other}", SHAPE)
    found = by_name.build(f"keras_hub:{folder}", SHAPE, weights=other)
    np.testing.assert_array_equal(features(found, pixels()), features(expected, pixels()))
    embedder(other, SHAPE).save(tmp_path / "model.keras")
    found = by_name.build(f"keras_hub:{folder}", SHAPE, weights=tmp_path)
    np.testing.assert_array_equal(features(found, pixels()), features(expected, pixels()))
    file = str(tmp_path / "net.weights.h5")
    next(layer for layer in found.layers if isinstance(layer, keras.Model)).save_weights(file)
    found = by_name.build(f"keras_hub:{folder}", SHAPE, weights=file)
    np.testing.assert_array_equal(features(found, pixels()), features(expected, pixels()))


def test_what_dinov2_learns_is_saved_whole(tmp_path):
    folder, _ = saved(tmp_path, "dinov2")
    model = embedder(folder, SHAPE)
    model.compile(keras.optimizers.SGD(1.0), loss="mse")
    before = features(model, pixels())
    model.fit(pixels(), np.eye(4)[:2], verbose=0)
    expected = features(model, pixels())
    assert np.abs(expected - before).max() > 1e-3
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(features(again, pixels()), expected)


# Slow: two trainings are traced.
@pytest.mark.slow
def test_nets_that_hold_pieces_of_a_gradient_learn_by_parts_too(tmp_path):
    folder, _ = saved(tmp_path, "vit")  # The gradient of its positions is indexed slices.
    labels, images = np.array([0, 0, 1, 1]), np.concatenate([pixels(), pixels(seed=1)])
    found = []
    for parts in ({}, {"cached_gradient_batch": 2}):
        keras.utils.set_random_seed(1)
        model = embedder(folder, SHAPE)
        model.compile(keras.optimizers.SGD(0.1), loss=circle_tf.CircleLoss(), **parts)
        model.fit(images, labels, batch_size=4, shuffle=False, verbose=0)
        found.append(features(model, images))
    np.testing.assert_allclose(*found, atol=1e-5)


# Slow: XLA compiles for seconds.
@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(hub_presets.FAMILIES.keys() - {"swin"}))
def test_xla_compiles_them(tmp_path, family):
    folder, _ = saved(tmp_path, family)
    model = by_name.build(f"keras_hub:{folder}", LARGER)
    compiled = tf.function(lambda images: model(images, training=False), jit_compile=True)
    np.testing.assert_allclose(compiled(pixels(LARGER)), features(model, pixels(LARGER)), atol=1e-5)


def _refused(name, shape=SHAPE, **arguments):
    with pytest.raises(ValueError) as caught:
        by_name.build(f"keras_hub:{name}", shape, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_names_folders_and_sizes(tmp_path, preset):
    folder, _ = preset
    said = _refused("dinov2_smal")
    assert "KerasHub has no preset 'dinov2_smal'" in said and "mean dinov2_small" in said
    assert "is no preset of KerasHub: it has no config.json" in _refused(tmp_path)
    assert "wants images of 3 channels; found images of shape (32, 32, 1)" in _refused(
        folder, (32, 32, 1)
    )
    assert "cannot take images of (32, 48, 3): `CLIPVisionEncoder` expects" in _refused(
        folder, (32, 48, 3)
    )
    vit, _ = saved(tmp_path, "vit")
    assert "cannot take images of (30, 32, 3): Input height 30 should be divisible by" in _refused(
        vit, (30, 32, 3)
    )
    os.remove(os.path.join(vit, "image_converter.json"))
    assert "has no image_converter.json, which says how its net wants pixels" in _refused(vit)


# Slow: Swin's masks are traced.
@pytest.mark.slow
def test_windows_larger_than_their_maps_are_refused(tmp_path):
    folder, _ = saved(tmp_path, "swin")
    assert "cannot take images of (24, 24, 3): some of its layers fail" in _refused(
        folder, (24, 24, 3)
    )


# Slow: one more net.
@pytest.mark.slow
def test_nets_that_misjudge_how_many_tokens_they_have(tmp_path):
    folder, _ = saved(tmp_path, "dinov3")
    found = by_name.build(f"keras_hub:{folder}", (40, 24, 3))  # It counts on 5 x 5 patches.
    assert features(found, pixels((40, 24, 3))).shape == (2, 8)


def test_another_presets_weights_are_refused(tmp_path, preset):
    folder, _ = preset
    other, _ = saved(tmp_path, "vit")
    assert "holds another net than keras_hub" in _refused(folder, weights=other)
    assert "keras.applications; found 'keras_hub:" in _refused(folder, weights="imagenet")


def test_without_a_network_the_error_says_what_to_fetch_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # Where nobody answers.
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    said = _refused("vit_base_patch16_224_imagenet")
    assert "could not fetch the preset 'vit_base_patch16_224_imagenet' (ProxyError" in said
    kept = str(tmp_path / "models/keras/vit/keras/vit_base_patch16_224_imagenet")
    assert "take keras_hub:FOLDER as the backbone" in said and kept in said
    code = said.split('python -c "')[1].split('"')[0]
    compile(code, "code", "exec")


def test_a_missing_keras_hub_names_the_extra(tmp_path, monkeypatch, preset):
    folder, _ = preset
    path = str(tmp_path / "model.keras")
    by_name.build(f"keras_hub:{folder}", SHAPE).save(path)
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match=r"circle-tf\[hub\]"):
        by_name.build("keras_hub:dinov2_small", SHAPE)
    with pytest.raises(ValueError, match=r"model.keras cannot be loaded: .*circle-tf\[hub\]"):
        circle_tf.backbones.load_model(path)


# Slow: a process that imports TensorFlow and KerasHub.
@pytest.mark.slow
def test_models_load_in_a_fresh_process_that_imports_keras_hub_only_then(tmp_path, preset):
    folder, _ = preset
    path = str(tmp_path / "model.keras")
    by_name.build(f"keras_hub:{folder}", SHAPE).save(path)
    code = (
        "import sys, circle_tf\n"
        "circle_tf.backbones.build('conv4', (32, 32, 3))\n"
        "assert 'keras_hub' not in sys.modules\n"
        f"print(circle_tf.backbones.load_model({path!r}).output_shape)"
    )
    result = processes.run("-c", code)
    assert result.stdout.strip() == "(None, 8)", result.stderr


def test_special_tokens_are_those_of_the_preset(tmp_path):
    import keras_hub as hub

    folder, backbone = saved(tmp_path, "dinov2")
    converter = hub.layers.ImageConverter(scale=hub_presets.SCALE, offset=hub_presets.OFFSET)
    patches = backbone({"images": converter(pixels())})[:, 3:]  # A class token, two registers.
    assert patches.shape[1] == 16
    found = by_name.build(f"keras_hub:{folder}", SHAPE, pooling="max")
    np.testing.assert_allclose(features(found, pixels()), tf.reduce_max(patches, axis=1), atol=1e-5)
    assert keras_hub.PREFIX == "keras_hub:"

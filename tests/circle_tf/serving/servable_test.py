"""A servable is the model: one copy of its weights, guarded, whole or not there."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from circle_tf import layers
from circle_tf.serving import servable, signatures, weights
from circle_tf.training import model as models
from tests import stacks

pytestmark = stacks.needs_keras_3

_SHAPE = (8, 8, 1)


def _model(*, policy="float32", seed=0, head=None, extra=(), model_class=keras.Model):
    """Pixels -> Rescaling, convolution, batch norm, dropout, unit embedding."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        pixels = keras.Input(_SHAPE, name="pixels", dtype="float32")
        maps = keras.layers.Rescaling(1 / 255)(pixels)
        for layer in extra:
            maps = layer(maps)
        maps = keras.layers.Conv2D(4, 3, activation="relu")(maps)
        maps = keras.layers.BatchNormalization()(maps)
        features = keras.layers.Dropout(0.5)(keras.layers.Flatten()(maps))
        outputs = (head or layers.UnitEmbedding(6))(features)
        return model_class(pixels, outputs, name="tiny")
    finally:
        keras.config.set_dtype_policy(before)


def _images(batch_size, shape=_SHAPE):
    return servable.probe_images(shape, batch_size=batch_size, seed=1)


def _serve(path, images):
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    return signature(images=tf.constant(images))["embeddings"].numpy()


def _fingerprint(path):
    return tf.saved_model.experimental.read_fingerprint(str(path)).singleprint()


def _stored(path):
    return tf.train.list_variables(os.path.join(path, "variables", "variables"))


@pytest.mark.parametrize("model_class", [keras.Model, models.EmbeddingModel])
def test_serves_what_the_model_computes_at_any_batch_size(tmp_path, model_class):
    model = _model(model_class=model_class)
    path = servable.save_servable(model, tmp_path / "base" / "1")
    assert path == str(tmp_path / "base" / "1")
    for batch_size in (1, 3, 17):
        images = _images(batch_size)
        np.testing.assert_array_equal(_serve(path, images), model(images, training=False))


def test_names_dtypes_and_shapes_are_fixed(tmp_path):
    path = servable.save_servable(_model(), tmp_path / "1")
    signature = tf.saved_model.load(path).signatures["serving_default"]
    (images,) = signature.structured_input_signature[1].values()
    assert images == tf.TensorSpec([None, 8, 8, 1], tf.float32, name="images")
    (name, embeddings), *rest = signature.structured_outputs.items()
    assert not rest and name == "embeddings"
    assert embeddings.dtype == tf.float32 and embeddings.shape.as_list() == [None, 6]


def test_holds_each_weight_once_and_no_random_state(tmp_path):
    model = _model()
    assert any("seed" in variable.path for variable in model.variables)
    stored = _stored(servable.save_servable(model, tmp_path / "1"))
    shapes = sorted(shape for name, shape in stored if "OBJECT_GRAPH" not in name)
    assert shapes == sorted(list(weight.shape) for weight in model.weights)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_other_precisions_are_served_as_their_float32_clone(tmp_path, policy):
    model = _model(policy=policy)
    path = servable.save_servable(model, tmp_path / "1")
    served, images = _serve(path, _images(5)), _images(5)
    assert served.dtype == np.float32
    assert {
        tf.train.load_variable(path + "/variables/variables", name).dtype.name
        for name, _ in _stored(path)
        if "OBJECT_GRAPH" not in name
    } == {"float32"}
    np.testing.assert_allclose(served, weights.as_float32(model)(images), atol=1e-6)
    trained = np.asarray(tf.cast(model(images, training=False), tf.float32))
    cosines = np.sum(served * trained, axis=1)
    assert cosines.min() > 0.999
    assert np.abs(served - trained).max() > 1e-5  # It is not the half-precision net itself.


def test_equal_models_have_equal_fingerprints_and_others_do_not(tmp_path):
    first = servable.save_servable(_model(), tmp_path / "1")
    again = servable.save_servable(_model(), tmp_path / "2")
    other = servable.save_servable(_model(seed=1), tmp_path / "3")
    assert _fingerprint(first) == _fingerprint(again) != _fingerprint(other)


def test_a_saved_and_loaded_model_has_the_fingerprint_of_the_original(tmp_path):
    model = _model()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    prints = [
        _fingerprint(servable.save_servable(m, tmp_path / str(version)))
        for version, m in enumerate((model, loaded))
    ]
    assert prints[0] == prints[1]


def test_training_does_not_change_what_is_stored_beside_weights(tmp_path):
    model = _model()
    model.compile(optimizer="adam", loss="mse")
    model.fit(_images(4), np.eye(4, 6, dtype="float32"), verbose=0)
    stored = _stored(servable.save_servable(model, tmp_path / "1"))
    assert len(stored) == len(model.weights) + 1  # And TensorFlow's object graph.


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 8, 8, 1)), "batch of images is empty"),
        (np.zeros((8, 8, 1)), "compatible"),
        (np.zeros((2, 9, 8, 1)), "compatible"),
        (np.zeros((2, 8, 8, 3)), "compatible"),
    ],
    ids=["empty", "rank", "height", "channels"],
)
def test_guards_refuse_bad_batches(images, message):
    # Of unknown shape, as a C++ session sees it; Python would refuse most of these by itself.
    unknown = [tf.TensorSpec(None, tf.float32)]
    guarded = tf.function(lambda batch: signatures.guarded_images(batch, _SHAPE), unknown)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        guarded(tf.constant(images, tf.float32))


def test_dropout_and_augmentation_do_nothing(tmp_path):
    augmentation = [keras.layers.RandomFlip(), keras.layers.RandomRotation(0.2)]
    model = _model(extra=augmentation)
    path = servable.save_servable(model, tmp_path / "1")
    images = _images(4)
    np.testing.assert_array_equal(_serve(path, images), _serve(path, images))
    np.testing.assert_allclose(_serve(path, images), model(images, training=False), atol=1e-6)


def test_whole_number_inputs_get_rounded_pixels(tmp_path):
    pixels = keras.Input(_SHAPE, dtype="uint8")
    features = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    model = keras.Model(pixels, layers.UnitEmbedding(4)(features))
    path = servable.save_servable(model, tmp_path / "1")
    images = _images(3)
    expected = model(images.astype(np.uint8))
    np.testing.assert_array_equal(_serve(path, np.clip(images + 0.4, 0, 300)), expected)


def test_image_shape_fills_in_what_the_model_leaves_open(tmp_path):
    pixels = keras.Input((None, None, 1))
    maps = keras.layers.Conv2D(4, 3)(pixels)
    model = keras.Model(
        pixels, layers.UnitEmbedding(3)(keras.layers.GlobalAveragePooling2D()(maps))
    )
    with pytest.raises(ValueError, match=r"found \(None, None, 1\).*image_shape="):
        servable.save_servable(model, tmp_path / "1")
    path = servable.save_servable(model, tmp_path / "1", image_shape=(9, 7, 1))
    images = _images(2, (9, 7, 1))
    np.testing.assert_allclose(_serve(path, images), model(images), atol=1e-6)
    with pytest.raises(ValueError, match=r"\(9, 7, 3\) does not fit"):
        servable.save_servable(model, tmp_path / "2", image_shape=(9, 7, 3))


def test_a_subclassed_model_is_served_with_an_image_shape(tmp_path):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.flat, self.embed = keras.layers.Flatten(), layers.UnitEmbedding(4)

        def call(self, images):
            return self.embed(self.flat(images))

    model = Own()
    with pytest.raises(ValueError, match="is not built"):
        servable.save_servable(model, tmp_path / "1", image_shape=_SHAPE)
    expected = model(_images(2))
    path = servable.save_servable(model, tmp_path / "1", image_shape=_SHAPE)
    np.testing.assert_array_equal(_serve(path, _images(2)), expected)


def _outputs_model(make_outputs, shape=_SHAPE):
    pixels = keras.Input(shape)
    return keras.Model(pixels, make_outputs(pixels))


def _two_inputs():
    left, right = keras.Input(_SHAPE, name="left"), keras.Input(_SHAPE, name="right")
    flat = keras.layers.Flatten()(keras.layers.Add()([left, right]))
    return keras.Model([left, right], layers.UnitEmbedding(4)(flat))


class _Noise(keras.layers.Layer):
    def call(self, images):
        return images + keras.random.normal(keras.ops.shape(images))


class _OwnBatchNorm(keras.layers.Layer):
    """Never switched to inference, as happens to layers inside hand-written ones."""

    def __init__(self):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()

    def call(self, images):
        return self.norm(images, training=True)


@tf.function(jit_compile=True)
def _compiled(images):
    return images * 2


class _Compiled(keras.layers.Layer):
    def call(self, images):
        return _compiled(images)


def _with(layer):
    return lambda: _outputs_model(lambda x: layers.UnitEmbedding(4)(_flat(layer(x))))


def _not_finite():
    model = _model()
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    return model


def _flat(maps):
    return keras.layers.Flatten()(maps)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: keras.Sequential([keras.layers.Flatten()]), "is not built"),
        (lambda: _outputs_model(lambda x: [_flat(x), _flat(x)]), "returns 2.*part that embeds"),
        (_two_inputs, r"has 2 \(left, right\)"),
        (lambda: _outputs_model(layers.UnitEmbedding(4), (16,)), r"images \[B, H, W, C\]"),
        (lambda: _outputs_model(keras.layers.Conv2D(2, 3)), "End it with circle_tf.UnitEmbedd"),
        (lambda: _model(head=keras.layers.Dense(4)), "not of length 1.*check_unit=False"),
        (_not_finite, "NaN or infinity"),
        (_with(_Noise()), "random numbers.*augmentation"),
        (_with(_OwnBatchNorm()), "variable update|batch statistics"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_models_that_cannot_be_served_say_why_and_leave_nothing(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        servable.save_servable(make(), tmp_path / "base" / "1")
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(
    "make", [_Compiled, lambda: keras.layers.Conv2D(4, 3, groups=2, name="grouped")]
)
def test_what_a_net_compiles_is_served_without_xla(tmp_path, make):
    """Keras compiles grouped convolutions; TF Serving has no compiler."""
    from export.saved_model import session  # Which the stack of Addons cannot import.

    first = keras.layers.Conv2D(2, 1, name="first")
    model = _model(extra=[first, make()])
    path = servable.save_servable(model, tmp_path / "1")
    with session.SavedModelSession(path) as opened:
        found = opened.run({"images": _images(3)})["embeddings"]
    np.testing.assert_allclose(found, model(_images(3)), atol=1e-5)
    assert not tf.config.functions_run_eagerly()


def test_wants_a_keras_model(tmp_path):
    with pytest.raises(TypeError, match="keras.Model; found Module"):
        servable.save_servable(tf.Module(), tmp_path / "1")


def test_check_unit_false_saves_plain_features(tmp_path):
    model = _model(head=keras.layers.Dense(4))
    path = servable.save_servable(model, tmp_path / "1", check_unit=False)
    np.testing.assert_allclose(_serve(path, _images(2)), model(_images(2)), rtol=1e-5)


def test_never_writes_over_what_is_there(tmp_path):
    (tmp_path / "1").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        servable.save_servable(_model(), tmp_path / "1")
    assert os.listdir(tmp_path / "1") == []


def test_a_failing_save_leaves_nothing(tmp_path, monkeypatch):
    def fail(module, path, **_):
        os.makedirs(os.path.join(path, "variables"))
        raise OSError("No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        servable.save_servable(_model(), tmp_path / "1")
    assert os.listdir(tmp_path) == []

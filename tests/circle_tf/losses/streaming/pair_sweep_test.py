"""The pair-wise loss by tiles: equal to the whole matrix, however it is cut."""

import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf.losses import circle
from circle_tf.losses.streaming import pair_sweep
from tests import reference
from tests.combinations import diagonal

OPTIONS = {"margin": 0.4, "gamma": 80.0}
MODES = ["eager", "graph", "unknown shape", "xla"]
# Blocks that divide the 24 anchors, that do not, of one row, and more than are unrolled.
BLOCKS = ["auto", 8, 7, 1]


def batch(seed=0, *, size=24, dim=6, classes=5, dtype=np.float64):
    rng = np.random.default_rng(seed)
    # Ids that differ in the upper or in the lower 32 bits only.
    ids = rng.choice([7, 2**32 + 7, 2**40, -(2**40), 8][:classes], size)
    return reference.normalize(rng.normal(size=(size, dim))).astype(dtype), ids


def compiled(function, mode, *specs):
    if mode == "eager":
        return function
    signature = specs if mode == "unknown shape" else None
    return tf.function(function, jit_compile=mode == "xla", input_signature=signature)


def run(unit, ids, upstream, *, mode="eager", keys=None, memory=None, **options):
    """Losses, valid and the gradients of sum(upstream * losses).

    `keys` and `memory` as (unit, ids, rows); the memory has no gradient.
    """

    def compute(unit, ids, *others):
        keys, held = (others[:3], others[3:]) if keys_given else ((), others)
        sources = [unit, *keys[:1]]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([unit, *others[::3]])
            given = {"key_rows": keys[2]} if keys else {}
            if held:
                given["memory"] = pair_sweep.Side(*held)
            losses, valid = pair_sweep.pair_losses(
                unit,
                ids,
                *keys[:2],
                rows=tf.range(tf.size(ids, tf.int64)),
                **given,
                **{**OPTIONS, **options},
            )
            total = tf.reduce_sum(losses * upstream)
        assert not held or tape.gradient(total, held[0]) is None
        return losses, valid, *tape.gradient(total, sources)

    keys_given = keys is not None
    arrays = [tf.constant(array) for array in (unit, ids, *(keys or ()), *(memory or ()))]
    specs = [tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in arrays]
    return [np.asarray(found) for found in compiled(compute, mode, *specs)(*arrays)]


def whole(unit, ids, upstream, keys, **options):
    """The same from `circle_loss` on the whole matrix, in float64."""
    unit, key_unit = (tf.constant(rows, tf.float64) for rows in (unit, keys[0]))
    same = ids[:, None] == keys[1]
    there = (np.arange(len(ids))[:, None] != keys[2]) & (keys[2] >= 0)
    positives, negatives = same & there, ~same & there
    with tf.GradientTape() as tape:
        tape.watch([unit, key_unit])
        similarities = tf.matmul(unit, key_unit, transpose_b=True)
        losses = circle.circle_loss(similarities, positives, negatives, **{**OPTIONS, **options})
        total = tf.reduce_sum(losses * upstream)
    valid = circle.valid_anchors(positives, negatives)
    return losses, valid, *tape.gradient(total, [unit, key_unit])


@pytest.mark.parametrize(("mode", "block_size"), diagonal(MODES, BLOCKS))
def test_the_batch_against_itself_is_the_papers(mode, block_size):
    unit, ids = batch()
    upstream = np.random.default_rng(1).normal(size=24)
    losses, valid, gradient = run(unit, ids, upstream, mode=mode, block_size=block_size)
    expected, slopes, expected_valid = reference.pairwise(unit, ids, **OPTIONS)
    slopes = upstream[:, None] * slopes
    np.testing.assert_allclose(losses, expected, atol=1e-10)
    np.testing.assert_array_equal(valid, expected_valid)
    np.testing.assert_allclose(gradient, (slopes + slopes.T) @ unit, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("mode", "block_size", "detach_weights"),
    diagonal(["eager", "unknown shape"], BLOCKS, [False, True]),
)
def test_other_keys(mode, block_size, detach_weights):
    unit, ids = batch()
    keys = others(ids, np.random.default_rng(3).permutation(31))
    upstream = np.random.default_rng(1).normal(size=24)
    options = {"block_size": block_size, "detach_weights": detach_weights}
    found = run(unit, ids, upstream, mode=mode, keys=keys, **options)
    expected = whole(unit, ids, upstream, keys, detach_weights=detach_weights)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def others(ids, rows, seed=2):
    """Keys of these row numbers, of which those of anchors are the anchors' own examples."""
    key_unit, key_ids = batch(seed, size=len(rows))
    known = (rows >= 0) & (rows < 24)
    key_ids[known] = ids[rows[known]]
    return key_unit, key_ids, rows


@pytest.mark.parametrize(
    ("mode", "block_size", "detach_weights", "is_symmetric"),
    diagonal(MODES, BLOCKS, [False, True], [True, False]),
)
def test_a_memory_with_empty_slots_beside_the_keys(mode, block_size, detach_weights, is_symmetric):
    unit, ids = batch()
    random = np.random.default_rng(3)
    keys = (unit, ids, np.arange(24)) if is_symmetric else others(ids, random.permutation(31))
    held = others(ids, np.maximum(random.permutation(41) - 9, -1), seed=4)
    upstream = random.normal(size=24)
    options = {"detach_weights": detach_weights}
    joined = [np.concatenate(pair) for pair in zip(keys, held, strict=True)]
    *expected, own, of_keys = whole(unit, ids, upstream, joined, **options)
    found = run(
        unit,
        ids,
        upstream,
        mode=mode,
        keys=None if is_symmetric else keys,
        memory=held,
        block_size=block_size,
        **options,
    )
    of_keys = of_keys[: len(keys[0])]
    expected += [own + of_keys] if is_symmetric else [own, of_keys]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gamma", [32.0, 256.0, 1024.0])
@pytest.mark.parametrize("block_size", ["auto", 5])
def test_float32_keeps_the_gradient_at_any_scale(gamma, block_size):
    unit, ids = batch(dtype=np.float32)
    unit = reference.normalize(unit + 3 * (ids[:, None] % 5 == np.arange(6))).astype(np.float32)
    upstream = np.ones(24, np.float32)
    losses, _, gradient = run(unit, ids, upstream, gamma=gamma, block_size=block_size)
    expected, _, own, other = whole(unit, ids, 1.0, (unit, ids, np.arange(24)), gamma=gamma)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-5 * gamma)
    # What is left comes from rounded similarities, 6e-8 each, which gamma scales.
    error = np.abs(gradient - (own + other)).max() / np.abs(own + other).max()
    assert error <= 3e-7 * gamma


def test_on_a_gpu_the_whole_matrix_is_one_tile_where_it_fits():
    def block(rows, gib, *, item_bytes=4):
        memory = {"item_bytes": item_bytes, "gpu_bytes": gib * 2**30}
        return pair_sweep.auto_block(rows, rows, **memory)

    assert block(64, 16) == 64 and block(16384, 16) == 16384
    assert block(16385, 16) == 4096 and block(16385, 80) == 16385
    assert block(16384, 16, item_bytes=8) == 4096
    assert pair_sweep.auto_block(256, 2**20, item_bytes=4, gpu_bytes=2**35) == 2**20
    assert block(65536, 80) == 4096
    assert pair_sweep.auto_block(None, 64, item_bytes=4, gpu_bytes=2**34) == 1024


def test_a_gpu_with_memory_changes_no_number(monkeypatch):
    unit, ids = batch(size=800)  # More than a tile of a CPU's.
    on_cpu = run(unit, ids, 1.0)
    monkeypatch.setattr(pair_sweep.devices, "gpu_bytes", lambda: 2**34)
    for one, other in zip(run(unit, ids, 1.0), on_cpu, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_loops_and_unrolled_tiles_agree(monkeypatch):
    unit, ids = batch()
    unrolled = run(unit, ids, 1.0, block_size=6)
    monkeypatch.setattr(pair_sweep, "_MOST_UNROLLED", 0)
    looped = run(unit, ids, 1.0, block_size=6, mode="graph", gamma=80.0 + 1e-12)  # A new trace.
    for one, other in zip(unrolled, looped, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("block_size", ["auto", 3])
def test_a_row_of_nan_makes_the_losses_of_its_anchors_nan(block_size):
    unit, ids = batch()
    unit[5] = np.nan
    losses, valid, _ = run(unit, ids, 1.0, block_size=block_size)
    assert np.isnan(losses).all() and valid.all()


@pytest.mark.parametrize("block_size", ["auto", 2])
@pytest.mark.parametrize("ids", [[1, 2, 3, 4], [1, 1, 1, 1]])
def test_without_positives_or_without_negatives_nothing_is_taught(ids, block_size):
    unit, _ = batch(size=4)
    losses, valid, gradient = run(unit, np.array(ids), 1.0, block_size=block_size)
    assert not losses.any() and not valid.any() and not gradient.any()


def test_no_anchors():
    unit, ids = batch(size=6)
    keys = unit, ids, np.arange(6)
    for mode in ("eager", "unknown shape"):
        found = run(unit[:0], ids[:0], np.zeros(0), mode=mode, keys=keys, block_size=2)
        assert [array.shape for array in found] == [(0,), (0,), (0, 6), (6, 6)]
        assert not found[3].any()


def test_the_second_derivative_is_refused_and_the_whole_matrix_has_it():
    rows, ids = batch()

    def second(block_size):
        x = tf.constant(rows)
        loss = circle_tf.CircleLoss(block_size=block_size)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = loss(ids, x)
            slope = tf.reduce_sum(inner.gradient(value, x) ** 2)
        return outer.gradient(slope, x)

    with pytest.raises(NotImplementedError, match="block_size=None"):
        second("auto")
    assert np.abs(second(None)).max() > 0


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, "big"])
def test_block_sizes_out_of_range(bad):
    with pytest.raises(ValueError, match='must be "auto", None .* or a whole number'):
        circle_tf.CircleLoss(block_size=bad)
    with pytest.raises(ValueError, match='must be "auto"'):
        circle_tf.PairwiseCircle(block_size=bad)


def test_the_function_itself_has_no_whole_matrix():
    with pytest.raises(ValueError, match="circle_loss takes the whole matrix"):
        run(*batch(), 1.0, block_size=None)


@pytest.mark.parametrize("reduction", ["mean_valid", "mean", "sum", "none", "mean_nonzero"])
@pytest.mark.parametrize("block_size", ["auto", 7])
def test_every_reduction_and_sample_weights(reduction, block_size):
    rows, ids = batch()
    weights = np.random.default_rng(4).uniform(size=24)

    def both(block_size):
        x = tf.constant(rows)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = circle_tf.CircleLoss(reduction=reduction, block_size=block_size)
            value = loss(ids, x, sample_weight=weights)
        return value, tape.gradient(value, x)

    for one, other in zip(both(block_size), both(None), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_block_size_survives_saving():
    assert circle_tf.CircleLoss(block_size=64).get_config()["block_size"] == 64
    layer = circle_tf.PairwiseCircle(block_size=None)
    assert circle_tf.PairwiseCircle.from_config(layer.get_config()).block_size is None


def test_memory_is_linear_in_the_batch():
    # 64 tiles of 16 x 16: in a loop, the graph holds none of the pairs; the whole matrix would.
    size, block = 8192, 64
    signature = [tf.TensorSpec([size, 2], tf.float32), tf.TensorSpec([size], tf.int64)]

    @tf.function(input_signature=signature)
    def losses(unit, ids):
        return pair_sweep.pair_losses(unit, ids, block_size=block, **OPTIONS)[0]

    graph = losses.get_concrete_function().graph.as_graph_def(add_shapes=True)
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    shapes = [shape for node in nodes for shape in node.attr["_output_shapes"].list.shape]
    largest = max(
        np.prod([float(max(dim.size, 1)) for dim in shape.dim], initial=1) for shape in shapes
    )
    assert largest <= 16 * size

"""Values and gradients of losses and heads against float64, compiled by XLA, by precision.

Circle loss is held to `tests/reference.py`, the paper as float64 loops; the losses it is compared
with to themselves in float64 on the CPU, where the tests hold them to loops. Inputs that a
precision rounds are rounded for the oracle too: what remains is the rounding of the computation.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import circle_tf
from benchmarks.data import noisy_classes
from benchmarks.gpu import table
from circle_tf import baselines
from circle_tf.layers import class_sampling
from circle_tf.ops import numerics
from tests import reference

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
# Unit roundoff: the largest relative error of one rounding.
_ROUNDOFF = {"float32": 2.0**-24, "tf32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-9}
_MARGIN, _GAMMA, _RATE = 0.25, 64.0, 0.25


class Inputs(NamedTuple):
    """Embeddings `[B, D]`, ids `[B]` and class weights `[C, D]`, float64."""

    embeddings: np.ndarray
    ids: np.ndarray
    weights: np.ndarray

    @classmethod
    def of_size(cls, *, small):
        """Those of a small or a usual batch."""
        rows, dim, classes = (16, 8, 300) if small else (128, 64, 2000)
        embeddings, ids = noisy_classes(rows=rows, dim=dim, per_class=4)
        weights = np.random.default_rng(1).normal(size=(classes, dim))
        return cls(embeddings.astype(np.float64), ids, weights)


class Case(NamedTuple):
    """What is checked.

    Args:
        build: `fn(policy, inputs)` to `(fn(rows, ids) -> losses, class weights or None)`.
        slope: how much a loss can change by a cosine, at most.
        oracle: `fn(inputs)` to `(losses, gradients)`; None takes `build` in float64.
        products: dtype to which the factors of products are rounded.
    """

    build: Callable
    slope: float
    oracle: Callable | None = None
    products: str = "float32"


def _on_rows(loss):
    return lambda policy, inputs: ((lambda rows, ids: loss(ids, rows)), None)


def _on_layer(make):
    """Layers of (rows, ids)."""

    def build(policy, inputs):
        layer = make(inputs, policy)
        layer.build((inputs.embeddings.shape, inputs.ids.shape))
        return (lambda rows, ids: layer((rows, ids))), None

    return build


def _on_head(**options):
    def build(policy, inputs):
        head = circle_tf.CircleHead(len(inputs.weights), _MARGIN, _GAMMA, dtype=policy, **options)
        head.build((inputs.embeddings.shape, inputs.ids.shape))
        head.class_weights.assign(inputs.weights)
        return (lambda rows, ids: head((rows, ids), training=True)), head.class_weights

    return build


def _on_cosines(loss):
    def build(policy, inputs):
        layer = circle_tf.CosineClassifier(len(inputs.weights), dtype=policy)
        layer.build(inputs.embeddings.shape)
        layer.class_weights.assign(inputs.weights)
        return (lambda rows, ids: loss(ids, layer(rows))), layer.class_weights

    return build


def _plain(policy, inputs):
    """`circle_loss` on similarities of the caller's own."""
    del policy
    same = inputs.ids[:, None] == inputs.ids
    positives, negatives = same & ~np.eye(len(same), dtype=bool), ~same

    def losses(rows, ids):
        del ids
        unit = numerics.safe_normalize(rows)
        similarities = tf.matmul(unit, unit, transpose_b=True)
        return circle_tf.circle_loss(
            similarities, positives, negatives, margin=_MARGIN, gamma=_GAMMA
        )

    return losses, None


def _pairs_by_reference(inputs):
    options = {"margin": _MARGIN, "gamma": _GAMMA}
    losses, _, _ = reference.pairwise(inputs.embeddings, inputs.ids, **options)
    upstream = np.full(len(losses), 1 / len(losses))
    gradient = reference.pairwise_embedding_gradient(
        inputs.embeddings, inputs.ids, upstream, **options
    )
    return losses, [gradient]


def _classes_by_reference(inputs, *, rate=1.0):
    count = len(inputs.weights)
    classes = np.arange(count)
    if rate < 1:
        size = class_sampling.size_of(count, rate)
        drawn, mask, _ = class_sampling.sampled_classes(
            inputs.ids, count, size=size, seed=0, step=0
        )
        classes = np.sort(drawn.numpy()[mask.numpy()])
    unit, keys = reference.normalize(inputs.embeddings), inputs.weights[classes]
    unit_keys = reference.normalize(keys)
    losses, slopes = reference.class_level(
        unit @ unit_keys.T, np.searchsorted(classes, inputs.ids), margin=_MARGIN, gamma=_GAMMA
    )
    slopes /= len(losses)
    of_weights = np.zeros_like(inputs.weights)
    of_weights[classes] = reference.normalize_gradient(keys, slopes.T @ unit)
    return losses, [reference.normalize_gradient(inputs.embeddings, slopes @ unit_keys), of_weights]


def _sampled_by_reference(inputs):
    return _classes_by_reference(inputs, rate=_RATE)


def cases(inputs):
    """What is checked, by name."""
    slope = _GAMMA * (2 + _MARGIN)
    blocks = 4 * len(inputs.ids) * 128  # Bytes of the cosines to so many classes in float32.
    circle = {"slope": slope, "oracle": _pairs_by_reference}
    classes = {"slope": slope, "oracle": _classes_by_reference}
    sampled = {"slope": slope, "oracle": _sampled_by_reference}
    options = {"reduction": "none"}
    pairs = {
        "block_size=auto": "auto",
        "block_size=None": None,
        "tiles": 7,  # Divides no batch: the last block is filled up.
    }
    found = {"circle_loss": Case(_plain, **circle)}
    for name, block in pairs.items():
        loss = circle_tf.CircleLoss(_MARGIN, _GAMMA, block_size=block, **options)
        found[f"CircleLoss, {name}"] = Case(_on_rows(loss), **circle)
    return {
        **found,
        "PairwiseCircle": Case(
            _on_layer(lambda _, policy: circle_tf.PairwiseCircle(_MARGIN, _GAMMA, dtype=policy)),
            **circle,
        ),
        "ClassCircleLoss": Case(
            _on_cosines(circle_tf.ClassCircleLoss(_MARGIN, _GAMMA, **options)), **classes
        ),
        "CircleHead, held": Case(_on_head(), **classes),
        "CircleHead, streamed": Case(_on_head(max_bytes=blocks), **classes),
        "CircleHead, sample_rate": Case(_on_head(sample_rate=_RATE), **sampled),
        # The own cosine is not rounded; to the others' a logit grows by 2 * gamma at most.
        "CircleHead, product_dtype": Case(
            _on_head(product_dtype="bfloat16"),
            2 * _GAMMA,
            _classes_by_reference,
            products="bfloat16",
        ),
        **_baselines(**options),
    }


def _baselines(**options):
    rows = {
        "UnifiedLoss": (baselines.UnifiedLoss(0.2, 32.0, **options), 32.0),
        "NPairsLoss": (baselines.NPairsLoss(16.0, **options), 16.0),
        "MultiSimilarityLoss": (baselines.MultiSimilarityLoss(**options), 50.0),
        "ContrastiveLoss": (baselines.ContrastiveLoss(**options), 4.0),
        "LiftedStructureLoss": (baselines.LiftedStructureLoss(**options), 16.0),
        "TripletLoss, semihard": (baselines.TripletLoss(**options), 4.0),
        "TripletLoss, hard": (baselines.TripletLoss(mining="hard", **options), 4.0),
        "TripletLoss, all": (baselines.TripletLoss(mining="all", **options), 4.0),
    }
    cosines = {
        "AMSoftmaxLoss": (baselines.AMSoftmaxLoss(0.35, 32.0, **options), 32.0),
        "ArcFaceLoss": (baselines.ArcFaceLoss(0.5, 32.0, **options), 64.0),
        "NormFaceLoss": (baselines.NormFaceLoss(16.0, **options), 16.0),
        "ProxyAnchorLoss": (baselines.ProxyAnchorLoss(0.1, 32.0), 32.0),
    }
    found = {name: Case(_on_rows(loss), slope) for name, (loss, slope) in rows.items()}
    return found | {name: Case(_on_cosines(loss), slope) for name, (loss, slope) in cosines.items()}


def losses_and_gradients(case, inputs, policy, *, jit):
    """`(losses, [gradient by rows, by class weights where there are any])` of a case."""
    compute, weights = case.build(policy, inputs)
    sources = [] if weights is None else [weights.value]

    @tf.function(jit_compile=jit, autograph=False)
    def step(rows, ids):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            losses = compute(rows, ids)
            mean = tf.reduce_mean(losses)
        gradients = tape.gradient(mean, [rows, *sources])
        return losses, [tf.convert_to_tensor(gradient) for gradient in gradients]

    rows = tf.cast(inputs.embeddings, keras.DTypePolicy(policy).compute_dtype)
    losses, gradients = step(rows, tf.constant(inputs.ids))
    return _float64(losses), [_float64(gradient) for gradient in gradients]


def expected(case, inputs, policy):
    """The same in float64, of the inputs as the policy rounds them."""
    dtype = tf.as_dtype(keras.DTypePolicy(policy).compute_dtype)
    rounded = inputs._replace(
        embeddings=_float64(tf.cast(inputs.embeddings, dtype)),
        weights=inputs.weights.astype(np.float32).astype(np.float64),
    )
    if case.oracle is not None:
        return case.oracle(rounded)
    with tf.device("CPU:0"):
        return losses_and_gradients(case, rounded, "float64", jit=False)


def limits_of(case, policy, *, dim, losses, tf32=False):
    """What rounding can come to, by what is compared.

    A cosine is off by the rounding of its unit rows, some roundoffs of float32, and by that of
    each of its D products, of random sign, some roundoffs over sqrt(D). A loss changes by `slope`
    times that, a softmax by a share of twice that.
    """
    products = max(_ROUNDOFF["tf32"] if tf32 else 0, _ROUNDOFF[case.products])
    cosine = 4 * _ROUNDOFF["float32"] + 5 * products / np.sqrt(dim)
    given = _ROUNDOFF[keras.DTypePolicy(policy).compute_dtype]
    return {
        "losses": case.slope * cosine + 8 * _ROUNDOFF["float32"] * max(1, np.abs(losses).max()),
        "gradients": 2 * case.slope * cosine + 2 * given + 1e-6,
    }


def check(name, case, inputs, policy, *, jit=True, tf32=False, memo=None):
    """The row of a case; `memo`, a dict, keeps what oracles said."""
    memo = {} if memo is None else memo
    key = case.oracle or name, keras.DTypePolicy(policy).compute_dtype
    if key not in memo:
        memo[key] = expected(case, inputs, policy)
    losses, gradients = memo[key]
    found, found_gradients = losses_and_gradients(case, inputs, policy, jit=jit)
    apart = [
        np.abs(ours - theirs).max() / np.abs(theirs).max()
        for ours, theirs in zip(found_gradients, gradients, strict=True)
    ]
    errors = {"losses": float(np.abs(found - losses).max()), "gradients": float(np.max(apart))}
    limits = limits_of(case, policy, dim=inputs.weights.shape[1], losses=losses, tf32=tf32)
    return table.judged(_title(name, policy, jit=jit, tf32=tf32), errors, limits)


def _title(name, policy, *, jit=True, tf32=False):
    return f"{name}, {policy}, {'XLA' if jit else 'graph'}{', TF32' if tf32 else ''}"


def _runs(all_cases, *, small):
    """`(name, way)` of all that is checked: what is most telling first."""
    ways = [{"policy": policy} for policy in POLICIES]
    ours = [name for name, case in all_cases.items() if case.oracle is not None]
    if small:  # Each in one precision, each precision in several; few of those compared with.
        few = ours + [name for name in all_cases if name not in ours][::4]
        return [(name, ways[n % len(ways)]) for n, name in enumerate(few)]
    runs = [(name, way) for way in ways for name in all_cases]
    runs += [(name, {"policy": "float32", "jit": False}) for name in ours]
    if tf.config.list_physical_devices("GPU"):
        runs += [(name, {"policy": "float32", "tf32": True}) for name in ours]
    return runs


def rows(limits):
    """Each case in each precision, and Circle loss with products rounded to TF32 too.

    TensorFlow rounds to TF32 by default where a GPU can; for all other rows that is off.
    """
    inputs, memo = Inputs.of_size(small=limits.small), {}
    all_cases = cases(inputs)
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    try:
        for name, way in _runs(all_cases, small=limits.small):
            tf.config.experimental.enable_tensor_float_32_execution(way.get("tf32", False))
            title = _title(name, **way)
            yield limits.skips(title) or table.guarded(
                title, check, name, all_cases[name], inputs, memo=memo, **way
            )
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _float64(values):
    return np.asarray(tf.cast(values, tf.float64))

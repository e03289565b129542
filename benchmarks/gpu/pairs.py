"""Time and peak memory of pair-wise Circle loss on a GPU, beside its products and PyTorch."""

import keras

import circle_tf
from benchmarks import steps
from benchmarks.gpu import clock, table

_SIZES = ((1024, 512), (4096, 512), (16384, 512), (65536, 512))
_SMALL_SIZES = ((64, 16), (256, 16))
_OPTIONS = {"margin": 0.4, "gamma": 80.0}
_DENSE_MATRICES = 6  # That TensorFlow may hold at a time where nothing is fused.


def rows(limits):
    """Each way at each size."""
    with clock.torch_peer() as peer:
        if isinstance(peer, str):
            yield table.skipped("PyTorch", peer)
            peer = None
        for count, dim in _SMALL_SIZES if limits.small else _SIZES:
            title = f"B={count:,} D={dim}"
            skip = limits.skips(title, needs=0 if limits.small else 5)
            if skip:
                yield skip
                continue
            unit, ids = steps.make_batch(count, dim)
            yield from clock.compared(title, _ways(unit, ids, peer), floor="two products")


def _ways(unit, ids, peer):
    count, dim = unit.shape
    products = steps.pair_products(count)
    ours = circle_tf.CircleLoss(**_OPTIONS)
    dense = circle_tf.CircleLoss(block_size=None, **_OPTIONS)
    ways = {
        "two products": lambda: products(unit),
        "CircleLoss": _bound(steps.loss_step(ours), unit, ids),
    }
    if clock.fits(4 * count**2 * _DENSE_MATRICES):
        theirs = keras.losses.Circle(**_OPTIONS)
        ways["CircleLoss, block_size=None, XLA"] = _bound(
            steps.loss_step(dense, jit_compile=True), unit, ids
        )
        ways["keras.losses.Circle, XLA"] = _bound(
            steps.loss_step(theirs, jit_compile=True), unit, ids
        )
        if peer:
            ways["PyTorch, compiled"] = clock.Peer(peer, "pairs", rows=count, dim=dim, **_OPTIONS)
            ways["pytorch-metric-learning"] = clock.Peer(
                peer, "pairs_of_pml", rows=count, dim=dim, **_OPTIONS
            )
    return ways


def _bound(step, unit, ids):
    return lambda: step(unit, ids)

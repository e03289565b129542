"""Time and peak memory of `CircleHead` on a GPU, beside its products and PyTorch."""

import tensorflow as tf

from benchmarks import steps
from benchmarks.gpu import clock, table

_SIZES = ((100_000, 512, 512), (1_000_000, 512, 512))
_SMALL_SIZES = ((500, 16, 64),)


def rows(limits):
    """Each way at each number of classes."""
    with clock.torch_peer() as peer:
        if isinstance(peer, str):
            yield table.skipped("PyTorch", peer)
            peer = None
        for classes, dim, count in _SMALL_SIZES if limits.small else _SIZES:
            title = f"C={classes:,} D={dim} B={count}"
            weights = 4 * classes * dim
            skip = limits.skips(title, needs=0 if limits.small else 10)
            if not clock.fits(4 * weights):
                skip = table.skipped(title, "weights and gradients do not fit into memory")
            if skip:
                yield skip
                continue
            ways = _ways(classes, dim, count, peer)
            yield from clock.compared(title, ways, floor="three products")


def _ways(classes, dim, count, peer):
    unit = tf.math.l2_normalize(tf.random.normal([count, dim], seed=0), axis=1)
    ids = tf.random.uniform([count], 0, classes, tf.int64, seed=0)
    weights = tf.random.normal([classes, dim], seed=1)
    cosines = 4 * count * classes
    # A head is made when its turn comes: its weights are as large as all others'.
    head = _later(unit, ids, weights)
    low = {"product_dtype": "bfloat16"}
    streamed = {"max_bytes": min(2**28, cosines - 1)}
    ways = {
        "three products": lambda: steps.head_products(unit, weights),
        "streamed": head(**streamed),
        "streamed, bfloat16 products": head(**streamed, **low),
        "sample_rate=0.1": head(sample_rate=0.1),
    }
    if clock.fits(4 * cosines + 4 * weights.dtype.size * classes * dim):
        ways["held"] = head(max_bytes=cosines)
        ways["held, bfloat16 products"] = head(max_bytes=cosines, **low)
        if peer:
            size = {"classes": classes, "dim": dim, "rows": count}
            ways["PyTorch circle-softmax, compiled"] = clock.Peer(peer, "classes", **size)
            ways["pytorch-metric-learning ArcFace"] = clock.Peer(peer, "classes_of_pml", **size)
    return {name: clock.Made(way) if callable(way) else way for name, way in ways.items()}


def _later(unit, ids, weights):
    def head(**options):
        return lambda: steps.head_step(unit, ids, weights, **options)

    return head

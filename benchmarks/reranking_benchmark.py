"""k-reciprocal re-ranking at the sizes of Market-1501: seconds, processor seconds, peak memory.

python -m benchmarks.reranking_benchmark
python -m benchmarks.reranking_benchmark --queries=900 --gallery=5100
"""

import resource
import time

import numpy as np
from absl import app, flags

from circle_tf.evaluation import reranking


def images(count, *, dim, per_class=15):
    """`[count, dim]` float32 of classes that overlap, in random order."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(max(1, count // per_class), dim))
    rows = centres[np.arange(count) % len(centres)] + 1.2 * random.normal(size=(count, dim))
    random.shuffle(rows)
    return rows.astype(np.float32)


def measure(rows, *, queries):
    """`(seconds, processor seconds, growth of the peak in MiB)` of one call, after a small one."""
    reranking.k_reciprocal_distances(rows[:50], rows[50:1200])
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    reranking.k_reciprocal_distances(rows[:queries], rows[queries:])
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, processor, (after.ru_maxrss - before.ru_maxrss) / 2**10


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    flags.DEFINE_integer("queries", 3368, "Queries Q.", lower_bound=1)
    flags.DEFINE_integer("gallery", 19_732, "Images to search in, N.", lower_bound=1)
    flags.DEFINE_integer("dim", 512, "Numbers per embedding D.", lower_bound=1)


def main(_):
    """Prints one line."""
    options = flags.FLAGS
    rows = images(options.queries + options.gallery, dim=options.dim)
    seconds, processor, mib = measure(rows, queries=options.queries)
    print(f"{seconds:.1f} s, {processor:.1f} s of the processor, peak growth {mib:.0f} MiB")


if __name__ == "__main__":
    define_flags()
    app.run(main)

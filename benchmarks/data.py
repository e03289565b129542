"""Made-up inputs, the same for us and for peers: NumPy only, as peers have no TensorFlow."""

import numpy as np

__all__ = ["noisy_classes"]


def noisy_classes(
    *, rows: int, dim: int, per_class: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Class centres and noise: neighbours are neither easy nor lost.

    Args:
        rows: embeddings N.
        dim: numbers per embedding D.
        per_class: rows of each class, which stand together.
        seed: of the noise.

    Returns:
        `(embeddings, labels)`: `[N, D]` float32 of any scale, `[N]` int64.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) // per_class
    embeddings = rng.standard_normal((rows, dim), np.float32)
    centres = rng.standard_normal((labels[-1] + 1, dim), np.float32)
    for start in range(0, rows, 4096):
        part = slice(start, start + 4096)
        embeddings[part] += 0.3 * centres[labels[part]]
    return embeddings, labels

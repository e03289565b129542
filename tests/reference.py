"""The oracle: the paper's formulas as float64 NumPy loops, written for reading, not for speed.

Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity Optimization", CVPR 2020.
"""

import math

import numpy as np


def anchor_loss(s_p, s_n, *, margin, gamma):
    """Eq. 6 for one anchor, and its gradients as printed (eq. 9, 10; weights held constant).

    Returns (loss, [dloss/ds_p], [dloss/ds_n]) as Python floats.
    """
    if len(s_p) == 0 or len(s_n) == 0:
        return 0.0, [0.0] * len(s_p), [0.0] * len(s_n)
    logits_p = [-gamma * max(0.0, 1 + margin - s) * (s - (1 - margin)) for s in s_p]
    logits_n = [gamma * max(0.0, s + margin) * (s - margin) for s in s_n]
    softmax_p, lse_p = _softmax(logits_p)
    softmax_n, lse_n = _softmax(logits_n)
    x = lse_p + lse_n
    loss = x + math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x))
    z = 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))
    grad_p = [
        -z * q * gamma * max(0.0, 1 + margin - s) for q, s in zip(softmax_p, s_p, strict=True)
    ]
    grad_n = [z * q * gamma * max(0.0, s + margin) for q, s in zip(softmax_n, s_n, strict=True)]
    return loss, grad_p, grad_n


def circle_loss(similarities, positives, negatives, *, margin, gamma):
    """`anchor_loss` for each row of [A, K] arrays. Returns (losses [A], gradients [A, K])."""
    similarities = np.asarray(similarities, np.float64)
    losses, gradients = np.zeros(len(similarities)), np.zeros(similarities.shape)
    for i, row in enumerate(similarities):
        p, n = np.flatnonzero(positives[i]), np.flatnonzero(negatives[i])
        losses[i], grad_p, grad_n = anchor_loss(row[p], row[n], margin=margin, gamma=gamma)
        if len(p) and len(n):
            gradients[i, p], gradients[i, n] = grad_p, grad_n
    return losses, gradients


def pairwise(embeddings, ids, *, margin, gamma):
    """Pair-wise labels: each row an anchor, the other rows its keys.

    Returns (losses [B], similarity gradients [B, B] of each anchor's loss, valid [B]).
    """
    z = normalize(embeddings)
    same = np.asarray(ids)[:, None] == np.asarray(ids)[None, :]
    positives, negatives = same & ~np.eye(len(z), dtype=bool), ~same
    losses, gradients = circle_loss(z @ z.T, positives, negatives, margin=margin, gamma=gamma)
    return losses, gradients, positives.any(1) & negatives.any(1)


def pairwise_embedding_gradient(embeddings, ids, upstream, *, margin, gamma):
    """d(sum_i upstream_i * loss_i) / d embeddings, through both sides of each pair."""
    z = normalize(embeddings)
    _, ds, _ = pairwise(embeddings, ids, margin=margin, gamma=gamma)
    ds = np.asarray(upstream, np.float64)[:, None] * ds
    return normalize_gradient(embeddings, (ds + ds.T) @ z)


def class_level(cosines, ids, *, margin, gamma):
    """Class-level labels: keys are the classes. Returns (losses [B], gradients [B, C])."""
    positives = np.asarray(ids)[:, None] == np.arange(cosines.shape[1])[None, :]
    return circle_loss(cosines, positives, ~positives, margin=margin, gamma=gamma)


def smoothed_class_level(cosines, ids, *, margin, gamma, label_smoothing):
    """Class-level labels of which all classes share a part: the softmax cross-entropy, by its sum.

    Returns (losses [B], gradients [B, C], the weights held constant).
    """
    cosines = np.asarray(cosines, np.float64)
    losses, gradients = np.zeros(len(cosines)), np.zeros(cosines.shape)
    for i, row in enumerate(cosines):
        weights = [max(0.0, s + margin) for s in row]
        logits = [gamma * a * (s - margin) for a, s in zip(weights, row, strict=True)]
        own = int(ids[i])
        weights[own] = max(0.0, 1 + margin - row[own])
        logits[own] = gamma * weights[own] * (row[own] - (1 - margin))
        softmax, lse = _softmax(logits)
        for j, logit in enumerate(logits):
            target = label_smoothing / len(row) + (1 - label_smoothing) * (j == own)
            losses[i] += target * (lse - logit)
            gradients[i, j] = gamma * weights[j] * (softmax[j] - target)
    return losses, gradients


def normalize(rows):
    """Unit rows; zero rows stay zero."""
    rows = np.asarray(rows, np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1, norms)


def normalize_gradient(rows, upstream):
    """Chain rule through `normalize`: (g - z <z, g>) / norm; zero for zero rows."""
    rows = np.asarray(rows, np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    z = normalize(rows)
    tangent = upstream - z * (z * upstream).sum(1, keepdims=True)
    return np.where(norms == 0, 0, tangent / np.where(norms == 0, 1, norms))


def _softmax(logits):
    highest = max(logits)
    exps = [math.exp(x - highest) for x in logits]
    total = math.fsum(exps)
    return [e / total for e in exps], highest + math.log(total)

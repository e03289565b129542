"""Identification: who is it, among distractors? Rank-k as in MegaFace, and open-set DIR at FAR."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from circle_tf.evaluation import exact_search
from circle_tf.evaluation.neighbours import HighestScores, as_rows, check_dimensions, iterate_scores
from circle_tf.ops import pairs
from circle_tf.utils import checks

__all__ = ["detection_and_identification_rate", "distractor_identification"]


def distractor_identification(
    probes: ArrayLike,
    probe_ids: ArrayLike,
    distractors: ArrayLike,
    *,
    ks: int | Iterable[int] = (1, 10),
    fars: float | Iterable[float] = (),
    chunk_size: int | None = None,
) -> dict[str, float]:
    """Rank-k identification among distractors, the protocol of MegaFace's first challenge.

    Each probe is looked up once for each other image of its identity: in a gallery of that image
    and all the distractors. A distractor that is as near as the mate counts as nearer.

    Args:
        probes: `[Q, D]` embeddings of any real dtype and scale.
        probe_ids: `[Q]` integer identities.
        distractors: `[N, D]` embeddings of other identities.
        ks: ints of 1 or more, or one.
        fars: floats 0 to 1, or one, for MegaFace's verification: its impostors are all pairs of a
            probe and a distractor. So many of the highest scores are held as the largest rate lets
            pass.
        chunk_size: int, probes at a time; None chooses by memory (about 256 MB).

    Returns:
        dict: `rank_{k}` for each k, float 0 to 1, the share of pairs of probe and mate that have
        fewer than k distractors before the mate; `tar_at_far_{far}` for each, the share of those
        pairs that score above the lowest threshold at which FAR does not exceed what is asked; and
        `pairs`, int, how many there are.

    Raises:
        ValueError: shapes or lengths that do not fit, NaN or inf in a row, no identity with two
            probes, a rate out of range.

    References:
        Kemelmacher-Shlizerman et al., "The MegaFace Benchmark", CVPR 2016.

    Example:
        >>> probes = [[1.0, 0.0], [1.0, 0.2]]
        >>> distractor_identification(probes, [7, 7], [[1.0, 0.1], [0.0, 1.0]], ks=(1, 2))
        {'rank_1': 0.0, 'rank_2': 1.0, 'pairs': 2}
    """
    rows, others = as_rows(probes, name="probes"), as_rows(distractors, name="distractors")
    ids = pairs.ids_of_rows(probe_ids, rows, name="probe_ids")
    ks = [checks.whole_number(k, "ks", least=1) for k in checks.several(ks)]
    check_dimensions(rows, others, names=("probes", "distractors"))
    rows = exact_search.on_grid(rows, name="probes")
    others = exact_search.on_grid(others, name="distractors")
    accepts = {far: _accepts(far, len(rows) * len(others)) for far in _check_fars(fars)}
    impostors = HighestScores(1 + max(accepts.values(), default=-1))
    before, genuine = [], []
    for row, scores in iterate_scores(rows, others, chunk_size=chunk_size):
        mates = np.flatnonzero(ids == ids[row])
        of_mates = rows[mates[mates != row]] @ rows[row]
        ordered = np.sort(scores)
        before.append(len(ordered) - np.searchsorted(ordered, of_mates, side="left"))
        genuine.append(of_mates)
        impostors.add(ordered)
    before, genuine = np.concatenate(before), np.concatenate(genuine)
    if not before.size:
        raise ValueError("No probe has a mate: each of the probes is the only one of its identity.")
    rates = {f"rank_{k}": float(np.mean(before < k)) for k in ks}
    for far, accepted in accepts.items():
        rates[f"tar_at_far_{far:g}"] = float(np.mean(genuine > impostors.at(accepted)))
    return {**rates, "pairs": int(before.size)}


def detection_and_identification_rate(
    probes: ArrayLike,
    probe_ids: ArrayLike,
    gallery: ArrayLike,
    gallery_ids: ArrayLike,
    *,
    fars: float | Iterable[float] = (0.01,),
    k: int = 1,
    chunk_size: int | None = None,
) -> dict[str, float]:
    """Open-set identification: known probes found above a threshold that strangers seldom pass.

    Probes whose identity is not in the gallery are strangers. At a threshold, FAR is the share of
    strangers whose best score is above it; DIR is the share of the others that have a gallery row
    of their identity above it and fewer than k rows of other identities as near or nearer. The
    threshold is the lowest at which FAR does not exceed what is asked.

    Args:
        probes: `[Q, D]` embeddings of any real dtype and scale.
        probe_ids: `[Q]` integer identities.
        gallery: `[N, D]` embeddings; distractors are rows whose identity no probe has.
        gallery_ids: `[N]` integer identities.
        fars: floats 0 to 1, or one.
        k: int of 1 or more.
        chunk_size: int, probes at a time; None chooses by memory (about 256 MB).

    Returns:
        dict of floats 0 to 1: `dir_at_far_{far}` for each, and `rank_{k}`, the closed-set rate
        without a threshold; the counts `known` and `strangers`.

    Raises:
        ValueError: shapes or lengths that do not fit, NaN or inf in a row, no known probe, no
            stranger, a rate out of range.

    References:
        Phillips et al., "Evaluation Methods in Face Recognition", Handbook of Face Recognition,
        2011.

    Example:
        >>> gallery, ids = [[1.0, 0.0], [0.0, 1.0]], [7, 8]
        >>> probes = [[1.0, 0.1], [1.0, 1.0]]
        >>> found = detection_and_identification_rate(probes, [7, 9], gallery, ids)
        >>> found["dir_at_far_0.01"], found["known"], found["strangers"]
        (1.0, 1, 1)
    """
    rows, others = as_rows(probes, name="probes"), as_rows(gallery, name="gallery")
    ids, of_gallery = (
        pairs.ids_of_rows(probe_ids, rows, name="probe_ids"),
        pairs.ids_of_rows(gallery_ids, others, name="gallery_ids"),
    )
    k = checks.whole_number(k, "k", least=1)
    fars = _check_fars(fars)
    check_dimensions(rows, others, names=("probes", "gallery"))
    rows = exact_search.on_grid(rows, name="probes")
    others = exact_search.on_grid(others, name="gallery")
    known = np.isin(ids, of_gallery)
    if not known.any() or known.all():
        raise ValueError(
            "Open-set identification needs probes with and without an identity in the gallery; "
            f"found {int(known.sum())} with and {int((~known).sum())} without."
        )
    best, is_found = np.empty(len(ids)), np.zeros(len(ids), bool)
    for row, scores in iterate_scores(rows, others, chunk_size=chunk_size):
        same = of_gallery == ids[row]
        best[row] = scores[same].max() if known[row] else scores.max()
        is_found[row] = known[row] and np.count_nonzero(scores[~same] >= best[row]) < k
    strangers = np.sort(best[~known])[::-1]
    report = {f"rank_{k}": float(np.mean(is_found[known]))}
    for far in fars:
        accepted = _accepts(far, len(strangers))
        threshold = strangers[accepted] if accepted < len(strangers) else -np.inf
        rate = np.mean(is_found[known] & (best[known] > threshold))
        report[f"dir_at_far_{far:g}"] = float(rate)
    return {**report, "known": int(known.sum()), "strangers": int((~known).sum())}


def _check_fars(fars):
    fars = checks.several(fars)
    for far in fars:
        if not 0 <= far <= 1:
            raise ValueError(f"fars must be 0 to 1; found {far}.")
    return fars


def _accepts(far, count):
    """False accepts allowed of so many at a rate; a product that rounds down is meant in full."""
    return int(np.floor(far * count * (1 + 1e-12)))

"""What the figures of a report draw: recall by K, and ranks, with those of a random order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from pairmatch.evaluation.evaluation import Evaluation
from pairmatch.evaluation.intervals import Metrics, summarize
from pairmatch.evaluation.query_table import table_at_ks

_MAX_CURVE_POINTS = 80
_MAX_BARS = 15
_RESAMPLES = 1000


def evaluation_curves(evaluation: Evaluation, *, seed: int = 0) -> dict[str, Any]:
    """The fields of a `Report` that the figures of an evaluation are drawn from.

    Args:
        evaluation: Evaluation to draw; its intervals, if it has any, become bands.
        seed: Seed for the bootstrap; use the evaluator's for the same intervals as in the table.
    """
    sizes = evaluation.table["candidates"]
    size, largest = min(evaluation.candidates), max(evaluation.candidates)
    if "pool" in evaluation.table.columns:
        size = largest = int(sizes.max())
    points = np.linspace(1, size, min(size, _MAX_CURVE_POINTS)).round().astype(int).tolist()
    ks = sorted({*points, *evaluation.both.recall})
    resamples = _RESAMPLES if evaluation.both.recall_interval else 0
    curves = {}
    bands = {}
    for name, result in (("ours", evaluation), ("frozen", evaluation.frozen)):
        if result is None:
            continue
        metrics = _metrics_at(result, ks, resamples, seed)
        curves[name] = list(metrics.recall.values())
        if metrics.recall_interval:
            bands[name] = list(metrics.recall_interval.values())
    curves["chance"] = [float(np.minimum(k / sizes, 1).mean()) for k in ks]
    return {
        "curves": curves,
        "curve_ks": ks,
        "bands": bands,
        "ranks": evaluation.ranks.tolist(),
        "rank_chance": _chance_of_bars(evaluation, rank_edges(largest)),
    }


def _metrics_at(evaluation: Evaluation, ks: Sequence[int], resamples: int, seed: int) -> Metrics:
    """Metrics at other K than those of the evaluation's table."""
    table = table_at_ks(evaluation.table, evaluation.partner_ranks, ks)
    return summarize(table, resamples=resamples, confidence=evaluation.confidence, seed=seed)


def rank_edges(candidates: int) -> npt.NDArray[np.float64]:
    """[bars + 1] edges of the bars of the rank histogram.

    All bars span the same number of ranks; the last one may span fewer.

    Args:
        candidates: Size of the gallery.
    """
    span = -(-candidates // _MAX_BARS)
    return np.append(np.arange(0, candidates, span), candidates) + 0.5


def _chance_of_bars(evaluation: Evaluation, edges: npt.NDArray[np.float64]) -> list[float]:
    """Share of queries whose best-ranked partner a random order puts into each bar.

    With m partners among n candidates, no partner is among the first r with probability C(n − r, m)
    / C(n, m).
    """
    within = np.zeros(len(edges))
    for ranks in evaluation.partner_ranks:
        first, m = ranks.starts()
        n = ranks.candidates[first]
        rest = np.maximum(n - np.floor(edges)[:, None], 0)
        log_none = gammaln(rest + 1) - gammaln(rest - m + 1) - gammaln(n + 1) + gammaln(n - m + 1)
        within += (1 - np.exp(log_none)).sum(1)
    return np.diff(within / evaluation.queries).tolist()

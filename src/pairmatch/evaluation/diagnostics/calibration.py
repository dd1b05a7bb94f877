"""Calibration of scores to match probabilities, and how reliable the probabilities are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from pairmatch.core.arrays import Floats, Ints
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.pooled_ranks import pool_blocks
from pairmatch.evaluation.query_table import embed_sides


@dataclass(frozen=True, slots=True)
class Calibration:
    """Maps a score to the probability of a match; fitted on people held out from training.

    The probability is that of a match with a candidate drawn from a gallery of the size used for
    the fit. For another gallery size, pass its base rate to `probability`, which shifts the prior
    odds.

    Attributes:
        kind: `platt` or `isotonic`.
        base_rate: Share of matches among the scores of the fit.
        x: Platt: slope and intercept. Isotonic: scores, ascending.
        y: Isotonic: probabilities at `x`. Platt: empty.
    """

    kind: Literal["platt", "isotonic"]
    base_rate: float
    x: tuple[float, ...]
    y: tuple[float, ...] = ()

    def probability(
        self, scores: Floats | Sequence[float], *, base_rate: float | None = None
    ) -> Floats:
        """Probability of a match at each score: […] float64 in [0, 1].

        Args:
            scores: Cosines.
            base_rate: Share of matches among the pairs that are scored; None for that of the fit.
        """
        values = np.asarray(scores, np.float64)
        if self.kind == "platt":
            log_odds = self.x[0] * values + self.x[1]
        else:
            with np.errstate(divide="ignore"):
                log_odds = logit(np.interp(values, self.x, self.y))
        if base_rate is not None:
            log_odds = log_odds + logit(base_rate) - logit(self.base_rate)
        return expit(log_odds)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `Calibration(**values)` restores the calibration from them."""
        return {
            "kind": self.kind,
            "base_rate": self.base_rate,
            "x": list(self.x),
            "y": list(self.y),
        }


@dataclass(frozen=True, slots=True)
class Reliability:
    """Agreement of predicted probabilities with outcomes.

    Measure it on pairs that neither training nor calibration saw.

    Attributes:
        predicted: [bins] mean probability of each bin; bins hold equal numbers of pairs.
        observed: [bins] share of matches in each bin.
        counts: [bins] number of pairs in each bin.
        expected_calibration_error: Mean distance between `predicted` and `observed`, weighted by
            `counts` (Naeini et al. 2015).
        brier_score: Mean squared error of the probabilities.
    """

    predicted: npt.NDArray[np.float64]
    observed: npt.NDArray[np.float64]
    counts: Ints
    expected_calibration_error: float
    brier_score: float


def calibrate(
    scores: Floats, is_match: npt.NDArray[np.bool_], *, kind: Literal["platt", "isotonic"] = "platt"
) -> Calibration:
    """Fits Platt scaling (Platt 1999) or isotonic regression (Zadrozny and Elkan 2002).

    Args:
        scores: [n] scores of pairs of held-out people, both matches and non-matches.
        is_match: [n] bool.
        kind: `platt`, or `isotonic` if there are about a thousand matches or more.

    Raises:
        ConfigurationError: No match, no non-match, arrays of different lengths, or an unknown kind.
    """
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    values = np.asarray(scores, np.float64).ravel()
    truth = np.asarray(is_match, bool).ravel()
    if len(values) != len(truth) or truth.all() or not truth.any():
        raise ConfigurationError(
            "`calibrate` needs scores of both matches and non-matches, and one `is_match` per "
            f"score; got {len(values)} scores and {len(truth)} labels, {truth.sum()} of them "
            "matches."
        )
    rate = float(truth.mean())
    if kind == "platt":
        scale = max(float(values.std()), 1e-9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            model = LogisticRegression(C=1e6).fit((values / scale)[:, None], truth)
        slope = float(model.coef_[0, 0]) / scale
        return Calibration("platt", rate, (slope, float(model.intercept_[0])))
    if kind != "isotonic":
        raise ConfigurationError(
            f"`calibrate(kind=...)` must be 'platt' or 'isotonic', got {kind!r}."
        )
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(values, truth)
    x = tuple(map(float, curve.X_thresholds_))
    y = tuple(map(float, curve.y_thresholds_))
    return Calibration("isotonic", rate, x, y)


def reliability(
    probabilities: Floats, is_match: npt.NDArray[np.bool_], *, bins: int = 10
) -> Reliability:
    """Compares probabilities with outcomes in bins of equal numbers of pairs.

    Args:
        probabilities: [n] in [0, 1].
        is_match: [n] bool.
        bins: Maximum number of bins.
    """
    predicted = np.asarray(probabilities, np.float64).ravel()
    truth = np.asarray(is_match, bool).ravel()
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    means = np.array([predicted[part].mean() for part in parts])
    shares = np.array([truth[part].mean() for part in parts])
    counts = np.array([len(part) for part in parts])
    error = float(np.average(np.abs(means - shares), weights=counts))
    return Reliability(means, shares, counts, error, float(np.square(predicted - truth).mean()))


def pair_scores(
    e_a: Floats,
    e_b: Floats | None,
    matches: Ints,
    *,
    left_out: Ints | None = None,
    one_sided: bool = False,
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Scores of all pairs of a set, and which of them match: the input of `calibrate`.

    Args:
        e_a: [N, K] unit length.
        e_b: [M, K] unit length; None for a one-sided set whose embeddings do not depend on the
            side. Every pair of people then counts once.
        matches: [P, 2] rows of `e_a` and `e_b` that match.
        left_out: [X, 2] rows of pairs that are neither, such as matches of another pool.
        one_sided: Whether the rows of `e_b` are the people of `e_a` as candidates. Every pair of
            people then counts in both directions, and pairs of a person with themselves are left
            out.

    Returns:
        [pairs] scores, and [pairs] bool.
    """
    scores = e_a @ (e_a if e_b is None else e_b).T
    truth = np.zeros(scores.shape, bool)
    truth[matches[:, 0], matches[:, 1]] = True
    kept = np.ones(scores.shape, bool)
    if left_out is not None:
        kept[left_out[:, 0], left_out[:, 1]] = False
    if e_b is None or one_sided:
        truth |= truth.T
        kept &= kept.T
        np.fill_diagonal(kept, False)
    if e_b is None:
        kept = np.triu(kept)
    return scores[kept], truth[kept]


def labeled_scores(
    data: PairedFeatures, head: ProjectionHead
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Scores of all pairs of people who could have met, and which of them match.

    Args:
        data: People and matches; with pools, only pairs inside a pool count.
        head: Fitted head.

    Returns:
        [pairs] scores, and [pairs] bool.
    """
    e_a, e_b = embed_sides(data, head)
    scores, truth = zip(
        *(
            pair_scores(
                e_a[block.rows_a],
                None if e_b is e_a else e_b[block.rows_b],
                block.matches,
                left_out=block.elsewhere,
                one_sided=data.one_sided,
            )
            for block in pool_blocks(data)
        ),
        strict=True,
    )
    return np.concatenate(scores), np.concatenate(truth)

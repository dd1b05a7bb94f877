"""From scores to probabilities of a match, and how far these can be trusted."""

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


@dataclass(frozen=True, slots=True)
class Calibration:
    """From a score to the probability of a match, fitted on people whom training never saw.

    The probability is that of a match with a candidate drawn from a gallery of the size that it was
    fitted on; for another size, prior odds are shifted.

    Attributes:
        kind: `platt` or `isotonic`.
        base_rate: Share of matches among the scores it was fitted on.
        x: Platt: slope and intercept. Isotonic: scores, rising.
        y: Isotonic: probabilities at `x`. Platt: empty.
    """

    kind: Literal["platt", "isotonic"]
    base_rate: float
    x: tuple[float, ...]
    y: tuple[float, ...] = ()

    def probability(
        self, scores: Floats | Sequence[float], *, base_rate: float | None = None
    ) -> Floats:
        """[…] float64 in [0, 1]: the chance of a match at each score.

        Args:
            scores: Cosines.
            base_rate: Share of matches among the pairs at hand, where it differs from that of the
                fit.
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
        """JSON values; `Calibration(**values)` after JSON gives the same."""
        return {
            "kind": self.kind,
            "base_rate": self.base_rate,
            "x": list(self.x),
            "y": list(self.y),
        }


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well probabilities agree with what happened, on pairs that neither training nor calibration saw.

    Attributes:
        predicted: [bins] mean probability of each bin; bins hold equally many pairs of equal
            standing.
        observed: [bins] share of matches.
        counts: [bins] pairs.
        expected_calibration_error: Mean distance of the two, weighted by pairs (Naeini et al.
            2015).
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
    """Fits Platt scaling (Platt 1999) or isotonic regression (Zadrozny and Elkan 2002) by scikit-learn.

    Args:
        scores: [n] of pairs, matches and others, of held-out people.
        is_match: [n] bool.
        kind: `platt` for few matches, `isotonic` from about a thousand.

    Raises:
        ConfigurationError: No match, or nothing but matches.
    """
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    values, truth = np.asarray(scores, np.float64).ravel(), np.asarray(is_match, bool).ravel()
    if len(values) != len(truth) or truth.all() or not truth.any():
        raise ConfigurationError(
            "`calibrate` needs scores of matches and of others, one truth each."
        )
    rate = float(truth.mean())
    if kind == "platt":
        scale = max(float(values.std()), 1e-9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            fitted = LogisticRegression(C=1e6).fit((values / scale)[:, None], truth)
        return Calibration(
            "platt", rate, (float(fitted.coef_[0, 0]) / scale, float(fitted.intercept_[0]))
        )
    if kind != "isotonic":
        raise ConfigurationError(f"`calibrate(kind=...)` is 'platt' or 'isotonic', got {kind!r}.")
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(values, truth)
    x, y = curve.X_thresholds_, curve.y_thresholds_
    return Calibration("isotonic", rate, tuple(map(float, x)), tuple(map(float, y)))


def reliability(
    probabilities: Floats, is_match: npt.NDArray[np.bool_], *, bins: int = 10
) -> Reliability:
    """Compares probabilities with outcomes in bins of equally many pairs.

    Args:
        probabilities: [n] in [0, 1].
        is_match: [n] bool.
        bins: Most bins.
    """
    predicted, truth = (
        np.asarray(probabilities, np.float64).ravel(),
        np.asarray(is_match, bool).ravel(),
    )
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    means = np.array([predicted[part].mean() for part in parts])
    shares = np.array([truth[part].mean() for part in parts])
    counts = np.array([len(part) for part in parts])
    error = float(np.average(np.abs(means - shares), weights=counts))
    return Reliability(means, shares, counts, error, float(np.square(predicted - truth).mean()))


def pair_scores(
    e_a: Floats, e_b: Floats | None, matches: Ints
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Scores of all pairs of a set and which are matches: what calibration is fitted on. [pairs] each.

    Args:
        e_a: [N, K] unit length.
        e_b: [M, K]; None for one-sided sets, where every pair of people counts once.
        matches: [P, 2] rows.
    """
    other = e_a if e_b is None else e_b
    scores = e_a @ other.T
    truth = np.zeros(scores.shape, bool)
    truth[matches[:, 0], matches[:, 1]] = True
    if e_b is None:
        truth |= truth.T
        above = np.triu_indices(len(e_a), 1)
        return scores[above], truth[above]
    return scores.ravel(), truth.ravel()

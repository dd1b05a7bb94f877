"""Match probabilities of scores, saved with a matcher, and the market for which they hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pairmatch.core.arrays import Floats
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.diagnostics import Calibration, calibrate, labeled_scores
from pairmatch.evaluation.pooled_ranks import pool_blocks
from pairmatch.gallery import Recommendations
from pairmatch.matcher.reference import Histogram

#: Numbers of candidates within this factor of those of the calibration count as the same market.
SAME_MARKET = 2.0
#: Population stability index from which scores count as distributed differently (Siddiqi 2006).
SHIFT = 0.25
_LEAST_PEOPLE = 20  # query people before their scores are compared


@dataclass(frozen=True, slots=True)
class Probabilities:
    """Maps scores to the probability of a match, as checked on people held out from training.

    The probability is that of a match with a candidate of the market that it was calibrated on:
    among about `candidates` people.

    Attributes:
        calibration: Fitted on the scores of all validation pairs.
        candidates: Mean number of candidates per person in the validation pairs.
        scores: Histogram of the scores of all validation pairs; None if there are few.
    """

    calibration: Calibration
    candidates: int
    scores: Histogram | None

    @classmethod
    def of(cls, data: PairedFeatures, head: ProjectionHead) -> Probabilities | None:
        """Calibrates scores on held-out people; None without both matches and non-matches."""
        if len(data) < 2:
            return None
        scores, truth = labeled_scores(data, head)
        if truth.all() or not truth.any():
            return None
        sizes = [len(block.rows_b) for block in pool_blocks(data)]
        return cls(
            calibrate(scores, truth), round(float(np.mean(sizes))), Histogram.of(scores.tolist())
        )

    def probability(self, scores: Floats | Sequence[float]) -> Floats:
        """Probability of a match at each score: […] float64 in [0, 1]."""
        return self.calibration.probability(scores)

    def caveats(self, candidates: int) -> list[str]:
        """Why probabilities may not hold for a person with a number of eligible candidates."""
        if self.candidates / SAME_MARKET <= candidates <= self.candidates * SAME_MARKET:
            return []
        return [
            f"Probabilities may not hold: they were calibrated among {self.candidates:,} "
            f"candidates, and here are {candidates:,}."
        ]

    def shift(self, counts: Sequence[int], people: int) -> list[str]:
        """Why probabilities may not hold for scores that are distributed differently.

        Args:
            counts: Scores of query people with random candidates, by bin of `scores`.
            people: Number of query people that the scores are of.
        """
        if self.scores is None or people < _LEAST_PEOPLE:
            return []
        now = (np.array(counts, np.float64) + 0.5) / (sum(counts) + 0.5 * len(counts))
        before = np.array(self.scores.counts, np.float64) + 0.5
        before /= before.sum()
        index = float(((now - before) * np.log(now / before)).sum())
        if index < SHIFT:
            return []
        return [
            "Probabilities may not hold: scores are distributed differently from those that were "
            f"calibrated (population stability index {index:.2f})."
        ]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        scores = None if self.scores is None else dataclasses.asdict(self.scores)
        return {**self.calibration.to_dict(), "candidates": self.candidates, "scores": scores}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Probabilities:
        """What `to_json` wrote."""
        calibration = Calibration(
            value["kind"], value["base_rate"], tuple(value["x"]), tuple(value["y"])
        )
        scores = value["scores"]
        if scores is not None:
            scores = Histogram(
                tuple(scores["counts"]), tuple(scores["edges"]), tuple(scores["categories"])
            )
        return cls(calibration, value["candidates"], scores)


def with_probabilities(
    ranking: Recommendations, probabilities: Probabilities | None
) -> Recommendations:
    """Recommendations with the probability of each, and with what may be wrong with them."""
    if probabilities is None:
        return ranking
    values = probabilities.probability([candidate.score for candidate in ranking])
    return Recommendations(
        [
            dataclasses.replace(candidate, probability=float(value))
            for candidate, value in zip(ranking, values, strict=True)
        ],
        ranking.eligible,
        ranking.excluded_by,
        caveats=[*ranking.caveats, *(probabilities.caveats(ranking.eligible) if ranking else ())],
    )

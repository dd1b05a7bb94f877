"""The re-ranker `pairwise`: a conditional logit on what two people have in common and do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pairmatch.core.candidates import CandidatePairs
from pairmatch.core.errors import ConfigurationError, NotFittedError
from pairmatch.core.interfaces import Reranker
from pairmatch.learning.decompositions import Doubles
from pairmatch.learning.margins import LEAST_PENALTY, Margins, fit_weights

_MOST_CHOICES = 4000  # from which weights are learned
_CHUNK_PAIRS = 65_536
_ROUNDING = 1e-6  # spreads of inputs that differ by rounding only


class PairwiseReranker(Reranker):
    """Ranks by the first-stage score, and by products and differences of both people's traits.

    A product of traits rewards people who are alike (or opposite) the more, the more extreme they
    are; an absolute difference rewards nearness wherever people are, which no inner product can
    express. Two more inputs correct for hubs, the candidates who are close to all: the mean and the
    standard deviation of a candidate's similarity to training people of the query's side. They take
    the place of the mean similarity to the nearest of them in CSLS (Conneau et al. 2018, "Word
    Translation Without Parallel Data", equation 2), for which a matcher would have to keep people.

    The weights maximize the likelihood of the partner among the candidates of each list
    (conditional logit, McFadden 1974), shrunk to the order of the first stage, which is never
    reversed: the weight of its score is not negative. A partner is no candidate in the list of
    another partner of the same query.

    Args:
        top: Number of candidates of each query that are ordered again, at least 2.
        traits: Number of traits, the most important first, at least 1; there are at most 32.
        strength: How strongly few lists shrink the weights, above 0; the penalty is this divided by
            the number of choices.
    """

    def __init__(self, *, top: int = 50, traits: int = 16, strength: float = 10.0) -> None:
        if top < 2 or traits < 1 or not 0 < strength < np.inf:
            raise ConfigurationError(
                "`PairwiseReranker(...)`: top must be at least 2, traits at least 1 and "
                f"strength above 0, got {top}, {traits}, {strength}."
            )
        self.top = top
        self.traits = traits
        self.strength = strength
        self._weights: Doubles | None = None

    def fit(self, train: Sequence[CandidatePairs], *, seed: int = 0) -> PairwiseReranker:
        """Learns the weights of all inputs."""
        margins = self.margins(train, np.random.default_rng(seed))
        spreads = _spreads(margins)
        scaled = margins.scaled(spreads)
        first = np.zeros(len(spreads))
        first[:1] = fit_weights(scaled.select([0]), np.zeros(1), LEAST_PENALTY)
        penalty = self.strength / len(margins.present)
        weights = fit_weights(scaled, first, penalty, bounded=1)
        return self._copy(
            np.divide(weights, spreads, out=np.zeros_like(weights), where=spreads > 0)
        )

    def score(self, pairs: CandidatePairs) -> Doubles:
        """The weighted sum of the inputs: a log-odds, up to a constant of each query."""
        if self._weights is None:
            raise NotFittedError("This re-ranker must learn first: call `fit`.")
        parts = [
            self.inputs(pairs, slice(start, start + _CHUNK_PAIRS)) @ self._weights
            for start in range(0, len(pairs), _CHUNK_PAIRS)
        ]
        return np.concatenate([np.empty(0), *parts])

    def inputs(self, pairs: CandidatePairs, part: slice = slice(None)) -> Doubles:
        """[P, 3 + 2 R] inputs of pairs: score, hubness (2), products, absolute differences.

        Args:
            pairs: Pairs of people.
            part: Some of the pairs.
        """
        query, candidate = pairs.rows[part].T
        own = pairs.queries[query, : self.traits]
        other = pairs.candidates[candidate, : self.traits]
        hubness = pairs.hubness[candidate]
        inputs = [pairs.scores[part, None], hubness, own * other, np.abs(own - other)]
        return np.concatenate(inputs, axis=1).astype(np.float64)

    def margins(self, train: Sequence[CandidatePairs], rng: np.random.Generator) -> Margins:
        """Inputs of each candidate minus those of a partner, of at most 4,000 choices.

        A choice is a query and one of its partners; other partners are no candidates.
        """
        choices = [
            (batch, rows, partner)
            for batch in train
            for rows in batch.lists()
            for partner in np.flatnonzero(_partners(batch)[rows]).tolist()
        ]
        if len(choices) > _MOST_CHOICES:
            kept = np.sort(rng.choice(len(choices), _MOST_CHOICES, replace=False))
            choices = [choices[number] for number in kept.tolist()]
        inputs = {id(batch): self.inputs(batch) for batch in train}
        width = max((rows.stop - rows.start for _, rows, _ in choices), default=0)
        count = next(iter(inputs.values())).shape[1]
        values = np.zeros((len(choices), max(width, 1), count))
        present = np.zeros(values.shape[:2], bool)
        for number, (batch, rows, partner) in enumerate(choices):
            of_list = inputs[id(batch)][rows]
            values[number, : len(of_list)] = of_list - of_list[partner]
            present[number, : len(of_list)] = ~_partners(batch)[rows]
        values[~present] = 0
        return Margins(values, present)

    def state(self) -> dict[str, Tensor]:
        """The weights of the inputs; empty before `fit`."""
        return {} if self._weights is None else {"weights": torch.from_numpy(self._weights)}

    def with_state(self, state: Mapping[str, Tensor]) -> PairwiseReranker:
        """A re-ranker with the state of another one."""
        if state.keys() != {"weights"} or state["weights"].ndim != 1:
            raise ConfigurationError(
                "The state does not fit the re-ranker 'pairwise', which has `weights` [F]: "
                f"{ {name: list(value.shape) for name, value in state.items()} }."
            )
        return self._copy(state["weights"].double().numpy().copy())

    def _copy(self, weights: Doubles) -> PairwiseReranker:
        copy = PairwiseReranker(top=self.top, traits=self.traits, strength=self.strength)
        copy._weights = weights
        return copy


def _partners(batch: CandidatePairs) -> np.ndarray:
    if batch.is_partner is None:
        raise ConfigurationError("A re-ranker learns from pairs with `is_partner`.")
    return batch.is_partner


def _spreads(margins: Margins) -> Doubles:
    """[F] standard deviation of each input inside a list, the partner included; 0 if equal."""
    counts = margins.present.sum(1) + 1
    means = margins.values.sum(1) / counts[:, None]
    squares = (margins.values**2).sum((0, 1)) - (counts[:, None] * means**2).sum(0)
    spreads = np.sqrt(np.maximum(squares, 0) / max(counts.sum(), 1))
    return np.where(spreads > _ROUNDING, spreads, 0)

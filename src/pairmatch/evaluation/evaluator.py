"""Measures how well embeddings find true partners, with intervals, chance and frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from pairmatch.core.arrays import Floats, Ints
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.second_stage import SecondStage
from pairmatch.core.types import Target
from pairmatch.evaluation.auc import measure_auc
from pairmatch.evaluation.evaluation import Evaluation
from pairmatch.evaluation.intervals import summarize, summarize_directions
from pairmatch.evaluation.known import Flags, Known, flags_by_side, with_seen
from pairmatch.evaluation.pool_notes import (
    pool_notes,
    usable_gallery,
)
from pairmatch.evaluation.pooled_ranks import rank_all
from pairmatch.evaluation.query_table import (
    check_ks,
    embed_sides,
    tabulate,
    usable_ks,
)
from pairmatch.evaluation.reranked import check_target, rerank_all
from pairmatch.evaluation.targets import DIRECTION_OF, aim_at, of_target


class Evaluator:
    """Recall@K, MRR and median rank in both directions, for any features and head.

    Args:
        ks: K of Recall@K. Default K that are larger than the gallery are left out with a note; an
            explicit K that is larger is an error. With pools, the gallery is the largest pool.
        resamples: Number of bootstrap resamples of the intervals; 0 for no intervals.
        confidence: Confidence level of the intervals, in (0, 1).
        seed: Seed for the bootstrap.

    Raises:
        ConfigurationError: A K is below 1, or an argument is out of range.
    """

    def __init__(
        self,
        *,
        ks: Sequence[int] | None = None,
        resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> None:
        if resamples < 0 or not 0 < confidence < 1:
            raise ConfigurationError(
                "`Evaluator(...)`: resamples must be at least 0 and confidence in (0, 1), got "
                f"{resamples} and {confidence}."
            )
        self.ks = None if ks is None else check_ks(ks)
        self.resamples = resamples
        self.confidence = confidence
        self.seed = seed

    def evaluate(
        self,
        data: PairedFeatures,
        head: ProjectionHead | None = None,
        *,
        known: Known | None = None,
        target: Target = "match",
        second: SecondStage | None = None,
    ) -> Evaluation:
        """Ranks all people of the other side for every person who has a partner, by cosine.

        Args:
            data: Features and matches. People without a match are candidates only.
            head: Projects the features; the table then also shows the features themselves, as
                `frozen`. None evaluates the features.
            known: What was known in training. The figures are then those of matches between new
                people among new people; those of queries of seen people, among everyone but their
                known partners, are in `seen`, and those of matches between a new and a seen person
                in `mixed`. With fewer than two matches of new people, the figures are those of seen
                people, and a note says so.
            target: What is to be found: the match; or for `a_likes`, everyone to whom a person of
                side a said yes, by the score that the head has for it. Where decisions of one side
                or pools are known, the result also has the AUC of yes against no.
            second: Orders the best candidates again; AUC stays that of the first stage.

        Raises:
            ConfigurationError: A requested K is larger than the gallery, no pair has the target, or
                it is not the match and there is a second stage.
        """
        if not isinstance(data, PairedFeatures):
            raise ConfigurationError(
                f"`Evaluator.evaluate` takes `PairedFeatures`, got {type(data).__name__}: build "
                "them with `PairedFeatures.of(a, b)`, or call `evaluate_arrays`."
            )
        check_target(second, target)
        data = aim_at(data, target)
        head = None if head is None else head.for_target(target)
        compare = partial(self._compare, head=head, target=target, second=second)
        if known is None:
            return compare(data)
        seen_units = known.seen_units(data)
        fresh = data.inside(a=~seen_units, b=~seen_units)
        seen = None
        asked = data.unit_pairs(data.matches)
        asked = asked if DIRECTION_OF[target] is None else asked[:, DIRECTION_OF[target]]
        if seen_units[asked].any():
            seen = compare(data, seen_units=seen_units, known=known.matches, only_seen=True)
        mixed = self._mixed(data, head, target, seen_units, known.matches, second)
        if len(fresh) < 2 and seen is not None:
            note = (
                f"Only {len(fresh)} of {len(data)} matches are between two new people: these are "
                "figures of people who were seen in training, which say little about new ones."
            )
            return replace(seen, notes=(*seen.notes, note), mixed=mixed)
        if not len(fresh):
            raise ConfigurationError(
                "`evaluate(known=...)`: no query person was seen in training, and no pair to find "
                "is between two new people: there is nothing to measure."
            )
        return replace(compare(data.take(fresh), seen_units=seen_units), seen=seen, mixed=mixed)

    def evaluate_arrays(
        self,
        embeddings_a: Floats | torch.Tensor,
        embeddings_b: Floats | torch.Tensor | None = None,
        *,
        matches: Ints | Sequence[tuple[int, int]] | None = None,
        frozen_a: Floats | torch.Tensor | None = None,
        frozen_b: Floats | torch.Tensor | None = None,
    ) -> Evaluation:
        """`evaluate` for embeddings in arrays: a wrapper around `PairedFeatures.of`.

        Args:
            embeddings_a: [N, K]; rows are scaled to unit length.
            embeddings_b: [M, K]; None for a one-sided set, in which any person may match any other.
            matches: [P, 2] rows of side a and side b that match (two rows of `embeddings_a` in a
                one-sided set); by default row i matches row i.
            frozen_a: [N, D] features before training, for comparison; optional.
            frozen_b: [M, D] the same for side b.

        Raises:
            ConfigurationError: Shapes do not match, values are not finite, rows do not exist, or a
                requested K is larger than the gallery.
        """
        data = PairedFeatures.of(embeddings_a, embeddings_b, matches=matches, name="embeddings")
        if frozen_a is None:
            return self._measure(data, None, None)
        sizes = [None if side is None else len(side) for side in (frozen_a, frozen_b)]
        if sizes != [len(data.a), None if data.b is None else len(data.b)]:
            raise ConfigurationError(
                "`frozen_a` and `frozen_b` must describe the same people as the embeddings."
            )
        frozen = PairedFeatures.of(frozen_a, frozen_b, matches=data.matches, name="frozen")
        return self._measure(data, None, self._measure(frozen, None, None))

    def _compare(
        self,
        data: PairedFeatures,
        head: ProjectionHead | None,
        target: Target,
        seen_units: Flags | None = None,
        known: Ints | None = None,
        *,
        only_seen: bool = False,
        second: SecondStage | None = None,
    ) -> Evaluation:
        frozen = None
        about = (target, seen_units, known, only_seen)
        if head is not None:
            frozen = self._measure(data, None, None, *about)
        return self._measure(data, head, frozen, *about, second)

    def _mixed(
        self,
        data: PairedFeatures,
        head: ProjectionHead | None,
        target: Target,
        seen_units: Flags,
        known: Ints,
        second: SecondStage | None,
    ) -> dict[str, Evaluation]:
        """Figures of the matches between a new and a seen person, by who of them is new.

        In one-sided sets, a block also holds partners of whom both are new, or both seen: they are
        not to be found there, and no candidates of each other.
        """
        sides = {"new_a": (~seen_units, seen_units), "new_b": (seen_units, ~seen_units)}
        if data.one_sided:
            sides = {"new": sides["new_a"]}
        evaluations = {}
        for name, (a, b) in sides.items():
            part = data.inside(a=a, b=b)
            if len(part) < 2:
                continue
            block = data.take(part)
            others = np.concatenate([known, np.delete(data.matches, part.matches, axis=0)])
            others = _among(others, data.people_of(part))
            usable = usable_gallery(block) - int(np.bincount(others.ravel()).max(initial=0))
            evaluator = Evaluator(
                ks=None if self.ks is None else [k for k in self.ks if k <= usable] or (1,),
                resamples=self.resamples,
                confidence=self.confidence,
                seed=self.seed,
            )
            evaluations[name] = evaluator._compare(
                block, head, target, seen_units, others, second=second
            )
        return evaluations

    def _measure(
        self,
        data: PairedFeatures,
        head: ProjectionHead | None,
        frozen: Evaluation | None,
        target: Target = "match",
        seen_units: Flags | None = None,
        known: Ints | None = None,
        only_seen: bool = False,
        second: SecondStage | None = None,
    ) -> Evaluation:
        """Figures of all queries, or only of those of seen people."""
        vectors = embed_sides(data, head)
        first = of_target(rank_all(data, *vectors, known=known), target)
        ranks = first
        if second is not None:
            ranks = rerank_all(data, vectors, first, second, known=known)
        seen = None if seen_units is None else flags_by_side(data, seen_units)
        if seen is not None and only_seen:
            first, ranks = (
                [part.of_queries(seen[side]) for side, part in enumerate(parts)]
                for parts in (first, ranks)
            )
        smallest = tuple(int(part.candidates.min()) for part in ranks if len(part.queries))
        usable = min(smallest) if data.pools is None else usable_gallery(data)
        ks, notes = usable_ks(self.ks, usable, pooled=data.pools is not None)
        ranked = tabulate(data, ranks, ks, vectors, first)
        table, chance = ranked.table, ranked.chance
        if seen is not None:
            table, chance = (with_seen(part, seen) for part in (table, chance))
        both, *directions = summarize_directions(
            table, resamples=self.resamples, confidence=self.confidence, seed=self.seed
        )
        a_to_b, b_to_a = directions or (None, None)
        auc = measure_auc(
            data,
            vectors,
            target,
            asked=seen if only_seen else None,
            resamples=self.resamples,
            confidence=self.confidence,
            seed=self.seed,
        )
        return Evaluation(
            both=both,
            a_to_b=a_to_b,
            b_to_a=b_to_a,
            chance=summarize(chance, resamples=0),
            frozen=frozen,
            candidates=smallest,
            confidence=self.confidence,
            notes=(*notes, *pool_notes(table), *(table.interval_notes if self.resamples else ())),
            table=table,
            chance_table=chance,
            partner_ranks=ranked.ranks,
            target=target,
            auc=auc,
        )


def _among(pairs: Ints, people: tuple[Ints, Ints]) -> Ints:
    """The pairs whose two people are among some of each side, as positions in these."""
    kept = np.isin(pairs[:, 0], people[0]) & np.isin(pairs[:, 1], people[1])
    columns = [
        np.searchsorted(rows, column) for rows, column in zip(people, pairs[kept].T, strict=True)
    ]
    return np.stack(columns, axis=1).astype(np.int64)

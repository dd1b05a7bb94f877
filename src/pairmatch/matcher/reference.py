"""What training people were like, as histograms: the newest people are compared with them.

Nothing here tells of a person: bins of numbers hold at least 10 people or none, edges are rounded,
and values of attributes that fewer than 20 people have are one category.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import unit_rows
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.types import AttributeValue, Profile
from pairmatch.data import Pairs
from pairmatch.evaluation.evaluator import Evaluation
from pairmatch.evaluation.query_table import embed_sides

Doubles = npt.NDArray[np.float64]

LEAST_PEOPLE = 20
_BINS = 10
_PROJECTIONS = 6
_CATEGORIES = 50
_MISSING = "missing"
_OTHER = "other"


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of a variable among training people.

    Attributes:
        counts: Number of people (or of pairs) by bin: for numbers, those below the first edge, …,
            those from the last edge, and the missing ones; for categories, each of them, all
            others, and the missing ones.
        edges: Edges between the bins of a number, ascending; empty for categories.
        categories: Names of the categories; empty for numbers.
    """

    counts: tuple[int, ...]
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Sequence[AttributeValue | None]) -> Histogram | None:
        """The histogram of some values; None if hardly any two people have the same.

        Args:
            values: One per person; None if it is missing.
        """
        known = [value for value in values if value is not None]
        edges: tuple[float, ...] = ()
        categories: tuple[str, ...] = ()
        if known and all(_is_number(value) for value in known):
            bins = min(_BINS, len(known) // LEAST_PEOPLE)
            shares = np.arange(1, bins) / max(bins, 1)
            quantiles = np.quantile(np.array(known, np.float64), shares).tolist()
            rounded = dict.fromkeys(float(f"{edge:.3g}") for edge in quantiles)
            edges = _without_small_bins(tuple(rounded), np.array(known, np.float64))
        else:
            common = Counter(str(value) for value in known).most_common(_CATEGORIES)
            categories = tuple(name for name, count in common if count >= LEAST_PEOPLE)
        if not edges and not categories:
            return None
        histogram = cls((), edges, categories)
        return cls(histogram.count(values), edges, categories)

    def count(self, values: Sequence[AttributeValue | None]) -> tuple[int, ...]:
        """Number of values in each bin; in a number, text counts as missing."""
        if self.edges:
            known = [float(value) for value in values if value is not None and _is_number(value)]
            bins = np.searchsorted(self.edges, known, side="right")
            counts = np.bincount(bins, minlength=len(self.edges) + 1).tolist()
            return (*counts, len(values) - len(known))
        names = Counter(_MISSING if value is None else str(value) for value in values)
        missing = sum(value is None for value in values)
        listed = [names[name] for name in self.categories]
        return (*listed, len(values) - missing - sum(listed), missing)


@dataclass(frozen=True, slots=True)
class Reference:
    """Histograms of training people, and how well held-out partners were found.

    Attributes:
        variables: Histograms by name, such as `features a 1`, `scores` and `age (b)`.
        auc: Share of the other candidates that rank below a true partner, in [0, 1], on the pairs
            of the latest evaluation; None before one.
        auc_error: Standard error of `auc`.
    """

    variables: Mapping[str, Histogram] = field(default_factory=dict)
    auc: float | None = None
    auc_error: float | None = None

    @classmethod
    def of(
        cls,
        pairs: Pairs,
        data: PairedFeatures,
        head: ProjectionHead,
        *,
        leave_out: Collection[str] = (),
    ) -> Reference:
        """The histograms of pairs.

        Args:
            pairs: Training pairs.
            data: Their features.
            head: Fitted head.
            leave_out: Names of attributes that nothing is kept of, such as protected traits.
        """
        hidden = {f"{name} ({side})" for name in leave_out for side in ("a", "b")}
        histograms = {
            name: Histogram.of(values)
            for name, values in variables_of(pairs, data, head).items()
            if name not in hidden
        }
        return cls({name: one for name, one in histograms.items() if one is not None})

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "variables": {
                name: {
                    "counts": list(one.counts),
                    "edges": list(one.edges),
                    "categories": list(one.categories),
                }
                for name, one in self.variables.items()
            },
            "auc": self.auc,
            "auc_error": self.auc_error,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reference:
        """What `to_json` wrote."""
        variables = {
            name: Histogram(tuple(one["counts"]), tuple(one["edges"]), tuple(one["categories"]))
            for name, one in value["variables"].items()
        }
        return cls(variables, value["auc"], value["auc_error"])


def variables_of(
    pairs: Pairs, data: PairedFeatures, head: ProjectionHead
) -> dict[str, Sequence[AttributeValue | None]]:
    """Values of everything that is watched, by name.

    Features are watched through a few fixed random projections and their length, scores through
    pairs of people drawn at random.
    """
    values: dict[str, Sequence[AttributeValue | None]] = {}
    sides = [("a", pairs.ids_a, data.a)]
    if data.b is not None:
        sides.append(("b", pairs.ids_b, data.b))
    rng = np.random.default_rng(0)
    directions = unit_rows(rng.normal(size=(_PROJECTIONS, data.dim))).T
    for side, ids, features in sides:
        for number, column in enumerate((features @ directions).T, 1):
            values[f"features {number} ({side})"] = column.tolist()
        values[f"length of features ({side})"] = np.linalg.norm(features, axis=1).tolist()
        people = [pairs.profiles[person] for person in ids]
        values |= {f"{name} ({side})": column for name, column in _attributes(people).items()}
    e_a, e_b = embed_sides(data, head)
    drawn = min(len(e_a), len(e_b))  # every person once: the scores are about independent
    rows = rng.permutation(len(e_a))[:drawn], rng.permutation(len(e_b))[:drawn]
    values["scores"] = (e_a[rows[0]] * e_b[rows[1]]).sum(1).tolist()
    # One pair per person: decisions of one person are not independent
    values["outcomes"] = list({pair.a: pair.outcome for pair in pairs.pairs}.values())
    return values


def auc_of(evaluation: Evaluation) -> tuple[float, float] | tuple[None, None]:
    """Share of the other candidates that rank below a true partner, and its standard error.

    The error is over query people; the two directions count as one observation. Both are None if
    no query has other candidates.
    """
    means: list[Doubles] = []
    for ranks in evaluation.partner_ranks:
        others = ranks.candidates - 1
        above = ranks.better + (ranks.tied - 1) / 2
        rows = others > 0
        _, person = np.unique(ranks.queries[rows], return_inverse=True)
        shares = 1 - above[rows] / others[rows]
        means.append(np.bincount(person, shares) / np.bincount(person))
    everyone = np.concatenate(means)
    if not len(everyone):
        return None, None
    independent = max(len(everyone) / len(means), 1)
    return float(everyone.mean()), float(everyone.std() / np.sqrt(independent))


def _without_small_bins(edges: tuple[float, ...], values: Doubles) -> tuple[float, ...]:
    """The edges without those that set a few people apart, after rounding or among equal values."""
    kept: list[float] = []
    passed = 0
    for edge in edges:
        below, above = int((values < edge).sum()), int((values >= edge).sum())
        if all(count == 0 or count >= LEAST_PEOPLE / 2 for count in (below - passed, above)):
            kept.append(edge)
            passed = below
    return tuple(kept)


def _attributes(people: Sequence[Profile]) -> dict[str, list[AttributeValue | None]]:
    names = dict.fromkeys(name for person in people for name in person.attributes)
    return {name: [person.attributes.get(name) for person in people] for name in names}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

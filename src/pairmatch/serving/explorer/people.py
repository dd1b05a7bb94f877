"""People on the pages: the search by the beginning of an id, and what is shown of a person."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pairmatch.core.arrays import Vectors
from pairmatch.core.text import printable
from pairmatch.gallery import Gallery
from pairmatch.serving.explorer.computing import Computed

MOST_SUGGESTED = 20
_SAMPLE = 256
_MOST_ATTRIBUTES = 12
_MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class People:
    """Ids of a gallery in order, and the mean embedding of a sample.

    Attributes:
        ids: Sorted ids.
        mean: [K] mean embedding of people drawn at random; None if there are none.
    """

    ids: list[str]
    mean: Vectors | None

    @classmethod
    def of(cls, gallery: Gallery) -> People:
        """Reads the ids of a gallery."""
        ids = sorted(gallery.ids)
        rows = np.random.default_rng(0).choice(len(ids), min(len(ids), _SAMPLE), replace=False)
        vectors = [vector for _, vector in gallery.entries([ids[row] for row in rows]).values()]
        return cls(ids, np.mean(vectors, axis=0) if vectors else None)

    def beginning_with(self, prefix: str) -> list[str]:
        """At most 20 ids that begin with a prefix, in order."""
        start = bisect_left(self.ids, prefix)
        ids = self.ids[start : start + MOST_SUGGESTED]
        return [person for person in ids if person.startswith(prefix)]


def suggestions(computed: Computed, gallery: Gallery, prefix: str) -> list[str]:
    """At most 20 ids of a gallery that begin with a prefix; new people follow within minutes."""
    people, _ = computed.get(("people", gallery.side), lambda: People.of(gallery))
    found = people.beginning_with(prefix)
    present = gallery.present(found)
    return [person for person in found if person in present]


def mean_embedding(computed: Computed, gallery: Gallery) -> Vectors | None:
    """[K] mean embedding of people of a gallery, drawn at random."""
    return computed.get(("people", gallery.side), lambda: People.of(gallery))[0].mean


@dataclass(frozen=True, slots=True)
class Trait:
    """An attribute of two people.

    Attributes:
        name: Name of the attribute.
        query: Value of the query person; empty if unknown.
        candidate: Value of the candidate; empty if unknown.
        relation: `same`, the difference of numbers, `differs`, or empty if one is unknown.
    """

    name: str
    query: str
    candidate: str
    relation: str


def shown(value: Any) -> str:
    """A value of any origin as short text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    text = printable(text[: _MOST_CHARACTERS + 1])
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def attributes_shown(attributes: Mapping[str, Any]) -> tuple[list[tuple[str, str]], int]:
    """Names and values of the first attributes, and the number of those left out."""
    known = [(shown(name), shown(value)) for name, value in attributes.items() if value is not None]
    return known[:_MOST_ATTRIBUTES], max(len(known) - _MOST_ATTRIBUTES, 0)


def compared(query: Mapping[str, Any], candidate: Mapping[str, Any]) -> Sequence[Trait]:
    """The first attributes of two people side by side, those that both have before others."""
    names = list(dict.fromkeys([*query, *candidate]))
    names.sort(key=lambda name: query.get(name) is None or candidate.get(name) is None)
    return [
        Trait(
            shown(name),
            shown(query.get(name)),
            shown(candidate.get(name)),
            _relation(query.get(name), candidate.get(name)),
        )
        for name in names[:_MOST_ATTRIBUTES]
    ]


def _relation(query: Any, candidate: Any) -> str:
    if query is None or candidate is None:
        return ""
    if query == candidate:
        return "same"
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for value in (query, candidate)
    )
    return f"{candidate - query:+g}".replace("-", "−") if numbers else "differs"

"""Recommendations for several people in one search."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from pairmatch.core.arrays import Floats
from pairmatch.gallery.attributes import Attributes
from pairmatch.gallery.request import SearchRequest, Where
from pairmatch.gallery.results import Recommendation, Recommendations

if TYPE_CHECKING:
    from pairmatch.gallery.gallery import Gallery


def recommend_several(
    gallery: Gallery,
    queries: Floats,
    k: int = 20,
    *,
    where: Where = None,
    asking: Sequence[Attributes] | None = None,
    mutual: bool = False,
    excluded: Sequence[Collection[str]] | None = None,
) -> list[Recommendations]:
    """Finds the best eligible candidates of each query, with their profiles, in one search.

    Candidates, scores and attributes are of one moment, even if people are removed meanwhile.

    Args:
        gallery: Candidates.
        queries: [Q, K] finite.
        k: Maximum number of candidates per query.
        where: Rule for candidates, as in `Gallery.search`.
        asking: Attributes of the query persons, one mapping per query.
        mutual: Whether the rule must also be true with the roles swapped.
        excluded: Ids that are not shown, one collection per query.

    Returns:
        One list of recommendations per query.

    Raises:
        ConfigurationError: As in `Gallery.search`.
    """
    request = SearchRequest.of(
        queries, k, where=where, asking=asking, mutual=mutual, excluded=excluded, bonus=None
    )
    result = gallery._search(dataclasses.replace(request, with_attributes=True))
    return [
        Recommendations(
            [
                Recommendation(rank, gallery._restored(person, result.attributes[person]), score)
                for rank, (person, score) in enumerate(result.candidates(row), 1)
            ],
            int(result.eligible[row]),
            result.excluded_by[row],
        )
        for row in range(len(request.queries))
    ]

"""Rules applied to people who are in no gallery."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pairmatch.core.types import Profile
from pairmatch.gallery.attributes import Attributes
from pairmatch.gallery.blocks import Block
from pairmatch.gallery.index import Additions
from pairmatch.gallery.ranking import first_empty, select
from pairmatch.gallery.request import SearchRequest, Where


def eligible(
    people: Sequence[Profile], where: Where, *, asking: Attributes, mutual: bool = False
) -> tuple[list[Profile], str | None]:
    """Applies a rule to profiles before they are embedded.

    Args:
        people: Candidates with distinct ids.
        where: Rule for candidates, as in `Gallery.search`.
        asking: Attributes of the query person.
        mutual: Whether the rule must also be true with the roles swapped.

    Returns:
        The eligible candidates, and if there are none, the filter that removed the last one.

    Raises:
        ConfigurationError: The rule cannot be used, or an id occurs twice.
    """
    no_vectors = np.zeros((len(people), 1), np.float32)
    additions = Additions.of(people, no_vectors)
    additions, kinds = additions.fitted(None, {})
    blocks = []
    if additions.ids:
        blocks = [Block.from_people(additions.ids, additions.attributes, no_vectors)]
    request = SearchRequest.of(
        np.zeros((1, 1), np.float32),
        1,
        where=where,
        asking=[asking],
        mutual=mutual,
        excluded=None,
        bonus=None,
    )
    request = request.fitted(None, kinds, is_new=not blocks)
    selection = select(blocks, request.rule, request.groups[0].person, mutual=mutual)
    rows = selection.rows
    excluded_by = None if len(rows) else first_empty(request.filters, selection.remaining)
    return [people[row] for row in rows], excluded_by

"""Ranks the candidates of a gallery for one person."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.types import Profile
from pairmatch.gallery import Exclusions, Gallery, Recommendation, Recommendations, eligible

if TYPE_CHECKING:
    from pairmatch.matcher.matcher import Matcher


def recommend(
    matcher: Matcher,
    profile: Profile,
    gallery: Gallery | Sequence[Profile],
    k: int,
    *,
    where: str | Iterable[str] | None,
    mutual: bool,
    exclude: Exclusions | Iterable[str],
) -> Recommendations:
    """See `Matcher.recommend`."""
    if k < 1:
        raise ConfigurationError(f"`recommend(k=...)` must be at least 1, got {k}.")
    others = exclude.of(profile.id) if isinstance(exclude, Exclusions) else exclude
    hidden = {profile.id, *others}
    if isinstance(gallery, Gallery):
        pool = gallery
    else:  # candidates who could not be shown are not embedded
        people, excluded_by = eligible(
            list(gallery), where, asking=profile.attributes, mutual=mutual
        )
        shown = [candidate for candidate in people if candidate.id not in hidden]
        if not shown:
            return Recommendations([], 0, excluded_by or "exclusions")
        pool = matcher.gallery(shown)
        where = None
        mutual = False
    check_gallery(pool, matcher.head)
    query = matcher.embed([profile], side="a" if pool.side == "b" else "b")
    result = pool.search(
        query, k, where=where, asking=[profile.attributes], mutual=mutual, excluded=[hidden]
    )
    scores = dict(result.candidates(0))
    profiles = pool.profiles(list(scores))
    candidates = [
        Recommendation(rank, candidate, scores[candidate.id])
        for rank, candidate in enumerate(profiles, 1)
    ]
    return Recommendations(candidates, int(result.eligible[0]), result.excluded_by[0])


def check_gallery(gallery: Gallery, head: ProjectionHead | None) -> None:
    """Raises ConfigurationError if a gallery was embedded with another head."""
    digest = head_digest(head)
    if gallery.made_by and digest and gallery.made_by != digest:
        raise ConfigurationError(
            "This gallery was embedded by a matcher with another head, so its scores would mean "
            "nothing: build it again with this matcher."
        )


def head_digest(head: ProjectionHead | None) -> str | None:
    """SHA-256 (hex) of a head's weights; None without a head or weights."""
    state = {} if head is None else head.state_dict()
    if not state:
        return None
    digest = hashlib.sha256()
    for name, weight in sorted(state.items()):
        digest.update(name.encode() + weight.detach().cpu().numpy().tobytes())
    return digest.hexdigest()

"""Ranks the candidates of a gallery for one person."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.text import all_spellings, matching
from pairmatch.core.types import Profile
from pairmatch.gallery import Exclusions, Gallery, Recommendations, eligible
from pairmatch.gallery.exclusions import hidden_from
from pairmatch.gallery.request import Where
from pairmatch.io.adapters import Adapter
from pairmatch.io.store import content_key
from pairmatch.matcher.pipeline import FeaturePipeline


def hidden_ids(
    profile: Profile, exclude: Exclusions | Iterable[str], candidates: Gallery | Sequence[Profile]
) -> set[str]:
    """Ids that are not shown to a person, the person's own among them.

    Raises:
        ConfigurationError: The exclusions match no candidate at all.
    """

    def present(ids: Collection[str]) -> set[str]:
        if isinstance(candidates, Gallery):
            return candidates.present(ids)
        return matching(ids, {candidate.id for candidate in candidates})

    hidden = hidden_from(profile.id, exclude, present, "among the candidates")
    return set(all_spellings([profile.id, *hidden]))


def shown_candidates(
    candidates: Sequence[Profile],
    profile: Profile,
    *,
    where: Where,
    mutual: bool,
    hidden: Collection[str],
) -> tuple[list[Profile], str | None]:
    """Candidates that a person may be shown, so that no others are embedded.

    Returns:
        The candidates, and the filter that removed the last one if none is left.
    """
    people, excluded_by = eligible(candidates, where, asking=profile.attributes, mutual=mutual)
    shown = [candidate for candidate in people if candidate.id not in hidden]
    return shown, None if shown else excluded_by or "exclusions"


def rank_candidates(
    gallery: Gallery,
    query: Vectors,
    profile: Profile,
    k: int,
    *,
    where: Where,
    mutual: bool,
    hidden: Collection[str],
) -> Recommendations:
    """The best candidates of a gallery for one person.

    Args:
        gallery: Candidates.
        query: [1, K] embedding of the person.
        profile: The person.
        k: Maximum number of candidates.
        where: Rule for candidates.
        mutual: Whether the rule must also hold with the roles swapped.
        hidden: Ids that are not shown.
    """
    return gallery.recommend(
        query, k, where=where, asking=profile.attributes, mutual=mutual, excluded=hidden
    )


def check_gallery(gallery: Gallery, digest: str) -> None:
    """Raises ConfigurationError if a gallery was embedded by another matcher.

    Args:
        gallery: The gallery; one that does not know who embedded it is accepted.
        digest: The `embedding_digest` of the matcher.
    """
    if gallery.made_by and gallery.made_by != digest:
        raise ConfigurationError(
            "This gallery was embedded by a matcher with another head or other backbones, so its "
            "scores would mean nothing: build it again with this matcher."
        )


def embedding_digest(
    head: ProjectionHead | None, pipeline: FeaturePipeline, adapters: Sequence[Adapter]
) -> str:
    """Implementation of `Matcher.embedding_digest`."""
    digest = head_digest(head)
    if digest is None:
        return pipeline.digest()
    if not adapters:
        return digest
    return content_key({"head": digest, "adapters": [adapter.digest for adapter in adapters]})


def head_digest(head: ProjectionHead | None) -> str | None:
    """SHA-256 (hex) of a head's weights; None without a head or weights."""
    state = {} if head is None else head.state_dict()
    if not state:
        return None
    digest = hashlib.sha256()
    for name, weight in sorted(state.items()):
        digest.update(name.encode() + weight.detach().cpu().numpy().tobytes())
    return digest.hexdigest()

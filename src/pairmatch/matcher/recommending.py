"""Ranks the candidates of a gallery for one person."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.second_stage import SecondStage
from pairmatch.core.text import all_spellings, matching, printable
from pairmatch.core.types import Profile
from pairmatch.gallery import Exclusions, Gallery, Recommendations, eligible
from pairmatch.gallery.exclusions import hidden_from
from pairmatch.gallery.request import Where
from pairmatch.io.adapters import Adapter
from pairmatch.io.store import content_key
from pairmatch.learning.reranking import reranker_name
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


def search_size(k: int, second: SecondStage | None) -> int:
    """Number of candidates to search for k recommendations."""
    return k if second is None else max(k, second.top)


def rerank(
    ranking: Recommendations,
    gallery: Gallery,
    query: Vectors,
    profile: Profile,
    k: int,
    second: SecondStage | None,
) -> Recommendations:
    """The first k recommendations after a re-ranker has ordered the best of them.

    Args:
        ranking: At least `search_size` candidates, if there are as many.
        gallery: Gallery that they come from.
        query: [K] embedding of the person.
        profile: The person.
        k: Maximum number of candidates.
        second: Second stage; None for the order of the first stage.

    Raises:
        ConfigurationError: The re-ranker needs profiles, and the gallery holds only embeddings.
    """
    if second is None:
        return ranking
    chosen = ranking[: second.top]
    entries = gallery.entries([one.profile.id for one in chosen])
    chosen = [one for one in chosen if one.profile.id in entries]  # others have been removed
    if not chosen:
        return Recommendations([], ranking.eligible, ranking.excluded_by)
    profiles = [one.profile for one in chosen]
    pairs = second.pairs(
        "a" if gallery.side == "b" else "b",
        np.asarray(query, np.float32).reshape(1, -1),
        np.stack([entries[one.id][1] for one in profiles]).astype(np.float32),
        np.stack([np.zeros(len(chosen), np.int64), np.arange(len(chosen))], axis=1),
        np.array([one.score for one in chosen], np.float32),
    )
    if second.needs_profiles:
        _check_profiles(profiles, second)
        pairs = dataclasses.replace(pairs, query_profiles=[profile], candidate_profiles=profiles)
    scores = second.score(pairs)
    ordered = [
        dataclasses.replace(chosen[row], rerank_score=float(scores[row]))
        for row in np.argsort(-scores, kind="stable").tolist()
    ]
    ordered += ranking[second.top :]
    order = (
        f"The re-ranker {reranker_name(second.reranker)} orders the best {second.top} candidates: "
        "scores and probabilities are those of the first stage, and need not descend."
    )
    return Recommendations(
        [dataclasses.replace(one, rank=rank) for rank, one in enumerate(ordered[:k], 1)],
        ranking.eligible,
        ranking.excluded_by,
        caveats=[*ranking.caveats, order],
    )


def stage_notes(fitted: SecondStage | None, used: SecondStage | None) -> list[str]:
    """What an evaluation says about the second stage of a matcher; nothing without one."""
    if fitted is None:
        return []
    name = reranker_name(fitted.reranker)
    if used is None:
        return [f"Figures of the first stage: the re-ranker {name} orders candidates by the match."]
    return [
        f"The re-ranker {name} orders the best {fitted.top} candidates of each query; AUC and "
        "calibration are those of the first stage."
    ]


def check_served(second: SecondStage | None) -> None:
    """Raises ConfigurationError if a re-ranker reads what stored galleries do not hold."""
    if second is not None and second.needs_profiles:
        raise ConfigurationError(
            f"The re-ranker {reranker_name(second.reranker)} reads profiles, and the galleries of "
            "a service hold only embeddings and attributes: serve a matcher that was fitted "
            "without it, or call `Matcher.recommend` with profiles."
        )


def _check_profiles(profiles: Sequence[Profile], second: SecondStage) -> None:
    bare = [one.id for one in profiles if not one.images and not one.text and one.metadata is None]
    if bare:
        shown = ", ".join(map(printable, bare[:3]))
        raise ConfigurationError(
            f"The re-ranker {reranker_name(second.reranker)} reads profiles, and {len(bare)} "
            f"candidates have neither photo nor text: {shown}{', …' * (len(bare) > 3)}. Stored "
            "galleries hold only embeddings and attributes: pass the candidates as profiles, or a "
            "gallery that `Matcher.gallery` made in this process."
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

"""Ranks the candidates of a gallery for one person."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.second_stage import SecondStage
from pairmatch.core.text import all_spellings, matching, printable
from pairmatch.core.types import Profile
from pairmatch.gallery import Exclusions, Gallery, Recommendation, Recommendations, eligible
from pairmatch.gallery.exclusions import hidden_from
from pairmatch.gallery.memory import MemoryGallery
from pairmatch.gallery.request import Where
from pairmatch.io.adapters import Adapter
from pairmatch.io.store import content_key
from pairmatch.learning.reranking import reranker_name
from pairmatch.matcher.pipeline import FeaturePipeline

_SEARCHES = 5  # while candidates are removed at the same time


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


def rank_in_stages(
    search: Callable[[int], Recommendations],
    gallery: Gallery,
    query: Vectors,
    profile: Profile,
    k: int,
    second: SecondStage | None,
) -> Recommendations:
    """The first k recommendations, the best of them in the order of a re-ranker.

    Candidates that are removed between the search and the re-ranker make room for the next ones.

    Args:
        search: Finds this number of candidates by the first stage.
        gallery: Gallery that they come from.
        query: [K] or [1, K] embedding of the person.
        profile: The person.
        k: Maximum number of candidates.
        second: Second stage; None for the order of the first stage.

    Raises:
        ConfigurationError: The re-ranker needs profiles, and the gallery holds only embeddings.
    """
    if second is None:
        return search(k)
    for _ in range(_SEARCHES):
        ranking = search(max(k, second.top))
        chosen = ranking[: second.top]
        entries = gallery.entries([one.profile.id for one in chosen])
        if all(one.profile.id in entries for one in chosen):
            break
    chosen = [one for one in chosen if one.profile.id in entries]
    ordered: list[Recommendation] = []
    caveats = list(ranking.caveats)
    if chosen:
        vectors = np.stack([entries[one.profile.id][1] for one in chosen]).astype(np.float32)
        ordered = _in_order(chosen, vectors, gallery, query, profile, second)
        caveats.append(
            f"The re-ranker {reranker_name(second.reranker)} orders the best {second.top} "
            "candidates: scores and probabilities are those of the first stage, and need not "
            "descend."
        )
    ordered += ranking[second.top :]
    return Recommendations(
        [dataclasses.replace(one, rank=rank) for rank, one in enumerate(ordered[:k], 1)],
        ranking.eligible,
        ranking.excluded_by,
        caveats=caveats,
    )


def _in_order(
    chosen: Sequence[Recommendation],
    vectors: Vectors,
    gallery: Gallery,
    query: Vectors,
    profile: Profile,
    second: SecondStage,
) -> list[Recommendation]:
    """Candidates in the order of a re-ranker; equal scores stay in that of the first stage."""
    profiles = [one.profile for one in chosen]
    pairs = second.pairs(
        "a" if gallery.side == "b" else "b",
        np.asarray(query, np.float32).reshape(1, -1),
        vectors,
        np.stack([np.zeros(len(chosen), np.int64), np.arange(len(chosen))], axis=1),
        np.array([one.score for one in chosen], np.float32),
    )
    if second.needs_profiles:
        _check_profiles(profiles, gallery, second)
        pairs = dataclasses.replace(pairs, query_profiles=[profile], candidate_profiles=profiles)
    scores = second.score(pairs)
    return [
        dataclasses.replace(chosen[row], rerank_score=float(scores[row]))
        for row in np.argsort(-scores, kind="stable").tolist()
    ]


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


def _check_profiles(profiles: Sequence[Profile], gallery: Gallery, second: SecondStage) -> None:
    """Raises ConfigurationError if a gallery holds candidates without what they consist of."""
    whole = isinstance(gallery, MemoryGallery)  # unless it was made from ids alone
    bare = [
        one.id
        for one in profiles
        if not (one.images or one.text or one.metadata is not None or (whole and one.attributes))
    ]
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

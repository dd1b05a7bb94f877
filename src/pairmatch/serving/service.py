"""What a service does, without HTTP: one matcher, and galleries that several workers share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.text import all_spellings, printable
from pairmatch.core.types import Profile, Side
from pairmatch.gallery import Erased as ErasedPeople
from pairmatch.gallery import (
    ExclusionFile,
    Gallery,
    Recommendations,
    forget,
    recommend_several,
)
from pairmatch.io.images import ImageSource
from pairmatch.io.store import QUERY_ID, store_path
from pairmatch.matcher.matcher import Matcher
from pairmatch.matcher.probabilities import with_probabilities
from pairmatch.matcher.recommending import check_gallery, check_served, rank_in_stages
from pairmatch.rules import parse_rule
from pairmatch.serving import messages
from pairmatch.serving.batching import Batcher
from pairmatch.serving.drift import score_caveats
from pairmatch.serving.problems import ProblemError
from pairmatch.serving.settings import ServiceSettings

_OTHER: Mapping[Side, Side] = {"a": "b", "b": "a"}


@dataclass(frozen=True, slots=True, eq=False)
class _Query:
    """A search for one person."""

    side: Side  # of the candidates
    vector: Vectors
    attributes: Mapping[str, Any]
    k: int
    where: tuple[str, ...]
    mutual: bool
    hidden: frozenset[str]


def open_galleries(folders: Mapping[str, Path], matcher: Matcher) -> dict[Side, Gallery]:
    """The galleries of a service by side, after a check that the matcher embedded them.

    Args:
        folders: Folder of the gallery of each side.
        matcher: The matcher.

    Raises:
        StoreError: A folder holds no gallery.
        ConfigurationError: A gallery is of another matcher or another side, or there is none.
    """
    galleries: dict[Side, Gallery] = {}
    for side, folder in folders.items():
        gallery = Gallery.open(folder)
        check_gallery(gallery, matcher.embedding_digest())
        if gallery.side != side:
            raise ConfigurationError(
                f"The gallery {printable(str(folder))} holds people of side {gallery.side}: write "
                f"--gallery {gallery.side}=…"
            )
        galleries[gallery.side] = gallery
    if not galleries:
        raise ConfigurationError("A service needs at least one gallery: --gallery b=FOLDER.")
    if matcher.sides == 1 and len(galleries) > 1:
        raise ConfigurationError(
            "This matcher was trained on pairs with sides=1: any two people may match, so they "
            "are in one gallery."
        )
    return galleries


class Service:
    """Answers requests; any number of threads may call it at once.

    Args:
        settings: What the service was started with.
        matcher: Fitted matcher; by default loaded from the settings.
    """

    def __init__(self, settings: ServiceSettings, matcher: Matcher | None = None) -> None:
        self.settings = settings
        self.matcher = matcher or Matcher.load(settings.matcher, **settings.options)
        check_served(self.matcher.second)
        self.galleries = open_galleries(settings.galleries, self.matcher)
        self.exclusions = (
            None if settings.exclusions is None else ExclusionFile(settings.exclusions)
        )
        pair: dict[Side, Gallery] = dict(self.galleries)
        if self.matcher.sides == 1:
            pair = dict.fromkeys(("a", "b"), next(iter(pair.values())))
        self._caveats = score_caveats(pair, self.matcher.probabilities)
        self._embedder = Batcher(self._embed_together, most=16, name="pairmatch-embed")
        self._searcher = Batcher(
            self._search_together,
            key=lambda query: (query.side, query.where, query.mutual),
            most=64,
            name="pairmatch-search",
        )
        self._eraser = Batcher(self._erase_together, most=1000, name="pairmatch-erase")

    def recommend(
        self,
        request: messages.Recommend,
        photos: Sequence[ImageSource] = (),
        *,
        reranked: bool = True,
    ) -> Recommendations:
        """The best candidates for a person of a gallery, or for a new person.

        Raises:
            ProblemError: The person is in no gallery, or the side is not clear.
            PairmatchError: The rule or the person cannot be used.
        """
        parse_rule(request.where)
        if request.person is not None:
            side = self._query_side(request.person.side)
            profile = _profile(request.person, photos)
            vector, attributes = self._vector(profile, side), dict(profile.attributes)
        else:
            person = str(request.id)
            side, attributes, vector = self.stored(person, request.side)
            profile = Profile(person)
        target = self.candidates_of(side)
        named = [] if profile.id == QUERY_ID else [profile.id]
        blocked = self.exclusions.of(profile.id) if self.exclusions and named else ()
        second = self.matcher.second if reranked else None
        query = _Query(
            target,
            vector,
            attributes,
            request.k,
            tuple(request.where),
            request.mutual,
            frozenset(all_spellings([*named, *blocked, *request.exclude])),
        )

        def search(k: int) -> Recommendations:
            return self._searcher.do(dataclasses.replace(query, k=k))

        ranking = rank_in_stages(search, self.galleries[target], vector, profile, request.k, second)
        ranking = with_probabilities(ranking, self.matcher.probabilities)
        ranking.caveats += tuple(self._caveats) if ranking else ()
        return ranking

    def embed(
        self, person: messages.Person, photos: Sequence[ImageSource] = ()
    ) -> tuple[Side, Vectors]:
        """Side and embedding [K] of a new person."""
        side = self._query_side(person.side)
        return side, self._vector(_profile(person, photos), side)

    def put(
        self, person: str, request: messages.Put, photos: Sequence[ImageSource] = ()
    ) -> tuple[Side, bool]:
        """Adds a person to the gallery of their side; returns it, and whether they were there."""
        if request.side is not None and request.side not in self.galleries:
            raise ProblemError(
                "no-gallery", 409, f"The service has no gallery of side {request.side}."
            )
        side = request.side or self._only_gallery_of(person)
        gallery = self.galleries[side]
        profile = Profile(person, tuple(photos), request.text, _known(request.attributes))
        vector = self._vector(profile, side)
        replaced = person in gallery
        gallery.add([Profile(person, attributes=profile.attributes)], vector[None])
        return side, replaced

    def erase(self, person: str) -> ErasedPeople:
        """Erases a person from galleries, exclusions and the store; no file keeps a trace.

        Raises:
            ProblemError: The person is nowhere.
        """
        erased = self._eraser.do(person)
        if person in erased.unknown:
            raise _unknown(person)
        return erased

    def remove(self, person: str) -> None:
        """Removes a person from all galleries; `erase` also erases them from files.

        Raises:
            ProblemError: The person is in no gallery.
        """
        if not sum(gallery.remove([person]) for gallery in self.galleries.values()):
            raise _unknown(person)

    def exclude(self, request: messages.ExclusionPairs) -> int:
        """Adds exclusions; returns the number of new pairs."""
        pairs = [(pair.id, pair.other) for pair in request.pairs]
        return self._exclusion_file.add(pairs, symmetric=request.symmetric)

    def readmit(self, request: messages.ExclusionPairs) -> int:
        """Takes exclusions back; returns the number of pairs that there were."""
        pairs = [(pair.id, pair.other) for pair in request.pairs]
        return self._exclusion_file.remove(pairs, symmetric=request.symmetric)

    @property
    def _exclusion_file(self) -> ExclusionFile:
        if self.exclusions is None:
            raise ProblemError(
                "not-offered", 409, "The service was started without --exclusions FILE."
            )
        return self.exclusions

    def people(self) -> dict[Side, int]:
        """Number of people in each gallery; also reads what other workers changed."""
        return {side: len(gallery) for side, gallery in self.galleries.items()}

    def close(self) -> None:
        """Finishes what was begun."""
        for batcher in (self._embedder, self._searcher, self._eraser):
            batcher.close()
        if self.exclusions is not None:
            self.exclusions.close()

    def _embed_together(self, jobs: Sequence[tuple[Profile, Side]]) -> list[Vectors]:
        features = self.matcher.pipeline.fresh_features([profile for profile, _ in jobs])
        head = self.matcher.fitted_head
        vectors = np.empty((len(jobs), head.width), np.float32)
        for side in ("a", "b"):
            rows = [row for row, job in enumerate(jobs) if job[1] == side]
            if rows:
                vectors[rows] = head.embed(features[rows], "a" if side == "a" else "b")
        return list(vectors)

    def _search_together(self, queries: Sequence[_Query]) -> list[Recommendations]:
        first = queries[0]
        found = recommend_several(
            self.galleries[first.side],
            np.stack([query.vector for query in queries]),
            max(query.k for query in queries),
            where=first.where or None,
            asking=[query.attributes for query in queries],
            mutual=first.mutual,
            excluded=[query.hidden for query in queries],
        )
        return [
            Recommendations(ranking[: query.k], ranking.eligible, ranking.excluded_by)
            for query, ranking in zip(queries, found, strict=True)
        ]

    def _erase_together(self, people: Sequence[str]) -> list[ErasedPeople]:
        path = store_path(self.settings.store)
        files = [] if self.settings.exclusions is None else [self.settings.exclusions]
        erased = forget(
            list(dict.fromkeys(people)),
            store=path if path.exists() else None,
            galleries=list(self.settings.galleries.values()),
            exclusions=files,
        )
        self.people()  # drops what this worker remembers of the files before
        return [erased] * len(people)

    def _vector(self, profile: Profile, side: Side) -> Vectors:
        """[K] embedding of a new person."""
        (annotated,) = self.matcher.annotate([profile])
        return self._embedder.do((annotated, side))

    def stored(self, person: str, side: Side | None = None) -> tuple[Side, dict[str, Any], Vectors]:
        """Side, attributes and embedding [K] of a query person of a gallery.

        Args:
            person: Id of the person.
            side: Side of the person, if both galleries have the id.

        Raises:
            ProblemError: The person is in no gallery, the side is not clear, or the matcher embeds
                query people differently.
        """
        side = self._side_of(person, side)
        if self.matcher.sides == 1 and not self.matcher.fitted_head.treats_sides_alike:
            raise ProblemError(
                "not-offered",
                409,
                "This matcher embeds a person differently as query and as candidate: send the "
                "photos, text and attributes of the person instead of the id.",
            )
        entries = self.galleries[side].entries([person])
        if person not in entries:
            raise _unknown(person)
        return side, *entries[person]

    def _side_of(self, person: str, side: Side | None) -> Side:
        """The side of a person in a gallery."""
        sides = [one for one in self.galleries if side in (None, one)]
        found = [one for one in sides if person in self.galleries[one]]
        if not found:
            raise _unknown(person)
        if len(found) > 1:
            raise ProblemError(
                "which-side", 422, "Both galleries have this id: name the side of the person."
            )
        return found[0]

    def _query_side(self, side: Side | None) -> Side:
        """The side of a new person, who is looked at by candidates of the other side."""
        if side is not None:
            return side
        sides = [_OTHER[one] for one in self.galleries]
        if len(sides) > 1:
            raise ProblemError("which-side", 422, "Name the side of the person: a or b.")
        return sides[0]

    def _only_gallery_of(self, person: str) -> Side:
        """The gallery that an addition without a side is for."""
        sides = [side for side, gallery in self.galleries.items() if person in gallery]
        sides = sides or list(self.galleries)
        if len(sides) > 1:
            raise ProblemError("which-side", 422, "Name the side of the person: a or b.")
        return sides[0]

    def candidates_of(self, side: Side) -> Side:
        """The side of the candidates for a person of a side."""
        if self.matcher.sides == 1:
            return next(iter(self.galleries))
        other = _OTHER[side]
        if other not in self.galleries:
            raise ProblemError(
                "no-gallery", 409, f"The service has no gallery of side {other} to choose from."
            )
        return other


def _profile(person: messages.Person, photos: Sequence[ImageSource]) -> Profile:
    if not (photos or person.text or person.attributes):
        raise DataError("The query person needs a photo, a text or attributes.")
    return Profile(person.id or QUERY_ID, tuple(photos), person.text, _known(person.attributes))


def _known(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _unknown(person: str) -> ProblemError:
    return ProblemError(
        "unknown-person", 404, f"No gallery has the id {printable(person)[:200]!r}."
    )

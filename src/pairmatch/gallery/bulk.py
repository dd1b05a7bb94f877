"""Slates for all people of two galleries, streamed to Parquet files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np
import pyarrow as pa
from typing_extensions import Unpack

from pairmatch.core.arrays import Floats, check_count
from pairmatch.core.progress import track
from pairmatch.core.types import Side
from pairmatch.gallery.blocks import Chunk
from pairmatch.gallery.exclusions import Exclusions
from pairmatch.gallery.gallery import Gallery
from pairmatch.gallery.request import SearchRequest, Where
from pairmatch.gallery.results import SearchResult
from pairmatch.gallery.slates import (
    SCHEMA,
    Slates,
    check_slates_folder,
    claim_slates,
    read_slates,
    write_slates,
)

_PEOPLE = 1024  # people per file


class SlateOptions(TypedDict, total=False):
    """Optional arguments of `recommend_all`.

    Attributes:
        where: Rule for candidates, as in `Gallery.search`; `query.…` is the person whose slate it
            is, on either side.
        mutual: Whether the rule must also be true with the roles swapped.
        exclude: Pairs that are not shown.
        bonus_a: [N] added to the scores of people of side a as candidates, for example by
            `balance`.
        bonus_b: [M] the same for side b.
        progress: Whether to show a progress bar.
        engine: Where candidates are searched, such as `RayEngine`; None for this process.
    """

    where: Where
    mutual: bool
    exclude: Exclusions | None
    bonus_a: Floats | None
    bonus_b: Floats | None
    progress: bool
    engine: SearchEngine | None


class SearchEngine(Protocol):
    """Searches candidates for many people elsewhere than in this process."""

    def search_all(
        self,
        candidates: Gallery,
        chunks: Sequence[Chunk],
        request: Callable[[Chunk], SearchRequest],
        bonus: Floats | None,
    ) -> Iterator[tuple[int, SearchResult]]:
        """Yields the number and the result of every chunk of people once, in any order.

        Args:
            candidates: Candidates.
            chunks: People.
            request: What to search for a chunk, without the bonus.
            bonus: [N] added to the scores of the candidates.
        """
        ...


def recommend_all(
    people_a: Gallery,
    people_b: Gallery | None,
    folder: str | Path,
    k: int = 20,
    **options: Unpack[SlateOptions],
) -> Slates:
    """Writes the best candidates of each person in both directions, one file per 1,024 people.

    A run that was killed resumes after the last complete file. A folder with slates of other people
    or settings is refused.

    Args:
        people_a: People of side a.
        people_b: People of side b; None if all people of `people_a` may match each other.
        folder: Folder, created if it is missing; private to its owner.
        k: Maximum number of candidates per person, at least 1.
        options: Optional arguments, as in `SlateOptions`: `where`, `mutual`, `exclude`, `bonus_a`,
            `bonus_b`, `progress`, `engine`.

    Raises:
        ConfigurationError: The folder holds slates of other people or settings, or files that
            pairmatch did not write; or a rule cannot be used.
        DataError: A file in the folder is damaged.
    """
    unknown = [name for name in options if name not in SlateOptions.__annotations__]
    if unknown:
        raise TypeError(f"recommend_all() got an unexpected keyword argument {unknown[0]!r}")
    k = check_count("recommend_all(k=...)", k)
    where = options.get("where")
    rules = [where] if isinstance(where, str) else list(where or ())
    mutual = options.get("mutual", False)
    exclude = options.get("exclude")
    bonus_a = options.get("bonus_a")
    bonus_b = options.get("bonus_b")
    target = Path(folder)
    check_slates_folder(target)
    if exclude is not None:
        sides = [people_a] if people_b is None else [people_a, people_b]
        exclude.check(
            lambda ids: {person for side in sides for person in side.present(ids)},
            "in the galleries",
        )
    settings: dict[str, Any] = {
        "k": k,
        "where": rules,
        "mutual": mutual,
        "exclusions": None if exclude is None else exclude.digest(),
        "sides": 1 if people_b is None else 2,
        "people_a": _digest(people_a, bonus_a),
        "people_b": None if people_b is None else _digest(people_b, bonus_b),
    }
    claim_slates(target, settings)
    search = _Search(k, rules, mutual, exclude)
    for direction in _directions(people_a, people_b, bonus_a, bonus_b):
        direction.write(target, search, options.get("engine"), shown=options.get("progress", False))
    return Slates(target)


@dataclass(frozen=True, slots=True)
class _Search:
    """What is searched for every person.

    Attributes:
        k: Number of candidates.
        rules: Rules for candidates.
        mutual: Whether they must also be true with the roles swapped.
        exclude: Pairs that are not shown.
    """

    k: int
    rules: list[str]
    mutual: bool
    exclude: Exclusions | None

    def request(self, chunk: Chunk, bonus: Floats | None = None) -> SearchRequest:
        """The request of a chunk of people."""
        ids, attributes, vectors = chunk
        exclude = self.exclude
        return SearchRequest.of(
            vectors,
            self.k,
            where=self.rules or None,
            asking=attributes,
            mutual=self.mutual,
            excluded=[{person, *(exclude.of(person) if exclude else ())} for person in ids],
            bonus=bonus,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Direction:
    """People of one side and the candidates that they are shown."""

    side: Side
    people: Gallery
    candidates: Gallery
    bonus: Floats | None

    def write(
        self, folder: Path, search: _Search, engine: SearchEngine | None, *, shown: bool
    ) -> None:
        """Writes the files that are not there yet."""
        waiting = self._waiting(folder, shown=shown and engine is None)
        if engine is None:
            for file, chunk in waiting:
                result = self.candidates._search(search.request(chunk, self.bonus))
                write_slates(file, _rows(chunk[0], result))
            return
        todo = list(waiting)
        chunks = [chunk for _, chunk in todo]
        results = engine.search_all(self.candidates, chunks, search.request, self.bonus)
        title = f"Slates of side {self.side}"
        for number, result in track(results, title, len(todo), shown=shown):
            file, (ids, _, _) = todo[number]
            write_slates(file, _rows(ids, result))

    def _waiting(self, folder: Path, *, shown: bool) -> Iterator[tuple[Path, Chunk]]:
        """Yields the path of each file that is not there with the people whose slates it holds."""
        total = -(-len(self.people) // _PEOPLE)
        chunks = track(
            self.people.chunks(_PEOPLE), f"Slates of side {self.side}", total, shown=shown
        )
        for number, chunk in enumerate(chunks):
            file = folder / f"{self.side}-{number:05}.parquet"
            if file.exists():
                read_slates(file)  # a damaged file is an error, not a slate that is done
            else:
                yield file, chunk


def _rows(ids: Sequence[str], result: SearchResult) -> pa.Table:
    """The slates of some people as rows of a file."""
    filled = np.isfinite(result.scores)
    rank = np.broadcast_to(np.arange(1, filled.shape[1] + 1, dtype=np.int32), filled.shape)
    columns = [
        np.repeat(np.array(ids, object), filled.sum(1)),
        rank[filled],
        result.ids[filled],
        result.scores[filled],
    ]
    arrays = dict(zip(SCHEMA.names, map(pa.array, columns), strict=True))
    return pa.table(arrays, schema=SCHEMA)


def _directions(
    people_a: Gallery, people_b: Gallery | None, bonus_a: Floats | None, bonus_b: Floats | None
) -> list[_Direction]:
    if people_b is None:
        return [_Direction("a", people_a, people_a, bonus_a)]
    return [
        _Direction("a", people_a, people_b, bonus_b),
        _Direction("b", people_b, people_a, bonus_a),
    ]


def _digest(gallery: Gallery, bonus: Floats | None) -> str:
    """Returns a hash of people and vectors, so that files of two galleries are never mixed."""
    digest = hashlib.blake2b(digest_size=16)
    for ids, attributes, vectors in gallery.chunks(65_536):
        digest.update(json.dumps([ids, attributes], sort_keys=True).encode())
        digest.update(np.ascontiguousarray(vectors).data)
    if bonus is not None:
        digest.update(np.ascontiguousarray(bonus, np.float32).data)
    return digest.hexdigest()

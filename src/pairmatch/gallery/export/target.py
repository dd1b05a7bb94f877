"""The interface of databases that embeddings are exported to."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np

from pairmatch.core.arrays import Floats, Vectors, check_count
from pairmatch.core.errors import ConfigurationError, StoreError
from pairmatch.core.text import printable
from pairmatch.core.types import AttributeValue, Side
from pairmatch.gallery.attributes import Attributes
from pairmatch.gallery.request import SearchRequest, Where
from pairmatch.rules import Kind

_SHOWN = 5

Hits = list[list[tuple[str, float]]]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a target holds, as it is kept there.

    Attributes:
        width: K of the embeddings.
        side: Side of the people.
        made_by: Digest of the head that embedded them; None if unknown.
        kinds: Kind of each attribute, by name.
    """

    width: int
    side: Side
    made_by: str | None
    kinds: Mapping[str, Kind] = field(default_factory=dict)

    def to_json(self) -> str:
        """JSON text."""
        return json.dumps({"pairmatch": dataclasses.asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, content: object, place: str) -> Contents:
        """Reads what `to_json` wrote.

        Raises:
            StoreError: It was written by something else; `place` is named then.
        """
        try:
            values = json.loads(content)["pairmatch"]  # type: ignore[arg-type]
            return cls(**values)
        except (TypeError, ValueError, KeyError):
            raise StoreError(
                f"{place} was not written by pairmatch: name another table or collection."
            ) from None

    def check_same(self, other: Contents, place: str) -> None:
        """Raises ConfigurationError unless vectors of the other contents may be added to these."""
        differing = [
            f"{label} is {mine!r} there and {theirs!r} here"
            for label, mine, theirs in (
                ("the width", self.width, other.width),
                ("the side", self.side, other.side),
                ("the head", self.made_by, other.made_by),
            )
            if mine != theirs and None not in (mine, theirs)
        ]
        if differing:
            raise ConfigurationError(
                f"{place} holds other embeddings: {', '.join(differing)}. Name another table or "
                "collection, or drop this one."
            )


class ExportTarget(ABC):
    """A table or collection of people in another database.

    Attributes are kept in columns or fields of their own type, and vectors for the inner product.

    Args:
        address: Where the target is, without secrets; `open_target` opens it again.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    @property
    @abstractmethod
    def contents(self) -> Contents | None:
        """What the target holds; None if it does not exist yet."""

    @abstractmethod
    def prepare(self, contents: Contents) -> None:
        """Creates the target, or adds the attributes that it lacks.

        Raises:
            ConfigurationError: It holds embeddings of another width, side or head, or attributes of
                another kind.
            StoreError: The database cannot be used.
        """

    @abstractmethod
    def upsert(self, ids: Sequence[str], attributes: Sequence[Attributes], vectors: Vectors) -> int:
        """Adds people, or replaces those with the same id, all or none.

        Args:
            ids: n distinct ids.
            attributes: Attributes of the kinds that were prepared, finite numbers among them.
            vectors: [n, K] float32.

        Returns:
            Number of people that were new or changed; n if the database does not tell.
        """

    @abstractmethod
    def delete(self, ids: Sequence[str]) -> int:
        """Deletes people, and returns how many of them were there."""

    def forget(self, ids: Sequence[str]) -> int:
        """Deletes people, and the versions of rows that the database would keep."""
        return self.delete(ids)

    @abstractmethod
    def known(self, ids: Collection[str]) -> set[str]:
        """Those of the ids that are there."""

    @abstractmethod
    def ids(self) -> Iterator[list[str]]:
        """Yields the ids of all people, in lists."""

    @abstractmethod
    def build_index(self) -> None:
        """Builds an approximate index for the inner product (HNSW where there is one)."""

    def filter(
        self, where: Where, *, asking: Attributes | None = None, mutual: bool = False
    ) -> Any:
        """A rule in the language of the database, true for the same people as in a gallery.

        Args:
            where: Rule, or several that must all be true.
            asking: Attributes of the query person.
            mutual: Whether the rule must also be true with the roles swapped.

        Raises:
            ConfigurationError: The rule cannot be used, or has no such form.
        """
        contents = self._existing()
        request = _request(
            contents, np.zeros((1, contents.width)), 1, where, [asking or {}], mutual
        )
        return self._filter(request, contents, request.groups[0].person)

    @abstractmethod
    def _filter(self, request: SearchRequest, contents: Contents, person: Attributes) -> Any:
        """The rule of a request for one query person; None without a rule."""

    def search(
        self,
        queries: Floats,
        k: int = 20,
        *,
        where: Where = None,
        asking: Sequence[Attributes] | None = None,
        mutual: bool = False,
        exact: bool = True,
    ) -> Hits:
        """The best candidates of each query, best first: ids and inner products.

        Applications search with the client of the database; this call shows that the answers are
        those of a gallery.

        Args:
            queries: [Q, K] finite.
            k: Maximum number of candidates per query.
            where: Rule for candidates, as in `Gallery.search`.
            asking: Attributes of the query persons, one mapping per query.
            mutual: Whether the rule must also be true with the roles swapped.
            exact: Whether an approximate index is left aside.
        """
        contents = self._existing()
        k = check_count("search(k=...)", k)
        request = _request(contents, queries, k, where, asking, mutual)
        hits: Hits = [[] for _ in request.queries]
        for group in request.groups:
            condition = self._filter(request, contents, group.person)
            for query in group.queries:
                hits[query] = self._nearest(request.queries[query], k, condition, exact)
        return hits

    @abstractmethod
    def _nearest(
        self, query: Vectors, k: int, condition: Any, exact: bool
    ) -> list[tuple[str, float]]:
        """The k best people of a query [K] among those that satisfy a condition."""

    def _existing(self) -> Contents:
        contents = self.contents
        if contents is None:
            raise StoreError(f"{self.address} does not exist: export to it first.")
        return contents

    @abstractmethod
    def close(self) -> None:
        """Closes the connection."""

    def __enter__(self) -> ExportTarget:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def merged_kinds(
    known: Mapping[str, Kind], added: Mapping[str, Kind], place: str
) -> dict[str, Kind]:
    """Kinds of the attributes of a target after an export.

    Raises:
        ConfigurationError: An attribute has another kind there.
    """
    problems = [
        f"{printable(name)!r} is {known[name]} there and {kind} here"
        for name, kind in added.items()
        if name in known and known[name] != kind
    ]
    if problems:
        raise ConfigurationError(
            f"{place} has attributes of another kind: {'; '.join(problems[:_SHOWN])}. Export to "
            "another table or collection."
        )
    return {**known, **added}


def check_values(ids: Sequence[str], attributes: Sequence[Attributes]) -> None:
    """Raises ConfigurationError that names the values which other databases cannot hold."""
    problems = []
    for person, row in zip(ids, attributes, strict=True):
        if "\0" in person:
            problems.append(f"the id {printable(person)!r} holds a NUL character")
        for name, value in row.items():
            if not _is_usable(value):
                problems.append(f"{printable(name)!r} of {printable(person)!r} is {value!r}")
    if problems:
        rest = len(problems) - _SHOWN
        raise ConfigurationError(
            "Databases hold finite numbers, and texts without NUL characters: "
            f"{'; '.join(problems[:_SHOWN])}{f' and {rest} more' if rest > 0 else ''}."
        )


def _is_usable(value: AttributeValue) -> bool:
    return "\0" not in value if isinstance(value, str) else bool(np.isfinite(value))


def _request(
    contents: Contents,
    queries: Floats,
    k: int,
    where: Where,
    asking: Sequence[Attributes] | None,
    mutual: bool,
) -> SearchRequest:
    request = SearchRequest.of(
        queries, k, where=where, asking=asking, mutual=mutual, excluded=None, bonus=None
    )
    return request.fitted(contents.width, contents.kinds, is_new=False)


def batches(ids: Iterable[str], size: int = 1000) -> Iterator[list[str]]:
    """Ids in lists of at most `size`."""
    waiting: list[str] = []
    for person in ids:
        waiting.append(person)
        if len(waiting) == size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting

"""The interface of galleries: candidates with their embeddings and attributes."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pairmatch.core.arrays import Floats, Vectors
from pairmatch.core.errors import DataError
from pairmatch.core.ids import check_distinct, id_texts
from pairmatch.core.text import all_spellings, matching, printable, spelled
from pairmatch.core.types import AttributeValue, Profile, Side
from pairmatch.gallery.attributes import Attributes, plain_attributes
from pairmatch.gallery.blocks import Chunk, Entry
from pairmatch.gallery.description import html_of, one_line
from pairmatch.gallery.folder import check_folder
from pairmatch.gallery.index import Additions
from pairmatch.gallery.request import SearchRequest, Where
from pairmatch.gallery.results import Recommendations, SearchResult
from pairmatch.gallery.several import recommend_several
from pairmatch.rules import Kind


class Gallery(ABC):
    """Candidates that are embedded once and searched for many people.

    Scores are inner products of embeddings. There are three galleries with one interface:

    - [`MemoryGallery`][pairmatch.gallery.memory.MemoryGallery]: in memory, made by `Gallery.of`.
    - [`FolderGallery`][pairmatch.gallery.disk.FolderGallery]: memory-mapped files of `save`.
    - [`LanceGallery`][pairmatch.gallery.lance.LanceGallery]: a LanceDB table, larger than memory.

    Threads may share a gallery: each search uses a snapshot while other threads add and remove.

    Args:
        side: Side of the candidates.
        made_by: Digest of the head that embedded the candidates, to detect queries that another
            head embedded; None if unknown.
    """

    _in_memory: ClassVar[type[Gallery]]
    _on_disk: ClassVar[list[type[Any]]] = []  # in the order in which `open` tries them

    def __new__(cls, *_: Any, **__: Any) -> Gallery:
        return object.__new__(cls._in_memory if cls is Gallery else cls)

    def __init_subclass__(cls, *, in_memory: bool = False) -> None:
        """Registers a kind of gallery, so that `Gallery.of` and `Gallery.open` find it."""
        if in_memory:
            Gallery._in_memory = cls
        else:
            Gallery._on_disk.append(cls)

    def __init__(self, *, side: Side = "b", made_by: str | None = None) -> None:
        self.side: Side = side
        self.made_by = made_by
        self._profiles: dict[str, Profile] = {}
        self._lock = threading.RLock()

    __repr__ = one_line
    _repr_html_ = html_of

    @classmethod
    def of(
        cls,
        people: Sequence[Profile] | Sequence[str],
        embeddings: Floats,
        *,
        side: Side = "b",
        made_by: str | None = None,
    ) -> Gallery:
        """Creates a gallery in memory.

        Args:
            people: N profiles or ids.
            embeddings: [N, K] finite, unit length.
            side: Side of the candidates.
            made_by: Digest of the head that embedded them.

        Raises:
            ConfigurationError: As in `add`.
        """
        gallery = Gallery(side=side, made_by=made_by)  # type: ignore[abstract]
        gallery.add(people, embeddings)
        return gallery

    @classmethod
    def open(cls, folder: str | Path) -> Gallery:
        """Opens a saved gallery, or the folder of a `LanceGallery`, without reading its vectors.

        Raises:
            StoreError: The folder holds no gallery, a damaged one, or one of a newer format.
        """
        path = Path(folder)
        kinds = [kind for kind in cls._on_disk if kind.exists(path)]
        return (kinds or cls._on_disk)[0](path)

    @staticmethod
    def check_target(folder: str | Path) -> Path:
        """Checks that a gallery can be saved to a folder, and returns it; creates nothing.

        Raises:
            StoreError: It holds a gallery of another kind, which would stay beside the new one.
            ConfigurationError: It holds files that pairmatch did not write, or cannot be written.
        """
        path = Path(folder)
        kind = Gallery._on_disk[0]  # what `save` writes
        others = (other for other in Gallery._on_disk if other is not kind and other.exists(path))
        check_folder(path, next(others, None))
        return path

    @classmethod
    def exists(cls, folder: str | Path) -> bool:
        """Whether a folder holds a gallery, or one of this kind if called on a subclass."""
        return cls is Gallery and any(kind.exists(folder) for kind in cls._on_disk)

    def add(self, people: Sequence[Profile] | Sequence[str], embeddings: Floats) -> None:
        """Adds people; people with an existing id are replaced.

        Args:
            people: N profiles or ids.
            embeddings: [N, K] finite, unit length.

        Raises:
            ConfigurationError: Shapes do not fit, an id occurs twice, perhaps in another Unicode
                normal form, or an attribute has two kinds.
        """
        additions = Additions.of(people, embeddings)
        if not additions.ids:
            return
        with self._lock:
            others = sorted({*all_spellings(additions.ids)}.difference(additions.ids))
            check_distinct(additions.ids, self._present(others) if others else ())
            additions = self._add(additions)
            for profile in additions.profiles:
                self._profiles.pop(profile.id, None)
                if profile.images or profile.text or profile.metadata is not None:
                    self._profiles[profile.id] = profile

    @abstractmethod
    def _add(self, additions: Additions) -> Additions:
        """Adds people that were validated on their own, not yet against the gallery.

        Returns:
            The people as they were added.
        """

    def remove(self, ids: Iterable[str]) -> int:
        """Removes people from all searches from now on; `forget` also erases them from files.

        Returns:
            Number of people that were in the gallery.
        """
        wanted = all_spellings(id_texts("remove(ids)", ids))
        with self._lock:
            count = self._remove(wanted)
            for person in wanted:
                self._profiles.pop(person, None)
        return count

    @abstractmethod
    def _remove(self, ids: Sequence[str]) -> int:
        """Removes people by distinct ids, and returns how many of them were in the gallery."""

    @abstractmethod
    def forget(self, ids: Iterable[str]) -> int:
        """Removes people and erases them, and those removed earlier, from memory and files.

        Returns:
            Number of people that were in the gallery.
        """

    def known(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids that are in the gallery, or were removed and are not yet erased."""
        wanted = id_texts("known(ids)", ids)
        with self._lock:
            return matching(wanted, self._known(all_spellings(wanted)))

    @abstractmethod
    def _known(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that are in memory or files."""

    @abstractmethod
    def save(self, folder: str | Path | None = None) -> Path:
        """Writes all people to a folder, atomically, without removed people.

        Args:
            folder: Folder, created if it is missing; a gallery in it is replaced. None saves to the
                gallery's own folder.

        Returns:
            The folder.
        """

    def search(
        self,
        queries: Floats,
        k: int = 20,
        *,
        where: Where = None,
        asking: Sequence[Attributes] | None = None,
        mutual: bool = False,
        excluded: Sequence[Collection[str]] | None = None,
        bonus: Floats | None = None,
    ) -> SearchResult:
        """Finds the best eligible candidates of each query.

        The result is exact, unless a `LanceGallery` has an index.

        Args:
            queries: [Q, K] finite.
            k: Maximum number of candidates per query, at least 1.
            where: Rule for candidates, or several that must all be true, as
                [`parse_rule`][pairmatch.rules.rule.parse_rule] reads them; `query.age` is the age
                of the query person.
            asking: Attributes of the query persons, one mapping per query.
            mutual: Whether the rule must also be true with the roles swapped: bare names are then
                the query person's attributes, and `query.` names the candidate's.
            excluded: Ids that are not shown, one collection per query.
            bonus: [N] finite, in the order of `ids`: added to each candidate's score in all
                queries.

        Raises:
            ConfigurationError: The rule cannot be used, or shapes do not fit.
        """
        request = SearchRequest.of(
            queries, k, where=where, asking=asking, mutual=mutual, excluded=excluded, bonus=bonus
        )
        return self._search(request)

    def recommend(
        self,
        query: Floats,
        k: int = 20,
        *,
        where: Where = None,
        asking: Attributes | None = None,
        mutual: bool = False,
        excluded: Collection[str] = (),
    ) -> Recommendations:
        """Finds the best eligible candidates of one query, with their profiles.

        Candidates, scores and attributes are of one moment, even if people are removed meanwhile.
        The arguments are those of `search`, for a single query.

        Raises:
            ConfigurationError: As in `search`.
        """
        options: dict[str, Any] = {"asking": [asking or {}], "excluded": [excluded]}
        return recommend_several(self, query, k, where=where, mutual=mutual, **options)[0]

    @abstractmethod
    def _search(self, request: SearchRequest) -> SearchResult:
        """Answers a request that was validated on its own, not yet against the gallery."""

    def profile(self, person: str) -> Profile:
        """Returns one candidate, as `profiles` does."""
        return self.profiles([person])[0]

    def profiles(self, ids: Sequence[str]) -> list[Profile]:
        """Returns several candidates, in the order given, in one pass over the gallery.

        A profile is complete if this object added it; otherwise it has only an id and attributes.

        Raises:
            ConfigurationError: `ids` is not a list of ids.
            DataError: An id is not in the gallery.
        """
        wanted = id_texts("profiles(ids)", ids)
        attributes = self._attributes(all_spellings(wanted)) if wanted else {}
        found = [spelled(person, attributes) for person in wanted]
        missing = [repr(printable(wanted[i])) for i, form in enumerate(found) if form is None]
        if missing:
            shown = ", ".join(missing[:5]) + ", …" * (len(missing) > 5)
            raise DataError(f"The gallery has no candidate with the id {shown}.")
        return [self._restored(form, attributes[form]) for form in found if form is not None]

    @abstractmethod
    def _attributes(self, ids: Sequence[str]) -> dict[str, dict[str, AttributeValue]]:
        """Attributes of those of the distinct ids that are in the gallery."""

    def _restored(self, person: str, attributes: dict[str, AttributeValue]) -> Profile:
        profile = self._profiles.get(person)
        if profile is not None and plain_attributes(profile.attributes) == attributes:
            return profile
        return Profile(person, attributes=attributes)  # added or replaced by another process

    def entries(self, ids: Collection[str]) -> dict[str, Entry]:
        """Attributes and embeddings of those of the ids that are in the gallery, by id."""
        wanted = id_texts("entries(ids)", ids)
        found = self._entries(all_spellings(wanted))
        forms = ((person, spelled(person, found)) for person in wanted)
        return {person: found[form] for person, form in forms if form is not None}

    @abstractmethod
    def _entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Attributes and embeddings of those of the distinct ids that are in the gallery."""

    def __iter__(self) -> Iterator[Profile]:
        """Yields the candidates in the order of `ids`."""
        for person, attributes in self._people():
            yield self._restored(person, attributes)

    @abstractmethod
    def _people(self) -> Iterator[tuple[str, dict[str, AttributeValue]]]:
        """Yields the id and the attributes of each candidate in order."""

    def __contains__(self, person: object) -> bool:
        """Whether an id is in the gallery."""
        return isinstance(person, str) and bool(self.present([person]))

    def present(self, ids: Collection[str]) -> set[str]:
        """Those of the ids that are in the gallery."""
        wanted = id_texts("present(ids)", ids)
        return matching(wanted, self._present(all_spellings(wanted)))

    @abstractmethod
    def _present(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that are in the gallery."""

    @abstractmethod
    def chunks(self, rows: int = 1024) -> Iterator[Chunk]:
        """Yields ids, attributes and embeddings [n, K] of all people, `rows` at a time."""

    @property
    @abstractmethod
    def ids(self) -> list[str]:
        """Ids of all people, in order of addition."""

    @property
    @abstractmethod
    def embeddings(self) -> Vectors:
        """[N, K] float32 of all people, in the order of `ids`."""

    @property
    @abstractmethod
    def attribute_kinds(self) -> dict[str, Kind]:
        """Name and kind (`number`, `text`, `bool`) of each attribute."""

    @property
    @abstractmethod
    def width(self) -> int | None:
        """K of the embeddings; None if no embedding was ever added."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of people."""

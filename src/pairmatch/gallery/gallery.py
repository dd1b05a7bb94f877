"""Candidates with their embeddings and attributes, in memory or in a folder, searched exactly."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pairmatch.core.arrays import check_vectors
from pairmatch.core.errors import ConfigurationError, DataError, StoreError
from pairmatch.core.types import AttributeValue, Profile, Side
from pairmatch.gallery.blocks import Block, Vectors, attributes_of, check_attributes, plain
from pairmatch.gallery.folder import Change, Folder
from pairmatch.gallery.results import Found
from pairmatch.gallery.search import top_k
from pairmatch.gallery.selection import Attributes, Where, groups, names_at, rows_of, spread
from pairmatch.rules import Kind

_MANY = 1000  # people added at once get a file of their own, fewer stand in the journal
_LARGEST_MERGED = 65_536  # people; smaller blocks in memory are merged


class Gallery:
    """Candidates that were embedded once, to be searched for many people. Scores are inner products.

    `Gallery()` is in memory; `Gallery.open(folder)` is on disk, memory-mapped, and writes through:
    who was added or removed is on the disk when the call returns, and seen by the next search of
    every process that has it open. [`LanceGallery`][pairmatch.gallery.lance.LanceGallery] has the
    same `search`, `add` and `remove` with an approximate index for galleries far larger than
    memory.

    Args:
        side: The side that the candidates are on.
        made_by: What embedded them, so that a query by something else is noticed; None where nobody
            says.
    """

    def __init__(self, *, side: Side = "b", made_by: str | None = None) -> None:
        self.side: Side = side
        self.made_by = made_by
        self._mapped: list[Block] = []
        self._recent: list[
            Block
        ] = []  # each larger than the next: merging costs little and there are few
        self._kinds: dict[str, Kind] = {}
        self._profiles: dict[str, Profile] = {}
        self._width: int | None = None
        self._folder: Folder | None = None
        self._seen = 0
        self._generation = 0
        self._lock = threading.RLock()

    @classmethod
    def of(
        cls,
        people: Sequence[Profile] | Sequence[str],
        embeddings: npt.NDArray[np.floating],
        *,
        side: Side = "b",
        made_by: str | None = None,
    ) -> Gallery:
        """A gallery in memory.

        Args:
            people: N profiles, or ids.
            embeddings: [N, K] finite, unit length.
            side: The side that they are on.
            made_by: What embedded them.
        """
        gallery = cls(side=side, made_by=made_by)
        gallery.add(people, embeddings)
        return gallery

    @classmethod
    def open(cls, folder: str | Path) -> Gallery:
        """Opens a saved gallery without reading its vectors.

        Raises:
            StoreError: No gallery, a damaged one, or one of a newer version.
        """
        gallery = cls()
        gallery._folder = Folder(Path(folder))
        gallery._refresh()
        return gallery

    def save(self, folder: str | Path | None = None) -> Path:
        """Writes everybody into a folder, whole or not at all; what was removed is gone from the files.

        Args:
            folder: Made where it is not there; a gallery in it is replaced. None: the gallery's
                own.
        """
        if folder is None and self._folder is None:
            raise ConfigurationError(
                "`Gallery.save(folder)` needs a folder: this gallery is in memory."
            )
        target = self._folder if folder is None else Folder(Path(folder), create=True)
        assert target is not None
        with self._lock, target.writing():
            self._refresh()
            about = {"side": self.side, "made_by": self.made_by, "width": self._width}
            target.replace([block for block in self._blocks if block.alive.any()], about)
        self._refresh()
        target.sweep()
        if target is not self._folder:
            target.close()
        return target.path

    def add(
        self, people: Sequence[Profile] | Sequence[str], embeddings: npt.NDArray[np.floating]
    ) -> None:
        """Adds people; whoever is there already is replaced.

        Args:
            people: N profiles, or ids.
            embeddings: [N, K] finite, unit length.

        Raises:
            ConfigurationError: Shapes that do not fit, an id that comes twice, an attribute of two
                kinds.
        """
        ids = [one.id if isinstance(one, Profile) else str(one) for one in people]
        attributes = [plain(one.attributes) if isinstance(one, Profile) else {} for one in people]
        if not ids and len(embeddings) == 0:
            return
        check_vectors("embeddings", embeddings)
        vectors = np.ascontiguousarray(embeddings, np.float32)
        if len(ids) != len(vectors):
            raise ConfigurationError(
                f"Each person needs one embedding, got {len(ids)} and {len(vectors)}."
            )
        twice = [person for person, count in Counter(ids).items() if count > 1]
        if twice:
            raise ConfigurationError(
                f"A gallery holds each person once; these came twice: {', '.join(twice[:5])}."
            )
        with self._lock:
            if self._folder is None:
                self._check_new(ids, attributes, vectors)
                self._apply_addition(ids, attributes, vectors)
            else:
                with self._folder.writing():
                    self._refresh()
                    self._check_new(ids, attributes, vectors)
                    if len(ids) > _MANY:
                        self._folder.append_file([Block.of(ids, attributes, vectors)])
                    else:
                        self._folder.append(ids, attributes, vectors)
                self._refresh()
            self._profiles.update((one.id, one) for one in people if isinstance(one, Profile))

    def remove(self, ids: Iterable[str]) -> int:
        """Removes people from every search from now on; `forget` also erases them from the files.

        Returns:
            How many of them were there.
        """
        wanted = list(dict.fromkeys(ids))
        with self._lock:
            if self._folder is None:
                there = self._present(wanted)
                self._apply_removal(there)
            else:
                with self._folder.writing():
                    self._refresh()
                    there = self._present(wanted)
                    self._folder.append_removals(there)
                self._refresh()
            for person in wanted:
                self._profiles.pop(person, None)
        return len(there)

    def forget(self, ids: Iterable[str]) -> int:
        """Removes people and erases every trace of them, of earlier removals too, from memory and files.

        Returns:
            How many of them were still there.
        """
        count = self.remove(ids)
        with self._lock:
            self._recent = [Block.merged([block]) for block in self._recent if block.alive.any()]
        if self._folder is not None:
            self.save()
        return count

    def search(
        self,
        queries: npt.NDArray[np.floating],
        k: int = 20,
        *,
        where: Where = None,
        asking: Sequence[Attributes] | None = None,
        mutual: bool = False,
        excluded: Sequence[Collection[str]] | None = None,
        bonus: npt.NDArray[np.floating] | None = None,
    ) -> Found:
        """The best eligible candidates of each query, exactly.

        Args:
            queries: [Q, K] finite.
            k: Most candidates per query, at least 1.
            where: Rule for candidates, or several that must all hold, as
                [`parse_rule`][pairmatch.rules.rule.parse_rule] reads them; `query.age` is the age
                of who asks.
            asking: Attributes of those who ask, one mapping per query.
            mutual: The rule must hold the other way round too, with the candidate as the one who
                asks.
            excluded: Per query, ids that are not shown.
            bonus: [N] finite, in the order of `ids`: added to each candidate's score, whoever asks.

        Raises:
            ConfigurationError: A rule that cannot be used, shapes that do not fit.
        """
        blocks = self._current()
        check_vectors("queries", queries)
        asked = np.ascontiguousarray(queries, np.float32)
        if self._width is not None and asked.shape[1] != self._width:
            raise ConfigurationError(
                f"The gallery's embeddings are {self._width} wide, the queries {asked.shape[1]}."
            )
        for name, given in (("asking", asking), ("excluded", excluded)):
            if given is not None and len(given) != len(asked):
                raise ConfigurationError(
                    f"`{name}` needs one entry per query, {len(asked)}, got {len(given)}."
                )
        if k < 1:
            raise ConfigurationError(f"`search(k=...)` must be at least 1, got {k}.")
        ids = np.full((len(asked), k), None, object)
        scores = np.full((len(asked), k), -np.inf, np.float32)
        eligible = np.zeros(len(asked), np.int64)
        emptied: list[str | None] = [None] * len(asked)
        added = None if bonus is None else spread(bonus, blocks)
        hidden = rows_of(excluded, blocks) if excluded is not None else None
        for group, chosen in groups(blocks, self._kinds, where, asking, mutual, len(asked)):
            own = None if hidden is None else [hidden[query] for query in group]
            counts = np.full(len(group), len(chosen.rows))
            if own is not None:
                counts -= [
                    int(np.isin(rows, chosen.rows, assume_unique=True).sum()) for rows in own
                ]
            eligible[group] = counts
            for query, count in zip(group, counts, strict=True):
                if not count:
                    emptied[query] = chosen.excluded_by or "exclusions"
            if len(chosen.rows):
                everybody = len(chosen.rows) == sum(map(len, blocks))
                rows, scores[group] = top_k(
                    asked[group],
                    [block.vectors for block in blocks],
                    k,
                    rows=None if everybody else chosen.rows,
                    excluded=own,
                    bonus=added,
                )
                ids[group] = names_at(rows, blocks)
        return Found(ids, scores, eligible, tuple(emptied))

    def profile(self, person: str) -> Profile:
        """A candidate: as they were added, or with id and attributes alone where that was in another process.

        Raises:
            DataError: Nobody of that id is in the gallery.
        """
        wanted = pa.array([person], pa.string())
        for block in self._current():
            rows = block.find(wanted)
            if len(rows):
                attributes = block.attributes(int(rows[0]))
                known = self._profiles.get(person)  # not as another process replaced them since
                return (
                    known
                    if known and plain(known.attributes) == attributes
                    else Profile(person, attributes=attributes)
                )
        raise DataError(f"Nobody called {person!r} is in the gallery.")

    def chunks(
        self, rows: int = 1024
    ) -> Iterator[tuple[list[str], list[dict[str, AttributeValue]], Vectors]]:
        """Everybody in order, `rows` at a time: ids, attributes and embeddings [n, K]."""
        ids: list[str] = []
        attributes: list[dict[str, AttributeValue]] = []
        vectors: list[Vectors] = []
        for block in self._current():
            alive = np.flatnonzero(block.alive)
            start = 0
            while start < len(alive):
                part = alive[start : start + rows - len(ids)]
                start += len(part)
                people = block.people.take(pa.array(part))
                ids += people["id"].to_pylist()
                attributes += attributes_of(people)
                vectors.append(block.vectors[part])
                if len(ids) == rows:
                    yield ids, attributes, np.concatenate(vectors)
                    ids, attributes, vectors = [], [], []
        if ids:
            yield ids, attributes, np.concatenate(vectors)

    @property
    def ids(self) -> list[str]:
        """Ids of everybody, in order."""
        return [person for block in self._current() for person in block.living()["id"].to_pylist()]

    @property
    def embeddings(self) -> Vectors:
        """[N, K] float32 of everybody, in order of `ids`.

        A copy, unless there is one piece of it.
        """
        parts = [
            block.vectors if block.alive.all() else block.vectors[block.alive]
            for block in self._current()
        ]
        if not parts:
            return np.empty((0, self._width or 0), np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @property
    def attribute_kinds(self) -> dict[str, Kind]:
        """Name and kind (`number`, `text`, `bool`) of every attribute."""
        self._current()
        return dict(self._kinds)

    @property
    def width(self) -> int | None:
        """K of the embeddings; None while there never was anybody."""
        return self._width

    def __len__(self) -> int:
        return sum(int(block.alive.sum()) for block in self._current())

    @property
    def _blocks(self) -> list[Block]:
        return [*self._mapped, *self._recent]

    def _current(self) -> list[Block]:
        """The blocks as they are now: a search goes on with them while others add and remove."""
        with self._lock:
            self._refresh()
            return self._blocks

    def _refresh(self) -> None:
        """Takes in what happened in the folder since, whoever did it."""
        while self._folder is not None:
            try:
                self._take_in(self._folder)
                return
            except StoreError:
                # A file that was named is gone where somebody saved meanwhile: then there are new
                # ones
                about, _ = self._folder.news(self._generation, self._seen)
                if about.get("generation", 0) == self._generation:
                    raise

    def _take_in(self, folder: Folder) -> None:
        about, changes = folder.news(self._generation, self._seen)
        if about.get("generation", 0) != self._generation:
            self._mapped, self._recent, self._kinds, self._seen = [], [], {}, 0
            self._generation = about["generation"]
            self.side, self.made_by, self._width = about["side"], about["made_by"], about["width"]
        additions: list[Change] = []
        for change in changes:
            if change[1] != "add" and additions:
                self._replay_additions(additions)
                additions = []
            if change[1] == "add":
                additions.append(change)
            elif change[1] == "remove":
                self._apply_removal([change[2]])
            else:
                fresh = folder.read(change[2])
                if self._blocks and fresh:  # nobody is twice in one file
                    self._supersede(
                        pa.concat_arrays([chunk for block in fresh for chunk in block.ids.chunks])
                    )
                for block in fresh:
                    self._mapped.append(block)
                    self._kinds |= block.kinds
                    self._width = block.vectors.shape[1]
            self._seen = change[0]
        if additions:
            self._replay_additions(additions)

    def _replay_additions(self, changes: Sequence[Change]) -> None:
        latest = {change[2]: change for change in changes}
        ids = list(latest)
        attributes = [json.loads(change[3] or "{}") for change in latest.values()]
        vectors = np.stack(
            [np.frombuffer(change[4] or b"", np.float32) for change in latest.values()]
        )
        self._apply_addition(ids, attributes, vectors)

    def _check_new(
        self, ids: Sequence[str], attributes: Sequence[Attributes], vectors: Vectors
    ) -> None:
        if self._width is not None and vectors.shape[1] != self._width:
            raise ConfigurationError(
                f"The gallery's embeddings are {self._width} wide, those of the newcomers {vectors.shape[1]}."
            )
        check_attributes(ids, attributes, self._kinds)

    def _apply_addition(
        self, ids: Sequence[str], attributes: Sequence[Attributes], vectors: Vectors
    ) -> None:
        self._kinds = check_attributes(ids, attributes, self._kinds)
        self._width = vectors.shape[1]
        self._supersede(pa.array(ids, pa.string()))
        recent = [*self._recent, Block.of(ids, attributes, vectors)]
        while (
            len(recent) > 1
            and 2 * len(recent[-1]) >= len(recent[-2])
            and len(recent[-1]) + len(recent[-2]) <= _LARGEST_MERGED
        ):
            recent[-2:] = [Block.merged(recent[-2:])]
        self._recent = recent

    def _apply_removal(self, ids: Sequence[str]) -> None:
        if ids:
            self._supersede(pa.array(ids, pa.string()))

    def _supersede(self, ids: pa.Array) -> None:
        for block in self._blocks:
            block.alive[block.find(ids)] = False

    def _present(self, ids: Sequence[str]) -> list[str]:
        wanted = pa.array(ids, pa.string())
        found = {
            person
            for block in self._blocks
            for person in block.ids.take(pa.array(block.find(wanted))).to_pylist()
        }
        return [person for person in ids if person in found]


def eligible(
    people: Sequence[Profile], where: Where, *, asking: Attributes, mutual: bool = False
) -> tuple[list[Profile], str | None]:
    """Those of some profiles whom a rule lets through, before anybody is embedded; and what left nobody.

    Raises:
        ConfigurationError: A rule that cannot be used.
    """
    gallery = Gallery.of(people, np.zeros((len(people), 1), np.float32)) if people else Gallery()
    ((_, chosen),) = groups(gallery._current(), gallery.attribute_kinds, where, [asking], mutual, 1)
    return [people[row] for row in chosen.rows], chosen.excluded_by

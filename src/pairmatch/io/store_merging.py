"""Merging of stores: what several machines extracted and generated, in one store."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pairmatch.core.errors import ConfigurationError, StoreError
from pairmatch.core.progress import progress_bar
from pairmatch.core.text import printable
from pairmatch.io.reading import sound_outcome, sound_vector
from pairmatch.io.sqlite import Database, chunks, marks
from pairmatch.io.store import Store, store_path

_PAGE = 500  # rows per transaction: what a killed merge loses, and the variables of a statement
_NAMED = 5
_MOST_CONFLICTS = 1000
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Conflict:
    """A key with different content in two stores; the target kept its own.

    Attributes:
        kind: `features` or `metadata`.
        key: Content key.
        store: Store whose content was not taken.
        difference: Largest absolute difference of two vectors of equal width; None otherwise.
    """

    kind: Literal["features", "metadata"]
    key: str
    store: Path
    difference: float | None = None

    def __str__(self) -> str:
        size = "" if self.difference is None else f", differs by up to {self.difference:.2g}"
        return f"{self.kind} {self.key[:12]}… of {printable(str(self.store))}{size}"


@dataclass(slots=True)
class Merged:
    """Result of `merge_stores`.

    Attributes:
        stores: Number of stores that were merged.
        features: Number of vectors added, or replaced because the target's were damaged.
        metadata: Number of metadata outcomes added, or put in the place of refusals.
        links: Number of (person, key) links added.
        corrections: Number of people whose corrections were added or replaced by newer ones.
        calls: Number of paid calls whose cost was added.
        present: Number of vectors and outcomes that the target had already.
        damaged: Number of damaged vectors and outcomes that were skipped.
        conflicting: Number of keys with different content; the target kept its own.
        conflicts: The first 1,000 of them.
        unfinished: Number of submitted batches that were left where they are, by store.
    """

    stores: int = 0
    features: int = 0
    metadata: int = 0
    links: int = 0
    corrections: int = 0
    calls: int = 0
    present: int = 0
    damaged: int = 0
    conflicting: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    unfinished: dict[Path, int] = field(default_factory=dict)

    def add_conflict(self, conflict: Conflict) -> None:
        """Counts a conflict."""
        self.conflicting += 1
        if len(self.conflicts) < _MOST_CONFLICTS:
            self.conflicts.append(conflict)

    def __str__(self) -> str:
        lines = [
            f"Merged {self.stores} {'store' if self.stores == 1 else 'stores'}: added "
            f"{self.features:,} features, {self.metadata:,} metadata outcomes, {self.links:,} "
            f"links of people, corrections of {self.corrections:,} people and the cost of "
            f"{self.calls:,} calls; {self.present:,} entries were there already."
        ]
        if self.damaged:
            lines.append(
                f"Skipped {self.damaged:,} damaged entries: `pairmatch store verify` names them."
            )
        if self.conflicting:
            lines.append(
                f"{self.conflicting:,} keys have other content in another store; the target kept "
                "its own. Equal keys differ where machines or library versions compute "
                "differently:"
            )
            lines += [f"  {conflict}" for conflict in self.conflicts[:_NAMED]]
            if self.conflicting > _NAMED:
                lines.append(f"  and {self.conflicting - _NAMED:,} more")
        for path, count in self.unfinished.items():
            lines.append(
                f"{count} submitted batches of {printable(str(path))} are not merged: collect "
                "them with that store (annotate --batch), then merge again."
            )
        return "\n".join(lines)


def merge_stores(
    stores: Sequence[str | Path], into: str | Path, *, progress: bool = False
) -> Merged:
    """Adds everything in some stores to another one, by content key.

    Running it twice changes nothing the second time. Each page of rows is one transaction, in which
    the links of people come with their data, so `forget` reaches all that was merged and a killed
    merge leaves a complete store: run it again to finish. The merged stores are not changed, and
    hold their people still.

    - A key in both keeps the target's content, unless that is damaged; different content is
      reported as a conflict.
    - Metadata replace a refusal under the same key.
    - Of two sets of corrections of a person, the newer one counts.
    - Submitted batches are not merged, because they are collected where they were submitted.

    Args:
        stores: Paths to stores, or to folders that hold `store.sqlite`.
        into: Path to the target; created if it is missing.
        progress: Whether to show a progress bar.

    Raises:
        StoreError: Stores are missing, damaged or not stores, all at once, before anything is
            written; or the target cannot be written.
        ConfigurationError: No store is named, or the target is one of them.
    """
    target_path = store_path(into)
    sources = list(dict.fromkeys(store_path(path) for path in stores))
    if not sources:
        raise ConfigurationError("Name the stores to merge.")
    if target_path.resolve() in {path.resolve() for path in sources}:
        raise ConfigurationError(
            f"The store {printable(str(target_path))} cannot be merged into itself: name another "
            "target with `into=` (--into)."
        )
    total = _check_sources(sources)
    merged = Merged()
    with Store(target_path) as target, progress_bar(progress) as bar:
        task = bar.add_task("Merging stores", total=total)
        for path in sources:
            with Store(path, create=False) as source:
                _Merge(source._database, target._database, merged).run(
                    lambda count: bar.advance(task, count)
                )
            merged.stores += 1
    return merged


def _check_sources(sources: Sequence[Path]) -> int:
    """Number of rows in the sources; raises StoreError that names all that cannot be read."""
    total = 0
    problems = []
    for path in sources:
        try:
            with Store(path, create=False) as source:
                counts = source.counts()
            total += counts["features"] + counts["metadata"]
        except StoreError as error:
            problems.append(str(error))
    if problems:
        raise StoreError("\n".join(["Nothing was merged:", *problems]))
    return total


@dataclass(frozen=True, slots=True)
class _Merge:
    """One store that is merged into another."""

    source: Database
    target: Database
    merged: Merged

    def run(self, advance: Callable[[int], None]) -> None:
        """Merges all tables."""
        for page in self._pages("SELECT key, dtype, vector, created FROM features"):
            self._merge_page(page, self._merge_features)
            advance(len(page))
        for page in self._pages("SELECT key, outcome, created FROM metadata"):
            self._merge_page(page, self._merge_outcomes)
            advance(len(page))
        self._merge_corrections()
        self._merge_calls()
        unfinished = self.source.select("SELECT count(*) FROM batches")[0][0]
        if unfinished:
            self.merged.unfinished[self.source.path] = unfinished

    def _pages(self, query: str) -> Iterator[list[Row]]:
        last = ""
        while page := self.source.select(
            f"{query} WHERE key > ? ORDER BY key LIMIT {_PAGE}", (last,)
        ):
            yield page
            last = page[-1][0]

    def _merge_page(
        self, page: list[Row], merge: Callable[[sqlite3.Connection, list[Row]], list[str]]
    ) -> None:
        """Writes a page and the links of its people in one transaction."""
        keys = [row[0] for row in page if isinstance(row[0], str)]
        links = list(
            self.source.select_in("SELECT person, key FROM people WHERE key IN ({})", keys)
        )
        with self.target.transaction() as connection:
            held = set(merge(connection, page))
            rows = [link for link in links if link[1] in held]
            before = connection.total_changes
            connection.executemany("INSERT OR IGNORE INTO people VALUES (?, ?)", rows)
            self.merged.links += connection.total_changes - before

    def _merge_features(self, connection: sqlite3.Connection, page: list[Row]) -> list[str]:
        """Writes vectors; returns the keys that the target holds then."""
        existing = _by_key(connection, "SELECT key, dtype, vector FROM features", page)
        new = []
        held = []
        for key, dtype, content, created in page:
            vector = sound_vector(dtype, content) if isinstance(key, str) else None
            current = sound_vector(*existing[key]) if key in existing else None
            if vector is None:
                self.merged.damaged += 1
                held += [key] if current is not None else []
                continue
            held.append(key)
            if current is None:
                new.append((key, dtype, content, created))
            elif existing[key] == (dtype, content):
                self.merged.present += 1
            else:
                self._report_difference(key, current, vector)
        connection.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)", new)
        self.merged.features += len(new)
        return held

    def _report_difference(
        self, key: str, current: np.ndarray[Any, Any], vector: np.ndarray[Any, Any]
    ) -> None:
        difference = None
        if len(current) == len(vector):
            difference = float(np.abs(current.astype(float) - vector.astype(float)).max())
        self.merged.add_conflict(Conflict("features", key, self.source.path, difference))

    def _merge_outcomes(self, connection: sqlite3.Connection, page: list[Row]) -> list[str]:
        """Writes metadata outcomes; returns the keys that the target holds then."""
        existing = _by_key(connection, "SELECT key, outcome FROM metadata", page)
        new = []
        held = []
        for key, text, created in page:
            outcome = sound_outcome(text) if isinstance(key, str) else None
            current = sound_outcome(existing[key][0]) if key in existing else None
            if outcome is None:
                self.merged.damaged += 1
                held += [key] if current is not None else []
                continue
            held.append(key)
            if current is None or ("refusal" in current and "refusal" not in outcome):
                new.append((key, text, created))
            elif "refusal" in outcome or outcome["metadata"] == current["metadata"]:
                self.merged.present += 1
            else:
                self.merged.add_conflict(Conflict("metadata", key, self.source.path))
        connection.executemany("INSERT OR REPLACE INTO metadata VALUES (?, ?, ?)", new)
        self.merged.metadata += len(new)
        return held

    def _merge_corrections(self) -> None:
        """Takes the newer set of corrections of each person."""
        query = "SELECT person, attribute, value, created FROM corrections"
        sets = _by_person(self.source.select(query))
        with self.target.transaction() as connection:
            current = _by_person(connection.execute(query).fetchall())
            for person, rows in sets.items():
                if person in current and _newest(current[person]) >= _newest(rows):
                    continue
                connection.execute("DELETE FROM corrections WHERE person = ?", (person,))
                connection.executemany("INSERT INTO corrections VALUES (?, ?, ?, ?)", rows)
                self.merged.corrections += 1

    def _merge_calls(self) -> None:
        """Adds the calls that the target lacks; a row has no key, so equal rows are counted."""
        query = "SELECT * FROM calls"
        with self.target.transaction() as connection:
            missing = Counter(self.source.select(query)) - Counter(connection.execute(query))
            rows = list(missing.elements())
            connection.executemany("INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self.merged.calls += len(rows)


def _by_key(
    connection: sqlite3.Connection, query: str, page: Sequence[Row]
) -> dict[str, tuple[Any, ...]]:
    rows: dict[str, tuple[Any, ...]] = {}
    for chunk in chunks([row[0] for row in page]):
        found = connection.execute(f"{query} WHERE key IN ({marks(chunk)})", chunk)
        rows.update((key, tuple(values)) for key, *values in found)
    return rows


def _by_person(rows: Sequence[Row]) -> dict[str, list[Row]]:
    people: dict[str, list[Row]] = {}
    for row in rows:
        people.setdefault(row[0], []).append(row)
    return people


def _newest(rows: Sequence[Row]) -> float:
    return max(float(row[3]) for row in rows)

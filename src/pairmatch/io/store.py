"""The store: one SQLite file that keeps what was expensive to make, keyed by content.

Features and metadata are found by a key that digests everything they depend on, so nothing in the
store can be stale: whatever changes, changes the key. People are linked to keys, so that `forget`
can erase them. The file holds personal data and is private to its owner (mode 0600).
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmatch.core.errors import StoreError

_FORMAT = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS features (
    key TEXT PRIMARY KEY, dtype TEXT NOT NULL, vector BLOB NOT NULL, created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS metadata (
    key TEXT PRIMARY KEY, outcome TEXT NOT NULL, created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS people (
    person TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (person, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS people_by_key ON people (key);
CREATE TABLE IF NOT EXISTS corrections (
    person TEXT NOT NULL, attribute TEXT NOT NULL, value TEXT NOT NULL, created REAL NOT NULL,
    PRIMARY KEY (person, attribute)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS calls (
    model TEXT NOT NULL, outcome TEXT NOT NULL, input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, usd REAL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    id TEXT PRIMARY KEY, generator TEXT NOT NULL, remote TEXT, created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batched (
    batch TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (batch, key)) WITHOUT ROWID;
"""
_TIMEOUT_SECONDS = 60.0
_VARIABLES = 500  # below every SQLite build's limit of bound variables


def content_key(parts: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of JSON values in canonical form.

    Equal content gives equal keys on every machine.
    """
    text = json.dumps(
        parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def default_path() -> Path:
    """`~/.cache/pairmatch/store.sqlite`, or the same under `$XDG_CACHE_HOME`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pairmatch" / "store.sqlite"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What `Store.forget` erased.

    People found, features, metadata outcomes and their own corrections removed.
    """

    people: int
    features: int
    metadata: int
    corrections: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """What a model has cost, over all calls that a store knows; nothing of any person.

    Attributes:
        model: Name of the model.
        calls: Answers that were paid for.
        input_tokens: All input tokens, cached ones included.
        output_tokens: Reasoning included.
        usd: Sum over calls whose price was known.
        unpriced: Calls whose price was not.
    """

    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    usd: float
    unpriced: int

    def __str__(self) -> str:
        cost = f"${self.usd:.4f}" + (
            f" and {self.unpriced} calls of unknown price" if self.unpriced else ""
        )
        return f"{self.model}: {self.calls} calls, {self.input_tokens + self.output_tokens:,} tokens, {cost}"


@dataclass(frozen=True, slots=True)
class SubmittedBatch:
    """A batch of metadata requests that has not been collected yet.

    Attributes:
        id: Our own name of it, which the provider is told too.
        remote: The provider's name; None from before the submission until its answer is known.
        created: Seconds since 1970.
        keys: Keys of the outcomes that it will bring.
    """

    id: str
    remote: str | None
    created: float
    keys: tuple[str, ...]


class Store:
    """The SQLite file (WAL mode) that holds features, metadata outcomes and who they belong to.

    Every write is a transaction of its own: a kill loses at most the rows in flight. Several
    processes may read and write at once. One object may be used from several threads.

    Args:
        path: The file, or a folder to put `store.sqlite` into; created with its folder, private to
            the owner. Default: `default_path()`.

    Raises:
        StoreError: The file cannot be opened, is no store, or was written by a newer version.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = default_path() if path is None else Path(path).expanduser()
        if self.path.is_dir() or (not self.path.exists() and not self.path.suffix):
            self.path = self.path / "store.sqlite"
        self._lock = threading.RLock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Created by us and with this mode before SQLite opens it: its -wal and -shm files
            # inherit the mode.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self.path.chmod(0o600)
            self._connection = sqlite3.connect(
                self.path, timeout=_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._prepare()
        except StoreError:  # says what is wrong itself
            raise
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"The store {self.path} cannot be opened: {error}. Name another file with `store=` (--store), or move "
                "this one away: it will be made anew."
            ) from error

    def _prepare(self) -> None:
        run = self._connection.execute
        self._use_write_ahead_log()
        run("PRAGMA synchronous = NORMAL")
        run("PRAGMA secure_delete = ON")
        found = run("PRAGMA user_version").fetchone()[0]
        if found > _FORMAT:
            raise StoreError(
                f"The store {self.path} has format {found}; this pairmatch reads up to {_FORMAT}: upgrade "
                "pairmatch, or name another file with `store=` (--store)."
            )
        if found < _FORMAT:
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_FORMAT}; COMMIT;"
            )

    def _use_write_ahead_log(self) -> None:
        """Two processes that make one file at once.

        SQLite's own timeout does not cover this switch, so we wait.
        """
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise StoreError(
                        f"Writing to the store {self.path} failed: {error}."
                    ) from error
                raise

    def _select(self, query: str, keys: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Rows of `query`, whose `{}` stands for a list of keys, for any number of keys."""
        for start in range(0, len(keys), _VARIABLES):
            chunk = keys[start : start + _VARIABLES]
            with self._lock:
                try:
                    rows = self._connection.execute(
                        query.format(",".join("?" * len(chunk))), chunk
                    ).fetchall()
                except sqlite3.Error as error:
                    raise StoreError(f"Reading the store {self.path} failed: {error}.") from error
            yield from rows

    def features(self, keys: Sequence[str]) -> dict[str, npt.NDArray[np.floating]]:
        """The vectors that are there, by key.

        Each [D], float16 or float32 as they were put, read-only.
        """
        rows = self._select("SELECT key, dtype, vector FROM features WHERE key IN ({})", keys)
        return {key: np.frombuffer(vector, dtype=dtype) for key, dtype, vector in rows}

    def has_features(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that are there."""
        return {key for (key,) in self._select("SELECT key FROM features WHERE key IN ({})", keys)}

    def put_features(self, vectors: Mapping[str, npt.NDArray[np.floating]]) -> None:
        """Writes vectors, all or none.

        A key that is there already keeps its vector (equal keys mean equal content).
        """
        now = time.time()
        rows = [(key, vector.dtype.str, vector.tobytes(), now) for key, vector in vectors.items()]
        with self._writing() as connection:
            connection.executemany("INSERT OR IGNORE INTO features VALUES (?, ?, ?, ?)", rows)

    def metadata(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The metadata outcomes that are there, by key: the JSON objects as they were put."""
        rows = self._select("SELECT key, outcome FROM metadata WHERE key IN ({})", keys)
        return {key: json.loads(outcome) for key, outcome in rows}

    def put_metadata(
        self,
        outcomes: Mapping[str, Mapping[str, Any]],
        *,
        model: str | None = None,
        batch: str | None = None,
    ) -> None:
        """Writes outcomes (JSON objects), all or none; a later outcome replaces an earlier one of the same key.

        Args:
            outcomes: By key.
            model: Notes what each outcome's `usage` cost, in the same transaction, under this name.
            batch: Id of the submitted batch that brought them, which is then done with; keys that
                were forgotten meanwhile are dropped, though not what they cost.
        """
        now = time.time()
        calls = [
            (
                model,
                one.get("refusal", "metadata"),
                u["input_tokens"],
                u["cached_tokens"],
                u["output_tokens"],
                u["usd"],
                now,
            )
            for one in outcomes.values()
            if model is not None and (u := one["usage"])["input_tokens"] + u["output_tokens"]
        ]
        with self._writing() as connection:
            wanted = set(outcomes)
            if batch is not None:
                wanted &= {
                    key
                    for (key,) in connection.execute(
                        "SELECT key FROM batched WHERE batch = ?", (batch,)
                    )
                }
                connection.execute("DELETE FROM batched WHERE batch = ?", (batch,))
                connection.execute("DELETE FROM batches WHERE id = ?", (batch,))
            rows = [
                (key, json.dumps(one, ensure_ascii=False), now)
                for key, one in outcomes.items()
                if key in wanted
            ]
            connection.executemany("INSERT OR REPLACE INTO metadata VALUES (?, ?, ?)", rows)
            connection.executemany("INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", calls)

    def spent(self) -> list[Spent]:
        """What every model has cost so far, over all calls.

        Retries and answers that were erased since included.
        """
        with self._lock:
            rows = self._connection.execute(
                "SELECT model, count(*), sum(input_tokens), sum(output_tokens), total(usd), count(*) - count(usd) "
                "FROM calls GROUP BY model ORDER BY model"
            ).fetchall()
        return [Spent(*row) for row in rows]

    def put_batch(self, batch: str, generator: str, keys: Sequence[str]) -> None:
        """Notes a batch of metadata requests, before it is submitted."""
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO batches VALUES (?, ?, NULL, ?)", (batch, generator, time.time())
            )
            connection.executemany(
                "INSERT INTO batched VALUES (?, ?)", [(batch, key) for key in keys]
            )

    def name_batch(self, batch: str, remote: str) -> None:
        """Notes the name that the provider gave to a batch."""
        with self._writing() as connection:
            connection.execute("UPDATE batches SET remote = ? WHERE id = ?", (remote, batch))

    def batches(self, generator: str) -> list[SubmittedBatch]:
        """Batches of a generator (the digest that its keys begin from) that were not collected yet, oldest first."""
        with self._lock:
            ask = self._connection.execute
            rows = ask(
                "SELECT id, remote, created FROM batches WHERE generator = ? ORDER BY created",
                (generator,),
            )
            return [
                SubmittedBatch(
                    batch,
                    remote,
                    created,
                    tuple(
                        key
                        for (key,) in ask(
                            "SELECT key FROM batched WHERE batch = ?", (batch,)
                        ).fetchall()
                    ),
                )
                for batch, remote, created in rows.fetchall()
            ]

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Makes sure that no other process does the same with this store; ends with the process, however it dies.

        Raises:
            StoreError: Another process is at it.
        """
        lock = sqlite3.connect(
            self.path.with_name(f"{self.path.name}-{what}"), timeout=0, isolation_level=None
        )
        try:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                raise StoreError(
                    f"Another process works on the {what} of {self.path}: wait until it is done."
                ) from error
            yield
        finally:
            lock.close()

    def put_corrections(self, corrections: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes what people say about themselves: by person, all of their corrections, JSON values by attribute.

        They belong to the person, not to a photo or a model, and stay until the next call or
        `forget`.
        """
        now = time.time()
        with self._writing() as connection:
            connection.executemany(
                "DELETE FROM corrections WHERE person = ?", [(person,) for person in corrections]
            )
            connection.executemany(
                "INSERT INTO corrections VALUES (?, ?, ?, ?)",
                [
                    (person, attribute, json.dumps(value, ensure_ascii=False), now)
                    for person, values in corrections.items()
                    for attribute, value in values.items()
                ],
            )

    def corrections(self, people: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Corrections of those of the people who have some, by person and attribute."""
        found: dict[str, dict[str, Any]] = {}
        for person, attribute, value in self._select(
            "SELECT person, attribute, value FROM corrections WHERE person IN ({})", people
        ):
            found.setdefault(person, {})[attribute] = json.loads(value)
        return found

    def link(self, people: Iterable[tuple[str, str]]) -> None:
        """Notes which keys hold something about which person: (person id, key)."""
        rows = sorted(set(people))
        known = {
            (person, key)
            for person, key in self._select(
                "SELECT person, key FROM people WHERE key IN ({})", sorted({key for _, key in rows})
            )
        }
        new = [row for row in rows if row not in known]
        if new:
            with self._writing() as connection:
                connection.executemany("INSERT OR IGNORE INTO people VALUES (?, ?)", new)

    def forget(self, ids: Sequence[str]) -> Forgotten:
        """Erases people: everything under a key of theirs, also where somebody else has the very same photo.

        The bytes are overwritten and the write-ahead log is emptied, so that nothing stays behind
        in the files.
        """
        people: set[str] = set()
        keys: set[str] = set()
        corrected = 0
        with self._writing() as connection:
            for start in range(0, len(ids), _VARIABLES):
                chunk = list(ids[start : start + _VARIABLES])
                marks = ",".join("?" * len(chunk))
                for person, key in connection.execute(
                    f"SELECT person, key FROM people WHERE person IN ({marks})", chunk
                ):
                    people.add(person)
                    keys.add(key)
                connection.execute(f"DELETE FROM people WHERE person IN ({marks})", chunk)
                people |= {
                    person
                    for (person,) in connection.execute(
                        f"SELECT DISTINCT person FROM corrections WHERE person IN ({marks})", chunk
                    )
                }
                corrected += connection.execute(
                    f"DELETE FROM corrections WHERE person IN ({marks})", chunk
                ).rowcount
            removed = {"features": 0, "metadata": 0}
            for key in keys:
                for table in removed:
                    removed[table] += connection.execute(
                        f"DELETE FROM {table} WHERE key = ?", (key,)
                    ).rowcount
                connection.execute("DELETE FROM people WHERE key = ?", (key,))
                connection.execute("DELETE FROM batched WHERE key = ?", (key,))
        with self._lock:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return Forgotten(len(people), removed["features"], removed["metadata"], corrected)

    def counts(self) -> dict[str, int]:
        """Number of features, metadata outcomes and people in the store."""
        with self._lock:
            ask = self._connection.execute
            return {
                "features": ask("SELECT count(*) FROM features").fetchone()[0],
                "metadata": ask("SELECT count(*) FROM metadata").fetchone()[0],
                "people": ask("SELECT count(DISTINCT person) FROM people").fetchone()[0],
            }

    def close(self) -> None:
        """Closes the file; the object cannot be used afterwards."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""The store: one SQLite file that keeps what was expensive to make, keyed by content.

Features and metadata are found by a key that digests everything they depend on, so nothing in the store can be stale:
whatever changes, changes the key. People are linked to keys, so that `forget` can erase them. The file holds
personal data and is private to its owner (mode 0600).
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

from pairmatch.errors import StoreError

_FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS features (
    key TEXT PRIMARY KEY, dtype TEXT NOT NULL, vector BLOB NOT NULL, created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS metadata (
    key TEXT PRIMARY KEY, outcome TEXT NOT NULL, created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS people (
    person TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (person, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS people_by_key ON people (key);
"""
_TIMEOUT_SECONDS = 60.0
_VARIABLES = 500  # below every SQLite build's limit of bound variables


def content_key(parts: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of JSON values in canonical form; equal content gives equal keys on every machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def default_path() -> Path:
    """`~/.cache/pairmatch/store.sqlite`, or the same under `$XDG_CACHE_HOME`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pairmatch" / "store.sqlite"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What `Store.forget` erased: people found, features and metadata outcomes removed."""

    people: int
    features: int
    metadata: int


class Store:
    """The SQLite file (WAL mode) that holds features, metadata outcomes and who they belong to.

    Every write is a transaction of its own: a kill loses at most the rows in flight. Several processes may read and
    write at once. One object may be used from several threads.

    Args:
        path: The file, or a folder to put `store.sqlite` into; created with its folder, private to the owner.
            Default: `default_path()`.

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
            # Created by us and with this mode before SQLite opens it: its -wal and -shm files inherit the mode.
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
            self._connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_FORMAT}; COMMIT;")

    def _use_write_ahead_log(self) -> None:
        """Two processes that make one file at once: SQLite's own timeout does not cover this switch, so we wait."""
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
                    raise StoreError(f"Writing to the store {self.path} failed: {error}.") from error
                raise

    def _select(self, query: str, keys: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Rows of `query`, whose `{}` stands for a list of keys, for any number of keys."""
        for start in range(0, len(keys), _VARIABLES):
            chunk = keys[start : start + _VARIABLES]
            with self._lock:
                try:
                    rows = self._connection.execute(query.format(",".join("?" * len(chunk))), chunk).fetchall()
                except sqlite3.Error as error:
                    raise StoreError(f"Reading the store {self.path} failed: {error}.") from error
            yield from rows

    def features(self, keys: Sequence[str]) -> dict[str, npt.NDArray[np.floating]]:
        """The vectors that are there, by key: each [D], float16 or float32 as they were put, read-only."""
        rows = self._select("SELECT key, dtype, vector FROM features WHERE key IN ({})", keys)
        return {key: np.frombuffer(vector, dtype=dtype) for key, dtype, vector in rows}

    def has_features(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that are there."""
        return {key for (key,) in self._select("SELECT key FROM features WHERE key IN ({})", keys)}

    def put_features(self, vectors: Mapping[str, npt.NDArray[np.floating]]) -> None:
        """Writes vectors, all or none; a key that is there already keeps its vector (equal keys mean equal content)."""
        now = time.time()
        rows = [(key, vector.dtype.str, vector.tobytes(), now) for key, vector in vectors.items()]
        with self._writing() as connection:
            connection.executemany("INSERT OR IGNORE INTO features VALUES (?, ?, ?, ?)", rows)

    def metadata(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The metadata outcomes that are there, by key: the JSON objects as they were put."""
        rows = self._select("SELECT key, outcome FROM metadata WHERE key IN ({})", keys)
        return {key: json.loads(outcome) for key, outcome in rows}

    def put_metadata(self, outcomes: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes outcomes (JSON objects), all or none; a later outcome replaces an earlier one of the same key."""
        now = time.time()
        rows = [(key, json.dumps(outcome, ensure_ascii=False), now) for key, outcome in outcomes.items()]
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO metadata VALUES (?, ?, ?)", rows)

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

        The bytes are overwritten and the write-ahead log is emptied, so that nothing stays behind in the files.
        """
        people: set[str] = set()
        keys: set[str] = set()
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
            removed = {"features": 0, "metadata": 0}
            for key in keys:
                for table in removed:
                    removed[table] += connection.execute(f"DELETE FROM {table} WHERE key = ?", (key,)).rowcount
                connection.execute("DELETE FROM people WHERE key = ?", (key,))
        with self._lock:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return Forgotten(len(people), removed["features"], removed["metadata"])

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

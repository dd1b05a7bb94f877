"""The store: one SQLite file that keeps expensive results, keyed by content.

Features and metadata are stored under a key that digests everything they depend on, so no entry can
be stale: any change changes the key. People are linked to keys, so that `forget` can erase them.
The file holds personal data and is private to its owner (mode 0600).
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmatch.core.errors import ConfigurationError, StoreError
from pairmatch.core.ids import id_texts
from pairmatch.core.text import printable
from pairmatch.io import claims as _claims
from pairmatch.io import outcomes as _outcomes
from pairmatch.io import people as _people
from pairmatch.io.claims import Claims
from pairmatch.io.files import check_path, expand_user
from pairmatch.io.locks import exclusive_lock
from pairmatch.io.outcomes import Spent, SubmittedBatch
from pairmatch.io.people import QUERY_ID, Forgotten
from pairmatch.io.reading import Damage
from pairmatch.io.sqlite import Database
from pairmatch.io.sqlite_files import why_not_ours

__all__ = [
    "QUERY_ID",
    "Forgotten",
    "Spent",
    "Store",
    "SubmittedBatch",
    "content_key",
    "default_path",
    "store_path",
]

_FORMAT = 2
_REMEDY = "move this file away, or name another one with `store=` (--store)"
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS features ("
    "key TEXT PRIMARY KEY, dtype TEXT NOT NULL, vector BLOB NOT NULL, created REAL NOT NULL) "
    "WITHOUT ROWID",
    *_outcomes.SCHEMA,
    *_people.SCHEMA,
    _claims.TABLE,
)
# A vector that can be read: the width is checked again by those who read several
_IS_SOUND = (
    "typeof(vector) = 'blob' AND length(vector) > 0 AND "
    "((dtype IN ('<f2', '>f2') AND length(vector) % 2 = 0) OR "
    "(dtype IN ('<f4', '>f4') AND length(vector) % 4 = 0) OR "
    "(dtype IN ('<f8', '>f8') AND length(vector) % 8 = 0))"
)


def content_key(parts: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of JSON values in canonical form.

    Equal content has equal keys on every machine.
    """
    text = json.dumps(
        parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def default_path() -> Path:
    """`~/.cache/pairmatch/store.sqlite`, or the same under `$XDG_CACHE_HOME`.

    Raises:
        ConfigurationError: There is no home folder.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        cache = Path(base) if base else Path.home() / ".cache"
    except RuntimeError:
        raise ConfigurationError(
            "The default store is in the home folder, and there is none: name a store with "
            "`store=` (--store), or set HOME."
        ) from None
    return cache / "pairmatch" / "store.sqlite"


def store_path(path: str | Path | None = None) -> Path:
    """The file of a store: the path itself, or `store.sqlite` in the folder that it names.

    Args:
        path: Path to the file or to a folder; None for `default_path()`.

    Raises:
        ConfigurationError: The path begins with a user or home folder that does not exist, or no
            file can have this path.
    """
    file = default_path() if path is None else expand_user(path)
    check_path(file)
    try:
        is_folder = file.is_dir() or (not file.exists() and not file.suffix)
    except OSError as error:
        raise StoreError(
            f"The store {printable(str(file))} cannot be opened: {error.strerror}."
        ) from error
    return file / "store.sqlite" if is_folder else file


def check_store(file: Path) -> None:
    """Checks that a file may be opened as a store; writes nothing.

    Raises:
        StoreError: The file holds something else, or cannot be read.
    """
    try:
        reason = why_not_ours(file, "store", version=_FORMAT, schema=_SCHEMA)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
    if reason:
        raise StoreError(
            f"The store {printable(str(file))} cannot be opened: {reason}. {_REMEDY[0].upper()}"
            f"{_REMEDY[1:]}."
        )


class Store:
    """The SQLite file (WAL mode) that holds features, metadata outcomes and their people.

    Every write is one transaction: a killed process loses at most the rows in flight. Several
    processes may read and write at once, and several threads may share one object.

    Args:
        path: Path to the file, or to a folder for `store.sqlite`; created with its folder, private
            to the owner. Default: `default_path()`.
        create: Whether to create a missing file.

    Raises:
        StoreError: The file is missing and `create` is false, cannot be opened, is damaged, was
            written by a newer version, or is not a store: it is not changed then.
    """

    def __init__(self, path: str | Path | None = None, *, create: bool = True) -> None:
        self.path = store_path(path)
        if not create and not self.path.exists():
            raise StoreError(
                f"The store {printable(str(self.path))} does not exist: name another one with "
                "`store=` (--store)."
            )
        self._database = Database(
            self.path,
            kind="store",
            name=f"The store {printable(str(self.path))}",
            version=_FORMAT,
            schema=_SCHEMA,
            create=create,
            remedy=_REMEDY,
        )

    def features(self, keys: Sequence[str]) -> dict[str, npt.NDArray[np.floating]]:
        """Vectors that exist, by key; damaged ones count as absent, and a warning is logged.

        Each is [D], float16 or float32 as it was written, and read-only.
        """
        query = f"SELECT key, {_IS_SOUND}, dtype, vector FROM features WHERE key IN ({{}})"
        damage = Damage(self._database.name, "features")
        vectors: dict[str, npt.NDArray[np.floating]] = {}
        for key, is_sound, dtype, content in self._database.select_in(query, keys):
            vector = np.frombuffer(content, dtype=dtype) if is_sound else None
            if vector is not None and np.isfinite(vector).all():
                vectors[key] = vector
            else:
                damage.count += 1
        damage.report()
        return vectors

    def has_features(self, keys: Sequence[str]) -> set[str]:
        """Subset of the keys that have a vector, judged by its length and not by its values."""
        query = f"SELECT key FROM features WHERE key IN ({{}}) AND {_IS_SOUND}"
        return {key for (key,) in self._database.select_in(query, keys)}

    def put_features(self, vectors: Mapping[str, npt.NDArray[np.floating]]) -> None:
        """Writes vectors, all or none.

        An existing key keeps its vector (equal keys mean equal content), unless it is damaged.
        """
        now = time.time()
        rows = [(key, vector.dtype.str, vector.tobytes(), now) for key, vector in vectors.items()]
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT INTO features VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "dtype = excluded.dtype, vector = excluded.vector, created = excluded.created "
                f"WHERE NOT ({_IS_SOUND.replace('vector', 'features.vector')})",
                rows,
            )

    def drop_features(self, keys: Iterable[str]) -> None:
        """Removes vectors that turned out to be damaged, so that they are extracted again."""
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM features WHERE key = ?", [(key,) for key in sorted(set(keys))]
            )

    def metadata(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Metadata outcomes that exist, by key: the JSON objects that were written.

        Damaged ones count as absent, and a warning is logged.
        """
        return _outcomes.read_outcomes(self._database, keys)

    def put_metadata(
        self,
        outcomes: Mapping[str, Mapping[str, Any]],
        *,
        model: str | None = None,
        batch: str | None = None,
        claims: Claims | None = None,
    ) -> None:
        """Writes outcomes (JSON objects), all or none; a later outcome replaces an earlier one.

        Args:
            outcomes: Outcomes by key.
            model: Name of the model whose cost is recorded in the same transaction, from each
                outcome's `usage`; None records no cost.
            batch: Id of the submitted batch that delivered the outcomes; it is then closed. Keys
                that were forgotten since the submission are dropped, but their cost is recorded.
            claims: Claims of the run that generated the outcomes; those of the keys end. Keys that
                were forgotten since they were claimed are dropped, but their cost is recorded.
        """
        owner = None if claims is None else claims.owner
        _outcomes.write_outcomes(self._database, outcomes, model, batch, owner)

    def claims(self) -> AbstractContextManager[Claims]:
        """Claims on keys, so that no other run generates the same outcomes at the same time.

        They end with the block, or with the process, however it ends.
        """
        return _claims.hold_claims(self._database)

    def spent(self) -> list[Spent]:
        """Cost of every model so far, including retries and outcomes that were erased since."""
        return _outcomes.read_spending(self._database)

    def put_batch(self, batch: str, generator: str, keys: Sequence[str]) -> None:
        """Records a batch of metadata requests, before it is submitted."""
        _outcomes.add_batch(self._database, batch, generator, keys)

    def name_batch(self, batch: str, remote: str) -> None:
        """Records the id that the provider gave a batch."""
        _outcomes.name_batch(self._database, batch, remote)

    def batches(self, generator: str) -> list[SubmittedBatch]:
        """Batches that were not collected yet, oldest first.

        Args:
            generator: Digest of the generator, as in the keys of its outcomes.
        """
        return _outcomes.read_batches(self._database, generator)

    def exclusive(self, task: str) -> AbstractContextManager[None]:
        """Keeps other processes from doing the same task with this store.

        The lock ends with the process, however it ends.

        Raises:
            StoreError: Another process is doing the task.
        """
        return exclusive_lock(
            self.path.with_name(f"{self.path.name}-{task}"),
            f"Another process is working on the {task} of {self.path}: wait until it finishes.",
        )

    def put_corrections(self, corrections: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes what people state about themselves: JSON values by person and attribute.

        Replaces all earlier corrections of these people. Corrections belong to the person, not to a
        photo or a model, and last until the next call or `forget`.
        """
        _people.write_corrections(self._database, corrections)

    def corrections(self, people: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Corrections by person and attribute; people without corrections are left out."""
        return _people.read_corrections(self._database, people)

    def link(self, people: Iterable[tuple[str, str]]) -> None:
        """Records which keys hold data of which person: (person id, key)."""
        _people.link_people(self._database, people)

    def known(self, ids: Sequence[str]) -> set[str]:
        """Subset of the ids of people with anything in the store, in any Unicode normal form."""
        return _people.known_people(self._database, id_texts("known(ids)", ids))

    def forget(self, ids: Sequence[str]) -> Forgotten:
        """Erases people: everything under their keys, even if another person has the same photo.

        The file is rewritten and the write-ahead log is emptied, so that nothing remains in the
        files; then the files are searched for the erased keys. This takes time and free disk space
        in proportion to the size of the store.

        Raises:
            ConfigurationError: `ids` is not a list of ids.
            StoreError: The deletion fails; or it succeeds, but another process keeps reading the
                file, so that deleted bytes remain. Call `forget` again then.
        """
        return _people.forget_people(self._database, id_texts("forget(ids)", ids))

    def forget_queries(self) -> Forgotten:
        """Erases everything about query people without an id, such as those of `recommend`.

        Raises:
            StoreError: As for `forget`.
        """
        return self.forget([QUERY_ID])

    def counts(self) -> dict[str, int]:
        """Number of features, metadata outcomes and people in the store."""
        queries = {
            "features": "SELECT count(*) FROM features",
            "metadata": "SELECT count(*) FROM metadata",
            "people": "SELECT count(DISTINCT person) FROM people",
        }
        with self._database.snapshot():
            return {name: self._database.select(query)[0][0] for name, query in queries.items()}

    def close(self) -> None:
        """Closes the file; the object cannot be used afterwards."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

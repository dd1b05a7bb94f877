"""Claims on work under way, so that two runs that share a store never pay for the same photo."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pairmatch.io.locks import exclusive_lock, is_locked
from pairmatch.io.sqlite import Database, chunks, marks

#: Also executed before each use, because stores of the same format may lack the table.
TABLE = (
    "CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID"
)


class Claims:
    """The keys that one run works on; made by `hold_claims`.

    A claim holds as long as the run holds its lock file, which ends with its process, however it
    ends: no clock decides.

    Attributes:
        owner: Id of the run.
    """

    def __init__(self, database: Database, owner: str) -> None:
        self.owner = owner
        self._database = database

    def take(self, keys: Iterable[str]) -> set[str]:
        """Claims the keys that no other run has claimed; returns those that this run has now."""
        wanted = list(keys)
        with self._database.transaction() as connection:
            owners = connection.execute(
                "SELECT DISTINCT owner FROM claims WHERE owner != ?", (self.owner,)
            ).fetchall()
            for (owner,) in owners:
                if not is_locked(lock_path(self._database.path, owner)):
                    connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))
            connection.executemany(
                "INSERT OR IGNORE INTO claims VALUES (?, ?)", [(key, self.owner) for key in wanted]
            )
            taken: set[str] = set()
            for chunk in chunks(wanted):
                rows = connection.execute(
                    f"SELECT key FROM claims WHERE owner = ? AND key IN ({marks(chunk)})",
                    (self.owner, *chunk),
                )
                taken |= {key for (key,) in rows}
        return taken

    def release(self, keys: Iterable[str]) -> None:
        """Gives up claims of this run."""
        rows = [(key, self.owner) for key in keys]
        if rows:
            with self._database.transaction() as connection:
                connection.executemany("DELETE FROM claims WHERE key = ? AND owner = ?", rows)


@contextmanager
def hold_claims(database: Database) -> Iterator[Claims]:
    """The claims of a run; all are given up at the end of the block.

    Raises:
        StoreError: The lock file of the run cannot be used.
    """
    owner = uuid.uuid4().hex
    path = lock_path(database.path, owner)
    try:
        with exclusive_lock(path, f"The lock {path} is held by another process."):
            with database.transaction() as connection:
                connection.execute(TABLE)
            try:
                yield Claims(database, owner)
            finally:
                with database.transaction() as connection:
                    connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))
    finally:
        with suppress(OSError):
            path.unlink()


def lock_path(store: Path, owner: str) -> Path:
    """Lock file of a run."""
    return store.with_name(f"{store.name}-claims-{owner}")

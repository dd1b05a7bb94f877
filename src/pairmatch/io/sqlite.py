"""SQLite files: opened privately, in write-ahead mode and in one known format.

The store and the gallery journal open their files here and nowhere else.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from pairmatch.core.errors import PairmatchError, StoreError

_RETRY_SECONDS = 0.02
#: Longest wait for other processes that use the same file.
TIMEOUT_SECONDS = 60.0
_VARIABLES = 500  # below the limit on bound variables of every SQLite build
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}


class Database:
    """One SQLite file in WAL mode.

    Several processes may read and write the file at once, and several threads may share one
    object. Deleted content is overwritten (`secure_delete`).

    Args:
        path: Path to the file.
        name: Name of the file in error messages, such as "The store people.sqlite".
        version: Newest format (`user_version`) that this version of pairmatch reads.
        schema: Statements that bring a new file, or one of an older format, to `version`.
        remedy: What to do about a file that cannot be used, such as "name another file".
        synchronous: "NORMAL" may lose the last transactions in a power failure, "FULL" does not.
        create: Whether to create a missing file and its folder. The file is private to its owner
            (mode 0600).

    Raises:
        StoreError: The file cannot be opened, is not a database, or has a newer format.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        version: int,
        schema: Sequence[str],
        remedy: str,
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        create: bool = True,
    ) -> None:
        self.path = path
        self.name = name
        self.lock = threading.RLock()
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                _create_private(path)
            self.connection = _connect(path, TIMEOUT_SECONDS, create=create)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error, remedy) from error
        try:
            self._use_write_ahead_log()
            self.connection.execute(f"PRAGMA synchronous = {synchronous}")
            self.connection.execute("PRAGMA secure_delete = ON")
            self._use_format(version, schema, remedy)
        except sqlite3.Error as error:
            self.connection.close()
            raise self._unusable(error, remedy) from error
        except BaseException:
            self.connection.close()
            raise

    def _unusable(self, error: Exception, remedy: str) -> StoreError:
        advice = f"{remedy[0].upper()}{remedy[1:]}."
        return StoreError(f"{self.name} cannot be opened: {error}. {advice}")

    def _use_write_ahead_log(self) -> None:
        """Switches to WAL mode; retries, because SQLite's own timeout does not cover this switch.

        Without the retry, one of two processes that create a file at once fails with "database is
        locked".
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                self.connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_SECONDS)

    def _use_format(self, version: int, schema: Sequence[str], remedy: str) -> None:
        if self._format() < version:
            with self.transaction() as connection:
                if self._format() < version:  # another process may have been faster
                    for statement in schema:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {version}")
        if (newer := self._format()) > version:
            raise StoreError(
                f"{self.name} has format {newer}; this pairmatch reads up to {version}: upgrade "
                f"pairmatch, or {remedy}."
            )

    def _format(self) -> int:
        version: int = self.connection.execute("PRAGMA user_version").fetchone()[0]
        return version

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction: committed as a whole or not at all; other writers wait.

        Raises:
            StoreError: SQLite, or a file operation in the block, fails.
        """
        with self.lock:
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException as error:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error | OSError) and not isinstance(
                    error, PairmatchError
                ):
                    raise StoreError(f"{self.name} cannot be written: {error}.") from error
                raise

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """One read transaction: all queries see the same state; joins a transaction that is open.

        Raises:
            StoreError: SQLite fails.
        """
        with self.lock:
            joined = self.connection.in_transaction
            try:
                if not joined:
                    self.connection.execute("BEGIN")
                yield self.connection
            except sqlite3.Error as error:
                raise StoreError(f"{self.name} cannot be read: {error}.") from error
            finally:
                if not joined and self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")

    def select(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query.

        Raises:
            StoreError: SQLite fails.
        """
        with self.lock:
            try:
                return self.connection.execute(query, parameters).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"{self.name} cannot be read: {error}.") from error

    def select_in(self, query: str, values: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Rows of a query whose `{}` stands for a list of values, for any number of values."""
        for chunk in chunks(values):
            yield from self.select(query.format(marks(chunk)), chunk)

    def empty_log(self) -> None:
        """Moves all content to the main file and truncates the write-ahead log.

        Deleted content may remain in the log until this returns.

        Raises:
            StoreError: Readers keep the log in use for longer than the timeout.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not self._truncate_log(deadline - time.monotonic()):
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self.name} still has deleted data in its write-ahead log, because another "
                    f"process has been reading it for {TIMEOUT_SECONDS:g} seconds. The "
                    "deletion itself is complete: stop the other process and delete again to "
                    "empty the log."
                )
            time.sleep(_RETRY_SECONDS)

    def _truncate_log(self, seconds: float) -> bool:
        """Whether the log could be emptied within some seconds; may return earlier if not."""
        run = self.connection.execute
        with self.lock:
            try:
                # One second at most, so that other threads can use the connection in between.
                run(f"PRAGMA busy_timeout = {round(1000 * min(max(seconds, 0.0), 1.0))}")
                return not run("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            except sqlite3.Error as error:
                if _is_busy(error):
                    return False
                raise StoreError(f"The log of {self.path} cannot be emptied: {error}.") from error
            finally:
                with suppress(sqlite3.Error):
                    run(f"PRAGMA busy_timeout = {round(1000 * TIMEOUT_SECONDS)}")

    def close(self) -> None:
        """Closes the file; the object cannot be used afterwards."""
        with self.lock:
            self.connection.close()


@contextmanager
def exclusive_lock(path: Path, message: str) -> Iterator[None]:
    """Holds a lock file for the block; the lock ends with the process, however it ends.

    Args:
        path: Path to the lock file; created if it is missing.
        message: Error message if another process holds the lock.

    Raises:
        StoreError: Another process holds the lock, or the file cannot be used.
    """
    try:
        _create_private(path)
        connection = _connect(path, 0.0, create=True)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"The lock {path} cannot be opened: {error}.") from error
    try:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if _is_busy(error):
                raise StoreError(message) from error
            raise StoreError(f"The lock {path} cannot be used: {error}.") from error
        yield
    finally:
        connection.close()


def read_values(path: Path, queries: Sequence[str]) -> list[Any]:
    """The first value of each query, without changing the file or creating others beside it.

    Raises:
        StoreError: The file cannot be read.
    """
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            return [connection.execute(query).fetchone()[0] for query in queries]
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read: {error}") from error


def chunks(values: Sequence[str]) -> Iterator[list[str]]:
    """Values in lists that are short enough for the variables of one statement."""
    for start in range(0, len(values), _VARIABLES):
        yield list(values[start : start + _VARIABLES])


def marks(values: Sequence[str]) -> str:
    """Question marks for a list of values: "?,?,?"."""
    return ",".join("?" * len(values))


def _create_private(path: Path) -> None:
    """Creates the file with mode 0600 before SQLite opens it: -wal and -shm inherit the mode."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    path.chmod(0o600)


def _connect(path: Path, timeout_seconds: float, *, create: bool) -> sqlite3.Connection:
    if not create and not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    return sqlite3.connect(
        path, timeout=timeout_seconds, isolation_level=None, check_same_thread=False
    )


def _is_busy(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)  # missing on errors of the Python module itself
    return code is not None and code & 0xFF in _BUSY

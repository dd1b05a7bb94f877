"""SQLite files: opened privately, in write-ahead mode and in one known format.

The store and the gallery journal open their files here and nowhere else.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from pairmatch.core.errors import PairmatchError, StoreError
from pairmatch.core.text import printable
from pairmatch.io.sqlite_files import (
    APPLICATION_IDS,
    DatabaseKind,
    connect,
    is_busy,
    is_writable,
    make_private,
    read_only,
    why_not_ours,
)

_RETRY_SECONDS = 0.02
#: Longest wait for other processes that write to the same file.
TIMEOUT_SECONDS = 60.0
#: Longest wait for other processes whose reading keeps deleted content in the file.
ERASURE_SECONDS = 10.0
_CHECKED_BYTES = 8_000_000  # files up to this size are checked when they are opened: some 50 ms
_VARIABLES = 500  # below the limit on bound variables of every SQLite build
# Text and numbers that SQLite cannot hold are errors of Python, not of SQLite
_FAULTS = (sqlite3.Error, UnicodeError, OverflowError)


class Database:
    """One SQLite file in WAL mode, marked as ours (`application_id`).

    Several processes may read and write the file at once, and several threads may share one
    object. Deleted content is overwritten (`secure_delete`), and `purge` removes its last traces.
    A file that cannot be written is opened for reading.

    Args:
        path: Path to the file.
        kind: What the file holds.
        name: Name of the file in error messages, such as "The store people.sqlite".
        version: Newest format (`user_version`) that this version of pairmatch reads.
        schema: Statements that bring a new file, or one of an older format, to `version`.
        remedy: What to do about a file that cannot be used, such as "name another file".
        synchronous: "NORMAL" may lose the last transactions in a power failure, "FULL" does not.
        create: Whether to create a missing file and its folder. The file is private to its owner
            (mode 0600).

    Raises:
        StoreError: The file cannot be opened, is damaged, has a newer format, or is not ours; a
            file that is not ours is not changed.
    """

    def __init__(
        self,
        path: Path,
        *,
        kind: DatabaseKind,
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
        self._kind = kind
        self._remedy = remedy
        try:
            if not create and not path.exists():
                raise FileNotFoundError(f"{printable(str(path))} does not exist")
            if reason := why_not_ours(path, kind, version=version, schema=schema):
                raise self._unusable(reason)
            if create:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.writable = is_writable(path)
            if self.writable:
                make_private(path, create=create)
            elif not path.exists():
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            self.connection = connect(path, TIMEOUT_SECONDS) if self.writable else read_only(path)
        except PairmatchError:
            raise
        except (OSError, ValueError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        try:
            self._check_content()
            if self.writable:
                self.connection.execute(f"PRAGMA synchronous = {synchronous}")
                self.connection.execute("PRAGMA secure_delete = ON")
                # The mark comes before the log, so that it is in the header of the file itself
                self._use_format(version, schema)
                self._use_write_ahead_log()
            self._check_format(version)
        except _FAULTS as error:
            self.connection.close()
            raise self._unusable(error) from error
        except BaseException:
            self.connection.close()
            raise

    def _unusable(self, reason: str | Exception) -> StoreError:
        advice = f"{self._remedy[0].upper()}{self._remedy[1:]}."
        text = reason if isinstance(reason, str) else _reason(reason)
        return StoreError(f"{self.name} cannot be opened: {text}. {advice}")

    def _check_content(self) -> None:
        """Raises sqlite3.DatabaseError if the structure is damaged; skipped for large files."""
        self.connection.execute("PRAGMA cell_size_check = ON")
        if self.path.stat().st_size <= _CHECKED_BYTES:
            finding = self.connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if finding != "ok":
                words = " ".join(str(finding).split())
                raise sqlite3.DatabaseError(f"the file is damaged ({words[:200]})")
        query = "SELECT count(*) FROM sqlite_master WHERE type IN ('trigger', 'view')"
        if self.connection.execute(query).fetchone()[0]:
            raise sqlite3.DatabaseError("it holds triggers or views that pairmatch did not write")

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
                if not is_busy(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_SECONDS)

    def _use_format(self, version: int, schema: Sequence[str]) -> None:
        """Creates or upgrades the tables, and marks the file."""
        if self._is_current(version):
            return
        with self.transaction() as connection:
            if self._is_current(version):  # another process may have been faster
                return
            for statement in schema:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_IDS[self._kind]}")

    def _is_current(self, version: int) -> bool:
        mark = self._number("application_id")
        return self._number("user_version") >= version and mark == APPLICATION_IDS[self._kind]

    def _check_format(self, version: int) -> None:
        current = self._number("user_version")
        if current > version:
            raise StoreError(
                f"{self.name} has format {current}; this pairmatch reads up to {version}: upgrade "
                f"pairmatch, or {self._remedy}."
            )
        if current < version:
            raise StoreError(
                f"{self.name} has format {current} and cannot be written, so that it cannot be "
                f"brought to format {version}: make it writable, or {self._remedy}."
            )

    def _number(self, pragma: str) -> int:
        number: int = self.connection.execute(f"PRAGMA {pragma}").fetchone()[0]
        return number

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction: committed as a whole or not at all; other writers wait.

        Raises:
            StoreError: SQLite, or a file operation in the block, fails.
        """
        if not self.writable:
            raise StoreError(
                f"{self.name} cannot be written: the file or its folder is read-only. Make it "
                f"writable, or {self._remedy}."
            )
        with self.lock:
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException as error:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                is_fault = isinstance(error, (*_FAULTS, OSError))
                if is_fault and not isinstance(error, PairmatchError):
                    raise StoreError(f"{self.name} cannot be written: {_reason(error)}.") from error
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
            except _FAULTS as error:
                raise StoreError(f"{self.name} cannot be read: {_reason(error)}.") from error
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
            except _FAULTS as error:
                raise StoreError(f"{self.name} cannot be read: {_reason(error)}.") from error

    def select_in(self, query: str, values: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Rows of a query whose `{}` stands for a list of values, for any number of values."""
        for chunk in chunks(values):
            yield from self.select(query.format(marks(chunk)), chunk)

    def purge(self) -> None:
        """Rewrites the file without traces of deleted content, and empties the write-ahead log.

        `secure_delete` overwrites deleted rows, but not the copies that SQLite leaves in the unused
        space of pages when it moves rows.

        Raises:
            StoreError: The file cannot be rewritten, or readers keep the log in use for longer than
                `ERASURE_SECONDS`.
        """
        with self.lock:
            try:
                self.connection.execute("VACUUM")
            except sqlite3.Error as error:
                raise StoreError(
                    f"{self.name} may still have traces of deleted data, because it could not be "
                    f"rewritten: {_reason(error)}. The deletion itself is complete: free "
                    "as much disk space as the file takes, stop other processes, and delete again."
                ) from error
        deadline = time.monotonic() + ERASURE_SECONDS
        while not self._truncate_log(deadline - time.monotonic()):
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self.name} still has deleted data in its file or its write-ahead log, "
                    f"because another process has been reading it for {ERASURE_SECONDS:g} seconds. "
                    "The deletion itself is complete: stop the other process and delete again to "
                    "erase these traces."
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
                if is_busy(error):
                    return False
                raise StoreError(
                    f"{self.name} still has deleted data: {_reason(error)}."
                ) from error
            finally:
                with suppress(sqlite3.Error):
                    run(f"PRAGMA busy_timeout = {round(1000 * TIMEOUT_SECONDS)}")

    def files(self) -> list[Path]:
        """The files that may hold content: the database, and the logs of SQLite if they exist."""
        return [
            self.path,
            *(self.path.with_name(f"{self.path.name}{end}") for end in ("-wal", "-journal")),
        ]

    def close(self) -> None:
        """Closes the file; the object cannot be used afterwards."""
        with self.lock:
            self.connection.close()


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
        raise StoreError(f"{printable(str(path))} cannot be read: {_reason(error)}") from error


def chunks(values: Sequence[str]) -> Iterator[list[str]]:
    """Values in lists that are short enough for the variables of one statement."""
    for start in range(0, len(values), _VARIABLES):
        yield list(values[start : start + _VARIABLES])


def marks(values: Sequence[str]) -> str:
    """Question marks for a list of values: "?,?,?"."""
    return ",".join("?" * len(values))


def _reason(error: BaseException) -> str:
    """Words of an error; those of a damaged file may hold its bytes."""
    return printable((isinstance(error, OSError) and error.strerror) or str(error))

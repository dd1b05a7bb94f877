"""Locks between processes: a file that one process at a time holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pairmatch.core.errors import PairmatchError, StoreError
from pairmatch.core.text import printable
from pairmatch.io.sqlite_files import connect, is_busy, make_private


@contextmanager
def exclusive_lock(path: Path, message: str) -> Iterator[None]:
    """Holds a lock file for the block; the lock ends with the process, however it ends.

    Args:
        path: Path to the lock file; created if it is missing.
        message: Error message if another process holds the lock.

    Raises:
        StoreError: Another process holds the lock, or the file cannot be used.
    """
    named = printable(str(path))
    try:
        if path.exists() and (not path.is_file() or path.stat().st_size):
            raise StoreError(f"{named} is in the way of a lock, and not a lock: move it away.")
        make_private(path, create=True)
        connection = connect(path, 0.0)
    except (OSError, ValueError, sqlite3.Error) as error:
        if isinstance(error, PairmatchError):
            raise
        raise StoreError(f"The lock {named} cannot be opened: {error}.") from error
    try:
        try:
            connection.execute("PRAGMA journal_mode = OFF")  # nothing is written, so no file for it
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if is_busy(error):
                raise StoreError(message) from error
            raise StoreError(f"The lock {named} cannot be used: {error}.") from error
        yield
    finally:
        connection.close()


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock; the file of a lock that no process holds is deleted."""
    if not path.exists():
        return False
    try:
        with exclusive_lock(path, "held"):
            with suppress(OSError):
                path.unlink()
            return False
    except StoreError:
        return True

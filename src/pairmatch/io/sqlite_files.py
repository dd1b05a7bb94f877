"""SQLite files before they are opened: whose they are, their mode, and whether they are writable.

Each of our files carries a mark (`PRAGMA application_id`). A file without one is left unchanged.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

from pairmatch.core.text import printable
from pairmatch.io.files import read_header

DatabaseKind = Literal["store", "gallery", "list of exclusions"]

#: `PRAGMA application_id` of each kind of file.
APPLICATION_IDS: dict[DatabaseKind, int] = {
    "store": int.from_bytes(b"PmSt", "big"),
    "gallery": int.from_bytes(b"PmGa", "big"),
    "list of exclusions": int.from_bytes(b"PmEx", "big"),
}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_MAGIC = b"SQLite format 3\0"
_MARK = slice(68, 72)  # where the header of the file holds `application_id`


def why_not_ours(
    path: Path, kind: DatabaseKind, *, version: int, schema: Sequence[str]
) -> str | None:
    """Why a file must not be opened as a database of a kind; None if it may be.

    Nothing is written. A missing file, an empty file and a database without any content may be
    opened. So may a file of an earlier pairmatch, which has no mark: its format and its tables are
    known.

    Args:
        path: Path to the file.
        kind: What the file shall hold.
        version: Newest format (`user_version`) of the kind.
        schema: Statements that create the tables of the kind.

    Raises:
        OSError: The file cannot be read.
        sqlite3.Error: The database is damaged.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_size == 0:
        return None
    header = read_header(path, 100)
    if not header.startswith(_MAGIC):
        return "file is not a database"
    if int.from_bytes(header[_MARK], "big") == APPLICATION_IDS[kind]:
        return None
    with closing(read_only(path)) as connection:
        return _why_other(connection, kind, version, schema)


def is_ours(path: Path) -> bool:
    """Whether a file carries the mark of any kind in its header; False if it cannot be read."""
    try:
        header = read_header(path, 100)
    except OSError:
        return False
    mark = int.from_bytes(header[_MARK], "big")
    return header.startswith(_MAGIC) and mark in APPLICATION_IDS.values()


def is_database(path: Path) -> bool:
    """Whether a file is a SQLite database, of anyone; False if it cannot be read."""
    try:
        return read_header(path, len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that writes neither to the file nor, where possible, to files beside it."""
    log = path.with_name(f"{path.name}-wal")
    # Without a log, `immutable` prevents SQLite from creating one
    mode = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, check_same_thread=False)


def is_writable(path: Path) -> bool:
    """Whether a file and its folder can be written; a missing file counts as its folder does."""
    return os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))


def make_private(path: Path, *, create: bool) -> None:
    """Gives the file mode 0600 before SQLite opens it: -wal and -shm inherit the mode."""
    if create:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    path.chmod(0o600)


def connect(path: Path, timeout_seconds: float) -> sqlite3.Connection:
    """A connection without implicit transactions, for any thread."""
    return sqlite3.connect(
        path, timeout=timeout_seconds, isolation_level=None, check_same_thread=False
    )


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds a lock."""
    code = getattr(error, "sqlite_errorcode", None)  # missing on errors of the Python module itself
    return code is not None and code & 0xFF in _BUSY


def _why_other(
    connection: sqlite3.Connection, kind: DatabaseKind, version: int, schema: Sequence[str]
) -> str | None:
    mark = connection.execute("PRAGMA application_id").fetchone()[0]
    if mark == APPLICATION_IDS[kind]:  # the mark is still in the write-ahead log
        return None
    for other, number in APPLICATION_IDS.items():
        if mark == number:
            return f"it is a {other} of pairmatch, not a {kind}"
    objects = _objects(connection)
    earlier = connection.execute("PRAGMA user_version").fetchone()[0]
    if mark == 0 and not objects and not earlier:
        return None
    with closing(sqlite3.connect(":memory:")) as model:
        for statement in schema:
            model.execute(statement)
        known = _objects(model)
    if mark == 0 and objects and 1 <= earlier <= version and objects.items() <= known.items():
        return None
    tables = ", ".join(printable(name) for name in sorted(objects)[:3]) or "no tables"
    return f"it is a database of another application ({tables})"


def _objects(connection: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    """Type and columns of all tables, indexes, views and triggers, by name."""
    rows = connection.execute(
        "SELECT name, type FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    ).fetchall()
    columns = (
        "SELECT name FROM pragma_table_info(?) UNION ALL SELECT name FROM pragma_index_info(?)"
    )
    return {
        name: (kind, *(column for (column,) in connection.execute(columns, (name, name))))
        for name, kind in rows
    }

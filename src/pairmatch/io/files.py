"""Files: reading within limits, and atomic writing."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.text import printable

_MOST_JSON_DEPTH = 100


def expand_user(path: str | Path) -> Path:
    """The path with a leading `~` or `~name` replaced by the home folder.

    Raises:
        ConfigurationError: There is no such user or home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigurationError(
            f"{printable(str(path))}: there is no such user or home folder; write the whole path."
        ) from None


def check_path(path: Path) -> None:
    """Checks that a file can have a path: no NUL, nothing that the file system cannot encode.

    Raises:
        ConfigurationError: No file can have the path.
    """
    try:
        is_valid = b"\0" not in os.fsencode(path)
    except UnicodeError:
        is_valid = False
    if not is_valid:
        raise ConfigurationError(f"{printable(str(path))}: no file can have this name.")


def is_present(path: Path) -> bool:
    """Whether there is a file or folder; False for names that none can have, as too long ones."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def read_file(path: Path, *, most_bytes: int) -> bytes:
    """Content of a regular file.

    Named pipes, devices and folders are refused before anything is read, so that no path can make
    a run wait for ever.

    Args:
        path: Path to the file; links are followed.
        most_bytes: Largest size in bytes that is read.

    Raises:
        OSError: The file is missing, is not a regular file, is larger than `most_bytes`, or cannot
            be read; `strerror` has the reason.
    """
    with _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = b""
        # The buffer of a read has its full length at once: it is no larger than the file needs
        while size <= most_bytes and len(content) <= most_bytes:
            piece = file.read(min(most_bytes + 1 - len(content), max(size + 1, 65_536)))
            content = content + piece if content else piece
            if not piece:
                break
        if size > most_bytes or len(content) > most_bytes:
            raise OSError(
                errno.EFBIG, f"the file has {size:,} bytes, more than {most_bytes:,}", str(path)
            )
        return content


def read_header(path: Path, count: int) -> bytes:
    """The first bytes of a regular file, at most `count`.

    Raises:
        OSError: The file is missing, is not a regular file, or cannot be read.
    """
    with _open_regular(path) as file:
        return file.read(count)


def digest_file(path: Path, *, most_bytes: int | None = None) -> str:
    """SHA-256 (hex) of a regular file, read in pieces.

    Args:
        path: Path to the file; links are followed.
        most_bytes: Largest size in bytes that is read; None for any.

    Raises:
        OSError: As in `read_file`.
    """
    with _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most_bytes is not None and size > most_bytes:
            raise OSError(
                errno.EFBIG, f"the file has {size:,} bytes, more than {most_bytes:,}", str(path)
            )
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_regular(path: Path) -> io.BufferedReader:
    # O_NONBLOCK: opening a named pipe would otherwise wait for a writer
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def parse_json(content: str | bytes) -> Any:
    """A JSON value; nesting is limited, so that no input exhausts the stack.

    Raises:
        ValueError: The content is not JSON, is nested more than 100 deep, or is not UTF-8.
    """
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(_MOST_JSON_DEPTH):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return value
    raise ValueError(f"nested more than {_MOST_JSON_DEPTH} deep")


def write_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Writes a file atomically: to a temporary file in the same folder, which is then renamed.

    Args:
        path: Path to the file; an existing file is replaced.
        content: Content of the whole file.
        private: Whether only the owner may read the file (mode 0600).

    Raises:
        OSError: The file cannot be written; `filename` is its path. Nothing is left behind.
    """
    is_long = len(os.fsencode(path.name)) > 240  # near the limit of 255, together with the rest
    prefix = ".pairmatch." if is_long else f".{path.name}."
    try:
        handle, name = _locked_file(path.parent, prefix)
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            Path(name).chmod(0o600 if private else default_mode())
            Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise


def _locked_file(folder: Path, prefix: str) -> tuple[int, str]:
    """Handle and path of a new temporary file that no cleaning takes for a leftover."""
    while True:
        handle, name = tempfile.mkstemp(dir=folder, prefix=prefix)
        lock(handle, wait=True)
        if Path(name).exists():  # it was not removed before it was locked
            return handle, name
        os.close(handle)


def lock(handle: int, *, wait: bool = False) -> bool:
    """Whether an open file could be locked for this process; closing the file unlocks it.

    A lock tells temporary files in use from those that a killed process left: a process that
    removes one holds its lock meanwhile. Always false where there are no locks that end with the
    process (Windows).

    Args:
        handle: The open file or folder.
        wait: Whether to wait until no other process holds the lock.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # held by another process, or a network file system without locks
        return False
    return True


def default_mode() -> int:
    """Mode of new files under the umask of this process."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask

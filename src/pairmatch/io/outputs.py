"""Outputs: places are checked before work starts, and folders carry a mark.

A folder that holds anything which pairmatch did not write is refused, so that no run replaces or
deletes the files of somebody else.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.text import printable
from pairmatch.io.files import check_path, parse_json, read_file, read_header
from pairmatch.io.remote import is_web_address, remote_url
from pairmatch.io.replacing import is_leftover, replace_file
from pairmatch.io.sqlite_files import is_ours

#: Name of the file that marks a folder as written by pairmatch.
MARKER = ".pairmatch"
_MARKER_IN_WORK = re.compile(rf"\.{re.escape(MARKER)}\.[a-z0-9_]{{8}}")  # as `write_file` names it
# What systems put into folders that are otherwise empty
_SYSTEM_FILES = frozenset({MARKER, ".DS_Store", "Thumbs.db", "desktop.ini", "lost+found"})


def check_output_file(path: Path) -> None:
    """Checks that a file can be written; leaves nothing behind.

    Raises:
        ConfigurationError: The path is a folder, or no file can be created there.
    """
    with_path = printable(str(path))
    _check_local(path)
    try:
        if path.is_dir():
            raise ConfigurationError(f"{with_path} is a folder: name a file to write.")
        if path.exists() and not path.is_file():
            raise ConfigurationError(f"{with_path} is not a regular file: name another one.")
        if path.exists() and not os.access(path, os.W_OK):
            raise ConfigurationError(f"{with_path} cannot be written: permission denied.")
        _check_parents(path.parent, with_path)
    except OSError as error:
        raise ConfigurationError(f"{with_path} cannot be written: {_reason(error)}.") from error


def check_replaced_file(path: Path, start: bytes, kind: str, *, most: int = 4_096) -> None:
    """Checks that a file is new, empty, or starts as the files do that may take its place.

    Args:
        path: Path to the file.
        start: Regular expression of the start of such files.
        kind: What such a file holds, such as "figures of an evaluation".
        most: Number of bytes from the beginning that the expression is matched with.

    Raises:
        ConfigurationError: The file holds something else, or cannot be read.
    """
    named = printable(str(path))
    try:
        header = read_header(path, most) if path.exists() else b""
    except OSError as error:
        raise ConfigurationError(f"{named} cannot be written: {_reason(error)}.") from error
    if header and not re.match(start, header):
        raise ConfigurationError(
            f"{named} holds something else than {kind}: name a new file, or delete this one first."
        )


def check_output_folder(
    folder: Path, kind: str, *, is_earlier: Callable[[Path], bool] | None = None
) -> None:
    """Checks that a folder is new, empty, or marked as the same kind; leaves nothing.

    Args:
        folder: Path to the folder.
        kind: What the folder will hold, such as "matcher", "gallery" or "sweep".
        is_earlier: Says whether a folder without a mark was written by an earlier version.

    Raises:
        ConfigurationError: The folder holds something else, or cannot be written.
    """
    named = printable(str(folder))
    _check_local(folder)
    try:
        if not folder.exists():
            if folder.is_symlink():
                raise ConfigurationError(f"{named} is a link to nothing: name another folder.")
            _check_parents(folder, named)
            return
        if not folder.is_dir():
            raise ConfigurationError(f"{named} is a file, and a folder is needed: name another.")
        _check_parents(folder, named)
        marked = folder_kind(folder)
        if marked == kind:
            return
        if marked is not None:
            raise ConfigurationError(
                f"{named} holds a {printable(marked)} of pairmatch, not a {kind}: name another "
                "folder."
            )
        others = foreign_names(folder)
    except OSError as error:
        raise ConfigurationError(f"{named} cannot be written: {_reason(error)}.") from error
    if others and not (is_earlier and is_earlier(folder)):
        listed = ", ".join(printable(name) for name in others[:3])
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise ConfigurationError(
            f"{named} holds files that pairmatch did not write ({listed}{more}): name a new or "
            "empty folder."
        )


def claim_folder(
    folder: Path,
    kind: str,
    *,
    is_earlier: Callable[[Path], bool] | None = None,
    private: bool = False,
) -> None:
    """Checks a folder as `check_output_folder` does, creates it, and marks it.

    Args:
        folder: Path to the folder.
        kind: What the folder will hold.
        is_earlier: As in `check_output_folder`.
        private: Whether only the owner may enter a folder that is created (mode 0700).

    Raises:
        ConfigurationError: The folder holds something else, or cannot be written.
    """
    check_output_folder(folder, kind, is_earlier=is_earlier)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
        if folder_kind(folder) is None:
            replace_file(folder / MARKER, json.dumps({"kind": kind}).encode() + b"\n")
    except OSError as error:
        raise ConfigurationError(
            f"{printable(str(folder))} cannot be written: {_reason(error)}."
        ) from error


def foreign_names(folder: Path) -> list[str]:
    """Names in a folder that are neither those of the system nor recognizably ours.

    Ours are marks, stores and gallery journals with their logs, and what a killed run leaves.
    """
    databases = {item.name for item in folder.iterdir() if is_ours(item)}
    return sorted(
        item.name
        for item in folder.iterdir()
        if item.name not in _SYSTEM_FILES
        and not is_leftover(item.name)
        and not _MARKER_IN_WORK.fullmatch(item.name)
        and not any(item.name in (name, f"{name}-wal", f"{name}-shm") for name in databases)
    )


def folder_kind(folder: Path) -> str | None:
    """What a folder is marked to hold; None without a mark that pairmatch wrote.

    Raises:
        OSError: The mark exists and cannot be read.
    """
    try:
        mark = parse_json(read_file(folder / MARKER, most_bytes=1_000))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    kind = mark.get("kind") if isinstance(mark, dict) else None
    return kind if isinstance(kind, str) else None


def _check_local(path: Path) -> None:
    """Checks that a path is not a URL: a folder `s3:` would be created."""
    check_path(path)
    if is_web_address(path) or remote_url(path) is not None:
        raise ConfigurationError(
            f"{printable(str(path))} is a URL, and files are written to a disk only: name a path, "
            "and copy what is written."
        )


def _check_parents(path: Path, named: str) -> None:
    """Checks that a file can be created in the nearest existing ancestor, or the path itself."""
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise ConfigurationError(
            f"{named} cannot be written: {printable(str(existing))} is not a folder."
        )
    # Permissions alone do not tell: the disk may be full, read-only or of a special kind
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"{named} cannot be written: no file can be created in {printable(str(existing))} "
            f"({_reason(error)})."
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)

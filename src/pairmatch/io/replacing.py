"""Several files of one folder, replaced as a whole or not at all, whatever happens in between.

New files are written to a hidden folder inside the folder. Renaming that folder to `NEXT` is the
one moment at which the new files count; after it they are moved to their places, by the process
that wrote them or, if it was killed, by the next one that writes. Readers look into `NEXT` first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pairmatch.io.files import default_mode, lock, write_file

#: Folder of files that count already and are not in their places yet.
NEXT = ".pairmatch-next"
_NEW = ".pairmatch-new-"
_ATTEMPTS = 100
_ABANDONED_SECONDS = 86_400.0  # on Windows, where no lock tells
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}")  # as `write_file` names them


def is_leftover(name: str) -> bool:
    """Whether a name in a folder is one of those that a killed `replace_files` leaves."""
    return name == NEXT or name.startswith(_NEW)


def current_file(folder: Path, name: str) -> Path:
    """Where the current version of a file is."""
    waiting = folder / NEXT / name
    return waiting if waiting.exists() else folder / name


def replace_files(
    folder: Path, contents: Mapping[str, bytes], *, private: Collection[str] = ()
) -> None:
    """Writes files: after a kill at any moment, readers see all old files or all new ones.

    Other files in the folder are kept. What killed runs left is finished or removed.

    Args:
        folder: Path to an existing folder.
        contents: Content of each file by name.
        private: Names of the files that only the owner may read (mode 0600).

    Raises:
        OSError: A file cannot be written; the old files are unchanged then.
    """
    remove_leftovers(folder, contents)
    for name in contents:
        if (folder / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / name))
    with _new_folder(folder) as new:
        try:
            mode = default_mode()
            for name, content in contents.items():
                with (new / name).open("xb") as file:
                    (new / name).chmod(0o600 if name in private else mode)
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            _sync(new)
            _commit(new, folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    _move(folder)


def replace_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Writes a file as `write_file` does, and removes what killed writes of this file left.

    It lists the folder; use `write_file` for many files in one folder.

    Raises:
        OSError: The file cannot be written; the old file is unchanged then.
    """
    with contextlib.suppress(OSError):  # an error that matters comes again
        remove_leftovers(path.parent, [path.name])
    write_file(path, content, private=private)


def remove_leftovers(folder: Path, names: Collection[str]) -> None:
    """Finishes what a killed run left to be moved, and removes its temporary files of these names.

    Nothing else is touched.
    """
    _move(folder)
    with contextlib.suppress(FileNotFoundError):
        for item in sorted(folder.iterdir()):
            temporary = _TEMPORARY.fullmatch(item.name)
            if item.name.startswith(_NEW) and item.is_dir() and not item.is_symlink():
                with _abandoned(item) as is_abandoned:
                    if is_abandoned:
                        shutil.rmtree(item, ignore_errors=True)
            elif temporary and temporary["name"] in names:
                with _abandoned(item) as is_abandoned:
                    if is_abandoned:
                        item.unlink(missing_ok=True)


def _commit(new: Path, folder: Path) -> None:
    """Makes the new files count; waits while another process moves its own."""
    for attempt in range(_ATTEMPTS):
        try:
            new.rename(folder / NEXT)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or attempt == _ATTEMPTS - 1:
                raise
            _move(folder)
        else:
            _sync(folder)
            return


def _move(folder: Path) -> None:
    """Moves the files that count to their places; several processes may do so at once."""
    waiting = folder / NEXT
    if waiting.is_symlink() or not waiting.is_dir():
        return
    with contextlib.suppress(FileNotFoundError):  # another process may move them too
        for item in sorted(waiting.iterdir()):
            with contextlib.suppress(FileNotFoundError):
                item.replace(folder / item.name)
    _sync(folder)
    with contextlib.suppress(OSError):  # another process was faster, or filled it again
        waiting.rmdir()


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A new folder inside a folder; a lock that ends with the process shows that it is in use."""
    while True:
        new = Path(tempfile.mkdtemp(prefix=_NEW, dir=folder))
        if os.name != "posix":  # folders cannot be opened
            yield new
            return
        try:
            handle = os.open(new, os.O_RDONLY)
        except FileNotFoundError:  # a cleaning removed it before it was locked
            continue
        try:
            lock(handle, wait=True)
            if new.exists():
                yield new
                return
        finally:
            os.close(handle)


@contextmanager
def _abandoned(path: Path) -> Iterator[bool]:
    """Whether no living process is writing a file or folder; none begins to meanwhile."""
    handle = None
    is_abandoned = False
    with contextlib.suppress(OSError):
        if os.name == "posix":
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            is_abandoned = lock(handle)
        else:
            is_abandoned = time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
    try:
        yield is_abandoned
    finally:
        if handle is not None:
            os.close(handle)


def _sync(folder: Path) -> None:
    """Brings the names in a folder to the disk."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot
            raise
    finally:
        os.close(handle)

"""Atomic writing of files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Writes a file atomically: to a temporary file in the same folder, which is then renamed.

    Args:
        path: Path to the file; an existing file is replaced.
        content: Content of the whole file.
        private: Whether only the owner may read the file (mode 0600).
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o600 if private else 0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask

"""Errors of LanceDB as errors of pairmatch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from pairmatch.core.errors import PairmatchError, StoreError
from pairmatch.core.text import printable

# What LanceDB raises on files that are damaged, that another process deleted, or on a full disk
_TYPES = (OSError, RuntimeError, ValueError, pa.ArrowException)


def is_of_lance(error: Exception) -> bool:
    """Whether LanceDB raised an error, rather than pairmatch."""
    if isinstance(error, PairmatchError):
        return False
    return isinstance(error, _TYPES) or type(error).__name__ == "RustPanic"


@contextmanager
def lance_errors(folder: Path) -> Iterator[None]:
    """Raises StoreError in place of the errors of LanceDB in the block."""
    try:
        yield
    except Exception as error:
        if not is_of_lance(error):
            raise
        raise StoreError(
            f"The gallery {printable(str(folder))} cannot be read or written: "
            f"{printable(str(error))[:300]}. If no other process is erasing people from it and the "
            "disk is not full, it is damaged: build it again."
        ) from error

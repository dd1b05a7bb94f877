"""Searches the bytes of files, to check that erased content is gone."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

_CHUNK_BYTES = 1 << 24
_SHORTEST = 4


def find_traces(paths: Iterable[Path], texts: Collection[str]) -> set[str]:
    """The texts whose UTF-8 bytes some of the files contain; missing files contain nothing.

    Args:
        paths: Files of any size; one chunk at a time is in memory.
        texts: At least 4 bytes each; others are not searched. Use texts that stand for themselves,
            such as digests: a short id is also a part of other words.

    Raises:
        OSError: A file cannot be read.
    """
    wanted = {text.encode(): text for text in texts if len(text.encode()) >= _SHORTEST}
    if not wanted:
        return set()
    starts = [np.zeros(1 << 16, bool), np.zeros(1 << 16, bool)]  # by the first and second two bytes
    for value in wanted:
        for table, pair in zip(starts, (value[:2], value[2:4]), strict=True):
            table[pair[0] | pair[1] << 8] = True
    lengths = sorted({len(value) for value in wanted})
    present: set[bytes] = set()
    for path in paths:
        try:
            with path.open("rb") as file:
                rest = b""
                while chunk := file.read(_CHUNK_BYTES):
                    content = rest + chunk
                    for start in _candidates(content, starts):
                        for length in lengths:
                            if (value := content[start : start + length]) in wanted:
                                present.add(value)
                    rest = content[-(lengths[-1] - 1) :]
        except FileNotFoundError:
            continue
    return {wanted[value] for value in present}


def _candidates(content: bytes, starts: list[np.ndarray]) -> list[int]:
    """Offsets where the first four bytes may be those of a text."""
    codes = np.frombuffer(content, np.uint8).astype(np.uint16)
    pairs = codes[:-1] | codes[1:] << 8
    if len(pairs) < _SHORTEST - 1:
        return []
    offsets: list[int] = np.flatnonzero(starts[0][pairs[:-2]] & starts[1][pairs[2:]]).tolist()
    return offsets

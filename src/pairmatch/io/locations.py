"""Locations of rows in the files of a table, for messages."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import overload


class Locations(Sequence[str]):
    """Location of each row, such as `line 3` or `part-2.csv line 3`, made when it is asked for."""

    def __init__(self) -> None:
        self._starts: list[int] = []  # first row of each file
        self._files: list[tuple[str, Sequence[int]]] = []
        self._count = 0

    def add(self, prefix: str, numbers: Sequence[int]) -> None:
        """Adds the rows of a file.

        Args:
            prefix: What stands before a number, such as `line `.
            numbers: Line or row number of each row.
        """
        self._starts.append(self._count)
        self._files.append((prefix, numbers))
        self._count += len(numbers)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[position] for position in range(*row.indices(self._count))]
        if not 0 <= row < self._count:
            raise IndexError(row)
        file = bisect_right(self._starts, row) - 1
        prefix, numbers = self._files[file]
        return f"{prefix}{numbers[row - self._starts[file]]}"

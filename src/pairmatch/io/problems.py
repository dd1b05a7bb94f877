"""Problems of tables: where each one is, and messages in which equal ones are one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# What differs between problems of one kind: quoted values, and numbers
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\d+""")
_MOST_LISTED = 3  # rows with the same problem, before they are one line
_MOST_TEXTS = 10  # lines about problems of one kind, before they are one line


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a cell, of a row or of a whole file.

    Attributes:
        text: What is wrong, and how to fix it.
        location: Location of the row, such as `line 3`; blank for a problem of the whole file.
        column: Name of the column; blank for a problem of a whole row or file.
        kind: Problems of one kind are grouped; by default those whose texts differ only in what
            they quote and in numbers.
        row: Position of the row in the table; None if the table does not hold it.
        stops: Whether the file cannot be used, even without the row.
    """

    text: str
    location: str = ""
    column: str = ""
    kind: str = ""
    row: int | None = None
    stops: bool = False

    def group(self) -> tuple[str, str]:
        """Problems with equal groups are of one kind, in one column."""
        return self.column, self.kind or _QUOTED.sub("", self.text)

    def message(self, file: str, others: int = 0) -> str:
        """The problem in one line.

        Args:
            file: Name of the file, or of the folder of several, with a slash; `s3://` of several
                buckets.
            others: Number of other rows with such a problem.
        """
        if not self.location:
            is_scheme = file.endswith("//")
            return f"{file if is_scheme else file.rstrip('/')}: {self.text}"
        where = f"{file}{self.location}" if file.endswith("/") else f"{file} {self.location}"
        more = f" and {others:,} more row{'s' * (others > 1)}" if others else ""
        column = f", column {self.column}" if self.column else ""
        return f"{where}{more}{column}: {self.text}"


def messages(file: str, problems: Iterable[Problem]) -> list[str]:
    """One line per problem; many equal ones, and many of one kind, are one line.

    Args:
        file: Name of the file.
        problems: Its problems; the lines are in the order in which they first occur.
    """
    lines: list[tuple[int, str]] = []
    problems = list(problems)
    order = {id(problem): position for position, problem in enumerate(problems)}
    for alike in grouped(problems):
        lines += [
            (order[id(group[0])], group[0].message(file, len(group) - 1))
            for group in _listed(alike)
        ]
    return [line for _, line in sorted(lines)]


def grouped(problems: Iterable[Problem]) -> list[list[Problem]]:
    """Problems of one kind together, in the order in which the kinds first occur."""
    groups: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.group(), []).append(problem)
    return list(groups.values())


def _listed(alike: Sequence[Problem]) -> list[Sequence[Problem]]:
    """Problems of one kind, those together that are one line."""
    if not alike[0].location or len(alike) <= _MOST_LISTED:
        return [[problem] for problem in alike]
    by_text: dict[str, list[Problem]] = {}
    for problem in alike:
        by_text.setdefault(problem.text, []).append(problem)
    return list(by_text.values()) if len(by_text) <= _MOST_TEXTS else [alike]

"""How results look when they are printed, and in notebooks."""

from __future__ import annotations

import html
import os
import re
import shutil
import sys
import textwrap
from abc import abstractmethod
from collections.abc import Sequence

Rows = Sequence[Sequence[str]]


class Displayed:
    """A result that is shown as a table and lines of text.

    `str` is the table in plain text, and notebooks show it in HTML.
    """

    __slots__ = ()

    @abstractmethod
    def display(self) -> tuple[Rows, list[str]]:
        """Rows of the table, its header first, and the lines below it."""

    def __str__(self) -> str:
        rows, lines = self.display()
        return "\n".join([*text_table(rows), *lines])

    def _repr_html_(self) -> str:
        return html_display(*self.display())


def decimal(value: float, digits: int = 3, *, sign: bool = False) -> str:
    """A number with a minus sign instead of a hyphen, such as −0.012.

    Args:
        value: The number.
        digits: Number of decimal places.
        sign: Whether positive numbers get a plus sign.
    """
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def line_width(*, err: bool = False) -> int | None:
    """Number of characters of a line on the terminal; None where text goes to a file or pipe.

    The environment variable COLUMNS sets it for files and pipes too.

    Args:
        err: Whether the text goes to standard error.
    """
    stream = sys.stderr if err else sys.stdout
    is_terminal = stream is not None and not stream.closed and stream.isatty()
    if not is_terminal and not os.environ.get("COLUMNS"):
        return None
    return shutil.get_terminal_size().columns


def text_table(rows: Rows) -> list[str]:
    """Lines of a plain-text table: the first column aligned left, all other columns right.

    On a terminal that is too narrow, the table continues below with further columns.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines: list[str] = []
    for block in _column_blocks(widths, line_width()):
        for row in rows:
            cells = [row[column].rjust(widths[column]) for column in block]
            line = "  ".join([row[0].ljust(widths[0]), *cells])
            if len(block) == len(widths) - 1 or line.strip():
                lines.append(line)
        lines.append("")
    return lines[:-1]


def _column_blocks(widths: Sequence[int], width: int | None) -> list[list[int]]:
    """Positions of columns, but for the first, in blocks that fit beside the first column."""
    blocks: list[list[int]] = [[]]
    used = widths[0]
    for column in range(1, len(widths)):
        if width is not None and blocks[-1] and used + 2 + widths[column] > width:
            blocks.append([])
            used = widths[0]
        blocks[-1].append(column)
        used += 2 + widths[column]
    return blocks


def fitted_lines(line: str, width: int | None) -> list[str]:
    """A line of text, or of columns, as lines of a terminal; commands to copy stay whole.

    Args:
        line: The line. Two and more spaces separate columns, the last of which is broken.
        width: Number of characters; None for any.
    """
    text = line.lstrip()
    if width is None or len(line) <= width or text.startswith("pairmatch "):
        return [line]
    indent = len(line) - len(text)
    gaps = list(re.finditer(r"(?<=\S) {2,}(?=\S)", line))
    if not gaps:
        hanging = indent + 2 * text.startswith(("- ", "→ "))
        return _wrapped(text, width, " " * indent, " " * hanging)
    start = gaps[-1].end()
    if start <= width // 2:
        return _wrapped(line[start:], width, line[:start], " " * start)
    below = " " * (indent + 4)
    return [
        *fitted_lines(line[: gaps[-1].start()], width),
        *_wrapped(line[start:], width, below, below),
    ]


def _wrapped(text: str, width: int, first: str, others: str) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def html_display(rows: Rows, lines: Sequence[str]) -> str:
    """A table and the lines below it in HTML, as notebooks show it."""
    return html_table(rows) + "".join(f"<div>{html.escape(line)}</div>" for line in lines)


def html_table(rows: Rows) -> str:
    """The same table in HTML, with the first row as its header and the first column as names."""
    header, *body = ([html.escape(cell) for cell in row] for row in rows)
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    lines = (
        f'<tr><th scope="row" style="text-align: left">{name}</th>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in body
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"

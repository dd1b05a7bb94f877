"""How results look when they are printed, and in notebooks."""

from __future__ import annotations

import html
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


def text_table(rows: Rows) -> list[str]:
    """Lines of a plain-text table: the first column aligned left, all other columns right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]))
    return lines


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

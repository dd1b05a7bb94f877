"""The ids of matched pairs, without what the table says of the people."""

from __future__ import annotations

from pathlib import Path

from pairmatch.data.pair_rows import PairRows
from pairmatch.io.tables import read_table


def read_matches(path: Path, *, sides: int | None = 2) -> list[tuple[str, str]]:
    """Reads the ids (a, b) of the matches of a pairs file.

    Args:
        path: Path to a pairs file, of which only ids and outcomes are read.
        sides: 1 if anyone may match anyone; otherwise each person is on one side.

    Raises:
        DataError: The file has problems; the error lists all of them.
    """
    table = read_table(path, ids=("id_a", "id_b"), names=("group", "pool"))
    table.require(["id_a", "id_b"])
    if table.problems:
        raise table.error()
    rows = PairRows(table, 1 if sides == 1 else 2)
    rows.check_sides()
    if table.problems:
        raise table.error()
    return [(pair.a, pair.b) for pair in rows.pairs if pair.outcome == "match"]

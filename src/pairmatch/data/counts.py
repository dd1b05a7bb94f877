"""How many people and pairs there are, in one line and as a table; no id, text or value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pairmatch.core.display import Rows
from pairmatch.core.text import counted, printable
from pairmatch.core.types import Profile

if TYPE_CHECKING:
    from pairmatch.data.pairs import Pairs

_MOST_NAMES = 8  # attributes that are listed


def outcome_counts(pairs: Pairs) -> str:
    """`280 matches, 30 rejected`: the number of pairs with each outcome."""
    counts = [f"{len(pairs)} match{'' if len(pairs) == 1 else 'es'}"]
    for outcome in ("rejected", "open"):
        count = sum(pair.outcome == outcome for pair in pairs.pairs)
        counts += [f"{count} {outcome}"] if count else []
    return ", ".join(counts)


def counts_table(pairs: Pairs) -> tuple[Rows, list[str]]:
    """Numbers of people by side, with what describes them, and lines about the pairs."""
    rows = [["", "people", "photos", "with photos", "with text", "with attributes"]]
    sides = {"side a": pairs.ids_a, "side b": pairs.ids_b}
    for side, ids in {"people": pairs.ids_a}.items() if pairs.sides == 1 else sides.items():
        rows.append([side, *_described(pairs.profiles[person] for person in ids)])
    lines = [outcome_counts(pairs)]
    times = sorted(pair.time.date() for pair in pairs.pairs if pair.time is not None)
    if times:
        lines.append(f"decided from {times[0]} to {times[-1]}")
    pools = {pair.pool for pair in pairs.pairs if pair.pool is not None}
    if pools:
        lines.append(counted(len(pools), "pool"))
    names = dict.fromkeys(name for person in pairs.people for name in person.attributes)
    if names:
        shown = ", ".join(printable(str(name)) for name in list(names)[:_MOST_NAMES])
        lines.append(f"attributes: {shown}{', …' * (len(names) > _MOST_NAMES)}")
    if pairs.skipped:
        lines.append(f"{counted(len(pairs.skipped), 'problem')} of rows that were left out")
    return rows, lines


def _described(people: Iterable[Profile]) -> list[str]:
    people = list(people)
    counts = (
        len(people),
        sum(len(person.images) for person in people),
        sum(bool(person.images) for person in people),
        sum(bool(person.text) for person in people),
        sum(bool(person.attributes) for person in people),
    )
    return [f"{count:,}" for count in counts]

"""Checks of pairs that are made from objects, not read from tables."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.ids import normal_forms
from pairmatch.core.text import counted
from pairmatch.core.types import Pair, Profile
from pairmatch.data.answers import faults, latest, repeated_note

if TYPE_CHECKING:
    from pairmatch.data.pairs import Pairs

_log = logging.getLogger(__name__)


def check_side_number(sides: int) -> None:
    """Raises a ConfigurationError unless there are one or two sides."""
    if sides not in (1, 2):
        raise ConfigurationError(f"`sides` must be 1 or 2, got {sides!r}.")


def check_same_sides(pairs: Pairs, known: Pairs) -> None:
    """Checks that no person is on one side of some pairs and on the other side of others.

    Args:
        pairs: Pairs to test on.
        known: Pairs that are known at training time.

    Raises:
        DataError: A person is on both sides.
    """
    if pairs.sides == 1 or known.sides == 1:
        return
    swapped = {*pairs.ids_a} & {*known.ids_b} | {*pairs.ids_b} & {*known.ids_a}
    if swapped:
        person = min(swapped)
        side, other = "ab" if person in pairs.ids_a else "ba"
        raise DataError(
            f"{len(swapped):,} people change sides, the first is {person!r}: id_{side} in the "
            f"pairs to test on, id_{other} in those that are known. Exchange the columns of one "
            "table, or use sides=1 (--sides 1) if anyone may match anyone."
        )


def check_objects(
    profiles: Iterable[Profile], pairs: Iterable[Pair], sides: Literal[1, 2]
) -> tuple[dict[str, Profile], list[Pair]]:
    """Profiles by id, and one pair per two people: the latest answers of those with times.

    Raises:
        DataError: The objects are inconsistent; the error lists all problems.
    """
    people: dict[str, Profile] = {}
    problems = []
    for profile in profiles:
        if profile.id in people:
            problems.append(f"the id {profile.id!r} is given twice.")
        people[profile.id] = profile
    forms, form_problems = normal_forms(people)
    problems += form_problems
    pairs = tuple(pairs)
    seen: dict[tuple[str, ...], list[Pair]] = {}
    sides_of: dict[str, str] = {}
    for index, pair in enumerate(pairs):
        key = (pair.a, pair.b) if sides == 2 else tuple(sorted((pair.a, pair.b)))
        problems += [f"pair {index}: {fault}" for fault in faults(pair)]
        entries = seen.setdefault(key, [])
        entries.append(pair)
        is_dated = all(entry.time is not None for entry in entries)
        if len(entries) > 1 and pair.a != pair.b and not is_dated:
            problems.append(f"pair {index}: {pair.a!r}, {pair.b!r} is given twice.")
        for side, person in (("a", pair.a), ("b", pair.b)):
            if person not in people:
                other = forms.get(unicodedata.normalize("NFC", person))
                form = f" {other!a} has the same characters." if other else ""
                problems.append(f"pair {index}: there is no profile {person!r}.{form}")
            if sides == 2 and sides_of.setdefault(person, side) != side and pair.a != pair.b:
                problems.append(f"pair {index}: {person!r} is on both sides; use sides=1.")
    if problems:
        raise DataError(
            f"{counted(len(problems), 'problem')} in {counted(len(pairs), 'pair')}:", problems
        )
    repeated = [entries for entries in seen.values() if len(entries) > 1]
    if repeated:
        _log.warning("%s", repeated_note(repeated))
    return people, [latest(entries) for entries in seen.values()]

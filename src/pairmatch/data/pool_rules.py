"""Pools by a rule over the attributes of two people, such as `region = query.region`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.types import AttributeValue, Profile
from pairmatch.rules import Column, Kind, Rule, parse_rule, person_columns

_MOST_CELLS = 20_000_000
Values = tuple[AttributeValue | None, ...]


def pools_by_rule(
    where: str, people_a: Sequence[Profile], people_b: Sequence[Profile], *, one_sided: bool
) -> tuple[list[list[str]], list[list[str]]]:
    """The pool of each person of sides a and b: the people who could all have met.

    The rule is evaluated once for each combination of the values that it reads.

    Args:
        where: The rule; `query.` is the person of side a. In one-sided sets it must hold both ways.
        people_a: People of side a.
        people_b: People of side b; the same in one-sided sets.
        one_sided: Whether both are the same people.

    Returns:
        The name of the pool of each person of both sides, or nothing for those who could
        meet no one.

    Raises:
        ConfigurationError: The rule cannot be evaluated, or it does not part people.
    """
    rule = parse_rule(where)
    kinds, query_kinds = (_kinds(people) for people in (people_b, people_a))
    rule.check(kinds, query_kinds)
    read_a, read_b = rule.query_attributes, rule.attributes
    if one_sided:
        read_a = read_b = tuple(sorted({*read_a, *read_b}))
    of_a, of_b = _values(people_a, read_a), _values(people_b, read_b)
    values_a, values_b = list(dict.fromkeys(of_a)), list(dict.fromkeys(of_b))
    if len(values_a) * len(values_b) > _MOST_CELLS:
        raise _not_parted(where, "it reads attributes with too many different values")
    could_meet = _evaluate(rule, read_a, values_a, read_b, values_b)
    if one_sided:
        could_meet &= could_meet.T
    blocks, block_of = np.unique(could_meet, axis=0, return_inverse=True)
    if (blocks.sum(0) > 1).any():
        value = values_b[int(np.argmax(blocks.sum(0)))]
        shown = ", ".join(f"{name} {text!r}" for name, text in zip(read_b, value, strict=True))
        raise _not_parted(where, f"people with {shown} would be in several")
    names = _names(where, values_a, block_of.ravel())
    name_a = {
        value: [names[block]] if blocks[block].any() else []
        for value, block in zip(values_a, block_of.ravel().tolist(), strict=True)
    }
    name_b = {
        value: [names[block] for block in np.flatnonzero(blocks[:, column]).tolist()]
        for column, value in enumerate(values_b)
    }
    return [name_a[value] for value in of_a], [name_b[value] for value in of_b]


def _evaluate(
    rule: Rule,
    read_a: Sequence[str],
    values_a: Sequence[Values],
    read_b: Sequence[str],
    values_b: Sequence[Values],
) -> npt.NDArray[np.bool_]:
    """[values of a, values of b] whether people with these values could have met."""
    columns = {
        name: Column.of([value[position] for value in values_b])
        for position, name in enumerate(read_b)
    }
    rows = []
    for value in values_a:
        known = {name: v for name, v in zip(read_a, value, strict=True) if v is not None}
        clauses = rule.holds(columns, person_columns(known), len(values_b))
        rows.append(np.logical_and.reduce(clauses))
    return np.array(rows, bool).reshape(len(values_a), len(values_b))


def _kinds(people: Sequence[Profile]) -> dict[str, Kind]:
    names = dict.fromkeys(chain.from_iterable(profile.attributes for profile in people))
    return {
        name: Column.of([profile.attributes.get(name) for profile in people]).kind for name in names
    }


def _values(people: Sequence[Profile], read: Sequence[str]) -> list[Values]:
    return [tuple(profile.attributes.get(name) for name in read) for profile in people]


def _names(
    where: str, values: Sequence[Values], block_of: npt.NDArray[np.int64]
) -> Mapping[int, str]:
    """Each pool is named after the first of the values of side a that belong to it."""
    names: dict[int, str] = {}
    for value, block in zip(values, block_of.tolist(), strict=True):
        text = ", ".join("unknown" if part is None else str(part) for part in value) or where
        names[block] = min(names.get(block, text), text)
    return names


def _not_parted(where: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"The rule {where!r} does not part people into pools: {reason}. A rule for pools compares "
        "values for equality, such as 'region = query.region'; give other pools in a column `pool`."
    )

"""Whom a query may be shown: rows of blocks that a rule lets through, and what left nobody."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pairmatch.core.arrays import Ints
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.types import AttributeValue
from pairmatch.gallery.blocks import Block, Vectors
from pairmatch.rules import Kind, Mask, Rule, kind_of, parse_rule, person_columns

Where = str | Iterable[str] | None
Attributes = Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Rows, rising, and where there is none what left nobody."""

    rows: Ints
    excluded_by: str | None


def groups(
    blocks: Sequence[Block],
    kinds: Mapping[str, Kind],
    where: Where,
    asking: Sequence[Attributes] | None,
    mutual: bool,
    count: int,
) -> Iterator[tuple[list[int], Chosen]]:
    """Queries that share their candidates, with those."""
    everybody = list(range(count))
    rule = None if where is None else parse_rule(where)
    if rule is None or not rule.clauses:
        yield everybody, choose(blocks, None, {}, False)
        return
    people = [{} for _ in everybody] if asking is None else [dict(one) for one in asking]
    asking_kinds: dict[str, Kind] = {}
    for one in people:
        for name, value in one.items():
            if asking_kinds.setdefault(name, kind_of(value)) != kind_of(value):
                raise ConfigurationError(
                    f"`asking` has the attribute {name!r} in two kinds: {value!r} is not as before."
                )
    if kinds or blocks:
        rule.check(kinds, asking_kinds)
        if mutual:
            rule.check({**kinds, **asking_kinds}, kinds)
    used = (*rule.query_attributes, *(rule.attributes if mutual else ()))
    groups: dict[tuple[Any, ...], list[int]] = {}
    for query, one in enumerate(people):
        groups.setdefault(tuple(one.get(name) for name in used), []).append(query)
    for group in groups.values():
        yield group, choose(blocks, rule, people[group[0]], mutual)


def choose(blocks: Sequence[Block], rule: Rule | None, person: Attributes, mutual: bool) -> Chosen:
    """Rows of the candidates that a person may be shown, and what left nobody."""
    masks: list[Mask] = []
    labels = ["no candidates"]
    if rule is not None:
        labels += list(rule.clauses)
        labels += [f"{clause}, the other way round" for clause in rule.clauses if mutual]
    left = np.zeros(len(labels), np.int64)
    asking = person_columns(person)
    for block in blocks:
        mask = block.alive.copy()
        left[0] += mask.sum()
        if rule is not None and len(mask):
            holds = rule.holds(block.columns(rule.attributes), asking, len(mask))
            if mutual:
                holds += rule.holds(asking, block.columns(rule.query_attributes), len(mask))
            for place, one in enumerate(holds, 1):
                mask &= one
                left[place] += mask.sum()
        masks.append(mask)
    rows = np.flatnonzero(np.concatenate(masks)) if masks else np.empty(0, np.int64)
    return Chosen(rows, None if len(rows) else labels[int(np.argmin(left > 0))])


def rows_of(excluded: Sequence[Collection[str]], blocks: Sequence[Block]) -> list[Ints]:
    """Rows of the ids that are not shown, per query, rising."""
    wanted = sorted({person for own in excluded for person in own})
    row_of: dict[str, int] = {}
    start = 0
    for block in blocks:
        rows = block.find(pa.array(wanted, pa.string()))
        row_of.update(
            zip(block.ids.take(pa.array(rows)).to_pylist(), (rows + start).tolist(), strict=True)
        )
        start += len(block)
    return [
        np.array(sorted(row_of[person] for person in set(own) if person in row_of), np.int64)
        for own in excluded
    ]


def names_at(rows: Ints, blocks: Sequence[Block]) -> npt.NDArray[Any]:
    """Ids at rows, None where the row is −1."""
    names = np.full(rows.shape, None, object)
    start = 0
    for block in blocks:
        inside = (rows >= start) & (rows < start + len(block))
        if inside.any():
            names[inside] = block.ids.take(pa.array(rows[inside] - start)).to_pylist()
        start += len(block)
    return names


def spread(bonus: npt.NDArray[np.floating], blocks: Sequence[Block]) -> Vectors:
    """The bonus of those who are alive at the rows of everybody."""
    alive = np.concatenate([block.alive for block in blocks]) if blocks else np.empty(0, bool)
    given = np.asarray(bonus, np.float32)
    if given.shape != (int(alive.sum()),) or not np.isfinite(given).all():
        raise ConfigurationError(
            f"`bonus` needs one finite number per candidate, [{int(alive.sum())}], got {list(given.shape)}."
        )
    rows = np.zeros(len(alive), np.float32)
    rows[alive] = given
    return rows

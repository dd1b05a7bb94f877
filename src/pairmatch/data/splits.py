"""Splits of pairs into training, validation and test parts that share no people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from pairmatch.core.arrays import Ints
from pairmatch.core.components import assign_components, label_components
from pairmatch.core.errors import ConfigurationError, DataError, unknown_name
from pairmatch.core.partition import partition_people, partition_pools, within_a_fifth
from pairmatch.core.types import Pair

if TYPE_CHECKING:
    from pairmatch.data.pairs import Pairs

#: What a split never separates: whole components, single people, or the people of a pool.
SplitBy = Literal["component", "people", "time", "pool"]
SPLITS = ("component", "people", "pool")
_NAMES = ("training", "validation", "test")


class SplitPairs(tuple["Pairs", "Pairs", "Pairs"]):
    """Training, validation and test pairs, which share no person and no group.

    Attributes:
        by: `component` if whole connected components were assigned, `people` if people were parted,
            `time` if the test part is what came later, `pool` if whole pools were assigned.
        crossing: Pairs between the parts, which belong to none; empty after a split by component.
        reason: A sentence on how the pairs were split, and why.
        known: All pairs that are known at training time: those of the training and the validation
            part, and those between them.
        with_seen: The test pairs, and those between a person to test on and a person in `known`.
            `Matcher.evaluate(with_seen, known=known)` gives figures of new people
            and, apart, those of seen people.
    """

    by: SplitBy
    crossing: Pairs
    reason: str
    known: Pairs
    with_seen: Pairs

    def __new__(
        cls,
        parts: Sequence[Pairs],
        *,
        by: SplitBy,
        crossing: Pairs,
        reason: str,
        known: Pairs | None = None,
        with_seen: Pairs | None = None,
    ) -> SplitPairs:
        """Three parts; `known` and `with_seen` follow from who is in the test part."""
        split = super().__new__(cls, parts)
        split.by = by
        split.crossing = crossing
        split.reason = reason
        tested = parts[2].profiles
        if known is None:
            rows = [
                row
                for row, pair in enumerate(crossing.pairs)
                if pair.a not in tested and pair.b not in tested
            ]
            known = parts[0].joined(parts[1], crossing.subset(rows))
        if with_seen is None:
            rows = [
                row
                for row, pair in enumerate(crossing.pairs)
                if (pair.a in tested and pair.b in known.profiles)
                or (pair.b in tested and pair.a in known.profiles)
            ]
            with_seen = parts[2].joined(crossing.subset(rows))
        split.known = known
        split.with_seen = with_seen
        return split


def split_pairs(
    pairs: Pairs, train: float, validation: float, *, by: SplitBy | None, seed: int
) -> SplitPairs:
    """Implementation of [`Pairs.split`][pairmatch.data.pairs.Pairs.split]."""
    if not (0 < train <= 1 and 0 <= validation < 1 and train + validation <= 1 + 1e-9):
        raise ConfigurationError(
            "`split(train, validation)` needs shares with 0 < train, 0 ≤ validation and a sum "
            f"of at most 1, got {train} and {validation}."
        )
    if by is not None and by not in SPLITS:
        raise ConfigurationError(unknown_name("value of `split(by=...)`", by, SPLITS))
    sizes = _sizes(pairs, train, validation)
    if by == "pool":
        return _split_by_pool(pairs, sizes, seed)
    components = pair_components(pairs.pairs)
    by_component = _by_component(pairs, components, sizes, seed)
    fits = within_a_fifth(_matches_in(pairs, by_component), sizes)
    if by == "people" or (by is None and not fits and _has_several_pairs(pairs)):
        return _split_by_people(pairs, components, sizes, by, seed)
    counts = _matches_in(pairs, by_component)
    largest = np.bincount(components[is_match(pairs)], minlength=1).max(initial=0)
    count = len(np.unique(components))
    advice = "Use more pairs, or other shares."
    if by == "component" and _has_several_pairs(pairs):
        advice = "Use other shares, or split by people: `by='people'` (--split-by people)."
    shares = (train, validation, 1 - train - validation)
    for name, found, share in zip(_NAMES, counts, shares, strict=True):
        if share > 1e-9 and not found:
            raise DataError(
                f"The {name} split is empty: {len(pairs)} matches are in {count} components of "
                f"people and groups that cannot be separated. {advice}"
            )
    if not fits:
        raise DataError(
            f"The split misses its sizes by more than a fifth: {listed(counts)} matches instead "
            f"of {listed(sizes)}. {len(pairs)} matches are in {count} components of people and "
            f"groups that cannot be separated; the largest has {largest}. {advice}"
        )
    parts = [pairs.subset(np.flatnonzero(by_component == part)) for part in range(3)]
    reason = f"Split by component: {listed(counts)} matches; no pair is left out."
    return SplitPairs(parts, by="component", crossing=pairs.subset([]), reason=reason)


def _split_by_people(
    pairs: Pairs, components: Ints, sizes: Sequence[int], by: SplitBy | None, seed: int
) -> SplitPairs:
    units = units_of_pairs(pairs)
    matched = units[is_match(pairs)]
    part_of = partition_people(matched, int(units.max(initial=-1)) + 1, sizes, seed=seed)
    first, second = part_of[units.T]
    part = np.where(first == second, first, -1)
    counts = _matches_in(pairs, part)
    kept = sum(counts)
    wanted = [size * kept / len(pairs) for size in sizes]
    empty = any(size and not count for size, count in zip(sizes, counts, strict=True))
    if empty or not within_a_fifth(counts, wanted):
        raise DataError(
            f"The split by people misses its shares by more than a fifth: {listed(counts)} "
            f"matches are inside the parts, {len(pairs) - kept} of {len(pairs)} between them. Use "
            "more pairs, or other shares."
        )
    parts = [pairs.subset(np.flatnonzero(part == number)) for number in range(3)]
    largest = np.bincount(components[is_match(pairs)]).max()
    why = (
        "as requested"
        if by
        else f"because {largest} of {len(pairs)} matches are connected through shared people"
    )
    people = [len(part.profiles) for part in parts]
    reason = (
        f"Split by people, {why}: {listed(counts)} matches among {listed(people)} people; "
        f"{len(pairs) - kept} of {len(pairs)} matches are between parts and left out."
    )
    crossing = pairs.subset(np.flatnonzero(part == -1))
    return SplitPairs(parts, by="people", crossing=crossing, reason=reason)


def _split_by_pool(pairs: Pairs, sizes: Sequence[int], seed: int) -> SplitPairs:
    pools = pairs.pools
    if pools is None:
        raise DataError(
            "A split by pool needs pools: a column `pool` of the pairs file, or `pools` of a "
            "profiles file."
        )
    members = [
        (pools.names[pool], ids[row])
        for ids, side in ((pairs.ids_a, pools.a), (pairs.ids_b, pools.b))
        if side is not None
        for row, pool in side.tolist()
    ]
    blocks = pair_components(pairs.pairs, members)
    part = _by_component(pairs, blocks, sizes, seed, assign=partition_pools)
    counts = _matches_in(pairs, part)
    matched = [np.unique(blocks[is_match(pairs) & (part == number)]) for number in range(3)]
    of_parts = listed([len(found) for found in matched])
    empty = any(size and not count for size, count in zip(sizes, counts, strict=True))
    if empty or not within_a_fifth(counts, sizes):
        raise DataError(
            f"The split by pool misses its sizes by more than a fifth: {listed(counts)} matches "
            f"instead of {listed(sizes)}. {len(pools.names)} pools and the people whom they share "
            f"are {sum(map(len, matched))} blocks that cannot be separated. Use other shares, or "
            "split by people: `by='people'` (--split-by people)."
        )
    reason = (
        f"Split by pool, as requested: {listed(counts)} matches in {of_parts} blocks of pools that "
        "share no people; no pair is left out."
    )
    parts = [pairs.subset(np.flatnonzero(part == number)) for number in range(3)]
    return SplitPairs(parts, by="pool", crossing=pairs.subset([]), reason=reason)


def assign_to_folds(pairs: Pairs, k: int, seed: int) -> list[Ints]:
    """Implementation of [`Pairs.folds`][pairmatch.data.pairs.Pairs.folds]."""
    components = pair_components(pairs.pairs)
    available = len(np.unique(components[is_match(pairs)]))
    if not 2 <= k <= available:
        raise ConfigurationError(
            "`folds(k)` (--folds) must be from 2 to the number of components with a match, "
            f"{available}; got {k}."
            + (" People who are linked by pairs share a fold." if available < k else "")
        )
    size, rest = divmod(len(pairs), k)
    parts = _by_component(pairs, components, [size + (fold < rest) for fold in range(k)], seed)
    return [np.flatnonzero(parts == part) for part in range(k)]


def pair_components(pairs: Sequence[Pair], pools: Iterable[tuple[str, str]] = ()) -> Ints:
    """[number of pairs] int64 labels: pairs with equal labels share people, groups or pools.

    Args:
        pairs: The pairs.
        pools: Names of pools that are not separated, each with the id of a person in it.
    """
    nodes: dict[tuple[str, str], int] = {}
    links = []
    for pool, person in pools:
        pool_node, person_node = (
            nodes.setdefault(name, len(nodes)) + len(pairs)
            for name in (("pool", pool), ("person", person))
        )
        links.append((pool_node, person_node))
    for index, pair in enumerate(pairs):
        names = [("person", pair.a), ("person", pair.b)]
        if pair.group is not None:
            names.append(("group", pair.group))
        for name in names:
            node = nodes.setdefault(name, len(nodes)) + len(pairs)
            links.append((index, node))
    return label_components(links, len(pairs) + len(nodes))[: len(pairs)]


def units_of_pairs(pairs: Pairs) -> Ints:
    """[number of pairs, 2] int64 units of both people; people of one group are one unit.

    Units are numbered by content, not by row, so that a shuffled file has the same split.
    """
    people = sorted(pairs.profiles)
    row = {person: index for index, person in enumerate(people)}
    groups: dict[str, int] = {}
    links = []
    for pair in pairs.pairs:
        if pair.group is not None:
            node = groups.setdefault(pair.group, len(groups)) + len(people)
            links += [(row[pair.a], node), (row[pair.b], node)]
    labels = label_components(links, len(people) + len(groups))[: len(people)]
    rows = np.array([(row[pair.a], row[pair.b]) for pair in pairs.pairs], np.int64)
    units: Ints = labels[rows.reshape(-1, 2)]
    return units


def _has_several_pairs(pairs: Pairs) -> bool:
    """Whether a person or group stands in several pairs that are not all of one group."""
    units = units_of_pairs(pairs)[is_match(pairs)]
    components = len(np.unique(pair_components(pairs.pairs)[is_match(pairs)]))
    return components < min(len(np.unique(side)) for side in units.T)


def _by_component(
    pairs: Pairs,
    components: Ints,
    sizes: Sequence[int],
    seed: int,
    assign: Callable[..., Ints] | None = None,
) -> Ints:
    """[number of pairs] int64 part of each pair; components are assigned in random order.

    Args:
        pairs: The pairs.
        components: [number of pairs] int64 labels.
        sizes: Number of matches wanted in each part.
        seed: Seed for the order.
        assign: Function of counts, sizes and `seed=` that draws the order itself.
    """
    counts = np.bincount(components[is_match(pairs)], minlength=components.max(initial=-1) + 1)
    # Order by content, not by row, so that a shuffled file has the same split
    names: dict[int, tuple[str, str]] = {}
    for label, pair in zip(components.tolist(), pairs.pairs, strict=True):
        names[label] = min(names.get(label, (pair.a, pair.b)), (pair.a, pair.b))
    order = np.array(sorted(names, key=lambda label: names[label]), np.int64)
    part_of_component = np.empty(len(counts), np.int64)
    if assign is None:
        order = np.random.default_rng(seed).permutation(order)
        part_of_component[order] = assign_components(counts[order], sizes)
    else:
        part_of_component[order] = assign(counts[order], sizes, seed=seed)
    parts: Ints = part_of_component[components]
    return parts


def _sizes(pairs: Pairs, train: float, validation: float) -> list[int]:
    """Number of matches wanted in each part.

    Raises:
        DataError: There are no matches.
    """
    total = len(pairs)
    if not total:
        raise DataError(
            "A split needs matches, and there are none: "
            f"{len(pairs.pairs):,} pairs are rejected or open."
        )
    sizes = [int(total * train + 1e-9), int(total * validation + 1e-9)]
    sizes.append(total - sum(sizes))
    if train + validation > 1 - 1e-9:
        sizes[0 if validation == 0 else 1] += sizes[2]
        sizes[2] = 0
    return sizes


def is_match(pairs: Pairs) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.array([pair.outcome == "match" for pair in pairs.pairs], bool)


def _matches_in(pairs: Pairs, parts: Ints) -> list[int]:
    """Number of matches in each of three parts; −1 is in none."""
    matched = parts[is_match(pairs)]
    return [int(np.sum(matched == part)) for part in range(3)]


def listed(counts: Sequence[int]) -> str:
    return " / ".join(f"{count:,}" for count in counts)

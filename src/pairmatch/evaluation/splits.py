"""Splits of paired features into training and test parts that share no people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pairmatch.core.arrays import Ints
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.part import Part
from pairmatch.core.partition import partition_people, partition_pools, within_a_fifth
from pairmatch.core.types import Target
from pairmatch.evaluation.pool_notes import usable_gallery
from pairmatch.evaluation.targets import aim_at, count_of_target, part_of_data

#: What is never separated: whole components, single people (pairs across parts are left out), or
#: the people of a pool.
SplitBy = Literal["component", "people", "pool"]
#: Side whose test people are unseen in training.
Unseen = Literal["both", "a", "b"]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One test of a cross-validation.

    Attributes:
        repeat: Number of the repeat, from 0.
        fold: Number of the fold, from 0.
        train: Pairs to learn from.
        test: Pairs to test on.
        by: What was kept together: components, people, or pools.
        unseen: Side whose test people are not in the training part.
    """

    repeat: int
    fold: int
    train: Part
    test: Part
    by: SplitBy = "component"
    unseen: Unseen = "both"


def cross_validation_splits(
    data: PairedFeatures,
    *,
    repeats: int = 10,
    folds: int = 5,
    seed: int = 0,
    by: SplitBy | None = None,
    unseen: Unseen = "both",
    target: Target = "match",
) -> list[Split]:
    """Repeated k-fold splits in which training sees no person of the test part.

    By component, every pair is tested once per repeat. By people, both sides are parted into folds:
    the test part is the block of pairs inside a fold, and pairs between the fold and other people
    are left out (setting S4 of Pahikkala et al. 2015, "Toward more realistic drug-target
    interaction predictions"). A block holds about 1 / folds² of the pairs.

    Args:
        data: Features and pairs.
        repeats: Number of repeats, each with new folds.
        folds: Number of folds, at least 2.
        seed: Seed of the first repeat; each further repeat adds 1.
        by: `component`, `people`, or `pool`: whole pools are held out with their people. By default
            by component, unless one component is so large that the folds would differ by more than
            a fifth of their size.
        unseen: `both`, or the side whose test people are new while their candidates on the other
            side may be known (settings S2 and S3); `a` and `b` split by people.
        target: What is to be found in the test parts, which hold about equally much of it.

    Raises:
        ConfigurationError: `repeats` is below 1, or the number of folds is impossible.
    """
    if target != "match":
        aimed = aim_at(data, target)
        splits = cross_validation_splits(
            aimed, repeats=repeats, folds=folds, seed=seed, by=by, unseen=unseen
        )
        return [_of_data(data, aimed, split) for split in splits]
    if repeats < 1:
        raise ConfigurationError(f"`repeats` must be at least 1, got {repeats}.")
    if folds < 2:
        raise ConfigurationError(f"`folds` must be at least 2, got {folds}.")
    if unseen != "both":
        if data.one_sided or by in ("component", "pool"):
            raise ConfigurationError(f"`unseen={unseen!r}` needs two sides and a split by people.")
        by = "people"
    sizes = [len(data) // folds + (fold < len(data) % folds) for fold in range(folds)]
    by = by or split_by(data, sizes, seed)
    if by == "component":
        _check_components(data, folds)
    splits = []
    for repeat in range(repeats):
        pairs = _folds(data, sizes, seed + repeat, by, unseen)
        splits += [
            Split(repeat, fold, train, test, by, unseen) for fold, (train, test) in enumerate(pairs)
        ]
    return splits


def holdout_splits(
    data: PairedFeatures, *, repeats: int = 10, test: float = 0.15, seed: int = 0
) -> list[Split]:
    """Repeated splits of the recipe's sizes, by component or by people.

    Galleries then hold the same share of the pairs as the paper's.

    Raises:
        ConfigurationError: A part is empty at this share.
    """
    size = len(data) - int(len(data) * (1 - test) + 1e-9)
    splits = []
    for repeat in range(repeats):
        by, train_part, test_part = hold_out(data, size, seed=seed + repeat)
        if not (len(train_part) and len(test_part)):
            raise ConfigurationError(
                f"{len(data)} pairs cannot be split with a test share of {test}."
            )
        splits.append(Split(repeat, 0, train_part, test_part, by))
    return splits


def hold_out(data: PairedFeatures, size: int, *, seed: int) -> tuple[SplitBy, Part, Part]:
    """Training pairs, and about `size` of 1 matches to test on that share no people with them.

    By people, pairs between the parts are left out, and both parts shrink alike.
    """
    sizes = [len(data) - size, size]
    if split_by(data, sizes, seed) == "component":
        train, test = data.parts(sizes, seed=seed)
        return "component", train, test
    is_test = _parts_of_people(data, sizes, seed) == 1
    return "people", data.inside(a=~is_test, b=~is_test), data.inside(a=is_test, b=is_test)


def split_by(data: PairedFeatures, sizes: Sequence[int], seed: int) -> SplitBy:
    """`component`, unless its parts would miss the sizes by more than a fifth and people's do not.

    A single component of a dense graph would otherwise fill one part and leave the others empty.
    """
    by_component = [len(part) for part in data.parts(sizes, seed=seed)]
    if within_a_fifth(by_component, sizes) or len(np.unique(data.components)) >= data.independent:
        return "component"
    first, second = _parts_of_people(data, sizes, seed)[data.unit_pairs(data.matches)].T
    inside = np.bincount(first[first == second], minlength=len(sizes))
    wanted = np.asarray(sizes) * inside.sum() / sum(sizes)
    is_usable = inside[np.asarray(sizes) > 0].all() and within_a_fifth(inside, wanted)
    return "people" if is_usable else "component"


def check_splits(data: PairedFeatures, splits: Sequence[Split], target: Target = "match") -> None:
    """Raises ConfigurationError that names every split whose parts share people or are empty."""
    problems = []
    for split in splits:
        name = f"repeat {split.repeat}, fold {split.fold}"
        shared = _shared_units(data, split)
        if shared:
            problems.append(
                f"{name}: {shared} people or groups are in both the training and the test part"
            )
        if not len(split.train) or not count_of_target(data, split.test, target):
            missing = "match" if target == "match" else f"match, or no yes of side {target[0]}"
            problems.append(f"{name}: the training or the test part holds no {missing}")
    if problems or not splits:
        reason = "; ".join(problems) or "there are none"
        raise ConfigurationError(f"`splits` cannot be used: {reason}.")


def smallest_gallery(
    data: PairedFeatures, splits: Sequence[Split], target: Target = "match"
) -> int:
    """Size of the smallest gallery among the test parts; with pools, of their largest pools."""
    return min(usable_gallery(aim_at(data.take(split.test), target)) for split in splits)


def people_note(
    data: PairedFeatures, splits: Sequence[Split], target: Target = "match"
) -> list[str]:
    """A note on splits by people: how many pairs they train and test on; none by component."""
    chosen = [split for split in splits if split.by == "people"]
    if not chosen:
        return []
    train, test = (
        np.mean([count_of_target(data, part, target) for part in parts])
        for parts in ([s.train for s in chosen], [s.test for s in chosen])
    )
    total = count_of_target(data, None, target)
    kind = "matches" if target == "match" else f"pairs with a yes of side {target[0]}"
    who = {
        "both": "people of both sides are",
        "a": "people of side a are",
        "b": "people of side b are",
    }[chosen[0].unseen]
    return [
        f"Split by people, because people stand in several pairs: tested {who} not in the training "
        f"part. On average {train:.0f} of {total} {kind} train and {test:.0f} test; pairs "
        "between the two are left out."
    ]


def _parts_of_people(data: PairedFeatures, sizes: Sequence[int], seed: int) -> Ints:
    """[units] int64 number of each unit's part."""
    units = int(data.units.max(initial=-1)) + 1
    return partition_people(data.unit_pairs(data.matches), units, sizes, seed=seed)


def _parts_of_pools(data: PairedFeatures, sizes: Sequence[int], seed: int) -> list[Part]:
    """The pairs of whole pools, which are assigned to the parts at random."""
    if data.pools is None:
        raise ConfigurationError("Splits by pool need features with pools: `pools=Pools.of(...)`.")
    joined = data.with_units(data.pools.join_units(data.units, len(data.a)))
    labels, counts = np.unique(joined.components, return_counts=True)
    if len(sizes) > len(labels):
        raise ConfigurationError(
            f"{len(data.pools.names)} pools and the people whom they share are {len(labels)} "
            f"blocks with a match, too few for {len(sizes)} folds of pools."
        )
    without_match = np.setdiff1d(joined.decision_components, labels)
    labels = np.append(labels, without_match)
    counts = np.append(counts, np.zeros(len(without_match), np.int64))
    part = partition_pools(counts, sizes, seed=seed)
    return [joined.part(labels[part == number]) for number in range(len(sizes))]


def _shared_units(data: PairedFeatures, split: Split) -> int:
    seen = {"both": slice(None), "a": slice(0, 1), "b": slice(1, 2)}[split.unseen]
    train, test = (
        data.unit_pairs(data.decisions.pairs[data.positions(part)])[:, seen]
        for part in (split.train, split.test)
    )
    return len(np.intersect1d(train, test))


def _of_data(data: PairedFeatures, aimed: PairedFeatures, split: Split) -> Split:
    """The split of a set from that of the set aimed at a target."""
    train, test = (part_of_data(data, aimed, part) for part in (split.train, split.test))
    return replace(split, train=train, test=test)


def _check_components(data: PairedFeatures, folds: int) -> None:
    available = len(np.unique(data.components))
    if folds > available:
        raise ConfigurationError(
            "The number of folds must be from 2 to the number of components with a match, "
            f"{available}; got {folds}."
        )


def _union(parts: Sequence[Part], *, without: int) -> Part:
    kept = [part for index, part in enumerate(parts) if index != without]
    return Part(
        np.sort(np.concatenate([part.matches for part in kept])),
        np.sort(np.concatenate([part.rejected for part in kept])),
        np.sort(np.concatenate([part.open for part in kept])),
    )


def _folds(
    data: PairedFeatures, sizes: Sequence[int], seed: int, by: SplitBy, unseen: Unseen
) -> list[tuple[Part, Part]]:
    """Training and test part of each fold of a repeat."""
    if by == "people":
        return _people_folds(data, sizes, seed, unseen)
    divide = _parts_of_pools if by == "pool" else PairedFeatures.parts
    parts = divide(data, sizes, seed=seed)
    return [(_union(parts, without=fold), test) for fold, test in enumerate(parts)]


def _people_folds(
    data: PairedFeatures, sizes: Sequence[int], seed: int, unseen: Unseen
) -> list[tuple[Part, Part]]:
    fold_of = _parts_of_people(data, sizes, seed)
    everyone = np.ones(len(fold_of), bool)
    folds = []
    for fold in range(len(sizes)):
        tested = fold_of == fold
        new_a, new_b = unseen in ("both", "a"), unseen in ("both", "b")
        train = data.inside(a=~tested if new_a else everyone, b=~tested if new_b else everyone)
        test = data.inside(a=tested if new_a else everyone, b=tested if new_b else everyone)
        if not (len(train) and len(test)):
            raise ConfigurationError(
                f"{len(data)} matches are too few for {len(sizes)} folds of people: the pairs "
                "inside a fold are about 1 / folds² of them. Use fewer folds."
            )
        folds.append((train, test))
    return folds

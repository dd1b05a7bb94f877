"""`FeatureBlock`: which columns of joined features come from which backbone and pooler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pairmatch.core.errors import ConfigurationError

ALL = "features"


@dataclass(frozen=True, slots=True)
class FeatureBlock:
    """Neighboring columns of features that have one source.

    Attributes:
        name: Name of the source, such as `clip/native`.
        start: First column.
        stop: Column after the last one.
    """

    name: str
    start: int
    stop: int

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.stop - self.start

    @property
    def columns(self) -> slice:
        """The columns, to index the second axis of features."""
        return slice(self.start, self.stop)


def feature_blocks(names: Sequence[str], widths: Sequence[int]) -> tuple[FeatureBlock, ...]:
    """Blocks of features that are joined in this order; equal names are numbered.

    Args:
        names: Name of each block.
        widths: Number of columns of each block.
    """
    blocks = []
    start = 0
    for number, (name, width) in enumerate(zip(names, widths, strict=True)):
        earlier = list(names[:number]).count(name)
        label = f"{name} {earlier + 1}" if earlier else name
        blocks.append(FeatureBlock(label, start, start + width))
        start += width
    return tuple(blocks)


def check_blocks(blocks: Sequence[FeatureBlock] | None, dim: int) -> tuple[FeatureBlock, ...]:
    """The blocks of features [people, D]; one block of all columns if none are given.

    Raises:
        ConfigurationError: The blocks do not cover each column once, in order, or names are
            missing or used twice; names every problem.
    """
    if not blocks:
        return (FeatureBlock(ALL, 0, dim),)
    names = [block.name for block in blocks]
    problems = [
        f"{name!r} is used twice" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if not all(names):
        problems.append("a block has no name")
    problems += [f"{block.name!r} has no columns" for block in blocks if block.stop <= block.start]
    if blocks[0].start:
        problems.append(f"{names[0]!r} starts at column {blocks[0].start} instead of 0")
    problems += [
        f"{after.name!r} starts at column {after.start} and {before.name!r} stops at {before.stop}"
        for before, after in pairwise(blocks)
        if after.start != before.stop
    ]
    if blocks[-1].stop != dim:
        problems.append(f"{names[-1]!r} stops at column {blocks[-1].stop} of {dim}")
    if problems:
        raise ConfigurationError(
            "Blocks of features must cover each column once, in order, under distinct names: "
            f"{'; '.join(problems)}. `feature_blocks(names, widths)` builds them."
        )
    return tuple(blocks)

"""The kinds of mutated inputs, and which of them a run tries."""

import random
from collections.abc import Mapping, Sequence
from typing import Protocol

from .cases_galleries import Galleries, Journals, SlateFolders
from .cases_images import Photos
from .cases_matchers import Matchers, Sweeps
from .cases_metadata import Answers, Batches, Exports
from .cases_rules import Rules
from .cases_stores import Stores
from .cases_tables import People
from .subject import Subject


class Weighted(Protocol):
    """What has a share of the cases of a run."""

    weight: int


def subjects() -> dict[str, Subject]:
    """All kinds of input, by name."""
    kinds: tuple[Subject, ...] = (
        People(),
        Photos(),
        Matchers(),
        Rules(),
        Galleries(),
        Journals(),
        SlateFolders(),
        Stores(),
        Answers(),
        Batches(),
        Exports(),
        Sweeps(),
    )
    return {kind.name: kind for kind in kinds}


def draw_jobs(
    kinds: Mapping[str, Weighted],
    seed: int,
    count: int,
    only: Sequence[str] = (),
    case: int | None = None,
) -> list[tuple[str, int]]:
    """The (kind, number) of each case; a case depends on seed, kind and number alone.

    Args:
        kinds: Kinds of input, or of work, by name.
        seed: Seed of the run.
        count: Number of cases.
        only: Kinds to draw from; by default all.
        case: The only number; None for all.
    """
    names = list(only) or list(kinds)
    weights = [kinds[name].weight for name in names]
    drawn = random.Random(seed).choices(names, weights, k=max(count, (case or 0) + 1))
    jobs = [(name, number) for number, name in enumerate(drawn)]
    return jobs if case is None else [jobs[case]]

"""The kinds of mutated inputs, and which of them a run tries."""

import random

from .cases_galleries import Galleries, Journals, SlateFolders
from .cases_images import Photos
from .cases_matchers import Matchers, Sweeps
from .cases_metadata import Answers, Batches, Exports
from .cases_rules import Rules
from .cases_stores import Stores
from .cases_tables import People
from .subject import Subject


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
    seed: int, count: int, kind: str | None = None, case: int | None = None
) -> list[tuple[str, int]]:
    """The (kind, number) of each case; a case depends on seed, kind and number alone."""
    kinds = subjects()
    weights = [subject.weight for subject in kinds.values()]
    drawn = random.Random(seed).choices(list(kinds), weights, k=count)
    jobs = [(kind or name, number) for number, name in enumerate(drawn)]
    return jobs if case is None else [jobs[case]]

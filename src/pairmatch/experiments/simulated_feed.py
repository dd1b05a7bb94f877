"""The feed of a simulated log: who is shown to whom, and when."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Ints
from pairmatch.core.errors import ConfigurationError
from pairmatch.experiments.simulated_people import LogSettings, People

Doubles = npt.NDArray[np.float64]

_ROUNDS = 50


def shown_pairs(
    rng: np.random.Generator, a: People, b: People, settings: LogSettings
) -> tuple[Ints, Doubles, Ints]:
    """Pairs in the order of time, their days, and which side saw the other first."""
    keys = np.empty(0, np.int64)
    days = np.empty(0)
    firsts = np.empty(0, np.int64)
    for _ in range(_ROUNDS):
        missing = settings.outcomes - len(keys)
        if missing <= 0:
            break
        rows, day, first = _feed(rng, a, b, settings, missing + missing // 4 + 16)
        keys = np.concatenate([keys, rows[:, 0] * len(b) + rows[:, 1]])
        kept = np.sort(np.unique(keys, return_index=True)[1])[: settings.outcomes]
        keys = keys[kept]
        days = np.concatenate([days, day])[kept]
        firsts = np.concatenate([firsts, first])[kept]
    if len(keys) < settings.outcomes:
        raise ConfigurationError(
            f"`simulate_log`: the feed of {len(a):,} and {len(b):,} people in {settings.regions} "
            f"regions shows hardly more than {len(keys):,} different pairs: ask for fewer outcomes "
            f"than {settings.outcomes:,}, or for more people."
        )
    order = np.argsort(days, kind="stable")
    pairs = np.stack(np.divmod(keys[order], len(b)), axis=1)
    return pairs, days[order], firsts[order]


def _feed(
    rng: np.random.Generator, a: People, b: People, settings: LogSettings, count: int
) -> tuple[Ints, Doubles, Ints]:
    """Draws who is shown to whom, and when; fewer than `count` if no candidates are left."""
    step = settings.days + 2.0 * settings.lifetime_days  # from one region to the next
    parts: list[tuple[Ints, Doubles, Ints]] = []
    for first, (viewers, candidates) in enumerate(((a, b), (b, a))):
        opens = np.maximum(viewers.joined, 0)
        closes = np.minimum(viewers.joined + settings.lifetime_days, settings.days)
        weight = viewers.activity * (closes - opens)
        size = count // 2 + first * (count % 2)
        viewer = rng.choice(len(viewers), size, p=weight / weight.sum())
        day = opens[viewer] + rng.random(size) * (closes - opens)[viewer]
        # Candidates in the order of region and joining: those who are active are a run of them
        position = candidates.region * step + candidates.joined + settings.lifetime_days
        order = np.argsort(position, kind="stable")
        shares = np.concatenate(
            [[0], np.cumsum(np.exp(settings.exposure * candidates.popularity)[order])]
        )
        newest = viewers.region[viewer] * step + day + settings.lifetime_days
        high = np.searchsorted(position[order], newest, side="right")
        low = np.searchsorted(position[order], newest - settings.lifetime_days, side="right")
        drawn = shares[low] + rng.random(size) * (shares[high] - shares[low])
        candidate = np.searchsorted(shares, drawn, side="right") - 1
        usable = (high > low) & (candidate >= low) & (candidate < high)
        chosen = order[candidate[usable]]
        rows = [viewer[usable], chosen] if first == 0 else [chosen, viewer[usable]]
        parts.append((np.stack(rows, axis=1), day[usable], np.full(usable.sum(), first)))
    pairs, days, firsts = (np.concatenate(values) for values in zip(*parts, strict=True))
    mixed = rng.permutation(len(pairs))
    return pairs[mixed], days[mixed], firsts[mixed]

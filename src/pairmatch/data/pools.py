"""Pools of pairs and of profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.pools import Pools
from pairmatch.core.types import Profile
from pairmatch.data.pool_rules import pools_by_rule

if TYPE_CHECKING:
    from pairmatch.data.pairs import Pairs


def pools_of(pairs: Pairs) -> Pools | None:
    """Implementation of [`Pairs.pools`][pairmatch.data.pairs.Pairs.pools]."""
    of_pairs = [pair.pool or None for pair in pairs.pairs]
    of_a, of_b = (
        [pool_names(pairs.profiles[person]) for person in ids] for ids in (pairs.ids_a, pairs.ids_b)
    )
    if pairs.where is not None:
        people_a, people_b = (
            [pairs.profiles[person] for person in ids] for ids in (pairs.ids_a, pairs.ids_b)
        )
        by_rule = pools_by_rule(pairs.where, people_a, people_b, one_sided=pairs.sides == 1)
        of_a, of_b = (
            [[*names, *more] for names, more in zip(named, side, strict=True)]
            for named, side in zip((of_a, of_b), by_rule, strict=True)
        )
    if not any(of_pairs) and not any(map(any, (of_a, of_b))):
        return None
    return Pools.of(pairs.decisions.pairs, of_pairs, a=of_a, b=of_b, one_sided=pairs.sides == 1)


def check_rule(pairs: Pairs) -> None:
    """Checks the rule `where` of pairs.

    Raises:
        ConfigurationError: The rule cannot be used, or every pair has a pool without it.
    """
    pools_of(pairs)
    for pair in pairs.pairs:
        names_a, names_b = (pool_names(pairs.profiles[person]) for person in (pair.a, pair.b))
        if not (pair.pool or set(names_a) & set(names_b)):
            return
    raise ConfigurationError(
        f"The rule {pairs.where!r} has no effect: every pair has a pool already, by the column "
        "`pool` or by the pools of its people. Leave out the rule, or these columns."
    )


def pool_names(profile: Profile) -> list[str]:
    """Pools that a profile names in its attribute `pool` or `pools`, separated by `;`."""
    value = profile.attributes.get("pools", profile.attributes.get("pool"))
    if value is None or isinstance(value, bool):
        return []
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    names = (name.strip() for name in str(value).split(";"))
    return list(dict.fromkeys(name for name in names if name))

"""Plans of A/B tests: against a textbook, a known correlation, and simulated tests."""

import datetime
import math

import numpy as np
import pytest
from scipy.stats import norm

from pairmatch import Pair, Pairs, Profile
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.market import intraclass_correlation, pairs_per_arm, plan_test

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def people(rng, count, per_person, rate, correlation):
    """[count] matches of each person with beta-binomial outcomes, and numbers of pairs."""
    scale = (1 - correlation) / correlation
    sizes = rng.poisson(per_person, count) + 1
    return rng.binomial(sizes, rng.beta(rate * scale, (1 - rate) * scale, count)), sizes


def log(rng, count, per_person, rate, correlation, weeks):
    matches, sizes = people(rng, count, per_person, rate, correlation)
    seconds = np.linspace(0, weeks * 7 * 24 * 3600, int(sizes.sum()))
    times = iter(START + datetime.timedelta(seconds=float(second)) for second in seconds)
    pairs = [
        Pair(f"a{a}", f"b{b}", "match" if b < matches[a] else "rejected", time=next(times))
        for a in range(count)
        for b in range(sizes[a])
    ]
    ids = {pair.a for pair in pairs} | {pair.b for pair in pairs}
    return Pairs.of([Profile(person, attributes={"x": 1}) for person in sorted(ids)], pairs)


@pytest.mark.parametrize(
    ("rates", "power", "pairs"),
    [((0.6, 0.7), 0.8, 356), ((0.1, 0.12), 0.8, 3841), ((0.25, 0.4), 0.9, 203)],
)
def test_numbers_of_pairs_are_those_of_the_formula(rates, power, pairs):
    first, second = rates
    z = norm.isf(0.025), norm.isf(1 - power)
    mean = sum(rates) / 2
    spread = math.sqrt(first * (1 - first) + second * (1 - second))
    formula = (z[0] * math.sqrt(2 * mean * (1 - mean)) + z[1] * spread) ** 2 / (first - second) ** 2
    assert pairs_per_arm(*rates, power=power) == pytest.approx(formula)
    assert math.ceil(formula) == pairs


def test_the_correlation_of_a_person_is_recovered():
    rng = np.random.default_rng(0)
    matches, sizes = people(rng, 20_000, 8, 0.2, 0.1)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    values = (np.arange(len(groups)) - first[groups] < matches[groups]).astype(float)
    assert intraclass_correlation(values, groups) == pytest.approx(0.1, abs=0.01)
    assert intraclass_correlation(rng.permutation(values), groups) < 0.005


def test_a_planned_test_has_the_power_that_it_promises():
    """Tests of the planned length on simulated people, judged by the means of people."""
    rng = np.random.default_rng(1)
    plan = plan_test(log(rng, 600, 5, 0.2, 0.1, 4.0), lift=0.3)
    assert 0.05 < plan.correlation < 0.15
    assert plan.design_effect > 1.2
    per_person = plan.pairs_per_week * plan.weeks
    found = 0
    for _ in range(1000):
        ratios, variances = [], []
        for rate in (plan.rate, plan.rate * 1.3):
            matches, sizes = people(rng, plan.people, per_person - 1, rate, plan.correlation)
            ratio = matches.sum() / sizes.sum()
            ratios.append(ratio)
            variances.append(((matches - ratio * sizes) ** 2).sum() / sizes.sum() ** 2)
        found += abs(ratios[0] - ratios[1]) / math.sqrt(sum(variances)) > norm.isf(0.025)
    assert found / 1000 == pytest.approx(0.8, abs=0.06)
    assert f"{plan.weeks:.1f} weeks show +30% of a match rate of" in str(plan)


def test_few_people_who_differ_never_show_a_small_change():
    plan = plan_test(log(np.random.default_rng(2), 60, 5, 0.2, 0.3, 4.0), lift=0.05)
    assert math.isinf(plan.weeks)
    assert "however long the test runs" in str(plan)


def test_what_cannot_be_planned():
    rng = np.random.default_rng(3)
    pairs = log(rng, 20, 4, 0.3, 0.1, 2.0)
    for options, words in (
        ({"lift": 0}, "must differ"),
        ({"lift": 9}, "in (0, 1)"),
        ({"lift": 0.1, "power": 1}, "level < power < 1"),
        ({"lift": 0.1, "side": "c"}, "'a' or 'b'"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            plan_test(pairs, **options)
        assert words in str(caught.value)
    profiles = [Profile(person, attributes={"x": 1}) for person in "abcd"]
    untimed = Pairs.of(profiles, [Pair("a", "b"), Pair("a", "c", "rejected"), Pair("d", "b")])
    with pytest.raises(DataError, match="0 of 3 pairs have a time"):
        plan_test(untimed, lift=0.1)
    times = [START, START + datetime.timedelta(days=7)]
    matches = [Pair("a", other, time=time) for other, time in zip(("b", "c"), times, strict=True)]
    with pytest.raises(DataError, match="2 of them matches"):
        plan_test(Pairs.of(profiles, matches), lift=0.1)

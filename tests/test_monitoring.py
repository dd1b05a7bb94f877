"""Monitoring: no alarm without a change, an alarm with one, and nothing of any person saved."""

import json
import math

import numpy as np
import pytest
from test_cli import run

from pairmatch import Matcher, Pair, Pairs, Profile
from pairmatch.core.errors import ConfigurationError, SavedMatcherError
from pairmatch.experiments.simulated_people import LogSettings
from pairmatch.experiments.simulation import simulate_log
from pairmatch.matcher.monitoring import monitor, population_stability
from pairmatch.matcher.reference import LEAST_PEOPLE, Histogram

PEOPLE = {"people_a": 500, "people_b": 500, "outcomes": 10_000, "regions": 1}


def pairs_between(log, pairs, first, last):
    start, end = log.at_day(first), log.at_day(last)
    return pairs.subset([row for row, pair in enumerate(pairs.pairs) if start <= pair.time < end])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """(matcher, log, pairs): fitted on 45 days and evaluated on 15 more."""
    log = simulate_log(LogSettings(**PEOPLE), seed=0)
    pairs = log.as_pairs()
    store = tmp_path_factory.mktemp("store") / "store.sqlite"
    matcher = Matcher(backbone="attributes", metadata=None, learner="ridge", store=store)
    known = pairs_between(log, pairs, 0, 45)
    matcher.fit(known)
    matcher.evaluate(pairs_between(log, pairs, 45, 60), known=known, resamples=0)
    return matcher, log, pairs


def later(seed=0, **settings):
    """The last 25 days of a log; with seed 0, of the people of `fitted`."""
    log = simulate_log(LogSettings(**PEOPLE, **settings), seed=seed)
    return pairs_between(log, log.as_pairs(), 65, 90)


def test_population_stability_matches_a_loop_and_its_distribution():
    now, before = [30, 50, 20], [100, 100, 100]
    p = [(count + 0.5) / 101.5 for count in now]
    q = [(count + 0.5) / 301.5 for count in before]
    expected = sum((x - y) * math.log(x / y) for x, y in zip(p, q, strict=True))
    assert population_stability(now, before)[0] == pytest.approx(expected)
    # Among equal populations, 5 % of the indices are above the limit of chance
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(10, 5))
    above = [
        np.greater(
            *population_stability(rng.multinomial(200, shares), rng.multinomial(300, shares))
        )
        for _ in range(2000)
    ]
    assert 0.035 < np.mean(above) < 0.065


def test_no_alarm_without_a_change(fitted):
    matcher, _, _ = fitted
    for seed in range(3):
        # Other seeds have other tastes, so only the people are compared
        result = monitor(matcher, later(seed))
        assert {one.level for one in result.watched} <= {"stable", "watch"}
        assert seed or not result.act
    assert len(result.watched) > 15


def test_an_alarm_if_people_change(fitted):
    result = monitor(fitted[0], later(people_drift=2.0))
    assert result.act
    assert result.sentence.startswith("Act: the newest people differ from those of training in")
    assert result.watched[0].level == "act"


def test_an_alarm_if_tastes_turn(fitted):
    matcher, _, _ = fitted
    result = monitor(matcher, later(taste_drift=200))
    assert result.declined
    assert "Partners are found less often than at training" in result.sentence
    assert result.auc < 0.5 < result.auc_before


def changed(pairs, change):
    people = [
        Profile(person.id, text=person.text, attributes=change(dict(person.attributes)))
        for person in pairs.people
    ]
    return Pairs.of(people, pairs.pairs)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda a: a | {"height_cm": a.get("height_cm", 170) / 2.54}, "height_cm (a)"),
        (lambda a: {k: v for k, v in a.items() if k != "music"}, "music (b)"),
        (lambda a: a | {"lifestyle": a.get("lifestyle", "").title()}, "lifestyle (a)"),
    ],
    ids=["another unit", "a lost column", "other words"],
)
def test_an_alarm_if_inputs_break(fitted, change, name):
    result = monitor(fitted[0], changed(later(), change))
    levels = {one.name: one for one in result.watched}
    assert levels[name].level == "act"
    if name == "lifestyle (a)":
        assert levels[name].unseen > 0.9 > levels[name].unseen_before


def pairs_of(people, **columns):
    profiles = [
        Profile(f"{side}{i}", attributes={"age": 20 + i}) for i in range(people) for side in "ab"
    ]
    return Pairs.of(
        profiles,
        [Pair(f"a{i}", f"b{i}", **{k: v(i) for k, v in columns.items()}) for i in range(people)],
    )


def test_partners_without_other_candidates_have_no_auc(tmp_path):
    pairs = pairs_of(30, pool=lambda i: f"table {i}")
    store = tmp_path / "store.sqlite"
    matcher = Matcher(backbone="attributes", metadata=None, learner="ridge", store=store)
    matcher.fit(pairs)
    matcher.evaluate(pairs, resamples=0)
    assert matcher.reference.auc is None
    matcher.save(tmp_path / "m")
    result = monitor(Matcher.load(tmp_path / "m", store=store), pairs)
    assert result.auc is None
    assert not result.declined


def test_a_few_matches_are_no_reason_to_act(tmp_path):
    store = tmp_path / "store.sqlite"
    matcher = Matcher(backbone="attributes", metadata=None, learner="ridge", store=store)
    matcher.fit(pairs_of(60))
    matcher.evaluate(pairs_of(60), resamples=0)
    swapped = [Pair("a0", "b50"), Pair("a50", "b0")]
    few = Pairs.of(list(pairs_of(60).profiles.values()), swapped)
    result = monitor(matcher, few)
    assert result.auc < matcher.reference.auc - 0.4
    assert not result.declined


def test_histograms_tell_of_no_person():
    rng = np.random.default_rng(1)
    names = [f"person {row}" for row in range(300)]
    assert Histogram.of(names) is None
    assert Histogram.of([1.5] * 10 + [2.5] * 9) is None
    few = Histogram.of(["red"] * 100 + ["green"] * (LEAST_PEOPLE - 1) + ["blue"] * 30 + [None] * 4)
    assert few.categories == ("red", "blue")
    assert few.counts == (100, 30, LEAST_PEOPLE - 1, 4)
    assert Histogram.of([170.0, *[180.0] * 399]) is None
    tails = Histogram.of([*[999.6] * 40, *range(1001, 1006), *[500.0] * 55])
    assert min(filter(None, tails.counts)) >= LEAST_PEOPLE / 2
    numbers = Histogram.of([*rng.normal(size=90).tolist(), None, None])
    assert len(numbers.edges) == 3
    assert numbers.counts[-1] == 2
    assert min(numbers.counts[:-1]) >= LEAST_PEOPLE
    assert all(edge == float(f"{edge:.3g}") for edge in numbers.edges)
    assert numbers.count([True, "text", -9.0, 9.0]) == (1, 0, 0, 1, 2)


def test_a_saved_matcher_holds_the_reference(fitted, tmp_path):
    matcher, _, pairs = fitted
    matcher.save(tmp_path / "m")
    record = json.loads((tmp_path / "m" / "matcher.json").read_text())
    text = json.dumps(record["reference"])
    assert not any(f'"{person}"' in text for person in pairs.profiles)
    loaded = Matcher.load(tmp_path / "m", store=tmp_path / "store.sqlite")
    assert monitor(loaded, later()).to_dict() == monitor(matcher, later()).to_dict()
    record["reference"]["variables"]["scores"]["counts"].append(1)
    (tmp_path / "m" / "matcher.json").write_text(json.dumps(record))
    with pytest.raises(SavedMatcherError, match="counts for its bins"):
        Matcher.load(tmp_path / "m")
    del record["reference"]
    (tmp_path / "m" / "matcher.json").write_text(json.dumps(record))
    with pytest.raises(ConfigurationError, match="holds no summary of its training people"):
        monitor(Matcher.load(tmp_path / "m", store=tmp_path / "store.sqlite"), later())


def test_the_command_prints_a_table_and_writes_json(fitted, tmp_path):
    matcher, _, _ = fitted
    matcher.save(tmp_path / "m")
    log = simulate_log(LogSettings(**PEOPLE, people_drift=2.0), seed=0)
    rows, profiles = log.write(tmp_path, format="parquet")
    figures = tmp_path / "figures.json"
    common = f"--profiles {profiles} --store {tmp_path / 's.sqlite'} --quiet"
    for _ in range(2):
        text = run(f"monitor {tmp_path / 'm'} {rows} {common} --json {figures}")
    written = json.loads(figures.read_text())
    assert written["act"] is True
    assert written["sentence"] in text
    assert "features 1 (a)" in text

"""Splits by time and by a file of test pairs: who is new, who is seen, and what is left out."""

import datetime
import json

import pandas as pd
import pytest
from test_cli import run, unwrapped

from pairmatch import Matcher, Pair, Pairs, Profile, leakage
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.data.time_splits import parse_time, split_before_test
from pairmatch.evaluation.evaluation import MIXED
from pairmatch.experiments.simulated_people import LogSettings
from pairmatch.experiments.simulation import simulate_log

DAY = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def pairs_of(rows, **options):
    """Pairs (a, b, day, outcome); people have their id as text."""
    pairs = [
        Pair(a, b, *outcome, time=None if day is None else DAY + datetime.timedelta(days=day))
        for a, b, day, *outcome in rows
    ]
    people = dict.fromkeys(person for pair in pairs for person in (pair.a, pair.b))
    return Pairs.of([Profile(person, text=person) for person in people], pairs, **options)


def names(pairs):
    return [f"{pair.a} {pair.b}" for pair in pairs.pairs]


@pytest.fixture(scope="module")
def log():
    return simulate_log(LogSettings(), seed=0).as_pairs()


def test_the_parts_of_a_small_log():
    pairs = pairs_of(
        [
            ("a0", "b0", 0),
            ("a1", "b1", 1),
            ("a2", "b2", 10),
            ("a2", "b0", 11),  # between two people who are new and one who is not
            ("a0", "b2", 12),
            ("a3", "b3", 12),
            ("a4", "b4", 20),
            ("a0", "b4", 21),
            ("a1", "b0", 22),
            ("a5", "b5", 23, "rejected"),
        ]
    )
    split = pairs.split_by_time("2026-01-21", validation=0)
    train, validation, test = split
    assert split.by == "time"
    assert len(train) == 6
    assert not validation.pairs
    assert names(test) == ["a4 b4", "a5 b5"]
    assert names(split.crossing) == ["a0 b4", "a1 b0"]
    assert split.known == train
    assert names(split.with_seen) == ["a4 b4", "a0 b4", "a1 b0", "a5 b5"]
    assert "6 / 0 / 1 matches" in split.reason
    assert "2 later matches with a seen person are evaluated apart" in split.reason


def test_validation_pairs_are_of_new_people_too():
    early = [(f"a{i}", f"b{i}", i) for i in range(80)]
    late = [(f"v{i}", f"w{i}", 80 + i) for i in range(20)]
    cut = [("v0", "b0", 85.5), ("a0", "w1", 86.5), ("a1", "b0", 90.5)]
    test = [(f"x{i}", f"y{i}", 101 + i) for i in range(5)]
    split = pairs_of([*early, *late, *cut, *test]).split_by_time(
        DAY + datetime.timedelta(100), validation=0.223
    )
    assert set(names(split[1])) == {f"v{i} w{i}" for i in range(20)}
    assert set(names(split[0])) == {*(f"a{i} b{i}" for i in range(80)), "a1 b0"}
    assert set(names(split.crossing)) == {"v0 b0", "a0 w1"}
    assert len(split.known) == 103
    assert (
        "2 earlier ones, between people to train and to validate on, are left out" in split.reason
    )


def test_a_log_is_split_without_leaks(log):
    split = log.split_by_time("2026-03-02")
    train, validation, test = split
    assert not leakage(train, validation, test)
    assert len(train) > 400
    assert len(test) > 100
    assert not validation.pairs  # fewer than 20 matches of new people in the last days
    moment = parse_time("2026-03-02")
    assert all(pair.time < moment for part in split[:2] for pair in part.pairs)
    assert all(pair.time < moment for pair in split.known.pairs)
    assert all(pair.time >= moment for pair in split.with_seen.pairs)
    assert len(split.known.pairs) + len(split.with_seen.pairs) == len(log.pairs)
    before = set(split.known.profiles)
    new = [p for p in split.with_seen.pairs if p.a not in before and p.b not in before]
    assert list(test.pairs) == new


def test_a_person_of_a_group_that_was_seen_is_seen():
    rows = [(f"a{i}", f"b{i}", i) for i in range(4)]
    pairs = pairs_of(rows)
    grouped = [
        Pair(pair.a, pair.b, group="home" if pair.a in ("a0", "a2") else None, time=pair.time)
        for pair in pairs.pairs
    ]
    split = Pairs.of(pairs.people, grouped).split_by_time("2026-01-03", validation=0)
    assert names(split[2]) == ["a3 b3"]


def test_times_are_needed_and_must_fit():
    rows = [("a0", "b0", 0), ("a1", "b1", None), ("a2", "b2", 9), ("a3", "b3", None)]
    with pytest.raises(
        DataError, match=r"the time of every pair: 2 of 4 have none, first 'a1', 'b1'"
    ):
        pairs_of(rows).split_by_time("2026-01-05")
    dated = pairs_of([rows[0], rows[2], ("a4", "b4", 30, "rejected")])
    for before in ("2026-01-20", "2025-01-01"):
        with pytest.raises(DataError, match=r"matches are: from 2026-01-01.* to 2026-01-10"):
            dated.split_by_time(before)
    with pytest.raises(ConfigurationError, match="must be a date or time in ISO 8601"):
        dated.split_by_time("yesterday")
    for value in (20260105, None):
        with pytest.raises(ConfigurationError, match=f"a text in ISO 8601, got {value}"):
            dated.split_by_time(value)
    with pytest.raises(ConfigurationError, match=r"must be in \[0, 1\), got 1"):
        dated.split_by_time("2026-01-05", validation=1)


def test_moments_are_utc_unless_they_say_otherwise():
    expected = datetime.datetime(2026, 10, 1, tzinfo=datetime.UTC)
    for value in ("2026-10-01", datetime.date(2026, 10, 1), datetime.datetime(2026, 10, 1)):
        assert parse_time(value) == expected
    assert parse_time("2026-10-01T02:00+02:00") == expected
    assert parse_time("2026-10-01T00:00Z") == expected


def test_a_file_of_test_pairs_is_split_by_who_is_new():
    train = pairs_of([(f"a{i}", f"b{i}", 0) for i in range(20)])
    test = pairs_of([("x0", "y0", 1), ("a0", "y0", 1), ("a1", "b2", 1), ("x1", "y1", 1)])
    split = split_before_test(train, test, validation=0.15, seed=0)
    assert (len(split[0]), len(split[1])) == (17, 3)
    assert names(split[2]) == ["x0 y0", "x1 y1"]
    assert split.with_seen is test
    assert names(split.crossing) == ["a0 y0", "a1 b2"]
    assert split.known is train
    assert (
        "2 of 4 matches are between new people; 3 of 7 people are in the training" in split.reason
    )
    with pytest.raises(ConfigurationError, match="equal `sides`"):
        split_before_test(train, pairs_of([("x", "y", 0)], sides=1), validation=0.1, seed=0)


def test_pairs_between_parts_give_figures_on_seen_people(log, hash_backbone, tmp_path):
    split = log.split(by="people", seed=0)
    tested = set(split[2].profiles)
    before = set(split.known.profiles)
    assert not tested & before
    seen = [pair for pair in split.with_seen.pairs if {pair.a, pair.b} & before]
    assert len(seen) == len(split.with_seen.pairs) - len(split[2].pairs) > 100
    assert all({pair.a, pair.b} & tested for pair in seen)
    assert {*split.known.pairs, *split.with_seen.pairs} <= set(log.pairs)
    matcher = Matcher(
        backbone=hash_backbone, metadata=None, learner="centred", store=tmp_path / "store.sqlite"
    )
    matcher.fit(split[0], split[1])
    alone = matcher.evaluate(split[2], resamples=0)
    both = matcher.evaluate(split.with_seen, known=split.known, resamples=0)
    assert both.both == alone.both
    sides = (split.with_seen.ids_a, split.with_seen.ids_b)
    queries = zip(both.seen.table["direction"], both.seen.table["query"], strict=True)
    assert {sides[side][row] for side, row in queries} <= before


@pytest.fixture(scope="module")
def app_log(tmp_path_factory):
    """A folder with the log of a small app and photos; days 0 to 60 and later also apart."""
    folder = tmp_path_factory.mktemp("app")
    settings = LogSettings(people_a=120, people_b=120, outcomes=1500, regions=1)
    rows, _ = simulate_log(settings, seed=1).write(folder, photos=True, size_px=32)
    header, *lines = rows.read_text().splitlines()
    for name, chosen in (
        ("early", [line for line in lines if line.split(",")[4] < "2026-03-02"]),
        ("late", [line for line in lines if line.split(",")[4] >= "2026-03-02"]),
    ):
        (folder / f"{name}.csv").write_text("\n".join([header, *chosen]))
    return folder


def command(app_log, name, tmp_path, options):
    common = f"--profiles {app_log / 'profiles.csv'} --store {app_log / 's.sqlite'} --quiet"
    parts = "--backbone descriptor --learner whitened --no-learning-curve --no-compare"
    return f"fit {app_log / name} {common} {parts} --output {tmp_path / 'matcher'} {options}"


def test_fit_by_time_and_with_a_file_of_test_pairs(app_log, tmp_path):
    figures = tmp_path / "figures.json"
    text = run(command(app_log, "log.csv", tmp_path, f"--before 2026-03-02 --json {figures}"))
    assert "Split by time at 2026-03-02T00:00:00+00:00" in text
    assert "People who were seen in training:" in text
    by_time = json.loads(figures.read_text())
    assert by_time["seen"]["queries"] > 20
    assert "New people of side a with seen people of side b:" in text
    assert set(by_time["mixed"]) == {"new_a", "new_b"}
    report = json.loads((tmp_path / "matcher" / "report.json").read_text())
    assert report["evaluation"]["both"] == by_time["both"]
    titles = {part["title"] for part in report["sections"]}
    assert {"People who were seen in training", *MIXED.values()} - titles == {MIXED["new"]}
    page = (tmp_path / "matcher" / "report.html").read_text()
    assert f"{by_time['seen']['queries']} queries of people who were there" in page
    text = run(command(app_log, "early.csv", tmp_path, f"--test {app_log / 'late.csv'}"))
    assert "matches are between new people" in text
    saved = json.loads((tmp_path / "matcher" / "matcher.json").read_text())["metrics"]
    assert (saved["queries"], saved["seen"]["queries"]) == (
        by_time["queries"],
        by_time["seen"]["queries"],
    )
    common = f"--profiles {app_log / 'profiles.csv'} --store {app_log / 's.sqlite'} --quiet"
    known = f"--known {app_log / 'early.csv'} --json {figures}"
    run(f"evaluate {tmp_path / 'matcher'} {app_log / 'late.csv'} {common} {known}")
    assert json.loads(figures.read_text())["both"] == saved["both"]


def test_targets_and_seen_people_of_the_command_line(app_log, tmp_path):
    figures = tmp_path / "figures.json"
    text = run(command(app_log, "early.csv", tmp_path, "--split-by people --seen"))
    assert "People who were seen in training:" in text
    common = f"--profiles {app_log / 'profiles.csv'} --store {app_log / 's.sqlite'} --quiet"
    late = pd.read_csv(app_log / "late.csv")
    # As a table without matches: each side's yes is known on its own
    late.assign(b_likes=None).to_csv(tmp_path / "likes.csv", index=False)
    for file in (app_log / "late.csv", tmp_path / "likes.csv"):
        evaluate = f"evaluate {tmp_path / 'matcher'} {file} {common} --json {figures}"
        run(f"{evaluate} --target a_likes")
        found = json.loads(figures.read_text())
        yes = late[late["a_likes"] == "yes"]
        assert found["target"] == "a_likes"
        assert found["queries"] == yes["id_a"].nunique()
        if file.name == "likes.csv":
            text = run(evaluate, code=2)
            assert "There is no match to find" in unwrapped(text)
    run(f"{evaluate} --target a_likes --known {app_log / 'early.csv'}")
    known = json.loads(figures.read_text())
    early = pd.read_csv(app_log / "early.csv")
    before = {*early["id_a"], *early["id_b"]}
    new = yes[~yes["id_a"].isin(before) & ~yes["id_b"].isin(before)]
    assert known["queries"] == new["id_a"].nunique()
    assert known["seen"]["queries"] == yes[yes["id_a"].isin(before)]["id_a"].nunique()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--split-by time", "--split-by time and --before DATE belong together"),
        ("--split-by people --before 2026-03-02", "belong together"),
        ("--test x.csv --before 2026-03-02", "--test names the test pairs"),
        ("--before 2026-13-02", "must be a date or time in ISO 8601"),
        ("--before 2027-03-02", "needs matches before 2027-03-02T00:00:00+00:00 and later ones"),
    ],
)
def test_options_that_do_not_fit(app_log, tmp_path, options, message):
    text = run(command(app_log, "log.csv", tmp_path, options), code=2)
    assert message in unwrapped(text)


def test_fit_needs_new_people_to_test_on(app_log, tmp_path):
    header, *lines = (app_log / "log.csv").read_text().splitlines()
    first = {person for line in lines[:40] for person in line.split(",")[:2]}
    kept = [line for line in lines if first & set(line.split(",")[:2])]
    (app_log / "few.csv").write_text("\n".join([header, *kept]))
    text = run(command(app_log, "few.csv", tmp_path, "--before 2026-01-15"), code=2)
    assert "two matches of new people are needed at least: try with another date" in text

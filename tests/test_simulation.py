"""Simulated logs: the documented model, oracles in loops, and files as a warehouse writes them."""

import csv
import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from pairmatch import Pairs
from pairmatch.core.errors import ConfigurationError
from pairmatch.experiments.simulated_people import LogSettings
from pairmatch.experiments.simulation import simulate_log
from pairmatch.io.images import image_size


@pytest.fixture(scope="module")
def log():
    return simulate_log(LogSettings(outcomes=12_000), seed=1)


def test_equal_seeds_draw_equal_logs(log):
    same, other = simulate_log(log.settings, seed=1), simulate_log(log.settings, seed=2)
    for name in ("pairs", "day", "a_likes", "b_likes"):
        assert np.array_equal(getattr(log, name), getattr(same, name))
    assert not np.array_equal(log.pairs, other.pairs)


def test_people_meet_active_people_of_their_region_once(log):
    a, b = log.pairs.T
    assert len(log) == 12_000 == len(np.unique(log.pairs, axis=0))
    assert (np.diff(log.day) >= 0).all()
    assert log.day.min() >= 0
    assert log.day.max() < 90
    assert (log.people_a.region[a] == log.people_b.region[b]).all()
    for people, row in ((log.people_a, a), (log.people_b, b)):
        age = log.day - people.joined[row]
        assert age.min() >= 0
        assert age.max() <= 30


def test_the_second_person_answers_likes_only(log):
    rows = np.arange(len(log))
    likes = np.stack([log.a_likes, log.b_likes])
    first, second = likes[log.first, rows], likes[1 - log.first, rows]
    assert set(first.tolist()) == {0, 1}
    assert (second[first == 0] == -1).all()
    answered = (second[first == 1] >= 0).mean()
    assert answered == pytest.approx(0.8, abs=0.03)
    assert first.mean() == pytest.approx(0.4, abs=0.03)
    assert len(log.matches) == ((first == 1) & (second == 1)).sum()
    assert len(log.rejected) == ((first == 0) | (second == 0)).sum()


def test_probabilities_follow_the_documented_formula():
    log = simulate_log(LogSettings(people_a=40, people_b=30, outcomes=100, taste_drift=60), seed=3)
    for row, (i, j) in enumerate(log.pairs[::10].tolist()):
        day = log.day[::10][row]
        turn = math.radians(60) * day / 90
        for number, (side, viewer, other) in enumerate(
            (
                ("a", (log.people_a, i), (log.people_b, j)),
                ("b", (log.people_b, j), (log.people_a, i)),
            )
        ):
            taste = math.cos(turn) * log.tastes[number, 0] + math.sin(turn) * log.tastes[number, 1]
            x, y = viewer[0].traits[viewer[1]], other[0].traits[other[1]]
            logit = log.offset[number] + 2.0 * (x @ taste @ y) / math.sqrt(6)
            logit += 0.7 * other[0].popularity[other[1]] + 0.7 * viewer[0].mildness[viewer[1]]
            got = log.like_probability(side, i, j, day)
            assert float(got) == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-9)


def test_decisions_follow_the_probabilities(log):
    """Frequencies in ten classes of probability are within 4.5 standard errors of their means."""
    for side, likes, first in (("a", log.a_likes, 0), ("b", log.b_likes, 1)):
        asked = log.first == first
        true = log.like_probability(side, *log.pairs[asked].T, log.day[asked])
        said = likes[asked] == 1
        groups = np.digitize(true, np.quantile(true, np.arange(0.1, 1, 0.1)))
        for group in range(10):
            p = true[groups == group]
            error = math.sqrt((p * (1 - p)).sum()) / len(p)
            assert abs(said[groups == group].mean() - p.mean()) < 4.5 * error
        assert np.corrcoef(true, said)[0, 1] > 0.5  # decisions depend on them


def test_popular_people_are_shown_and_liked_more_often():
    log = simulate_log(LogSettings(people_a=4000, people_b=4000, outcomes=40_000), seed=4)
    shown = np.bincount(log.pairs[log.first == 0, 1], minlength=4000)
    top = np.sort(shown)[::-1]
    assert top[:40].sum() > 5 * 0.01 * top.sum()  # the first percent gets more than 5 %
    popular = np.argsort(-log.people_b.popularity)[:400]
    assert shown[popular].mean() > 2 * shown.mean()
    even = simulate_log(LogSettings(outcomes=8000, exposure=0, attraction=0, taste=0), seed=4)
    popular = even.people_b.popularity[even.pairs[:, 1]] > 0
    liked = even.a_likes[(even.first == 0) & popular], even.a_likes[(even.first == 0) & ~popular]
    assert abs(liked[0].mean() - liked[1].mean()) < 0.05


def test_taste_drifts_by_the_stated_angle():
    still, turned = (
        simulate_log(LogSettings(taste_drift=drift, attraction=0, choosiness=0), seed=5)
        for drift in (0, 90)
    )
    everyone = np.arange(600)
    grid = everyone[:, None], everyone[None, :]
    for log, expected in ((still, 1.0), (turned, 0.0)):
        ends = [log.like_probability("a", *grid, day).ravel() for day in (0, 90)]
        assert np.corrcoef(*ends)[0, 1] == pytest.approx(expected, abs=0.1)


def test_people_drift_moves_the_traits_of_newcomers():
    log = simulate_log(LogSettings(people_drift=1.5), seed=6)
    early, late = log.people_a.traits[:150].mean(), log.people_a.traits[-150:].mean()
    assert late - early == pytest.approx(1.5 * 0.75, abs=0.2)


def test_features_attributes_and_texts_show_the_traits(log):
    people = log.people_a
    design = np.c_[np.ones(len(people)), people.features]
    fitted = design @ np.linalg.lstsq(design, people.traits, rcond=None)[0]
    share = 1 - ((people.traits - fitted) ** 2).mean(0) / people.traits.var(0)
    assert share.min() > 0.7
    assert share.max() < 0.999
    for trait in range(6):
        assert np.corrcoef(people.visible[:, trait], people.traits[:, trait])[0, 1] > 0.9


def test_the_best_ranking_matches_loops(log):
    matches = log.pairs[-400:][(log.a_likes[-400:] == 1) & (log.b_likes[-400:] == 1)]
    people = [sorted(set(side.tolist())) for side in matches.T]
    pairs = {tuple(pair) for pair in matches.tolist()}
    reciprocal = []
    for own in (0, 1):
        for query in people[own]:
            rank_of = {}
            for candidate in people[1 - own]:
                pair = (query, candidate) if own == 0 else (candidate, query)
                if log.people_a.region[pair[0]] == log.people_b.region[pair[1]]:
                    rank_of[pair] = float(log.match_probability(*pair, 88.0))
            best = max(score for pair, score in rank_of.items() if pair in pairs)
            reciprocal.append(1 / (1 + sum(score > best for score in rank_of.values())))
    assert log.best_mrr(matches, 88.0) == pytest.approx(np.mean(reciprocal))
    assert np.mean(reciprocal) > 0.3


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_files_hold_the_log(tmp_path, format):
    log = simulate_log(LogSettings(people_a=50, people_b=60, outcomes=300, null_share=0.1), seed=7)
    rows, people = log.write(tmp_path, format=format)
    if format == "csv":
        tables = [list(csv.DictReader(path.read_text().splitlines())) for path in (rows, people)]
        said = {"yes": 1, "no": 0, "": -1}
        assert {row["children"] for row in tables[1]} > {"True", "False", "NULL", "N/A"}
    else:
        tables = [pq.read_table(path).to_pylist() for path in (rows, people)]
        said = {True: 1, False: 0, None: -1}
        assert {row["children"] for row in tables[1]} == {True, False, None}
        assert tables[0][0]["time"].utcoffset().total_seconds() == 0
    assert [row["id"] for row in tables[1]] == [*log.people_a.ids, *log.people_b.ids]
    assert [said[row["a_likes"]] for row in tables[0]] == log.a_likes.tolist()
    assert [said[row["b_likes"]] for row in tables[0]] == log.b_likes.tolist()
    assert [row["id_b"] for row in tables[0]] == [log.people_b.ids[b] for b in log.pairs[:, 1]]
    region = {row["id"]: row["region"] for row in tables[1]}
    assert all(region[row["id_a"]] == row["pool"] == region[row["id_b"]] for row in tables[0])
    stamps = [str(row["time"]).replace("T", " ") for row in tables[0]]
    assert stamps == [str(time) for time in log.times] == sorted(stamps)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_pairs_are_those_of_the_files(tmp_path, format):
    log = simulate_log(LogSettings(people_a=50, people_b=60, outcomes=300, null_share=0.1), seed=9)
    rows, people = log.write(tmp_path, format=format)
    read, made = Pairs.read(rows, profiles=people), log.as_pairs()
    assert read.pairs == made.pairs
    assert len(read.matches) == len(log.matches) > 20
    assert len(read.rejected) == len(log.rejected)
    assert dict(read.profiles) == dict(made.profiles)
    assert np.array_equal(log.rows_of(read), log.matches)


def test_photos_are_drawn_on_request(tmp_path):
    log = simulate_log(LogSettings(people_a=4, people_b=3, outcomes=4, regions=1, days=10), seed=8)
    _, people = log.write(tmp_path, photos=True, size_px=32)
    images = [row["image"] for row in csv.DictReader(people.read_text().splitlines())]
    assert len(set(images)) == 7
    assert {image_size(tmp_path / image) for image in images} == {(32, 32)}


def test_all_settings_out_of_range_are_named():
    with pytest.raises(ConfigurationError) as error:
        LogSettings(people_a=1, days=0, yes_share=1.0, null_share=2, noise=-1, taste=math.nan)
    for name in ("people_a", "days", "yes_share", "null_share", "noise", "taste"):
        assert f"{name} must be" in str(error.value)


def test_a_log_that_is_too_dense_names_what_is_possible():
    with pytest.raises(ConfigurationError, match="hardly more than 25 different pairs"):
        simulate_log(LogSettings(people_a=5, people_b=5, outcomes=30, regions=1, lifetime_days=900))

"""Diagnostics against counts by hand, closed forms and other libraries."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit
from sklearn.calibration import calibration_curve

from pairmatch import Profile
from pairmatch.core.arrays import unit_rows
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.evaluation.diagnostics import (
    Calibration,
    attribute_traits,
    calibrate,
    explained_share,
    gini,
    hubness,
    learning_curve,
    pair_scores,
    photo_traits,
    reliability,
    shortcuts,
    slices,
)


def turned(n=120, width=10, seed=0, noise=0.3):
    """Partners are each other's features turned round.

    Frozen cosine is blind, a linear map learns it.
    """
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, width))
    return PairedFeatures.of(
        a,
        a @ np.linalg.qr(rng.normal(size=(width, width)))[0] + noise * rng.normal(size=(n, width)),
    )


def test_more_pairs_help_where_there_is_something_to_learn():
    curve = learning_curve(turned(noise=1.0), "ridge", shares=(0.1, 0.3, 1), repeats=1, ks=(5,))
    assert list(curve.pairs) == sorted(curve.pairs)
    assert curve.pairs[-1] == pytest.approx(96)
    assert curve.metrics[-1].mrr > curve.metrics[0].mrr + 0.1
    low, high = curve.slope_interval
    assert 0 < low < curve.slope < high
    assert curve.gain(96) == pytest.approx((curve.slope, low, high))  # one doubling
    assert "200 more would change it by +" in str(curve)
    x = np.log2(curve.pairs)
    assert curve.slope == pytest.approx(np.polyfit(x, [m.mrr for m in curve.metrics], 1)[0])
    flat = learning_curve(turned(), "frozen", shares=(0.1, 1), repeats=1)
    assert flat.slope == pytest.approx(0)
    with pytest.raises(ConfigurationError, match="at least two different numbers"):
        learning_curve(turned(), shares=(1,))


def test_hubness_counts_lists():
    rng = np.random.default_rng(0)
    queries, candidates = (
        unit_rows(rng.normal(size=(40, 5))),
        unit_rows(rng.normal([2, 0, 0, 0, 0], size=(30, 5))),
    )
    found = hubness(queries, candidates, k=4)
    counts = np.zeros(30, int)
    for query in queries:
        for candidate in np.argsort(-(candidates @ query))[:4]:
            counts[candidate] += 1
    np.testing.assert_array_equal(found.counts, counts)
    assert found.never == np.mean(counts == 0)
    assert found.skewness == pytest.approx(
        np.mean((counts - counts.mean()) ** 3) / counts.std() ** 3
    )
    pairwise = np.abs(counts[:, None] - counts[None, :]).mean() / (2 * counts.mean())
    assert found.gini == pytest.approx(pairwise)
    assert "Gini" in str(found)
    same = hubness(queries, queries, k=1, same=True)
    nearest = np.argsort(-(queries @ queries.T - 9 * np.eye(40)), axis=1)[:, 0]
    np.testing.assert_array_equal(same.counts, np.bincount(nearest, minlength=40))
    assert gini([0, 0, 0, 5]) == pytest.approx(0.75)
    assert gini([2, 2, 2]) == pytest.approx(0)
    with pytest.raises(
        ConfigurationError,
        match=r"`hubness\(k=...\)` must be from 1 to below 30 candidates, got 30",
    ):
        hubness(queries, candidates, k=30)


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_calibration_recovers_known_probabilities(kind):
    rng = np.random.default_rng(0)
    scores = rng.uniform(-1, 1, 40000)
    truth = rng.random(40000) < expit(6 * scores - 4)
    calibration = calibrate(scores, truth, kind=kind)
    grid = np.linspace(-0.9, 0.9, 19)
    np.testing.assert_allclose(calibration.probability(grid), expit(6 * grid - 4), atol=0.05)
    if kind == "platt":
        assert calibration.x == pytest.approx((6, -4), abs=0.3)
    again = Calibration(**json.loads(json.dumps(calibration.to_dict())))
    np.testing.assert_array_equal(again.probability(grid), calibration.probability(grid))
    # Bayes: half as many matches among as many others halves the odds
    rate = calibration.base_rate
    fewer = (rate / 2) / (1 - rate / 2)
    p, q = calibration.probability(grid), calibration.probability(grid, base_rate=rate / 2)
    inside = (p > 0) & (p < 1)
    np.testing.assert_allclose(
        (q / (1 - q))[inside], (p / (1 - p) * fewer / (rate / (1 - rate)))[inside], rtol=1e-6
    )


def test_calibration_needs_both_kinds_of_pairs():
    for truth in (np.zeros(3, bool), np.ones(3, bool)):
        with pytest.raises(ConfigurationError, match="matches and of others"):
            calibrate(np.arange(3.0), truth)
    with pytest.raises(ConfigurationError, match="'platt' or 'isotonic'"):
        calibrate(np.arange(2.0), np.array([True, False]), kind="magic")


def test_reliability_is_that_of_another_library():
    rng = np.random.default_rng(1)
    predicted = rng.random(1000)
    truth = rng.random(1000) < predicted**2
    found = reliability(predicted, truth, bins=10)
    observed, means = calibration_curve(truth, predicted, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(found.observed, observed, atol=0.02)
    np.testing.assert_allclose(found.predicted, means, atol=0.01)
    assert found.expected_calibration_error == pytest.approx(
        np.mean(np.abs(found.observed - found.predicted))
    )
    assert found.brier_score == pytest.approx(np.mean((predicted - truth) ** 2))
    assert found.counts.sum() == 1000


def test_pair_scores_hold_every_pair_once():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 2)), rng.normal(size=(4, 2))
    scores, truth = pair_scores(a, b, np.array([[0, 3], [2, 1]]))
    assert sorted(scores[truth]) == pytest.approx(sorted([a[0] @ b[3], a[2] @ b[1]]))
    assert len(scores) == 12
    scores, truth = pair_scores(a, None, np.array([[2, 0]]))
    assert len(scores) == 3
    assert scores[truth] == pytest.approx([a[0] @ a[2]])


def test_slices_are_the_people_who_share_a_value():
    data = turned(60)
    found = cross_validate(data, ["ridge"], repeats=1, ks=(5,))
    ages = [20 + i for i in range(60)]
    parts = slices(found, "ridge", "age", ages, ages)
    assert [one.value for one in parts] == ["20 to 34", "35 to 49", "50 to 64", "65 to 79"]
    mine = np.array(ages)[found.columns["query"]] >= 64.25
    assert parts[-1].metrics.mrr == pytest.approx(found.values[0][mine][:, -2].mean())
    assert sum(one.metrics.queries for one in parts) == 120
    regions = ["north" if i % 3 else None if i == 0 else "south" for i in range(60)]
    parts = {one.value: one for one in slices(found, "ridge", "region", regions, regions)}
    assert set(parts) == {"north", "south"}
    assert not parts["north"].small
    few = slices(found, "ridge", "rare", ["x" if i < 5 else "y" for i in range(60)], ["y"] * 60)
    assert [one.small for one in few] == [True, False]
    with pytest.raises(ConfigurationError, match="one per person of side a"):
        slices(found, "ridge", "age", ages[:10], ages)


def test_a_ranking_by_one_trait_is_explained_by_it():
    rng = np.random.default_rng(0)
    trait_a, trait_b = rng.normal(size=(50, 2)), rng.normal(size=(40, 2))
    popular = rng.normal(size=(1, 40))
    by_trait = trait_a @ rng.normal(size=(2, 2)) @ trait_b.T + popular + rng.normal(size=(50, 1))
    assert explained_share(by_trait, trait_a, trait_b) == pytest.approx(1)
    assert explained_share(rng.normal(size=(50, 40)), trait_a, trait_b) < 0.02
    mixed = by_trait / by_trait.std() + 2 * rng.normal(size=(50, 40))
    assert 0.05 < explained_share(mixed, trait_a, trait_b) < 0.5
    assert explained_share(np.ones((50, 40)), trait_a, trait_b) == 0


def test_shortcuts_find_the_trait_that_decides():
    rng = np.random.default_rng(0)
    light = rng.normal(size=(100, 1))
    noise = rng.normal(size=(100, 3))
    a, b = (
        np.column_stack([3 * light, noise]),
        np.column_stack([3 * light + 0.1, rng.normal(size=(100, 3))]),
    )
    data = PairedFeatures.of(a, b)
    found = {
        one.name: one
        for one in shortcuts(
            data,
            {"light": (light, light), "noise": (noise[:, :1], rng.normal(size=(100, 1)))},
            "frozen",
            repeats=1,
        )
    }
    assert found["light"].explained > 0.4
    assert found["noise"].explained < 0.1
    assert found["light"].alone.mrr > 0.35 > 0.25 > found["noise"].alone.mrr


def test_photo_traits_measure_what_they_say(tmp_path):
    def person(name, colour, border, size=(200, 100), noise=0.0):
        pixels = np.full((size[1], size[0], 3), colour, np.float64)
        edge_y, edge_x = round(0.1 * size[1]), round(0.1 * size[0])
        pixels[:edge_y], pixels[-edge_y:], pixels[:, :edge_x], pixels[:, -edge_x:] = (
            border,
            border,
            border,
            border,
        )
        pixels += noise * np.random.default_rng(0).normal(size=pixels.shape)
        path = tmp_path / f"{name}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        return Profile(name, (path,))

    people = [
        person("red", (90, 90, 90), (200, 0, 0)),
        person("blue", (90, 90, 90), (0, 0, 200)),
        person("noisy", (90, 90, 90), (200, 0, 0), noise=40),
        person("tall", (220, 220, 220), (220, 220, 220), size=(100, 200)),
        Profile("nobody", text="hi"),
    ]
    traits = photo_traits(people)
    assert {name: values.shape for name, values in traits.items()} == {
        "photo quality": (5, 4),
        "background colour": (5, 3),
        "framing": (5, 1),
    }
    lab = traits["background colour"]
    assert lab[0, 1] > 40  # red in CIELAB
    assert lab[1, 2] < -40  # blue
    assert traits["photo quality"][2, 0] > traits["photo quality"][0, 0] + 2  # noise is sharp
    assert traits["photo quality"][3, 1] > 0.8
    assert traits["framing"][:4, 0] == pytest.approx([np.log(2)] * 3 + [-np.log(2)])
    np.testing.assert_allclose(lab[4], lab[:4].mean(0))


def test_attribute_traits_are_numbers_or_a_column_per_word():
    people = [
        Profile("p", text="x", attributes={"age": 20, "region": "north", "smokes": True}),
        Profile("q", text="x", attributes={"age": 40, "region": "south", "smokes": True}),
        Profile("r", text="x", attributes={"region": "north"}),
    ]
    traits = attribute_traits(people)
    assert set(traits) == {"age", "region"}  # everybody who said so smokes
    np.testing.assert_array_equal(traits["age"][:, 0], [20, 40, 30])
    np.testing.assert_array_equal(traits["region"], [[1, 0], [0, 1], [1, 0]])
    with pytest.raises(ConfigurationError, match=r"Nobody has the attribute 'agee'"):
        attribute_traits(people, ["agee"])

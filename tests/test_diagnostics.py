"""Diagnostics against counts in loops, closed forms and other libraries."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit
from sklearn.calibration import calibration_curve

from pairmatch import Profile
from pairmatch.core.arrays import unit_rows
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import FittedHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.pools import Pools
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
from pairmatch.learning.heads import IdentityHead


def rotated_pairs(n=120, width=10, seed=0, noise=0.3):
    """Pairs whose partner's features are rotated, plus noise.

    Frozen cosine cannot match them, and a linear map can.
    """
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, width))
    rotation = np.linalg.qr(rng.normal(size=(width, width)))[0]
    return PairedFeatures.of(a, a @ rotation + noise * rng.normal(size=(n, width)))


def test_more_pairs_help_if_there_is_something_to_learn():
    data = rotated_pairs(noise=1.0)
    curve = learning_curve(data, "ridge", shares=(0.1, 0.3, 1), repeats=1, ks=(5,))
    assert list(curve.pairs) == sorted(curve.pairs)
    assert curve.pairs[-1] == pytest.approx(96)
    assert curve.metrics[-1].mrr > curve.metrics[0].mrr + 0.1
    low, high = curve.slope_interval
    assert 0 < low < curve.slope < high
    assert curve.gain(96) == pytest.approx((curve.slope, low, high))  # one doubling
    assert "200 more would change it by +" in str(curve)
    x = np.log2(curve.pairs)
    assert curve.slope == pytest.approx(
        np.polyfit(x, [metrics.mrr for metrics in curve.metrics], 1)[0]
    )
    flat = learning_curve(rotated_pairs(), "frozen", shares=(0.1, 1), repeats=1)
    assert flat.slope == pytest.approx(0)
    with pytest.raises(ConfigurationError, match="at least two different numbers"):
        learning_curve(rotated_pairs(), shares=(1,))
    with pytest.raises(ConfigurationError, match=r"K = 25 is larger than the smallest gallery"):
        learning_curve(rotated_pairs(), "frozen", ks=(25,))


def test_learning_curves_of_connected_pairs():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(60, 8))
    b = a @ np.linalg.qr(rng.normal(size=(8, 8)))[0] + rng.normal(size=a.shape)
    scores = a @ np.linalg.pinv(a) @ b @ b.T
    matches = np.argwhere(scores >= np.sort(scores, axis=1)[:, [-5]])
    data = PairedFeatures.of(a, b, matches=matches)
    assert len(np.unique(data.components)) == 1
    curve = learning_curve(data, "ridge", shares=(0.25, 0.5, 1), repeats=1, folds=3, ks=(5,))
    assert curve.by == "people"
    assert np.array(curve.pairs[:2]) / curve.pairs[-1] == pytest.approx([0.25, 0.5], abs=0.1)
    assert curve.slope > 0
    assert str(curve).endswith("the pairs among samples of the training people on both sides.")


def test_hubness_counts_lists():
    rng = np.random.default_rng(0)
    queries = unit_rows(rng.normal(size=(40, 5)))
    candidates = unit_rows(rng.normal([2, 0, 0, 0, 0], size=(30, 5)))
    hubs = hubness(queries, candidates, k=4)
    counts = np.zeros(30, int)
    for query in queries:
        for candidate in np.argsort(-(candidates @ query))[:4]:
            counts[candidate] += 1
    np.testing.assert_array_equal(hubs.counts, counts)
    assert hubs.never == np.mean(counts == 0)
    skewness = np.mean((counts - counts.mean()) ** 3) / counts.std() ** 3
    assert hubs.skewness == pytest.approx(skewness)
    pairwise = np.abs(counts[:, None] - counts[None, :]).mean() / (2 * counts.mean())
    assert hubs.gini == pytest.approx(pairwise)
    assert "Gini" in str(hubs)
    same = hubness(queries, queries, k=1, same=True)
    nearest = np.argsort(-(queries @ queries.T - 9 * np.eye(40)), axis=1)[:, 0]
    np.testing.assert_array_equal(same.counts, np.bincount(nearest, minlength=40))
    assert gini([0, 0, 0, 5]) == pytest.approx(0.75)
    assert gini([2, 2, 2]) == pytest.approx(0)
    message = (
        r"`hubness\(k=...\)` must be at least 1 and below the number of candidates, 30; got 30"
    )
    with pytest.raises(ConfigurationError, match=message):
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
    restored = Calibration(**json.loads(json.dumps(calibration.to_dict())))
    np.testing.assert_array_equal(restored.probability(grid), calibration.probability(grid))
    # Bayes: another base rate multiplies the odds by the ratio of the prior odds
    rate = calibration.base_rate
    prior_odds = rate / (1 - rate)
    lower_prior_odds = (rate / 2) / (1 - rate / 2)
    p = calibration.probability(grid)
    q = calibration.probability(grid, base_rate=rate / 2)
    inside = (p > 0) & (p < 1)
    expected = p / (1 - p) * lower_prior_odds / prior_odds
    np.testing.assert_allclose((q / (1 - q))[inside], expected[inside], rtol=1e-6)


def test_calibration_needs_matches_and_non_matches():
    for truth in (np.zeros(3, bool), np.ones(3, bool)):
        with pytest.raises(ConfigurationError, match="both matches and non-matches"):
            calibrate(np.arange(3.0), truth)
    with pytest.raises(ConfigurationError, match="'platt' or 'isotonic'"):
        calibrate(np.arange(2.0), np.array([True, False]), kind="magic")


def test_reliability_agrees_with_scikit_learn():
    rng = np.random.default_rng(1)
    predicted = rng.random(1000)
    truth = rng.random(1000) < predicted**2
    measured = reliability(predicted, truth, bins=10)
    observed, means = calibration_curve(truth, predicted, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(measured.observed, observed, atol=0.02)
    np.testing.assert_allclose(measured.predicted, means, atol=0.01)
    error = np.mean(np.abs(measured.observed - measured.predicted))
    assert measured.expected_calibration_error == pytest.approx(error)
    assert measured.brier_score == pytest.approx(np.mean((predicted - truth) ** 2))
    assert measured.counts.sum() == 1000


def test_pair_scores_contain_every_pair_once():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 2))
    b = rng.normal(size=(4, 2))
    scores, truth = pair_scores(a, b, np.array([[0, 3], [2, 1]]))
    assert sorted(scores[truth]) == pytest.approx(sorted([a[0] @ b[3], a[2] @ b[1]]))
    assert len(scores) == 12
    scores, truth = pair_scores(a, None, np.array([[2, 0]]))
    assert len(scores) == 3
    assert scores[truth] == pytest.approx([a[0] @ a[2]])


def test_pair_scores_of_asymmetric_one_sided_embeddings_contain_both_directions():
    rng = np.random.default_rng(0)
    as_queries = rng.normal(size=(3, 2))
    as_candidates = rng.normal(size=(3, 2))
    scores, truth = pair_scores(as_queries, as_candidates, np.array([[2, 0]]), one_sided=True)
    pairs = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    assert scores == pytest.approx([as_queries[q] @ as_candidates[c] for q, c in pairs])
    assert truth.tolist() == [{q, c} == {0, 2} for q, c in pairs]


def test_slices_contain_the_query_people_with_the_value():
    data = rotated_pairs(60)
    result = cross_validate(data, ["ridge"], repeats=1, ks=(5,))
    ages = [20 + i for i in range(60)]
    parts = slices(result, "ridge", "age", ages, ages)
    assert [part.value for part in parts] == ["20 to 34", "35 to 49", "50 to 64", "65 to 79"]
    table = result.table("ridge")
    oldest = np.array(ages)[table["query"]] >= 64.25
    assert parts[-1].metrics.mrr == pytest.approx(table["reciprocal_rank"][oldest].mean())
    assert sum(part.metrics.queries for part in parts) == 120
    regions = ["north" if i % 3 else None if i == 0 else "south" for i in range(60)]
    by_region = {part.value: part for part in slices(result, "ridge", "region", regions, regions)}
    assert set(by_region) == {"north", "south"}
    assert not by_region["north"].small
    rare = ["x" if i < 10 else "y" for i in range(60)]
    assert [part.small for part in slices(result, "ridge", "rare", rare, ["y"] * 60)] == [
        True,
        False,
    ]
    with pytest.raises(ConfigurationError, match="one per person of side a"):
        slices(result, "ridge", "age", ages[:10], ages)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([f"anna{i}@example.com" for i in range(60)], set()),
        ([f"name {i % 25}" for i in range(60)], set()),  # each of 2 or 3 people, 25 values
        (["anna"] * 9 + ["region"] * 51, {"region"}),
        (["anna"] * 10 + ["region"] * 50, {"anna", "region"}),
        ([True] * 1 + [False] * 59, {"False"}),
        ([7] * 3 + [8] * 57, {"8"}),
        ([4915112345600 + i for i in range(60)], {"4.915e+12 to 4.915e+12"}),
        ([f"v{i % 21}" for i in range(60)], set()),
    ],
)
def test_no_slice_is_about_few_people(values, shown):
    data = rotated_pairs(60)
    result = cross_validate(data, ["frozen"], repeats=1, ks=(5,))
    parts = slices(result, "frozen", "fact", values, [None] * 60, resamples=0)
    assert {part.value for part in parts} == shown
    assert all(part.metrics.queries >= 10 for part in parts)


def test_a_trait_explains_a_ranking_made_from_it():
    rng = np.random.default_rng(0)
    trait_a = rng.normal(size=(50, 2))
    trait_b = rng.normal(size=(40, 2))
    popularity = rng.normal(size=(1, 40))
    by_trait = trait_a @ rng.normal(size=(2, 2)) @ trait_b.T + popularity + rng.normal(size=(50, 1))
    assert explained_share(by_trait, trait_a, trait_b) == pytest.approx(1)
    assert explained_share(rng.normal(size=(50, 40)), trait_a, trait_b) < 0.02
    mixed = by_trait / by_trait.std() + 2 * rng.normal(size=(50, 40))
    assert 0.05 < explained_share(mixed, trait_a, trait_b) < 0.5
    assert explained_share(np.ones((50, 40)), trait_a, trait_b) == 0


def test_shortcuts_find_the_trait_that_determines_the_ranking():
    rng = np.random.default_rng(0)
    light = rng.normal(size=(100, 1))
    noise = rng.normal(size=(100, 3))
    a = np.column_stack([3 * light, noise])
    b = np.column_stack([3 * light + 0.1, rng.normal(size=(100, 3))])
    data = PairedFeatures.of(a, b)
    traits = {"light": (light, light), "noise": (noise[:, :1], rng.normal(size=(100, 1)))}
    by_light, by_noise = shortcuts(data, traits, "frozen", repeats=1)
    assert [by_light.name, by_noise.name] == ["light", "noise"]
    assert by_light.explained > 0.4
    assert by_noise.explained < 0.1
    assert by_light.metrics.mrr > 0.35 > 0.25 > by_noise.metrics.mrr
    # A head that is already fitted is explained like the learner that makes it
    for head in (IdentityHead(dim=4), FittedHead(IdentityHead(dim=4))):
        explained = [shortcut.explained for shortcut in shortcuts(data, traits, head, repeats=1)]
        assert explained == [by_light.explained, by_noise.explained]


def test_shortcuts_are_those_of_the_order_inside_pools():
    """A trait that is constant inside pools explains nothing of the order of their candidates."""
    rng = np.random.default_rng(1)
    pool = np.arange(80) // 10
    place = np.eye(8)[pool]
    taste = rng.normal(size=(80, 1))
    a = np.column_stack([3 * place, taste, rng.normal(size=(80, 2))])
    b = np.column_stack([3 * place, taste, rng.normal(size=(80, 2))])
    matches = [(i, i) for i in range(80)]
    pools = Pools.of(matches, [f"event {number}" for number in pool])
    traits = {"place": (place, place), "taste": (taste, taste)}
    everywhere, inside = (
        shortcuts(PairedFeatures.of(a, b, matches=matches, pools=p), traits, "frozen", repeats=1)
        for p in (None, pools)
    )
    assert everywhere[0].explained > 0.5
    assert inside[0].explained == 0
    assert inside[1].explained > 0.1


def test_photo_traits_measure_sharpness_lightness_color_and_framing(tmp_path):
    def person(name, color, border, size=(200, 100), noise=0.0):
        pixels = np.full((size[1], size[0], 3), color, np.float64)
        edge_y = round(0.1 * size[1])
        edge_x = round(0.1 * size[0])
        for edge in (pixels[:edge_y], pixels[-edge_y:], pixels[:, :edge_x], pixels[:, -edge_x:]):
            edge[:] = border
        pixels += noise * np.random.default_rng(0).normal(size=pixels.shape)
        path = tmp_path / f"{name}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        return Profile(name, (path,))

    people = [
        person("red", (90, 90, 90), (200, 0, 0)),
        person("blue", (90, 90, 90), (0, 0, 200)),
        person("noisy", (90, 90, 90), (200, 0, 0), noise=40),
        person("tall", (220, 220, 220), (220, 220, 220), size=(100, 200)),
        Profile("without photo", text="hi"),
    ]
    traits = photo_traits(people)
    assert {name: values.shape for name, values in traits.items()} == {
        "photo quality": (5, 4),
        "background color": (5, 3),
        "framing": (5, 1),
    }
    lab = traits["background color"]
    assert lab[0, 1] > 40  # red in CIELAB
    assert lab[1, 2] < -40  # blue
    assert (
        traits["photo quality"][2, 0] > traits["photo quality"][0, 0] + 2
    )  # noise counts as sharpness
    assert traits["photo quality"][3, 1] > 0.8
    assert traits["framing"][:4, 0] == pytest.approx([np.log(2)] * 3 + [-np.log(2)])
    np.testing.assert_allclose(lab[4], lab[:4].mean(0))


def test_attribute_traits_are_numbers_or_a_column_per_category():
    people = [
        Profile("p", text="x", attributes={"age": 20, "region": "north", "smokes": True}),
        Profile("q", text="x", attributes={"age": 40, "region": "south", "smokes": True}),
        Profile("r", text="x", attributes={"region": "north"}),
    ]
    traits = attribute_traits(people)
    assert set(traits) == {"age", "region"}  # smokes has a single value
    np.testing.assert_array_equal(traits["age"][:, 0], [20, 40, 30])
    np.testing.assert_array_equal(traits["region"], [[1, 0], [0, 1], [1, 0]])
    with pytest.raises(
        ConfigurationError, match=r"No profile has the attribute 'agee', 'city'\. Known: age, "
    ):
        attribute_traits(people, ["agee", "region", "city"])

"""Match probabilities: fitted with the matcher, saved with it, and honest about other markets."""

import json

import numpy as np
import pytest

from pairmatch import Matcher, Profile
from pairmatch.core.errors import SavedMatcherError
from pairmatch.evaluation.diagnostics import calibrate, labeled_scores
from pairmatch.matcher.probabilities import Probabilities


@pytest.fixture
def fitted(tmp_path, small_pairs):
    pairs = small_pairs(40)
    train, validation, _ = pairs.split(0.5, 0.4, seed=0)
    matcher = Matcher(
        backbone="descriptor", metadata="none", learner="ridge", store=tmp_path / "s.sqlite"
    )
    return matcher.fit(train, validation), validation


def test_probabilities_are_those_of_the_validation_pairs(fitted):
    matcher, validation = fitted
    scores, truth = labeled_scores(matcher.paired_features(validation), matcher.fitted_head)
    expected = calibrate(scores, truth)
    assert matcher.probabilities.calibration == expected
    assert matcher.probabilities.candidates == len(validation.ids_b)
    assert truth.sum() == len(validation.matches)
    assert matcher.probabilities.probability([0.3]) == pytest.approx(expected.probability([0.3]))


def test_a_closed_form_learner_learns_the_same_with_and_without_validation(fitted, small_pairs):
    matcher, _ = fitted
    train, _, _ = small_pairs(40).split(0.5, 0.4, seed=0)
    other = Matcher(backbone="descriptor", metadata="none", learner="ridge", store=matcher.store)
    other.fit(train)
    assert other.probabilities is None
    weights = matcher.fitted_head.state_dict()
    for name, weight in other.fitted_head.state_dict().items():
        np.testing.assert_array_equal(weight.numpy(), weights[name].numpy())


def test_probabilities_survive_saving(fitted, tmp_path):
    matcher, _ = fitted
    folder = matcher.save(tmp_path / "saved")
    loaded = Matcher.load(folder, store=matcher.store)
    assert loaded.probabilities == matcher.probabilities


def test_folders_without_probabilities_still_load(fitted, tmp_path):
    matcher, validation = fitted
    folder = matcher.save(tmp_path / "saved")
    record = json.loads((folder / "matcher.json").read_text())
    del record["probabilities"]
    (folder / "matcher.json").write_text(json.dumps(record))
    loaded = Matcher.load(folder, store=matcher.store)
    assert loaded.probabilities is None
    person, *others = validation.people
    (best,) = loaded.recommend(person, others, k=1)
    assert best.probability is None


@pytest.mark.parametrize(
    "change",
    [
        {"x": [1.0]},
        {"x": [1.0, 2.0], "y": [0.5]},
        {"kind": "isotonic", "x": [2.0, 1.0], "y": [0.1, 0.2]},
        {"base_rate": 0.0},
        {"base_rate": 1.5},
        {"candidates": 0},
        {"kind": "other"},
        {"x": [float("nan"), 0.0]},
        {"scores": {"counts": [1], "edges": [0.5], "categories": []}},
    ],
)
def test_damaged_probabilities_are_an_error(fitted, tmp_path, change):
    matcher, _ = fitted
    folder = matcher.save(tmp_path / "saved")
    record = json.loads((folder / "matcher.json").read_text())
    record["probabilities"].update(change)
    (folder / "matcher.json").write_text(json.dumps(record))
    with pytest.raises(SavedMatcherError):
        Matcher.load(folder, store=matcher.store)


def test_another_number_of_candidates_is_another_market(fitted, photo):
    matcher, validation = fitted
    count = matcher.probabilities.candidates
    people = [Profile(f"new{n}", (photo(f"new{n}.png", seed=n),)) for n in range(3 * count)]
    query = validation.people[0]
    same = matcher.recommend(query, people[:count], k=3)
    assert same.caveats == ()
    values = [candidate.probability for candidate in same]
    assert values == pytest.approx(
        matcher.probabilities.probability([candidate.score for candidate in same])
    )
    (sentence,) = matcher.recommend(query, people, k=3).caveats
    assert f"calibrated among {count:,} candidates, and here are {3 * count:,}" in sentence


def test_scores_that_are_distributed_differently_are_another_market():
    rng = np.random.default_rng(0)
    from pairmatch.matcher.reference import Histogram

    scores = rng.normal(0, 0.1, 4000)
    truth = rng.random(4000) < 0.02
    known = Probabilities(calibrate(scores, truth), 40, Histogram.of(scores.tolist()))
    same = known.scores.count(rng.normal(0, 0.1, 4000).tolist())
    moved = known.scores.count(rng.normal(0.1, 0.1, 4000).tolist())
    assert known.shift(same, 100) == []
    assert "distributed differently" in known.shift(moved, 100)[0]
    assert known.shift(moved, 5) == []  # of a few people, nothing is known

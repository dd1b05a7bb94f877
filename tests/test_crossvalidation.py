"""Cross-validation: no leaks between training and test people, and metrics against oracles."""

import csv

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import shared
from hypothesis import given, settings
from hypothesis import strategies as st

from pairmatch import Evaluator, Matcher, Pair, Pairs, Profile, TrainingConfig, leakage
from pairmatch.core.arrays import unit_rows
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import FittedHead, Learner, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.part import Part
from pairmatch.evaluation.crossvalidation import (
    BASELINES,
    cross_validate,
)
from pairmatch.evaluation.diagnostics import shortcuts
from pairmatch.evaluation.splits import (
    Split,
    check_splits,
    cross_validation_splits,
    holdout_splits,
)
from pairmatch.learning.baselines import Frozen


class Recorder(ProjectionHead):
    """Identity head that records the features it embeds."""

    trainable = False

    def __init__(self, dim, embedded):
        super().__init__()
        self.width = dim
        self.embedded = embedded

    def project(self, h, side):
        self.embedded.update(map(bytes, h.numpy()))
        return h


class Spy(Learner):
    """Records the features that it is fitted on and those that its heads embed."""

    def __init__(self):
        self.learned = []
        self.embedded_sets = []

    def fit(self, train, validation=None, *, seed=0):
        self.learned.append(
            {*map(bytes, train.a), *map(bytes, train.a if train.b is None else train.b)}
        )
        self.embedded_sets.append(set())
        return FittedHead(Recorder(train.dim, self.embedded_sets[-1]))


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(0, 14), st.integers(15, 29)), min_size=8, max_size=25, unique=True
    ),
    st.integers(0, 5),
    st.booleans(),
)
def test_no_person_is_in_the_training_and_test_parts_of_a_split(pairs, seed, one_sided):
    rng = np.random.default_rng(0)
    if one_sided:
        data = PairedFeatures.of(rng.normal(size=(30, 3)), matches=pairs)
    else:
        sides = rng.normal(size=(15, 3)), rng.normal(size=(15, 3))
        data = PairedFeatures.of(*sides, matches=[(a, b - 15) for a, b in pairs])
    folds = min(3, len(np.unique(data.components)))
    if folds < 2:
        return
    spy = Spy()
    result = cross_validate(data, {"spy": spy}, repeats=2, folds=folds, ks=(1,), seed=seed)
    for learned, embedded in zip(spy.learned, spy.embedded_sets, strict=True):
        assert not learned & embedded
    by_component = cross_validation_splits(data, folds=folds, seed=seed)[0].by == "component"
    # Each person with a partner is a query once per repeat
    expected = (
        len(np.unique(data.matches))
        if one_sided
        else sum(len(np.unique(c)) for c in data.matches.T)
    )
    for repeat in range(2):
        rows = result.chance["repeat"] == repeat
        keys = result.chance["query"][rows] * 2 + result.chance["direction"][rows]
        assert len(np.unique(keys)) == len(keys)
        assert len(keys) == expected or not by_component


def draw_pairs(n=40, width=6, seed=0, groups=None):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, width))
    return PairedFeatures.of(a, a + rng.normal(size=(n, width)), groups=groups)


def test_metrics_match_a_naive_loop():
    data = draw_pairs()
    result = cross_validate(data, ["frozen"], repeats=2, folds=4, ks=(1, 3))
    a, b = unit_rows(data.a), unit_rows(data.b)
    splits = cross_validation_splits(data, repeats=2, folds=4)
    expected = []
    for split in splits:
        rows = split.test.matches
        for queries, candidates in ((a, b), (b, a)):
            for person in rows:
                scores = candidates[rows] @ queries[person]
                expected.append(
                    (
                        person,
                        1 + np.sum(scores > candidates[person] @ queries[person] + 1e-6),
                        len(rows),
                    )
                )
    np.testing.assert_array_equal(result.chance["query"], [e[0] for e in expected])
    ranks = np.array([e[1] for e in expected])
    np.testing.assert_array_equal(result.table("frozen")["rank"], ranks)
    np.testing.assert_allclose(result.table("frozen")["reciprocal_rank"], 1 / ranks)
    np.testing.assert_array_equal(result.table("frozen")["recall_at_3"], ranks <= 3)
    np.testing.assert_array_equal(result.chance["candidates"], [e[2] for e in expected])
    assert result.metrics("frozen").mrr == pytest.approx(np.mean(1 / ranks))
    assert result.metrics("chance").recall[3] == pytest.approx(0.3)


def test_a_single_split_matches_the_evaluator():
    data = draw_pairs(60)
    split = Split(0, 0, data.part(np.arange(20, 60)), data.part(np.arange(20)))
    result = cross_validate(data, ["frozen"], splits=[split], ks=(5,))
    expected = Evaluator(ks=(5,)).evaluate(data.take(split.test))
    ours = result.metrics("frozen")
    assert ours.mrr == pytest.approx(expected.both.mrr)
    assert ours.recall_interval[5] == pytest.approx(expected.both.recall_interval[5], abs=0.06)


def test_groups_and_identical_people_stay_together():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    b[7] = a[3]  # the same photo under two ids
    loose = PairedFeatures.of(a, b, groups=[i // 2 if i < 10 else None for i in range(30)])
    assert loose.identical_across_components() == 2
    result = cross_validate(loose, ["frozen"], repeats=1)
    assert any(note.startswith("2 people share identical features") for note in result.notes)
    for split in cross_validation_splits(loose, repeats=3):
        tested = set(split.test.matches.tolist())
        for first in range(0, 10, 2):
            assert (first in tested) == (first + 1 in tested)
    joined = PairedFeatures.of(a, b, join_identical=True)
    assert joined.identical_across_components() == 0
    assert joined.components[3] == joined.components[7]
    assert not cross_validate(joined, ["frozen"], repeats=1, ks=(1,)).notes


def test_shared_people_and_photos_are_detected(photo, tmp_path):
    """Cross-validation keeps a person in one fold, and `leakage` reports a shared photo."""
    people = [Profile(f"{s}{i}", (photo(f"{s}{i}.png"),)) for i in range(12) for s in "ab"]
    pairs = Pairs.of(people, [*(Pair(f"a{i}", f"b{i}") for i in range(12)), Pair("a0", "b5")])
    matcher = Matcher(backbone="descriptor", metadata=None, store=tmp_path / "s.sqlite")
    data = matcher.paired_features(pairs)
    row = dict(zip(map(tuple, data.matches.tolist()), data.components, strict=True))
    assert row[(0, 0)] == row[(0, 5)] == row[(5, 5)]
    twin = Profile("b99", (photo("a3.png"),))
    first = Pairs.of([*people, twin], [Pair("a3", "b3")])
    second = Pairs.of([*people, twin], [Pair("a4", "b99")])
    assert leakage(first, second).photos


def test_custom_splits_with_leaks_are_errors():
    data = draw_pairs(30)
    clean = Split(0, 0, data.part(np.arange(10)), data.part(np.arange(10, 30)))
    leaking = Split(1, 2, data.part(np.arange(12)), data.part(np.arange(10, 30)))
    empty = Split(3, 0, data.part(np.array([99])), data.part(np.arange(5)))
    with pytest.raises(ConfigurationError) as caught:
        cross_validate(data, ["frozen"], splits=[clean, leaking, empty])
    assert str(caught.value) == (
        "`splits` cannot be used: repeat 1, fold 2: 4 people or groups are in both the training "
        "and the test part; "
        "repeat 3, fold 0: the training or the test part holds no match."
    )
    with pytest.raises(ConfigurationError, match="there are none"):
        cross_validate(data, ["frozen"], splits=[])
    with pytest.raises(ConfigurationError, match="4 people or groups"):
        shortcuts(data, {"x": (data.a, data.b)}, "frozen", splits=[leaking])


def test_an_evaluation_on_training_people_is_noted(small_pairs, tmp_path, caplog):
    pairs = small_pairs(30)
    train, validation, test = pairs.split(seed=0)
    matcher = Matcher(
        backbone="descriptor",
        metadata=None,
        store=tmp_path / "s.sqlite",
        training=TrainingConfig(epochs=1),
    ).fit(train, validation)
    assert not matcher.evaluate(test, resamples=0).notes[1:]
    assert "took part in training" not in caplog.text
    evaluation = matcher.evaluate(pairs, resamples=0)
    seen = len(train.people) + len(validation.people)
    assert evaluation.notes[-1] == (
        f"{seen} of 60 people took part in training: these figures say nothing about new people."
    )
    assert "took part in training" in caplog.text
    matcher.fit(train, train)
    assert f"{len(train.people)} people are in training and validation pairs" in matcher.notes[-1]


def test_learners_receive_no_test_pairs():
    """Shuffling the test matches does not change the training data of a learner."""
    data = draw_pairs(50)
    spy = Spy()
    shuffled_spy = Spy()
    cross_validate(data, {"spy": spy}, repeats=1, ks=(1,))
    split = cross_validation_splits(data, repeats=1)[0]
    test = split.test.matches
    shuffled = data.b.copy()
    shuffled[test] = shuffled[test][::-1]
    shuffled_data = data.with_features(data.a, shuffled)
    cross_validate(shuffled_data, {"spy": shuffled_spy}, splits=[split], ks=(1,))
    assert spy.learned[0] == shuffled_spy.learned[0]


def test_comparisons_detect_real_differences_only():
    class Noise(ProjectionHead):
        width = 6

        def project(self, h, side):
            return torch.randn(h.shape, generator=torch.Generator().manual_seed(ord(side)))

    class Blind(Learner):
        def fit(self, train, validation=None, *, seed=0):
            return FittedHead(Noise())

    data = draw_pairs(120)
    result = cross_validate(
        data, {"frozen": Frozen(), "twin": Frozen(), "blind": Blind()}, repeats=2, ks=(10,)
    )
    comparisons = {comparison.name: comparison for comparison in result.comparisons("frozen")}
    assert comparisons["twin"].p_value == 1
    assert comparisons["blind"].p_value < 0.01
    assert comparisons["blind"].difference < 0
    assert comparisons["blind"].corrected_for == 2
    difference = result.compare("frozen", "chance", metric="R@10")
    assert difference.difference == pytest.approx(result.metrics("frozen").recall[10] - 10 / 24)
    text = str(result)
    for expected in (
        "frozen",
        "chance",
        "R@10",
        "240 queries, each tested 2 times among 24 candidates",
    ):
        assert expected in text


def test_the_table_of_queries_is_saved(tmp_path):
    result = cross_validate(draw_pairs(), ["frozen", "centred"], repeats=1, ks=(3,))
    rows = list(csv.DictReader(result.save(tmp_path / "q.csv").read_text().splitlines()))
    assert len(rows) == 3 * 80
    ours = [row for row in rows if row["learner"] == "centred" and row["direction"] == "b_to_a"]
    both = [float(row["reciprocal_rank"]) for row in rows if row["learner"] == "centred"]
    assert len(ours) == 40
    assert np.mean(both) == pytest.approx(result.metrics("centred").mrr)
    table = pq.read_table(result.save(tmp_path / "q.parquet")).to_pylist()
    assert [str(row["rank"]) for row in table] == [row["rank"] for row in rows]
    with pytest.raises(ConfigurationError, match=r"\.csv or \.parquet"):
        result.save(tmp_path / "q.txt")


def test_holdout_splits_have_the_sizes_of_the_recipe():
    data = draw_pairs(495, width=2)
    for split in holdout_splits(data, repeats=2):
        assert len(split.test) == 75
        assert len(split.train) == 420


def test_invalid_arguments_are_errors():
    data = draw_pairs(20)
    with pytest.raises(
        ConfigurationError, match="from 2 to the number of components with a match, 20; got 21"
    ):
        cross_validate(data, folds=21)
    with pytest.raises(
        ConfigurationError,
        match=r"K = 9 is larger than the smallest gallery \(4 candidates\)",
    ):
        cross_validate(data, ["frozen"], ks=(1, 9))
    with pytest.raises(ConfigurationError, match="repeats"):
        cross_validate(data, ["frozen"], repeats=0)
    with pytest.raises(ConfigurationError, match="do not describe the same pairs"):
        cross_validate({"x": data, "y": draw_pairs(19)}, {"m": ("x", "frozen")})
    result = cross_validate(data, ["frozen"], repeats=1, ks=(1,))
    with pytest.raises(ConfigurationError, match="frozn"):
        result.compare("frozn", "chance")
    with pytest.raises(ConfigurationError, match="one label per match, 20, got 3"):
        PairedFeatures.of(data.a, data.b, groups=[1, 2, 3])


def test_multiple_feature_sets_share_a_table():
    data = draw_pairs(40)
    worse = PairedFeatures.of(data.a, data.b[::-1].copy())
    result = cross_validate(
        {"good": data, "bad": worse},
        {"frozen, good": ("good", "frozen"), "frozen, bad": ("bad", "frozen")},
        repeats=1,
    )
    assert result.metrics("frozen, good").mrr > 2 * result.metrics("frozen, bad").mrr


def test_plugin_learners_can_be_compared(install, tmp_path):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "shouting.py").write_text(
        "from pairmatch import FittedHead, Learner\n"
        "from pairmatch.learning.heads import IdentityHead\n"
        "class Loud(Learner):\n"
        "    def fit(self, train, validation=None, *, seed=0):\n"
        "        return FittedHead(IdentityHead(dim=train.dim))\n"
    )
    install("shouting", {"pairmatch.learners": {"loud": "shouting:Loud"}}, package=tmp_path / "pkg")
    result = cross_validate(draw_pairs(), ["frozen", "loud"], repeats=1)
    for column in ("rank", "reciprocal_rank", "recall_at_5"):
        np.testing.assert_array_equal(result.table("frozen")[column], result.table("loud")[column])


def test_best_stands_beside_the_baselines_by_default():
    data = draw_pairs(12)  # too few for `best` to learn from
    result = cross_validate(data, repeats=1, folds=2, ks=(1,))
    assert result.learners == ("contrastive", *BASELINES, "best")


def test_baselines_on_real_pairs_keep_their_order():
    file = np.load(shared("furniture/features.npz"), allow_pickle=True)
    data = PairedFeatures.of(file["a"], file["b"], groups=file["group"].tolist())
    result = cross_validate(data, BASELINES, repeats=1)
    mrr = {learner: result.metrics(learner, resamples=0).mrr for learner in BASELINES}
    assert mrr["cca"] > mrr["frozen"] > mrr["popularity"]
    assert mrr["popularity"] == pytest.approx(result.metrics("chance").mrr, abs=0.01)


def draw_log(people=120, matches=900, width=8, seed=0):
    """A dense graph: matches between people whose features are alike, popular people in many."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, people, width))
    popularity = rng.pareto(2, (2, people)) + 1
    scores = a @ b.T + np.log(popularity[0])[:, None] + np.log(popularity[1])
    scores += rng.gumbel(size=scores.shape)
    chosen = np.argsort(-scores, axis=None)[:matches]
    return PairedFeatures.of(a, b, matches=np.stack(np.divmod(chosen, people), axis=1))


@pytest.mark.parametrize("unseen", ["both", "a", "b"])
def test_folds_of_people_train_on_nobody_who_is_tested(unseen):
    data = draw_log()
    assert len(np.unique(data.components)) == 1
    splits = cross_validation_splits(data, repeats=2, folds=3, unseen=unseen)
    assert len(splits) == 6
    assert all(split.by == "people" for split in splits)
    for split in splits:
        train, test = data.matches[split.train.matches], data.matches[split.test.matches]
        shared = [set(train[:, side]) & set(test[:, side]) for side in (0, 1)]
        assert not shared["ab".index(unseen)] if unseen != "both" else shared == [set(), set()]
        # Every pair whose tested people are outside the fold trains
        tested = [set(test[:, 0]), set(test[:, 1])]
        outside = [
            (unseen == "b" or a not in tested[0]) and (unseen == "a" or b not in tested[1])
            for a, b in data.matches
        ]
        assert len(train) <= sum(outside)
        assert len(train) == pytest.approx(
            len(data) * (2 / 3) ** (2 if unseen == "both" else 1), rel=0.25
        )
        assert len(test) == pytest.approx(
            len(data) * (1 / 3) ** (2 if unseen == "both" else 1), rel=0.35
        )
    check_splits(data, splits)


def test_dense_graphs_are_learned_and_tested_by_people():
    data = draw_log(people=150, matches=1500, seed=1)
    result = cross_validate(
        data, ["frozen", "ridge", "metric", "contrastive"], repeats=1, folds=3, ks=(5,)
    )
    assert result.notes[0].startswith("Split by people, because people stand in several pairs")
    chance = result.metrics("chance").mrr
    for learner in result.learners:
        # The taste is likeness, which every learner can find
        assert result.metrics(learner, resamples=0).mrr > 1.3 * chance
    split = cross_validation_splits(data, repeats=1, folds=3)[0]
    assert data.take(split.train).independent >= 20  # enough for `best`


def test_splits_by_people_need_enough_pairs_and_two_sides():
    data = draw_log(people=12, matches=20)
    with pytest.raises(ConfigurationError, match="too few for 8 folds of people"):
        cross_validation_splits(data, folds=8, by="people")
    one_sided = PairedFeatures.of(np.eye(4), matches=[(0, 1), (1, 2), (2, 3)])
    with pytest.raises(ConfigurationError, match="needs two sides"):
        cross_validation_splits(one_sided, folds=2, unseen="a")
    with pytest.raises(ConfigurationError, match="split by people"):
        cross_validation_splits(data, folds=2, by="component", unseen="b")


def test_a_cut_component_gets_new_labels_and_whole_ones_keep_theirs():
    data = PairedFeatures.of(
        np.eye(6), np.eye(6), matches=[(0, 0), (1, 0), (1, 1), (2, 1), (3, 3), (4, 4), (5, 5)]
    )
    whole = data.take(data.part(np.unique(data.components)[1:]))
    np.testing.assert_array_equal(whole.components, data.components[4:])
    cut = data.take(Part(np.array([0, 3, 4]), np.array([], np.int64)))
    assert len(np.unique(cut.components)) == 3
    assert cut.units_a.tolist() == [data.units_a[row] for row in (0, 2, 3)]

"""AUC of yes against no: double loops, scikit-learn, targets, intervals and their coverage."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import roc_auc_score

from pairmatch.core.arrays import unit_rows
from pairmatch.core.decisions import Decisions
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.pools import Pools
from pairmatch.evaluation.auc import ScoredDecisions, score_decisions, summarize_auc
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.evaluation.evaluator import Evaluator
from pairmatch.evaluation.grouped_auc import GroupedAUC
from pairmatch.evaluation.splits import cross_validation_splits
from pairmatch.evaluation.targets import aim_at
from pairmatch.learning.baselines import Frozen
from pairmatch.learning.likes import Likes


def evening(*, people=(30, 25), dates=300, pools=3, seed=0, unknown=True, one_sided=False):
    """Random answers of people with coarse features, so that many scores are equal."""
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(size=(count, 2)).round() + 0.1 for count in people)
    if one_sided:
        pairs = np.argwhere(np.triu(np.ones((people[0], people[0])), 1))
        b = None
    else:
        pairs = np.argwhere(np.ones(people))
    pairs = pairs[rng.permutation(len(pairs))[:dates]]
    said = rng.integers(-1 if unknown else 0, 2, (2, len(pairs)))
    names = [f"evening {row % max(pools, 1)}" for row in range(len(pairs))]
    return PairedFeatures.of(
        a,
        b,
        decisions=Decisions.of(pairs, *said),
        pools=Pools.of(pairs, names, one_sided=one_sided) if pools else None,
    )


def auc_by_loops(scores, yes):
    """Mann–Whitney statistic by a double loop; NaN without a yes or a no."""
    wins = [(s > t) + (s == t) / 2 for s in scores[yes] for t in scores[~yes]]
    return np.mean(wins) if wins else np.nan


@pytest.mark.parametrize("target", ["match", "a_likes", "b_likes"])
@pytest.mark.parametrize("pools", [0, 1, 3])
def test_auc_is_the_mann_whitney_statistic_inside_each_pool(target, pools):
    whole = evening(pools=pools)
    said = {"a_likes": whole.decisions.a, "b_likes": whole.decisions.b}
    if target == "match":
        decided = np.arange(len(whole.decisions)) < whole.ends[1]
        yes = np.arange(len(whole.decisions)) < whole.ends[0]
    else:
        decided, yes = said[target] >= 0, said[target] == 1
    pairs, yes = whole.decisions.pairs[decided], yes[decided]
    pool = np.zeros(len(pairs)) if not pools else whole.pools.pool[decided]
    e_a, e_b = unit_rows(whole.a), unit_rows(whole.b)
    scores = np.einsum("ek,ek->e", e_a[pairs[:, 0]], e_b[pairs[:, 1]])

    def mean(groups):
        values = [auc_by_loops(scores[rows], yes[rows]) for rows in groups]
        return np.nanmean(values), np.isfinite(values).sum()

    sides = {"match": (0, 1), "a_likes": (0,), "b_likes": (1,)}[target]
    people = [
        (pairs[:, side] == person) & (pool == number)
        for side in sides
        for person in np.unique(pairs[:, side])
        for number in np.unique(pool)
    ]
    auc = summarize_auc(score_decisions(aim_at(whole, target), e_a, e_b, target), resamples=0)
    assert (auc.per_person.value, auc.per_person.count) == pytest.approx(mean(people))
    in_pools = [pool == number for number in np.unique(pool)]
    assert (auc.per_pool.value, auc.per_pool.count) == pytest.approx(mean(in_pools))
    assert auc.decisions == len(pairs)
    assert auc.per_person.interval is None
    if pools < 2:
        assert auc.per_pool.value == pytest.approx(roc_auc_score(yes, scores))


def test_both_people_of_a_one_sided_pair_ask():
    data = evening(people=(20, 20), dates=120, pools=0, one_sided=True, unknown=False)
    vectors = unit_rows(data.a)
    auc = summarize_auc(score_decisions(data, vectors, vectors), resamples=0)
    yes = np.arange(len(data.decisions)) < data.ends[0]
    pairs = data.decisions.pairs
    scores = np.einsum("ek,ek->e", vectors[pairs[:, 0]], vectors[pairs[:, 1]])
    values = []
    for person in range(20):
        rows = (pairs == person).any(1)
        values.append(auc_by_loops(scores[rows], yes[rows]))
    assert auc.per_person.value == pytest.approx(np.nanmean(values))
    assert auc.decisions == len(pairs)


def test_the_evaluator_finds_everyone_to_whom_a_side_said_yes():
    data = evening(pools=0)
    evaluation = Evaluator(ks=(5,), resamples=0).evaluate(data, target="b_likes")
    liked = data.decisions.pairs[data.decisions.b == 1]
    expected = Evaluator(ks=(5,), resamples=0).evaluate(
        PairedFeatures.of(data.a, data.b, matches=liked)
    )
    assert evaluation.both == expected.b_to_a
    assert (evaluation.a_to_b, evaluation.b_to_a) == (None, None)
    assert evaluation.candidates == (30,)
    np.testing.assert_allclose(evaluation.recall_curve()[4], evaluation.both.recall[5])
    assert "To be found: everyone to whom side b said yes" in str(evaluation)
    assert f"AUC of yes against no: {evaluation.auc.per_person.value:.3f} per asking" in str(
        evaluation
    )
    figures = json.loads(json.dumps(evaluation.to_dict()))
    assert figures["target"] == "b_likes"
    assert figures["auc"]["per_pool"]["value"] == evaluation.auc.per_pool.value
    # a head with a score of its own for the yes of side b uses it
    head = Likes(strengths=[0.5]).fit(data).head
    of_head = Evaluator(ks=(5,), resamples=0).evaluate(data, head, target="b_likes")
    aimed = Evaluator(ks=(5,), resamples=0).evaluate(
        data, head.for_target("b_likes"), target="b_likes"
    )
    assert of_head.auc == aimed.auc
    assert of_head.auc != Evaluator(ks=(5,), resamples=0).evaluate(data, head).auc
    assert of_head.frozen.auc == evaluation.auc


@pytest.mark.parametrize("target", ["match", "a_likes"])
def test_cross_validation_compares_decided_pairs_inside_the_test_parts(target):
    data = evening(people=(40, 40), dates=900, pools=0)
    splits = cross_validation_splits(data, repeats=2, folds=2, by="people")
    learners = {"likes": Likes(strengths=[0.3]), "frozen": "frozen"}
    result = cross_validate(data, learners, splits=splits, target=target, ks=(1,))
    for label, learner in {"likes": Likes(strengths=[0.3]), "frozen": Frozen()}.items():
        values, tables = [], []
        for split in splits:
            head = learner.fit(data.take(split.train), seed=split.repeat).head
            evaluation = Evaluator(ks=(1,), resamples=0).evaluate(
                data.take(split.test), head, target=target
            )
            values.append(evaluation.auc)
            tables.append(evaluation.table["reciprocal_rank"])
        auc = result.auc(label)
        assert auc.per_pool.value == pytest.approx(np.mean([v.per_pool.value for v in values]))
        people = [v.per_person.count for v in values]
        expected = np.average([v.per_person.value for v in values], weights=people)
        assert auc.per_person.value == pytest.approx(expected)
        np.testing.assert_allclose(
            result.table(label)["reciprocal_rank"], np.concatenate(tables), atol=1e-12
        )
        assert f"{label}: AUC of yes against no" in str(result)
    assert result.auc("chance") is None


def test_without_likes_and_pools_evaluations_stay_as_they_are():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20, 4))
    evaluation = Evaluator(resamples=0).evaluate(PairedFeatures.of(a, b, rejected=[(0, 1), (1, 0)]))
    assert evaluation.auc is None
    assert not {"auc", "target"} & evaluation.to_dict().keys()
    assert "AUC" not in str(evaluation)


def test_targets_that_cannot_be_evaluated_are_refused():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6, 4))
    data = PairedFeatures.of(a, b)
    with pytest.raises(ConfigurationError, match="Unknown target 'a_like'"):
        Evaluator().evaluate(data, target="a_like")
    with pytest.raises(ConfigurationError, match="needs two sides"):
        Evaluator().evaluate(PairedFeatures.of(a, matches=[(0, 1)]), target="a_likes")
    nothing = ScoredDecisions(*(np.empty(0, np.int64) for _ in range(7)))
    assert summarize_auc(nothing) is None
    # matches alone have no rejections to compare with
    pools = Pools.of(data.matches, ["here"] * 6)
    assert Evaluator(ks=(1,)).evaluate(PairedFeatures.of(a, b, pools=pools)).auc is None


def noisy_evenings(seed, *, pools, effect):
    """Scored decisions of people whose appeal differs, with a true mean AUC that is known."""
    rng = np.random.default_rng(seed)
    rows = []
    for pool in range(pools):
        shape = (8, 8)
        appeal = 0.7 * rng.normal(size=8)  # shared by all askers: decisions are not independent
        scores = rng.normal(size=shape)
        odds = effect * scores + appeal[None, :]
        yes = rng.random(shape) < 1 / (1 + np.exp(-odds))
        first, second = np.indices(shape)
        rows.append((first + 8 * pool, second + 8 * pool, yes, scores, np.full(shape, pool)))
    first, second, yes, scores, pool = (
        np.concatenate(part).ravel() for part in zip(*rows, strict=True)
    )
    return ScoredDecisions(
        np.zeros(len(yes), np.int64),
        2 * first,
        2 * second + 1,
        yes,
        scores.astype(np.float32),
        pool,
        np.zeros(len(yes), np.int64),
    )


def without_pools(scored):
    return replace(scored, pools=np.full(len(scored), -1))


def error_by_loops(scored, group, *, by_asker):
    """The two-way standard error of a mean AUC, with a loop over rows and people."""
    values, deviations = {}, []
    for number in np.unique(group):
        rows = np.flatnonzero(group == number)
        values[number] = auc_by_loops(scored.scores[rows], scored.yes[rows])
    usable = [number for number, value in values.items() if np.isfinite(value)]
    mean = np.mean([values[number] for number in usable])
    for row in np.flatnonzero(np.isin(group, usable)):
        same = group == group[row]
        others = scored.scores[same & (scored.yes != scored.yes[row])]
        ahead = np.mean(others < scored.scores[row]) + np.mean(others == scored.scores[row]) / 2
        share = ahead if scored.yes[row] else 1 - ahead
        number = np.sum(same & (scored.yes == scored.yes[row]))
        center = mean if by_asker else values[group[row]]
        asker, candidate = scored.askers[row], scored.candidates[row]
        deviations.append((asker, candidate, group[row], (share - center) / number / len(usable)))
    people = {person for asker, candidate, *_ in deviations for person in (asker, candidate)}
    variance = 0
    for person in people:
        total = sum(u for _, candidate, _, u in deviations if candidate == person)
        if by_asker:
            asked = {number for asker, _, number, _ in deviations if asker == person}
            total += sum((values[number] - mean) / len(usable) for number in asked)
        else:
            total += sum(u for asker, _, _, u in deviations if asker == person)
        of_person = np.mean([person in (asker, candidate) for asker, candidate, *_ in deviations])
        variance += (total / (1 - of_person)) ** 2
    pairs = {}
    for asker, candidate, _, u in deviations:
        pair = frozenset((asker, candidate))
        pairs[pair] = pairs.get(pair, 0) + u
    return np.sqrt(variance - sum(u**2 for u in pairs.values()))


@pytest.mark.parametrize("by_asker", [True, False])
def test_the_two_way_error_is_that_of_loops(by_asker):
    data = evening(people=(14, 12), dates=110, pools=0, unknown=False)
    scored = score_decisions(data, unit_rows(data.a), unit_rows(data.b))
    scored = replace(scored, scores=np.round(scored.scores, 1).astype(np.float32))  # with ties
    if not by_asker:
        scored = scored.select(scored.direction == 0)
    group = scored.askers if by_asker else scored.askers % 4
    grouped = GroupedAUC(group, scored.scores, scored.yes)
    error, freedom = grouped.error(scored.askers, scored.candidates, by_asker=by_asker)
    assert error == pytest.approx(error_by_loops(scored, group, by_asker=by_asker))
    assert 5 < freedom <= 11


def test_few_pools_have_intervals_and_tests_over_people():
    for pools in (1, 3):
        auc = summarize_auc(noisy_evenings(0, pools=pools, effect=0.5), resamples=200)
        for estimate in (auc.per_person, auc.per_pool):
            low, high = estimate.interval
            assert low < estimate.value < high
            assert (estimate.p_value < 0.05) == (low > 0.5 or high < 0.5)


def test_test_parts_that_teach_each_other_have_wider_intervals():
    """Over pools, it is the test of scipy for the means of pools, with √2 times its error."""
    whole = noisy_evenings(1, pools=8, effect=0.0)
    parts = replace(whole, block=whole.pools % 2)
    auc = summarize_auc(parts, resamples=200)
    means = [summarize_auc(whole.select(whole.pools == n), resamples=0) for n in range(8)]
    values = np.array([mean.per_pool.value for mean in means])
    expected = ttest_1samp(values, 0.5).confidence_interval(0.95)
    low, high = auc.per_pool.interval
    assert high - low == pytest.approx(np.sqrt(2) * (expected.high - expected.low))
    assert low + high == pytest.approx(expected.low + expected.high)
    # Without pools, groups are those of the same people, but each of a part
    shared = summarize_auc(without_pools(parts)).per_person
    alone = summarize_auc(without_pools(whole)).per_person
    assert alone.value == pytest.approx(shared.value)
    assert np.ptp(shared.interval) == pytest.approx(np.sqrt(2) * np.ptp(alone.interval))


@pytest.mark.slow
@pytest.mark.parametrize("effect", [0.0, 0.5])
@pytest.mark.parametrize("known_pools", [True, False])
def test_intervals_cover_and_the_test_holds_its_level(effect, known_pools):
    repeats = 400
    many = [noisy_evenings(10_000 + seed, pools=12, effect=effect) for seed in range(60)]
    covered, rejected = [], []

    def measure(scored, resamples):
        if not known_pools:
            scored = without_pools(scored)
        return summarize_auc(scored, resamples=resamples).per_person

    truth = np.mean([measure(scored, 0).value for scored in many])
    for seed in range(repeats):
        estimate = measure(noisy_evenings(seed, pools=12, effect=effect), 300)
        low, high = estimate.interval
        covered.append(low <= truth <= high)
        rejected.append(estimate.p_value < 0.05)
    assert 0.92 <= np.mean(covered) <= 0.99
    if effect == 0:
        assert 0.02 <= np.mean(rejected) <= 0.09


def test_equal_values_of_all_folds_have_no_p_value():
    """Three sevenths, seven times: their mean is rounded, so that their spread is not exactly 0."""
    pool = np.repeat(np.arange(7), 8)
    yes = np.tile(np.arange(8) == 0, 7)
    scores = np.tile(np.float32([2, 1, 3, 0, 5, 1.5, 7, 9]), 7)
    people = 2 * pool, 2 * np.arange(56) + 1
    scored = ScoredDecisions(np.zeros(56, np.int64), *people, yes, scores, pool, pool % 2)
    auc = summarize_auc(scored)
    assert auc.per_person.value == pytest.approx(3 / 7)
    assert auc.per_person.p_value is None
    assert auc.per_pool.p_value is None


@pytest.mark.slow
def test_shuffled_answers_are_not_significant():
    """Fitted on some events with answers at random, tested on others."""
    rng = np.random.default_rng(0)
    p_values = []
    pairs = np.array([(i, j) for i in range(160) for j in range(160) if i // 8 == j // 8])
    pools = Pools.of(pairs, [f"event {first // 8}" for first, _ in pairs])
    for _ in range(150):
        a, b = rng.normal(size=(2, 160, 5))
        answers = rng.integers(0, 2, (2, len(pairs)))
        data = PairedFeatures.of(a, b, decisions=Decisions.of(pairs, *answers), pools=pools)
        train, test = (data.take(part) for part in data.parts([160, 160]))
        head = Likes().fit(train).head
        for target in ("a_likes", "match"):
            auc = Evaluator(ks=(1,), resamples=50).evaluate(test, head, target=target).auc
            p_values += [auc.per_person.p_value, auc.per_pool.p_value]
    assert 0.02 <= (np.array(p_values) < 0.05).mean() <= 0.09


@pytest.mark.slow
def test_cross_validation_of_shuffled_answers_is_not_significant():
    """Every fold is scored by a linear map that learned noise from the events of the others."""
    rng = np.random.default_rng(0)
    pairs = np.array([(i, j) for i in range(96) for j in range(96) if i // 8 == j // 8])
    event = pairs[:, 0] // 8
    askers, candidates = 2 * pairs[:, 0], 2 * pairs[:, 1] + 1
    direction = np.zeros(len(pairs), np.int64)
    p_values = []
    for _ in range(400):
        a, b = rng.normal(size=(2, 96, 5))
        features = np.concatenate([a[pairs[:, 0]], b[pairs[:, 1]]], axis=1)
        yes = rng.integers(0, 2, len(pairs)).astype(bool)
        scores = np.empty(len(pairs), np.float32)
        for fold in range(6):
            train = event % 6 != fold
            weights = features[train].T @ (yes[train] - yes[train].mean())
            scores[~train] = features[~train] @ weights
        scored = ScoredDecisions(direction, askers, candidates, yes, scores, event, event % 6)
        auc = summarize_auc(scored, resamples=50)
        p_values.append((auc.per_person.p_value, auc.per_pool.p_value))
    level = (np.array(p_values) < 0.05).mean(0)
    assert (level >= 0.02).all()
    assert (level <= 0.09).all()

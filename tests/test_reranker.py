"""Re-rankers: the order of the best candidates, what is learned for it, and the gate."""

import dataclasses
import json
import logging

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from pairmatch import Evaluator, Matcher, Pair, PairedFeatures, Pairs, Profile
from pairmatch.cli import app
from pairmatch.core.candidates import CandidatePairs, People
from pairmatch.core.errors import (
    ConfigurationError,
    NotFittedError,
    PartError,
    SavedMatcherError,
)
from pairmatch.core.interfaces import Learner, Reranker
from pairmatch.core.joining import join_features
from pairmatch.core.pools import Pools
from pairmatch.core.second_stage import SecondStage, Traits
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.evaluation.pooled_ranks import rank_all
from pairmatch.evaluation.query_table import embed_sides
from pairmatch.evaluation.ranks import query_metrics
from pairmatch.evaluation.reranked import rerank_all, top_lists
from pairmatch.learning.baselines import Frozen, Ridge
from pairmatch.learning.pairwise import PairwiseReranker
from pairmatch.learning.reranking import Reranked, RerankingGate, training_lists
from pairmatch.learning.traits import components, fit_traits
from pairmatch.matcher.monitoring import monitor
from pairmatch.serving import messages
from pairmatch.serving.service import Service
from pairmatch.serving.settings import ServiceSettings
from pairmatch.testing import check_reranker


class Table(Reranker):
    """Scores pairs by a table of the numbers of both people, which are their first traits."""

    def __init__(self, *, values=None, top=5):
        self.values = values
        self.top = top

    def score(self, pairs):
        query, candidate = pairs.rows.T
        first = np.rint(pairs.queries[query, 0]).astype(int)
        second = np.rint(pairs.candidates[candidate, 0]).astype(int)
        return self.values[first, second] if pairs.side == "a" else self.values[second, first]


class Constant(Reranker):
    top = 8

    def score(self, pairs):
        return np.zeros(len(pairs))


class Words(Reranker):
    """The number of words that both texts have."""

    needs_profiles = True
    top = 10

    def score(self, pairs):
        words = [tuple(set(person.text.split()) for person in pair) for pair in pairs.profiles]
        return np.array([len(first & second) for first, second in words], float)


def stage(reranker, data=None, width=None):
    """A second stage whose traits are the embeddings."""
    width = data.dim if width is None else width
    eye = np.stack([np.eye(width, dtype=np.float32)] * 2)
    zeros = np.zeros((2, width), np.float32)
    return SecondStage(
        reranker, Traits(eye, zeros, zeros, np.zeros((2, width, 1), np.float32), zeros[:, 0])
    )


def near(pairs, seed, noise=0.15, width=6):
    """Partners are near each other in the first trait, wherever they are: no product sees that."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, pairs, width))
    b[:, 0] = a[:, 0] + noise * rng.normal(size=pairs)
    a[:, 0] *= 1.5
    b[:, 0] *= 1.5
    return PairedFeatures.of(a, b)


def random_features(pairs, seed, width=8):
    rng = np.random.default_rng(seed)
    return PairedFeatures.of(*rng.normal(size=(2, pairs, width)))


def batch_of(rng, queries=12, candidates=9, size=6, width=5, side="a"):
    """Random lists of candidates with one partner each."""
    rows = [
        (query, candidate)
        for query in range(queries)
        for candidate in np.sort(rng.choice(candidates, size, replace=False)).tolist()
    ]
    is_partner = np.zeros((queries, size), bool)
    is_partner[np.arange(queries), rng.integers(0, size, queries)] = True
    return CandidatePairs(
        side,
        rng.normal(size=(queries, width)).astype(np.float32),
        rng.normal(size=(candidates, width)).astype(np.float32),
        rng.normal(size=(candidates, 2)).astype(np.float32),
        np.array(rows, np.int64),
        rng.normal(size=len(rows)).astype(np.float32),
        is_partner=is_partner.ravel(),
    )


# --- the order of candidates


def brute_ranks(data, scores, second, top, known=(), elsewhere=()):
    """(direction, query, partner) -> (better, tied) by sorting, for sets without pools."""
    found = {}
    partners = {}
    for a, b in data.matches.tolist():
        partners.setdefault((0, a), set()).add(b)
        partners.setdefault((0 if data.one_sided else 1, b), set()).add(a)
    for (direction, query), those in partners.items():
        row = scores[query] if direction == 0 else scores[:, query]
        values = second[query] if direction == 0 else second[:, query]
        hidden = {query} if data.one_sided else set()
        for a, b in known:
            if data.one_sided:
                hidden |= {b} if a == query else {a} if b == query else set()
            elif query == (a, b)[direction]:
                hidden.add((b, a)[direction])
        people = [one for one in range(len(row)) if one not in hidden]
        people.sort(key=lambda one: (-row[one], one))
        best, rest = people[:top], people[top:]
        for partner in those:
            if partner in best:
                better = sum(values[one] > values[partner] for one in best)
                tied = sum(values[one] == values[partner] for one in best)
            else:
                better, tied = len(best) + rest.index(partner), 1
            found[direction, query, partner] = (better, tied)
    return found


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("top", [1, 5, 100])
def test_ranks_are_those_of_sorting(one_sided, top):
    rng = np.random.default_rng(top)
    size = 30
    vectors = rng.normal(size=(2, size, 5)).astype(np.float32)
    links = {tuple(sorted(pair)) for pair in rng.integers(0, size, (25, 2)).tolist()}
    links = sorted((a, b) for a, b in links if a != b)
    matches, known = np.array(links[::2]), np.array(links[1::2][:6])
    values = rng.integers(0, 6, (size, size)).astype(float)  # with ties
    if one_sided:
        vectors[1] = vectors[0]
        values = values + values.T
    # The numbers of people, which the re-ranker reads, meet zeros in the inner product
    vectors[0, :, :2] = np.stack([np.arange(size), np.zeros(size)], axis=1)
    vectors[1, :, :2] = np.stack([np.zeros(size), np.arange(size)], axis=1)
    a, b = vectors
    data = PairedFeatures.of(a, None if one_sided else b, matches=matches)
    second = stage(Table(values=values, top=top), data)
    second.traits.weights[:] = 0
    second.traits.weights[0, 0, 0] = second.traits.weights[1, 1, 0] = 1
    ranks = rank_all(data, a, b, known=known)
    new = rerank_all(data, (a, b), ranks, second, known=known)
    expected = brute_ranks(data, a @ b.T, values, top, known.tolist())
    found = {
        (direction, query, partner): (better, tied)
        for direction, part in enumerate(new)
        for query, partner, better, tied in zip(
            part.queries.tolist(),
            part.partners.tolist(),
            part.better.tolist(),
            part.tied.tolist(),
            strict=True,
        )
    }
    assert found == expected
    for before, after in zip(ranks, new, strict=True):
        beyond = before.better >= top
        assert np.array_equal(before.better[beyond], after.better[beyond])
        assert np.array_equal(before.candidates, after.candidates)


def test_lists_stay_inside_pools_and_leave_out_partners_of_other_pools():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 8, 3)).astype(np.float32)
    matches = np.array([[0, 0], [1, 1], [4, 4], [5, 5], [0, 2], [0, 4]])
    pool = np.array([0, 0, 1, 1, 0, 1])
    # Rows 0 to 3 are in the first pool, rows 4 to 7 in the second; a's person 0 is in both
    names = [["first"]] * 4 + [["second"]] * 4
    pools = Pools.of(matches, [("first", "second")[one] for one in pool], a=names, b=names)
    data = PairedFeatures.of(a, b, matches=matches, pools=pools)
    forward, _ = top_lists(data, a, b, 100)
    lists = {
        (int(query), int(where)): set(forward.rows[forward.rows[:, 0] == number, 1].tolist())
        for number, (query, where) in enumerate(zip(forward.queries, forward.pools, strict=True))
    }
    assert lists == {
        (0, 0): {0, 1, 2, 3},
        (0, 1): {4, 5, 6, 7},
        (1, 0): {0, 1, 2, 3},
        (4, 1): {4, 5, 6, 7},
        (5, 1): {4, 5, 6, 7},
    }
    ranks = rank_all(data, a, b)
    new = rerank_all(data, (a, b), ranks, stage(Constant(), data))
    for before, after in zip(ranks, new, strict=True):
        assert after.better.tolist() == [0] * len(after.better)
        assert np.array_equal(before.pools, after.pools)
        assert np.array_equal(after.tied, before.candidates)
    assert new[0].tied.tolist() == [4] * 6
    assert new[1].tied.tolist() == [4, 4, 4, 5, 5, 5]  # a's person 0 is in the second pool, too


def test_equal_scores_of_a_reranker_count_as_ties():
    data = random_features(40, 0)
    vectors = embed_sides(data)
    ranks = rank_all(data, *vectors)
    new = rerank_all(data, vectors, ranks, stage(Constant(), data))
    for before, after in zip(ranks, new, strict=True):
        inside = before.better < Constant.top
        assert (after.tied[inside] == Constant.top).all()
        harmonic = np.mean(1 / np.arange(1, Constant.top + 1))
        assert np.allclose(query_metrics(after, (1,)).reciprocal_rank[inside], harmonic)
        assert np.array_equal(after.better[~inside], before.better[~inside])


def test_a_reranker_by_the_first_score_changes_nothing():
    class Same(Reranker):
        top = 10

        def score(self, pairs):
            return pairs.scores

    data = random_features(60, 1)
    first = Evaluator(resamples=0).evaluate(data, Frozen().fit(data).head)
    second = Evaluator(resamples=0).evaluate(
        data, Frozen().fit(data).head, second=stage(Same(), data)
    )
    assert np.array_equal(first.ranks, second.ranks)


def test_a_wrong_result_of_score_is_an_error():
    class Broken(Reranker):
        def score(self, pairs):
            return np.full(len(pairs), np.nan)

    data = random_features(20, 0)
    with pytest.raises(ConfigurationError, match="one finite number per pair"):
        Evaluator(resamples=0).evaluate(data, second=stage(Broken(), data))
    with pytest.raises(ConfigurationError, match="target is 'a_likes'"):
        Evaluator(resamples=0).evaluate(data, target="a_likes", second=stage(Constant(), data))


# --- what is learned from


def test_partners_are_no_negatives_and_open_pairs_are_left_out():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 12, 4)).astype(np.float32)
    matches = [(row, row) for row in range(10)] + [(0, 1), (0, 2)]
    data = PairedFeatures.of(a, b, matches=matches, rejected=[(0, 3), (1, 4)])
    opened = np.array([[0, 5], [2, 6]])
    whole = dataclasses.replace(
        data,
        decisions=dataclasses.replace(
            data.decisions,
            pairs=np.concatenate([data.decisions.pairs, opened]),
            a=np.append(data.decisions.a, [0, 0]),
            b=np.append(data.decisions.b, [0, 0]),
        ),
        decision_components=np.append(data.decision_components, [0, 0]),
    )
    assert whole.open.tolist() == opened.tolist()
    forward, backward = training_lists(whole, (a, b), stage(Table(top=100), whole))
    for batch, turn in ((forward, 1), (backward, -1)):
        people = [
            tuple(
                int(np.flatnonzero((side == vector).all(1))[0])
                for side, vector in zip((a, b)[::turn], pair, strict=True)
            )[::turn]
            for pair in zip(
                batch.queries[batch.rows[:, 0]], batch.candidates[batch.rows[:, 1]], strict=True
            )
        ]
        labels = dict(zip(people, batch.is_partner.tolist(), strict=True))
        assert {pair for pair, label in labels.items() if label} == set(map(tuple, matches))
        assert not {(0, 5), (2, 6)} & labels.keys()
        assert labels[0, 3] is False
        assert labels[1, 4] is False


def test_queries_without_a_partner_among_the_best_are_left_out():
    data = random_features(50, 3)
    vectors = embed_sides(data)
    ranks = rank_all(data, *vectors)
    batches = training_lists(data, vectors, stage(Table(top=7), data))
    for batch, part in zip(batches, ranks, strict=True):
        assert len(batch.queries) == (part.better < 7).sum()
        sizes = [batch.is_partner[rows].sum() for rows in batch.lists()]
        assert sizes == [1] * len(batch.queries)
        assert all(rows.stop - rows.start == 7 for rows in batch.lists())


def test_traits_are_the_components_of_features():
    """Where the embedding is a linear map of the features, ridge regression finds them exactly."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 300, 6)) * [5, 4, 3, 2, 1, 0.5] + 7
    data = PairedFeatures.of(*features)
    targets = components(data)
    pca = PCA(whiten=True).fit(np.concatenate(features - features.mean(1, keepdims=True)))
    for target, side in zip(targets, features, strict=True):
        found = pca.transform(side - side.mean(0)) * np.sqrt(599 / 600) ** -1
        assert np.allclose(np.abs(target), np.abs(found), atol=0.02)
    maps = rng.normal(size=(2, 6, 6))
    vectors = tuple(
        (side @ one).astype(np.float32) for side, one in zip(features, maps, strict=True)
    )
    traits = fit_traits(vectors, targets)
    for side in (0, 1):
        assert np.corrcoef(traits.of(vectors[side], side)[:, 0], targets[side][:, 0])[0, 1] > 0.999
        new = rng.normal(size=(5, 6)).astype(np.float32)
        scores = new @ vectors[side].T
        assert np.allclose(traits.hubness(new, side)[:, 0], scores.mean(1), rtol=1e-3)
        assert np.allclose(traits.hubness(new, side)[:, 1], scores.std(1), rtol=1e-3)
    again = Traits.of_state(traits.state())
    assert np.array_equal(again.of(vectors[0], 0), traits.of(vectors[0], 0))
    with pytest.raises(ConfigurationError, match=r"means has shape \[2, 3\]"):
        Traits.of_state({**traits.state(), "means": torch.zeros(2, 3)})
    with pytest.raises(ConfigurationError, match="axes is missing"):
        Traits.of_state({k: v for k, v in traits.state().items() if k != "axes"})


def test_traits_of_many_coordinates():
    """Embeddings wider than there are people, and hubs in directions beyond the leading ones."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 50, 4))
    data = PairedFeatures.of(*features)
    lift = rng.normal(size=(4, 100))
    vectors = tuple((side @ lift).astype(np.float32) for side in features)
    targets = components(data)
    traits = fit_traits(vectors, targets)
    new = (rng.normal(size=(20, 4)) @ lift).astype(np.float32)
    assert traits.axes.shape == (2, 100, 16)
    assert np.allclose(traits.hubness(new, 0)[:, 1], (new @ vectors[0].T).std(1), rtol=1e-2)
    assert np.corrcoef(traits.of(vectors[1], 1)[:, 2], targets[1][:, 2])[0, 1] > 0.99


# --- the re-ranker pairwise


def test_inputs_are_those_of_the_formulas():
    rng = np.random.default_rng(0)
    batch = batch_of(rng, width=4)
    inputs = PairwiseReranker(traits=3).inputs(batch)
    for row, (query, candidate), score in zip(
        inputs, batch.rows.tolist(), batch.scores, strict=True
    ):
        own, other = batch.queries[query, :3], batch.candidates[candidate, :3]
        expected = [score, *batch.hubness[candidate], *(own * other), *np.abs(own - other)]
        assert np.allclose(row, expected, atol=1e-7)


def test_weights_equal_those_of_scikit_learn():
    """With two candidates, a choice is a logistic regression on the difference of their inputs."""
    rng = np.random.default_rng(1)
    batch = batch_of(rng, queries=80, candidates=40, size=2)
    batch = dataclasses.replace(batch, scores=np.zeros_like(batch.scores))  # no prior
    reranker = PairwiseReranker(traits=3, strength=2.0)
    fitted = reranker.fit([batch])
    inputs = fitted.inputs(batch)
    partner, other = inputs[batch.is_partner], inputs[~batch.is_partner]
    differences = partner - other
    spread = np.sqrt((differences**2).mean(0)) / 2  # the standard deviation of two values
    x = np.divide(differences, spread, out=np.zeros_like(differences), where=spread > 1e-9)
    signs = np.where(np.arange(len(x)) % 2, 1, -1)
    model = LogisticRegression(C=1 / 2.0, fit_intercept=False, tol=1e-10, max_iter=10_000)
    model.fit(x * signs[:, None], signs)
    weights = fitted.state()["weights"].numpy() * np.where(spread > 1e-9, spread, 0)
    assert np.allclose(weights, model.coef_[0], atol=2e-3)


def test_weights_minimize_the_penalized_likelihood():
    rng = np.random.default_rng(2)
    batches = [batch_of(rng, side=side) for side in ("a", "b")]
    strength = 1.5
    fitted = PairwiseReranker(traits=2, strength=strength).fit(batches)
    inputs = np.stack([fitted.inputs(batch)[rows] for batch in batches for rows in batch.lists()])
    spreads = np.sqrt(np.square(inputs - inputs.mean(1, keepdims=True)).mean((0, 1)))
    scaled = fitted.state()["weights"].numpy().astype(float) * spreads

    def loss(weights, prior, penalty):
        total = 0.0
        for batch in batches:
            inputs = fitted.inputs(batch) / np.where(spreads > 0, spreads, 1)
            for rows in batch.lists():
                logits = inputs[rows] @ weights
                total -= logits[batch.is_partner[rows]][0] - np.log(np.exp(logits).sum())
        return total / 24 + penalty / 2 * ((weights - prior) ** 2).sum()

    from scipy.optimize import minimize_scalar

    first = np.zeros(len(scaled))
    alone = minimize_scalar(lambda w: loss(np.eye(len(scaled))[0] * w, first, 1e-4))
    first[0] = max(alone.x, 0)
    best = loss(scaled, first, strength / 24)
    for direction in np.eye(len(scaled)):
        steps = [loss(scaled + step * direction, first, strength / 24) for step in (1e-4, -1e-4)]
        assert abs(steps[0] - steps[1]) / 2e-4 < 1e-3
        assert min(steps) > best - 1e-9


def test_strong_shrinkage_keeps_the_order_of_the_first_stage():
    data = near(60, 0)
    vectors = embed_sides(data)
    reranker = PairwiseReranker(strength=1e9, top=20)
    lists = training_lists(data, vectors, stage(reranker, data))
    for batch in lists:
        scores = reranker.fit([batch]).score(batch)
        for rows in batch.lists():
            assert (np.diff(scores[rows]) <= 1e-9).all()


def test_state_restores_scores_and_is_checked():
    rng = np.random.default_rng(3)
    batch = batch_of(rng)
    fitted = PairwiseReranker(traits=2).fit([batch])
    again = PairwiseReranker(traits=2).with_state(fitted.state())
    assert np.array_equal(again.score(batch), fitted.score(batch))
    assert np.array_equal(fitted.fit([batch]).score(batch), fitted.score(batch))
    part = dataclasses.replace(batch, rows=batch.rows[:6], scores=batch.scores[:6])
    assert np.allclose(fitted.score(part), fitted.score(batch)[:6], atol=1e-9)
    with pytest.raises(NotFittedError, match="must learn first"):
        PairwiseReranker().score(batch)
    with pytest.raises(ConfigurationError, match=r"which has `weights` \[F\]: \{'more': \[1\]\}"):
        PairwiseReranker().with_state({"more": torch.zeros(1)})
    with pytest.raises(ConfigurationError, match="embeddings 5 wide, and these are 6 wide"):
        stage(fitted, width=5).pairs("a", *np.zeros((2, 3, 6), np.float32), batch.rows, 0)
    second = stage(fitted, width=5)
    restored = SecondStage.restored(PairwiseReranker(traits=2), second.state(), width=5)
    assert np.array_equal(restored.score(batch), second.score(batch))
    with pytest.raises(ConfigurationError, match="has no 'other'"):
        SecondStage.restored(fitted, {**second.state(), "other": torch.zeros(1)}, width=5)
    with pytest.raises(ConfigurationError, match="top must be at least 2"):
        PairwiseReranker(top=1)
    with pytest.raises(ConfigurationError, match="is_partner"):
        PairwiseReranker().fit([dataclasses.replace(batch, is_partner=None)])


def test_conformance():
    check_reranker(PairwiseReranker(top=3, traits=2))
    check_reranker(Constant())
    check_reranker(Words())

    class OfTheList(Reranker):
        def score(self, pairs):
            return pairs.scores - pairs.scores.mean()

    class Changing(PairwiseReranker):
        def fit(self, train, *, seed=0):
            self._weights = super().fit(train, seed=seed)._weights
            return self

    with pytest.raises(AssertionError, match="depends on other pairs"):
        check_reranker(OfTheList())
    with pytest.raises(AssertionError, match="leave the one that it is called on unchanged"):
        check_reranker(Changing())


# --- the gate


@pytest.mark.parametrize("learner", ["whitened", "ridge"])
def test_the_gate_keeps_a_reranker_that_sees_what_the_first_stage_cannot(learner):
    fitted = Reranked(learner=learner, reranker=("pairwise", {"top": 200})).fit(near(200, 1))
    assert isinstance(fitted.second.reranker, PairwiseReranker)
    assert "The re-ranker pairwise orders the best 200 candidates: MRR" in fitted.notes[-1]
    new = near(150, 2)
    evaluator = Evaluator(resamples=0)
    first = evaluator.evaluate(new, fitted.head)
    second = evaluator.evaluate(new, fitted.head, second=fitted.second)
    assert second.both.mrr > 1.1 * first.both.mrr
    assert second.compare(first).p_value < 0.05
    weights = fitted.second.reranker.state()["weights"].numpy()
    assert weights[-6:].argmin() == 0  # nearness in the first trait counts
    assert weights[-6] < 0


@pytest.mark.parametrize("learner", ["frozen", "ridge"])
def test_the_gate_refuses_noise(learner):
    """Nothing of a learner that fits its own pairs closely may reach the second stage."""
    gains = []
    for seed in range(4):
        stages = Reranked(learner=learner)
        fitted = stages.fit(random_features(100, seed))
        gains.append((stages.gate.second_mrr - stages.gate.first_mrr) / stages.gate.error)
        assert fitted.second is None
        assert "is not used: MRR" in fitted.notes[-1]
    assert np.mean(gains) < 1


def test_the_gate_refuses_pairs_that_the_first_stage_ranks_as_well():
    for seed in range(4):
        rng = np.random.default_rng(seed)
        a = rng.normal(size=(100, 8))
        data = PairedFeatures.of(a, a + rng.normal(size=a.shape))
        assert Reranked(learner="frozen").fit(data).second is None


def test_the_gate_needs_two_standard_errors():
    gate = RerankingGate(0.2, 0.25, 0.02, chance_mrr=0.1, chance_error=0.02, queries=100)
    assert gate.is_passed
    assert not dataclasses.replace(gate, error=0.026).is_passed
    assert not dataclasses.replace(gate, second_mrr=0.2, error=0.0).is_passed
    assert not dataclasses.replace(gate, chance_mrr=0.22).is_passed


def test_few_pairs_have_no_second_stage():
    fitted = Reranked(learner="frozen").fit(near(15, 0))
    assert fitted.second is None
    assert "15 independent groups of pairs, at least 20 are needed" in fitted.notes[-1]


def test_one_sided_sets_have_a_second_stage():
    data = near(150, 0)
    rows = np.arange(150)
    people = np.concatenate([data.a, data.b])
    whole = PairedFeatures.of(people, matches=np.stack([rows, rows + 150], axis=1))
    fitted = Reranked(learner="frozen").fit(whole)
    assert fitted.second is not None
    first = Evaluator(resamples=0).evaluate(whole, fitted.head)
    second = Evaluator(resamples=0).evaluate(whole, fitted.head, second=fitted.second)
    assert second.both.mrr > first.both.mrr


def test_folds_report_nothing_and_the_seed_decides():
    class Reporting(Learner):
        def __init__(self):
            self.reported = []

        def fit(self, train, validation=None, *, seed=0):
            self.reported.append(len(self.callbacks))
            return Ridge().fit(train)

    learner = Reporting()
    stages = Reranked(learner=learner)
    stages.callbacks = ("a callback",)
    first = stages.fit(near(200, 1), seed=3)
    assert learner.reported == [1, 0, 0, 0, 0, 0]
    second = stages.fit(near(200, 1), seed=3)
    for name, value in first.second.state().items():
        assert torch.equal(value, second.second.state()[name])


def test_cross_validation_has_both_stages():
    data = near(150, 0)
    result = cross_validate(
        data, {"one": "frozen", "two": Reranked(learner="frozen")}, repeats=1, folds=3
    )
    comparison = result.compare("two", "one")
    assert comparison.difference > 0.05
    assert result.table("one").same_queries(result.table("two"))


# --- in a matcher


def attribute_pairs(count, seed):
    """People whose partner is near in x, among six attributes."""
    data = near(count, seed, noise=0.02)
    people = {}
    for side, features in (("a", data.a), ("b", data.b)):
        for row, values in enumerate(features.tolist()):
            person = f"{side}{seed}-{row:03}"
            attributes = {f"x{number}": value for number, value in enumerate(values)}
            people[person] = Profile(person, attributes={**attributes, "age": 20 + row % 30})
    pairs = [Pair(f"a{seed}-{row:03}", f"b{seed}-{row:03}") for row in range(count)]
    return Pairs.of(list(people.values()), pairs)


OPTIONS = {
    "backbone": ("attributes", {"leave_out": ("age",)}),
    "metadata": "none",
    "learner": "frozen",
}


@pytest.fixture(scope="module")
def train():
    return attribute_pairs(250, 0)


@pytest.fixture(scope="module")
def test_pairs():
    return attribute_pairs(60, 1)


@pytest.fixture(scope="module")
def fitted(train, tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "s.sqlite"
    return Matcher(**OPTIONS, reranker=("pairwise", {"top": 20}), store=store).fit(train)


@pytest.fixture(scope="module")
def plain(train, fitted):
    return Matcher(**OPTIONS, store=fitted.store).fit(train)


def test_the_head_is_the_same_with_a_second_stage(fitted, plain):
    assert fitted.reranking.is_passed
    assert plain.second is None
    for name, value in plain.head.state_dict().items():
        assert torch.equal(value, fitted.head.state_dict()[name])
    assert "The re-ranker pairwise orders the best 20 candidates" in fitted.notes[-1]
    assert fitted.summary()["Re-ranker"].startswith("pairwise (top=20")
    assert "Re-ranker" not in plain.summary()


def test_recommendations_are_in_the_order_of_the_reranker(fitted, plain, test_pairs):
    candidates = [test_pairs.profiles[person] for person in test_pairs.ids_b]
    person = test_pairs.profiles["a1-003"]
    first = plain.recommend(person, candidates, 60)
    second = fitted.recommend(person, candidates, 60)
    best, rest = second[:20], second[20:]
    assert {one.profile.id for one in best} == {one.profile.id for one in first[:20]}
    assert [one.profile.id for one in rest] == [one.profile.id for one in first[20:]]
    assert [one.rank for one in second] == list(range(1, 61))
    values = [one.rerank_score for one in best]
    assert values == sorted(values, reverse=True)
    assert all(one.rerank_score is None for one in rest)
    scores = {one.profile.id: one.score for one in first}
    assert all(scores[one.profile.id] == one.score for one in second)
    assert second.eligible == 60
    assert any("scores and probabilities are those of the first stage" in x for x in second.caveats)
    assert "re-ranked" in str(second)
    assert "re-ranked" not in str(first)
    # The best k are the same for every k, and rules decide who is among them
    gallery = fitted.gallery(candidates)
    assert [one.profile.id for one in fitted.recommend(person, gallery, 3)] == [
        one.profile.id for one in second[:3]
    ]
    young = fitted.recommend(person, gallery, 60, where="age < 30")
    assert all(one.profile.attributes["age"] < 30 for one in young)
    allowed = [one.profile.id for one in first if one.profile.attributes["age"] < 30][:20]
    assert {one.profile.id for one in young[:20]} == set(allowed)
    assert not fitted.recommend(person, gallery, 3, where="age < 0")


def test_figures_are_those_of_recommendations(fitted, plain, test_pairs):
    evaluation = fitted.evaluate(test_pairs, resamples=0)
    gallery = fitted.gallery([test_pairs.profiles[person] for person in test_pairs.ids_b])
    ranks = []
    for row in range(60):
        ranking = fitted.recommend(test_pairs.profiles[f"a1-{row:03}"], gallery, 60)
        ranks.append([one.profile.id for one in ranking].index(f"b1-{row:03}") + 1)
    assert evaluation.a_to_b.mrr == pytest.approx(np.mean(1 / np.array(ranks)), abs=1e-6)
    assert evaluation.both.mrr > plain.evaluate(test_pairs, resamples=0).both.mrr
    assert any("The re-ranker pairwise orders the best 20" in note for note in evaluation.notes)
    assert evaluation.frozen.both == plain.evaluate(test_pairs, resamples=0).frozen.both


def test_people_who_were_seen_are_ranked_by_both_stages(fitted, plain, train, test_pairs):
    seen = train.pairs[:40]
    people = [train.profiles[person] for pair in seen for person in (pair.a, pair.b)]
    whole = Pairs.of([*people, *test_pairs.people], [*seen, *test_pairs.pairs])
    known = Pairs.of(people[:40], seen[:20])
    first, second = (
        matcher.evaluate(whole, known=known, resamples=0) for matcher in (plain, fitted)
    )
    assert first.queries == second.queries
    assert first.both.mrr != second.both.mrr


def test_targets_other_than_the_match_are_of_the_first_stage(fitted, plain, test_pairs):
    likes = [dataclasses.replace(pair, a_likes=True, b_likes=True) for pair in test_pairs.pairs]
    pairs = Pairs.of(test_pairs.people, likes)
    first, second = (
        matcher.evaluate(pairs, target="a_likes", resamples=0) for matcher in (plain, fitted)
    )
    assert np.array_equal(first.ranks, second.ranks)
    assert any("Figures of the first stage" in note for note in second.notes)


def test_a_saved_matcher_recommends_the_same(fitted, test_pairs, tmp_path, caplog):
    folder = fitted.save(tmp_path / "couples")
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {
        "README.md",
        "head.safetensors",
        "history.csv",
        "matcher.json",
        "reranker.safetensors",
    }
    loaded = Matcher.load(folder, store=fitted.store)
    assert loaded.reranking == fitted.reranking
    assert loaded.reranker.top == 20
    gallery = fitted.gallery([test_pairs.profiles[person] for person in test_pairs.ids_b])
    gallery.save(tmp_path / "gallery")
    for person in ("a1-000", "a1-041"):
        rankings = [
            matcher.recommend(test_pairs.profiles[person], candidates, 30)
            for matcher, candidates in (
                (fitted, gallery),
                (loaded, type(gallery).open(tmp_path / "gallery")),
            )
        ]
        shown = [
            [(one.profile.id, one.score, one.rerank_score) for one in ranking]
            for ranking in rankings
        ]
        assert shown[0] == shown[1]
    card = (folder / "README.md").read_text()
    assert "| reranker | pairwise | top=20, traits=16, strength=10.0 | pairmatch" in card
    assert "The re-ranker pairwise orders the best 20 candidates: MRR" in card
    record = json.loads((folder / "matcher.json").read_text())
    assert record["reranking"]["queries"] == 500

    content = (folder / "reranker.safetensors").read_bytes()
    (folder / "reranker.safetensors").write_bytes(content[:-4] + b"\0\0\0\0")
    with pytest.raises(SavedMatcherError, match=r"reranker\.safetensors is missing, or does not"):
        Matcher.load(folder)
    (folder / "reranker.safetensors").unlink()
    with pytest.raises(SavedMatcherError, match=r"reranker\.safetensors is missing"):
        Matcher.load(folder)


def test_a_refused_reranker_is_not_served(train, tmp_path, caplog):
    rng = np.random.default_rng(0)
    people = [
        dataclasses.replace(person, attributes={"x0": float(rng.normal()), "x1": 1.0 * number})
        for number, person in enumerate(train.people)
    ]
    pairs = Pairs.of([one for one in people if int(one.id[3:]) < 60], train.pairs[:60])
    options = {**OPTIONS, "backbone": "attributes", "store": tmp_path / "s.sqlite"}
    with caplog.at_level(logging.WARNING):
        matcher = Matcher(**options, reranker="pairwise").fit(pairs)
    assert matcher.second is None
    assert not matcher.reranking.is_passed
    assert "The re-ranker pairwise is not used: MRR" in caplog.text
    folder = matcher.save(tmp_path / "couples")
    assert not (folder / "reranker.safetensors").exists()
    card = (folder / "README.md").read_text()
    assert "| reranker |" not in card
    assert "The re-ranker pairwise is not used" in card
    loaded = Matcher.load(folder, store=tmp_path / "s.sqlite")
    assert loaded.reranker is not None
    assert loaded.second is None
    ranking = loaded.recommend(pairs.people[0], pairs.people[60:], 5)
    assert all(one.rerank_score is None for one in ranking)


def test_a_matcher_without_a_reranker_leaves_no_file_of_an_earlier_one(fitted, plain, tmp_path):
    fitted.save(tmp_path / "couples")
    plain.save(tmp_path / "couples")
    assert not (tmp_path / "couples" / "reranker.safetensors").exists()
    assert Matcher.load(tmp_path / "couples").second is None


def test_a_saved_matcher_names_no_person(fitted, tmp_path):
    folder = fitted.save(tmp_path / "couples")
    for path in folder.iterdir():
        assert b"a0-00" not in path.read_bytes()
    # Nothing grows with the number of people
    width = fitted.head.width
    shapes = {name: list(value.shape) for name, value in fitted.second.state().items()}
    assert shapes == {
        "traits.weights": [2, width, 6],
        "traits.offsets": [2, 6],
        "traits.means": [2, width],
        "traits.axes": [2, width, 16],
        "traits.residuals": [2],
        "reranker.weights": [15],
    }


def test_cross_validation_and_slates_of_a_matcher(fitted, train, test_pairs, tmp_path, caplog):
    part = Pairs.of(train.people, train.pairs)
    result = fitted.cross_validate(part, ["frozen"], repeats=1, folds=3)
    assert result.mean_mrr()["trained"] != result.mean_mrr()["frozen"]
    people = [
        [test_pairs.profiles[person] for person in ids]
        for ids in (test_pairs.ids_a, test_pairs.ids_b)
    ]
    with caplog.at_level(logging.WARNING):
        fitted.recommend_all(*people, tmp_path / "slates", 3)
    assert "Slates are in the order of the first stage: the re-ranker pairwise" in caplog.text


def test_newer_people_are_watched_with_both_stages(fitted, test_pairs):
    evaluation = fitted.evaluate(test_pairs, resamples=0)
    assert evaluation is not None
    assert monitor(fitted, test_pairs).auc == pytest.approx(fitted.reference.auc)


def test_a_reranker_of_one_argument_is_not_a_learner():
    with pytest.raises(ConfigurationError, match=r"Matcher\(learner=\.\.\., reranker="):
        Matcher(backbone="attributes", metadata="none", learner=Reranked(learner="frozen"))


# --- re-rankers that read profiles


def text_pairs(count):
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in range(40)]
    people, pairs = [], []
    for row in range(count):
        shared = rng.choice(words, 4, replace=False).tolist()
        for side in "ab":
            mine = [*shared, *rng.choice(words, 4, replace=False).tolist()]
            person = Profile(
                f"{side}{row}", text=" ".join(mine), attributes={"x": float(rng.normal())}
            )
            people.append(person)
        pairs.append(Pair(f"a{row}", f"b{row}"))
    return Pairs.of(people, pairs)


def test_a_reranker_that_reads_texts(tmp_path):
    pairs = text_pairs(60)
    matcher = Matcher(
        backbone="attributes",
        metadata="none",
        learner="frozen",
        reranker=Words(),
        store=tmp_path / "s.sqlite",
    ).fit(pairs)
    assert matcher.reranking.is_passed
    candidates = [pairs.profiles[person] for person in pairs.ids_b]
    person = pairs.profiles["a7"]
    ranking = matcher.recommend(person, candidates, 10)
    mine = set(person.text.split())
    assert [one.rerank_score for one in ranking] == [
        len(mine & set(one.profile.text.split())) for one in ranking
    ]
    gallery = matcher.gallery(candidates)
    again = matcher.recommend(person, gallery, 10)
    assert [one.profile.id for one in again] == [one.profile.id for one in ranking]
    gallery.save(tmp_path / "gallery")
    stored = type(gallery).open(tmp_path / "gallery")
    with pytest.raises(ConfigurationError, match="10 candidates have neither photo nor text: b"):
        matcher.recommend(person, stored, 5)
    data = matcher.paired_features(pairs)
    arrays = dataclasses.replace(data, people=None)
    with pytest.raises(ConfigurationError, match="features made from arrays have none"):
        Evaluator(resamples=0).evaluate(
            arrays, matcher.head, second=SecondStage(Words(), matcher.second.traits)
        )


def test_people_stay_with_their_rows(tmp_path):
    pairs = text_pairs(12)
    matcher = Matcher(
        backbone="attributes", metadata="none", learner="frozen", store=tmp_path / "s.sqlite"
    ).fit(pairs)
    parts = [matcher.paired_features(pairs), matcher.paired_features(pairs)]
    whole, labels = join_features(parts)
    assert [one.id for one in whole.people.a] == 2 * list(pairs.ids_a)
    part = whole.take(whole.part(labels[1]))
    assert [one.id for one in part.people.b] == list(pairs.ids_b)
    few = part.take(part.parts([4, 8], seed=0)[0])
    assert [one.id for one in few.people.a] == [f"a{one.id[1:]}" for one in few.people.b]
    assert People((), ()).take(np.empty(0, int), np.empty(0, int)) is not None


def test_a_reranker_that_reads_texts_is_not_served(tmp_path):
    pairs = text_pairs(60)
    options = {"backbone": "attributes", "metadata": "none", "learner": "frozen"}
    matcher = Matcher(**options, reranker=Words(), store=tmp_path / "s.sqlite").fit(pairs)
    with pytest.raises(ConfigurationError, match="the galleries of a service hold only"):
        Service(ServiceSettings(matcher=tmp_path, galleries={}), matcher)
    with pytest.raises(PartError, match="has no registered name"):
        matcher.save(tmp_path / "couples")


# --- served, and on the command line


def test_a_service_answers_as_recommend_does(fitted, plain, test_pairs, tmp_path):
    people = {
        side: [test_pairs.profiles[one] for one in ids]
        for side, ids in (("a", test_pairs.ids_a), ("b", test_pairs.ids_b))
    }
    galleries = {}
    for side, those in people.items():
        galleries[side] = fitted.gallery(those, side=side).save(tmp_path / side)
    settings = ServiceSettings(matcher=tmp_path, galleries=galleries)
    for matcher in (fitted, plain):
        service = Service(settings, matcher)
        try:
            for k in (3, 40):
                request = messages.Recommend(id="a1-007", side="a", k=k, where=["age < 35"])
                answer = messages.answer_of(service.recommend(request))
                expected = matcher.recommend(
                    test_pairs.profiles["a1-007"], people["b"], k, where="age < 35"
                )
                shown = [(one.id, one.score, one.rerank_score) for one in answer.recommendations]
                assert shown == [(one.profile.id, one.score, one.rerank_score) for one in expected]
                assert answer.caveats == list(expected.caveats)
                assert answer.candidates == expected.eligible
                first = service.recommend(request, reranked=False)
                assert [one.profile.id for one in first] == [
                    one.profile.id
                    for one in plain.recommend(
                        test_pairs.profiles["a1-007"], people["b"], k, where="age < 35"
                    )
                ]
        finally:
            service.close()


def test_the_command_line(fitted, train, test_pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"x{number}" for number in range(6)]
    rows = [["id_a", "id_b"], *([pair.a, pair.b] for pair in train.pairs)]
    people = [["id", *names]]
    people += [[one.id, *(one.attributes[key] for key in names)] for one in train.people]
    for file, table in (("pairs.csv", rows), ("people.csv", people)):
        (tmp_path / file).write_text("\n".join(",".join(map(str, row)) for row in table))

    def run(command):
        result = CliRunner().invoke(app, command.split(), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    run(
        "fit pairs.csv --profiles people.csv --backbone attributes --learner frozen --output out "
        "--reranker pairwise --set pairwise.top=20 --no-compare --no-learning-curve --quiet "
        "--store s.sqlite"
    )
    record = json.loads((tmp_path / "out" / "matcher.json").read_text())
    assert record["parts"]["reranker"]["options"]["top"] == 20
    assert record["reranking"]["queries"] > 100
    assert "reranker: pairwise" in (tmp_path / "out" / "run.yaml").read_text()

    fitted.save("couples")
    candidates = [test_pairs.profiles[person] for person in test_pairs.ids_b]
    fitted.gallery(candidates).save("gallery")
    person = test_pairs.profiles["a1-009"]
    known = " ".join(f"--attribute {key}={person.attributes[key]}" for key in names)
    command = f"recommend couples --gallery gallery {known} -k 4 --store s.sqlite --quiet"
    shown = json.loads(run(f"{command} --json"))
    expected = fitted.recommend(person, candidates, 4)
    assert [row["id"] for row in shown["recommendations"]] == [one.profile.id for one in expected]
    assert [row["rerank_score"] for row in shown["recommendations"]] == pytest.approx(
        [one.rerank_score for one in expected], abs=1e-5
    )
    assert shown["caveats"] == list(expected.caveats)
    lines = run(command).splitlines()
    assert lines[0].split() == ["rank", "score", "re-ranked", "candidate"]
    assert lines[1].split()[-1] == expected[0].profile.id

"""The evaluation table: chance, intervals, large K, and memory."""

import json
import subprocess
import sys

import numpy as np
import pytest

from pairmatch import Evaluator
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.known import Known

RNG = np.random.default_rng(0)


def noisy_pairs(n, noise=1.5, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, 16))
    return a, a + noise * rng.normal(size=(n, 16))


def test_chance_is_exact():
    evaluation = Evaluator(resamples=0).evaluate_arrays(*noisy_pairs(75))
    assert evaluation.chance.recall == pytest.approx({k: k / 75 for k in (5, 10, 20, 30, 50)})
    # 0.065, as in the paper
    assert evaluation.chance.mrr == pytest.approx(sum(1 / r for r in range(1, 76)) / 75)
    assert evaluation.chance.median_rank == 38
    assert evaluation.queries == 150


def test_constant_embeddings_score_at_chance_in_every_metric():
    evaluation = Evaluator().evaluate_arrays(np.ones((75, 512)), np.ones((75, 512)))
    assert evaluation.both.recall == pytest.approx(evaluation.chance.recall)
    assert evaluation.both.mrr == pytest.approx(evaluation.chance.mrr)
    assert evaluation.both.mrr_interval == pytest.approx(
        (evaluation.chance.mrr, evaluation.chance.mrr)
    )


def test_the_two_directions_are_averaged_over_their_queries():
    a, b = noisy_pairs(20)
    matches = [(i, i) for i in range(20)] + [(0, 1), (0, 2)]
    evaluation = Evaluator(ks=[3], resamples=0).evaluate_arrays(
        a, b[:15], matches=[m for m in matches if m[1] < 15]
    )
    forward, backward = evaluation.a_to_b, evaluation.b_to_a
    assert (forward.queries, backward.queries, evaluation.queries) == (15, 15, 30)
    assert evaluation.both.recall[3] == pytest.approx((forward.recall[3] + backward.recall[3]) / 2)
    assert evaluation.candidates == (15, 20)


def test_intervals_resample_people_rather_than_queries():
    # A hub with 30 partners, and 30 disjoint pairs: a bootstrap over queries would count the hub as
    # 30 observations
    a, b = noisy_pairs(60)
    hub = [(0, j) for j in range(30)]
    disjoint = [(i, i) for i in range(30, 60)]
    evaluation = Evaluator(ks=[5]).evaluate_arrays(a, b, matches=hub + disjoint)
    assert len(np.unique(evaluation.table["component"])) == 31
    assert evaluation.queries == (1 + 30) + (30 + 30)


def test_intervals_match_a_plain_bootstrap():
    a, b = noisy_pairs(40)
    evaluation = Evaluator(ks=[5], resamples=4000).evaluate_arrays(a, b)
    per_pair = evaluation.table["recall_at_5"].reshape(2, 40).mean(0)
    rng = np.random.default_rng(1)
    means = [rng.choice(per_pair, 40).mean() for _ in range(4000)]
    assert evaluation.both.recall_interval[5] == pytest.approx(
        tuple(np.quantile(means, [0.025, 0.975])), abs=0.02
    )
    ranks = evaluation.table["rank"].reshape(2, 40)
    medians = [np.median(ranks[:, rng.integers(0, 40, 40)]) for _ in range(4000)]
    low, high = np.quantile(medians, [0.025, 0.975])
    assert evaluation.both.median_rank_interval == pytest.approx((low, high), abs=1)
    assert evaluation == evaluation
    again = Evaluator(ks=[5], resamples=4000).evaluate_arrays(a, b)
    assert again.both == evaluation.both


def test_default_k_beyond_the_gallery_is_omitted_with_a_note():
    evaluation = Evaluator(resamples=0).evaluate_arrays(*noisy_pairs(12))
    assert list(evaluation.both.recall) == [5, 10]
    note = "Recall@20, @30, @50 left out: the smallest gallery has 12 candidates."
    assert note in str(evaluation)


def test_an_explicit_k_beyond_the_gallery_is_an_error():
    with pytest.raises(
        ConfigurationError, match=r"K = 50 is larger than the smallest gallery \(12 candidates\)"
    ):
        Evaluator(ks=[5, 50]).evaluate_arrays(*noisy_pairs(12))
    with pytest.raises(ConfigurationError, match="whole numbers of at least 1"):
        Evaluator(ks=[0])


def test_frozen_features_are_in_the_table():
    a, b = noisy_pairs(30)
    evaluation = Evaluator(resamples=100).evaluate_arrays(a, b, frozen_a=b, frozen_b=-b)
    assert evaluation.frozen.both.recall[5] == 0
    lines = str(evaluation).splitlines()
    assert [line.split()[0] for line in lines[1:7]] == [
        "chance",
        "frozen",
        lines[3].split()[0],
        "trained",
        lines[5].split()[0],
        "a",
    ]
    values = json.loads(json.dumps(evaluation.to_dict()))
    assert values["queries"] == 60
    assert set(values["both"]["intervals"]) == {"recall", "mrr", "median_rank"}
    assert set(values["frozen"]) == {"both", "a_to_b", "b_to_a"}


def test_one_sided_pairs():
    a, b = noisy_pairs(20, noise=0.01)
    evaluation = Evaluator(ks=[1]).evaluate_arrays(
        np.concatenate([a, b]), matches=[(i, i + 20) for i in range(20)]
    )
    assert evaluation.a_to_b is None
    assert evaluation.queries == 40
    assert evaluation.both.recall[1] == 1
    assert evaluation.candidates == (39,)


def test_curve_and_ranks_agree_with_the_table():
    evaluation = Evaluator(resamples=0).evaluate_arrays(*noisy_pairs(60))
    curve = evaluation.recall_curve()
    assert all(curve[k - 1] == pytest.approx(value) for k, value in evaluation.both.recall.items())
    assert np.median(evaluation.ranks) == evaluation.both.median_rank


MEMORY = """
import resource, sys
import numpy as np, torch
from pairmatch import Evaluator
torch.set_num_threads(1)
people = int(sys.argv[1])
rng = np.random.default_rng(0)
a = rng.normal(size=(people, 8)).astype(np.float32)
Evaluator(resamples=10).evaluate_arrays(a[:50], a[:50])  # loads lazy imports
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
b = a + rng.normal(size=a.shape).astype(np.float32)
evaluation = Evaluator(resamples=100).evaluate_arrays(a, b)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, evaluation.queries)
"""


@pytest.mark.parametrize(
    ("people", "megabytes"),
    # A matrix of all scores would take 576 and 10,000 MB
    [(12_000, 300), pytest.param(50_000, 900, marks=pytest.mark.slow)],
)
def test_memory_stays_below_a_matrix_of_all_scores(people, megabytes):
    process = subprocess.run(
        [sys.executable, "-c", MEMORY, str(people)], capture_output=True, text=True, check=True
    )
    growth, queries = process.stdout.split()
    assert int(queries) == 2 * people
    assert float(growth) < megabytes


def test_invalid_inputs_are_errors():
    a, b = noisy_pairs(6)
    invalid = a.copy()
    invalid[2, 3] = np.nan
    with pytest.raises(
        ConfigurationError, match="`embeddings_a` has values that are not finite, in 1 rows: 2"
    ):
        Evaluator().evaluate_arrays(invalid, b)
    with pytest.raises(ConfigurationError, match="need the same width, got 16 and 8"):
        Evaluator().evaluate_arrays(a, b[:, :8])
    with pytest.raises(ConfigurationError, match="`matches` is required"):
        Evaluator().evaluate_arrays(a, b[:3])
    with pytest.raises(
        ConfigurationError,
        match=r"rows that do not exist \(6 on side a, 6 on side b\): \[\[0, 6\]\]",
    ):
        Evaluator().evaluate_arrays(a, b, matches=[(0, 6)])
    with pytest.raises(ConfigurationError, match="pairs people with themselves"):
        Evaluator().evaluate_arrays(a, matches=[(1, 1)])
    with pytest.raises(ConfigurationError, match="at least one row"):
        Evaluator().evaluate_arrays(a[:0], b[:0])
    with pytest.raises(ConfigurationError, match="confidence in"):
        Evaluator(confidence=1)
    with pytest.raises(ConfigurationError, match="the same people"):
        Evaluator().evaluate_arrays(a, b, frozen_a=a[:3], frozen_b=b)


def test_intervals_of_a_direction_with_few_queries():
    """Many resamples draw nobody of a direction that one group of people asks."""
    rng = np.random.default_rng(0)
    data = PairedFeatures.of(*rng.normal(size=(2, 12, 4)))
    first = np.arange(12) == 0
    known = Known(np.empty((0, 2), np.int64), ~first, first)
    seen = Evaluator(ks=[1]).evaluate(data, known=known)  # no pair is between two new people
    assert seen.b_to_a.queries == 1
    for metrics in (seen.both, seen.a_to_b, seen.b_to_a):
        low, high = metrics.mrr_interval
        assert low - 1e-6 <= metrics.mrr <= high + 1e-6


def first_ranks(scores, pairs):
    """The rank of the best partner of each query, in plain loops."""
    ranks = []
    for query in sorted({query for query, _ in pairs}):
        partners = {partner for asking, partner in pairs if asking == query}
        gallery = sorted({partner for _, partner in pairs})
        best = max(scores[query][partner] for partner in partners)
        ranks.append(1 + sum(scores[query][other] > best for other in gallery))
    return ranks


def test_matches_of_a_new_and_a_seen_person_are_ranked_apart():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 30, 4))
    between = [(0, 20), (1, 21), (2, 20), (3, 22), (20, 0), (21, 1), (22, 0), (23, 2), (23, 4)]
    matches = [(i, i) for i in range(30)] + between
    new_a = new_b = np.arange(30) < 15
    known = Known(np.array([(20, 21), (22, 16)]), ~new_a, ~new_b)
    data = PairedFeatures.of(a, b, matches=matches)
    evaluation = Evaluator(ks=[2, 12]).evaluate(data, known=known)
    assert list(evaluation.mixed) == ["new_a", "new_b"]
    scores = (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
    for name, new in (("new_a", True), ("new_b", False)):
        pairs = [(i, j) for i, j in matches if new_a[i] == new and new_b[j] != new]
        part = evaluation.mixed[name]
        assert part.a_to_b.mrr == pytest.approx(np.mean(1 / np.array(first_ranks(scores, pairs))))
        swapped = [(j, i) for i, j in pairs]
        expected = np.mean(1 / np.array(first_ranks(scores.T, swapped)))
        assert part.b_to_a.mrr == pytest.approx(expected)
        assert list(part.both.recall) == [2]  # there are no 12 candidates
        seen = part.table["seen"] == 1
        assert (seen == (part.table["direction"] == int(new))).all()
    assert evaluation.to_dict()["mixed"]["new_b"] == evaluation.mixed["new_b"].to_dict()
    text = str(evaluation)
    assert text.index("New people of side a with seen") < text.index("Seen people of side a with")
    assert "mixed" not in Evaluator(ks=[2]).evaluate(data).to_dict()


def test_one_sided_sets_have_one_block_of_new_and_seen_people():
    people = np.random.default_rng(4).normal(size=(12, 4))
    data = PairedFeatures.of(people, matches=[(i, i + 6) for i in range(6)] + [(0, 1), (2, 3)])
    known = Known(np.empty((0, 2), np.int64), np.arange(12) >= 6, None)
    mixed = Evaluator(ks=[1]).evaluate(data, known=known).mixed
    assert list(mixed) == ["new"]
    assert mixed["new"].queries == 12


def test_partners_outside_a_one_sided_block_are_no_candidates_of_each_other_in_it():
    people = np.random.default_rng(5).normal(size=(16, 3))
    among_new, among_seen = [(0, 1), (2, 3), (0, 4)], [(9, 8), (10, 11)]
    between = [(i, i + 8) for i in range(8)]
    data = PairedFeatures.of(people, matches=[*between, *among_new, (12, 13)])
    known = Known(np.array(among_seen), np.arange(16) >= 8, None)
    part = Evaluator(ks=[1], resamples=0).evaluate(data, known=known).mixed["new"]
    unit = people / np.linalg.norm(people, axis=1)[:, None]
    left_out = {frozenset(pair) for pair in [*among_new, *among_seen, (12, 13)]}
    ranks = []
    for query in range(16):
        scores = unit @ unit[query]
        rivals = [j for j in range(16) if j != query and frozenset((j, query)) not in left_out]
        ranks.append(1 + sum(scores[j] > scores[(query + 8) % 16] for j in rivals))
    np.testing.assert_array_equal(part.ranks, ranks)
    assert part.table["candidates"].max() == 15

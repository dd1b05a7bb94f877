"""The verdict: which learner is best for the pairs, against the best alternative."""

import dataclasses
import json

import numpy as np
import pytest

from pairmatch import Evaluator
from pairmatch.core import registry
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation import crossvalidation
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.evaluation.verdict import choose, judge, judge_evaluation


def mapped(pairs, rng, noise=0.3):
    """Partners are alike after a rotation, which no cosine of raw features sees."""
    a = rng.normal(size=(pairs, 12))
    rotation = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    return a, a @ rotation + noise * rng.normal(size=a.shape)


def result_of(a, b, *learners):
    return cross_validate(PairedFeatures.of(a, b), list(learners), repeats=1, folds=4)


@pytest.fixture(scope="module")
def rotated():
    return result_of(*mapped(120, np.random.default_rng(0)), "frozen", "whitened", "ridge", "cca")


def test_a_baseline_that_wins_is_named_with_the_gap_of_the_learner(rotated):
    verdict = judge(rotated, "whitened")
    mrr = {name: rotated.metrics(name, resamples=0).mrr for name in rotated.learners}
    assert verdict.best == max(mrr, key=mrr.get) != "whitened"
    assert verdict.learner == "whitened"
    assert verdict.beats_chance
    assert verdict.is_sure
    gap = mrr[verdict.best] - mrr["whitened"]
    assert verdict.comparison.difference == pytest.approx(gap)
    assert verdict.comparison.corrected_for == 3  # the best was one of three others
    second = max(set(mrr) - {verdict.best, "whitened"}, key=mrr.get)
    assert verdict.baseline == second
    assert str(verdict).startswith(
        f"{verdict.best} ranks these pairs best: MRR {mrr[verdict.best]:.3f} ("
    )
    assert f"; whitened is {gap:.3f} behind (" in str(verdict)
    assert f"; {second}, the best simple baseline, is " in str(verdict)


def test_a_learner_that_wins_is_measured_against_the_best_simple_baseline(rotated):
    best = judge(rotated, "frozen").best
    verdict = judge(rotated, best, baselines=["frozen", "whitened"])
    mrr = {name: rotated.metrics(name, resamples=0).mrr for name in ("frozen", "whitened")}
    assert verdict.best == best
    assert verdict.learner is None
    assert verdict.baseline == max(mrr, key=mrr.get)
    expected = rotated.compare(best, verdict.baseline)
    assert verdict.against_baseline.difference == pytest.approx(expected.difference)


def test_a_small_lead_is_called_what_it_is():
    rng = np.random.default_rng(1)
    a = rng.normal(size=(60, 12))
    result = result_of(a, a + 0.8 * rng.normal(size=a.shape), "frozen", "centred")
    verdict = judge(result, "centred")
    assert not verdict.is_sure
    assert str(verdict).endswith("which may be chance.")


def test_nothing_to_learn_is_said():
    rng = np.random.default_rng(2)
    result = result_of(rng.normal(size=(60, 8)), rng.normal(size=(60, 8)), "frozen", "ridge")
    verdict = judge(result, "ridge")
    assert not verdict.beats_chance
    assert str(verdict).startswith("No learner is distinguishable from chance on these pairs")


def test_a_choice_is_judged_alone_and_may_be_worse_than_chance():
    rng = np.random.default_rng(2)
    a = rng.normal(size=(60, 8))
    noise = result_of(a, rng.normal(size=(60, 8)), "frozen", "ridge")
    sentence = str(judge(noise, chosen="frozen"))
    p_value = noise.compare("frozen", "chance").p_value
    assert sentence.startswith("The choice for these pairs, frozen, is not distinguishable from")
    assert sentence.endswith(f"p = {p_value:.3f}.")
    opposite = result_of(a, -a, "frozen", "ridge")  # partners are the least alike
    verdict = judge(opposite, chosen="frozen")
    assert not verdict.beats_chance
    assert verdict.against_chance.p_value < 0.001
    sentence = str(verdict)
    assert sentence.startswith("The choice for these pairs, frozen, is worse than chance: MRR 0.0")
    assert sentence.endswith("p < 0.001.")


def test_the_best_of_many_is_tested_as_one_of_many():
    rng = np.random.default_rng(2)
    learners = ("frozen", "centred", "whitened", "ridge")
    result = result_of(rng.normal(size=(60, 8)), rng.normal(size=(60, 8)), *learners)
    verdict = judge(result)
    alone = result.compare(verdict.best, "chance")
    assert verdict.against_chance.corrected_for == len(learners)
    assert verdict.against_chance.p_value > alone.p_value


def test_a_single_learner_has_nothing_to_be_compared_with(rotated):
    a, b = mapped(60, np.random.default_rng(3))
    verdict = judge(result_of(a, b, "ridge"), "ridge")
    assert verdict.comparison is None
    assert verdict.against_baseline is None
    assert not verdict.is_sure
    assert str(verdict).count(";") == 0
    with pytest.raises(
        ConfigurationError, match="Unknown learner of this cross-validation 'rigde'"
    ):
        judge(rotated, "rigde")


def test_one_group_of_people_cannot_be_tested(rotated):
    def in_one_group(table):
        one = np.zeros(len(table), np.int64)
        return dataclasses.replace(table, columns={**table.columns, "component": one}, links=None)

    tables = {name: in_one_group(rotated.table(name)) for name in rotated.learners}
    result = dataclasses.replace(rotated, tables=tables, chance=in_one_group(rotated.chance))
    verdict = judge(result)
    assert verdict.against_chance is None
    assert str(verdict).endswith("too few people are independent for a test.")
    assert json.dumps(verdict.to_dict())


def test_an_evaluation_is_judged_against_its_frozen_features():
    rng = np.random.default_rng(5)
    a, b = mapped(80, rng)
    head = registry.create("learners", "ridge").fit(PairedFeatures.of(a[:50], b[:50])).head
    evaluation = Evaluator().evaluate(PairedFeatures.of(a[50:], b[50:]), head)
    verdict = judge_evaluation(evaluation)
    expected = evaluation.compare(evaluation.frozen)
    assert verdict.comparison.difference == pytest.approx(expected.difference)
    assert str(verdict).startswith("This matcher ranks these pairs best: MRR")
    assert "; the frozen cosine is" in str(verdict)


def test_json(rotated):
    figures = json.loads(json.dumps(judge(rotated, "frozen").to_dict()))
    assert figures["comparison"]["baseline"] == figures["learner"] == "frozen"
    assert figures["against_baseline"]["baseline"] == figures["baseline"]
    assert figures["is_chosen"] is False
    assert figures["sentence"].startswith(figures["best"])


def test_a_learner_chosen_on_other_pairs_is_named_even_if_another_is_ahead(rotated):
    mrr = rotated.mean_mrr()
    assert mrr["whitened"] < mrr["ridge"]
    verdict = judge(rotated, "frozen", chosen="whitened")
    assert verdict.best == "whitened"
    assert verdict.is_chosen
    assert verdict.against_chance.corrected_for == 1  # it is the only one that was in question
    assert verdict.comparison.corrected_for == 1
    top = max(mrr, key=mrr.get)
    assert verdict.baseline == top
    assert verdict.against_baseline.corrected_for == 3
    if verdict.beats_chance:
        assert str(verdict).startswith("whitened is the choice for these pairs: MRR ")
        assert f"{top}, the best simple baseline, is {mrr[top] - mrr['whitened']:.3f} ahead (" in (
            str(verdict)
        )


def with_ranks(result, **ranks):
    """The same queries with other reciprocal ranks, by learner."""
    table = result.table("frozen")
    tables = {
        name: dataclasses.replace(table, columns={**table.columns, "reciprocal_rank": values})
        for name, values in ranks.items()
    }
    return dataclasses.replace(result, tables=tables)


def test_a_preferred_learner_is_chosen_unless_another_is_clearly_ahead(rotated):
    rng = np.random.default_rng(0)
    size = len(rotated.table("frozen"))
    base = rng.uniform(0.2, 0.6, size)
    noise = rng.normal(0, 0.2, size)
    little = with_ranks(rotated, best=base, ridge=base + noise - noise.mean() + 0.001)
    much = with_ranks(rotated, best=base, ridge=base + noise - noise.mean() + 0.1)
    assert choose(little) == choose(much) == choose(much, "best") == "ridge"
    assert choose(little, "best") == "best"
    assert choose(little, "absent") == "ridge"
    few = np.arange(size) < 30  # 15 pairs
    tables = {name: much.table(name).select(few) for name in much.learners}
    small = dataclasses.replace(much, tables=tables, chance=much.chance.select(few))
    assert choose(small) == "ridge"
    assert choose(small, "best") == "best"


def test_figures_and_tests_are_computed_once(rotated, monkeypatch):
    calls = []
    real = crossvalidation.compare

    def counted(*tables, **options):
        calls.append((options["name"], options["baseline"]))
        return real(*tables, **options)

    monkeypatch.setattr(crossvalidation, "compare", counted)
    result = dataclasses.replace(rotated)  # nothing is computed yet
    judge(result)
    for reference in result.references():
        result.comparisons(reference)
    str(judge(result, "frozen"))
    assert len(calls) == len(set(calls)) > 4

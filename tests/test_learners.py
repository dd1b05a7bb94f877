"""Learners compared on a matcher's pairs, and the evidence that a stacked head ranks by."""

import json
import re
import shlex

import numpy as np
import pytest
from test_cli import run

from pairmatch import Matcher, Pairs
from pairmatch.core.feature_blocks import feature_blocks
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.experiments.demo import draw_people
from pairmatch.learning.best import Best, fit_bases
from pairmatch.learning.evidence import KINDS, evidence_of, kind_of
from pairmatch.learning.stacking import StackedHead
from pairmatch.report import compare_learners, diagnose, learners, matcher_report, serve_best
from pairmatch.report.evidence import evidence_sections


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    return Pairs.read(draw_people(folder, pairs=80, size_px=64)).split(seed=0)


def matcher(tmp_path, learner="contrastive"):
    return Matcher(
        backbone="descriptor", metadata=None, learner=learner, store=tmp_path / "store.sqlite"
    )


def test_every_row_is_what_a_matcher_with_that_learner_has(tmp_path, parts):
    """All learn from the same pairs: no row has seen more people than the matcher."""
    fitted = matcher(tmp_path).fit(*parts[:2])
    comparison = compare_learners(fitted, *parts, others=("ridge", "cca", "contrastive"))
    assert comparison.result.learners == ("trained", "ridge", "cca")  # the recipe is its own
    for name, learner in (("trained", "contrastive"), ("ridge", "ridge"), ("cca", "cca")):
        expected = matcher(tmp_path, learner).fit(*parts[:2]).evaluate(parts[2])
        assert comparison.result.metrics(name).to_dict() == expected.both.to_dict()


def test_options_and_other_learners_keep_their_row(tmp_path, parts):
    fitted = matcher(tmp_path, ("ridge", {"strength": 3.0})).fit(*parts[:2])
    comparison = compare_learners(fitted, *parts, others=("ridge", "frozen"))
    assert comparison.result.learners == ("trained", "ridge", "frozen")
    assert "trained (ridge)" in str(comparison)


@pytest.fixture
def served(tmp_path, parts, monkeypatch):
    """A matcher that serves `ridge`, because validation pairs are said to choose it."""
    monkeypatch.setattr(learners, "SLOW_LEARNERS", ("contrastive",))
    monkeypatch.setattr(learners, "choose", lambda result, preferred: "ridge")
    fitted = matcher(tmp_path, ("best", {"recipe": False}))
    return fitted, serve_best(fitted, *parts)


def test_the_learner_that_validation_pairs_choose_is_served(served, tmp_path, parts):
    fitted, comparison = served
    evaluation = fitted.evaluate(parts[2])
    assert comparison.learner == "ridge"
    assert comparison.result.metrics("trained").mrr == evaluation.both.mrr
    assert "ridge" not in comparison.result.learners
    verdict = comparison.verdict()
    assert verdict.best == "trained"
    assert verdict.learner == "contrastive"
    assert "his matcher (ridge)" in str(verdict)
    diagnosis = diagnose(fitted, *parts, comparison=comparison, with_learning_curve=False)
    assert diagnosis.verdict == verdict
    row = next(row for row in diagnosis.sections[0].table.rows if row.is_best)
    assert row.name == "trained"
    report = matcher_report(fitted, *parts, evaluation, title="t")
    assert report.facts["Learner"].startswith("ridge")


def test_without_validation_pairs_nothing_is_chosen(tmp_path, parts):
    fitted = matcher(tmp_path, "ridge").fit(parts[0])
    nobody = parts[1].subset([])
    comparison = compare_learners(fitted, parts[0], nobody, parts[2], others=("frozen",))
    assert comparison.chosen is None
    assert not comparison.verdict().is_chosen


# --- evidence


def test_every_base_learner_has_a_kind_of_evidence():
    rng = np.random.default_rng(0)
    data = PairedFeatures.of(*rng.standard_normal((2, 40, 6)))
    for label in fit_bases(data, grouped=True, recipe=True):
        assert kind_of(label) in KINDS
    assert kind_of("cca 64, whitened more") == "what partners of similar people are like"
    assert kind_of("clip/native: ridge 1") == "what partners of similar people are like"
    assert kind_of("metric/mean: whitened") == "people who are alike in everything"
    assert kind_of("products of 8, cca") == "how strong traits are, and in which combinations"
    assert kind_of("something else") == "something else"


def test_shares_of_kinds_are_those_of_their_learners(tmp_path):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((80, 8))
    rotation = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    data = PairedFeatures.of(a, a @ rotation + 0.5 * rng.standard_normal(a.shape))
    head = Best(recipe=False).fit(data).head
    assert isinstance(head, StackedHead)
    evidence = evidence_of(head)
    assert evidence[0].kind == "what partners of similar people are like"  # the taste is a map
    assert [item.share for item in evidence] == sorted(
        (item.share for item in evidence), reverse=True
    )
    assert sum(item.share for item in evidence) == pytest.approx(1, abs=1e-5)
    joined = {label: share for item in evidence for label, share in item.learners.items()}
    assert joined == head.shares
    (section,) = evidence_sections(head)
    assert [bar.share for bar in section.bars] == [item.share for item in evidence]
    assert json.loads(json.dumps(section.data))[0]["kind"] == evidence[0].kind
    assert evidence_sections(fit_bases(data)["ridge 1"]) == []


def test_several_kinds_of_features_have_bars_of_their_own():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((80, 8))
    b = np.concatenate(
        [a[:, :4] + 0.3 * rng.standard_normal((80, 4)), rng.standard_normal((80, 4))], axis=1
    )
    blocks = feature_blocks(["photos", "texts"], [4, 4])
    head = Best(recipe=False).fit(PairedFeatures.of(a, b, blocks=blocks)).head
    evidence, sources = evidence_sections(head)
    assert set(KINDS) >= {row["kind"] for row in evidence.data}
    assert [bar.name for bar in sources.bars] == ["photos", "texts"]  # the largest first
    assert sources.bars[0].share > 0.7
    assert sum(row["share"] for row in sources.data) == pytest.approx(1, abs=1e-5)


# --- the demo


@pytest.mark.slow
def test_the_demo_serves_what_the_verdict_names_and_its_commands_do_what_they_say(tmp_path):
    folder = tmp_path / "my demo"
    output = run(f"demo --output {shlex.quote(str(folder))} --pairs 60 --quiet")
    report = json.loads((folder / "report.json").read_text())
    saved = json.loads((folder / "matcher.json").read_text())
    learner = saved["parts"]["learner"]["name"]
    assert f"matcher ({learner})" in report["verdict"]
    rows = {row["learner"]: row for row in report["sections"][0]["data"]}
    assert rows["trained"]["mrr"] == pytest.approx(saved["metrics"]["both"]["mrr"])
    assert ({"best", "contrastive"} - {learner}) < set(rows)
    assert report["facts"]["Learner"].startswith(learner)
    person, partner = re.search(r"Candidates for (\w+), whose partner is (\w+):", output).groups()
    commands = [line.strip() for line in output.splitlines() if line.startswith("  pairmatch ")]
    assert partner == "b" + person[1:]
    shown = run(commands[0].removeprefix("pairmatch "))
    assert f" {partner} " in f" {shown.replace(chr(10), ' ')} "
    winner = commands[1].removeprefix("pairmatch ")
    run(f"{winner} --store {tmp_path / 's.sqlite'} --no-learning-curve --no-compare")
    again = json.loads((tmp_path / f"my demo-{learner}" / "matcher.json").read_text())
    assert again["metrics"]["both"] == saved["metrics"]["both"]
    page = (folder / "report.html").read_text()
    card = (folder / "README.md").read_text()
    for kind, share in saved["evidence"].items():
        assert f"<span>{kind[0].upper()}{kind[1:]}</span> <b>{100 * share:.0f} %</b>" in page
        assert f"{100 * share:.0f} % {kind}" in card

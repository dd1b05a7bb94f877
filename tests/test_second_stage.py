"""Matchers with a second stage: ranking while people leave, errors of plug-ins, damaged files."""

import dataclasses
import hashlib
import json
import logging
import time
from dataclasses import fields

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save
from test_hub import Hub
from typer.testing import CliRunner

from pairmatch import Evaluator, Gallery, Matcher, Pair, PairedFeatures, Pairs, Profile
from pairmatch.cli import app
from pairmatch.core import registry
from pairmatch.core.errors import ConfigurationError, PartError, SavedMatcherError
from pairmatch.core.interfaces import FittedHead, Reranker
from pairmatch.core.second_stage import SecondStage, Traits
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.evaluation.measuring import chance_table
from pairmatch.evaluation.query_table import embed_sides
from pairmatch.evaluation.splits import cross_validation_splits
from pairmatch.experiments.rows import FinishedRows, describe_learner
from pairmatch.experiments.sweep import grid, plan, sweep
from pairmatch.gallery.memory import MemoryGallery
from pairmatch.learning.baselines import Frozen
from pairmatch.learning.pairwise import PairwiseReranker
from pairmatch.learning.reranking import Reranked
from pairmatch.learning.traits import components, fit_traits
from pairmatch.matcher.finetuning import tuning_tables
from pairmatch.report.learners import compare_learners
from pairmatch.serving.explorer.computing import ComputingError
from pairmatch.serving.explorer.slates import Question, Slates
from pairmatch.serving.service import Service
from pairmatch.serving.settings import ServiceSettings
from pairmatch.testing import check_reranker

NAMES = [f"x{number}" for number in range(4)]
PEOPLE = 40


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(0)
    people = [
        Profile(f"{side}{row:02}", attributes=dict(zip(NAMES, values.tolist(), strict=True)))
        for side in "ab"
        for row, values in enumerate(rng.normal(size=(PEOPLE, 4)))
    ]
    return Pairs.of(people, [Pair(f"a{row:02}", f"b{row:02}") for row in range(PEOPLE)])


def with_second(matcher, pairs, reranker, state=None):
    """A matcher whose second stage did not have to pass the gate."""
    matcher.reranker = reranker
    matcher.fit(pairs)
    data = matcher.paired_features(pairs)
    traits = fit_traits(embed_sides(data, matcher.head), components(data))
    matcher.second = SecondStage(reranker if state is None else reranker.with_state(state), traits)
    return matcher


def new_matcher(folder, **options):
    options = {"backbone": "attributes", "metadata": "none", "learner": "frozen", **options}
    return Matcher(**options, store=folder / "s.sqlite")


@pytest.fixture(scope="module")
def matcher(pairs, tmp_path_factory):
    """Its re-ranker has random weights, with traits of both people."""
    folder = tmp_path_factory.mktemp("matcher")
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=3 + 2 * 4))
    reranker = PairwiseReranker(top=10, traits=4)
    return with_second(new_matcher(folder), pairs, reranker, {"weights": weights})


@pytest.fixture(scope="module")
def candidates(pairs):
    return [pairs.profiles[person] for person in pairs.ids_b]


def ids(ranking):
    return [one.profile.id for one in ranking]


# --- ranking


def formula(matcher, profile, candidate):
    """The score of a pair by the formula of `pairwise`, one pair at a time."""
    second = matcher.second
    query, other = matcher.embed([profile])[0], matcher.embed([candidate], side="b")[0]
    own = second.traits.of(query[None], 0)[0][:4]
    its = second.traits.of(other[None], 1)[0][:4]
    hubness = second.traits.hubness(other[None], 0)[0]
    inputs = [query @ other, *hubness, *(own * its), *np.abs(own - its)]
    return float(np.dot(inputs, second.reranker.state()["weights"].numpy()))


def test_scores_are_those_of_the_formula_in_any_order_of_the_candidates(matcher, pairs, candidates):
    """Shuffled candidates have the same order, and people with equal profiles equal scores."""
    profile = pairs.profiles["a03"]
    twins = [dataclasses.replace(candidates[7], id=f"twin{number}") for number in range(3)]
    everyone = [*candidates, *twins]
    ranking = matcher.recommend(profile, everyone, 50)
    by_id = {one.id: one for one in everyone}
    for one in ranking[:10]:
        assert one.rerank_score == pytest.approx(formula(matcher, profile, by_id[one.profile.id]))
    names = {one.id: "b07" for one in twins}
    expected = [names.get(one, one) for one in ids(ranking)]
    rng = np.random.default_rng(0)
    for _ in range(3):
        shuffled = [everyone[row] for row in rng.permutation(len(everyone))]
        again = matcher.recommend(profile, shuffled, 50)
        assert [names.get(one, one) for one in ids(again)] == expected
        scores = {one.profile.id: one.rerank_score for one in again if one.rerank_score is not None}
        equal = [scores[one] for one in ("b07", *names) if one in scores]
        assert np.ptp(equal or [0]) < 1e-6


@pytest.mark.parametrize("side", ["a", "b"])
def test_figures_are_those_of_recommendations_in_both_directions(matcher, pairs, side):
    evaluation = matcher.evaluate(pairs, resamples=0)
    own, others = (pairs.ids_a, pairs.ids_b)[:: 1 if side == "a" else -1]
    gallery = matcher.gallery(
        [pairs.profiles[one] for one in others], side="b" if side == "a" else "a"
    )
    ranks = [
        ids(matcher.recommend(pairs.profiles[one], gallery, PEOPLE)).index(other) + 1
        for one, other in zip(own, others, strict=True)
    ]
    figures = evaluation.a_to_b if side == "a" else evaluation.b_to_a
    assert figures.mrr == pytest.approx(np.mean(1 / np.array(ranks)), abs=1e-6)


def test_figures_do_not_depend_on_the_order_of_people_or_on_the_names_of_sides():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(2, 50, 5)).astype(np.float32)
    matches = np.stack([np.arange(50), rng.permutation(50)], axis=1)
    data = PairedFeatures.of(a, b, matches=matches)
    head = Frozen().fit(data).head
    traits = fit_traits(embed_sides(data, head), components(data))
    weights = torch.from_numpy(rng.normal(size=3 + 2 * 5))
    reranker = PairwiseReranker(top=12).with_state({"weights": weights})

    def figures(data, traits):
        return Evaluator(resamples=0).evaluate(data, head, second=SecondStage(reranker, traits))

    first = figures(data, traits)
    orders = rng.permutation(50), rng.permutation(50)
    places = [np.argsort(order) for order in orders]
    moved = np.stack([places[side][matches[:, side]] for side in (0, 1)], axis=1)
    shuffled = PairedFeatures.of(a[orders[0]], b[orders[1]], matches=rng.permutation(moved))
    again = figures(shuffled, traits)
    swapped = figures(
        PairedFeatures.of(b, a, matches=matches[:, ::-1]),
        Traits(
            **{field.name: getattr(traits, field.name)[::-1].copy() for field in fields(Traits)}
        ),
    )
    for other, turn in ((again, 1), (swapped, -1)):
        directions = (other.a_to_b, other.b_to_a)[::turn]
        assert [one.mrr for one in directions] == pytest.approx(
            [first.a_to_b.mrr, first.b_to_a.mrr]
        )
    plain = Evaluator(resamples=0).evaluate(data, head)
    assert plain.both.mrr != pytest.approx(first.both.mrr)


def test_rules_and_exclusions_leave_the_best_of_the_others(matcher, pairs, candidates):
    """Whatever is taken away, the best ten of the rest are ordered again, and none is lost."""
    gallery = matcher.gallery(candidates)
    profile = pairs.profiles["a11"]
    everyone = ids(matcher.recommend(profile, gallery, 100))
    assert len(everyone) == PEOPLE
    for gone in (10, 25, 39, 40):
        ranking = matcher.recommend(profile, gallery, 100, exclude=everyone[:gone])
        assert set(ids(ranking)) == set(everyone[gone:])
        assert sum(one.rerank_score is not None for one in ranking) == min(10, 40 - gone)
        few = matcher.recommend(profile, candidates, 3, exclude=everyone[:gone])
        assert ids(few) == ids(ranking)[:3]
    assert matcher.recommend(profile, gallery, exclude=everyone).excluded_by == "exclusions"


def test_people_who_leave_during_a_search_make_room_for_others(matcher, pairs, candidates):
    """All of the best are removed between the search and the re-ranker: others are served."""
    profile = pairs.profiles["a05"]
    plain = matcher.gallery(candidates)
    best = ids(matcher.recommend(profile, plain, 10))

    class Leaving(MemoryGallery):
        left = ()

        def _entries(self, wanted):
            if not self.left:
                self.left = best
                self.remove(best)
            return super()._entries(wanted)

    gallery = Leaving(made_by=plain.made_by)
    gallery.add(candidates, plain.embeddings)
    ranking = matcher.recommend(profile, gallery, 5)
    expected = matcher.recommend(profile, plain, 5, exclude=best)
    assert ids(ranking) == ids(expected)
    assert [one.rank for one in ranking] == [1, 2, 3, 4, 5]


# --- re-rankers of others


class Broken(Reranker):
    top = 5

    def __init__(self, *, result=None):
        self.result = result

    def score(self, pairs):
        if self.result is None:
            return [][7]
        return self.result(len(pairs))


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        (None, PartError, "The re-ranker Broken failed in `score`: IndexError: list index out of"),
        (lambda n: None, ConfigurationError, r"The re-ranker Broken .* \[\d+\], got shape \[\]"),
        (lambda n: "words", PartError, "Broken failed in `score`: ValueError: could not convert"),
        (lambda n: np.zeros((n, 1)), ConfigurationError, r"Broken .* got shape \[\d+, 1\]"),
        (lambda n: np.zeros(n - 1), ConfigurationError, r"Broken .* \[\d+\], got shape \[\d+\]"),
        (lambda n: np.r_[np.nan, np.zeros(n - 1)], ConfigurationError, "Broken .* got 1 values"),
        (lambda n: torch.zeros(n, requires_grad=True), PartError, "Broken failed in `score`"),
    ],
)
def test_errors_name_the_reranker_that_fails(pairs, candidates, tmp_path, result, error, words):
    matcher = with_second(new_matcher(tmp_path), pairs, PairwiseReranker())
    matcher.second = SecondStage(Broken(result=result), matcher.second.traits)
    with pytest.raises(error, match=words):
        matcher.recommend(pairs.profiles["a00"], candidates, 3)
    with pytest.raises(error, match=words):
        matcher.evaluate(pairs, resamples=0)


def test_errors_name_the_distribution_of_a_plugin():
    known = registry.label("rerankers", PairwiseReranker())
    assert known == "'pairwise' (pairmatch.learning.pairwise:PairwiseReranker, from pairmatch)"
    assert registry.label("rerankers", Broken()) == "Broken"


def test_errors_of_a_constructor_name_the_reranker(monkeypatch):
    def without_weights(self, **options):
        raise OSError("no such\nfile: weights.bin")

    monkeypatch.setattr(PairwiseReranker, "__init__", without_weights)
    words = r"The reranker 'pairwise' \(from pairmatch\) cannot be built: OSError: no such file: w"
    with pytest.raises(PartError, match=words):
        Matcher(backbone="attributes", metadata="none", reranker="pairwise")


def near(count):
    """Partners are near in one trait."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, count, 4))
    b[:, 0] = a[:, 0] + 0.1 * rng.normal(size=count)
    return PairedFeatures.of(a, b)


def test_errors_of_fit_name_the_reranker():
    class Raising(Broken):
        def fit(self, train, *, seed=0):
            raise KeyError("rows")

    class Nothing(Broken):
        def fit(self, train, *, seed=0):
            return None

    class Said(Broken):
        def fit(self, train, *, seed=0):
            raise ConfigurationError("As it was said.")

    for reranker, words in (
        (Raising(), r"The re-ranker .*Raising failed in `fit`: KeyError: 'rows'"),
        (Nothing(), r"The re-ranker .*Nothing must return a re-ranker from `fit`, got None"),
    ):
        with pytest.raises(PartError, match=words):
            Reranked(learner="frozen", reranker=reranker).fit(near(40))
    with pytest.raises(ConfigurationError, match=r"^As it was said\.$"):
        Reranked(learner="frozen", reranker=Said()).fit(near(40))


@pytest.mark.parametrize("top", [0, -3, 2.5, "ten", None, True])
def test_the_number_of_candidates_of_a_reranker_is_checked(top):
    reranker = Broken()
    reranker.top = top
    for build in (
        lambda: Matcher(backbone="attributes", metadata="none", reranker=reranker),
        lambda: Reranked(learner="frozen", reranker=reranker),
    ):
        with pytest.raises(ConfigurationError, match=r"`Broken\.top` must be"):
            build()


def alike(first, second):
    return (first.attributes["x0"] > 0) == (second.attributes["x0"] > 0)


def test_rerankers_may_not_change_the_lists():
    """Those of a fold are learned from four times, and once more for the final re-ranker."""

    class Rounding(Reranker):
        def score(self, pairs):
            pairs.scores[:] = np.round(pairs.scores, 1)
            return pairs.scores

    class Labeling(Reranker):
        def fit(self, train, *, seed=0):
            train[0].is_partner[:] = False
            return self

        def score(self, pairs):
            return pairs.scores

    with pytest.raises(AssertionError, match="Rounding changes the scores that it is given"):
        check_reranker(Rounding())
    with pytest.raises(AssertionError, match="Labeling changes the is_partner that it is given"):
        check_reranker(Labeling())


class Alike(Reranker):
    """Reads attributes only."""

    needs_profiles = True
    top = 10

    def score(self, pairs):
        return [float(alike(*pair)) for pair in pairs.profiles]


def test_a_reranker_may_read_attributes_alone(pairs, candidates, tmp_path):
    """People without photo and text are whole if they were given as profiles."""
    matcher = with_second(new_matcher(tmp_path), pairs, Alike())
    profile = pairs.profiles["a00"]
    gallery = matcher.gallery(candidates)
    for where in (candidates, gallery):
        best = matcher.recommend(profile, where, 10)
        same = [alike(one.profile, profile) for one in best]
        assert same == sorted(same, reverse=True)
        assert 0 < sum(same) < 10
    stored = Gallery.open(gallery.save(tmp_path / "gallery"))
    for one in (stored, Gallery.of(gallery.ids, gallery.embeddings)):
        with pytest.raises(ConfigurationError, match="10 candidates have neither photo nor text"):
            matcher.recommend(profile, one, 10)


# --- saved


def test_formats_keep_older_versions_from_dropping_the_second_stage(matcher, pairs, tmp_path):
    """Versions that read formats 1 and 2 would load a matcher without its second stage."""
    folder = matcher.save(tmp_path / "both")
    record = json.loads((folder / "matcher.json").read_text())
    assert record["format"] == 3
    first = new_matcher(tmp_path).fit(pairs)
    first.save(tmp_path / "first")
    other = json.loads((tmp_path / "first" / "matcher.json").read_text())
    assert other["format"] == 2
    assert Matcher.load(tmp_path / "first", store=first.store).second is None
    # Either without the other is not what `save` writes
    (folder / "matcher.json").write_text(json.dumps({**record, "format": 2}))
    with pytest.raises(SavedMatcherError, match="format 3 is for matchers with the state of a re"):
        Matcher.load(folder)
    record.pop("reranker_sha256")
    (folder / "matcher.json").write_text(json.dumps(record))
    with pytest.raises(SavedMatcherError, match="format 3 is for matchers with the state of a re"):
        Matcher.load(folder)
    # A matcher is saved with what it serves, whatever the next `fit` has
    matcher.reranker, reranker = None, matcher.reranker
    try:
        assert Matcher.load(matcher.save(tmp_path / "kept")).second is not None
    finally:
        matcher.reranker = reranker
    # Saved again without it, a folder is of format 2 again
    first.save(folder)
    assert json.loads((folder / "matcher.json").read_text())["format"] == 2


def replaced(name, value):
    return lambda state: {**state, name: value}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replaced("reranker.weights", torch.zeros(7)), "failed in `score`"),
        (replaced("reranker.weights", torch.zeros(11, 1)), r"has `weights` \[F\]"),
        (replaced("reranker.more", torch.zeros(1)), r"has `weights` \[F\]"),
        (replaced("other", torch.zeros(1)), "has no 'other'"),
        (replaced("traits.means", torch.zeros(2, 3)), r"means has shape \[2, 3\]|axes has shape"),
        (replaced("traits.means", torch.zeros(0)), r"means has shape \[0\]"),
        (replaced("traits.residuals", -torch.ones(2)), "residuals, which are variances, are neg"),
        (replaced("traits.residuals", torch.ones(2).int()), "residuals has the type torch.int32"),
        (replaced("traits.offsets", torch.full((2, 4), torch.inf)), "are not finite"),
        (
            lambda state: {k: v[:, 1:].clone() if v.ndim == 3 else v for k, v in state.items()},
            "shape",
        ),
        (lambda state: {k: v for k, v in state.items() if k != "traits.axes"}, "axes is missing"),
        (lambda state: {}, "weights is missing; offsets is missing"),
    ],
)
def test_damaged_states_are_found_when_a_matcher_is_loaded(matcher, tmp_path, change, words):
    """The digests fit, so that it is not damage by chance."""
    folder = matcher.save(tmp_path / "couples")
    content = save(change(load_file(folder / "reranker.safetensors")))
    (folder / "reranker.safetensors").write_bytes(content)
    record = json.loads((folder / "matcher.json").read_text())
    record["reranker_sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "matcher.json").write_text(json.dumps(record))
    with pytest.raises((SavedMatcherError, PartError), match=words):
        Matcher.load(folder)


def test_a_state_of_another_head_is_refused(matcher, pairs, tmp_path):
    folder = matcher.save(tmp_path / "couples")
    narrower = ("traits.weights", "traits.means", "traits.axes")
    narrow = {
        key: value[:, 1:].clone() if key in narrower else value
        for key, value in load_file(folder / "reranker.safetensors").items()
    }
    content = save(narrow)
    (folder / "reranker.safetensors").write_bytes(content)
    record = json.loads((folder / "matcher.json").read_text())
    record["reranker_sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "matcher.json").write_text(json.dumps(record))
    with pytest.raises(
        SavedMatcherError,
        match=r"reranker\.safetensors does not fit its matcher: This second stage",
    ):
        Matcher.load(folder)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 4096])
def test_files_that_are_no_tensors_are_refused(matcher, tmp_path, content):
    folder = matcher.save(tmp_path / "couples")
    (folder / "reranker.safetensors").write_bytes(content)
    record = json.loads((folder / "matcher.json").read_text())
    record["reranker_sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "matcher.json").write_text(json.dumps(record))
    with pytest.raises(SavedMatcherError, match=r"reranker\.safetensors is damaged"):
        Matcher.load(folder)


def test_a_missing_plugin_is_named_only_if_it_is_used(matcher, pairs, tmp_path, caplog):
    foreign = {"name": "theirs", "options": {}, "distribution": "their-parts", "version": "1.2"}
    folder = matcher.save(tmp_path / "both")
    record = json.loads((folder / "matcher.json").read_text())
    record["parts"]["reranker"] = foreign
    (folder / "matcher.json").write_text(json.dumps(record))
    with pytest.raises(PartError, match=r"'theirs'.* came from their-parts 1\.2: install it"):
        Matcher.load(folder)
    refused = new_matcher(tmp_path).fit(pairs)
    folder = refused.save(tmp_path / "refused")
    record = json.loads((folder / "matcher.json").read_text())
    record["parts"]["reranker"] = foreign
    (folder / "matcher.json").write_text(json.dumps(record))
    with caplog.at_level(logging.WARNING):
        loaded = Matcher.load(folder, store=refused.store)
    assert loaded.reranker is None
    assert "'theirs', which this matcher does not use, is not installed" in caplog.text
    assert "came from their-parts 1.2" in caplog.text


def test_a_refused_reranker_without_a_name_does_not_keep_a_matcher_from_being_saved(
    pairs, tmp_path, caplog
):
    matcher = new_matcher(tmp_path, reranker=Alike()).fit(pairs)
    assert matcher.second is None
    with caplog.at_level(logging.WARNING):
        folder = matcher.save(tmp_path / "couples")
    assert "The re-ranker, which is not used, is not saved: `" in caplog.text
    loaded = Matcher.load(folder, store=matcher.store)
    assert loaded.reranker is None
    assert loaded.reranking == matcher.reranking
    used = with_second(new_matcher(tmp_path), pairs, Alike())
    with pytest.raises(PartError, match="has no registered name"):
        used.save(tmp_path / "used")


def test_a_second_stage_is_shared_on_a_hub(matcher, pairs, candidates, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with Hub() as hub:
        matcher.push_to_hub("me/couples", token="hf_secret", endpoint=hub.url)
        assert "reranker.safetensors" in hub.files
        loaded = Matcher.from_pretrained(
            "me/couples", endpoint=hub.url, token="hf_secret", store=matcher.store
        )
    profile = pairs.profiles["a00"]
    first, second = (one.recommend(profile, candidates, 12) for one in (matcher, loaded))
    assert list(first) == list(second)
    assert first[0].rerank_score is not None


def test_a_state_that_is_no_tensors_is_not_saved(matcher, pairs, tmp_path):
    class Loose(PairwiseReranker):
        def state(self):
            return {"weights": [1.0]}

    second = SecondStage(Loose(), matcher.second.traits)
    with pytest.raises(PartError, match="must return tensors from `state`"):
        second.state()


def test_a_bar_shows_the_fits_of_the_gate(pairs, tmp_path, capsys, monkeypatch):
    """The learner is fitted five times more, which can take minutes."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    monkeypatch.setenv("TERM", "xterm")
    new_matcher(tmp_path, reranker="pairwise").fit(pairs)
    assert "Judging" not in capsys.readouterr().err
    new_matcher(tmp_path, reranker="pairwise", progress=True).fit(pairs)
    captured = capsys.readouterr()
    assert "Judging pairwise" in captured.err
    assert "5/5" in captured.err
    assert captured.out == ""


def test_a_refused_gate_leaves_results_bit_for_bit(pairs, tmp_path):
    """Ranking and figures are those of a matcher that never had a re-ranker."""
    plain, refused = (
        new_matcher(tmp_path / name, **options).fit(pairs)
        for name, options in (("plain", {}), ("refused", {"reranker": "pairwise"}))
    )
    assert refused.reranking is not None
    assert refused.second is None
    for name, value in plain.head.state_dict().items():
        assert torch.equal(value, refused.head.state_dict()[name])
    first, second = (one.evaluate(pairs, resamples=0) for one in (plain, refused))
    assert first.to_dict() == second.to_dict()
    assert np.array_equal(first.ranks, second.ranks)
    gallery = [pairs.profiles[one] for one in pairs.ids_b]
    rankings = [one.recommend(pairs.profiles["a01"], gallery, 40) for one in (plain, refused)]
    assert list(rankings[0]) == list(rankings[1])
    assert rankings[0].caveats == rankings[1].caveats


# --- sweeps, reports, runs


def near_pairs(count, seed=0):
    """Partners are near in one of six traits, wherever they are."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, count, 6))
    b[:, 0] = a[:, 0] + 0.02 * rng.normal(size=count)
    people = [
        Profile(f"{side}{row:03}", attributes={f"x{n}": x for n, x in enumerate(values)})
        for side, rows in (("a", a.tolist()), ("b", b.tolist()))
        for row, values in enumerate(rows)
    ]
    return Pairs.of(people, [Pair(f"a{row:03}", f"b{row:03}") for row in range(count)])


SWEPT = {"backbone": "attributes", "metadata": "none", "learner": "frozen"}


def test_a_sweep_compares_rows_with_and_without_a_reranker(tmp_path):
    pairs = near_pairs(250)
    axes = {"reranker": ["none", ("pairwise", {"top": 20})]}
    combinations = grid(SWEPT, axes)
    assert [one.label for one in combinations] == ["reranker none", "reranker pairwise (top=20)"]
    options = {"baselines": (), "repeats": 1, "folds": 3, "store": tmp_path / "s.sqlite"}
    result = sweep(pairs, combinations, output=tmp_path / "sweep", **options)
    first, second = (result.table(one.label) for one in combinations)
    # The oracle: cross-validation of the same stages on the same folds
    matcher = Matcher(**SWEPT, store=tmp_path / "s.sqlite")
    data = matcher.pipeline.ready(pairs.people).paired_features([pairs])[0]
    stages = {
        "one": "frozen",
        "two": Reranked(learner="frozen", reranker=("pairwise", {"top": 20})),
    }
    expected = cross_validate(data, stages, repeats=1, folds=3)
    for name, table in (("one", first), ("two", second)):
        assert np.array_equal(table.metric("MRR"), expected.table(name).metric("MRR"))
    assert not np.array_equal(first.metric("MRR"), second.metric("MRR"))
    # The rows of both are kept, and read when the sweep resumes
    assert len(list((tmp_path / "sweep").rglob("*.npz"))) == 2
    again = sweep(pairs, combinations, output=tmp_path / "sweep", **options)
    assert np.array_equal(again.table(combinations[1].label).metric("MRR"), second.metric("MRR"))
    options.pop("baselines")
    planned = plan(pairs, combinations, baselines=(), **options)
    assert planned.labels == tuple(one.label for one in combinations)


def test_options_of_a_reranker_are_axes_and_part_of_a_row(tmp_path):
    base = {**SWEPT, "reranker": "pairwise"}
    widths = [one.arguments["reranker"] for one in grid(base, {"reranker.top": [20, 40]})]
    assert widths == [("pairwise", {"top": 20}), ("pairwise", {"top": 40})]
    with pytest.raises(ConfigurationError, match=r"`reranker\.top` needs `reranker` to be named"):
        grid(SWEPT, {"reranker.top": [20]})
    described = [
        describe_learner(Reranked(learner="frozen", reranker=("pairwise", {"top": top})))
        for top in (20, 40)
    ]
    assert described[0] != described[1]
    assert described[0]["reranker"][1]["top"] == 20
    assert describe_learner(Frozen()) == {
        key: value for key, value in described[0].items() if key != "reranker"
    }


def test_rows_of_a_reranker_that_reads_profiles_are_measured_again(tmp_path):
    """The texts are in no key: a stored row could be one of earlier texts."""
    data = near(60)
    splits = cross_validation_splits(data, repeats=1, folds=2, seed=0)
    chance = chance_table(data, splits, (1,))
    rows = FinishedRows(tmp_path / "sweep", splits, chance, 0)
    calls = []
    for reranker in (Alike(), Alike()):
        rows.read_or_measure(
            data, Reranked(learner="frozen", reranker=reranker), lambda: calls.append(1) or chance
        )
    assert len(calls) == 2
    assert not (tmp_path / "sweep").exists()


def write_tables(folder, pairs):
    names = list(pairs.people[0].attributes)
    people = [["id", *names], *([one.id, *one.attributes.values()] for one in pairs.people)]
    links = [["id_a", "id_b"], *([pair.a, pair.b] for pair in pairs.pairs)]
    for name, rows in (("people.csv", people), ("pairs.csv", links)):
        (folder / name).write_text("\n".join(",".join(map(str, row)) for row in rows))


def invoke(words):
    result = CliRunner().invoke(app, words.split(), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


COMMON = "pairs.csv --profiles people.csv --backbone attributes --store s.sqlite --quiet"


def test_the_command_sweep_takes_rerankers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tables(tmp_path, near_pairs(60))
    rest = "--grid learner=frozen --baseline none --repeats 1 --folds 2 --plan"
    text = invoke(f"sweep {COMMON} {rest} --reranker none,pairwise --set pairwise.top=20")
    assert "reranker none, learner frozen" in text
    assert "reranker pairwise (top=20), learner frozen" in text
    assert "(top=20)" in invoke(
        f"sweep {COMMON} {rest} --reranker none,pairwise --set reranker.top=20"
    )
    refused = CliRunner().invoke(app, f"sweep {COMMON} --paper --reranker pairwise".split())
    assert refused.exit_code == 2
    assert "and no second stage: omit --grid" in " ".join(refused.output.split())
    refused = CliRunner().invoke(app, f"fit {COMMON} -o out --set reranker.top=3".split())
    assert refused.exit_code == 2
    assert "--set reranker.top needs --reranker" in refused.output
    assert "1 row," in invoke(f"sweep {COMMON} {rest} --reranker pairwise --set pairwise.top=20")


@pytest.mark.slow
def test_a_run_is_repeated_with_its_second_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tables(tmp_path, near_pairs(500, seed=3))
    text = invoke(
        f"fit {COMMON} --learner frozen --reranker pairwise --set pairwise.top=20 --output out "
        "--no-compare --no-learning-curve"
    )
    assert "The re-ranker pairwise orders the best 20 candidates" in text
    rows = {line.rsplit("  ")[0].strip(): line for line in text.splitlines()}
    shown = [line.split() for name, line in rows.items() if name.startswith(("first", "trained"))]
    assert any(words[:2] == ["first", "stage"] for words in shown), text
    text = invoke("fit --config out/run.yaml --output again")
    assert "The head is bit for bit the recorded one." in text
    assert "The re-ranker is bit for bit the recorded one." in text
    digests = [(tmp_path / one / "reranker.safetensors").read_bytes() for one in ("out", "again")]
    assert digests[0] == digests[1]
    # A record of another re-ranker is noticed
    recorded = (tmp_path / "again" / "run.yaml").read_text()
    start = recorded.index("  reranker: ") + len("  reranker: ")
    other = f"{recorded[:start]}{'0' * 64}{recorded[start + 64 :]}"
    (tmp_path / "other.yaml").write_text(other)
    text = invoke("fit --config other.yaml --output third")
    assert "The head is bit for bit the recorded one." in text
    assert "The re-ranker differs from the recorded one" in text


def test_the_verdict_on_fine_tuning_is_that_of_both_stages():
    parts = [near(60), near(40)]
    head = Frozen().fit(parts[0]).head
    traits = fit_traits(embed_sides(parts[0], head), components(parts[0]))
    weights = torch.tensor([0.0] * 7 + [-1.0, 0.0, 0.0, 0.0])  # the distance of a trait
    second = SecondStage(PairwiseReranker().with_state({"weights": weights}), traits)
    tuned, frozen = tuning_tables(parts, parts, FittedHead(head, second=second))
    alone, rival = tuning_tables(parts, parts, FittedHead(head))
    evaluator = Evaluator(resamples=0)
    for table, stage in ((tuned, second), (alone, None)):
        figures = evaluator.evaluate(parts[1], head, second=stage)
        assert table.metric("MRR").mean() == pytest.approx(figures.both.mrr)
    assert tuned.metric("MRR").mean() != alone.metric("MRR").mean()
    assert np.array_equal(frozen.metric("MRR"), rival.metric("MRR"))


def test_the_report_compares_with_the_first_stage(tmp_path):
    pairs = near_pairs(250)
    train, validation, test = pairs.split(seed=0)
    matcher = with_second(
        new_matcher(tmp_path),
        train,
        PairwiseReranker(top=20),
        {"weights": torch.tensor([0.0] * 9 + [-1.0] + [0.0] * 5)},  # the distance of a trait
    )
    compared = compare_learners(matcher, train, validation, test, others=("whitened",))
    assert set(compared.result.learners) == {"trained", "first stage", "whitened"}
    both, first = (compared.result.table(name) for name in ("trained", "first stage"))
    plain = Matcher(**SWEPT, store=matcher.store)
    plain.fit(train)
    expected = {one: m.evaluate(test, resamples=0) for one, m in ((0, plain), (1, matcher))}
    assert first.metric("MRR").mean() == pytest.approx(expected[0].both.mrr)
    assert both.metric("MRR").mean() == pytest.approx(expected[1].both.mrr)
    assert both.metric("MRR").mean() != first.metric("MRR").mean()
    assert "first stage: without its re-ranker" in compared.text()
    matcher.second = None
    alone = compare_learners(matcher, train, validation, test, others=("whitened",))
    assert "first stage" not in alone.result.learners
    assert "re-ranker" not in alone.text()


def test_the_explorer_says_which_orders_are_of_the_first_stage(matcher, pairs, tmp_path):
    folders = {
        side: matcher.gallery([pairs.profiles[one] for one in those], side=side).save(
            tmp_path / side
        )
        for side, those in (("a", pairs.ids_a), ("b", pairs.ids_b))
    }
    service = Service(ServiceSettings(matcher=tmp_path, galleries=folders), matcher)
    try:
        slates = Slates(service)
        deadline = time.monotonic() + 60
        while True:
            try:
                slate = slates.slate(Question("a03", "a", 5, policy="balanced"))
                break
            except ComputingError:
                assert time.monotonic() < deadline
        assert any("is one of the first stage: the re-ranker pairwise" in x for x in slate.caveats)
        plain = slates.slate(Question("a03", "a", 5))
        served = matcher.recommend(
            pairs.profiles["a03"], [pairs.profiles[one] for one in pairs.ids_b], 5
        )
        assert [card.id for card in plain.cards] == ids(served)
        assert not any("takes no part" in x for x in plain.caveats)
    finally:
        service.close()

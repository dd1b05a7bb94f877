"""The learner `best`: its likelihood in plain loops, planted regimes, and the joined head."""

import math

import numpy as np
import pytest

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.evaluation.query_table import embed_sides
from pairmatch.learning.baselines import CCA, Popularity, Ridge, Whitened
from pairmatch.learning.best import Best, fit_bases, inner_splits
from pairmatch.learning.closed_form_heads import MetricHead
from pairmatch.learning.contrastive import Contrastive
from pairmatch.learning.decompositions import Decompositions
from pairmatch.learning.heads import build_head, describe_head
from pairmatch.learning.margins import Margins, choose_weights, fit_weights
from pairmatch.learning.products import product_bases
from pairmatch.learning.stacking import StackedHead
from pairmatch.testing import check_head, check_learner

CLOSED_FORM = Best(recipe=False)


def couples(pairs, *, rotated=False, related=True, noise=1.2, seed=0, dim=24):
    """Pairs with a hidden taste of four dimensions, which side b shows as it is or rotated."""
    rng = np.random.default_rng(seed)
    looks = rng.standard_normal((4, dim))
    taste = rng.standard_normal((pairs, 4))
    rotation = np.linalg.qr(rng.standard_normal((4, 4)))[0] if rotated else np.eye(4)
    partner = taste @ rotation if related else rng.standard_normal((pairs, 4))
    a, b = (z @ looks + noise * rng.standard_normal((pairs, dim)) for z in (taste, partner))
    return PairedFeatures.of(a + 1, b - 1)


def dense(people=30, *, one_sided=False):
    """Everybody has several partners."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, people, 8))
    pairs = np.unique(rng.integers(0, people, (4 * people, 2)), axis=0)
    if one_sided:
        return PairedFeatures.of(features[0], matches=pairs[pairs[:, 0] < pairs[:, 1]])
    return PairedFeatures.of(*features, matches=pairs)


@pytest.mark.parametrize("one_sided", [False, True])
def test_likelihood_equals_the_formula_in_loops(one_sided):
    data = dense(one_sided=one_sided)
    heads = list(fit_bases(data).values())[:3]
    weights = np.array([0.5, 0.0, 2.0])
    scores = 0.0
    for weight, head in zip(weights, heads, strict=True):
        e_a, e_b = embed_sides(data, head)
        scores = scores + weight * e_a.astype(float) @ e_b.T.astype(float)
    known = {tuple(pair) for pair in data.matches.tolist()}
    if one_sided:
        known |= {(b, a) for a, b in known}
    queries = [(a, b, scores[a], lambda a, c: (a, c)) for a, b in known]
    if not one_sided:
        queries += [(b, a, scores[:, b], lambda b, c: (c, b)) for a, b in known]
    expected = []
    for query, partner, row, pair in queries:
        others = [
            candidate
            for candidate in range(len(row))
            if pair(query, candidate) not in known and not (one_sided and candidate == query)
        ]
        total = math.exp(row[partner]) + sum(math.exp(row[other]) for other in others)
        expected.append(math.log(math.exp(row[partner]) / total))
    margins = Margins.of(data, heads, np.random.default_rng(0))
    assert np.sort(margins.log_likelihood(weights)) == pytest.approx(np.sort(expected), abs=1e-5)


def test_gradient_and_spread_equal_their_definitions():
    rng = np.random.default_rng(0)
    margins = Margins.of(dense(), list(fit_bases(dense()).values())[:2], rng)
    weights, step = np.array([1.0, 2.0]), 1e-5
    loss, gradient = margins.loss(weights)
    assert loss == pytest.approx(-margins.log_likelihood(weights).mean())
    for index in range(2):
        moved = weights + step * np.eye(2)[index]
        assert (margins.loss(moved)[0] - loss) / step == pytest.approx(gradient[index], abs=1e-4)
    deviations = [
        row[present] - row[present].mean(0)
        for row, present in zip(margins.values, margins.present, strict=True)
    ]
    expected = np.sqrt((np.concatenate(deviations) ** 2).mean(0))
    assert margins.spreads() == pytest.approx(expected)


def test_scores_that_differ_by_rounding_have_no_spread():
    values = np.random.default_rng(0).choice([0.0, 6e-8], (20, 5, 1))
    assert Margins(values, np.ones((20, 5), bool)).spreads().tolist() == [0]


def test_large_parts_are_thinned():
    data = couples(700)
    margins = Margins.of(data, [Whitened().fit(data).head], np.random.default_rng(0))
    assert margins.values.shape == (500, 128, 1)
    assert margins.present.all()


def test_weights_are_not_negative_and_shrink_to_the_prior():
    data = couples(60)
    heads = [Whitened().fit(data).head, Popularity().fit(data).head]
    margins = Margins.of(data, heads, np.random.default_rng(0))
    reverse = Margins(-margins.values, margins.present)
    assert fit_weights(reverse, np.zeros(2), 1e-3)[0] == 0
    assert fit_weights(margins, np.zeros(2), 1e-3)[0] > 1
    prior = np.array([0.3, 0.7])
    assert fit_weights(margins, prior, 1e6) == pytest.approx(prior, abs=1e-4)


def test_reciprocal_ranks_count_candidates_ahead_and_half_of_the_tied():
    values = np.array([[[1.0], [0.0], [-2.0]], [[3.0], [9.0], [0.0]]])
    present = np.array([[True, True, True], [True, False, False]])
    ranks = 1 / Margins(values, present).reciprocal_ranks(np.ones(1))
    assert ranks.tolist() == [2.5, 2.0]


@pytest.mark.parametrize("one_sided", [False, True])
def test_a_head_on_products_is_its_learner_fitted_on_products(one_sided):
    data = dense(60, one_sided=one_sided)
    learner = CCA(width=4, shrinkage=0.5)
    heads = product_bases(
        Decompositions(data), {"cca": (3, learner), "all": (99, Ridge(strength=1))}
    )
    assert heads["all"].rank == 8  # of 8 features
    head = heads["cca"]
    sides = [data.a] if one_sided else [data.a, data.b]
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    directions = [(x - x.mean(0)) @ head.basis.numpy() for x in unit]
    scores = np.concatenate(directions)
    assert np.abs(np.corrcoef(scores.T) - np.eye(3)).max() < 1e-4  # principal directions
    products = []
    for y in directions:
        every = np.stack([y[:, i] * y[:, j] for i in range(3) for j in range(i, 3)], axis=1)
        products.append((every - every.mean(0)).astype(np.float32))
    mapped = data.with_features(products[0], None if one_sided else products[1])
    expected = embed_sides(mapped, learner.fit(mapped).head)
    for side, other in zip(embed_sides(data, head), expected, strict=True):
        assert side == pytest.approx(other, abs=1e-4)
    check_head(lambda dim: build_head(("products", {"rank": 3, "head": "linear"}), dim=dim))


@pytest.mark.slow
def test_products_find_tastes_in_sizes_and_products_that_linear_maps_cannot():
    rng = np.random.default_rng(1)
    taste = rng.standard_normal((400, 4))
    looks = rng.standard_normal((4, 16))
    shown = {
        "sizes": taste * rng.choice([-1, 1], taste.shape),
        "products": np.stack([taste[:, i] * taste[:, (i + 1) % 4] for i in range(4)], axis=1),
    }
    for name, partner in shown.items():
        a, b = (z @ looks + 0.2 * rng.standard_normal((400, 16)) for z in (taste, partner))
        data = PairedFeatures.of(a, b)
        result = cross_validate(data, {"best": CLOSED_FORM, "cca": "cca"}, repeats=1, seed=2)
        mrr = {learner: result.metrics(learner).mrr for learner in ("chance", "best", "cca")}
        assert mrr["best"] > 1.5 * mrr["cca"], name
        assert mrr["best"] > 2.5 * mrr["chance"], name


def test_identical_people_have_no_products():
    same = np.ones((30, 5), np.float32)
    assert product_bases(Decompositions(PairedFeatures.of(same, same)), {"cca": (2, CCA())}) == {}


def test_weights_are_chosen_only_if_they_predict_and_a_head_that_ranks_better_is_used_alone():
    rng = np.random.default_rng(0)
    present = np.ones((40, 9), bool)
    noise = rng.standard_normal((20, 9, 2))
    nothing = [Margins(np.concatenate([noise, -noise]), present)] * 4
    assert choose_weights(nothing, penalty=0.1)[0].tolist() == [0, 0]
    good = rng.standard_normal((40, 9, 2)) - 1
    # The second head puts most partners far ahead of everyone, and the rest far behind
    sure = np.arange(40)[:, None] % 10 > 0
    good[..., 1] = np.where(sure, -1.0, 30.0) + 0.1 * rng.standard_normal((40, 9))
    folds = [Margins(good, present)] * 4
    assert choose_weights(folds, penalty=0.1)[0].tolist() == [0, 1]


def test_joined_embeddings_multiply_to_the_weighted_mean_of_cosines():
    data = couples(50)
    bases = fit_bases(data, recipe=True)
    heads = {label: bases[label] for label in ("ridge 1", "cca 32", "recipe")}
    joined = StackedHead.joined(heads, np.array([3.0, 1.0, 1.0]), np.array([0.1, 0.5, 0.2]))
    ridge, cca, recipe = (a @ b.T for a, b in (embed_sides(data, head) for head in heads.values()))
    e_a, e_b = embed_sides(data, joined)
    assert np.allclose(e_a @ e_b.T, 0.6 * ridge + 0.2 * cca + 0.2 * recipe, atol=1e-6)
    assert joined.shares == pytest.approx({"ridge 1": 0.3, "cca 32": 0.5, "recipe": 0.2})
    restored = build_head(describe_head(joined), dim=data.dim).eval()
    restored.load_state_dict(joined.state_dict())
    assert np.array_equal(restored.embed(data.a, "a"), e_a)


@pytest.mark.parametrize("one_sided", [False, True])
def test_reduced_embeddings_are_the_best_projection_of_all_people(one_sided):
    data = dense(40, one_sided=one_sided)
    bases = fit_bases(data)
    heads = {label: bases[label] for label in ("metric 0.1", "ridge 1", "cca 32")}
    whole = StackedHead.joined(heads, np.ones(3), np.ones(3))
    narrow = whole.reduced(data, 12)
    assert narrow.width == 12
    wide, reduced = embed_sides(data, whole), embed_sides(data, narrow)
    for side, other in zip(wide, reduced, strict=True):
        assert np.linalg.norm(other, axis=1) == pytest.approx(np.ones(len(side)), abs=1e-6)
    rows = np.concatenate(wide).astype(np.float64)
    _, _, directions = np.linalg.svd(rows, full_matrices=False)
    first, second = (side @ directions[:10].T for side in wide)
    assert reduced[0] @ reduced[1].T == pytest.approx(first @ second.T, abs=1e-5)
    restored = build_head(describe_head(narrow), dim=data.dim).eval()
    restored.load_state_dict(narrow.state_dict())
    assert np.array_equal(restored.embed(data.a, "a"), narrow.embed(data.a, "a"))
    assert narrow.shares == whole.shares


def test_width_is_reduced_and_its_cost_is_said():
    fitted = Best(recipe=False, folds=2, width=4).fit(couples(60, rotated=True))
    assert fitted.head.width == 4
    assert f"reduced from {fitted.head.joined_width} to 4 coordinates" in fitted.notes[0]
    assert 0.2 < float(fitted.notes[0].split(" times as likely")[0].split()[-1]) < 0.9


def test_people_who_are_alike_and_people_who_are_mapped_are_both_recovered():
    for rotated, baseline, other in ((False, "whitened", "ridge"), (True, "ridge", "whitened")):
        data = couples(150, rotated=rotated)
        result = cross_validate(
            data, {"best": CLOSED_FORM, baseline: baseline, other: other}, repeats=1, folds=2
        )
        best, simple = (result.metrics(name, resamples=0).mrr for name in ("best", baseline))
        assert best > 0.95 * simple, baseline
        assert best > result.metrics(other, resamples=0).mrr


def test_recipe_that_gets_no_weight_on_two_folds_is_not_fitted_on_others(monkeypatch):
    fits = []
    fit = Contrastive.fit

    def counted(self, *args, **kwargs):
        fits.append(len(args[0]))
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(Contrastive, "fit", counted)
    data = couples(60, rotated=True)
    fitted = Best().fit(data)
    assert fits == [48, 48]
    assert "recipe" not in fitted.head.shares
    without = CLOSED_FORM.fit(data)
    assert fitted.head.shares == pytest.approx(without.head.shares)


def test_several_partners_make_popular_people_popular():
    rng = np.random.default_rng(0)
    people = 400
    a, b = rng.standard_normal((2, people, 10))
    chances = np.exp(1.5 * b[:, 0])
    share = chances / chances.sum()
    rows = [rng.choice(people, 4, replace=False, p=share) for _ in range(people)]
    matches = np.stack([np.repeat(np.arange(people), 4), np.concatenate(rows)], axis=1)
    data = PairedFeatures.of(a, b, matches=matches)
    head = fit_bases(data, grouped=True)["number of partners"]
    e_a, e_b = embed_sides(data, head)
    scores = e_a @ e_b.T
    assert np.corrcoef(scores.mean(0), np.log(chances))[0, 1] > 0.8
    taste = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
    assert np.abs(taste).max() < 1e-5
    assert CLOSED_FORM.fit(data).head.shares["number of partners"] > 0.3


def test_folds_of_people_are_repeated_because_they_test_few_pairs():
    alone, log = couples(60), dense(60)
    assert len(inner_splits(alone, 5, seed=0)) == 5
    splits = inner_splits(log, 5, seed=0)
    assert {split.by for split in splits} == {"people"}
    assert len(splits) == 25
    tested = sum(len(split.test) for split in splits)
    assert 0.6 * len(log) < tested < 1.6 * len(log)
    assert len(inner_splits(log, 2, seed=0)) == 4


def test_nothing_to_learn_and_too_few_pairs_fall_back_with_a_note():
    fitted = CLOSED_FORM.fit(couples(100, related=False, seed=2))
    assert "does not show that the features predict partners" in fitted.notes[0]
    assert isinstance(fitted.head, MetricHead)
    few = CLOSED_FORM.fit(couples(15))
    assert "Too few pairs to learn from (15 independent groups" in few.notes[0]
    whitened = Whitened().fit(couples(15)).head
    data = couples(15)
    assert np.allclose(few.head.embed(data.a, "a"), whitened.embed(data.a, "a"), atol=1e-5)


def test_log_of_one_component_that_cannot_be_split_falls_back():
    stars = np.concatenate([[(0, b) for b in range(1, 40)], [(a, 0) for a in range(1, 40)]])
    data = PairedFeatures.of(*np.random.default_rng(0).standard_normal((2, 40, 6)), matches=stars)
    assert "Cross-validation is not possible" in CLOSED_FORM.fit(data).notes[0]


def test_head_and_learner_conform():
    parts = {"a": ("metric", {"rank": 3}), "b": ("partner-map", {}), "c": ["mlp", {"width": 4}]}
    check_head(lambda dim: StackedHead(dim=dim, parts=parts))
    check_head(lambda dim: StackedHead(dim=dim, parts=parts, reduced_width=6))
    check_learner(CLOSED_FORM)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: Best(folds=1), "folds must be at least 2"),
        (lambda: Best(least_pairs=3), "least_pairs at least folds"),
        (lambda: Best(shrinkage=0.0), "shrinkage above 0"),
        (lambda: Best(width=2), "width=...\\)` must be at least 3"),
        (lambda: StackedHead(dim=4, parts={"a": "linear"}, reduced_width=2), "must be from 3"),
        (lambda: StackedHead(dim=4, parts={}), "one head or more by label"),
    ],
)
def test_impossible_options(build, reason):
    with pytest.raises(ConfigurationError, match=reason):
        build()

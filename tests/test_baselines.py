"""Baselines compared with dense formulas, scikit-learn, and the trainer called directly."""

import numpy as np
import pytest
from sklearn import cross_decomposition
from sklearn.linear_model import Ridge as RidgeRegression
from sklearn.metrics.pairwise import cosine_similarity

from pairmatch import Trainer, TrainingConfig
from pairmatch.core import registry
from pairmatch.core.arrays import unit_rows
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.crossvalidation import BASELINES
from pairmatch.learning.baselines import (
    CCA,
    Centred,
    Frozen,
    Popularity,
    Ridge,
    Whitened,
)
from pairmatch.learning.contrastive import Contrastive


def planted(n=60, width=12, seed=0, noise=0.7, one_sided=False):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, width)) + 1
    b = (
        a @ np.linalg.qr(rng.normal(size=(width, width)))[0]
        + noise * rng.normal(size=(n, width))
        - 1
    )
    if one_sided:
        people = np.concatenate([a, b])
        return PairedFeatures.of(people, matches=[(i, n + i) for i in range(n)])
    return PairedFeatures.of(a, b)


def unit_centred(data):
    a, b = unit_rows(data.a).astype(float), unit_rows(data.b).astype(float)
    return a - a.mean(0), b - b.mean(0), a.mean(0), b.mean(0)


def test_frozen_and_centred_are_plain_cosines():
    data = planted()
    embed = Frozen().fit(data).head.embed
    np.testing.assert_allclose(
        embed(data.a, "a") @ embed(data.b, "b").T, cosine_similarity(data.a, data.b), atol=1e-5
    )
    a, b, *_ = unit_centred(data)
    embed = Centred().fit(data).head.embed
    np.testing.assert_allclose(
        embed(data.a, "a") @ embed(data.b, "b").T, cosine_similarity(a, b), atol=1e-5
    )


@pytest.mark.parametrize("n", [8, 60])  # fewer people than dimensions, and more
@pytest.mark.parametrize("shrinkage", [0.3, 1.0])
def test_whitening_uses_the_inverse_square_root_of_the_shrunk_covariance(n, shrinkage):
    data = planted(n, width=30)
    a, b, mean_a, mean_b = unit_centred(data)
    rows = np.concatenate([a, b])
    covariance = rows.T @ rows / len(rows)
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 30 * np.eye(30)
    values, vectors = np.linalg.eigh(shrunk)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    new = np.random.default_rng(9).normal(size=(5, 30))
    expected = unit_rows((unit_rows(new).astype(float) - mean_a) @ root)
    np.testing.assert_allclose(
        Whitened(shrinkage=shrinkage).fit(data).head.embed(new, "a"), expected, atol=1e-4
    )
    expected = unit_rows((unit_rows(new).astype(float) - mean_b) @ root)
    np.testing.assert_allclose(
        Whitened(shrinkage=shrinkage).fit(data).head.embed(new, "b"), expected, atol=1e-4
    )


def test_cca_without_shrinkage_agrees_with_scikit_learn():
    data = planted(300, width=6)
    ours = CCA(width=2, shrinkage=1e-9, power=0).fit(data).head.embed
    a, b, *_ = unit_centred(data)
    theirs = cross_decomposition.CCA(2, scale=False, max_iter=5000, tol=1e-12).fit(a, b)
    their_a, their_b = theirs.transform(a, b)
    assert np.corrcoef(their_a[:, 0], their_b[:, 0])[0, 1] > 0.3
    for side, features, theirs_of_side in (("a", data.a, their_a), ("b", data.b, their_b)):
        # Equal variance in each direction, as after whitening
        scaled = theirs_of_side / theirs_of_side.std(0)
        np.testing.assert_allclose(
            np.abs(ours(features, side)), np.abs(unit_rows(scaled)), atol=0.02
        )
    same_sign = np.sign(ours(data.a, "a") * ours(data.b, "b")) == np.sign(their_a * their_b)
    assert same_sign.mean() > 0.99


def test_ridge_averages_regressions_in_both_directions():
    data = planted()
    a, b, *_ = unit_centred(data)
    embed = Ridge(strength=0.5).fit(data).head.embed

    def mapped(x, y):
        penalty = 0.5 * np.mean(np.linalg.svd(x, compute_uv=False) ** 2)
        return RidgeRegression(alpha=penalty, fit_intercept=False).fit(x, y).predict(x)

    expected = (cosine_similarity(mapped(a, b), b) + cosine_similarity(a, mapped(b, a))) / 2
    np.testing.assert_allclose(embed(data.a, "a") @ embed(data.b, "b").T, expected, atol=1e-4)


def test_popularity_has_the_same_ranking_for_all_queries():
    data = planted()
    embed = Popularity().fit(data).head.embed
    scores = embed(data.a, "a") @ embed(data.b, "b").T
    mean_query = unit_rows(data.a).mean(0)
    order = np.argsort(-(unit_rows(data.b) @ mean_query))
    for row in scores[:10]:
        np.testing.assert_array_equal(np.argsort(-row)[:20], order[:20])


def test_contrastive_trains_with_held_out_validation_pairs():
    data = planted()
    training = TrainingConfig(epochs=3, batch_size=16)
    learner = Contrastive(head=("mlp", {"width": 8}), training={"epochs": 3, "batch_size": 16})
    fitted = learner.fit(data, seed=4)
    size = int(60 * 0.15 / 0.85)
    train, validation = (data.take(part) for part in data.parts([60 - size, size], seed=4))
    assert len(validation) == size
    config = TrainingConfig(epochs=3, batch_size=16, seed=4)
    expected = Trainer(("mlp", {"width": 8}), "infonce", config).fit(train, validation)
    embedded = fitted.head.embed(data.a, "a")
    np.testing.assert_array_equal(embedded, expected.head.embed(data.a, "a"))
    assert fitted.history == expected.history
    explicit = learner.fit(train, validation, seed=4)
    np.testing.assert_array_equal(explicit.head.embed(data.a, "a"), embedded)
    assert training.seed == 0


@pytest.mark.parametrize("name", ["contrastive", *BASELINES])
@pytest.mark.parametrize("one_sided", [False, True])
def test_every_learner_returns_unit_vectors_of_equal_width(name, one_sided):
    options = {"training": {"epochs": 1}} if name == "contrastive" else {}
    data = planted(20, one_sided=one_sided)
    embed = registry.create("learners", (name, options)).fit(data, seed=1).head.embed
    new = np.random.default_rng(1).normal(size=(7, 12))
    a = embed(new, "a")
    b = embed(new, "b")
    assert a.shape == b.shape
    assert a.dtype == b.dtype == np.float32
    for vectors in (a, b):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    again = registry.create("learners", (name, options)).fit(data, seed=1)
    np.testing.assert_array_equal(again.head.embed(new, "a"), a)


def test_options_out_of_range_are_errors():
    for create, message in (
        (lambda: Whitened(shrinkage=0), r"`Whitened\(shrinkage=...\)` must be in \(0, 1\], got 0"),
        (lambda: CCA(width=0), "width must be at least 1"),
        (lambda: Ridge(strength=-1), r"`Ridge\(strength=...\)` must be positive, got -1"),
        (
            lambda: Contrastive(validation=1),
            r"`Contrastive\(validation=...\)` must be in \[0, 1\), got 1",
        ),
    ):
        with pytest.raises(ConfigurationError, match=message):
            create()


@pytest.mark.parametrize("name", BASELINES)
def test_identical_people_score_at_chance(name):
    from pairmatch.evaluation.crossvalidation import cross_validate

    data = PairedFeatures.of(np.ones((12, 5)), np.ones((12, 5)))
    result = cross_validate(data, [name], repeats=1, folds=3, ks=(2,))
    assert result.metrics(name).recall[2] == pytest.approx(0.5)
    assert result.metrics(name).mrr == pytest.approx(result.metrics("chance").mrr)

"""The learner `metric`: its formula with dense matrices, and its limiting cases."""

import numpy as np
import pytest

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.learning.baselines import Centred, Whitened
from pairmatch.learning.closed_form_heads import MetricHead
from pairmatch.learning.metric import PairMetric
from pairmatch.testing import check_head, check_learner


def couples(pairs, *, dim=24, noise=1.0, seed=0, groups=None, one_sided=False):
    """Pairs that share a taste in a few hidden directions; everything else is independent."""
    rng = np.random.default_rng(seed)
    taste = rng.standard_normal((pairs, 4)) @ rng.standard_normal((4, dim))
    a, b = (taste + noise * 3 * rng.standard_normal((pairs, dim)) + 2 for _ in range(2))
    if one_sided:
        rows = np.arange(pairs)
        matches = np.stack([rows, rows + pairs], axis=1)
        return PairedFeatures.of(np.concatenate([a, b]), matches=matches, groups=groups)
    return PairedFeatures.of(a, b + 1, groups=groups)


def reference(train, x, side, *, shrinkage, strength, group_weight, power):
    """Computes the embeddings with D × D matrices and loops over pairs."""

    def powered(rows):
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        rows = np.sign(rows) * np.abs(rows) ** power
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    a = powered(train.a.astype(float))
    b = a if train.b is None else powered(train.b.astype(float))
    mean = {"a": a.mean(0), "b": b.mean(0)}
    rows = a - mean["a"] if train.b is None else np.concatenate([a - mean["a"], b - mean["b"]])
    dim = rows.shape[1]
    covariance = rows.T @ rows / len(rows)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / dim * np.eye(dim)
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors @ np.diag(values**-0.5) @ vectors.T

    def white(rows, side):
        rows = (rows - mean[side]) @ whitening
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    w_a, w_b = np.sqrt(dim) * white(a, "a"), np.sqrt(dim) * white(b, "b")
    matches = {tuple(pair) for pair in train.matches.tolist()}
    component_a = dict(zip(train.matches[:, 0].tolist(), train.components.tolist(), strict=True))
    component_b = dict(zip(train.matches[:, 1].tolist(), train.components.tolist(), strict=True))
    if train.b is None:
        component_a = component_b = component_a | component_b
    total, count = np.zeros((dim, dim)), 0.0
    for i in component_a:
        for j in component_b:
            if component_a[i] != component_b[j] or (train.b is None and i >= j):
                continue
            matched = (i, j) in matches or (train.b is None and (j, i) in matches)
            weight = 1.0 if matched else group_weight
            outer = np.outer(w_a[i], w_b[j])
            total += weight * (outer + outer.T) / 2
            count += weight
    total /= count
    similarity = max(np.trace(total) / dim, 0.01)
    values, vectors = np.linalg.eigh((1 - strength) * similarity * np.eye(dim) + strength * total)
    values = np.clip(values, 0, 0.95)
    metric = vectors @ np.diag(np.sqrt(values / (1 - values**2))) @ vectors.T
    z = white(powered(x.astype(float)), side) @ metric
    return z / np.linalg.norm(z, axis=1, keepdims=True)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("pairs", [9, 60])  # fewer and more people than directions
@pytest.mark.parametrize("group_weight", [0.0, 0.4])
def test_the_metric_matches_its_formula(one_sided, pairs, group_weight):
    groups = [f"room {index // 3}" for index in range(pairs)]
    train = couples(pairs, groups=groups, one_sided=one_sided)
    options = {"shrinkage": 0.7, "strength": 0.2, "group_weight": group_weight, "power": 0.5}
    fitted = PairMetric(**options).fit(train)
    new = np.random.default_rng(5).standard_normal((11, 24)).astype(np.float32)
    for side in ("a", "b"):
        expected = reference(train, new, side, **options)
        np.testing.assert_allclose(fitted.head.embed(new, side), expected, atol=2e-5)


def test_limiting_cases_are_centred_and_whitened_cosine():
    train = couples(40)
    new = np.random.default_rng(5).standard_normal((7, 24)).astype(np.float32)
    for learner, metric in (
        (Centred(), PairMetric(shrinkage=1.0, strength=0.0, power=1.0)),
        (Whitened(shrinkage=0.8), PairMetric(shrinkage=0.8, strength=0.0, power=1.0)),
    ):
        expected = learner.fit(train).head.embed(new, "a")
        np.testing.assert_allclose(metric.fit(train).head.embed(new, "a"), expected, atol=1e-5)


def test_learner_and_head_conform():
    check_learner(PairMetric(group_weight=0.3))
    check_head(MetricHead)


def test_identical_people_are_accepted():
    same = np.ones((30, 6), np.float32)
    fitted = PairMetric().fit(PairedFeatures.of(same, same))
    assert np.isfinite(fitted.head.embed(same, "a")).all()


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (
            lambda: PairMetric(shrinkage=0.0),
            r"`PairMetric\(shrinkage=...\)` must be in \(0, 1\], got 0.0",
        ),
        (lambda: PairMetric(strength=1.0), "strength must be in"),
        (lambda: PairMetric(group_weight=-1.0), "group_weight at least 0"),
        (lambda: MetricHead(dim=4, rank=5), "ranks must be from 0 to dim"),
        (lambda: MetricHead(dim=4, rank=1, power=0.0), "power in"),
    ],
)
def test_options_out_of_range_are_errors(create, message):
    with pytest.raises(ConfigurationError, match=message):
        create()

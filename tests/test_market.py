"""Balancing, corrections, reciprocity and outcomes against dense algorithms and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

import pairmatch.market.potentials as potentials
from pairmatch.core.arrays import unit_rows
from pairmatch.core.errors import ConfigurationError
from pairmatch.evaluation.diagnostics import gini, hubness
from pairmatch.market import (
    assign,
    balance,
    csls,
    examination,
    inverted_softmax,
    outcome,
    reciprocal,
    reciprocal_top_k,
)


def sides(n, m, width=8, seed=0, popular=0.7):
    """Two sides of unit vectors; some of side b are close to all of side a."""
    rng = np.random.default_rng(seed)
    taste = rng.normal(size=width)
    a = rng.normal(size=(n, width)) + popular * taste
    b = rng.normal(size=(m, width)) + popular * taste * rng.random((m, 1)) * 2
    return unit_rows(a).astype(np.float32), unit_rows(b).astype(np.float32)


def textbook(scores, temperature, capacities_a, capacities_b, mask=None):
    """IPFP of Galichon and Salanié on the dense matrix, in float64."""
    kernel = np.exp(scores / (2 * temperature))
    if mask is not None:
        kernel = kernel * mask
    a, b = np.sqrt(capacities_a), np.sqrt(capacities_b)
    for _ in range(20_000):
        half = kernel @ b / 2
        a = np.sqrt(capacities_a + half**2) - half
        half = kernel.T @ a / 2
        new = np.sqrt(capacities_b + half**2) - half
        done = np.abs(new / b - 1).max() < 1e-12
        b = new
        if done:
            break
    return kernel * a[:, None] * b[None, :]


@settings(deadline=None, max_examples=15)
@given(
    n=st.integers(1, 40),
    m=st.integers(1, 40),
    temperature=st.sampled_from([0.08, 0.2, 1.0]),
    varied=st.booleans(),
    seed=st.integers(0, 9),
)
def test_balance_matches_the_dense_algorithm(n, m, temperature, varied, seed):
    a, b = sides(n, m, seed=seed)
    rng = np.random.default_rng(seed)
    capacities_a = rng.uniform(0.5, 3, n) if varied else np.ones(n)
    capacities_b = rng.uniform(0.5, 3, m) if varied else np.ones(m)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(potentials, "_SCORES_PER_BLOCK", 7 * m)  # more than one block
        patch.setattr(potentials, "_SAMPLE_SIZE", 10)
        balanced = balance(
            a,
            b,
            temperature=temperature,
            capacity_a=capacities_a,
            capacity_b=capacities_b,
            tolerance=1e-6,
            max_iterations=5000,
        )
    expected = textbook(
        a.astype(float) @ b.T.astype(float), temperature, capacities_a, capacities_b
    )
    np.testing.assert_allclose(balanced.dense(a, b), expected, atol=1e-4)
    assert balanced.matches == pytest.approx(expected.sum(), abs=1e-3)
    np.testing.assert_allclose(balanced.unmatched_a, capacities_a - expected.sum(1), atol=1e-4)
    # Scores plus bonus rank by expected matches
    scores = a @ b.T + balanced.bonus_b
    for row in range(n):
        by_bonus = np.argsort(-scores[row])
        by_matches = np.argsort(-expected[row])
        np.testing.assert_allclose(expected[row][by_bonus], expected[row][by_matches], rtol=1e-3)
    assert abs(balanced.bonus_b.mean()) < 1e-5


def test_both_sides_have_the_same_total_capacity_by_default():
    a, b = sides(30, 20)
    matched = balance(a, b, temperature=0.2, tolerance=1e-6).dense(a, b)
    np.testing.assert_allclose(
        matched,
        textbook(a.astype(float) @ b.T.astype(float), 0.2, np.ones(30), np.full(20, 1.5)),
        atol=1e-4,
    )


def test_balance_of_a_single_pair_has_a_closed_form():
    """With one person per side, μ = κ(1 − μ), where κ = exp(s / 2β)."""
    balanced = balance(np.array([[0.6]]), np.array([[0.5]]), temperature=0.2)
    kappa = np.exp(0.3 / 0.4)
    assert balanced.matches == pytest.approx(kappa / (1 + kappa), abs=1e-5)


def test_one_sided_and_masked_markets():
    people, _ = sides(30, 1)
    balanced = balance(people, temperature=0.2, tolerance=1e-6)
    scores = people.astype(float) @ people.T.astype(float)
    expected = textbook(scores, 0.2, np.ones(30), np.ones(30), 1 - np.eye(30))
    np.testing.assert_allclose(balanced.bonus_a, balanced.bonus_b, atol=1e-4)
    assert balanced.matches == pytest.approx(expected.sum() / 2, abs=1e-3)
    a, b = sides(20, 25)
    allowed = np.random.default_rng(0).random((20, 25)) < 0.5
    balanced = balance(
        a,
        b,
        temperature=0.2,
        capacity_b=1,
        allowed=lambda start, stop: allowed[start:stop],
        tolerance=1e-6,
    )
    expected = textbook(a.astype(float) @ b.T.astype(float), 0.2, np.ones(20), np.ones(25), allowed)
    np.testing.assert_allclose(balanced.dense(a, b) * allowed, expected, atol=1e-4)


def test_rising_temperatures_spread_the_best_assignment_evenly():
    a, b = sides(40, 40, width=4)
    pairs = assign(a @ b.T)
    rows, columns = linear_sum_assignment(-(a @ b.T))
    np.testing.assert_array_equal(pairs, np.stack([rows, columns], 1))
    best = (a @ b.T)[rows, columns].sum()
    totals = []
    for temperature in (0.01, 0.1, 1.0, 100.0):
        matched = balance(a, b, temperature=temperature, tolerance=1e-2, max_iterations=3000).dense(
            a, b
        )
        totals.append((matched * (a @ b.T)).sum() / matched.sum() * 40)
    assert totals == sorted(totals, reverse=True)
    assert totals[0] > 0.97 * best
    assert np.ptp(matched) < 1e-3  # spread evenly over all pairs


def test_bonuses_spread_exposure_more_evenly():
    a, b = sides(300, 300, width=16, seed=3, popular=1.0)
    bank, _ = sides(200, 1, width=16, seed=3, popular=1.0)
    plain = hubness(a, b, k=10).gini
    slates = {
        "balance": balance(a, b, temperature=0.05).bonus_b,
        "csls": csls(b, bank),
        "inverted softmax": inverted_softmax(b, bank),
    }
    for name, bonus in slates.items():
        best = np.argsort(-(a @ b.T + bonus), axis=1)[:, :10]
        assert gini(np.bincount(best.ravel(), minlength=300)) < 0.75 * plain, name


def test_corrections_match_their_formulas():
    candidates, bank = sides(12, 30, width=5)
    scores = candidates.astype(float) @ bank.T.astype(float)
    expected = [-sum(sorted(row)[-4:]) / 8 for row in scores]
    np.testing.assert_allclose(csls(candidates, bank, neighbors=4), expected, atol=1e-6)
    expected = [-0.2 * np.log(np.mean(np.exp(row / 0.2))) for row in scores]
    np.testing.assert_allclose(
        inverted_softmax(candidates, bank, temperature=0.2), expected, atol=1e-5
    )
    with pytest.raises(ConfigurationError, match="from 1 to the size of the bank, 30; got 31"):
        csls(candidates, bank, neighbors=31)
    with pytest.raises(ConfigurationError, match="must be above 0, got 0"):
        inverted_softmax(candidates, bank, temperature=0)


probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(p=probabilities, how=st.sampled_from(["product", "harmonic", "min"]))
def test_reciprocal_matches_its_formulas(p, how):
    q = p[::-1]
    values = reciprocal(p, q, how)
    for forward, backward, value in zip(p, q, values, strict=True):
        product = forward * backward
        total = forward + backward
        expected = {
            "product": product,
            "min": min(forward, backward),
            "harmonic": 2 * product / total if total else 0,
        }[how]
        assert value == pytest.approx(expected)
    assert (values <= np.maximum(p, q) + 1e-12).all()


def test_reciprocal_search_matches_a_plain_loop():
    rng = np.random.default_rng(0)
    forward = rng.normal(size=(70, 4)), rng.normal(size=(20, 4))
    backward = rng.normal(size=(70, 3)), rng.normal(size=(20, 3))

    def probability(scores):
        return 1 / (1 + np.exp(-scores))

    rows, values = reciprocal_top_k(
        forward, backward, 5, probability_there=probability, probability_back=probability, how="min"
    )
    for query in range(70):
        both = [
            min(
                probability(float(forward[0][query] @ forward[1][j])),
                probability(float(backward[0][query] @ backward[1][j])),
            )
            for j in range(20)
        ]
        expected = sorted(range(20), key=lambda j: -both[j])[:5]
        assert rows[query].tolist() == expected
        np.testing.assert_allclose(values[query], [both[j] for j in expected])
    with pytest.raises(ConfigurationError, match="from 1 to 20, got 21"):
        reciprocal_top_k(
            forward, backward, 21, probability_there=probability, probability_back=probability
        )
    with pytest.raises(ConfigurationError, match="must hold the same people"):
        reciprocal_top_k(
            forward,
            (backward[0][1:], backward[1]),
            5,
            probability_there=probability,
            probability_back=probability,
        )
    with pytest.raises(ConfigurationError, match="calibrate scores first"):
        reciprocal([1.2], [0.5])
    with pytest.raises(ConfigurationError, match="'product', 'harmonic' or 'min', got 'sum'"):
        reciprocal([1.0], [0.5], "sum")


def paper_market(n, m, popularity, seed):
    """Synthetic market of Tomita and Yokoyama: uniform tastes mixed with a falling popularity."""
    rng = np.random.default_rng(seed)
    likes_a = (1 - popularity) * rng.random((n, m)) + popularity * np.linspace(1, 0, m)
    likes_b = (1 - popularity) * rng.random((m, n)) + popularity * np.linspace(1, 0, n)
    return likes_a, likes_b


def ranked(scores, k=None):
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("kind", ["inverse", "log"])
@pytest.mark.parametrize("k", [3, 6])
def test_outcome_matches_a_plain_loop(kind, k):
    n, m = 7, 6
    p, q = paper_market(n, m, 0.5, 1)
    slates_a = ranked(p, k)
    slates_b = ranked(q, k)
    slates_a[2, 1:] = -1  # a short slate
    v = [1 / r if kind == "inverse" else 1 / np.log2(r + 1) for r in range(1, k + 1)]
    views_a = np.zeros((n, m))
    views_b = np.zeros((m, n))
    for views, slates in ((views_a, slates_a), (views_b, slates_b)):
        for person, slate in enumerate(slates):
            for position, candidate in enumerate(slate):
                if candidate >= 0:
                    views[person, candidate] = v[position]
    matches = sum(
        views_a[i, j] * p[i, j] * views_b[j, i] * q[j, i] for i in range(n) for j in range(m)
    )
    envy_a = envy_b = 0
    for i in range(n):
        current = sum(views_a[i, j] * p[i, j] * q[j, i] * views_b[j, i] for j in range(m))
        for peer in range(n):
            swapped = sum(views_a[i, j] * p[i, j] * q[j, i] * views_b[j, peer] for j in range(m))
            envy_a += swapped > current + 1e-9
    for j in range(m):
        current = sum(views_b[j, i] * q[j, i] * p[i, j] * views_a[i, j] for i in range(n))
        for peer in range(m):
            swapped = sum(views_b[j, i] * q[j, i] * p[i, j] * views_a[i, peer] for i in range(n))
            envy_b += swapped > current + 1e-9
    result = outcome(slates_a, slates_b, lambda i, j: (p[i, j], q[j, i]), examination_kind=kind)
    assert result.matches == pytest.approx(matches)
    assert result.envy == (pytest.approx(envy_a / n), pytest.approx(envy_b / m))
    assert result.gini == (pytest.approx(gini(views_b.sum(0))), pytest.approx(gini(views_a.sum(0))))
    assert result.coverage == ((views_b.sum(0) > 0).mean(), (views_a.sum(0) > 0).mean())
    assert "expected matches" in str(result)
    with pytest.raises(ConfigurationError, match="'inverse' or 'log', got 'cubic'"):
        examination(3, "cubic")


@pytest.mark.parametrize("kind", ["inverse", "log"])
@pytest.mark.parametrize("popularity", [0.2, 0.5, 0.8])
@pytest.mark.parametrize(("n", "m"), [(50, 50), (75, 50)])
def test_balanced_slates_on_the_markets_of_the_paper(n, m, popularity, kind):
    """Balancing yields at least as many matches, with at most half the Gini of exposure."""
    totals = {"naive": [], "product": [], "balanced": []}
    for seed in range(3):
        p, q = paper_market(n, m, popularity, seed)
        both = p * q.T
        balanced = balance(both, np.eye(m), temperature=0.05, tolerance=1e-3, max_iterations=2000)
        slates = {
            "naive": (ranked(p), ranked(q)),
            "product": (ranked(both), ranked(both.T)),
            "balanced": (ranked(both + balanced.bonus_b), ranked(both.T + balanced.bonus_a)),
        }
        for name, (slates_a, slates_b) in slates.items():
            result = outcome(
                slates_a, slates_b, lambda i, j, p=p, q=q: (p[i, j], q[j, i]), examination_kind=kind
            )
            totals[name].append((result.matches, *result.gini, *result.envy))
    means = {name: np.mean(rows, axis=0) for name, rows in totals.items()}
    best = np.minimum(means["naive"], means["product"])
    assert means["balanced"][0] >= max(means["naive"][0], means["product"][0])
    assert (means["balanced"][1:3] <= best[1:3] / 2).all()
    assert (means["balanced"][3:] <= best[3:]).all()


def test_invalid_arguments_of_balance_are_errors():
    a, b = sides(4, 5)
    for call, message in (
        (lambda: balance(a, b[:, :3]), "need the same width, got 8 and 3"),
        (lambda: balance(a, b, temperature=0), "must be above 0"),
        (
            lambda: balance(a, b, temperature=1e-4),
            r"too low for scores of this size: use at least 0\.0029",
        ),
        (
            lambda: balance(a, b, capacity_a=np.ones(5)),
            r"`capacity_a` must be one number or one per person, \[4\]; got \[5\]",
        ),
        (lambda: balance(a, b, capacity_b=0), "`capacity_b` must be finite and above 0"),
        (lambda: balance(a, b, tolerance=1e-12, max_iterations=2), "did not converge in 2 passes"),
        (lambda: balance(a, np.full((2, 8), np.nan)), "`b` has values that are not finite"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            call()


def test_read_only_embeddings_can_be_balanced():
    rng = np.random.default_rng(0)
    a, b = (unit_rows(rng.normal(size=(8, 4))).astype(np.float32) for _ in range(2))
    expected = balance(a, b, temperature=0.5).bonus_a
    a.flags.writeable = b.flags.writeable = False
    assert np.array_equal(balance(a, b, temperature=0.5).bonus_a, expected)


def chances(rows_a, rows_b):
    return np.full(len(rows_a), 0.5), np.full(len(rows_b), 0.5)


A = np.eye(4, 3) + 0.1
B = np.eye(5, 3) + 0.2
NAN = np.full((4, 3), np.nan)
INVALID = {
    "NaN": (lambda: balance(NAN, B), "`a` has values that are not finite"),
    "infinity": (lambda: balance(A, B / 0.0), "`b` has values that are not finite"),
    "nobody": (lambda: balance(A[:0], B), r"with at least one row, got shape \[0, 3\]"),
    "text": (lambda: balance("a", B), "must be a NumPy array or a tensor, got str"),
    "huge": (lambda: balance(A * 1e30, B), "too low for scores of this size|not finite"),
    "temperature": (lambda: balance(A, B, temperature=np.nan), "must be a finite number, got nan"),
    "no temperature": (lambda: balance(A, B, temperature=None), "must be a finite number"),
    "tolerance": (lambda: balance(A, B, tolerance=np.nan), r"tolerance=...\)` must be a finite"),
    "iterations": (lambda: balance(A, B, max_iterations=-1), "must be at least 1, got -1"),
    "seed": (lambda: balance(A, B, seed=-1), "must be a whole number from 0, got -1"),
    "capacity": (lambda: balance(A, B, capacity_a=1e-300), "`capacity_a` must be finite and above"),
    "no number": (lambda: balance(A, B, capacity_b="x"), "`capacity_b` must be numbers, got 'x'"),
    "mask": (
        lambda: balance(A, B, allowed=lambda start, stop: np.ones((stop - start, 4), bool)),
        r"must return bool \[4, 5\] for the rows 0 to 4, got bool \[4, 4\]",
    ),
    "no mask": (lambda: balance(A, B, allowed=lambda start, stop: None), "must return bool"),
    "probabilities": (lambda: reciprocal([np.nan], [0.5]), r"needs probabilities in \[0, 1\]"),
    "shapes": (lambda: reciprocal(np.ones(3), np.ones(2)), r"one shape, got \[3\] and \[2\]"),
    "k": (lambda: top_k_of(10**11), r"must be from 1 to 5, got 100000000000"),
    "half": (lambda: top_k_of(2.5), "must be a whole number, got 2.5"),
    "width": (lambda: top_k_of(2, B[:, :2]), "`there` need the same width, got 3 and 2"),
    "neighbors": (lambda: csls(A, B, neighbors=10**11), "from 1 to the size of the bank, 5"),
    "softmax": (lambda: inverted_softmax(A, B, temperature=1e-300), "is out of range for scores"),
    "scores": (lambda: assign(np.array([[np.nan, 1]])), "`scores` has values that are not finite"),
    "vector": (lambda: assign(np.ones(3)), "`scores` must be numbers in two dimensions"),
    "rows": (lambda: outcome([[7]], [[0]], chances), "from 0 to 0, or -1 for empty places"),
    "floats": (lambda: outcome([[0.5]], [[0]], chances), "`slates_a` must be whole numbers"),
    "empty": (lambda: outcome(np.zeros((0, 2), int), [[0]], chances), "with at least one person"),
    "twice": (lambda: outcome([[0, 0]], [[0]], chances), "shows a person twice in one slate"),
    "no chances": (
        lambda: outcome([[0]], [[0]], lambda a, b: (np.full(len(a), np.nan), np.ones(len(b)))),
        r"two arrays of 1 probabilities in \[0, 1\]",
    ),
    "places": (lambda: examination(10**11), "must be a whole number from 0 to 100,000,000"),
}


def top_k_of(k, candidates=B):
    def probability(scores):
        return 1 / (1 + np.exp(-scores))

    return reciprocal_top_k(
        (A, candidates), (A, B), k, probability_there=probability, probability_back=probability
    )


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("name", INVALID)
def test_invalid_inputs_are_one_error(name):
    call, message = INVALID[name]
    with pytest.raises(ConfigurationError, match=message):
        call()

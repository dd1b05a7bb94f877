"""The learner `likes`: its regression against scikit-learn, planted tastes, and its head."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from pairmatch import Matcher, Pair, Pairs
from pairmatch.core.arrays import unit_rows
from pairmatch.core.decisions import Decisions
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.pools import Pools
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.evaluation.evaluator import Evaluator
from pairmatch.evaluation.splits import cross_validation_splits
from pairmatch.learning.bilinear import Coordinates, Prior, fit_bilinear
from pairmatch.learning.likes import Likes
from pairmatch.learning.likes_head import LikesHead
from pairmatch.learning.side_answers import SideAnswers
from pairmatch.market.reciprocal import reciprocal, reciprocal_top_k
from pairmatch.testing import check_head, check_learner


class Log:
    """People with random features, and their answers by a taste that is known."""

    def __init__(self, *, people=200, dim=8, seed=0, strength=12.0, popularity=0.0):
        self.rng = np.random.default_rng(seed)
        self.a, self.b = (self.rng.normal(size=(people, dim)) for _ in range(2))
        x, y = unit_rows(self.a).astype(float), unit_rows(self.b).astype(float)
        tastes = self.rng.normal(size=(2, dim, dim)) * strength / dim
        self.truth = [x @ taste @ y.T - 1 for taste in tastes]
        self.truth[0] += popularity * (y @ self.rng.normal(size=dim))[None, :]
        self.truth[1] += popularity * (x @ self.rng.normal(size=dim))[:, None]

    def pairs(self, count):
        codes = self.rng.permutation(self.truth[0].size)[:count]
        return np.stack(np.unravel_index(codes, self.truth[0].shape), axis=1)

    def answers(self, pairs, side):
        odds = self.truth[side][tuple(pairs.T)]
        return (self.rng.random(len(pairs)) < expit(odds)).astype(int)


def log_odds(head, a, b):
    """[N, M] log odds of the yes of side a, and of side b."""
    e_a, e_b = head.embed(a, "a"), head.embed(b, "b")
    return [head.side_vectors(e_a, side) @ head.side_vectors(e_b, side).T for side in "ab"]


def correlation(first, second):
    return np.corrcoef(first.ravel(), second.ravel())[0, 1]


def test_the_learner_and_its_head_keep_their_contracts():
    check_head(lambda dim: LikesHead(dim=dim, rank=3))
    check_learner(Likes())


@pytest.mark.parametrize("strength", [0.3, 2.0])
def test_the_form_is_that_of_ridge_penalized_logistic_regression_on_products(strength):
    log = Log(people=30, dim=3)
    pairs = log.pairs(300)
    x, y = log.a, log.b
    yes = log.answers(pairs, 0)
    answers = SideAnswers(
        pairs[:, 0],
        pairs[:, 1],
        yes == 1,
        log.rng.uniform(0.5, 2, 300),
        pairs,
        np.zeros(300, np.int64),
        np.full(300, -1),
    )
    first, second = x[pairs[:, 0]], y[pairs[:, 1]]
    products = (first[:, :, None] * second[:, None, :]).reshape(300, -1)
    model = LogisticRegression(C=strength**2, tol=1e-10, max_iter=10_000)
    model.fit(np.hstack([first, second, products]), yes, sample_weight=answers.weights)
    form = fit_bilinear(x, y, answers, Prior(strength, strength))
    expected = np.block(
        [
            [model.intercept_[:, None], model.coef_[:, 3:6]],
            [model.coef_[:, :3].T, model.coef_[0, 6:].reshape(3, 3)],
        ]
    )
    np.testing.assert_allclose(form, expected, atol=2e-3)


def test_the_score_is_the_log_probability_of_a_match_to_first_order():
    log = Log()
    pairs = log.pairs(4000)
    answers = log.answers(pairs, 0), log.answers(pairs, 1)
    data = PairedFeatures.of(log.a, log.b, decisions=Decisions.of(pairs, *answers))
    head = Likes().fit(data).head
    e_a, e_b = head.embed(log.a, "a"), head.embed(log.b, "b")
    np.testing.assert_allclose(np.linalg.norm(e_a, axis=1), 1, atol=1e-5)
    weights = [1 - side.mean() for side in answers]
    of_a, of_b = log_odds(head, log.a, log.b)
    combined = weights[0] * of_a + weights[1] * of_b
    scale = (e_a @ e_b.T).std() / combined.std()
    np.testing.assert_allclose(e_a @ e_b.T, scale * combined, atol=1e-5)
    # and the two log odds are what was planted
    assert correlation(of_a, log.truth[0]) > 0.9
    assert correlation(of_b, log.truth[1]) > 0.9
    for target, odds in (("a_likes", of_a), ("b_likes", of_b)):
        aimed = head.for_target(target)
        scores = aimed.embed(log.a, "a") @ aimed.embed(log.b, "b").T
        np.testing.assert_allclose(scores * (odds.std() / scores.std()), odds, atol=1e-3)


def test_probabilities_are_calibrated_on_new_pairs():
    log = Log(popularity=1.0)
    pairs = log.pairs(12_000)
    train, test = pairs[:6000], pairs[6000:]
    answers = [log.answers(train, side) for side in (0, 1)]
    data = PairedFeatures.of(log.a, log.b, decisions=Decisions.of(train, *answers))
    for side, odds in enumerate(log_odds(Likes().fit(data).head, log.a, log.b)):
        error = expit(odds[tuple(test.T)]) - expit(log.truth[side][tuple(test.T)])
        assert abs(error.mean()) < 0.02
        assert np.abs(error).mean() < 0.06


def test_the_taste_of_one_side_is_learned_from_its_likes_alone():
    log = Log()
    pairs = log.pairs(6000)
    yes = log.answers(pairs, 0)
    nothing = np.full(len(pairs), -1)
    nothing[np.flatnonzero(yes)[:1]] = 1  # one match
    liked = yes == 1
    with_no = PairedFeatures.of(log.a, log.b, decisions=Decisions.of(pairs, yes, nothing))
    fitted = Likes().fit(with_no)
    assert correlation(log_odds(fitted.head, log.a, log.b)[0], log.truth[0]) > 0.9
    # without any rejection, pairs drawn at random stand in for them
    only_likes = Decisions.of(pairs[liked], yes[liked], nothing[liked])
    fitted = Likes().fit(PairedFeatures.of(log.a, log.b, decisions=only_likes))
    assert correlation(log_odds(fitted.head, log.a, log.b)[0], log.truth[0]) > 0.8
    assert any("drawn at random count as a no" in note for note in fitted.notes)
    # the match says that side b liked once, which is too little to learn from
    assert any("strengths are not tuned" in note for note in fitted.notes)


def test_a_rejection_is_evidence_about_the_side_that_said_no_only():
    log = Log(people=60)
    pairs, new = np.split(log.pairs(2000), [1500])
    answers = [log.answers(pairs, side) for side in (0, 1)]
    refused = np.concatenate([pairs, new])
    of_a = np.concatenate([answers[0], np.zeros(500, int)])
    of_b = np.concatenate([answers[1], np.full(500, -1)])

    def fit(*decisions):
        data = PairedFeatures.of(log.a, log.b, decisions=Decisions.of(*decisions))
        return log_odds(Likes().fit(data).head, log.a, log.b)

    before, after = fit(pairs, *answers), fit(refused, of_a, of_b)
    np.testing.assert_allclose(after[1], before[1], atol=1e-4)
    shift = (after[0] - before[0])[tuple(new.T)]
    assert shift.mean() < -0.2


def test_many_likes_help_where_there_are_few_matches():
    log = Log(people=200, dim=12, strength=20)
    pairs = log.pairs(8000)
    answers = np.stack([log.answers(pairs, side) for side in (0, 1)])
    matched = answers.all(0)
    known = answers.copy()
    known[1, ~matched & (answers[0] == 1)] = -1  # asked, not yet answered
    known[0, ~matched & (answers[0] == 0)] = -1  # or only side b said something
    few = pairs[matched][:100]
    only_matches = PairedFeatures.of(log.a, log.b, matches=few)
    data = PairedFeatures.of(log.a, log.b, decisions=Decisions.of(pairs, *known))
    truth = log.truth[0] + log.truth[1]
    scores = []
    for train in (only_matches, data):
        head = Likes().fit(train).head
        scores.append(correlation(head.embed(log.a, "a") @ head.embed(log.b, "b").T, truth))
    assert scores[1] > scores[0] + 0.2
    assert scores[1] > 0.75


def test_weights_of_evidence_leave_evidence_out():
    log = Log(people=80)
    pairs = log.pairs(2000)
    answers = np.stack([log.answers(pairs, side) for side in (0, 1)])
    data = PairedFeatures.of(log.a, log.b, decisions=Decisions.of(pairs, *answers))
    liked = (answers == 1).any(0) & ~(answers == 1).all(0)
    known = answers.copy()
    known[:, liked] = np.where(known[:, liked] == 1, -1, known[:, liked])
    without = PairedFeatures.of(log.a, log.b, decisions=Decisions.of(pairs, *known))
    # the answers that are left out have no weight, and the strengths are given
    options = {"strengths": [0.5], "unseen": 0, "rank": 8}
    first = Likes(like_weight=0, **options).fit(data).head
    second = Likes(**options).fit(without).head
    for one, other in zip(
        log_odds(first, log.a, log.b), log_odds(second, log.a, log.b), strict=True
    ):
        assert correlation(one, other) > 0.999


def test_unseen_candidates_come_from_the_pool_and_nothing_is_known_of_them():
    rng = np.random.default_rng(0)
    pairs = np.array([(row, row) for row in range(40)])
    pool = [f"p{row // 10}" for row in range(40)]
    data = PairedFeatures.of(
        rng.normal(size=(40, 3)),
        rng.normal(size=(40, 3)),
        decisions=Decisions.of(pairs, np.ones(40, int), np.ones(40, int)),
        pools=Pools.of(pairs, pool),
    )
    known = SideAnswers.of(data, "b", match=1, like=1, rejection=1)
    answers, drawn = known.with_unseen(data, "b", None, rng)
    assert len(answers) == 40 + drawn
    assert 40 * 5 * 0.7 < drawn < 40 * 5
    new = answers.select(~answers.yes)
    np.testing.assert_array_equal(new.askers // 10, new.candidates // 10)
    assert (new.askers != new.candidates).all()
    assert len(np.unique(new.candidates)) > 30


def test_one_sided_sets_learn_one_taste_for_both_roles():
    log = Log(people=150, strength=20)
    odds = log.truth[0]
    people = log.a
    x = unit_rows(people).astype(float)
    odds = x @ (np.linalg.pinv(x) @ (odds + 1) @ np.linalg.pinv(unit_rows(log.b)).T) @ x.T - 1
    pairs = np.array([(i, j) for i in range(150) for j in range(i + 1, 150)])
    pairs = pairs[log.rng.permutation(len(pairs))[:5000]]
    said = [
        (log.rng.random(5000) < expit(odds[first, second])).astype(int)
        for first, second in (pairs.T, pairs.T[::-1])
    ]
    head = Likes().fit(PairedFeatures.of(people, decisions=Decisions.of(pairs, *said))).head
    there, back = log_odds(head, people, people)
    np.testing.assert_allclose(back, there.T, atol=1e-3)
    assert correlation(there, odds) > 0.9


def test_reciprocal_search_combines_the_probabilities_of_both_sides():
    log = Log(people=50)
    pairs = log.pairs(1500)
    answers = [log.answers(pairs, side) for side in (0, 1)]
    head = (
        Likes().fit(PairedFeatures.of(log.a, log.b, decisions=Decisions.of(pairs, *answers))).head
    )
    e_a, e_b = head.embed(log.a, "a"), head.embed(log.b, "b")
    rows, values = reciprocal_top_k(
        (head.side_vectors(e_a, "a"), head.side_vectors(e_b, "a")),
        (head.side_vectors(e_a, "b"), head.side_vectors(e_b, "b")),
        5,
        probability_there=expit,
        probability_back=expit,
    )
    both = reciprocal(*(expit(odds) for odds in log_odds(head, log.a, log.b)))
    np.testing.assert_array_equal(rows, np.argsort(-both, axis=1)[:, :5])
    np.testing.assert_allclose(values, np.take_along_axis(both, rows, 1), atol=1e-6)
    with pytest.raises(ConfigurationError, match="of a head for the other side"):
        head.for_target("a_likes").side_vectors(e_a, "b")
    with pytest.raises(ConfigurationError, match=r"takes embeddings \[people, "):
        head.side_vectors(log.a, "a")


def test_a_matcher_with_likes_is_saved_served_and_evaluated_like_any_other(tmp_path, small_pairs):
    people = small_pairs(30).people
    rng = np.random.default_rng(0)
    shown = np.argwhere(rng.random((30, 30)) < 0.5)
    liked = rng.random((len(shown), 2)) < 0.6
    pairs = Pairs.of(
        people,
        [
            Pair(f"a{i}", f"b{j}", a_likes=bool(by_a), b_likes=bool(by_b))
            for (i, j), (by_a, by_b) in zip(shown, liked, strict=True)
        ],
    )
    options = {"backbone": "descriptor", "metadata": None, "store": tmp_path / "store.sqlite"}
    matcher = Matcher(learner="likes", **options).fit(pairs)
    loaded = Matcher.load(matcher.save(tmp_path / "saved"), store=tmp_path / "store.sqlite")
    assert type(loaded.learner) is Likes
    asking = [profile for profile in people if profile.id.startswith("a")]
    candidates = [profile for profile in people if profile.id.startswith("b")]
    np.testing.assert_array_equal(loaded.embed(asking), matcher.embed(asking))
    gallery = loaded.gallery(candidates)
    best = loaded.recommend(asking[0], gallery, k=30)
    scores = dict(zip(gallery.ids, gallery.embeddings @ loaded.embed(asking[:1])[0], strict=True))
    assert [entry.profile.id for entry in best] == sorted(scores, key=lambda name: -scores[name])
    evaluation = loaded.evaluate(pairs, target="b_likes", resamples=50)
    expected = Evaluator(resamples=50).evaluate(
        loaded.paired_features(pairs), loaded.fitted_head, target="b_likes"
    )
    assert evaluation.auc == expected.auc
    assert evaluation.to_dict()["target"] == "b_likes"


def test_few_answers_and_unknown_ones_are_noted():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 10, 4))
    fitted = Likes().fit(PairedFeatures.of(a, b, rejected=[(0, 1), (2, 3)]))
    text = " ".join(fitted.notes)
    assert "2 pairs teach `likes` nothing: it is not known who said what." in text
    assert "Only 10 independent people said yes or were liked" in text
    with pytest.raises(ConfigurationError, match="needs answers: matches, or decisions"):
        Likes(match_weight=0).fit(PairedFeatures.of(a, b))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strengths": []}, r"strengths=\.\.\.\)` must be above 0 and ascending"),
        ({"strengths": [0.0, 1.0]}, "must be above 0"),
        ({"strengths": [1.0, 0.5]}, "ascending"),
        ({"like_weight": -1}, "must be finite and at least 0"),
        ({"match_weight": float("inf")}, "must be finite and at least 0"),
        ({"rank": 0}, "rank must be at least 1"),
        ({"folds": 1}, "folds at least 2"),
        ({"unseen": -1}, "unseen at least 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Likes(**options)


def test_coordinates_are_principal_and_have_mean_square_length_one():
    rng = np.random.default_rng(0)
    data = PairedFeatures.of(
        rng.normal(size=(40, 6)) * [5, 4, 3, 1, 1, 1], rng.normal(size=(40, 6))
    )
    coordinates = Coordinates.of(data, 3)
    for side, rows in enumerate((coordinates.a, coordinates.b)):
        np.testing.assert_allclose(np.square(rows).sum(1).mean(), 1)
        centered = unit_rows((data.a, data.b)[side]) - coordinates.means[side]
        _, _, directions = np.linalg.svd(centered, full_matrices=False)
        kept = rows @ np.linalg.pinv(coordinates.maps[side])
        np.testing.assert_allclose(kept, centered @ directions[:3].T @ directions[:3], atol=1e-5)


@pytest.mark.parametrize("target", ["a_likes", "b_likes"])
def test_folds_hold_equally_much_of_the_target(target):
    """Few matches and many likes: folds by people follow the likes."""
    rng = np.random.default_rng(11)
    pairs = np.array([(i, j) for i in range(60) for j in range(60) if rng.random() < 0.5])
    yes = [np.ones(len(pairs), int), (rng.random(len(pairs)) < 0.05).astype(int)]
    if target == "b_likes":
        yes = yes[::-1]
    data = PairedFeatures.of(*rng.normal(size=(2, 60, 4)), decisions=Decisions.of(pairs, *yes))
    said = data.decisions.a if target == "a_likes" else data.decisions.b
    splits = cross_validation_splits(data, repeats=1, folds=3, target=target)
    assert {split.by for split in splits} == {"people"}
    held = [int((said[data.positions(split.test)] == 1).sum()) for split in splits]
    assert max(held) < 1.25 * min(held)
    for split in splits:
        tested, trained = (data.people_of(part) for part in (split.test, split.train))
        for side in (0, 1):
            assert not np.intersect1d(tested[side], trained[side]).size
        inside = [np.isin(data.decisions.pairs[:, side], tested[side]) for side in (0, 1)]
        assert len(data.positions(split.test)) == np.logical_and(*inside).sum()
    result = cross_validate(data, ["likes"], repeats=1, folds=3, target=target, ks=[5])
    assert set(result.chance["direction"]) == {0 if target == "a_likes" else 1}
    assert f"of {sum(said == 1)} pairs with a yes of side {target[0]} train" in str(result)
    one_new = cross_validate(data, ["likes"], repeats=1, folds=3, target=target, unseen="a", ks=[5])
    sizes = np.unique(one_new.chance["candidates"])
    assert max(sizes) == 60 if target == "a_likes" else max(sizes) <= 21

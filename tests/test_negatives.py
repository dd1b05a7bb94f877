"""Hard negatives are the people closest to a known partner, and never who may be one."""

import numpy as np
import pytest

from pairmatch import PairedFeatures, Trainer, TrainingConfig
from pairmatch.core.decisions import UNKNOWN, Decisions
from pairmatch.core.errors import ConfigurationError
from pairmatch.learning.batches import Batches
from pairmatch.learning.negatives import NEAR_DUPLICATE, mine_negatives


def draw(n=30, seed=0, width=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)), rng.normal(size=(n, width))


def by_loops(gallery, partners, forbidden, count, skip):
    """The definition, one candidate at a time."""
    centered = gallery - gallery.mean(axis=0)
    unit = centered / np.linalg.norm(centered, axis=1, keepdims=True)
    closeness = {}
    for row in range(len(gallery)):
        cosine = max(float(unit[row] @ unit[partner]) for partner in partners)
        if row not in forbidden and cosine < NEAR_DUPLICATE:
            closeness[row] = cosine
    return sorted(closeness, key=lambda row: -closeness[row])[skip : skip + count]


def test_negatives_are_the_closest_to_any_partner():
    a, b = draw()
    matches = [(row, row) for row in range(0, 30, 2)] + [(0, 5), (0, 9), (4, 5)]
    rejected = [(2, 7), (6, 1)]
    data = PairedFeatures.of(a, b, matches=matches, rejected=rejected)
    of_a, of_b = mine_negatives(data, 3, skip=2)
    pairs = {(x, y) for x, y in [*matches, *rejected]}
    for person in range(0, 30, 2):
        partners = [y for x, y in matches if x == person]
        known = {y for x, y in pairs if x == person}
        expected = by_loops(b, partners, known, 3, 2)
        assert of_a[of_a[:, 0] == person, 1].tolist() == expected
    for person in {y for _, y in matches}:
        partners = [x for x, y in matches if y == person]
        known = {x for x, y in pairs if y == person}
        assert of_b[of_b[:, 1] == person, 0].tolist() == by_loops(a, partners, known, 3, 2)
    assert set(of_a[:, 0]) == set(range(0, 30, 2))  # people without a match have no partner


def test_one_sided_negatives_are_never_the_person():
    people = draw(40)[0]
    matches = [(row, row + 20) for row in range(20)]
    data = PairedFeatures.of(people, matches=matches)
    of_a, of_b = mine_negatives(data, 4)
    assert np.array_equal(of_a, of_b[:, ::-1])
    for person in range(40):
        partner = (person + 20) % 40
        found = of_a[of_a[:, 0] == person, 1].tolist()
        assert found == by_loops(people, [partner], {person, partner}, 4, 0)


def test_people_of_the_same_group_and_near_duplicates_are_left_out():
    a, b = draw()
    b[0] = [5, 0, 0, 0, 0]
    b[1] = [5, 0.01, 0, 0, 0]  # the same photo, saved again
    b[2] = [5, 0, 2, 0, 0]
    b[3] = [5, 0, 0, 3, 0]
    groups = [0, 1, 2, 0, *range(4, 30)]  # pairs 0 and 3 are of one household
    data = PairedFeatures.of(a, b, groups=groups)
    free = PairedFeatures.of(a, b)
    assert mine_negatives(free, 1)[0][0].tolist() == [0, 2]
    assert 3 in mine_negatives(free, 2)[0][:2, 1]
    found = mine_negatives(data, 29)[0]
    assert not {1, 3} & set(found[found[:, 0] == 0, 1].tolist())
    assert 0 not in found[found[:, 0] == 3, 1]


def test_open_pairs_are_no_negatives():
    a, b = draw(8)
    first = mine_negatives(PairedFeatures.of(a, b), 1)[0][0].tolist()
    pairs = np.array([*((row, row) for row in range(8)), first])
    yes = np.array([1] * 8 + [1], np.int8)
    other = np.array([1] * 8 + [UNKNOWN], np.int8)
    data = PairedFeatures.of(a, b, decisions=Decisions(pairs, yes, other))
    assert len(data.open) == 1
    assert mine_negatives(data, 1)[0][0].tolist() != first


def test_batches_hold_the_mined_people_as_negatives():
    a, b = draw(60)
    data = PairedFeatures.of(a, b, matches=[(row, row) for row in range(20)])
    config = TrainingConfig(batch_size=5, hard_negatives=2, hard_negatives_skip=1)
    of_a, of_b = mine_negatives(data, 2, skip=1)
    for rows_a, rows_b, positives, _ in Batches(data, config).epoch():
        asked, answered = set(rows_a[:5].tolist()), set(rows_b[:5].tolist())
        mined = {y for x, y in of_a.tolist() if x in asked} - answered
        assert set(rows_b[5:].tolist()) <= mined
        assert len(rows_b) - 5 == min(5, len(mined))  # at most a batch's worth
        assert set(rows_a[5:].tolist()) <= {x for x, y in of_b.tolist() if y in answered}
        expected = [[x == y and x < 20 for y in rows_b.tolist()] for x in rows_a.tolist()]
        assert positives.tolist() == expected
    plain = TrainingConfig(batch_size=5)
    assert all(len(rows_b) == 5 for _, rows_b, _, _ in Batches(data, plain).epoch())


def test_training_with_hard_negatives_separates_them_better():
    a, b = draw(60, seed=3, width=16)
    data = PairedFeatures.of(a, b)
    of_a, _ = mine_negatives(data, 1)
    scores = []
    for count in (0, 1):
        config = TrainingConfig(
            epochs=15, batch_size=6, learning_rate=1e-2, hard_negatives=count, hard_negatives_skip=0
        )
        head = Trainer("linear", config=config).fit(data).head
        e_a, e_b = head.embed(data.a, "a"), head.embed(data.b, "b")
        partner = (e_a * e_b).sum(axis=1)
        scores.append(
            (partner[of_a[:, 0]] - (e_a[of_a[:, 0]] * e_b[of_a[:, 1]]).sum(axis=1)).mean()
        )
    assert scores[1] > scores[0]


def planted(seed, people=300, traits=6):
    """One known match per person, and all people whom they would match: those with the best fit."""
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(size=(people, traits)) for _ in "ab")
    fit = a @ np.linalg.qr(rng.normal(size=(traits, traits)))[0] @ b.T
    matches = fit >= np.quantile(fit, 0.97)
    rows = np.flatnonzero(matches.any(axis=1))
    known = [(row, rng.choice(np.flatnonzero(matches[row]))) for row in rows]
    return PairedFeatures.of(a, b, matches=known), matches


def test_close_people_are_unknown_matches_more_often_than_others():
    near, far, others = [], [], []
    for seed in range(4):
        data, matches = planted(seed)
        for rates, skip in ((near, 0), (far, 50)):
            pairs = mine_negatives(data, 1, skip=skip)[0]
            rates.append(matches[pairs[:, 0], pairs[:, 1]].mean())
        others.append(matches.mean())
    assert np.mean(near) > 4 * np.mean(others)
    assert np.mean(near) > 2 * np.mean(far)


@pytest.mark.parametrize("option", ["hard_negatives", "hard_negatives_skip"])
def test_counts_are_whole_and_not_negative(option):
    with pytest.raises(ConfigurationError, match=f"{option} must be at least 0, got -1"):
        TrainingConfig(**{option: -1})
    with pytest.raises(ConfigurationError, match=f"{option} must be a whole number, got 0.5"):
        TrainingConfig(**{option: 0.5})


@pytest.mark.parametrize("seed", range(30))
def test_no_random_graph_has_a_forbidden_negative(seed):
    """People with several pairs, groups of several pairs, twins; the oracle reads the input."""
    rng = np.random.default_rng(seed)
    one_sided = bool(seed % 2)
    n, m = rng.integers(15, 25, 2).tolist()
    a = rng.normal(size=(n, 4)).astype(np.float32)
    b = None if one_sided else rng.normal(size=(m, 4)).astype(np.float32)
    a[1] = a[0]  # one person under two ids
    pairs = [
        (i, j) for i in range(n) for j in range(i + 1 if one_sided else 0, n if b is None else m)
    ]
    chosen = rng.choice(len(pairs), min(len(pairs), 30), replace=False)
    outcomes = rng.integers(0, 3, len(chosen))
    rows = {kind: [pairs[p] for p in chosen[outcomes == kind]] for kind in range(3)}
    said = {0: (1, 1), 1: (1, 0), 2: (1, -1)}  # match, rejected, open
    decided = [(pair, said[kind]) for kind in range(3) for pair in rows[kind]]
    labels = [int(g) if g < 4 else None for g in rng.integers(0, 20, len(decided))]
    decisions = Decisions(
        np.array([pair for pair, _ in decided]),
        *(np.array([votes[side] for _, votes in decided], np.int8) for side in (0, 1)),
    )
    data = PairedFeatures.of(a, b, decisions=decisions, groups=labels, join_identical=True)

    def person(side, row):
        return (0 if one_sided else side, row)

    # Units by flooding: the people of a group, and those with equal features
    unit = {
        person(side, row): {person(side, row)} for side in (0, 1) for row in range((n, m)[side])
    }
    links = [(person(0, 0), person(0, 1))]
    for label in set(labels) - {None}:
        rows_of = [pair for (pair, _), other in zip(decided, labels, strict=True) if other == label]
        members = [person(side, pair[side]) for pair in rows_of for side in (0, 1)]
        links += [(members[0], member) for member in members[1:]]
    for one, two in links:
        if unit[one] is not unit[two]:
            unit[one] |= unit[two]
            for member in unit[one]:
                unit[member] = unit[one]

    known = {frozenset({(0, i), (1, j)}) for (i, j), _ in decided}
    partners = {}
    for i, j in rows[0]:
        partners.setdefault(person(0, i), set()).add(person(1, j))
        partners.setdefault(person(1, j), set()).add(person(0, i))
    mined = mine_negatives(data, 50)
    assert sum(map(len, mined)) > 0
    for asking, negatives in ((0, mined[0]), (1, mined[1][:, ::-1])):
        for row, other in negatives.tolist():
            who, whom = person(asking, row), person(1 - asking, other)
            assert who != whom
            assert who in partners
            ends = frozenset({(asking, row), (1 - asking, other)})
            assert ends not in known
            if one_sided:
                assert frozenset({(1 - asking, row), (asking, other)}) not in known
            assert whom not in unit[who]
            assert not any(whom in unit[partner] for partner in partners[who])

"""What was known in training: figures of new and of seen people, compared with loops."""

import numpy as np
import pytest

from pairmatch import Evaluator, Matcher, Pair, Pairs, Profile
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.data.time_splits import split_before_test
from pairmatch.evaluation.known import Known, without_known


def pairs_of(matches, *, rejected=(), sides=2, groups=None):
    groups = groups or {}
    pairs = [Pair(a, b, group=groups.get((a, b))) for a, b in matches]
    pairs += [Pair(a, b, "rejected") for a, b in rejected]
    people = dict.fromkeys(person for pair in pairs for person in (pair.a, pair.b))
    return Pairs.of([Profile(person, text=person) for person in people], pairs, sides=sides)


def log(rng, *, people=14, sides=2):
    """(known, later) pairs: half of the people of each side are only in the later ones."""
    b = "a" if sides == 1 else "b"
    possible = [
        (f"a{i}", f"{b}{j}") for i in range(people) for j in range(people) if sides == 2 or i < j
    ]
    drawn = [possible[row] for row in rng.permutation(len(possible))[: len(possible) // 2]]
    old = [(a, b) for a, b in drawn if int(a[1:]) % 2 and int(b[1:]) % 2]
    later = [pair for pair in drawn if pair not in old]
    more = old[: len(old) // 3]  # seen people match each other later, too
    return pairs_of(old[len(more) :], sides=sides), pairs_of([*later, *more], sides=sides)


def features(pairs, width=4):
    def rows(ids):
        return np.stack([np.random.default_rng([*map(ord, i)]).normal(size=width) for i in ids])

    return pairs.with_features(rows(pairs.ids_a), None if pairs.sides == 1 else rows(pairs.ids_b))


def expected(pairs, known, *, of_seen):
    """[(query, direction, reciprocal rank, candidates)] by loops over people."""
    data = features(pairs)
    seen = set(known.profiles)
    sides = [pairs.ids_a, pairs.ids_b]
    vectors = [dict(zip(pairs.ids_a, data.a, strict=True))]
    vectors.append(vectors[0] if data.b is None else dict(zip(pairs.ids_b, data.b, strict=True)))
    matches = {(pair.a, pair.b) for pair in pairs.pairs}
    if not of_seen:
        matches = {(a, b) for a, b in matches if a not in seen and b not in seen}
    before = {(pair.a, pair.b) for pair in known.pairs}
    if pairs.sides == 1:
        matches |= {pair[::-1] for pair in matches}
        before |= {pair[::-1] for pair in before}
    present = {person for pair in matches for person in pair}
    rows = []
    for direction in range(pairs.sides):
        for query in sides[direction]:
            partners = {pair[1 - direction] for pair in matches if pair[direction] == query}
            if not partners or (of_seen and query not in seen):
                continue
            known_partners = {pair[1 - direction] for pair in before if pair[direction] == query}
            own = vectors[direction][query]
            score = {
                candidate: own @ v / np.linalg.norm(own) / np.linalg.norm(v)
                for candidate, v in vectors[1 - direction].items()
                if candidate in present and candidate != query and candidate not in known_partners
            }
            best = max(score[partner] for partner in partners)
            rank = sum(value >= best - 1e-9 for value in score.values())
            rows.append((query, direction, 1 / rank, len(score)))
    return rows


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_figures_of_new_and_seen_people_match_loops(sides, seed):
    known, later = log(np.random.default_rng(seed), sides=sides)
    evaluation = Evaluator(resamples=0).evaluate(features(later), known=Known.of(later, known))
    for part, of_seen in ((evaluation, False), (evaluation.seen, True)):
        rows = expected(later, known, of_seen=of_seen)
        table = part.table
        assert sorted(table["candidates"].tolist()) == sorted(row[3] for row in rows)
        assert sorted(table["reciprocal_rank"]) == pytest.approx(sorted(row[2] for row in rows))
        assert part.both.mrr == pytest.approx(np.mean([row[2] for row in rows]))
        assert set(table["seen"].tolist()) == {int(of_seen)}
    assert len({row[3] for row in expected(later, known, of_seen=True)}) > 1
    text = str(evaluation)
    assert "People who were seen in training:" in text
    assert "each among at least" in text
    assert evaluation.to_dict()["seen"]["both"]["mrr"] == evaluation.seen.both.mrr


def test_people_of_a_known_group_are_seen():
    known = pairs_of([("a0", "b0"), ("a9", "b9")], groups={("a0", "b0"): "home"})
    later = pairs_of([("a1", "b1"), ("a2", "b2"), ("a3", "b3")], groups={("a1", "b1"): "home"})
    evaluation = Evaluator(resamples=0).evaluate(features(later), known=Known.of(later, known))
    assert evaluation.candidates == (2, 2)
    assert evaluation.seen.queries == 2


def test_without_new_people_the_figures_are_those_of_seen_people():
    known = pairs_of([("a0", "b0"), ("a1", "b1"), ("a2", "b2")])
    later = pairs_of([("a0", "b1"), ("a1", "b2"), ("a2", "b0")])
    evaluation = Evaluator(resamples=0).evaluate(features(later), known=Known.of(later, known))
    assert evaluation.seen is None
    assert "Only 0 of 3 matches are between two new people" in evaluation.notes[-1]
    assert evaluation.candidates == (2, 2)


def test_nobody_seen_is_an_ordinary_evaluation():
    known = pairs_of([("a90", "b90")])
    later = pairs_of([(f"a{i}", f"b{i}") for i in range(6)])
    evaluation = Evaluator().evaluate(features(later), known=Known.of(later, known))
    assert evaluation.both == Evaluator().evaluate(features(later)).both
    assert evaluation.seen is None


def test_known_matches_are_not_to_be_found():
    known = pairs_of([("a0", "b0"), ("a1", "b1")])
    later = pairs_of([("a0", "b0"), ("a0", "b2")], rejected=[("a1", "b2")])
    rest, count = without_known(later, known)
    assert count == 1
    assert [(pair.a, pair.b) for pair in rest.pairs] == [("a0", "b2"), ("a1", "b2")]
    with pytest.raises(DataError, match="All 2 matches to test on were known at training time"):
        without_known(known, known)
    turned = pairs_of([("x", "y"), ("y", "z")], sides=1)
    assert without_known(turned, pairs_of([("y", "x")], sides=1))[1] == 1
    swapped = pairs_of([(pair.b, pair.a) for pair in known.pairs])
    match = r"people change sides, the first is '\w+': id_a in the pairs to test on, id_b in those"
    with pytest.raises(DataError, match=match):
        without_known(later, swapped)
    with pytest.raises(DataError, match=match):
        split_before_test(swapped, later, validation=0.0, seed=0)


def test_rows_of_other_people_and_known_matches_are_refused():
    later = pairs_of([("a0", "b0"), ("a1", "b1")])
    known = Known.of(later, pairs_of([("a0", "b5")]))
    other = features(pairs_of([("a0", "b0"), ("a1", "b1"), ("a2", "b2")]))
    with pytest.raises(ConfigurationError, match=r"build it with `Known\.of"):
        Evaluator().evaluate(other, known=known)
    with pytest.raises(ConfigurationError, match="matches that are to be found"):
        Evaluator().evaluate(features(later), known=Known.of(later, later))


def test_a_matcher_reports_new_and_seen_people_apart(hash_backbone, tmp_path):
    known, later = log(np.random.default_rng(5), people=24)
    repeated = known.pairs[0]
    later = Pairs.of(
        {**known.profiles, **later.profiles}.values(), [*later.pairs, repeated], sides=2
    )
    matcher = Matcher(
        backbone=hash_backbone, metadata=None, learner="whitened", store=tmp_path / "store.sqlite"
    )
    matcher.fit(known)
    evaluation = matcher.evaluate(later, known=known, resamples=0)
    assert "1 matches are left out: they were known at training time." in evaluation.notes
    assert not any("took part in training" in note for note in evaluation.notes)
    assert evaluation.seen.frozen is not None
    mixed = matcher.evaluate(later, resamples=0)
    assert any("took part in training" in note for note in mixed.notes)
    assert mixed.seen is None
    one_sided = pairs_of([("x", "y"), ("y", "z")], sides=1)
    with pytest.raises(ConfigurationError, match=r"sides=2, got 1, 2\."):
        matcher.evaluate(later, known=one_sided)


def test_inside_pools_the_figures_are_those_of_each_pool():
    rng = np.random.default_rng(6)
    apart = [log(rng), log(rng)]
    north, south = (
        [
            Pairs.of(
                [Profile(f"{person}{pool}") for person in part.profiles],
                [Pair(f"{pair.a}{pool}", f"{pair.b}{pool}", pool=pool) for pair in part.pairs],
            )
            for part in parts
        ]
        for pool, parts in zip("NS", apart, strict=True)
    )
    known, later = (first.joined(second) for first, second in zip(north, south, strict=True))
    pooled = later.with_features(features(later).a, features(later).b)
    assert pooled.pools is not None
    together = Evaluator(resamples=0).evaluate(pooled, known=Known.of(later, known))
    single = [
        Evaluator(resamples=0).evaluate(features(after), known=Known.of(after, before))
        for before, after in (north, south)
    ]
    for part, others in (
        (together, single),
        (together.seen, [evaluation.seen for evaluation in single]),
    ):
        for column in ("reciprocal_rank", "candidates"):
            expected = np.sort(np.concatenate([other.table[column] for other in others]))
            assert np.sort(part.table[column]) == pytest.approx(expected)


def test_targets_ask_one_side():
    """With `a_likes`, only people of side a ask; of seen ones there may be none."""
    pairs = [Pair("a1", "b0", a_likes=True), Pair("a2", "b0", a_likes=True)]
    pairs += [Pair(f"a{i}", f"b{i}", a_likes=True, b_likes=i < 5 or None) for i in range(3, 9)]
    people = dict.fromkeys(person for pair in pairs for person in (pair.a, pair.b))
    later = Pairs.of([Profile(person, text=person) for person in people], pairs)
    known = pairs_of([("a0", "b0")])
    vectors = np.random.default_rng(7).normal(size=(16, 4))
    data = later.with_features(vectors[:8], vectors[8 : 8 + len(later.ids_b)])
    facts = Known.of(later, known)
    evaluation = Evaluator(resamples=0).evaluate(data, known=facts, target="a_likes")
    assert (evaluation.queries, evaluation.seen) == (6, None)


def test_a_known_yes_is_neither_found_nor_wrong():
    """The scorer puts the known yes first and the new one second; b's answer is news for b."""
    known = Pairs.of(
        [Profile(person, text=person) for person in ("a0", "b0", "b9")],
        [Pair("a0", "b0", a_likes=True), Pair("a0", "b9", a_likes=False, b_likes=True)],
    )
    pairs = [Pair("a0", "b0", a_likes=True, b_likes=True), Pair("a0", "b1", a_likes=True)]
    pairs += [Pair("a1", "b2", a_likes=True), Pair("a2", "b3", a_likes=True, b_likes=False)]
    people = dict.fromkeys(person for pair in pairs for person in (pair.a, pair.b))
    later = Pairs.of([Profile(person, text=person) for person in people], pairs)
    rest, count = without_known(later, known, "a_likes")
    assert count == 1
    assert {(pair.a, pair.b) for pair in rest.pairs} == {("a0", "b1"), ("a1", "b2"), ("a2", "b3")}
    assert without_known(later, known, "b_likes") == (later, 0)
    assert without_known(later, known) == (later, 0)
    wide = Pairs.of(
        [*later.people, Profile("a3", text="x")], [*rest.pairs, Pair("a3", "b0", a_likes=True)]
    )
    assert Known.of(wide, known, "a_likes").matches.tolist() == [
        [wide.ids_a.index("a0"), wide.ids_b.index("b0")]
    ]
    assert not len(Known.of(wide, known).matches)
    rows = {"a0": (3, 2, 0), "b0": (1, 0, 0), "b1": (0.6, 0.8, 0)}
    vectors = [
        np.array([rows.get(person, (0, 0.1, 1)) for person in ids], float)
        for ids in (wide.ids_a, wide.ids_b)
    ]
    seen = (
        Evaluator(resamples=0)
        .evaluate(
            wide.with_features(*vectors),
            known=Known.of(wide, known, "a_likes"),
            target="a_likes",
        )
        .seen
    )
    row = next(r for r in seen.table.rows() if wide.ids_a[r["query"]] == "a0")
    assert (row["candidates"], row["reciprocal_rank"]) == (3, 1)
    with pytest.raises(DataError, match="All 1 pairs with a yes of side a to test on were known"):
        without_known(later.subset([0]), known, "a_likes")

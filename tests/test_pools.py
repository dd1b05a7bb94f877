"""Pools of those who could meet: ranks, chance and splits inside them, against loops."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from typer.testing import CliRunner

from pairmatch.cli import app
from pairmatch.core.arrays import unit_rows
from pairmatch.core.decisions import Decisions
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.joining import join_features
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.pools import Pools
from pairmatch.core.types import Pair, Profile
from pairmatch.data import Pairs
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.evaluation.diagnostics import hubness, pair_scores
from pairmatch.evaluation.evaluator import Evaluator
from pairmatch.evaluation.pooled_ranks import most_candidates, pool_blocks, rank_all
from pairmatch.evaluation.query_table import rank_queries
from pairmatch.evaluation.splits import cross_validation_splits
from pairmatch.learning.heads import build_head
from pairmatch.learning.margins import Margins

KS = (1, 2, 5)


def random_pools(seed, *, one_sided=False, without=0.1):
    """Features with many ties, and pools of a few people each, some of whom are in several."""
    rng = np.random.default_rng(seed)
    sizes = (24, 24 if one_sided else 20)
    angles = rng.integers(5, size=(2, 24))
    features = [np.stack([np.cos(angle), np.sin(angle)], axis=1) for angle in angles]
    names = [f"event {number}" for number in range(6)]
    further = [
        [[name for name in names if rng.random() < 0.15] for _ in range(size)] for size in sizes
    ]
    if one_sided:
        further[1] = further[0]
    every = [(i, j) for i in range(sizes[0]) for j in range(sizes[1]) if not one_sided or i < j]
    chosen = [every[row] for row in rng.choice(len(every), 30, replace=False)]
    pool = [None if rng.random() < without else names[rng.integers(6)] for _ in chosen]
    pools = Pools.of(
        chosen, pool, a=further[0], b=() if one_sided else further[1], one_sided=one_sided
    )
    data = PairedFeatures.of(
        features[0],
        None if one_sided else features[1][: sizes[1]],
        matches=chosen,
        pools=pools,
    )
    people = [{name: set() for name in names} for _ in sizes]
    for side, lists in enumerate(further):
        for person, group in enumerate(lists):
            for name in group:
                people[side][name].add(person)
    pool_of = {}
    for (first, second), name in zip(chosen, pool, strict=True):
        shared = [other for other in further[0][first] if other in further[1][second]]
        name = name or next(iter(shared), None)
        pool_of[first, second] = name or ""
        if name:
            people[0][name].add(first)
            people[1][name].add(second)
    if one_sided:
        people = [{name: people[0][name] | people[1][name] for name in names}] * 2
    everyone = [set(range(size)) for size in sizes]
    people = [side | {"": all_of} for side, all_of in zip(people, everyone, strict=True)]
    return data, pool_of, people


def expected_best(ahead, tied, partners):
    """Mean of 1 / rank of the first of some partners in all orders of the tied candidates."""
    places = [min(places) for places in combinations(range(1, tied + 1), partners)]
    return float(np.mean([1 / (ahead + place) for place in places]))


def loops(data, pool_of, people, known=()):
    """{(direction, query, pool): (recall at each K, 1 / rank, chance of both, candidates)}."""
    e_a = unit_rows(data.a)
    e_b = e_a if data.b is None else unit_rows(data.b)
    directed = [(0, first, second, name) for (first, second), name in pool_of.items()]
    directions = 0 if data.one_sided else 1
    directed += [(directions, second, first, name) for (first, second), name in pool_of.items()]
    known = {(0, first, second) for first, second in known} | {
        (directions, second, first) for first, second in known
    }
    rows = {}
    for direction, query, _, name in directed:
        left, right = (e_a, e_b) if direction == 0 else (e_b, e_a)
        partners = [
            other
            for way, person, other, pool in directed
            if (way, person, pool) == (direction, query, name)
        ]
        candidates = [
            other
            for other in people[1 - direction][name]
            if (direction, query, other) not in known
            and not (data.one_sided and other == query)
            and not any(
                (way, person, partner) == (direction, query, other) and pool != name
                for way, person, partner, pool in directed
            )
        ]
        scores = {other: float(left[query] @ right[other]) for other in candidates}
        found = []
        for partner in partners:
            ahead = sum(score > scores[partner] + 1e-5 for score in scores.values())
            tied = sum(abs(score - scores[partner]) < 1e-5 for score in scores.values())
            found.append((ahead, tied))
        recall = [
            np.mean([min(max((k - above) / same, 0), 1) for above, same in found]) for k in KS
        ]
        best = min(found)
        size = len(candidates)
        rows[direction, query, name] = (
            *recall,
            expected_best(*best, found.count(best)),
            *(min(k / size, 1) for k in KS),
            expected_best(0, size, len(partners)),
            size,
        )
    return rows


def measured(table, chance):
    return {
        (row["direction"], row["query"], row["pool"]): (
            *(row[f"recall_at_{k}"] for k in KS),
            row["reciprocal_rank"],
            *(other[f"recall_at_{k}"] for k in KS),
            other["reciprocal_rank"],
            row["candidates"],
        )
        for row, other in zip(table.rows(), chance.rows(), strict=True)
    }


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_ranks_inside_pools_equal_loops(seed, one_sided):
    data, pool_of, people = random_pools(seed, one_sided=one_sided)
    others = data.a if one_sided else data.b
    ranked = rank_queries(data, unit_rows(data.a), unit_rows(others), KS)
    expected = loops(data, pool_of, people)
    names = ("a_to_b", "b_to_a")
    expected = {(names[way], *rest): row for (way, *rest), row in expected.items()}
    found = measured(ranked.table, ranked.chance)
    assert found.keys() == expected.keys()
    for query, row in expected.items():
        assert found[query] == pytest.approx(row, abs=1e-9), query
    assert ranked.table.queries == len(expected)
    pairs = {frozenset(pair) if one_sided else pair for pair in pool_of}
    for direction, ranks in enumerate(ranked.ranks):
        ends = np.stack([ranks.queries, ranks.partners], axis=1)[:, :: -1 if direction else 1]
        found = [frozenset(pair) if one_sided else tuple(pair) for pair in ends.tolist()]
        assert set(found) == pairs
        assert len(ranked.table.links.units) == sum(len(part.queries) for part in ranked.ranks)
    assert len({name for *_, name in expected}) > 4
    assert most_candidates(data) == max(row[-1] for row in expected.values())


@pytest.mark.parametrize("target", ["match", "a_likes", "b_likes"])
def test_partners_of_other_days_are_neither_found_nor_wrong(target):
    """Eight people per side meet on five days; the scorer knows all partners of every day."""
    rng = np.random.default_rng(8)
    pairs = {}
    for day in range(5):
        for first, second in enumerate(rng.permutation(8).tolist()):
            pairs.setdefault((first, second), f"day {day}")
    chosen = list(pairs)
    b = np.zeros((8, 8))
    b[tuple(np.transpose(chosen)[::-1])] = 1
    every_day = [sorted(set(pairs.values()))] * 8
    yes = np.ones(len(chosen), int)
    answers = {"match": (yes, yes), "a_likes": (yes, 0 * yes), "b_likes": (0 * yes, yes)}
    data = PairedFeatures.of(
        np.eye(8),
        b,
        decisions=Decisions.of(chosen, *answers[target]),
        pools=Pools.of(chosen, list(pairs.values()), a=every_day, b=every_day),
    )
    evaluation = Evaluator(resamples=0).evaluate(data, target=target)
    assert evaluation.both.mrr == 1
    table = evaluation.table
    side = {"match": None, "a_likes": 0, "b_likes": 1}[target]
    for row in table.rows():
        here = int(row["direction"] == "b_to_a")
        assert side in (None, here)
        elsewhere = [
            pair for pair, day in pairs.items() if pair[here] == row["query"] and day != row["pool"]
        ]
        assert row["candidates"] == 8 - len(elsewhere)
    assert table["candidates"].min() == 4
    assert evaluation.chance.mrr == pytest.approx(
        np.mean([np.mean(1 / np.arange(1, size + 1)) for size in table["candidates"]])
    )


def test_pairs_of_other_pools_are_neither_matches_nor_negatives_of_calibration():
    for one_sided in (False, True):
        data, pool_of, people = random_pools(3, one_sided=one_sided)
        blocks = list(pool_blocks(data))
        assert {block.pool for block in blocks} == set(data.pools.pool.tolist())
        seen = 0
        for block in blocks:
            name = [*data.pools.names, ""][block.pool]
            inside = {pair for pair, pool in pool_of.items() if pool == name}
            apart = {
                pair
                for pair, pool in pool_of.items()
                if pool != name and pair[0] in people[0][name] and pair[1] in people[1][name]
            }
            for found, expected in ((block.matches, inside), (block.elsewhere, apart)):
                rows = zip(block.rows_a[found[:, 0]], block.rows_b[found[:, 1]], strict=True)
                assert set(rows) == expected
            seen += len(apart)
            sides = (
                unit_rows(data.a)[block.rows_a],
                unit_rows(data.a if one_sided else data.b)[block.rows_b],
            )
            scores, truth = pair_scores(
                sides[0],
                None if one_sided else sides[1],
                block.matches,
                left_out=block.elsewhere,
            )
            size = len(block.rows_a) * len(block.rows_b)
            if one_sided:
                size = len(block.rows_a) * (len(block.rows_a) - 1) // 2
            assert (len(scores), truth.sum()) == (size - len(apart), len(inside))
        assert seen > 10


@pytest.mark.parametrize("one_sided", [False, True])
def test_known_matches_are_no_candidates_in_any_pool(one_sided):
    data, pool_of, people = random_pools(11, one_sided=one_sided)
    rng = np.random.default_rng(1)
    matched = {frozenset(pair) if one_sided else pair for pair in pool_of}
    known = []
    while len(known) < 12:
        pair = tuple(int(row) for row in rng.integers(20, size=2))
        key = frozenset(pair) if one_sided else pair
        if key not in matched and pair[0] != pair[1]:
            known.append(pair)
            matched.add(key)
    others = data.a if one_sided else data.b
    ranks = rank_all(data, unit_rows(data.a), unit_rows(others), known=np.array(known))
    expected = loops(data, pool_of, people, known)
    names = [*data.pools.names, ""]
    for direction, part in enumerate(ranks):
        first, _ = part.starts()
        for row in first:
            query = (direction, part.queries[row], names[part.pools[row]])
            assert part.candidates[row] == expected[query][-1], query


def test_a_single_pool_of_all_people_changes_no_figure():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 40, 5))
    pairs = np.stack([np.arange(40)] * 2, axis=1)
    plain = Evaluator(resamples=50).evaluate(PairedFeatures.of(a, b))
    pooled = Evaluator(resamples=50).evaluate(
        PairedFeatures.of(a, b, pools=Pools.of(pairs, ["all"] * 40))
    )
    assert pooled.both == plain.both
    assert pooled.chance == plain.chance
    assert "pool" not in plain.table.columns
    assert "pools" not in plain.to_dict()


def test_pools_follow_people_into_parts_and_back():
    data, pool_of, people = random_pools(4)
    labels = {data.a[i].tobytes() + data.b[j].tobytes(): pool for (i, j), pool in pool_of.items()}
    assert len(set(labels.values())) > 3
    part = data.take(data.inside(a=np.arange(44) % 3 > 0, b=np.arange(44) % 3 > 0))
    rows_a = data.people_of(data.inside(a=np.arange(44) % 3 > 0, b=np.arange(44) % 3 > 0))[0]
    names = [*data.pools.names, ""]
    for (first, _), number in zip(part.matches, part.pools.pool, strict=True):
        assert rows_a[first] % 3 > 0
        assert names[number] in set(pool_of.values())
    for name in data.pools.names:
        number = data.pools.names.index(name)
        kept = rows_a[part.pools.a[part.pools.a[:, 1] == number, 0]]
        assert set(kept.tolist()) == people[0][name] & set(rows_a.tolist())
    # People of two sets never share a pool's rows, but do share its name
    whole, _ = join_features([data, part])
    assert whole.pools.names == data.pools.names
    both = rank_queries(whole, unit_rows(whole.a), unit_rows(whole.b), (1,)).table
    alone = rank_queries(data, unit_rows(data.a), unit_rows(data.b), (1,)).table
    assert both["candidates"].max() > alone["candidates"].max()


def people_with_texts(*ids, **pools):
    return [
        Profile(person, text="x", attributes={"pools": pools[person]} if person in pools else {})
        for person in ids
    ]


def test_pools_of_pairs_and_profiles():
    profiles = people_with_texts("a1", "a2", "b1", "b2", a1="north; south", b1="south", b2="east")
    pairs = Pairs.of(
        profiles,
        [Pair("a1", "b1"), Pair("a1", "b2"), Pair("a2", "b2", pool="fair"), Pair("a2", "b1")],
    )
    pools = pairs.pools
    assert pools.names == ("east", "fair", "north", "south")
    assert pools.pool.tolist() == [3, -1, 1, -1]
    members = [
        {(ids[row], pools.names[number]) for row, number in side.tolist()}
        for ids, side in ((pairs.ids_a, pools.a), (pairs.ids_b, pools.b))
    ]
    assert members[0] == {("a1", "north"), ("a1", "south"), ("a2", "fair")}
    assert members[1] == {("b1", "south"), ("b2", "east"), ("b2", "fair")}
    assert Pairs.of(people_with_texts("a", "b"), [Pair("a", "b")]).pools is None
    swimmer = Profile("a", text="x", attributes={"pool": True})  # a swimming pool is none
    assert Pairs.of([swimmer, Profile("b", text="x")], [Pair("a", "b")]).pools is None


def test_evaluation_states_its_pools():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 12, 4))
    pairs = np.stack([np.arange(12)] * 2, axis=1)
    names = ["one"] * 3 + ["two"] * 8 + [None]
    data = PairedFeatures.of(a, b, pools=Pools.of(pairs, names))
    evaluation = Evaluator(ks=[1, 3, 8], resamples=20).evaluate(data)
    shown = str(evaluation)
    assert "each among 3 to 12 candidates of their pool" in shown
    assert "2 of 24 queries have no pool" in shown
    assert "25 % for K = 3, 92 % for K = 8" in shown
    assert evaluation.to_dict()["pools"] == {
        "count": 2,
        "candidates": {
            "smallest": 3,
            "mean": pytest.approx((6 * 3 + 16 * 8 + 2 * 12) / 24),
            "largest": 12,
        },
    }
    assert evaluation.chance.recall[3] == pytest.approx((6 + 16 * 3 / 8 + 2 * 3 / 12) / 24)
    curve = evaluation.recall_curve()
    assert len(curve) == 12
    assert curve[[0, 2, 7]] == pytest.approx(list(evaluation.both.recall.values()))
    with pytest.raises(ConfigurationError, match="K = 13 is larger than the largest pool"):
        Evaluator(ks=[13]).evaluate(data)


def test_cross_validation_ranks_inside_pools():
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((2, 40, 4))
    pairs = np.stack([np.arange(40)] * 2, axis=1)
    pools = Pools.of(pairs, [f"event {row % 4}" for row in range(40)])
    result = cross_validate(
        PairedFeatures.of(a, b, pools=pools), ["frozen"], repeats=1, folds=2, ks=[1, 4]
    )
    sizes = result.chance["candidates"]
    assert sizes.max() < 20
    for fold in (0, 1):
        for name in pools.names:
            rows = (result.chance["fold"] == fold) & (result.chance["pool"] == name)
            assert (sizes[rows] == rows.sum() / 2).all()
    assert result.metrics("chance").recall[1] == pytest.approx(np.mean(1 / sizes))
    assert "candidates of their pool" in str(result)


@pytest.mark.parametrize("one_sided", [False, True])
def test_hubness_counts_lists_inside_pools(one_sided):
    rng = np.random.default_rng(5)
    data, _, people = random_pools(5, one_sided=one_sided)
    e_a = unit_rows(rng.standard_normal((24, 3)))
    e_b = e_a if one_sided else unit_rows(rng.standard_normal((20, 3)))
    hubs = hubness(e_a, e_b, k=3, same=one_sided, pools=data.pools.people())
    expected = {}
    for name in data.pools.names:
        candidates = sorted(people[1][name])
        if len(candidates) <= 3:
            continue
        expected |= {candidate: expected.get(candidate, 0) for candidate in candidates}
        for query in people[0][name]:
            others = [other for other in candidates if not (one_sided and other == query)]
            best = sorted(others, key=lambda other: -float(e_a[query] @ e_b[other]))
            for candidate in best[:3]:
                expected[candidate] += 1
    assert hubs.counts.tolist() == [expected[candidate] for candidate in sorted(expected)]
    assert hubs.never == np.mean([count == 0 for count in expected.values()])


@pytest.mark.parametrize("one_sided", [False, True])
def test_weights_of_heads_are_fitted_to_choices_inside_pools(one_sided):
    data, pool_of, people = random_pools(7, one_sided=one_sided)
    margins = Margins.of(data, [build_head("identity", dim=2)], np.random.default_rng(0))
    ways = [(0, 1), (1, 0)]
    expected = []
    for here, there in ways:
        partners = {}
        for pair in pool_of:
            for first, second in ways if one_sided else [(here, there)]:
                partners.setdefault(pair[first], set()).add(pair[second])
        for pair, pool in sorted(pool_of.items()):
            own = {pair[here]} if one_sided else set()
            expected.append(len(people[there][pool] - partners[pair[here]] - own))
    assert sorted(margins.present.sum(1).tolist()) == sorted(expected)


def test_pairs_of_one_sided_pools_have_no_direction():
    pools = Pools.of([(1, 0), (2, 3)], ["x", "y"], one_sided=True)
    data = PairedFeatures.of(np.eye(4), matches=[(0, 1), (2, 3)], pools=pools)
    assert data.pools.pool.tolist() == [0, 1]


def test_bad_pools_are_refused():
    with pytest.raises(ConfigurationError, match="one pool per pair, 2, got 1"):
        Pools.of([(0, 0), (1, 1)], ["x"])
    with pytest.raises(ConfigurationError, match="given twice"):
        Pools.of([(0, 0), (0, 0)], ["x", "y"])
    pools = Pools.of([(0, 5)], ["x"])
    with pytest.raises(ConfigurationError, match="rows of side b that do not exist"):
        PairedFeatures.of(np.eye(3), np.eye(3), pools=pools)
    with pytest.raises(ConfigurationError, match="both be one-sided"):
        PairedFeatures.of(np.eye(3), matches=[(0, 1)], pools=pools)


def events(seed, *, shared=2):
    """Pairs at 12 events of unequal size; some people go to two."""
    rng = np.random.default_rng(seed)
    pairs = {}
    for event in range(12):
        for _ in range(int(rng.integers(15, 30))):
            a, b = rng.integers(8, size=2)
            pairs[f"a{event}-{a}", f"b{event}-{b}"] = f"event {event}"
    for event in range(shared):
        pairs[f"a{event}-0", f"b{event + 6}-0"] = f"event {event + 6}"
    ids = sorted({person for pair in pairs for person in pair})
    profiles = [Profile(person, text="x") for person in ids]
    return Pairs.of(profiles, [Pair(*pair, pool=pool) for pair, pool in pairs.items()])


def test_splits_by_pool_hold_out_whole_events():
    pairs = events(0)
    drawn = set()
    for seed in range(4):
        split = pairs.split(0.6, 0.2, by="pool", seed=seed)
        pools = [{pair.pool for pair in part.pairs} for part in split]
        people = [set(part.profiles) for part in split]
        for first, second in combinations(range(3), 2):
            assert not pools[first] & pools[second]
            assert not people[first] & people[second]
        assert sum(map(len, split)) == len(pairs)
        for part, share in zip(split, (0.6, 0.2, 0.2), strict=True):
            assert len(part) == pytest.approx(share * len(pairs), rel=0.21)
        for event in range(2):  # people in two events join them
            assert any({f"event {event}", f"event {event + 6}"} <= part for part in pools)
        drawn.add(tuple(sorted(pools[2])))
        assert split.by == "pool"
        assert split.reason.startswith("Split by pool, as requested: ")
    assert len(drawn) > 1
    again = Pairs(pairs.profiles, pairs.pairs[::-1])
    assert set(again.split(0.6, 0.2, by="pool", seed=3)[2].profiles) == people[2]


def test_splits_by_pool_need_pools_that_can_be_separated():
    whole = Pairs.of(
        people_with_texts("a1", "a2", "b1", "b2"),
        [Pair("a1", "b1", pool="one"), Pair("a2", "b2", pool="one")],
    )
    with pytest.raises(DataError, match="1 pools and the people whom they share are 1 blocks"):
        whole.split(0.5, 0, by="pool")
    with pytest.raises(DataError, match="needs pools"):
        Pairs.of(people_with_texts("a", "b"), [Pair("a", "b")]).split(0.5, 0, by="pool")


@pytest.mark.parametrize("by", [None, "component", "people", "pool"])
def test_a_log_without_matches_cannot_be_split_or_evaluated(by):
    pairs = Pairs.of(people_with_texts("a", "b"), [Pair("a", "b", a_likes=True, pool="one")])
    with pytest.raises(DataError, match="needs matches, and there are none: 1 pairs are"):
        pairs.split(by=by)
    data = pairs.with_features(np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(ConfigurationError, match="There is no match to find: give matches, or"):
        Evaluator().evaluate(data)
    with pytest.raises(ConfigurationError, match="side b said yes"):
        Evaluator().evaluate(data, target="b_likes")
    assert Evaluator(resamples=0).evaluate(data, target="a_likes").queries == 1
    nothing = Pairs.of(people_with_texts("a", "b"), [Pair("a", "b", a_likes=False)])
    with pytest.raises(ConfigurationError, match="There is no match, nor a yes of one side"):
        nothing.with_features(np.ones((1, 2)), np.ones((1, 2)))


def test_cross_validation_holds_out_pools():
    pairs = events(1)
    rng = np.random.default_rng(0)
    data = pairs.with_features(
        rng.standard_normal((len(pairs.ids_a), 4)), rng.standard_normal((len(pairs.ids_b), 4))
    )
    splits = cross_validation_splits(data, repeats=2, folds=4, by="pool")
    for split in splits:
        train, test = (data.pools.pool[data.positions(part)] for part in (split.train, split.test))
        assert not np.intersect1d(train, test).size
        assert len(train) + len(test) == len(data.decisions)
    for repeat in (0, 1):
        tested = [split.test.matches for split in splits if split.repeat == repeat]
        assert np.array_equal(np.sort(np.concatenate(tested)), np.arange(len(data)))
    result = cross_validate(data, ["frozen", "ridge"], repeats=1, folds=4, by="pool", ks=[1])
    assert {*result.chance["pool"]} == {*data.pools.names}
    with pytest.raises(ConfigurationError, match="too few for 20 folds of pools"):
        cross_validation_splits(data, folds=20, by="pool")
    plain = PairedFeatures.of(np.eye(4), np.eye(4))
    with pytest.raises(ConfigurationError, match="need features with pools"):
        cross_validation_splits(plain, folds=2, by="pool")


REGIONS = ("north", "south", "east")


def by_region(*, sides=2):
    rng = np.random.default_rng(3)
    profiles = [
        Profile(f"{side}{row}", text="x", attributes={"region": REGIONS[row % 3], "age": 20 + row})
        for side in "ab"
        for row in range(9)
    ]
    drawn = {(f"a{i}", f"b{j}") for i, j in rng.integers(9, size=(40, 2))}
    return Pairs.of(profiles, [Pair(*pair) for pair in sorted(drawn)], sides=sides)


@pytest.mark.parametrize("sides", [1, 2])
def test_pools_by_a_rule(sides):
    pairs = by_region(sides=sides).pooled("query.region = region and region != 'east'")
    pools = pairs.pools
    assert pools.names == ("north", "south")
    region = {person: profile.attributes["region"] for person, profile in pairs.profiles.items()}
    for ids, members in ((pairs.ids_a, pools.a), (pairs.ids_b, pools.a if sides == 1 else pools.b)):
        found = {(ids[row], pools.names[number]) for row, number in members.tolist()}
        assert found == {(person, region[person]) for person in ids if region[person] != "east"}
    for pair, number in zip(pairs.pairs, pools.pool.tolist(), strict=True):
        is_inside = region[pair.a] == region[pair.b] != "east"
        assert (pools.names[number] == region[pair.a]) if is_inside else number == -1
    part = pairs.split(0.5, 0.2, by="people", seed=1)[0]
    assert part.where == pairs.where
    assert part.pools is not None
    assert set(part.pools.names) <= {"north", "south"}


def test_rules_that_do_not_part_people_are_refused():
    pairs = by_region()
    with pytest.raises(ConfigurationError, match=r"people with age \d+ would be in several"):
        pairs.pooled("abs(query.age - age) < 3")
    with pytest.raises(ConfigurationError, match="regio"):
        pairs.pooled("query.regio = region")


def test_a_rule_without_effect_is_refused():
    rule = "query.region = region"
    pairs = by_region()
    pooled = [replace(pair, pool="here") for pair in pairs.pairs]
    with pytest.raises(ConfigurationError, match="has no effect: every pair has a pool already"):
        Pairs.of(pairs.people, pooled).pooled(rule)
    members = [
        Profile(p.id, attributes={**p.attributes, "pools": "here"}) for p in pairs.profiles.values()
    ]
    with pytest.raises(ConfigurationError, match="has no effect: every pair has a pool already"):
        Pairs.of(members, pairs.pairs).pooled(rule)
    partly = Pairs.of(pairs.people, [*pooled[:5], *pairs.pairs[5:]]).pooled(rule)
    assert set(partly.pools.names) > {"here"}
    assert partly.subset(range(5)).pools is not None  # a part may have no pair by the rule


def test_the_command_line_ranks_inside_pools(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["id_a,text_a,region_a,id_b,text_b,region_b"]
    for person in range(60):
        region = REGIONS[person % 3]
        words = " ".join(rng.choice(["tea", "sea", "art", "run", "cook"], 3))
        rows.append(f"a{person},{words},{region},b{person},{words},{region}")
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(rows))
    options = ["--backbone", "attributes", "--learner", "frozen", "--no-photos", "--quiet"]
    options += ["--store", str(tmp_path / "store.sqlite")]
    for name, more in (("plain", []), ("rule", ["--pools", "region = query.region"])):
        out = tmp_path / name
        command = ["fit", str(path), "--output", str(out), "--json", f"{out}.json"]
        result = CliRunner().invoke(app, [*command, *options, *more])
        assert result.exit_code == 0, result.output
    plain, rule = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("plain", "rule")
    )
    assert "pools" not in plain
    assert rule["pools"]["count"] == 3
    assert rule["pools"]["candidates"]["largest"] < plain["candidates"][0]
    assert rule["chance"]["mrr"] > plain["chance"]["mrr"]

"""Likes, open pairs and times: in objects, in files, and in features and their parts."""

import json
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pairmatch.core.decisions import Decisions
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.joining import join_features
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.types import Pair, Profile
from pairmatch.data import Pairs

LIKES = (True, False, None)


@pytest.mark.parametrize(
    ("a_likes", "b_likes", "outcome"),
    [
        (True, True, "match"),
        (True, False, "rejected"),
        (None, False, "rejected"),
        (True, None, "open"),
        (None, None, "match"),
    ],
)
def test_outcome_follows_from_likes(a_likes, b_likes, outcome):
    pair = Pair("x", "y", a_likes=a_likes, b_likes=b_likes)
    assert pair.outcome == outcome
    assert Pair("y", "x", a_likes=b_likes, b_likes=a_likes).outcome == outcome


def test_likes_follow_from_the_outcome():
    assert Pair("x", "y").likes == (True, True)
    assert Pair("x", "y", "match", a_likes=True).likes == (True, True)
    assert Pair("x", "y", "rejected").likes == (None, None)
    assert Pair("x", "y", "rejected", a_likes=True).likes == (True, False)
    assert Pair("x", "y", "rejected", b_likes=True).likes == (False, True)
    assert Pair("x", "y", "rejected", a_likes=False).likes == (False, None)
    assert Pair("x", "y", "open", b_likes=True).likes == (None, True)


def test_times_without_a_zone_are_utc():
    naive = Pair("x", "y", time=datetime(2026, 10, 1)).time
    assert naive == datetime(2026, 10, 1, tzinfo=UTC)
    seoul = datetime(2026, 10, 1, 9, tzinfo=timezone(timedelta(hours=9)))
    assert Pair("x", "y", time=seoul).time == naive


def people(*ids):
    return [Profile(person, text=f"I am {person}.") for person in ids]


def test_contradictions_are_reported_together():
    profiles = people("a1", "a2", "a3", "b1", "b2", "b3")
    pairs = [
        Pair("a1", "b1", "match", a_likes=False),
        Pair("a1", "b2", "rejected", a_likes=True, b_likes=True),
        Pair("a2", "b1", "open", b_likes=False),
        Pair("a2", "b2", "open", a_likes=True, b_likes=True),
        Pair("a3", "b1", a_likes="yes"),
        Pair("a3", "b2", time="2026-10-01"),
        Pair("a3", "b3", "liked"),
        Pair("a1", "b3", pool=3),
    ]
    with pytest.raises(DataError) as caught:
        Pairs.of(profiles, pairs)
    assert list(caught.value.problems) == [
        "pair 0: the outcome is 'match', but a_likes is no and b_likes is not known.",
        "pair 1: the outcome is 'rejected', but a_likes is yes and b_likes is yes.",
        "pair 2: the outcome is 'open', but a_likes is not known and b_likes is no.",
        "pair 3: the outcome is 'open', but a_likes is yes and b_likes is yes.",
        "pair 4: a_likes must be True, False or None, got 'yes'.",
        "pair 5: time must be a datetime or None, got str.",
        "pair 6: the outcome 'liked' is neither 'match', 'rejected' nor 'open'.",
        "pair 7: pool must be a text or None, got 3.",
    ]


def day(number):
    return datetime(2026, 10, number, tzinfo=UTC)


def settled(*entries, sides=2):
    (pair,) = Pairs.of(people("x", "y"), entries, sides=sides).pairs
    return pair


def test_the_latest_answer_of_each_side_counts(caplog):
    first = Pair("x", "y", a_likes=True, time=day(1), pool="event 1")
    answer = Pair("x", "y", b_likes=True, time=day(3))
    between = Pair("x", "y", a_likes=False, time=day(2))
    pair = settled(answer, first)
    assert (pair.outcome, pair.likes, pair.time) == ("match", (True, True), day(3))
    assert pair.pool == "event 1"
    # In whatever order the rows come
    for entries in ((first, between, answer), (answer, between, first), (between, answer, first)):
        pair = settled(*entries)
        assert (pair.outcome, pair.likes, pair.time) == ("rejected", (False, True), day(3))
    assert "1 pair was decided several times (3 rows)" in caplog.text


def test_outcomes_without_likes_replace_earlier_answers():
    liked = Pair("x", "y", a_likes=True, time=day(1))
    assert settled(liked, Pair("x", "y", "match", time=day(2))).outcome == "match"
    rejected = settled(liked, Pair("x", "y", "rejected", time=day(2)))
    assert (rejected.outcome, rejected.likes) == ("rejected", (None, None))
    shown_again = settled(liked, Pair("x", "y", "open", time=day(2)))
    assert (shown_again.outcome, shown_again.likes) == ("open", (True, None))
    matched = settled(Pair("x", "y", time=day(1)), Pair("x", "y", a_likes=True, time=day(2)))
    assert matched.outcome == "match"


def test_in_one_sided_sets_answers_keep_their_person():
    pair = settled(
        Pair("x", "y", a_likes=True, time=day(1)),
        Pair("y", "x", a_likes=False, time=day(2)),
        sides=1,
    )
    assert (pair.a, pair.b) == ("y", "x")
    assert pair.likes == (False, True)


def test_repeated_pairs_without_times_are_an_error():
    for times in ((None, None), (day(1), None)):
        with pytest.raises(DataError, match="pair 1: 'x', 'y' is given twice"):
            settled(*(Pair("x", "y", time=time) for time in times))


HEADER = "id_a,text_a,id_b,text_b,a_likes,b_likes,time,pool\n"


def read(tmp_path, rows, header=HEADER, **options):
    path = tmp_path / "pairs.csv"
    path.write_text(header + rows)
    table = path.read_text()
    if "image_a" not in table:
        lines = [line + "," for line in path.read_text().splitlines()]
        path.write_text(
            "\n".join([lines[0] + "image_a,image_b", *(line + "," for line in lines[1:])])
        )
    return Pairs.read(path, **options)


def test_files_with_likes(tmp_path):
    pairs = read(
        tmp_path,
        "x,hi,y,ho,1,yes,2026-10-01,e1\n"
        "x,hi,z,ha,TRUE,no,2026-10-01T18:30:00+09:00,e1\n"
        "w,he,z,ha,No,,2026-10-01 18:30,e2\n"
        "w,he,y,ho,,,,\n",
    )
    assert [pair.outcome for pair in pairs.pairs] == ["match", "rejected", "rejected", "open"]
    assert [pair.likes for pair in pairs.pairs] == [
        (True, True),
        (True, False),
        (False, None),
        (None, None),
    ]
    assert pairs.pairs[1].time == datetime(2026, 10, 1, 9, 30, tzinfo=UTC)
    assert pairs.pairs[2].time == datetime(2026, 10, 1, 18, 30, tzinfo=UTC)
    assert [pair.pool for pair in pairs.pairs] == ["e1", "e1", "e2", None]
    assert len(pairs) == 1
    assert repr(pairs) == "Pairs(1 match, 2 rejected, 1 open, 4 people, sides=2)"
    assert pairs.decisions.a.tolist() == [1, 1, 0, -1]
    assert pairs.decisions.b.tolist() == [1, 0, -1, -1]


def test_parquet_and_json_have_the_same_likes_and_times(tmp_path):
    columns = {
        "id_a": ["x", "x"],
        "image_a": [None, None],
        "text_a": ["hi", "hi"],
        "id_b": ["y", "z"],
        "image_b": [None, None],
        "text_b": ["ho", "ha"],
        "a_likes": [1.0, None],
        "b_likes": [True, False],
    }
    times = [datetime(2026, 10, 1, 9, 30), datetime(2026, 10, 2)]
    zoned = pa.array(times, pa.timestamp("us", "Asia/Seoul"))
    table = pa.table(columns | {"time": zoned, "pool": [7, 8]})
    pq.write_table(table, tmp_path / "pairs.parquet")
    rows = [
        {name: values[row] for name, values in columns.items()}
        | {"time": f"{times[row].isoformat()}Z", "pool": str(7 + row)}
        for row in range(2)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parquet, lines = (Pairs.read(tmp_path / f"pairs.{kind}") for kind in ("parquet", "jsonl"))
    assert parquet.pairs == lines.pairs
    assert [pair.outcome for pair in lines.pairs] == ["match", "rejected"]
    assert lines.pairs[0].time == times[0].replace(tzinfo=UTC)


@pytest.mark.parametrize(("yes", "no"), [("LIKE", "PASS"), ("like", "Dislike"), ("t", "f")])
def test_words_of_apps_are_answers(tmp_path, yes, no):
    (pair,) = read(tmp_path, f"x,hi,y,ho,{yes},{no},,\n").pairs
    assert (pair.a_likes, pair.b_likes, pair.outcome) == (True, False, "rejected")


def test_bad_likes_and_times_name_the_cell(tmp_path):
    with pytest.raises(DataError) as caught:
        read(
            tmp_path,
            "x,hi,y,ho,maybe,1,,\n"
            "x,hi,z,ha,1,1,1790000000,\n"
            "w,he,z,ha,1,1,yesterday,\n"
            "w,he,y,ho,1,1,2026-13-01,\n",
        )
    message = str(caught.value)
    assert (
        "line 2, column a_likes: 'maybe' is neither yes (1, yes, y, true, t, like) nor no"
        in message
    )
    assert (
        "line 3, column time: '1790000000' is a number, whose unit and zero are unknown" in message
    )
    assert "line 4, column time: 'yesterday' is not a time of ISO 8601" in message
    assert "line 5, column time: '2026-13-01' is not a time of ISO 8601" in message


def test_outcomes_that_contradict_likes_are_problems_of_their_row(tmp_path):
    header = "id_a,text_a,id_b,text_b,outcome,a_likes\n"
    with pytest.raises(DataError, match="line 2, column outcome: the outcome is 'match', but a_li"):
        read(tmp_path, "x,hi,y,ho,match,0\n", header)


def test_files_with_repeated_decisions(tmp_path, caplog):
    pairs = read(
        tmp_path,
        "x,hi,y,ho,1,,2026-10-01,\nw,he,y,ho,1,1,,\nx,hi,y,ho,,1,2026-10-02,\n",
    )
    assert len(pairs) == 2
    assert pairs.pairs[0].likes == (True, True)
    assert "1 pair was decided several times (2 rows)" in caplog.text
    with pytest.raises(DataError, match="line 3, column id_a: the pair 'x', 'y' is given twice"):
        read(tmp_path, "x,hi,y,ho,1,1,2026-10-01,\nx,hi,y,ho,1,1,,\n")


def random_data(rng, *, one_sided=False):
    """Features with matches, rejections of unknown origin, and directional decisions."""
    people_a, people_b = 30, 30 if one_sided else 25
    every = [(i, j) for i in range(people_a) for j in range(people_b) if not one_sided or i < j]
    chosen = np.array(every)[rng.choice(len(every), 60, replace=False)]
    a, b = rng.integers(-1, 2, (2, 60))
    unknown = (a == -1) & (b == -1)
    rejected = chosen[unknown][::2]
    data = PairedFeatures.of(
        rng.standard_normal((people_a, 3)),
        None if one_sided else rng.standard_normal((people_b, 3)),
        decisions=Decisions.of(chosen, a, b),
        rejected=rejected,
        groups=[None if rng.random() < 0.9 else int(rng.integers(5)) for _ in chosen],
    )
    return data, chosen, a, b, rejected


def by_people(data, a, b):
    """Answers by the features of both people, which no renumbering changes."""
    others = data.a if data.b is None else data.b
    return {
        (data.a[row].tobytes(), others[column].tobytes()): answers
        for (row, column), *answers in zip(data.decisions.pairs, a, b, strict=True)
    }


@pytest.mark.parametrize("one_sided", [False, True])
def test_decisions_stay_with_their_people(one_sided):
    rng = np.random.default_rng(3)
    data, chosen, a, b, rejected = random_data(rng, one_sided=one_sided)
    matched = {tuple(pair) for pair in chosen[(a == 1) & (b == 1)].tolist()}
    refused = {tuple(pair) for pair in chosen[(a == 0) | (b == 0)].tolist()}
    refused |= {tuple(pair) for pair in rejected.tolist()}
    assert {tuple(pair) for pair in data.matches.tolist()} == matched
    assert {tuple(pair) for pair in data.rejected.tolist()} == refused
    everything = {tuple(pair) for pair in chosen.tolist()}
    assert {tuple(pair) for pair in data.open.tolist()} == everything - matched - refused
    known = by_people(data, data.decisions.a, data.decisions.b)
    given = dict(zip(map(tuple, chosen.tolist()), zip(a, b, strict=True), strict=True))
    for pair, *answers in zip(
        data.decisions.pairs, data.decisions.a, data.decisions.b, strict=True
    ):
        assert tuple(answers) == given[tuple(pair)]
    parts = data.parts([12, 4], seed=1)
    taken = [data.take(part) for part in parts]
    merged = {}
    for part in taken:
        merged |= by_people(part, part.decisions.a, part.decisions.b)
    assert merged == known
    whole, labels = join_features(taken)
    assert by_people(whole, whole.decisions.a, whole.decisions.b) == known
    assert len(whole.matches) == len(data.matches)
    assert len(whole.open) == len(data.open)
    assert not np.intersect1d(*labels).size
    inside = data.inside(
        a=np.arange(data.units.max() + 1) % 2 == 0, b=np.arange(data.units.max() + 1) % 2 == 0
    )
    half = data.take(inside)
    assert by_people(half, half.decisions.a, half.decisions.b).items() <= known.items()
    others = half.units_a if one_sided else half.units_b
    even = half.units_a[half.open[:, 0]] % 2 == 0
    assert (even | one_sided).all()
    assert ((others[half.open[:, 1]] % 2 == 0) | one_sided).all()


def test_people_of_open_pairs_only_are_candidates():
    data = PairedFeatures.of(
        np.eye(3),
        np.eye(3),
        decisions=Decisions.of([(0, 0), (1, 1), (0, 2)], [1, 1, 1], [1, 1, -1]),
    )
    part = data.take(data.part(data.components[:1]))
    assert len(part.matches) == 1
    assert part.galleries == (2, 1)
    assert part.open.tolist() == [[0, 1]]


def test_open_pairs_connect_people():
    pairs = [(0, 0), (1, 1), (0, 1)]
    apart = PairedFeatures.of(np.eye(2), np.eye(2), matches=pairs[:2])
    joined = PairedFeatures.of(
        np.eye(2), np.eye(2), decisions=Decisions.of(pairs, [1, 1, 1], [1, 1, -1])
    )
    assert len(np.unique(apart.components)) == 2
    assert len(np.unique(joined.components)) == 1


def test_without_likes_decisions_say_no_more_than_outcomes():
    plain = PairedFeatures.of(np.eye(3), np.eye(3), rejected=[(0, 1)])
    assert not plain.decisions.directional
    assert plain.decisions.a.tolist() == [1, 1, 1, -1]
    liked = PairedFeatures.of(
        np.eye(3),
        np.eye(3),
        rejected=[(0, 1)],
        decisions=Decisions.of([(0, 0), (0, 1)], [1, 1], [1, -1]),
    )
    assert liked.decisions.directional
    assert liked.decisions.b.tolist() == [1, 0]  # a said yes, so it was b who declined


def test_contradictory_decisions_are_refused():
    decisions = Decisions.of([(0, 0), (0, 1)], [1, 0], [1, 1])
    for outcomes in ({"matches": [(0, 1)]}, {"rejected": [(0, 0)]}):
        with pytest.raises(ConfigurationError, match="`decisions` contradict"):
            PairedFeatures.of(np.eye(2), np.eye(2), decisions=decisions, **outcomes)
    for wrong in (([(0, 0)], [1, 1], [1]), ([(0, 0)], [2], [1]), ([(0, 0)] * 2, [1, 1], [1, 1])):
        with pytest.raises(ConfigurationError, match=r"Decisions\.of"):
            Decisions.of(*wrong)

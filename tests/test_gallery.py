"""Galleries: exact search with filters and exclusions, and durability after a kill."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairmatch import Exclusions, Gallery, Profile
from pairmatch.core.arrays import unit_rows
from pairmatch.core.errors import ConfigurationError, DataError, StoreError
from pairmatch.gallery import LanceGallery, Slates, eligible, forget, recommend_all
from pairmatch.io.store import Store


def vectors(count, width=8, seed=0):
    return unit_rows(np.random.default_rng(seed).normal(size=(count, width))).astype(np.float32)


def crowd(count, seed=0, prefix="p"):
    rng = np.random.default_rng(seed)
    people = []
    for number in range(count):
        attributes = {
            "age": int(rng.integers(20, 60)),
            "region": str(rng.choice(["north", "south"])),
        }
        if number == 0 or rng.random() < 0.8:
            attributes["smoker"] = bool(rng.integers(2))
        people.append(Profile(f"{prefix}{number}", attributes=attributes))
    return people


def rank_in_a_loop(query, people, embeddings, k, allowed):
    """Ids of the k best people, scored in a loop and sorted stably."""
    scored = [
        (-float(np.dot(query.astype(float), vector.astype(float))), row, person.id)
        for row, (person, vector) in enumerate(zip(people, embeddings, strict=True))
        if allowed(person)
    ]
    return [name for _, _, name in sorted(scored)[:k]]


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(1, 60),
    k=st.integers(1, 12),
    low=st.integers(20, 60),
    mutual=st.booleans(),
    removed=st.integers(0, 20),
    added=st.lists(st.integers(1, 9), max_size=5),
    on_disk=st.booleans(),
    seed=st.integers(0, 5),
)
def test_search_matches_a_plain_loop(
    count, k, low, mutual, removed, added, on_disk, seed, tmp_path_factory
):
    people = crowd(count, seed)
    e = vectors(count, seed=seed)
    gallery = Gallery.of(people, e)
    if on_disk:
        folder = tmp_path_factory.mktemp("gallery") / "g"
        gallery.save(folder)
        gallery = Gallery.open(folder)
    for number, size in enumerate(added):  # small files are merged in order
        more = crowd(size, number + 50, f"x{number}-")
        more_vectors = vectors(size, seed=number + 50)
        gallery.add(more, more_vectors)
        people = people + more
        e = np.concatenate([e, more_vectors])
    rng = np.random.default_rng(seed)
    removed_ids = {people[row].id for row in rng.integers(0, len(people), removed)}
    assert gallery.remove(removed_ids) == len(removed_ids)
    kept = [row for row, person in enumerate(people) if person.id not in removed_ids]
    people = [people[row] for row in kept]
    e = e[kept]
    assert gallery.ids == [person.id for person in people]
    np.testing.assert_array_equal(gallery.embeddings, e)
    asking = [
        {"age": 30, "region": "north"},
        {"age": 50, "region": "south"},
        {"age": 30, "region": "south"},
    ]
    hidden = [{person.id for person in people[::3]}, set(), {"unknown", "p0"}]
    queries = vectors(3, seed=seed + 100)
    rule = (
        f"age >= {low} and abs(age - query.age) <= 12 and (smoker = false or region = query.region)"
    )
    if not people:
        return
    result = gallery.search(queries, k, where=rule, asking=asking, mutual=mutual, excluded=hidden)
    for number, me in enumerate(asking):

        def allowed(person, me=me, number=number):
            you = person.attributes
            forward = you["age"] >= low and abs(you["age"] - me["age"]) <= 12
            forward = forward and (you.get("smoker") is False or you["region"] == me["region"])
            # The query person has no `smoker`, so with the roles swapped it is unknown
            backward = me["age"] >= low and you["region"] == me["region"]
            return forward and (backward or not mutual) and person.id not in hidden[number]

        assert [name for name, _ in result.candidates(number)] == rank_in_a_loop(
            queries[number], people, e, k, allowed
        )
        assert result.eligible[number] == sum(map(allowed, people))
        assert (result.excluded_by[number] is None) == (result.eligible[number] > 0)


def test_the_filter_that_removed_the_last_candidate_is_named():
    people = [
        Profile("a", attributes={"age": 30, "region": "north"}),
        Profile("b", attributes={"age": 40}),
    ]
    gallery = Gallery.of(people, vectors(2))
    query = vectors(1, seed=1)

    def excluded_by(where=None, **options):
        result = gallery.search(query, 3, where=where, **options)
        assert result.candidates(0) == []
        return result.excluded_by[0]

    assert excluded_by("age > 20 and age > 45 and region = 'north'") == "age > 45"
    # Each condition has candidates, but not both together
    assert excluded_by("region = 'north' and age > 35") == "age > 35"
    assert excluded_by(["age > 20", "age is null"]) == "age IS NULL"
    assert (
        excluded_by("age > query.age", asking=[{"age": 20}], mutual=True)
        == "age > query.age, with the roles swapped"
    )
    # The age of the query person is unknown
    assert excluded_by("age > query.age") == "age > query.age"
    assert excluded_by(excluded=[["a", "b"]]) == "exclusions"
    gallery.remove(["a", "b"])
    assert excluded_by("age > 20") == "no candidates"
    assert Gallery().search(query).excluded_by == ("no candidates",)


def test_rules_can_use_the_ranges_of_each_person():
    """Ranges are attributes; both people must be within each other's range."""
    people = [
        Profile("picky", attributes={"age": 30, "from": 40, "to": 50}),
        Profile("open", attributes={"age": 31, "from": 20, "to": 60}),
    ]
    gallery = Gallery.of(people, vectors(2))
    rule = 'age between query."from" and query.to'
    me = {"age": 35, "from": 25, "to": 35}
    assert gallery.search(vectors(1), 5, where=rule, asking=[me]).eligible[0] == 2
    result = gallery.search(vectors(1), 5, where=rule, asking=[me], mutual=True)
    assert [name for name, _ in result.candidates(0)] == ["open"]


def test_a_bonus_is_added_to_the_score():
    e, queries = vectors(50), vectors(4, seed=1)
    gallery = Gallery.of([f"p{i}" for i in range(50)], e)
    gallery.remove(["p3", "p10"])
    bonus = np.random.default_rng(2).normal(size=48).astype(np.float32)
    result = gallery.search(queries, 48, bonus=bonus)
    for number, query in enumerate(queries):
        total = dict(
            zip(
                gallery.ids,
                gallery.embeddings.astype(float) @ query.astype(float) + bonus,
                strict=True,
            )
        )
        assert [name for name, _ in result.candidates(number)] == sorted(
            total, key=lambda name: -total[name]
        )
        assert result.candidates(number)[0][1] == pytest.approx(max(total.values()), abs=1e-6)
    with pytest.raises(
        ConfigurationError, match=r"one finite number per candidate, \[48\], got \[50\]"
    ):
        gallery.search(queries, bonus=np.zeros(50))


def test_an_opened_gallery_equals_the_saved_one(tmp_path):
    people = crowd(30)
    e = vectors(30)
    gallery = Gallery.of(people, e, side="a", made_by="me")
    gallery.save(tmp_path / "g")
    opened = Gallery.open(tmp_path / "g")
    assert (opened.side, opened.made_by, opened.width, len(opened)) == ("a", "me", 8, 30)
    assert opened.attribute_kinds == {"age": "number", "region": "text", "smoker": "bool"}
    assert not opened.embeddings.flags.owndata  # memory-mapped
    for person in people:
        assert opened.profile(person.id) == person
    with pytest.raises(DataError, match="no candidate with the id 'unknown'"):
        opened.profile("unknown")
    assert (tmp_path / "g" / "gallery.sqlite").stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "g").glob("*.arrow"))


def test_two_objects_can_share_a_folder(tmp_path):
    Gallery.of(crowd(5), vectors(5)).save(tmp_path / "g")
    first = Gallery.open(tmp_path / "g")
    second = Gallery.open(tmp_path / "g")
    newcomer = Profile("new", attributes={"age": 99, "height": 1.8})
    first.add([newcomer], vectors(1, seed=9))
    assert second.search(vectors(1, seed=9), 1).candidates(0) == [("new", pytest.approx(1))]
    assert second.profile("new") == newcomer
    second.remove(["new", "p0"])
    assert "new" not in first.ids
    first.add(crowd(1500, 3, "many"), vectors(1500, seed=3))  # in a separate file
    first.remove(["many7"])
    first.save()
    assert len(second) == len(first) == 4 + 1499
    assert len(Gallery.open(tmp_path / "g")) == 1503
    second.add([Profile("p1", attributes={"age": 1})], vectors(1, seed=4))  # replaced
    assert first.profile("p1").attributes == {"age": 1}
    assert len(first) == 1503


_WRITER = """
import sys, numpy as np
from pairmatch import Gallery, Profile
gallery = Gallery.open(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    vector = np.random.default_rng(number).normal(size=(1, 8)).astype(np.float32)
    gallery.add([Profile(f"new{number}", attributes={"age": number})], vector)
    print("added", number, flush=True)
    if number % 3 == 2:
        gallery.remove([f"new{number - 1}"])
        print("removed", number - 1, flush=True)
    if number % 10 == 9:
        gallery.save()
    number += 1
"""


@pytest.mark.parametrize("seen", [4, 9])
def test_confirmed_changes_survive_a_kill(tmp_path, seen):
    Gallery.of(crowd(50), vectors(50)).save(tmp_path / "g")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _WRITER, str(tmp_path / "g")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        assert writer.stdout.readline() == "ready\n"
        reader = Gallery.open(tmp_path / "g")
        stop = time.monotonic() + 60
        # A reader neither blocks the writer nor sees an inconsistent state
        ids: list[str] = []
        while sum(name.startswith("new") for name in ids) < seen:
            assert time.monotonic() < stop
            ids = [name for name, _ in reader.search(vectors(1), 1000).candidates(0)]
            assert {f"p{number}" for number in range(50)} <= set(ids)
            assert len(ids) == len(set(ids))
        writer.send_signal(signal.SIGKILL)
        confirmed = [
            line.split() for line in writer.stdout.read().splitlines() if line.count(" ") == 1
        ]
    assert len(confirmed) > 3
    opened = Gallery.open(tmp_path / "g")
    present = set(opened.ids)
    removed = {f"new{number}" for act, number in confirmed if act == "removed"}
    added = {f"new{number}" for act, number in confirmed if act == "added"}
    last = max(int(number) for act, number in confirmed if act == "added")
    # A change that was in progress at the kill may be present or not
    assert added - removed - {f"new{last - 1}"} <= present
    assert not present & (removed - {f"new{last + 1}"})
    for name in sorted(added & present):
        vector = np.random.default_rng(int(name[3:])).normal(size=8).astype(np.float32)
        np.testing.assert_array_equal(opened.embeddings[opened.ids.index(name)], vector)
    opened.add([Profile("after")], vectors(1))  # the gallery can still be changed
    assert Gallery.open(tmp_path / "g").profile("after").id == "after"


def traces(folder, *needles):
    """Names of files under a folder that contain one of the byte strings."""
    return [
        file.name
        for file in folder.rglob("*")
        if file.is_file() and any(needle in file.read_bytes() for needle in needles)
    ]


def test_forgotten_people_are_erased_from_all_files(tmp_path, hash_backbone):
    from pairmatch import Matcher

    people = [
        Profile(f"person-{n}", text=f"text {n}", attributes={"age": 20 + n}) for n in range(40)
    ]
    matcher = Matcher(
        backbone=hash_backbone, metadata=None, head="identity", store=tmp_path / "store.sqlite"
    )
    a = matcher.gallery(people[:20], side="a")
    b = matcher.gallery(people[20:], side="b")
    for name, gallery in (("a", a), ("b", b)):
        gallery.save(tmp_path / name)
    opened = Gallery.open(tmp_path / "b")
    victim = people[25]
    newcomer = Profile("person-new", text="new", attributes={"age": 33})
    matcher.add_to(opened, [newcomer])  # in the journal
    opened.remove([people[26].id])  # excluded from searches, but still in the file
    matcher.recommend_all(a, opened, tmp_path / "slates", k=19)
    forgotten = [victim.id, newcomer.id, people[26].id]
    needles = [name.encode() for name in forgotten]
    needles += [
        matcher.embed([person], side="b")[0].tobytes() for person in (victim, newcomer, people[26])
    ]
    needles += [matcher.features([person])[0].tobytes() for person in (victim, newcomer)]
    assert {"store.sqlite-wal", "gallery.sqlite-wal", "a-00000.parquet"} <= set(
        traces(tmp_path, *needles)
    )
    erased = forget(
        forgotten,
        store=matcher.store,
        galleries=[tmp_path / "a", tmp_path / "b"],
        slates=[tmp_path / "slates"],
    )
    assert erased.store.people == 3
    assert erased.galleries == {str(tmp_path / "a"): 0, str(tmp_path / "b"): 2}
    assert erased.slates[str(tmp_path / "slates")] > 19
    assert traces(tmp_path, *needles) == []
    assert victim.id not in opened.ids  # also for galleries that are already open
    assert len(Gallery.open(tmp_path / "b")) == 18
    assert Slates(tmp_path / "slates").of(victim.id, "b") == []
    assert len(Slates(tmp_path / "slates").of(people[0].id)) >= 16


def test_slates_of_two_galleries_match_searches(tmp_path, monkeypatch):
    import pairmatch.gallery.bulk as bulk

    monkeypatch.setattr(bulk, "_PEOPLE", 7)
    a = Gallery.of(crowd(20, 1, "a"), vectors(20, seed=1), side="a")
    b = Gallery.of(crowd(15, 2, "b"), vectors(15, seed=2))
    blocked = Exclusions([("a0", "b3")], symmetric=True)
    options = {"where": "abs(age - query.age) <= 15", "mutual": True, "exclude": blocked}
    slates = recommend_all(a, b, tmp_path / "s", 4, **options)
    assert [file.name for file in slates.files("a")] == [
        "a-00000.parquet",
        "a-00001.parquet",
        "a-00002.parquet",
    ]
    for side, queries, candidates in (("a", a, b), ("b", b, a)):
        table = slates.table(side).to_pylist()
        for person, query in zip(queries.ids, queries.embeddings, strict=True):
            result = candidates.search(
                query[None],
                4,
                where=options["where"],
                asking=[queries.profile(person).attributes],
                excluded=[blocked.of(person)],
            )
            rows = [row for row in table if row["id"] == person]
            assert (
                [(row["candidate"], row["score"]) for row in rows]
                == result.candidates(0)
                == slates.of(person, side)
            )
            assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    written = {file: file.read_bytes() for file in slates.files()}
    (tmp_path / "s" / "a-00001.parquet").unlink()  # as after a kill
    calls = []
    search = type(b)._search
    monkeypatch.setattr(
        type(b), "_search", lambda self, request: calls.append(1) or search(self, request)
    )
    recommend_all(a, b, tmp_path / "s", 4, **options)
    assert len(calls) == 1
    assert {file: file.read_bytes() for file in slates.files()} == written
    with pytest.raises(ConfigurationError, match="slates that differ in k"):
        recommend_all(a, b, tmp_path / "s", 5, **options)
    a.remove(["a1"])
    with pytest.raises(ConfigurationError, match="differ in people_a"):
        recommend_all(a, b, tmp_path / "s", 4, **options)
    one_sided = recommend_all(a, None, tmp_path / "one-sided", 3)
    assert not one_sided.files("b")
    assert all(row["id"] != row["candidate"] for row in one_sided.table().to_pylist())
    with pytest.raises(DataError, match="holds no slates"):
        Slates(tmp_path / "nothing")


def test_exclusions(tmp_path):
    seen = Exclusions([("a", "b"), ("a", "c")])
    assert set(seen.of("a")) == {"b", "c"}
    assert not seen.of("b")
    seen.add("b", "d", symmetric=True)
    assert set(seen.of("d")) == {"b"}
    seen.forget(["b"])
    assert set(seen.of("a")) == {"c"}
    assert len(seen) == 1
    (tmp_path / "x.csv").write_text("id,other\na,b\nc,d\n")
    assert set(Exclusions.read(tmp_path / "x.csv", symmetric=True).of("d")) == {"c"}
    (tmp_path / "y.csv").write_text("id,othr\na,b\n")
    with pytest.raises(DataError, match="other is missing"):
        Exclusions.read(tmp_path / "y.csv")
    (tmp_path / "z.csv").write_text("id,other\na,\n,b\n")
    with pytest.raises(
        DataError, match=r"line 2, column other: the id is blank\.\n.*line 3, column id"
    ):
        Exclusions.read(tmp_path / "z.csv")


@pytest.fixture
def simple_matcher(hash_backbone, tmp_path):
    from pairmatch import Matcher

    return Matcher(backbone=hash_backbone, metadata=None, head="identity", store=tmp_path / "s.db")


@pytest.mark.parametrize("as_gallery", [False, True])
def test_exclusions_that_match_nobody_are_an_error(simple_matcher, as_gallery):
    people = [Profile(str(n), text=f"text {n}") for n in range(5)]
    candidates = simple_matcher.gallery(people) if as_gallery else people
    me = Profile("9", text="me")
    nobody = "exclusions match no one: none of their ids is among the candidates"
    for exclude in (
        ["1.0"],
        {"01", "x"},
        Exclusions([("9.0", "1.0"), ("8.0", "2.0")]),
        Exclusions([(f"a{n}", f"b{n}") for n in range(3000)]),
    ):
        with pytest.raises(ConfigurationError, match=nobody):
            simple_matcher.recommend(me, candidates, exclude=exclude)
    with pytest.raises(ConfigurationError, match=r"`exclude` takes ids: write exclude=\['12'\]"):
        simple_matcher.recommend(me, candidates, exclude="12")


@pytest.mark.parametrize("as_gallery", [False, True])
def test_exclusions_of_people_who_are_not_there_are_counted(simple_matcher, as_gallery, caplog):
    people = [Profile(str(n), text=f"text {n}") for n in range(5)]
    candidates = simple_matcher.gallery(people) if as_gallery else people
    me = Profile("9", text="me")
    for exclude, hidden, warning in (
        (["1", "77", "x"], {"1"}, "2 of 3 people who are not to be shown to 9 are not among"),
        (Exclusions([("9", "1"), ("9", "77")]), {"1"}, "1 of 2 people who are not to be shown"),
        (Exclusions([("9", "77")]), set(), "1 of 1 people who are not to be shown to 9"),
        (Exclusions([("9", "1"), ("9", "2")]), {"1", "2"}, ""),
        (Exclusions([("3", "4")]), set(), ""),  # other people have exclusions, this one has none
        (Exclusions(), set(), ""),
        ([], set(), ""),
    ):
        caplog.clear()
        found = simple_matcher.recommend(me, candidates, exclude=exclude)
        assert {one.profile.id for one in found} == {str(n) for n in range(5)} - hidden
        assert warning in caplog.text
        assert bool(caplog.text) == bool(warning)


def test_slates_count_exclusions_of_people_who_are_not_there(tmp_path, caplog):
    a = Gallery.of(["a0", "a1"], vectors(2))
    b = Gallery.of(["b0", "b1"], vectors(2))
    blocked = Exclusions([("a0", "b0"), ("a1", "later"), ("x", "b1")], symmetric=True)
    slates = recommend_all(a, b, tmp_path / "s", exclude=blocked)
    assert "4 of 6 exclusions concern people who are not in the galleries" in caplog.text
    assert [person for person, _ in slates.of("a0")] == ["b1"]
    with pytest.raises(ConfigurationError, match="match no one: none of their ids is in the gall"):
        recommend_all(a, b, tmp_path / "t", exclude=Exclusions([("A0", "B0")]))
    assert not (tmp_path / "t").exists()


def test_ineligible_people_are_not_embedded(hash_backbone, tmp_path):
    from pairmatch import Matcher

    people = [Profile(f"p{n}", text=f"text {n}", attributes={"age": 20 + n}) for n in range(9)]
    matcher = Matcher(backbone=hash_backbone, metadata=None, head="identity", store=tmp_path / "s")
    me = Profile("me", text="me", attributes={"age": 24})
    recommendations = matcher.recommend(
        me, people, where="abs(age - query.age) <= 1", exclude=["p4"]
    )
    assert {candidate.profile.id for candidate in recommendations} == {"p3", "p5"}
    assert hash_backbone.seen == 3
    empty = matcher.recommend(me, people, where="age > 90")
    assert (empty, empty.eligible, empty.excluded_by) == ([], 0, "age > 90")
    assert eligible(people, "age > 26", asking={})[0] == people[7:]
    assert eligible([], "age > 26", asking={}) == ([], "no candidates")


def test_a_gallery_of_another_head_is_an_error(tmp_path, small_pairs, hash_backbone):
    from pairmatch import Matcher, TrainingConfig

    def fitted(seed):
        matcher = Matcher(
            backbone=hash_backbone,
            metadata=None,
            head=("linear", {"width": 4}),
            training=TrainingConfig(epochs=1, seed=seed),
            store=tmp_path / "s",
        )
        return matcher.fit(small_pairs(6))

    matcher = fitted(0)
    other_matcher = fitted(1)
    people = small_pairs(6).people
    matcher.gallery(people).save(tmp_path / "g")
    opened = Gallery.open(tmp_path / "g")
    assert len(matcher.recommend(people[0], opened, 3)) == 3
    with pytest.raises(ConfigurationError, match="embedded by a matcher with another head"):
        other_matcher.recommend(people[0], opened)
    with pytest.raises(ConfigurationError, match="embedded by a matcher with another head"):
        other_matcher.add_to(opened, people)


def test_invalid_arguments_are_errors(tmp_path):
    gallery = Gallery.of(crowd(3), vectors(3))
    old = Profile("x", attributes={"age": "old"})
    for call, message in (
        (lambda: gallery.add(["x"], vectors(2)), "one embedding, got 1 people and 2 embeddings"),
        (lambda: gallery.add(["x", "x"], vectors(2)), "occur more than once: x"),
        (lambda: gallery.add(["x"], vectors(1, width=5)), "8 wide, those of the added people 5"),
        (
            lambda: gallery.add([old], vectors(1)),
            "'age' of 'x' is text, for others it is number",
        ),
        (lambda: gallery.add(["x"], np.full((1, 8), np.nan)), "not finite"),
        (lambda: gallery.search(vectors(1, width=5)), "8 wide, the queries 5"),
        (lambda: gallery.search(vectors(1), 0), r"`search\(k=...\)` must be at least 1"),
        (
            lambda: gallery.search(vectors(2), asking=[{}]),
            "`asking` needs one entry per query, 2, got 1",
        ),
        (lambda: gallery.search(vectors(1), where="aeg > 3"), "Did you mean 'age'?"),
        (gallery.save, "needs a folder"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            call()
    assert len(gallery) == 3
    with pytest.raises(StoreError, match="holds no gallery"):
        Gallery.open(tmp_path)
    gallery.save(tmp_path / "g")
    next((tmp_path / "g").glob("*.arrow")).write_bytes(b"no")
    with pytest.raises(StoreError, match="cannot be read"):
        Gallery.open(tmp_path / "g")


def test_people_with_and_without_attributes(tmp_path):
    gallery = Gallery.of(["a", "b"], vectors(2))
    gallery.add([Profile("c", attributes={"age": 30.5, "x.y": "é"})], vectors(1, seed=3))
    gallery.add([Profile("d", attributes={"age": 31})], vectors(1, seed=4))
    gallery.save(tmp_path / "g")
    opened = Gallery.open(tmp_path / "g")
    assert [opened.profile(i).attributes for i in "abcd"] == [
        {},
        {},
        {"age": 30.5, "x.y": "é"},
        {"age": 31.0},
    ]
    assert opened.search(vectors(1), where="\"x.y\" = 'é'").candidates(0)[0][0] == "c"
    assert json.dumps(opened.attribute_kinds) == '{"age": "number", "x.y": "text"}'


def test_slates_cannot_be_continued_with_other_exclusions(tmp_path):
    people = Gallery.of(["a", "b", "c"], np.eye(3))
    recommend_all(people, None, tmp_path / "s", 2, exclude=Exclusions([("a", "b")]))
    recommend_all(people, None, tmp_path / "s", 2, exclude=Exclusions([("a", "b")]))
    with pytest.raises(ConfigurationError, match="slates that differ in exclusions"):
        recommend_all(people, None, tmp_path / "s", 2, exclude=Exclusions([("a", "c")]))


def test_incomplete_files_are_removed(tmp_path):
    slates = recommend_all(Gallery.of(["a", "b"], np.eye(2)), None, tmp_path / "s", 1)
    # `write_file` uses such a name until the file is complete
    incomplete = tmp_path / "s" / ".a-00001.parquet.x1y2_z34"
    incomplete.write_bytes(b"a, b")
    slates.forget(["a"])
    assert not incomplete.exists()


def test_profiles_are_as_recent_as_the_gallery(tmp_path):
    Gallery.of(["z"], np.eye(1, 2)).save(tmp_path / "g")
    first = Gallery.open(tmp_path / "g")
    second = Gallery.open(tmp_path / "g")
    first.add([Profile("p", text="mine", attributes={"age": 20})], np.eye(1, 2))
    assert first.profile("p").text == "mine"
    second.add([Profile("p", attributes={"age": 30})], np.eye(1, 2))
    assert first.profile("p") == Profile("p", attributes={"age": 30})


def test_query_attributes_of_different_kinds_are_an_error():
    gallery = Gallery.of([Profile("p", attributes={"age": 0})], np.eye(1))
    with pytest.raises(ConfigurationError, match="'age' in two kinds"):
        gallery.search(np.ones((2, 1)), where="age >= query.age", asking=[{"age": "x"}, {"age": 1}])


def test_numpy_numbers_nan_and_large_numbers(tmp_path):
    Gallery.of(["z"], np.eye(1, 2)).save(tmp_path / "g")
    for gallery in (Gallery.open(tmp_path / "g"), Gallery()):
        gallery.add(
            [Profile("p", attributes={"age": np.int64(3), "smoker": np.bool_(True)})], np.eye(1, 2)
        )
        gallery.add([Profile("nan", attributes={"age": float("nan")})], np.eye(1, 2))
        gallery.add([Profile("large", attributes={"age": 2**70})], np.eye(1, 2))
        gallery.add([Profile("half", attributes={"age": 0.5})], np.eye(1, 2))
        assert set(gallery.search(np.ones((1, 2)), where="age != 0.5").ids[0]) - {None} == {
            "p",
            "large",
        }
        assert "nan" in gallery.search(np.ones((1, 2)), where="age is null").ids[0]


def test_forgetting_continues_after_failures_and_reports_them(tmp_path, monkeypatch):
    people = ["a", "b", "c"]
    for name in ("one", "two"):
        Gallery.of(people, vectors(3)).save(tmp_path / name)
    store = Store(tmp_path / "store.sqlite")
    store.link([("a", "key")])

    def blocked(ids):
        raise StoreError("the store is being read.")

    monkeypatch.setattr(store, "forget", blocked)
    with pytest.raises(
        StoreError,
        match=r"1 of 3 places are not erased completely.*one.*two.*the store is being read",
    ):
        forget(["a"], store=store, galleries=[tmp_path / "one", tmp_path / "two"])
    for name in ("one", "two"):
        assert Gallery.open(tmp_path / name).ids == ["b", "c"]


def test_forgetting_tries_every_place(tmp_path):
    for name in ("one", "damaged", "two"):
        Gallery.of(["a", "b"], vectors(2)).save(tmp_path / name)
    (tmp_path / "damaged" / "gallery.sqlite").write_text("damaged" * 100)
    (tmp_path / "empty").mkdir()
    folders = [tmp_path / name for name in ("one", "damaged", "absent", "two")]
    message = (
        r"^3 of 6 places are not erased completely \(erased: .*store.sqlite, .*one, .*two\): "
        r".*damaged.* is not a database.*absent.*empty"
    )
    with Store(tmp_path / "store.sqlite") as store:
        store.link([("a", "key")])
        with pytest.raises(StoreError, match=message):
            forget(["a"], store=store, galleries=folders, slates=[tmp_path / "empty"])
        assert store.counts()["people"] == 0
    for name in ("one", "two"):
        assert Gallery.open(tmp_path / name).ids == ["b"]


@pytest.mark.parametrize("content", [None, b"", b"damaged" * 100, b"SQLite format 3\0"])
def test_forgetting_goes_on_after_a_store_that_cannot_be_opened(tmp_path, content):
    Gallery.of(["a", "b"], vectors(2)).save(tmp_path / "g")
    path = tmp_path / "typo.sqlite"
    if content:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=r"1 of 2 places .* \(erased: .*g\): .*typo\.sqlite"):
        forget(["a"], store=path, galleries=[tmp_path / "g"])
    assert Gallery.open(tmp_path / "g").ids == ["b"]
    assert (path.read_bytes() if path.exists() else b"") == (content or b"")


def test_people_who_were_only_removed_are_not_unknown(tmp_path):
    gallery = Gallery.of(["anna-17", "b"], vectors(2))
    gallery.save(tmp_path / "g")
    Gallery.open(tmp_path / "g").remove(["anna-17"])
    assert traces(tmp_path, b"anna-17")
    assert forget(["anna-17", "x"], galleries=[tmp_path / "g"]).unknown == ("x",)
    assert not traces(tmp_path, b"anna-17")
    assert forget(["anna-17"], galleries=[tmp_path / "g"]).unknown == ("anna-17",)


def test_every_place_finds_ids_in_other_normal_forms(tmp_path, hash_backbone):
    from pairmatch import Matcher

    given, typed = "Jose\u0301", "Jos\u00e9"
    matcher = Matcher(backbone=hash_backbone, metadata=None, store=tmp_path / "store.sqlite")
    matcher.features([Profile(given, text="hi")])
    gallery = Gallery.of([given, "b"], vectors(2))
    gallery.save(tmp_path / "g")
    recommend_all(gallery, None, tmp_path / "s", k=1)
    assert Slates(tmp_path / "s").of(typed) == Slates(tmp_path / "s").of(given) != []
    erased = forget(
        [typed], store=matcher.store, galleries=[tmp_path / "g"], slates=[tmp_path / "s"]
    )
    assert (erased.store.people, erased.unknown) == (1, ())
    assert list(erased.galleries.values()) == [1]
    assert list(erased.slates.values()) == [2]
    assert not traces(tmp_path, given.encode())


def test_exclusions_hold_in_all_normal_forms(simple_matcher):
    people = [Profile(person, text=person) for person in ("Jose\u0301", "b", "c")]
    me = Profile("Zoe\u0308", text="me")
    for candidates in (people, simple_matcher.gallery(people)):
        for exclude in (["Jos\u00e9"], Exclusions([("Zo\u00eb", "Jos\u00e9")])):
            shown = simple_matcher.recommend(me, candidates, exclude=exclude)
            assert {one.profile.id for one in shown} == {"b", "c"}
    assert Exclusions([(1, 2)]).of("1") == {"2"}
    for pairs in (["ab"], [("a",)], [("a", None)], [(1.0, 2.0)]):
        with pytest.raises(ConfigurationError, match=r"pairs of ids|must be text"):
            Exclusions(pairs)


def test_saving_over_a_gallery_of_another_kind_is_refused(tmp_path):
    pytest.importorskip("lancedb")
    lance = LanceGallery(tmp_path / "l")
    lance.add(["p1", "p2"], vectors(2))
    for gallery in (Gallery.of(["p0"], vectors(1)), lance):
        with pytest.raises(StoreError, match="holds a LanceGallery, which saving"):
            gallery.save(tmp_path / "l")
    assert Gallery.open(tmp_path / "l").ids == ["p1", "p2"]

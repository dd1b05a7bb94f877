"""Galleries in memory, in a folder and in LanceDB behave identically."""

import datetime
import importlib.util
import math
import re
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pairmatch import Exclusions, Gallery, Matcher, Profile
from pairmatch.core.arrays import unit_rows
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.gallery import (
    FolderGallery,
    LanceGallery,
    MemoryGallery,
    forget,
    recommend_all,
    recommend_several,
)

needs_lance = pytest.mark.skipif(
    importlib.util.find_spec("lancedb") is None, reason="the extra `lance` is not installed"
)
KINDS = ["memory", "folder", pytest.param("lance", marks=needs_lance)]


def create(kind, folder, **options):
    """Returns an empty gallery of the given kind."""
    if kind == "memory":
        return MemoryGallery(**options)
    if kind == "lance":
        return LanceGallery(folder, **options)
    Gallery(**options).save(folder)
    return Gallery.open(folder)


@pytest.fixture(params=KINDS)
def new_gallery(request, tmp_path):
    count = iter(range(100))
    return lambda **options: create(request.param, tmp_path / f"g{next(count)}", **options)


def vectors(count, width=4, seed=0):
    return unit_rows(np.random.default_rng(seed).normal(size=(count, width)))


PEOPLE = [
    Profile("anna", attributes={"age": 30, "region": "north", "smoker": False}),
    Profile("ben", attributes={"age": 35, "region": "south", "smoker": True}),
    Profile("cleo", attributes={"age": 41, "region": "Da'ejeon"}),
    Profile("dan", attributes={"region": "north", "height": 1.8}),
]


def names(gallery, where=None, query=None, **options):
    """Ids of all eligible candidates, sorted, and the filter that removed the last one."""
    query = np.ones((1, gallery.width), np.float32) if query is None else query
    result = gallery.search(query, 10, where=where, **options)
    ids = [person for person, _ in result.candidates(0)]
    assert len(ids) == result.eligible[0]
    return sorted(ids) or result.excluded_by[0]


def test_people_are_added_replaced_and_removed(new_gallery):
    gallery = new_gallery(side="a", made_by="digest")
    assert isinstance(gallery, Gallery)
    assert (len(gallery), gallery.ids, gallery.width, gallery.attribute_kinds) == (0, [], None, {})
    assert gallery.embeddings.shape == (0, 0)
    assert (list(gallery), list(gallery.chunks())) == ([], [])
    gallery.add([], np.empty((0, 4)))
    e = vectors(4)
    gallery.add(PEOPLE[:3], e[:3])
    gallery.add(PEOPLE[3:], e[3:])
    assert (gallery.side, gallery.made_by, gallery.width, len(gallery)) == ("a", "digest", 4, 4)
    assert gallery.ids == ["anna", "ben", "cleo", "dan"]
    np.testing.assert_array_equal(gallery.embeddings, e)
    assert gallery.attribute_kinds == {
        "age": "number",
        "region": "text",
        "smoker": "bool",
        "height": "number",
    }
    older = Profile("anna", attributes={"age": 31})
    gallery.add([older], e[3:])
    assert gallery.ids == ["ben", "cleo", "dan", "anna"]
    np.testing.assert_array_equal(gallery.embeddings, e[[1, 2, 3, 3]])
    assert gallery.remove(["ben", "ben", "unknown"]) == 1
    assert gallery.remove(["ben"]) == 0
    assert gallery.ids == ["cleo", "dan", "anna"]
    assert "cleo" in gallery
    assert "ben" not in gallery
    assert list(gallery) == [PEOPLE[2], PEOPLE[3], older]
    assert gallery.profile("anna") == older
    assert gallery.profiles(["dan", "anna", "dan"]) == [PEOPLE[3], older, PEOPLE[3]]
    assert gallery.profiles([]) == []
    with pytest.raises(DataError, match=r"no candidate with the id 'ben', 'x'\."):
        gallery.profiles(["dan", "ben", "x"])
    assert gallery.forget(["cleo", "unknown"]) == 1
    assert gallery.ids == ["dan", "anna"]
    assert gallery.forget(["dan", "anna"]) == 2
    assert (len(gallery), gallery.width, gallery.ids) == (0, 4, [])
    assert gallery.embeddings.shape == (0, 4)
    gallery.add(["plain"], e[:1])
    assert list(gallery) == [Profile("plain")]


def test_chunks_cover_all_people_in_order(new_gallery):
    gallery = new_gallery()
    people = [Profile(f"p{i}", attributes={"n": i} if i % 2 else {}) for i in range(11)]
    e = vectors(11)
    for start in range(0, 11, 3):
        gallery.add(people[start : start + 3], e[start : start + 3])
    chunks = list(gallery.chunks(4))
    assert [len(ids) for ids, _, _ in chunks] == [4, 4, 3]
    assert [person for ids, _, _ in chunks for person in ids] == gallery.ids
    assert [row for _, rows, _ in chunks for row in rows] == [p.attributes for p in people]
    np.testing.assert_array_equal(np.concatenate([part for _, _, part in chunks]), e)
    assert list(gallery) == people


def test_entries_are_attributes_and_embeddings_by_id(new_gallery):
    gallery = new_gallery()
    gallery.add(PEOPLE, vectors(4))
    gallery.add([Profile("\xe9va", attributes={"age": 20})], vectors(1, seed=1))
    gallery.remove(["cleo"])
    found = gallery.entries(["ben", "cleo", "nobody", "e\u0301va"])
    assert set(found) == {"ben", "e\u0301va"}
    attributes, vector = found["ben"]
    assert attributes == {"age": 35, "region": "south", "smoker": True}
    np.testing.assert_array_equal(vector, vectors(4)[1].astype(np.float32))
    assert gallery.entries([]) == {}


def test_several_people_get_what_each_gets_alone(new_gallery):
    gallery = new_gallery()
    gallery.add(PEOPLE, vectors(4))
    queries = vectors(3, seed=2)
    asking = [{"age": 30}, {"age": 36}, {}]
    excluded = [{"anna"}, set(), {"ben"}]
    rule = "age >= query.age or region = 'north'"
    together = recommend_several(gallery, queries, 3, where=rule, asking=asking, excluded=excluded)
    for row, ranking in enumerate(together):
        alone = gallery.recommend(
            queries[row : row + 1], 3, where=rule, asking=asking[row], excluded=excluded[row]
        )
        assert [one.profile for one in ranking] == [one.profile for one in alone]
        assert [one.score for one in ranking] == pytest.approx([one.score for one in alone])
        assert (ranking.eligible, ranking.excluded_by) == (alone.eligible, alone.excluded_by)


def test_readers_see_a_consistent_state_during_writes(new_gallery):
    gallery = new_gallery()
    gallery.add([f"p{i}" for i in range(6)], vectors(6))
    chunks = gallery.chunks(2)
    ids = [*next(chunks)[0]]
    gallery.remove(["p0", "p4"])
    gallery.add(["p5", "new"], vectors(2))
    for later, _, _ in chunks:
        ids += later
    assert ids == [f"p{i}" for i in range(6)]
    assert gallery.ids == ["p1", "p2", "p3", "p5", "new"]


def test_threads_can_share_a_gallery(new_gallery):
    gallery = new_gallery()
    gallery.add([Profile(f"p{i}", attributes={"n": i}) for i in range(50)], vectors(50))

    def write(number):
        for i in range(5):
            gallery.add([Profile(f"new{number}-{i}", attributes={"n": -1})], vectors(1))
            gallery.remove([f"new{number}-{i}"])

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, number) for number in range(2)]
        searches = [pool.submit(gallery.search, vectors(1), 60, where="n >= 0") for _ in range(20)]
        for search in searches:
            assert search.result().eligible.tolist() == [50]
        for writer in writers:
            writer.result()
    assert len(gallery) == 50


def test_profiles_keep_photos_and_text(new_gallery):
    gallery = new_gallery()
    person = Profile("p", text="about me", attributes={"age": 20})
    gallery.add([person], vectors(1))
    assert gallery.profile("p") is person
    assert next(iter(gallery)) is person


def test_saved_galleries_contain_the_same_people(new_gallery, tmp_path):
    gallery = new_gallery(side="a", made_by="digest")
    gallery.save(tmp_path / "empty")
    assert Gallery.open(tmp_path / "empty").side == "a"
    gallery.add(PEOPLE, vectors(4))
    gallery.remove(["ben"])
    assert gallery.save(tmp_path / "copy") == tmp_path / "copy"
    copy = Gallery.open(tmp_path / "copy")
    assert isinstance(copy, FolderGallery)
    assert (copy.side, copy.made_by, copy.width) == ("a", "digest", 4)
    assert copy.attribute_kinds == gallery.attribute_kinds
    assert list(copy) == list(gallery)
    np.testing.assert_array_equal(copy.embeddings, gallery.embeddings)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("age >= 35", "ben cleo"),
        ("age is null", "dan"),
        ("not (age >= 35)", "anna"),
        ("region in ('Da''ejeon', 'south')", "ben cleo"),
        ("region not in ('north')", "ben cleo"),
        ("region > 'o'", "ben"),
        ("smoker", "ben"),
        ("not smoker", "anna"),
        ("smoker = false or height > 1", "anna dan"),
        ("(age > 30) = true", "ben cleo"),
        ("(age > 30) is null", "dan"),
        ("age between 31 and 41 and region != 'x'", "ben cleo"),
        ("1 / (age - 30) > 0", "ben cleo"),  # a division by zero is unknown
        ("not (1 / (age - 30) > 0)", None),
        ("1 / (age - 30) is null", "anna dan"),
        ("1 / (1 / (age - 30)) >= 0", "ben cleo"),
        ("(age - 30) / (age - 30) = 1", "ben cleo"),
        ("age * 1e308 > 0", None),
        ("7 / 2 = 3.5 and age > 0", "anna ben cleo"),
        ("-(age - 30) = 0", "anna"),
        ("(age - 30) * -1 >= 0", "anna"),
        ("abs(age - 40) - 5 <= 0", "ben cleo"),
        (["age > 30", "age < 41"], "ben"),
        (" and ".join(["age > 30"] * 200), "ben cleo"),
        (" or ".join([*(f"age = {n}" for n in range(100, 400)), "age = 41"]), "cleo"),
        ("not " * 40 + "smoker", "ben"),
    ],
)
def test_rules(new_gallery, rule, expected):
    gallery = new_gallery()
    gallery.add(PEOPLE, vectors(4))
    eligible = names(gallery, rule)
    if expected is None:
        assert isinstance(eligible, str)
    else:
        assert eligible == expected.split()


def test_rules_that_compare_with_the_query_person(new_gallery):
    gallery = new_gallery()
    gallery.add(PEOPLE, vectors(4))
    near = "ABS(age - query.age) <= 6"
    assert names(gallery, near, asking=[{"age": 36}]) == ["anna", "ben", "cleo"]
    assert names(gallery, near, asking=[{}]) == near
    assert names(gallery, near) == near
    assert names(gallery, near, asking=[{"age": math.nan}]) == near
    assert names(gallery, "not (age = query.age)", asking=[{"age": math.nan}]) == (
        "NOT (age = query.age)"
    )
    assert names(gallery, "query.age is null", asking=[{"age": math.nan}]) == [
        "anna",
        "ben",
        "cleo",
        "dan",
    ]
    assert names(gallery, "age < query.age", asking=[{"age": math.inf}]) == ["anna", "ben", "cleo"]
    assert names(gallery, "age / query.age > 0", asking=[{"age": 0}]) == "age / query.age > 0"
    assert names(gallery, "smoker = query.smoker", asking=[{"smoker": np.bool_(True)}]) == ["ben"]
    assert names(gallery, "region = query.region", asking=[{"region": "Da'ejeon"}]) == ["cleo"]
    query = np.repeat(vectors(1, seed=5), 4, 0)
    asking = [{"age": 36}, {"age": 30}, {}, {"age": 36}]
    result = gallery.search(query, 5, where=near, asking=asking)
    assert result.eligible.tolist() == [3, 2, 0, 3]
    assert result.candidates(0) == result.candidates(3)
    assert result.excluded_by == (None, None, near, None)


def test_mutual_rules_hold_with_the_roles_swapped(new_gallery):
    gallery = new_gallery()
    people = [
        Profile("picky", attributes={"age": 30, "from": 40, "to": 50}),
        Profile("open", attributes={"age": 31, "from": 20, "to": 60}),
        Profile("silent", attributes={"age": 32}),
    ]
    gallery.add(people, vectors(3))
    rule = 'age between query."from" and query.to'
    me = {"age": 35, "from": 25, "to": 35}
    assert names(gallery, rule, asking=[me]) == ["open", "picky", "silent"]
    assert names(gallery, rule, asking=[me], mutual=True) == ["open"]
    clause = 'age BETWEEN query."from" AND query.to'
    assert names(gallery, rule, asking=[{**me, "from": 99}], mutual=True) == clause
    old = {**me, "age": 99}
    assert names(gallery, rule, asking=[old], mutual=True) == f"{clause}, with the roles swapped"
    # An attribute that only the query person has is unknown for candidates
    swapped = "age > query.minimum, with the roles swapped"
    asking = [{"age": 35, "minimum": 3}]
    assert names(gallery, "age > query.minimum", asking=asking) == ["open", "picky", "silent"]
    assert names(gallery, "age > query.minimum", asking=asking, mutual=True) == swapped
    # Several groups of query persons in one search
    asking = [me, {**me, "age": 45}, {**me, "to": 31}]
    result = gallery.search(np.ones((3, 4)), 5, where=rule, asking=asking, mutual=True)
    assert [sorted(person for person, _ in result.candidates(q)) for q in range(3)] == [
        ["open"],
        ["open", "picky"],
        ["open"],
    ]


def test_the_filter_that_removed_the_last_candidate(new_gallery):
    gallery = new_gallery()
    query = np.ones((1, 4), np.float32)
    result = gallery.search(query, where="age > 3")
    assert (result.excluded_by, result.eligible.tolist()) == (("no candidates",), [0])
    assert np.isneginf(result.scores).all()
    gallery.add(PEOPLE[:2], vectors(2))
    assert names(gallery, "age > 20 and age > 45 and region = 'north'") == "age > 45"
    assert names(gallery, "region = 'north' and age > 31") == "age > 31"
    assert names(gallery, excluded=[["anna", "ben", "x"]]) == "exclusions"
    assert names(gallery, "age > 31", excluded=[["ben"]]) == "exclusions"
    assert names(gallery, "age > 31", excluded=[["anna"]]) == ["ben"]
    result = gallery.search(
        np.ones((2, 4)), where="age > query.age", asking=[{"age": 0}] * 2, excluded=[["ben"], []]
    )
    assert result.eligible.tolist() == [1, 2]
    gallery.remove(["anna", "ben"])
    assert names(gallery, "age > 20", query=query) == "no candidates"
    assert names(gallery, query=query) == "no candidates"


def test_a_bonus_is_added_to_the_scores(new_gallery):
    e = vectors(40, seed=1)
    queries = vectors(3, seed=2)
    gallery = new_gallery()
    gallery.add([Profile(f"p{i}", attributes={"n": i}) for i in range(40)], e)
    gallery.remove(["p3", "p10"])
    bonus = np.random.default_rng(2).normal(size=38).astype(np.float32)
    scores = queries.astype(float) @ gallery.embeddings.astype(float).T + bonus
    ids = np.array(gallery.ids)
    result = gallery.search(queries, 38, bonus=bonus)
    np.testing.assert_array_equal(result.ids, ids[np.argsort(-scores, 1)])
    np.testing.assert_allclose(result.scores, -np.sort(-scores, 1), atol=1e-6)
    few = gallery.search(queries, 5, bonus=bonus, where="n >= 20", excluded=[["p30"]] * 3)
    scores[:, [int(name[1:]) < 20 or name == "p30" for name in ids]] = -np.inf
    np.testing.assert_array_equal(few.ids, ids[np.argsort(-scores, 1)[:, :5]])
    assert few.eligible.tolist() == [19] * 3
    with pytest.raises(ConfigurationError, match=r"one finite number per candidate, \[38\], got"):
        gallery.search(queries, bonus=np.zeros(40))
    with pytest.raises(ConfigurationError, match="one finite number per candidate"):
        gallery.search(queries, bonus=np.full(38, np.nan))
    with pytest.raises(ConfigurationError, match=r"one finite number per candidate, \[0\], got"):
        new_gallery().search(queries, bonus=np.zeros(1))


@pytest.mark.parametrize("k", [5, 10**11, np.int64(2**62)])
def test_k_is_capped_by_the_number_of_candidates(new_gallery, k):
    gallery = new_gallery()
    assert gallery.search(vectors(2), k).ids.shape == (2, 0)
    gallery.add(PEOPLE, vectors(4))
    for options in ({}, {"where": "age > 1"}, {"bonus": np.zeros(4)}):
        result = gallery.search(vectors(2), k, **options)
        assert result.ids.shape == result.scores.shape == (2, 4)
    assert len(gallery.recommend(vectors(1), k, where="age > 30")) == 2


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "3", None, math.nan])
def test_k_must_be_a_whole_number(new_gallery, k):
    gallery = new_gallery()
    gallery.add(PEOPLE, vectors(4))
    with pytest.raises(ConfigurationError, match=r"`search\(k=...\)` must be"):
        gallery.search(vectors(1), k)


def test_recommendations_are_of_one_moment(new_gallery):
    """Another thread removes the best candidate and adds them again all the time."""
    gallery = new_gallery()
    people = [Profile(f"p{i}", attributes={"n": i}) for i in range(12)]
    e = vectors(12)
    gallery.add(people, e)
    done = threading.Event()

    def write():
        while not done.is_set():
            gallery.remove(["p0", "p1"])
            gallery.add(people[:2], e[:2])

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        try:
            for _ in range(25):
                found = gallery.recommend(e[:1], 12, where="n >= 0")
                ids = [one.profile.id for one in found]
                assert len(ids) == found.eligible in (10, 11, 12)
                assert all(
                    one.profile.attributes == {"n": int(one.profile.id[1:])} for one in found
                )
        finally:
            done.set()
        writer.result()


@pytest.mark.parametrize(
    "value",
    [
        datetime.date(2024, 2, 30 - 1),
        np.datetime64("2024-01-01", "ns"),
        {"a"},
        ["a"],
        b"a",
        10**400,
        1j,
        "\ud83d",
    ],
)
def test_attributes_of_other_types_are_one_error(new_gallery, value):
    gallery = new_gallery()
    gallery.add(PEOPLE, vectors(4))
    with pytest.raises(
        ConfigurationError, match=r"People cannot be added. x: Attributes cannot be used: 'odd'"
    ):
        gallery.add([Profile("x", attributes={"odd": value, "age": 1})], vectors(1))
    with pytest.raises(ConfigurationError, match="'odd'"):
        gallery.search(vectors(1), where="age > 1", asking=[{"odd": value}])
    assert len(gallery) == 4


@pytest.mark.parametrize("first", ["01234", "A-1", "", "1e5"])
@pytest.mark.parametrize("later", [54321, 0, -7, 54321.0, np.int32(54321)])
def test_text_stays_text(new_gallery, first, later):
    """Postal codes of which some begin with 0, and some batches hold none of these."""
    gallery = new_gallery()
    gallery.add([Profile("a", attributes={"zip": first})], vectors(1))
    photo = Profile("b", text="photo", attributes={"zip": later})
    gallery.add([photo], vectors(1, seed=1))
    text = str(int(later))
    assert gallery.attribute_kinds == {"zip": "text"}
    assert gallery.profile("b") == Profile("b", text="photo", attributes={"zip": text})
    assert names(gallery, f"zip = '{text}'") == ["b"]
    assert names(gallery, "zip = query.zip", asking=[{"zip": later}]) == ["b"]
    both = [Profile("c", attributes={"zip": 1}), Profile("d", attributes={"zip": "02"})]
    new = new_gallery()
    new.add(both, vectors(2))
    assert [person.attributes["zip"] for person in new] == ["1", "02"]


@pytest.mark.parametrize(
    ("first", "later"),
    [(54321, "01234"), (1, True), (True, 1), ("x", True), (True, "x"), ("x", 1.5)],
)
def test_values_that_do_not_fit_name_the_people(new_gallery, first, later):
    gallery = new_gallery()
    gallery.add([Profile("a", attributes={"zip": first})], vectors(1))
    late = [Profile(f"late{n}", attributes={"zip": later}) for n in range(7)]
    with pytest.raises(ConfigurationError) as error:
        gallery.add(late, vectors(7))
    assert "'zip' of 'late0' is" in str(error.value)
    assert "and 2 more. Correct these values; or" in str(error.value)
    assert gallery.ids == ["a"]


def test_whole_and_other_numbers_mix(new_gallery):
    gallery = new_gallery()
    for person, age in (("a", 30), ("b", 30.5), ("c", np.float32(31)), ("d", 2**60)):
        gallery.add([Profile(person, attributes={"age": age})], vectors(1))
    assert gallery.attribute_kinds == {"age": "number"}
    assert names(gallery, "age >= 30.5 and age < 40") == ["b", "c"]


def test_ids_that_no_file_can_hold_are_an_error(new_gallery):
    gallery = new_gallery()
    with pytest.raises(ConfigurationError, match=r"\\ud800"):
        gallery.add(["a", "b\ud800"], vectors(2))
    odd = ["it's", '"', "a\\b", "%", "\0query", "a\nb", "é", "`", "id IN ('x')", " ", ""]
    gallery.add(odd, vectors(len(odd)))
    assert gallery.ids == odd
    assert gallery.search(vectors(1), excluded=[odd[:-1]]).candidates(0)[0][0] == ""
    assert gallery.profiles(odd) == [Profile(person) for person in odd]
    assert gallery.remove(odd[:5]) == 5
    assert gallery.forget(odd[5:]) == 6


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Jos\u00e9", "Jose\u0301"),
        ("\ud55c\uad6d", "\u1112\u1161\u11ab\u1100\u116e\u11a8"),
        ("\u212b", "A\u030a"),
    ],
)
def test_ids_in_two_normal_forms_are_one_person(new_gallery, first, second):
    gallery = new_gallery()
    with pytest.raises(ConfigurationError, match="same characters in different Unicode"):
        gallery.add([first, second], vectors(2))
    gallery.add(["a", second], vectors(2))
    with pytest.raises(ConfigurationError, match=re.escape(ascii(second))):
        gallery.add([first], vectors(1))
    gallery.add([second], vectors(1, seed=1))  # replaces the person
    assert gallery.ids == ["a", second]  # as it was given
    form = unicodedata.normalize("NFC", first)  # as command lines and files have it
    assert form in gallery
    assert gallery.present([form, "a", "b"]) == {form, "a"}
    assert gallery.profile(form).id == second
    assert gallery.search(vectors(1), excluded=[[form]]).ids.tolist() == [["a", None]]
    assert gallery.remove([form]) == 1
    assert gallery.known([form]) == {form}
    assert gallery.forget([form]) == 0
    assert gallery.known([form]) == set()
    gallery.add([first], vectors(1))


@pytest.mark.parametrize("many", [False, True])
def test_removed_people_are_known_until_they_are_erased(new_gallery, many):
    gallery = new_gallery()
    ids = [f"person-{number}" for number in range(1_500 if many else 5)]
    gallery.add(ids, vectors(len(ids)))
    gallery.remove(ids[1:3])
    gallery.add(["new"], vectors(1))
    assert gallery.known([ids[0], ids[1], "new", "stranger", "\ud800"]) == {*ids[:2], "new"}
    gallery.forget([ids[1]])
    assert gallery.known(ids[:3]) == {ids[0]}


@pytest.mark.parametrize("ids", ["12", [None], [1.0], [True], [b"1"]])
def test_what_is_no_list_of_ids_is_one_error(new_gallery, ids):
    gallery = new_gallery()
    gallery.add(["1", "2", "12"], vectors(3))
    for call in (
        gallery.remove,
        gallery.forget,
        gallery.profiles,
        gallery.present,
        gallery.known,
        forget,
        lambda ids: gallery.search(vectors(1), excluded=[ids]),
        lambda ids: gallery.add(ids, vectors(1)),
    ):
        with pytest.raises(ConfigurationError, match=r"takes a list of|must be text"):
            call(ids)
    with pytest.raises(ConfigurationError, match="takes a list of ids, got 12"):
        gallery.remove(12)
    assert len(gallery) == 3


def test_numbers_as_ids_are_text(new_gallery):
    gallery = new_gallery()
    gallery.add([1, np.int64(2)], vectors(2))
    assert gallery.ids == ["1", "2"]
    assert gallery.search(vectors(1), excluded=[[1]]).ids.tolist() == [["2", None]]
    assert gallery.remove([2]) == 1


def test_ids_that_nobody_can_have_are_not_there(new_gallery):
    gallery = new_gallery()
    gallery.add(["a"], vectors(1))
    assert gallery.remove(["a\ud83d"]) == gallery.forget(["\ud800"]) == 0
    assert gallery.search(vectors(1), excluded=[["\ud800"]]).ids.tolist() == [["a"]]
    with pytest.raises(DataError, match=r"no candidate with the id 'a\\+ud83d'"):
        gallery.profile("a\ud83d")


@pytest.mark.parametrize(
    "call",
    [
        lambda gallery: list(gallery.chunks(0)),
        lambda gallery: list(gallery.chunks(-5)),
        lambda gallery: gallery.search(np.full((1, 4), 1e300)),
        lambda gallery: gallery.search(vectors(1), where=5),
        lambda gallery: gallery.search(vectors(1), where="age = 1", asking=[None]),
        lambda gallery: gallery.search(vectors(1), bonus=["x"]),
        lambda gallery: gallery.add([Profile("b", attributes={None: 1})], vectors(1)),
        lambda gallery: gallery.add([Profile(None)], vectors(1)),
    ],
)
def test_other_types_are_one_error(new_gallery, call):
    gallery = new_gallery()
    gallery.add([Profile("a", attributes={"age": 1})], vectors(1))
    with pytest.raises(ConfigurationError):
        call(gallery)
    assert gallery.ids == ["a"]


def test_equal_scores_keep_the_order_of_insertion(new_gallery):
    gallery = new_gallery()
    e = np.repeat(vectors(2), 5, 0)
    for start in range(0, 10, 2):
        gallery.add([f"p{i}" for i in range(start, start + 2)], e[start : start + 2])
    result = gallery.search(e[:1], 7)
    assert [person for person, _ in result.candidates(0)] == [f"p{i}" for i in range(7)]


def test_nan_nulls_and_large_numbers(new_gallery):
    gallery = new_gallery()
    for person, age in (
        ("nan", math.nan),
        ("numpy", np.int64(3)),
        ("large", 2**70),
        ("half", 0.5),
        ("zero", -0.0),
        ("infinite", math.inf),
    ):
        gallery.add([Profile(person, attributes={"age": age})], vectors(1))
    gallery.add(["none"], vectors(1))
    assert names(gallery, "age != 0.5") == ["infinite", "large", "numpy", "zero"]
    assert names(gallery, "age > 1") == ["infinite", "large", "numpy"]
    assert names(gallery, "age is null") == ["nan", "none"]
    assert names(gallery, "age - 1 > 1") == ["large", "numpy"]  # infinity - 1 is not finite
    assert names(gallery, "age >= 0 and age < 1") == ["half", "zero"]
    assert names(gallery, "age = -age") == ["zero"]
    assert next(gallery.chunks())[1][0] == {}


ODD_NAMES = [
    "a.b",
    "a`b",
    'a"b',
    "a b",
    "_distance",
    "_rowid",
    "id",
    "vector",
    "Age",
    "embedding",
    "attribute_6964",
    "나이",
    "",
    "select",
    "x" * 300,
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_attribute_names(new_gallery, name):
    gallery = new_gallery()
    gallery.add(["plain"], vectors(1))
    gallery.add([Profile("p", attributes={name: 3, "age": 1})], vectors(1))
    gallery.add([Profile("q", attributes={name: 4})], vectors(1))
    assert gallery.attribute_kinds == {name: "number", "age": "number"}
    assert gallery.profile("p").attributes == {name: 3, "age": 1}
    assert [p.attributes for p in gallery] == [{}, {name: 3, "age": 1}, {name: 4}]
    if name:  # SQL does not allow empty names
        quoted = '"' + name.replace('"', '""') + '"'
        assert names(gallery, f"{quoted} > 3") == ["q"]
        assert names(gallery, f"query.{quoted} >= {quoted}", asking=[{name: 3}]) == ["p"]
        asking = [{name: 3}, {name: 5}]
        result = gallery.search(np.ones((2, 4)), where=f"{quoted} < query.{quoted}", asking=asking)
        assert result.eligible.tolist() == [0, 2]
    gallery.remove(["q"])
    assert len(gallery) == 2


def test_invalid_arguments_are_errors(new_gallery):
    gallery = new_gallery()
    gallery.add(PEOPLE, vectors(4))
    old = Profile("x", attributes={"age": "old"})
    nan = np.full((1, 4), np.nan)
    for call, message in (
        (lambda: gallery.add(["x"], vectors(2)), "one embedding, got 1 people and 2"),
        (lambda: gallery.add(["x", "x"], vectors(2)), "occur more than once: x"),
        (lambda: gallery.add(["x"], vectors(1, 5)), "4 wide, those of the added people 5"),
        (lambda: gallery.add([old], vectors(1)), "'age' of 'x' is text, for others it is number"),
        (lambda: gallery.add(["x"], nan), "not finite"),
        (lambda: gallery.search(vectors(1, 5)), "4 wide, the queries 5"),
        (lambda: gallery.search(nan), "not finite"),
        (lambda: gallery.search(vectors(1), 0), r"`search\(k=...\)` must be at least 1"),
        (lambda: gallery.search(vectors(2), asking=[{}]), "`asking` needs one entry per query, 2"),
        (lambda: gallery.search(vectors(2), excluded=[]), "`excluded` needs one entry per query"),
        (lambda: gallery.search(vectors(1), where="aeg > 3"), r"Did you mean 'age'\?"),
        (lambda: gallery.search(vectors(1), where="age > 'x'"), "age is a number, 'x' is text"),
        (
            lambda: gallery.search(
                vectors(2), where="age > query.age", asking=[{"age": 1}, {"age": "x"}]
            ),
            "'age' in two kinds",
        ),
    ):
        with pytest.raises(ConfigurationError, match=message):
            call()
    assert len(gallery) == 4


@pytest.fixture
def matcher(hash_backbone, tmp_path):
    return Matcher(
        backbone=hash_backbone, metadata=None, head="identity", store=tmp_path / "store.sqlite"
    )


def test_the_matcher_recommends_from_every_kind_of_gallery(new_gallery, matcher):
    people = [
        Profile(f"p{i}", text=f"text {i}", attributes={"age": 20 + i, "from": 20, "to": 20 + 2 * i})
        for i in range(20)
    ]
    me = Profile("me", text="me", attributes={"age": 30, "from": 24, "to": 36})
    rule = 'age between query."from" and query.to'
    gallery = new_gallery()
    matcher.add_to(gallery, [*people, me])
    expected = matcher.recommend(me, people, 3, where=rule, mutual=True, exclude=["p7"])
    assert len(expected) == 3
    result = matcher.recommend(me, gallery, 3, where=rule, mutual=True, exclude=["p7"])
    assert [r.profile for r in result] == [r.profile for r in expected]
    np.testing.assert_allclose([r.score for r in result], [r.score for r in expected], rtol=1e-6)
    assert (result.eligible, result.excluded_by) == (expected.eligible, None)
    blocked = Exclusions([("me", person.id) for person in people])
    empty = matcher.recommend(me, gallery, exclude=blocked)
    assert (list(empty), empty.eligible, empty.excluded_by) == ([], 0, "exclusions")


def test_slates_do_not_depend_on_the_kind_of_gallery(new_gallery, tmp_path):
    galleries = [new_gallery(), MemoryGallery()]
    people = [Profile(f"p{i}", attributes={"age": 20 + i}) for i in range(30)]
    tables = []
    for number, gallery in enumerate(galleries):
        gallery.add(people, vectors(30))
        options = {"where": "abs(age - query.age) <= 5", "mutual": True}
        options["bonus_a"] = np.linspace(0, 1, 30)
        slates = recommend_all(gallery, None, tmp_path / f"s{number}", 4, **options)
        tables.append(slates.table().to_pylist())
    assert tables[0] == tables[1]
    with pytest.raises(TypeError, match="unexpected keyword argument 'bonus'"):
        recommend_all(galleries[0], None, tmp_path / "s", bonus=1)


# A rule is generated as text together with a plain Python function of (candidate, query person),
# which returns the value, or None for unknown. It shares no code with the package.


def attribute(name, of_query):
    def value(row, query):
        found = (query if of_query else row).get(name)
        return None if found is None or found != found else found

    return value


def calculated(symbol, left, right):
    def value(row, query):
        first, second = left(row, query), right(row, query)
        if first is None or second is None or (symbol == "/" and second == 0):
            return None
        first, second = float(first), float(second)
        result = {
            "+": lambda: first + second,
            "-": lambda: first - second,
            "*": lambda: first * second,
            "/": lambda: first / second,
        }[symbol]()
        return result if math.isfinite(result) else None

    return value


def negated(inner):
    return lambda row, query: None if (v := inner(row, query)) is None else -v


def absolute(inner):
    return lambda row, query: None if (v := inner(row, query)) is None else abs(v)


def compared(symbol, left, right):
    def value(row, query):
        first, second = left(row, query), right(row, query)
        if first is None or second is None:
            return None
        if not isinstance(first, bool | str):
            first, second = float(first), float(second)
        return {
            "=": first == second,
            "!=": first != second,
            "<": first < second,
            "<=": first <= second,
            ">": first > second,
            ">=": first >= second,
        }[symbol]

    return value


def both(left, right):
    def value(row, query):
        sides = (left(row, query), right(row, query))
        return False if False in sides else None if None in sides else True

    return value


def inverted(inner):
    return lambda row, query: None if (v := inner(row, query)) is None else not v


def either(left, right):
    return inverted(both(inverted(left), inverted(right)))


def missing(inner):
    return lambda row, query: inner(row, query) is None


def one_of(inner, options):
    def value(row, query):
        found = inner(row, query)
        return None if found is None else any(found == option for option in options)

    return value


def constant(value):
    return lambda row, query: value


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


TEXTS = ["a", "b", "", "it's", '"', "100%", "_", "é", "`x`", "\\", "NULL", "null", " a", "A", "나"]
NUMBERS = [0, 1, 2, -1, 0.5, -0.0, 20, 50, 1e308, 2**60, math.nan, math.inf, -math.inf, None]
values = {
    "income": st.sampled_from(NUMBERS),
    "children": st.sampled_from([0, 0, 1, 2, -0.0, None]),
    "t": st.sampled_from([*TEXTS, None]),
    "b": st.sampled_from([True, False, None]),
}
attributes = st.fixed_dictionaries({}, optional=values)
kinds_of_names = {"income": "number", "children": "number", "t": "text", "b": "bool"}


def named(kind):
    names = [name for name, its in kinds_of_names.items() if its == kind]
    return st.sampled_from(
        [(name, attribute(name, False)) for name in names]
        + [(f"query.{name}", attribute(name, True)) for name in names]
    )


terms = st.recursive(
    named("number")
    | st.sampled_from([("0", 0.0), ("1", 1.0), ("20", 20.0), ("0.5", 0.5)]).map(
        lambda pair: (pair[0], constant(pair[1]))
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(
            lambda t: (f"({t[0][0]} {t[1]} {t[2][0]})", calculated(t[1], t[0][1], t[2][1]))
        ),
        inner.map(lambda t: (f"abs({t[0]})", absolute(t[1]))),
        inner.map(lambda t: (f"-({t[0]})", negated(t[1]))),
    ),
    max_leaves=4,
)
texts = named("text") | st.sampled_from(TEXTS).map(lambda t: (quoted(t), constant(t)))
symbols = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])


def comparisons(operands, of_symbols=symbols):
    return st.tuples(operands, of_symbols, operands).map(
        lambda t: (f"{t[0][0]} {t[1]} {t[2][0]}", compared(t[1], t[0][1], t[2][1]))
    )


conditions = st.recursive(
    st.one_of(
        comparisons(terms),
        comparisons(texts),
        comparisons(named("bool"), st.sampled_from(["=", "!="])),
        named("bool"),
        st.tuples(terms, terms, terms).map(
            lambda t: (
                f"{t[0][0]} between {t[1][0]} and {t[2][0]}",
                both(compared(">=", t[0][1], t[1][1]), compared("<=", t[0][1], t[2][1])),
            )
        ),
        st.one_of(terms, texts, named("bool")).map(lambda t: (f"{t[0]} is null", missing(t[1]))),
        terms.map(lambda t: (f"{t[0]} not in (0, 1)", inverted(one_of(t[1], (0, 1))))),
        st.tuples(texts, st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3)).map(
            lambda t: (f"{t[0][0]} in ({', '.join(map(quoted, t[1]))})", one_of(t[0][1], t[1]))
        ),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(
            lambda t: (f"({t[0][0]} and {t[1][0]})", both(t[0][1], t[1][1]))
        ),
        st.tuples(inner, inner).map(
            lambda t: (f"({t[0][0]} or {t[1][0]})", either(t[0][1], t[1][1]))
        ),
        inner.map(lambda t: (f"not ({t[0]})", inverted(t[1]))),
        inner.map(lambda t: (f"({t[0]}) is null", missing(t[1]))),
    ),
    max_leaves=4,
)
EVERYTHING = {"income": 1.5, "children": 2, "t": "a", "b": True}  # so that all attributes exist


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    batches=st.lists(st.lists(attributes, min_size=1, max_size=6), min_size=1, max_size=3),
    removed=st.lists(st.integers(0, 17), max_size=4),
    rules=st.lists(conditions, min_size=4, max_size=8),
    asking=st.lists(attributes, min_size=1, max_size=2),
    mutual=st.booleans(),
    k=st.integers(1, 5),
)
@needs_lance
def test_all_kinds_give_the_answer_of_plain_python(
    tmp_path_factory, batches, removed, rules, asking, mutual, k
):
    folder = tmp_path_factory.mktemp("g")
    galleries = [create(kind, folder / kind) for kind in ("memory", "folder", "lance")]
    people = {"all": EVERYTHING}
    for number, batch in enumerate(batches):
        people |= {f"p{number}-{row}": values for row, values in enumerate(batch)}
    for gallery in galleries:
        gallery.add([Profile("all", attributes=EVERYTHING)], vectors(1))
        for number, batch in enumerate(batches):
            added = [
                Profile(f"p{number}-{row}", attributes=values) for row, values in enumerate(batch)
            ]
            gallery.add(added, vectors(len(batch), seed=number + 1))
        gallery.remove([list(people)[i] for i in removed if i < len(people)])
    for i in {i for i in removed if i < len(people)}:
        people = {**people, list(people)[i]: None}
    people = {person: row for person, row in people.items() if row is not None}
    reopened = FolderGallery(galleries[1].save())
    excluded = [["all"], *([[]] * (len(asking) - 1))]
    queries = vectors(len(asking), seed=9)
    position = {person: row for row, person in enumerate(galleries[0].ids)}
    assert list(position) == list(people)
    scores = queries.astype(float) @ galleries[0].embeddings.astype(float).T
    for text, function in rules:
        for gallery in [*galleries, reopened]:
            result = gallery.search(
                queries, k, where=text, asking=asking, mutual=mutual, excluded=excluded
            )
            for number, me in enumerate(asking):
                allowed = [
                    person
                    for person, row in people.items()
                    if function(row, me) is True
                    and (not mutual or function(me, row) is True)
                    and person not in excluded[number]
                ]
                best = sorted(allowed, key=lambda person: -scores[number, position[person]])[:k]
                assert [person for person, _ in result.candidates(number)] == best, text
                assert result.eligible[number] == len(allowed)
                assert (result.excluded_by[number] is None) == bool(allowed)
            first = galleries[0].search(
                queries, k, where=text, asking=asking, mutual=mutual, excluded=excluded
            )
            assert result.excluded_by == first.excluded_by
            np.testing.assert_array_equal(result.scores, first.scores)
    for gallery in [*galleries[1:], reopened]:
        ids, rows, _ = next(gallery.chunks())
        assert (ids, rows) == next(galleries[0].chunks())[:2]
        np.testing.assert_array_equal(gallery.embeddings, galleries[0].embeddings)

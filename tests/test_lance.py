"""The LanceDB gallery: its index, its files, and tables of older versions."""

import os

import numpy as np
import pyarrow as pa
import pytest

from pairmatch import Gallery, Matcher, Profile
from pairmatch.core.arrays import unit_rows
from pairmatch.core.errors import ConfigurationError, StoreError
from pairmatch.gallery import FolderGallery, LanceGallery, forget, lance

lancedb = pytest.importorskip("lancedb", reason="the extra `lance` is not installed")


def vectors(count, width=8, seed=0):
    return unit_rows(np.random.default_rng(seed).normal(size=(count, width)))


def traces(folder, *needles):
    """Names of files under a folder that contain one of the byte strings."""
    return [
        file.name
        for file in folder.rglob("*")
        if file.is_file() and any(needle in file.read_bytes() for needle in needles)
    ]


def test_searches_match_the_gallery_in_memory(tmp_path):
    e = vectors(60)
    people = [
        Profile(f"p{n}", attributes={"age": 20 + n, "region": "Da'ejeon" if n % 2 else "x"})
        for n in range(60)
    ]
    memory = Gallery()
    lance = LanceGallery(tmp_path / "l")
    for gallery in (memory, lance):
        gallery.add(people[:40], e[:40])
        gallery.add(people[30:], e[30:])  # ten are replaced
        gallery.add([Profile("new", attributes={"height": 1.7})], e[:1])  # a new attribute
        assert gallery.remove(["p3", "unknown"]) == 1
        assert len(gallery) == 60
    queries = vectors(3, seed=1)
    asking = [{"age": 30, "region": "x"}, {"age": 60}, {"age": 500}]
    for gallery in (memory, LanceGallery(tmp_path / "l")):
        assert gallery.attribute_kinds == {"age": "number", "region": "text", "height": "number"}
    rule = "abs(age - query.age) <= 12 and region in ('Da''ejeon', 'x') and not age = 31"
    searches = (
        {},
        {"where": rule, "asking": asking, "excluded": [["p12", "it's"], [], []]},
        {"where": "age > 75"},
        {"where": "age > query.age", "asking": asking, "mutual": True},
    )
    for options in searches:
        assert_equal(memory.search(queries, 5, **options), lance.search(queries, 5, **options))
    lance.build_index(index_type="IVF_FLAT", num_partitions=1)  # one partition: still exact
    late = Profile("late", attributes={"age": 77, "region": "x"})
    for gallery in (memory, lance):
        gallery.add([late], vectors(1, seed=7))
    for options in (*searches, {"bonus": np.linspace(0, 1, 61)}):
        assert_equal(memory.search(queries, 5, **options), lance.search(queries, 5, **options))
    assert lance.search(vectors(1, seed=7), 1).candidates(0) == [("late", pytest.approx(1))]


def test_rules_with_an_index_give_the_answer_of_the_gallery_in_memory(tmp_path, monkeypatch):
    """Few eligible candidates are scored one by one; of many, the index is asked."""
    import pairmatch.gallery.lance_search as lance_module

    e = vectors(400)
    rng = np.random.default_rng(4)
    people = [
        Profile(
            f"p{n}",
            attributes={
                "income": float(rng.choice([0, 10, 50, np.nan, np.inf])),
                "children": int(rng.integers(0, 3)),
                "_distance": n,
                "a.b`": "it's" if n % 2 else "_rowid",
            },
        )
        for n in range(400)
    ]
    memory = Gallery.of(people, e)
    lance = LanceGallery(tmp_path / "l")
    lance.add(people, e)
    lance.build_index(index_type="IVF_FLAT", num_partitions=1)
    for gallery in (memory, lance):
        gallery.remove([f"p{n}" for n in range(0, 400, 9)])
        gallery.add([Profile("p5", attributes={"income": 50.0, "children": 0})], e[5:6])
    queries = vectors(4, seed=1)
    asking = [{"children": 1}, {"children": 2}, {}, {"children": 1}]
    excluded = [["p1", "it's"], [], [f"p{n}" for n in range(300)], memory.ids]
    rules = (
        "income / children > 20",
        "not (income / children > 20)",
        "income / children is null",
        'children >= query.children and "_distance" > 20',
        "\"a.b`\" = 'it''s'",
        "income > 1e5 or income is null",
        "children > 7",
        None,
    )
    for most in (16_384, 3):
        monkeypatch.setattr(lance_module, "_MAX_TAKEN", most)
        for rule in rules:
            for k in (3, 10**11):
                options = {"where": rule, "asking": asking, "excluded": excluded}
                assert_equal(
                    lance.search(queries, k, **options), memory.search(queries, k, **options)
                )


def test_a_table_that_is_no_gallery_is_an_error(tmp_path):
    lancedb.connect(str(tmp_path / "l")).create_table("gallery", pa.table({"id": [1], "x": ["y"]}))
    with pytest.raises(StoreError, match="no gallery of pairmatch: its columns are id, x"):
        LanceGallery(tmp_path / "l")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"did not write \(notes.txt\)"):
        LanceGallery(tmp_path / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("options", [{"nonsense": 3}, {"num_partitions": "x"}])
def test_an_index_that_cannot_be_built_is_one_error(tmp_path, options):
    lance = LanceGallery(tmp_path / "l")
    lance.add(["a", "b"], vectors(2))
    with pytest.raises(ConfigurationError, match="LanceDB cannot build the index IVF_PQ"):
        lance.build_index(**options)


def test_damaged_tables_are_one_error(tmp_path):
    lance = LanceGallery(tmp_path / "l")
    lance.add([f"p{n}" for n in range(9)], vectors(9))
    for file in (tmp_path / "l" / "gallery.lance" / "data").iterdir():
        file.write_bytes(b"no")
    with pytest.raises(StoreError, match="cannot be read"):
        LanceGallery(tmp_path / "l").search(vectors(1))
    with pytest.raises(StoreError, match="cannot be read"):
        list(LanceGallery(tmp_path / "l").chunks())
    for file in (tmp_path / "l" / "gallery.lance" / "_versions").iterdir():
        file.write_bytes(b"no")
    with pytest.raises(StoreError, match="cannot be read"):
        LanceGallery(tmp_path / "l")


def assert_equal(result, expected):
    np.testing.assert_array_equal(result.ids, expected.ids)
    np.testing.assert_array_equal(result.scores, expected.scores)
    np.testing.assert_array_equal(result.eligible, expected.eligible)
    assert result.excluded_by == expected.excluded_by


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_large_galleries_are_searched_in_blocks(tmp_path, monkeypatch, rows):
    import pairmatch.gallery.lance_search as lance_module
    import pairmatch.gallery.ranking as ranking

    monkeypatch.setattr(lance_module, "SCAN_ROWS", rows)
    monkeypatch.setattr(ranking, "_MAX_FINALISTS", 12)
    e = np.round(vectors(64), 1)  # with ties
    people = [Profile(f"p{n}", attributes={"n": n % 5}) for n in range(64)]
    memory = Gallery.of(people, e)
    lance = LanceGallery(tmp_path / "l")
    lance.add(people, e)
    queries = vectors(4, seed=1)
    options = {
        "where": "n <= query.n",
        "asking": [{"n": 0}, {"n": 2}, {"n": -1}, {"n": 9}],
        "excluded": [["p0"], [], [], [f"p{n}" for n in range(60)]],
    }
    bonus = np.random.default_rng(3).normal(size=64)
    for more in ({}, options, {**options, "bonus": bonus}, {"where": "n = 2"}):
        assert_equal(lance.search(queries, 6, **more), memory.search(queries, 6, **more))
    assert [len(ids) for ids, _, _ in lance.chunks(10)] == [10] * 6 + [4]
    np.testing.assert_array_equal(lance.embeddings, memory.embeddings)
    lance.save(tmp_path / "copy")
    assert Gallery.open(tmp_path / "copy").ids == memory.ids


def test_side_and_head_are_saved(tmp_path):
    lance = LanceGallery(tmp_path / "l", side="a", made_by="digest")
    lance.add([Profile("p", attributes={"age": 3})], vectors(1))
    lance.add([Profile("q", attributes={"height": 3})], vectors(1, seed=1))
    lance.remove(["p"])
    lance.save()
    opened = LanceGallery(tmp_path / "l")
    assert (opened.side, opened.made_by, opened.ids) == ("a", "digest", ["q"])
    opened.forget(["q"])
    opened = Gallery.open(tmp_path / "l")
    assert isinstance(opened, LanceGallery)
    assert (opened.side, opened.made_by, opened.width, len(opened)) == ("a", "digest", 8, 0)
    with pytest.raises(ConfigurationError, match="has side='a', got 'b': leave out `side`"):
        LanceGallery(tmp_path / "l", side="b")
    with pytest.raises(ConfigurationError, match="has made_by='digest', got 'other'"):
        LanceGallery(tmp_path / "l", made_by="other")


def test_changes_are_visible_to_other_objects(tmp_path):
    first = LanceGallery(tmp_path / "l")
    second = LanceGallery(tmp_path / "l")
    first.add(["p"], vectors(1))
    assert second.ids == ["p"]
    second.add([Profile("q", attributes={"age": 3})], vectors(1, seed=1))
    assert first.search(vectors(1), where="age = 3").candidates(0)[0][0] == "q"
    assert second.profile("q").attributes == {"age": 3}
    first.add([Profile("q", attributes={"age": 4})], vectors(1, seed=1))
    assert second.profile("q").attributes == {"age": 4}
    first.forget(["p"])
    assert second.ids == ["q"]


def test_forgotten_people_are_erased_from_all_files(tmp_path, caplog):
    e = vectors(300)
    lance = LanceGallery(tmp_path / "l")
    lance.add([Profile(f"person-{n}-", attributes={"secret": f"word{n}-"}) for n in range(300)], e)
    lance.build_index(index_type="IVF_FLAT", num_partitions=1)
    lance.remove(["person-3-"])
    needles = [b"person-3-", e[3].tobytes(), b"word3-", b"person-7-", e[7].tobytes()]
    assert traces(tmp_path, *needles)
    assert lance.forget(["person-7-"]) == 1
    assert traces(tmp_path, *needles) == []
    assert "call build_index again" in caplog.text
    assert len(lance) == 298
    assert lance.search(e[5:6], 1).candidates(0) == [("person-5-", pytest.approx(1))]
    assert forget(["person-5-", "x"], galleries=[tmp_path / "l"]).galleries == {
        str(tmp_path / "l"): 1
    }
    assert "person-5-" not in lance
    assert traces(tmp_path, b"person-5-", e[5].tobytes()) == []


def test_tables_of_older_versions_are_read(tmp_path):
    """Older tables have no metadata, attribute names as column names, and NaN as a number."""
    e = vectors(3)
    table = {
        "id": ["p", "q", "r"],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(e.ravel()), 8),
        "Age": [30.0, float("nan"), None],
        "home town": ["x", None, "y"],
    }
    lancedb.connect(str(tmp_path / "l")).create_table("gallery", pa.table(table))
    lance = LanceGallery(tmp_path / "l")
    assert (lance.side, lance.made_by) == ("b", None)
    assert lance.attribute_kinds == {"Age": "number", "home town": "text"}
    attributes = [{"Age": 30, "home town": "x"}, {}, {"home town": "y"}]
    assert [person.attributes for person in lance] == attributes
    lance.add([Profile("s", attributes={"Age": 31, "home town": "y"})], vectors(1, seed=1))
    assert lance.attribute_kinds == {"Age": "number", "home town": "text"}
    for rule, expected in (
        ('"Age" > 1', ["p", "s"]),
        ('"Age" is null', ["q", "r"]),
        ("\"home town\" = 'y'", ["r", "s"]),
    ):
        for asking in ([{}], [{}, {}]):
            result = lance.search(e[: len(asking)], where=rule, asking=asking)
            assert sorted(person for person, _ in result.candidates(0)) == expected


def test_a_gallery_of_another_head_is_an_error(tmp_path, small_pairs, hash_backbone):
    matcher = Matcher(
        backbone=hash_backbone,
        metadata=None,
        head=("linear", {"width": 4}),
        store=tmp_path / "store",
    ).fit(small_pairs(6))
    people = small_pairs(6).people
    lance = LanceGallery(tmp_path / "l", made_by="another head")
    with pytest.raises(ConfigurationError, match="embedded by a matcher with another head"):
        matcher.add_to(lance, people)
    matcher.add_to(LanceGallery(tmp_path / "same-head"), people)
    assert LanceGallery(tmp_path / "same-head").made_by == matcher.gallery(people).made_by
    assert len(matcher.recommend(people[0], LanceGallery(tmp_path / "same-head"), 3)) == 3


def test_an_empty_gallery(tmp_path):
    lance = LanceGallery(tmp_path / "l")
    assert lance.search(np.ones((1, 3), np.float32)).excluded_by == ("no candidates",)
    assert lance.remove(["x"]) == 0
    assert lance.forget(["x"]) == 0
    assert lance.save() == tmp_path / "l"
    assert not LanceGallery.exists(tmp_path / "l")
    with pytest.raises(ConfigurationError, match="needs people"):
        lance.build_index()
    assert isinstance(Gallery.open(lance.save(tmp_path / "f")), FolderGallery)
    lance.add(["p"], vectors(1))
    with pytest.raises(ConfigurationError, match=r"Unknown index type 'IVF'\. Did you mean 'IVF_"):
        lance.build_index("IVF")


@pytest.mark.skipif(os.name != "posix", reason="file modes of POSIX")
def test_only_the_owner_can_enter_the_table(tmp_path):
    existing = tmp_path / "existing"
    existing.mkdir(mode=0o755)
    for folder in (tmp_path / "new", existing):
        gallery = LanceGallery(folder)
        gallery.add(["a", "b"], np.eye(2, dtype=np.float32))
        table = folder / "gallery.lance"
        assert table.stat().st_mode & 0o777 == 0o700
        gallery.forget(["a"])
        assert table.stat().st_mode & 0o777 == 0o700
        assert LanceGallery(folder).ids == ["b"]
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert existing.stat().st_mode & 0o777 == 0o755


def test_looking_for_erased_people_is_repeated_if_files_are_deleted_meanwhile(
    tmp_path, monkeypatch
):
    gallery = LanceGallery(tmp_path / "g")
    gallery.add([Profile("a"), Profile("b")], vectors(2))
    gallery.remove(["b"])
    failures = [OSError("lance error: Not found"), RuntimeError("Version 2 no longer exists")]
    read = lance.ids_in

    def ids_in(table, ids):
        if failures:
            raise failures.pop()
        return read(table, ids)

    monkeypatch.setattr(lance, "ids_in", ids_in)
    assert gallery.known(["a", "b", "c"]) == {"a", "b"}  # b is in an earlier version
    assert not failures

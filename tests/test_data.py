"""Reading pairs, every problem at once, and splits in which nobody stands on two sides."""

import json

import numpy as np
import pytest
from conftest import shared
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pairmatch import Pair, Pairs, Profile, leakage
from pairmatch.data import read_profiles
from pairmatch.errors import ConfigurationError, DataError


@pytest.fixture
def folder(tmp_path):
    for index, name in enumerate(("anna.png", "ben.png", "cleo.png", "dan.png")):
        Image.new("RGB", (8, 8), (index * 50, 90, 10)).save(tmp_path / name)
    return tmp_path


HEADER = "id_a,image_a,text_a,age_a,id_b,image_b,text_b,age_b,smoker_b,outcome,group\n"


def write(folder, *lines, name="pairs.csv", header=HEADER):
    path = folder / name
    path.write_text(header + "\n".join(lines) + "\n")
    return path


def problems(*args, **options):
    with pytest.raises(DataError) as caught:
        Pairs.read(*args, **options)
    return "\n".join(caught.value.problems) or str(caught.value)


def test_reading_csv(folder):
    path = write(
        folder,
        'a1,anna.png,"I cook, and\nI run",31,b1,ben.png,hi,40,true,match,g1',
        "a2,cleo.png,,28,b2,dan.png;ben.png,,33.5,false,,",
        "a1,anna.png,,,b2,dan.png;ben.png,,,,rejected,",
    )
    pairs = Pairs.read(path)
    assert pairs.pairs == (
        Pair("a1", "b1", "match", "g1"),
        Pair("a2", "b2", "match", None),
        Pair("a1", "b2", "rejected", None),
    )
    assert len(pairs) == 2
    assert pairs.ids_a == ("a1", "a2")
    assert pairs.matches.tolist() == [[0, 0], [1, 1]]
    assert pairs.rejected.tolist() == [[0, 1]]
    assert pairs.profiles["a1"].text == "I cook, and\nI run"
    assert pairs.profiles["a1"].attributes == {"age": 31.0}  # one type per attribute, over both sides
    assert pairs.profiles["b2"].images == (folder / "dan.png", folder / "ben.png")
    assert pairs.profiles["b1"].attributes == {"age": 40.0, "smoker": True}


def test_formats_agree(folder):
    rows = [
        {"id_a": "a1", "image_a": "anna.png", "id_b": 7, "image_b": "ben.png", "age_b": 30, "group": 4},
        {"id_a": "a2", "image_a": "cleo.png", "id_b": 8, "image_b": "dan.png", "age_b": None, "group": None},
    ]
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    lines = Pairs.read(path)
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").Table.from_pylist([{**row, "id_b": str(row["id_b"])} for row in rows])
    parquet.write_table(table, folder / "pairs.parquet")
    assert lines == Pairs.read(folder / "pairs.parquet")
    csv = write(
        folder,
        "a1,anna.png,7,ben.png,30,4",
        "a2,cleo.png,8,dan.png,,",
        header="id_a,image_a,id_b,image_b,age_b,group\n",
    )
    assert lines == Pairs.read(csv)
    csv.write_bytes(b"\xef\xbb\xbf" + csv.read_bytes())  # a byte order mark, as spreadsheets write it
    assert lines == Pairs.read(csv)


def test_profiles_in_a_file_of_their_own(folder):
    profiles = write(
        folder, "p,anna.png;ben.png,hello,30", "q,cleo.png,,31", name="profiles.csv", header="id,image,text,age\n"
    )
    pairs = write(folder, "p,q", header="id_a,id_b\n")
    read = Pairs.read(pairs, profiles=profiles)
    assert read.profiles["p"] == Profile("p", (folder / "anna.png", folder / "ben.png"), "hello", {"age": 30})
    assert [p.id for p in read_profiles(profiles)] == ["p", "q"]
    found = problems(write(folder, "p,nobody", header="id_a,id_b\n"), profiles=profiles)
    assert found == "pairs.csv line 2, column id_b: 'nobody' is not in profiles.csv."


def test_every_problem_is_reported_at_once(folder):
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes((folder / "anna.png").read_bytes()[:40])
    (folder.parent / "outside.png").write_bytes((folder / "anna.png").read_bytes())
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    found = problems(
        write(
            folder,
            "a1,anna.png,,,b1,missing.png,,,,,",
            "a2,empty.png,,,b2,cut.png,,,,,",
            "a3,anna.png,,,a3,anna.png,,,,,",
            "a1,cleo.png,,,b1,missing.png,,,,,",
            "a4,../outside.png,,,b4,link.png,,,,mtach,",
            f"a5,{folder / 'anna.png'},,,,ben.png,,,,,",
            "a6,anna.png",
            "a7,,,,b7,ben.png,,,,,",
            "b7,ben.png,,,a8,anna.png,,,,,",
            "a9,anna.png,,,b9,ben.png,,,,,",
            "a9,anna.png,,,b9,ben.png,,,,rejected,",
        )
    )
    for expected in (
        "pairs.csv line 2, column image_b: 'missing.png' does not exist",
        "pairs.csv line 3 ('a2'): " + str(folder / "empty.png") + ": the file is empty",
        "cut.png: ",
        "pairs.csv line 4, column id_b: 'a3' is paired with themself",
        "pairs.csv line 5, column image_a: 'a1' has 'cleo.png' here and 'anna.png' in line 2",
        "pairs.csv line 5, column id_a: the pair 'a1', 'b1' is given twice, first in line 2",
        "pairs.csv line 6, column image_a: '../outside.png' leaves the image folder",
        "pairs.csv line 6, column image_b: 'link.png' leaves the image folder",
        "pairs.csv line 6, column outcome: 'mtach' is neither 'match' nor 'rejected'. Did you mean 'match'?",
        "pairs.csv line 7, column id_b: the id is blank",
        "pairs.csv line 8: has 2 cells, the header has 11",
        "pairs.csv line 9, column image_a: 'a7' has neither a photo nor a text",
        "'b7' stands on both sides. Use sides=1",
        "pairs.csv line 12, column id_a: the pair 'a9', 'b9' is 'match' and 'rejected', first in line 11",
    ):
        assert expected in found


def test_files_that_are_no_tables(folder):
    (folder / "none.csv").touch()
    assert "none.csv: the file is empty" in problems(folder / "none.csv")
    assert "No such file" in problems(folder / "nowhere.csv")
    assert "ends in .csv, .parquet" in problems(write(folder, name="pairs.xlsx"))
    assert "there is no column 'image_a'. Did you mean 'imagea'?" in problems(
        write(folder, "1,2,3,4", header="id_a,imagea,id_b,image_b\n")
    )
    assert "names columns twice: 'id_a'" in problems(write(folder, "1,2", header="id_a,id_a\n"))
    (folder / "latin.csv").write_bytes((HEADER + "a1,anna.png,caf\xe9").encode("latin-1"))
    found = problems(folder / "latin.csv")
    assert "line 2 is not UTF-8 (byte 0xe9)" in found
    assert "iconv" in found
    (folder / "wide.csv").write_bytes(b"id_a\0id_b\n")
    assert "line 1 holds a NUL byte" in problems(folder / "wide.csv")
    assert "the file has no rows" in problems(write(folder))
    bad = write(folder, "{", "[1]", '{"id_a": {"x": 1}}', name="bad.jsonl", header="")
    found = problems(bad)
    assert "bad.jsonl line 1: not valid JSON" in found
    assert "bad.jsonl line 2: not a JSON object" in found
    assert "bad.jsonl line 3: nested values in id_a" in found
    (folder / "bad.parquet").write_bytes(b"PAR?")
    assert "not a Parquet file" in problems(folder / "bad.parquet")
    assert "cannot be read as CSV" in problems(write(folder, 'a,"b" c'))


def test_images_folder_is_where_paths_start(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = write(elsewhere, "a1,anna.png,b1,ben.png", header="id_a,image_a,id_b,image_b\n")
    assert Pairs.read(path, images=folder).profiles["a1"].images == (folder / "anna.png",)
    assert "'anna.png' does not exist in" in problems(path)


def test_one_sided_pairs(folder):
    path = write(folder, "x,anna.png,y,ben.png", "y,ben.png,z,cleo.png", header="id_a,image_a,id_b,image_b\n")
    pairs = Pairs.read(path, sides=1)
    assert pairs.ids_a == pairs.ids_b == ("x", "y", "z")
    assert pairs.matches.tolist() == [[0, 1], [1, 2]]
    twice = write(folder, "x,anna.png,y,ben.png", "y,ben.png,x,anna.png", header="id_a,image_a,id_b,image_b\n")
    assert "is given twice" in problems(twice, sides=1)
    with pytest.raises(ConfigurationError, match="`sides` is 1 or 2, got 3"):
        Pairs.read(path, sides=3)


def test_folders_of_photos_are_galleries(folder):
    (folder / "more").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "more" / "anna.jpg")
    Image.new("RGB", (4, 4)).save(folder / "anna.jpg")
    assert [p.id for p in read_profiles(folder)] == ["anna.jpg", "anna.png", "ben", "cleo", "dan", "more/anna"]
    (folder / "broken.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"1 photos cannot be read:\n.*broken.png: not a photo"):
        read_profiles(folder)
    (folder / "void").mkdir()
    with pytest.raises(DataError, match="holds no photos"):
        read_profiles(folder / "void")


def disjoint(n):
    people = [Profile(f"{side}{i}", text="x") for i in range(n) for side in "ab"]
    return Pairs.of(people, [Pair(f"a{i}", f"b{i}") for i in range(n)])


def test_objects_are_checked_too():
    people = [Profile("x"), Profile("y"), Profile("x")]
    pairs = [Pair("x", "x"), Pair("x", "z"), Pair("x", "y"), Pair("x", "y"), Pair("y", "x")]
    with pytest.raises(DataError) as caught:
        Pairs.of(people, pairs)
    text = "\n".join(caught.value.problems)
    for expected in (
        "'x' is given twice",
        "paired with themself",
        "no profile 'z'",
        "pair 3: 'x', 'y' is given twice",
        "on both sides",
    ):
        assert expected in text


def test_the_papers_split_is_exact():
    assert [len(part) for part in disjoint(495).split(0.70, 0.15)] == [346, 74, 75]
    assert [len(part) for part in disjoint(100).split(0.29, 0.01)] == [29, 1, 70]  # 0.29 * 100 is 28.999…


@settings(max_examples=40, deadline=None)
@given(n=st.integers(7, 200), seed=st.integers(0, 99))
def test_disjoint_pairs_split_by_floor_floor_rest(n, seed):
    parts = disjoint(n).split(0.5, 0.25, seed=seed)
    assert [len(part) for part in parts] == [n // 2, n // 4, n - n // 2 - n // 4]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_nobody_and_no_group_stands_on_two_sides_of_a_split(data):
    edges = data.draw(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=8, max_size=60, unique=True))
    groups = data.draw(st.lists(st.one_of(st.none(), st.integers(0, 30)), min_size=len(edges), max_size=len(edges)))
    people = {f"a{i}" for i, _ in edges} | {f"b{j}" for _, j in edges}
    pairs = Pairs.of(
        [Profile(person) for person in sorted(people)],
        [
            Pair(f"a{i}", f"b{j}", "match", None if g is None else str(g))
            for (i, j), g in zip(edges, groups, strict=True)
        ],
    )
    if len(set(pairs.components())) < 4:
        return
    try:
        parts = pairs.split(0.6, 0.2, seed=data.draw(st.integers(0, 5)))
    except DataError:
        return  # one component swallowed everything, and said so
    assert {pair for part in parts for pair in part.pairs} == set(pairs.pairs)
    assert sum(len(part.pairs) for part in parts) == len(pairs.pairs)
    for one in range(3):
        for other in range(one):
            assert not set(parts[one].profiles) & set(parts[other].profiles)
            shared_groups = {p.group for p in parts[one].pairs} & {p.group for p in parts[other].pairs}
            assert shared_groups <= {None}
    assert not leakage(*parts)


def test_splits_follow_the_seed_and_not_the_order_of_rows():
    pairs = disjoint(40)
    again = pairs.subset(np.random.default_rng(0).permutation(40))
    for one, other in zip(pairs.split(seed=3), again.split(seed=3), strict=True):
        assert set(one.profiles) == set(other.profiles)
    assert set(pairs.split(seed=3)[2].profiles) != set(pairs.split(seed=4)[2].profiles)


def test_splits_that_cannot_be():
    pairs = disjoint(10)
    with pytest.raises(ConfigurationError, match=r"a sum of at most 1, got 0\.9 and 0\.2"):
        pairs.split(0.9, 0.2)
    chain = Pairs.of([Profile(f"a{i}") for i in range(9)] + [Profile("b")], [Pair(f"a{i}", "b") for i in range(9)])
    with pytest.raises(DataError, match="split came out empty: 9 matches fall into 1 components"):
        chain.split()
    assert [len(part) for part in pairs.split(0.8, 0.0)] == [8, 0, 2]
    assert [len(part) for part in pairs.split(0.8, 0.2)] == [8, 2, 0]


def test_folds_cover_every_pair_once():
    folds = disjoint(23).folds(5, seed=1)
    assert sorted(np.concatenate(folds)) == list(range(23))
    assert sorted(len(fold) for fold in folds) == [4, 4, 5, 5, 5]
    with pytest.raises(ConfigurationError, match="from 2 to the number of components, 23; got 1"):
        disjoint(23).folds(1)


def test_leaks_are_found(tmp_path):
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)).resize((160, 160), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "one.png")
    photo.resize((120, 120)).save(tmp_path / "again.jpg", quality=70)
    (tmp_path / "copy.png").write_bytes((tmp_path / "one.png").read_bytes())
    Image.new("RGB", (50, 50), "navy").save(tmp_path / "flat.png")
    Image.new("RGB", (60, 60), "navy").save(tmp_path / "flat2.png")

    def part(*people, group=None):
        profiles = [Profile(name, (tmp_path / file,)) for name, file in people]
        return Pairs.of(profiles, [Pair(profiles[0].id, profiles[1].id, "match", group)])

    found = leakage(
        part(("anna", "one.png"), ("ben", "flat.png"), group="house"),
        part(("cleo", "copy.png"), ("dan", "again.jpg"), group="house"),
        part(("anna", "one.png"), ("eve", "flat2.png")),
    )
    assert found.people == ("'anna' stands in split 1 and split 3",)
    assert found.groups == ("the group 'house' stands in split 1 and split 2",)
    assert len(found.photos) == 2  # anna's of splits 1 and 3 with cleo's copy
    assert len(found.near_duplicates) == 2  # the same with dan's re-encoded one; flat photos are left out
    assert "'dan'" in found.near_duplicates[0]
    with pytest.raises(DataError, match="not independent"):
        found.raise_if_any()
    assert "1 people, 1 groups, 2 identical photos, 2 nearly identical photos" in str(found)
    clean = leakage(part(("anna", "one.png"), ("ben", "flat.png")), part(("x", "flat2.png"), ("y", "flat.png")))
    assert clean.photos == (
        "'ben' ("
        + str(tmp_path / "flat.png")
        + ") of split 1 and 'y' ("
        + str(tmp_path / "flat.png")
        + ") of split 2 have the same photo",
    )
    with pytest.raises(ConfigurationError, match="at least two"):
        leakage(disjoint(3))


def test_real_pictures_split_without_shared_rooms():
    pairs = Pairs.read(shared("furniture/pairs.csv"))
    assert len(pairs) == 464
    parts = pairs.split(seed=0)
    assert [len(part) for part in parts] == [324, 69, 71]
    found = leakage(*parts, near_duplicate_bits=-1)
    assert not found.people
    assert not found.groups

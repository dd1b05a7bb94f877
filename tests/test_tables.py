"""Cells of tables: missing values, declared types, text that is not UTF-8, unnamed columns."""

import csv
import datetime
import decimal
import json
import os
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pairmatch import Pairs
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.data import read_profiles
from pairmatch.gallery import Exclusions
from pairmatch.io.tables import MISSING_WORDS, read_table


@pytest.fixture
def folder(tmp_path):
    for name in "abcd":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    return tmp_path


def write(folder, content, name="people.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def people(path, **options):
    return {profile.id: profile for profile in read_profiles(path, **options)}


def problems(path, **options):
    with pytest.raises(DataError) as caught:
        read_profiles(path, **options)
    return "\n".join(caught.value.problems) or str(caught.value)


# Missing values


def test_words_for_missing_values_are_missing_and_counted(folder, caplog):
    path = write(folder, "id,image,text,age\na,a.png,hi,31\nb,b.png,NA,NA\n")
    read = people(path)
    assert read["a"].attributes == {"age": 31}
    assert read["b"].text == ""
    assert read["b"].attributes == {}
    assert caplog.messages == [
        f"{path}: cells that stand for a missing value: text: 1 cell 'NA'; age: 1 cell 'NA'. To "
        "keep a word as a value: keep_words=['NA'] (--keep-word NA)."
    ]


@pytest.mark.parametrize("word", sorted(MISSING_WORDS))
def test_every_word_is_missing_in_every_column_and_format(word, folder):
    rows = [
        {"id": "a", "image": "a.png", "text": word, "age": word, "city": "Bonn"},
        {"id": "b", "image": f" {word} ", "text": "hi", "age": "31", "city": word},
    ]
    table = folder / "people.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    lines = write(folder, "\n".join(map(json.dumps, rows)), "people.jsonl")
    pq.write_table(pa.Table.from_pylist(rows), folder / "people.parquet")
    # A number in CSV; the other formats state that it is text
    for path, age in ((table, 31), (lines, "31"), (folder / "people.parquet", "31")):
        read = people(path)
        assert read["a"].text == ""
        assert read["a"].attributes == {"city": "Bonn"}
        assert read["b"].images == ()
        assert read["b"].attributes == {"age": age}


@pytest.mark.parametrize("text", ["none", "no", "Na", "--", "A - B", "n.a. today", "NA NA", "nil"])
def test_only_the_exact_words_are_missing(text, folder):
    assert people(write(folder, f"id,image,text\na,a.png,{text}\n"))["a"].text == text


def test_words_in_ids_groups_and_outcomes(folder, caplog):
    path = write(
        folder,
        "id_a,image_a,id_b,image_b,group,outcome\n"
        "a,a.png,b,b.png,NA,NA\nc,c.png,d,d.png,NA,rejected\n",
        "pairs.csv",
    )
    pairs = Pairs.read(path)
    assert [pair.group for pair in pairs.pairs] == [None, None]
    assert [pair.outcome for pair in pairs.pairs] == ["match", "rejected"]
    assert len(set(pairs.components().tolist())) == 2  # the word joins no one
    assert f"{path}: 1 pairs without an outcome count as matches." in caplog.messages
    message = problems(write(folder, "id,image\nNA,a.png\nb,b.png\n"))
    assert message == (
        "people.csv line 2, column id: the id is missing: 'NA' stands for a missing value. If it "
        "is an id, keep it with keep_words=['NA'] (--keep-word NA)."
    )


def test_many_equal_problems_are_one(folder):
    rows = "NA,a.png\n" * 15_858 + ",a.png\n" * 4 + "x,a.png\n"
    assert problems(write(folder, "id,image\n" + rows)).splitlines() == [
        "people.csv line 2 and 15,857 more rows, column id: the id is missing: 'NA' stands for a "
        "missing value. If it is an id, keep it with keep_words=['NA'] (--keep-word NA).",
        "people.csv line 15860 and 3 more rows, column id: the id is blank.",
    ]
    korean = write(folder, ("id,image,text\n" + "a,a.png,안녕하세요\n" * 2000).encode("cp949"))
    assert problems(korean).splitlines()[0] == (
        "people.csv line 2 and 1,999 more rows, column text: not UTF-8 (byte 0xbe). Save the file "
        "as UTF-8, for example with: iconv -f CP949 -t UTF-8 people.csv > people-utf8.csv"
    )


def test_a_word_can_be_kept(folder, caplog):
    path = write(folder, "id,image,country\nNone,a.png,NA\nb,b.png,NULL\n")
    read = people(path, keep_words=["NA", "None"])
    assert read["None"].attributes == {"country": "NA"}
    assert read["b"].attributes == {}
    assert "'NULL'" in caplog.text
    assert "'NA'" not in caplog.text
    with pytest.raises(ConfigurationError, match=r"Unknown word in `keep_words` .* 'Nope'"):
        read_profiles(path, keep_words=["Nope"])
    excluded = write(folder, "id,other\nNone,b\n", "excluded.csv")
    with pytest.raises(DataError, match="'None' stands for a missing value"):
        Exclusions.read(excluded)
    assert Exclusions.read(excluded, keep_words=["None"]).of("None") == {"b"}


def test_nothing_is_logged_for_a_clean_file(folder, caplog):
    people(write(folder, "id,image,text,age\na,a.png,,31\nb,b.png,hi,\n"))
    assert caplog.messages == []


# Types


def test_the_types_of_parquet_hold(folder):
    columns = {
        "id": pa.array([b"a", b"b"], pa.binary()),
        "image": pa.array([b"a.png", b"b.png"], pa.large_binary()),
        "text": pa.array(["hi", "ho"], pa.large_string()),
        "zip": pa.array(["54321", "01234"]),
        "code": pa.array(["1", "2"]).dictionary_encode(),
        "flag": pa.array(["true", "false"], pa.string_view()),
        "income": pa.array([decimal.Decimal("1.50"), decimal.Decimal(2)], pa.decimal128(9, 2)),
        "children": pa.array([decimal.Decimal(2), None], pa.decimal256(40, 0)),
        "age": pa.array([31, 32], pa.uint8()),
        "height": pa.array([1.5, float("nan")], pa.float16()),
        "smokes": pa.array([True, False]),
        "born": pa.array([datetime.date(1990, 5, 17), None]),
        "seen": pa.array([datetime.datetime(2024, 5, 1, 18, 30), None], pa.timestamp("ns")),
        "zoned": pa.array([0, None], pa.timestamp("ms", "Europe/Berlin")),
        "wakes": pa.array([datetime.time(6, 30), None]),
        "waited": pa.array([datetime.timedelta(minutes=2), None]),
        "device": pa.array([uuid.UUID(int=1).bytes, None], pa.uuid()),
        "nothing": pa.nulls(2),
    }
    path = folder / "people.parquet"
    pq.write_table(pa.table(columns), path)
    read = people(path)
    assert read["a"].images == (folder / "a.png",)
    assert read["a"].attributes == {
        "zip": "54321",
        "code": "1",
        "flag": "true",
        "income": 1.5,
        "children": 2,
        "age": 31,
        "height": 1.5,
        "smokes": True,
        "born": "1990-05-17",
        "seen": "2024-05-01 18:30:00",
        "zoned": "1970-01-01 00:00:00+00:00",
        "wakes": "06:30:00",
        "waited": 120.0,
        "device": "00000000-0000-0000-0000-000000000001",
    }
    assert type(read["a"].attributes["children"]) is int
    assert read["b"].attributes == {
        "zip": "01234",
        "code": "2",
        "flag": "false",
        "income": 2.0,
        "age": 32,
        "smokes": False,
    }


def test_json_states_types_too(folder):
    rows = [
        {"id": "a", "image": "a.png", "zip": "54321", "flag": "true", "n": 1, "mixed": 1},
        {"id": "b", "image": "b.png", "zip": "1", "flag": "false", "n": 2.5, "mixed": "x"},
    ]
    read = people(write(folder, "\n".join(map(json.dumps, rows)), "people.jsonl"))
    assert read["a"].attributes == {"zip": "54321", "flag": "true", "n": 1.0, "mixed": "1"}


# (cells of a column of a CSV file, their values)
COLUMNS = [
    (["01234", "54321"], ["01234", "54321"]),
    (["54321", "12345"], [54321, 12345]),
    (["1", "2.5"], [1.0, 2.5]),
    (["1e-05", ".5"], [1e-05, 0.5]),
    (["+4917", "+4930"], ["+4917", "+4930"]),
    (["1_2", "3"], ["1_2", "3"]),
    (["1,5", "3"], ["1,5", "3"]),
    (["٣", "3"], ["٣", "3"]),
    (["inf", "1"], ["inf", "1"]),
    (["0x1f", "1"], ["0x1f", "1"]),
    (["-0", "0"], [0, 0]),
    (["-007", "1"], ["-007", "1"]),
    (["TRUE", "false"], [True, False]),
    (["true", "1"], ["true", "1"]),
    (["9007199254740993", "1"], ["9007199254740993", "1"]),  # 2⁵³ + 1: an account, not an amount
    (["2024-05-01", "2024"], ["2024-05-01", "2024"]),
]


@pytest.mark.parametrize(("cells", "values"), COLUMNS)
def test_a_column_of_csv_has_one_type(cells, values, folder):
    rows = "".join(f'{name},{name}.png,"{cell}"\n' for name, cell in zip("ab", cells, strict=True))
    read = people(write(folder, "id,image,x\n" + rows))
    found = [read[name].attributes["x"] for name in "ab"]
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


def ages(*others, count=20):
    rows = [f"p{age},a.png,{age}" for age in range(count)]
    rows += [f"q{index},a.png,{cell}" for index, cell in enumerate(others)]
    return "id,image,age\n" + "\n".join(rows) + "\n"


def test_odd_cells_of_a_column_of_numbers_are_problems(folder):
    path = write(folder, ages("31 years"))
    assert problems(path) == (
        "people.csv line 22, column age: '31 years' is not a number, as other cells of age are. "
        "Correct it, or read the column as text with text_columns=['age'] (--text-column age)."
    )
    assert people(path, text_columns=["age"])["p7"].attributes == {"age": "7"}
    truths = "".join(f"p{n},a.png,true\n" for n in range(39)) + "q,a.png,maybe\n"
    assert "'maybe' is not true or false, as other cells of keen are" in problems(
        write(folder, f"id,image,keen\n{truths}")
    )
    rows = [{"id": f"p{n}", "text": "x", "n": n if n else "none"} for n in range(20)]
    lines = write(folder, "\n".join(map(json.dumps, rows)), "people.jsonl")
    assert "people.jsonl line 1, column n: 'none' is not a number" in problems(lines)


@pytest.mark.parametrize(
    ("others", "count"),
    [
        (["x"], 18),  # too few cells to tell
        (["x", "y"], 20),  # below 95 %
        (["01234"], 40),  # a postal code, which a number would change
        (["+4917"], 40),
        (["9007199254740993"], 40),
    ],
)
def test_a_column_is_text_for_all_people(others, count, folder):
    read = people(write(folder, ages(*others, count=count)))
    assert read["p7"].attributes == {"age": "7"}
    assert read["q0"].attributes == {"age": others[0]}


def test_the_cells_that_make_a_column_text_are_named(folder, caplog):
    people(write(folder, ages("31 years", count=18)))
    assert "the attribute age is text, because 1 of 19 cells are not numbers" in caplog.text
    assert "'31 years'" in caplog.text


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('"age": 1' + "0" * 400, "column age: the number is too large"),
        ('"age": 1' + "0" * 5000, ": not valid JSON (Exceeds the limit"),
        ('"age": ' + "[" * 100_000, ": not valid JSON (nested too deeply"),
        ('"age": ' + "[" * 500 + "]" * 500, ": not valid JSON (nested more than 100 deep"),
        ('"id": 1.5', "column id: an id must be text or a whole number, got 1.5"),
        ('"id": true', "column id: an id must be text or a whole number, got True"),
        ('"id": 1e300', "column id: the id 1e+300 is a fractional number, which has lost its last"),
    ],
)
def test_values_out_of_range_are_problems_of_their_cells(line, problem, folder):
    path = write(folder, '{"id": "a", "image": "a.png", ' + line + "}", "people.jsonl")
    assert f"people.jsonl line 1{', ' * problem.startswith('c')}{problem}" in problems(path)


def test_numbers_and_dates_out_of_range(folder):
    digits = "1" * 400
    assert problems(write(folder, f"id,image,age\na,a.png,{digits}\nb,b.png,3\n")) == (
        "people.csv line 2, column age: the number 11111111111111111111… is too large."
    )
    path = folder / "people.parquet"
    for kind, value in (
        (pa.date32(), 10**9),
        (pa.date64(), 10**15),
        (pa.timestamp("ms"), 10**17),
        (pa.timestamp("us", "Nowhere/Land"), 10**18),
    ):
        columns = {"id": ["a"], "image": ["a.png"], "born": pa.array([value], kind)}
        pq.write_table(pa.table(columns), path)
        assert "people.parquet row 1, column born: the date is out of range" in problems(path)


def test_infinite_numbers_are_left_out_and_counted(folder, caplog):
    path = write(folder, '{"id": "a", "image": "a.png", "x": Infinity}', "people.jsonl")
    assert people(path)["a"].attributes == {}
    assert f"{path}: x: 1 cell with an infinite number, left out." in caplog.messages


# Ids


def test_ids_are_the_same_in_every_format(folder):
    tables = {
        "csv": write(folder, "id,image\n1,a.png\n2,b.png\n"),
        "json": write(
            folder, '{"id": 1, "image": "a.png"}\n{"id": 2.0, "image": "b.png"}', "p.jsonl"
        ),
    }
    for name, ids in {
        "int": pa.array([1, 2]),
        "float": pa.array([1.0, 2.0]),  # pandas turned integers into floats
        "decimal": pa.array([decimal.Decimal(1), decimal.Decimal(2)]),
        "text": pa.array(["1", "2"]),
        "category": pa.array(["1", "2"]).dictionary_encode(),
        "bytes": pa.array([b"1", b"2"]),
    }.items():
        tables[name] = folder / f"{name}.parquet"
        pq.write_table(pa.table({"id": ids, "image": ["a.png", "b.png"]}), tables[name])
    for name, path in tables.items():
        assert list(people(path)) == ["1", "2"], name


@pytest.mark.parametrize(
    ("written", "known", "reason"),
    [
        ("1.0", "1", "whole numbers were written as fractions, as pandas does"),
        ("1", "1.0", "whole numbers were written as fractions, as pandas does"),
        ("7", "007", "leading zeros were lost, as in spreadsheets"),
        ("Anna", "anna", "upper and lower case differ"),
        ("an na", "anna", "the spaces differ"),
    ],
)
def test_ids_that_differ_by_a_usual_change_are_explained(written, known, reason, folder):
    profiles = write(folder, f"id,image\n{known},a.png\nx,b.png\n")
    pairs = write(folder, f"id_a,id_b\n{written},x\n", "pairs.csv")
    with pytest.raises(DataError) as caught:
        Pairs.read(pairs, profiles=profiles)
    assert caught.value.problems[0].startswith(
        f"pairs.csv: 1 cells have ids that are not in people.csv. {written!r} is {known!r} there: "
        f"{reason}"
    )


def test_ids_are_equal_in_every_normal_form(folder):
    profiles = write(folder, "id,image\nJosé,a.png\nx,b.png\n")
    pairs = write(folder, "id_a,id_b\nJose\u0301,x\n", "pairs.csv")
    assert set(Pairs.read(pairs, profiles=profiles).profiles) == {"José", "x"}
    assert problems(write(folder, "id,image\nJosé,a.png\nJose\u0301,b.png\n")) == (
        "people.csv line 3, column id: 'José' is given twice, first in line 2."
    )
    assert Exclusions.read(write(folder, "id,other\nx,Jose\u0301\n")).of("x") == {"José"}


@pytest.mark.parametrize(("written", "saved"), [("é.png", "e\u0301.png"), ("e\u0301.png", "é.png")])
def test_photos_are_found_in_every_normal_form(written, saved, folder):
    (folder / saved.removesuffix(".png")).mkdir()
    photo = folder / saved.removesuffix(".png") / saved
    Image.new("RGB", (8, 8)).save(photo)
    path = write(folder, f"id,image\na,{written.removesuffix('.png')}/{written}\n")
    assert people(path)["a"].images == (photo,)


# Text that is not UTF-8


def test_damaged_text_is_replaced_and_counted(folder, caplog):
    rows = [
        {"id": "a", "image": "a.png", "text": "I love my dog \ud83d", "city": "K\udc80"},
        {"id": "b", "image": "b.png", "text": "\ude00 hi \ud83d\ude00"},
    ]
    read = people(write(folder, "\n".join(map(json.dumps, rows)), "people.jsonl"))
    assert read["a"].text == "I love my dog \ufffd"
    assert read["a"].attributes == {"city": "K\ufffd"}
    assert read["b"].text == "\ufffd hi 😀"
    assert "text: 2 cells with characters that are not valid Unicode, which were replaced" in (
        caplog.text
    )
    path = write(folder, b"id,image,text\na,a.png,dog \xf0\x9f\nb,b.png,\xff\nc,c.png,\xc3\xa9\n")
    assert [profile.text for profile in read_profiles(path)] == ["dog \ufffd\ufffd", "\ufffd", "é"]


@pytest.mark.parametrize("column", ["id_a", "id_b", "group", "image_a"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_damaged_names_are_refused_with_their_place(column, kind, folder):
    row = {"id_a": "a", "image_a": "a.png", "id_b": "b", "image_b": "b.png", "group": "g"}
    path = folder / f"pairs.{kind}"
    if kind == "jsonl":
        write(folder, json.dumps({**row, column: "x\ud83d"}), path.name)
        place = "pairs.jsonl line 1"
    elif kind == "csv":
        cells = {**{name: cell.encode() for name, cell in row.items()}, column: b"x\xff"}
        write(folder, ",".join(row).encode() + b"\n" + b",".join(cells.values()), path.name)
        place = "pairs.csv line 2"
    else:
        arrays = {name: pa.array([cell.encode()]) for name, cell in row.items()}
        arrays[column] = pa.array([b"x\xff"])
        pq.write_table(pa.table({n: array.view(pa.string()) for n, array in arrays.items()}), path)
        place = "pairs.parquet row 1"
    with pytest.raises(DataError) as caught:
        Pairs.read(path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{place}, column {column}: ")


# Lists and names of columns


def test_lists_in_json_and_parquet(folder, caplog):
    rows = [
        {"id": "a", "image": ["a.png", " b.png ", None], "tags": ["x", 2, "NA", None], "m": {}},
        {"id": "b", "image": "c.png;d.png", "tags": [], "m": None},
        {"id": "c", "image": ["a;b.png"], "tags": None, "m": {"k": 1}},
    ]
    (folder / "a;b.png").write_bytes((folder / "a.png").read_bytes())
    path = write(folder, "\n".join(map(json.dumps, rows)), "people.jsonl")
    read = people(path)
    assert read["a"].images == (folder / "a.png", folder / "b.png")
    assert read["b"].images == (folder / "c.png", folder / "d.png")
    assert read["c"].images == (folder / "a;b.png",)  # a path of a list may hold the separator
    assert [read[name].attributes for name in "abc"] == [{"tags": "x;2"}, {}, {}]
    assert f"{path}: nested values are ignored: m (2 values)." in caplog.messages
    photos = [["a.png", "b.png"], [], ["c.png"]]
    for kind in (
        pa.list_(pa.string()),
        pa.large_list(pa.large_string()),
        pa.list_view(pa.string()),
    ):
        columns = {"id": ["a", "b", "c"], "text": ["x"] * 3, "image": pa.array(photos, kind)}
        files = [p.images for p in read_profiles(pa.table(columns), images=folder)]
        assert files == [tuple(folder / name for name in names) for names in photos]
    for cell, problem in (
        ([1], "a list of photos holds paths, got '1'."),
        ({"path": "a.png"}, "the value is nested."),
    ):
        path = write(folder, json.dumps({"id": "a", "image": cell}), "people.jsonl")
        assert problems(path) == f"people.jsonl line 1, column image: {problem}"


def test_columns_are_read_under_other_names(folder):
    path = write(folder, "user_id,__index_level_0__,photo,id,x\na,7,a.png,1,2\n")
    columns = {"user_id": "id", "id": "row", "photo": "image", "__index_level_0__": "rank"}
    read = people(path, columns=columns)
    assert read["a"].images == (folder / "a.png",)
    assert read["a"].attributes == {"row": 1, "rank": 7, "x": 2}
    with pytest.raises(DataError, match="the columns 'user_id' and 'id' would both be 'id': give"):
        people(path, columns={"user_id": "id", "photo": "image"})
    assert problems(path, columns={**columns, "userid": "y"}) == (
        "people.csv: there is no column 'userid' to read as 'y' (columns=, --column). Did you mean "
        "'user_id'?"
    )
    for bad, message in (
        ({"a": "id", "b": "id"}, "maps both 'a' and 'b' to 'id'"),
        ({"a": " "}, "maps the names of columns to other names, got 'a': ' '"),
        ({1: "id"}, "got 1: 'id'"),
        (["user_id"], r"such as {'user_id': 'id'}, got \['user_id'\]"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            people(path, columns=bad)


class Stream:
    """A table of another library: nothing but the Arrow interface."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


def test_tables_in_memory_need_only_the_arrow_interface(folder):
    people = Stream(pa.table({"id": [1, 2], "image": ["a.png", "b.png"], "age": [31, None]}))
    pairs = Stream(pa.table({"id_a": [1], "id_b": [2]}))
    read = Pairs.from_frame(pairs, profiles=people, images=folder)
    assert read.profiles["1"].attributes == {"age": 31}
    path = write(folder, "id,image\n1,a.png\n2,b.png\n")
    assert set(Pairs.from_frame(pairs, profiles=path).profiles) == {"1", "2"}
    wrong = Stream(pa.table({"id_a": [1, 7, 2], "id_b": [2, None, 2]}))
    with pytest.raises(DataError) as caught:
        Pairs.from_frame(wrong, profiles=people, images=folder)
    assert caught.value.summary == "frame: 3 problems:"
    assert caught.value.problems == (
        "frame row 2, column id_b: the id is blank.",
        "frame row 3, column id_b: '2' is paired with itself.",
        "frame row 2, column id_a: '7' is not in profiles.",
    )
    for table, message in (
        ([1], "`frame` must be a table with the Arrow interface, .* got list"),
        (Stream(pa.chunked_array([[1]])), "frame: the Stream cannot be converted to Arrow"),
    ):
        with pytest.raises((ConfigurationError, DataError), match=message):
            Pairs.from_frame(table)


# Columns without a name


@pytest.mark.parametrize(
    "name", ["", " ", "Unnamed: 0", "Unnamed: 0.1", "__index_level_0__", "...1"]
)
def test_columns_without_a_name_are_ignored_and_said(name, folder, caplog):
    path = write(folder, f"{name},id,image,age\n0,a,a.png,31\n1,b,b.png,32\n")
    assert people(path)["a"].attributes == {"age": 31}
    shown = name.strip() or "column 1"
    expected = f"columns without a name are ignored: {shown} (2 values)."
    assert caplog.messages == [f"{path}: {expected}"]
    caplog.clear()
    columns = {name: [0, 1], "id": ["a", "b"], "image": ["a.png", "b.png"]}
    pq.write_table(pa.table(columns), folder / "people.parquet")
    assert people(folder / "people.parquet")["a"].attributes == {}
    assert caplog.messages[0].endswith(expected)
    lines = write(folder, json.dumps({name: "x", "id": "a", "image": "a.png"}), "people.jsonl")
    assert people(lines)["a"].attributes == {}


def test_commas_at_the_end_of_lines(folder, caplog):
    path = write(
        folder, "id,image,age,,\na,a.png,31,,\nb,b.png,32\nc,c.png,33,,,,\nd,d.png,34,x,\n"
    )
    assert [profile.attributes["age"] for profile in read_profiles(path)] == [31, 32, 33, 34]
    assert caplog.messages == [
        f"{path}: columns without a name are ignored: column 4 (1 value), column 5."
    ]
    assert "line 2: has 5 cells, the header has 3" in problems(
        write(folder, "id,image,age\na,a.png,31,,lost\n")
    )


@pytest.mark.parametrize("name", ["Unnamed: 0_a", "Unnamed: 12_b", "__index_level_0___a"])
def test_nameless_columns_of_merged_tables_are_ignored(name, folder, caplog):
    row = "id_a,image_a,id_b,image_b"
    path = write(folder, f"{row},{name}\n1,a.png,2,b.png,9\n")
    assert [person.attributes for person in Pairs.read(path).people] == [{}, {}]
    assert f"columns without a name are ignored: {name} (1 value)" in caplog.text


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("note", ["", "sep={}\n", "\ufeffSEP={}\r\n"])
def test_separators_of_columns(note, mark, folder):
    rows = [["id", "image", "text"], ["a", '"a.png;b.png"', '"x, y; z|"'], ["b", "b.png", "-"]]
    lines = "\r\n".join(map(mark.join, rows)) + "\r\n"
    read = people(write(folder, note.format(mark) + lines))
    assert read["a"].images == (folder / "a.png", folder / "b.png")
    assert (read["a"].text, read["b"].text) == ("x, y; z|", "")
    wide = problems(write(folder, note.format(mark) + lines + mark.join("c123")))
    line = 4 + bool(note)
    assert f"people.csv line {line}: has 4 cells, the header has 3. Put quotes around" in wide


def test_names_in_capital_letters(folder):
    table = "ID_A,TEXT_A,AGE_A,ID_B,Image_B,Outcome,POOL\na,hi,3,b,b.png,REJECTED,north\n"
    read = Pairs.read(write(folder, table))
    assert read.profiles["a"].text == "hi"
    assert read.profiles["a"].attributes == {"AGE": 3}
    assert read.profiles["b"].images == (folder / "b.png",)
    assert (read.pairs[0].outcome, read.pairs[0].pool) == ("rejected", "north")
    assert people(write(folder, "ID,Text,Age\na,hi,3\n"))["a"].attributes == {"Age": 3}
    # A file may have both
    read = people(write(folder, "id,ID,text\na,7,hi\n"))
    assert read["a"].attributes == {"ID": 7}
    assert "the columns 'ID' and 'Id' would both be 'id'" in problems(
        write(folder, "ID,Id,text\na,7,hi\n")
    )


@pytest.mark.parametrize(
    ("mark", "cells", "values"),
    [
        (",", ['"1,234"', "99", '"-12,345.5"'], [1234, 99, -12345.5]),
        (",", ["1'234", "99", "7"], [1234, 99, 7]),
        (";", ["1,5", "-0,25", "1.234,5"], [1.5, -0.25, 1234.5]),
        (";", ["1 234", "1\u00a0234,5", "7"], [1234, 1234.5, 7]),
        (";", ["1.5", "2.25", "3"], [1.5, 2.25, 3]),
        ("\t", ["1,5", "2", "3"], [1.5, 2, 3]),
        ("\t", ["1,234.5", "2", "3"], [1234.5, 2, 3]),
        ("\t", ["1,234", "2", "3"], ["1,234", "2", "3"]),  # one or the other
        (",", ['"1,5"', "2", "3"], ["1,5", "2", "3"]),  # perhaps a list
        (";", ["0,50", "007", "3"], ["0,50", "007", "3"]),
    ],
)
def test_thousands_separators_and_decimal_commas(mark, cells, values, folder, caplog):
    rows = [mark.join(row) for row in (("id", "size"), *zip("abc", cells, strict=True))]
    path = write(folder, "\n".join(rows))
    assert [person.attributes["size"] for person in people(path).values()] == values
    is_plain = isinstance(values[0], str) or cells[0] == "1.5"
    assert ("the attribute size has numbers such as" in caplog.text) != is_plain
    texts = [cell.strip('"') for cell in cells]
    read = people(path, text_columns=["size"]).values()
    assert [person.attributes["size"] for person in read] == texts


@pytest.mark.parametrize(
    ("files", "values", "message"),
    [  # few cells are long enough for a separator
        ({",": ["950"] * 39 + ['"1,234"']}, [950] * 39 + [1234], "1,234, which are read as 1234"),
        ({";": ["950"] * 39 + ["1,5"]}, [950] * 39 + [1.5], "1,5, which are read as 1.5"),
        # what a file separates by semicolons says nothing about the numbers of another
        ({",": ["52.125", "9"], ";": ["52,5"]}, ["52.125", "9", "52,5"], "it is not clear"),
        ({";": ["7,255"], ",": ['"1,000"']}, ["7,255", "1,000"], "it is not clear"),
        ({",": ["1.75"], ";": ["2.5"]}, [1.75, 2.5], ""),
        # points are decimal points already
        ({";": ["1.75", "1.234", "1,5"]}, ["1.75", "1.234", "1,5"], ""),
        ({";": ["950", "1.200"]}, [950, 1.2], "whose point is read as a decimal point"),
        ({";": ["1.25", "1.200"]}, [1.25, 1.2], ""),
        ({";": ["1.\u0661\u0662\u0663", "1,5"]}, ["1.\u0661\u0662\u0663", "1,5"], ""),
        ({",": ["950", "1.200"]}, [950, 1.2], ""),
    ],
)
def test_numbers_that_may_be_read_in_two_ways(files, values, message, folder, caplog):
    (folder / "parts").mkdir()
    for number, (mark, cells) in enumerate(files.items()):
        rows = [f"{number}-{row}{mark}{cell}" for row, cell in enumerate(cells)]
        write(folder / "parts", "\n".join([f"id{mark}size", *rows]), f"{number}.csv")
    read = people(folder / "parts")
    assert [person.attributes["size"] for person in read.values()] == values
    assert message in caplog.text
    assert len(caplog.messages) == bool(message)


def test_likes_and_times_of_databases(folder):
    times = ["2026-03-01 12:00:00 UTC", "2026-03-01 05:00:00.000 -0700", "2026-03-01 12:00:00+00"]
    times.append("2026-03-01T12:00Z")
    answers = [("t", "f"), ("Y", "N"), ("TRUE", "False"), ("1.0", "0.0")]
    rows = [
        f"a{n},hi,b{n},ho,{time},{','.join(likes)}"
        for n, (time, likes) in enumerate(zip(times, answers, strict=True))
    ]
    table = "id_a,text_a,id_b,text_b,time,a_likes,b_likes\n" + "\n".join(rows)
    pairs = Pairs.read(write(folder, table, "pairs.csv")).pairs
    assert {pair.time for pair in pairs} == {datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)}
    assert {pair.likes for pair in pairs} == {(True, False)}


@pytest.mark.parametrize("name", ["imgae", "iamge", "texxt", "txt"])
def test_misspelled_columns_of_profiles(name, folder):
    meant = "text" if name.startswith("t") else "image"
    path = write(folder, f"id,{name},age\na,b.png,3\n")
    assert problems(path) == (
        f"people.csv: the column {name!r} would be an attribute. Did you mean {meant!r}? Rename it "
        "with columns= (--column)."
    )
    assert people(path, columns={name: "nickname"})["a"].attributes == {
        "nickname": "b.png",
        "age": 3,
    }
    pairs = write(folder, f"id_a,{name}_a,id_b,age_b\na,b.png,b,3\n", "pairs.csv")
    with pytest.raises(DataError, match=f"the column '{name}_a' would be an attribute"):
        Pairs.read(pairs)


def test_columns_that_occur_twice(folder, caplog):
    read = people(write(folder, "id,text,id\na,hi,a\nb,ho,b\n"))
    assert {person.id: person.text for person in read.values()} == {"a": "hi", "b": "ho"}
    assert "columns that repeat another one are ignored: id." in caplog.text
    assert "line 1 names columns twice: 'id'" in problems(
        write(folder, "id,text,id\na,hi,a\nb,ho,c\n")
    )


def test_a_named_index_is_kept(folder):
    table = pa.table({"image": ["a.png"], "id": ["a"], "index": [3]})
    metadata = {b"pandas": json.dumps({"index_columns": ["id"]}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), folder / "people.parquet")
    assert people(folder / "people.parquet")["a"].attributes == {"index": 3}


def test_a_named_index_that_only_the_metadata_hold_is_kept(folder):
    # pandas 3 writes set_index("id") like this if the ids are consecutive numbers
    table = pa.table({"image": ["a.png", "b.png"], "x": [1, 2]})
    index = {"kind": "range", "name": "id", "start": 7, "stop": 11, "step": 2}
    for changed, ids in (
        ({}, ["7", "9"]),
        ({"stop": 8}, None),  # rows were removed since
        ({"start": "7"}, None),
        ({"name": None}, None),
        ({"name": "x"}, None),
    ):
        metadata = {b"pandas": json.dumps({"index_columns": [index | changed]}).encode()}
        frame = table.replace_schema_metadata(metadata)
        pq.write_table(frame, folder / "people.parquet")
        if ids is None:
            assert problems(folder / "people.parquet").startswith(
                "people.parquet: there is no column 'id'. The columns are "
            )
            continue
        assert list(people(folder / "people.parquet")) == ids
        images = {"images": folder}
        assert [person.id for person in read_profiles(frame, **images)] == ids


# Size and kind of file


def test_long_text_is_read(folder):
    limit = csv.field_size_limit()
    text = "x" * 200_000
    read = people(write(folder, f'id,image,text\na,a.png,"{text}"\nb,b.png,hi\n'))
    assert read["a"].text == text
    assert read["b"].text == "hi"
    assert csv.field_size_limit() == limit
    long = "x" * 10_000_001
    assert problems(write(folder, f"id,image,text\na,a.png,{long}\n,b.png,hi\n")).splitlines() == [
        "people.csv line 2, column text: the text has 10,000,001 characters, more than 10,000,000.",
        "people.csv line 3, column id: the id is blank.",
    ]


def test_special_and_huge_files_are_refused(folder):
    os.mkfifo(folder / "pipe.csv")
    with pytest.raises(DataError, match=r"pipe\.csv: not a regular file"):
        read_table(folder / "pipe.csv")
    with (folder / "sparse.csv").open("wb") as file:
        file.truncate(40 << 30)
    with pytest.raises(DataError, match=r"the file has 42,949,672,960 bytes, more than 4,294,967,"):
        read_table(folder / "sparse.csv")


def test_links_that_leave_the_folder_can_be_allowed(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Image.new("RGB", (8, 8)).save(elsewhere / "e.png")
    (folder / "batch").symlink_to(elsewhere)
    path = write(folder, "id,image\na,batch/e.png\n")
    assert problems(path) == (
        f"people.csv line 2, column image: 'batch/e.png' leaves the image folder {folder} through "
        "a link. Allow links with follow_links=True (--follow-links)."
    )
    assert people(path, follow_links=True)["a"].images == (folder / "batch" / "e.png",)
    for name in ("../x.png", "batch/../../x.png", str(elsewhere / "e.png")):
        path = write(folder, f"id,image\na,{name}\n")
        assert "leaves the image folder" in problems(path, follow_links=True)


def test_attributes_can_be_declared_as_text(folder):
    path = write(folder, "id,image,zip,age\na,a.png,54321,31\nb,b.png,12345,32\n")
    for names in (["zip"], " zip ", ["zip", "image"]):
        read = people(path, text_columns=names)
        assert read["a"].attributes == {"zip": "54321", "age": 31}
    assert problems(path, text_columns=["zap"], columns={"age": "years"}) == (
        "people.csv: there is no column 'zap' to read as text (text_columns=, --text-column). Did "
        "you mean 'zip'?"
    )


def test_misspelled_columns_of_pairs_do_not_make_everything_a_match(folder, caplog):
    profiles = write(folder, "id,text\na,I am a.\nb,I am b.\n")
    table = "id_a,id_b,{},created\na,b,no,2026-10-01\n"
    for name, meant in (("a_like", "a_likes"), ("b-likes", "b_likes"), ("outcomes", "outcome")):
        pairs = write(folder, table.format(name), "pairs.csv")
        with pytest.raises(DataError) as caught:
            Pairs.read(pairs, profiles=profiles)
        assert caught.value.problems == (
            f"pairs.csv: the column {name!r} is unknown. Did you mean {meant!r}? Rename it with "
            "columns= (--column).",
        )
    caplog.clear()
    columns = {"b-likes": "b_likes"}
    pairs = write(folder, table.format("b-likes"), "pairs.csv")
    assert Pairs.read(pairs, profiles=profiles, columns=columns).pairs[0].outcome == "rejected"
    pairs = write(folder, table.format("a_likes,a_like").replace("no,", "no,yes,"), "pairs.csv")
    assert Pairs.read(pairs, profiles=profiles).pairs[0].outcome == "rejected"
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        "columns that are not read: created.",
        "columns that are not read: a_like, created.",
    ]


def test_only_the_missing_ids_of_pairs_are_reported_before_profiles_are_read(folder):
    pairs = write(folder, "liker,liked\na,b\n", "pairs.csv")
    profiles = write(folder, "user,image,zip\na,a.png,1\nb,b.png,2\n")
    columns = {"lker": "id_a", "liked": "id_b", "user": "id"}
    with pytest.raises(DataError) as caught:
        Pairs.read(pairs, profiles=profiles, columns=columns, text_columns=["zip"])
    assert caught.value.problems == (
        "pairs.csv: there is no column 'id_a'. Did you mean 'id_b'?",
        "pairs.csv: there is no column 'lker' to read as 'id_a' (columns=, --column). Did you mean "
        "'liker'?",
    )
    columns["liker"] = columns.pop("lker")
    read = Pairs.read(pairs, profiles=profiles, columns=columns, text_columns=["zip"])
    assert read.profiles["b"].attributes == {"zip": "2"}


def test_answers_in_a_column_that_would_be_an_attribute(folder):
    profiles = write(folder, "id,text\na,I am a.\nb,I am b.\n")
    for name, meant in (("likes_a", "a_likes"), ("liked_b", "b_likes")):
        pairs = write(folder, f"id_a,id_b,{name}\na,b,no\n", "pairs.csv")
        with pytest.raises(DataError) as caught:
            Pairs.read(pairs, profiles=profiles)
        assert caught.value.problems == (
            f"pairs.csv: the column {name!r} holds yes and no, but would be an attribute. Did you "
            f"mean {meant!r}? Rename it with columns= (--column).",
        )
        read = Pairs.read(pairs, profiles=profiles, columns={name: meant})
        assert read.pairs[0].outcome == "rejected"
    hobbies = write(folder, "id_a,id_b,likes_a,likes_b\na,b,cats,no\n", "hobbies.csv")
    with pytest.raises(DataError, match="the column 'likes_b' holds yes and no"):
        Pairs.read(hobbies)
    hobbies = write(folder, "id_a,id_b,likes_a,likes_b\na,b,cats,dogs\n", "hobbies.csv")
    assert Pairs.read(hobbies).profiles["a"].attributes == {"likes": "cats"}
    for name in ("text-a", "Text A", "texta"):
        pairs = write(folder, f"id_a,id_b,{name}\na,b,I cook.\n", "pairs.csv")
        with pytest.raises(
            DataError, match=f"the column '{name}' is unknown. Did you mean 'text_a'"
        ):
            Pairs.read(pairs, profiles=profiles)


def test_objects_of_polars_are_refused():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(
        {
            "id": ["a", "b"],
            "age": [31, 32],
            "where": polars.Series([object(), object()], dtype=polars.Object),
        }
    )
    with pytest.raises(DataError, match=r"Python objects cannot be read, which are in 'where'"):
        read_profiles(frame)
    texts = polars.Series("where", [str(cell) for cell in frame["where"]])
    assert len(read_profiles(frame.with_columns(texts))) == 2

"""Reading pairs, reporting all problems at once, and splits without leaks."""

import dataclasses
import hashlib
import io
import json
import struct
import zlib
from collections import defaultdict
from itertools import combinations

import numpy as np
import pytest
from conftest import shared
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pairmatch import Pair, Pairs, Profile, leakage
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.data import read_profiles


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
    # An attribute has the same type on both sides
    assert pairs.profiles["a1"].attributes == {"age": 31.0}
    assert pairs.profiles["b2"].images == (folder / "dan.png", folder / "ben.png")
    assert pairs.profiles["b1"].attributes == {"age": 40.0, "smoker": True}


def test_formats_agree(folder):
    rows = [
        {
            "id_a": "a1",
            "image_a": "anna.png",
            "id_b": 7,
            "image_b": "ben.png",
            "age_b": 30,
            "group": 4,
        },
        {
            "id_a": "a2",
            "image_a": "cleo.png",
            "id_b": 8,
            "image_b": "dan.png",
            "age_b": None,
            "group": None,
        },
    ]
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    lines = Pairs.read(path)
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").Table.from_pylist(
        [{**row, "id_b": str(row["id_b"])} for row in rows]
    )
    parquet.write_table(table, folder / "pairs.parquet")
    assert lines == Pairs.read(folder / "pairs.parquet")
    csv = write(
        folder,
        "a1,anna.png,7,ben.png,30,4",
        "a2,cleo.png,8,dan.png,,",
        header="id_a,image_a,id_b,image_b,age_b,group\n",
    )
    assert lines == Pairs.read(csv)
    # A byte order mark, as written by spreadsheets
    csv.write_bytes(b"\xef\xbb\xbf" + csv.read_bytes())
    assert lines == Pairs.read(csv)


def test_profiles_are_read_from_a_separate_file(folder):
    profiles = write(
        folder,
        "p,anna.png;ben.png,hello,30",
        "q,cleo.png,,31",
        name="profiles.csv",
        header="id,image,text,age\n",
    )
    pairs = write(folder, "p,q", header="id_a,id_b\n")
    read = Pairs.read(pairs, profiles=profiles)
    assert read.profiles["p"] == Profile(
        "p", (folder / "anna.png", folder / "ben.png"), "hello", {"age": 30}
    )
    assert [p.id for p in read_profiles(profiles)] == ["p", "q"]
    message = problems(write(folder, "p,unknown", header="id_a,id_b\n"), profiles=profiles)
    assert message == "pairs.csv line 2, column id_b: 'unknown' is not in profiles.csv."


def test_all_problems_are_reported_at_once(folder):
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes((folder / "anna.png").read_bytes()[:40])
    (folder.parent / "outside.png").write_bytes((folder / "anna.png").read_bytes())
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    message = problems(
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
        "pairs.csv line 3, column image_a: " + str(folder / "empty.png") + ": the file is empty",
        "pairs.csv line 3, column image_b: " + str(folder / "cut.png") + ": ",
        "pairs.csv line 4, column id_b: 'a3' is paired with itself",
        "pairs.csv line 5, column image_a: 'a1' has 'cleo.png' here and 'anna.png' in line 2",
        "pairs.csv line 5, column id_a: the pair 'a1', 'b1' is given twice, first in line 2",
        "pairs.csv line 6, column image_a: '../outside.png' leaves the image folder",
        "pairs.csv line 6, column image_b: 'link.png' leaves the image folder",
        (
            "pairs.csv line 6, column outcome: 'mtach' is neither 'match', 'rejected' nor "
            "'open'. Did you mean 'match'?"
        ),
        "pairs.csv line 7, column id_b: the id is blank",
        "pairs.csv line 8: has 2 cells, the header has 11",
        "pairs.csv line 9, column image_a: 'a7' has neither a photo nor a text",
        (
            "pairs.csv line 10, column id_a: 'b7' is on both sides, first as id_b in line 9. Use "
            "sides=1 (--sides 1)"
        ),
        (
            "pairs.csv line 12, column id_a: the pair 'a9', 'b9' is 'match' and 'rejected', "
            "first in line 11"
        ),
    ):
        assert expected in message


def png(width, height):
    """Builds a PNG whose header declares this size, with almost no content."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def test_problems_do_not_mask_each_other(folder):
    (folder / "bomb.png").write_bytes(png(60000, 60000))
    (folder / "album.png").mkdir()
    path = folder / "pairs.csv"
    path.write_bytes(
        b"id_a,image_a,text_a,id_b,image_b,outcome\n"
        b",gone.png,,b1,lost.png,\n"  # a blank id
        b"a2,anna.png,caf\xe9,b2,bomb.png,\n"  # a wrong encoding
        b"a3,album.png,na\xefve,b3,ben.png,mtch\n"
        b"a4,./anna.png,,b4,ben.png,\n"
        b"a4,anna.png,,b5,ben.png,\n"  # the same photo, spelled differently: valid
        b'a6,"anna.png" x,,b6,ben.png,\n'  # invalid CSV from here on
    )
    hint = (
        ". Save the file as UTF-8, for example with: iconv -f WINDOWS-1252 -t UTF-8 pairs.csv > "
        "pairs-utf8.csv"
    )
    assert sorted(problems(path).splitlines()) == [
        "pairs.csv line 2, column id_a: the id is blank.",
        f"pairs.csv line 2, column image_a: 'gone.png' does not exist in {folder}.",
        f"pairs.csv line 2, column image_b: 'lost.png' does not exist in {folder}.",
        (
            f"pairs.csv line 3, column image_b: {folder / 'bomb.png'}: more than 100,000,000 "
            "pixels; shrink it first."
        ),
        f"pairs.csv line 3, column text_a: not UTF-8 (byte 0xe9){hint}",
        f"pairs.csv line 4, column image_a: 'album.png' is a folder in {folder}.",
        (
            "pairs.csv line 4, column outcome: 'mtch' is neither 'match', 'rejected' nor "
            "'open'. Did you mean 'match'?"
        ),
        f"pairs.csv line 4, column text_a: not UTF-8 (byte 0xef){hint}",
        "pairs.csv line 7 and after: cannot be read as CSV: ',' expected after '\"'.",
    ]


def test_problems_of_both_files_are_reported(folder):
    pairs = write(folder, "p,q,", "p,p,", "z,q,mtch", header="id_a,id_b,outcome\n")
    pair_problems = [
        (
            "pairs.csv line 4, column outcome: 'mtch' is neither 'match', 'rejected' nor "
            "'open'. Did you mean 'match'?"
        ),
        "pairs.csv line 3, column id_b: 'p' is paired with itself.",
    ]
    assert problems(pairs, profiles=folder / "none.csv").splitlines() == [
        *pair_problems,
        f"{folder / 'none.csv'}: No such file or directory.",
    ]
    profiles = write(folder, "p,anna.png", "q,gone.png", name="profiles.csv", header="id,image\n")
    assert problems(pairs, profiles=profiles).splitlines() == [
        *pair_problems,
        "pairs.csv line 4, column id_a: 'z' is not in profiles.csv.",
        f"profiles.csv line 3, column image: 'gone.png' does not exist in {folder}.",
    ]
    write(folder, "p,anna.png,x", "q,ben.png", name="profiles.csv", header="id,image\n")
    # People in unreadable rows are not reported as missing
    assert problems(pairs, profiles=profiles).splitlines() == [
        *pair_problems,
        (
            "profiles.csv line 2: has 3 cells, the header has 2. Put quotes around texts that "
            "contain commas."
        ),
    ]


IDS_AND_IMAGES = "id_a,image_a,id_b,image_b\n"


def test_a_person_can_be_described_in_multiple_rows(folder):
    header = "id_a,image_a,text_a,age_a,id_b,image_b\n"
    path = write(
        folder,
        "a,,,,b,ben.png",
        "a,anna.png,,,c,cleo.png",
        "a,,hello,,d,dan.png",
        "a,,,31,e,dan.png",
        header=header,
    )
    assert Pairs.read(path).profiles["a"] == Profile(
        "a", (folder / "anna.png",), "hello", {"age": 31}
    )
    # Values are located by the row that first contains them, not the first row of the person
    (folder / "broken.png").write_bytes(b"no")
    rows = ("a,,,,b,ben.png", "a,broken.png,hello,31,c,cleo.png", "a,anna.png,hallo,32,d,dan.png")
    assert problems(write(folder, *rows, header=header)).splitlines() == [
        "pairs.csv line 4, column image_a: 'a' has 'anna.png' here and 'broken.png' in line 3.",
        "pairs.csv line 4, column text_a: 'a' has 'hallo' here and 'hello' in line 3.",
        "pairs.csv line 4, column age_a: 'a' has '32' here and '31' in line 3.",
        (
            f"pairs.csv line 3, column image_a: {folder / 'broken.png'}: not a photo in a format "
            "that pairmatch reads."
        ),
    ]
    assert (
        Pairs.read(write(folder, *rows[:2], header=header), check_images=False).profiles["a"].images
    )


def test_a_person_on_both_sides_is_reported_once(folder):
    rows = (
        "x,anna.png,y,ben.png",
        "z,cleo.png,x,anna.png",
        "x,anna.png,w,ben.png",
        "v,dan.png,x,anna.png",
    )
    assert problems(write(folder, *rows, header=IDS_AND_IMAGES)) == (
        "pairs.csv line 3, column id_b: 'x' is on both sides, first as id_a in line 2. Use "
        "sides=1 (--sides 1) if "
        "anyone may match anyone, or give the two people different ids."
    )


def json_pairs(folder, *rows):
    path = folder / "pairs.jsonl"
    path.write_text(
        "".join(
            json.dumps({"id_a": "a", "id_b": "b", "image_b": "ben.png", **row}) + "\n"
            for row in rows
        )
    )
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x\0y.png", r"cannot be opened \(embedded null"),
        ("\ud800.png", r"cannot be opened \(.*surrogates not allowed"),
        ("x" * 400, r"cannot be opened \(File name too long"),
        ("loop.png", "cannot be opened|does not exist"),  # depends on the Python version
    ],
)
def test_invalid_paths_are_problems(folder, name, reason):
    (folder / "loop.png").symlink_to(folder / "loop.png")
    with pytest.raises(DataError, match=rf"pairs.jsonl line 1, column image_a: .* ({reason})"):
        Pairs.read(json_pairs(folder, {"image_a": name}))


def test_null_values_and_attribute_types(folder):
    rows = [
        {"image_a": "anna.png", "age_a": float("nan"), "id_b": b, "score_b": None}
        for b in ("b", "c")
    ]
    # NaN is a null, and equal to NaN
    assert dict(Pairs.read(json_pairs(folder, *rows)).profiles["a"].attributes) == {}
    header = "id_a,image_a,id_b,image_b,code_b,height_b,inf_b,keen_b,mixed_b\n"
    read = Pairs.read(
        write(
            folder,
            "a,anna.png,b,ben.png,1_2,1.80,inf,TRUE,",
            "c,cleo.png,d,dan.png,3,2,1,false,x",
            header=header,
        )
    )
    assert read.profiles["b"].attributes == {
        "code": "1_2",
        "height": 1.8,
        "inf": "inf",
        "keen": True,
    }
    assert read.profiles["d"].attributes == {
        "code": "3",
        "height": 2.0,
        "inf": "1",
        "keen": False,
        "mixed": "x",
    }
    mixed = [
        {"image_a": "anna.png", "keen_b": True},
        {"image_a": "anna.png", "id_b": "c", "keen_b": 1},
    ]
    assert Pairs.read(json_pairs(folder, *mixed)).profiles["b"].attributes == {"keen": "True"}


def test_only_the_message_truncates_long_lists_of_problems(folder):
    rows = (f"a{i},anna.png,{'x' * (i + 1)}y,b{i},ben.png,z" for i in range(60))
    path = write(folder, *rows, header="id_a,image_a,text_a,id_b,image_b,outcome\n")
    with pytest.raises(DataError) as caught:
        Pairs.read(path)
    assert caught.value.problems == (
        "pairs.csv line 2 and 59 more rows, column outcome: 'z' is neither 'match', 'rejected' nor "
        "'open'.",
    )
    error = DataError("60 problems:", [f"problem {number}" for number in range(60)])
    assert len(error.problems) == 60
    assert str(error).endswith("problem 49\n  - … and 10 more")


def test_problems_of_a_profiles_file(folder):
    (folder / "broken.png").write_bytes(b"no")
    profiles = write(
        folder,
        "p,anna.png,",
        "p,ben.png,",
        ",ben.png,",
        "q,,",
        "r,anna.png;broken.png,",
        "s,../x.png;gone.png,",
        name="profiles.csv",
        header="id,image,text\n",
    )
    with pytest.raises(DataError) as caught:
        read_profiles(profiles)
    assert caught.value.summary == f"{profiles}: 6 problems:"
    assert caught.value.problems == (
        "profiles.csv line 3, column id: 'p' is given twice, first in line 2.",
        "profiles.csv line 4, column id: the id is blank.",
        f"profiles.csv line 7, column image: '../x.png' leaves the image folder {folder}.",
        f"profiles.csv line 7, column image: 'gone.png' does not exist in {folder}.",
        "profiles.csv line 5, column image: 'q' has neither a photo nor a text nor an attribute.",
        (
            f"profiles.csv line 6, column image: {folder / 'broken.png'}: not a photo in a "
            "format that pairmatch reads."
        ),
    )
    message = problems(write(folder, "p,p", header="id_a,id_b\n"), profiles=profiles)
    assert "pairs.csv line 2, column id_b: 'p' is paired with itself" in message
    assert (
        "profiles.csv line 4, column id: the id is blank" in message
    )  # problems of both files are reported together
    with pytest.raises(DataError, match=r"profiles.csv: there is no column 'id'"):
        read_profiles(write(folder, "p,anna.png", name="profiles.csv", header="person,image\n"))
    with pytest.raises(
        DataError, match=r"profiles.csv: there is no column 'image'\. Did you mean 'images'\?"
    ):
        read_profiles(write(folder, "p,anna.png", name="profiles.csv", header="id,images\n"))
    assert "pairs.csv: there is no column 'id_b'" in problems(
        write(folder, "p", header="id_a\n"), profiles=profiles
    )


def test_a_column_of_a_warehouse_is_named_with_the_option_that_renames_it(folder, tmp_path):
    profiles = write(folder, "p,anna.png", name="profiles.csv", header="id,image\n")
    names = ["LIKER", *(f"X{number}" for number in range(20))]
    table = write(tmp_path, ",".join("p" * 21), header=f"{','.join(names)}\n")
    first, second = problems(table, profiles=profiles).splitlines()[-2:]
    assert first.endswith(
        "there is no column 'id_a'. The columns are 'LIKER', "
        + ", ".join(f"'X{number}'" for number in range(19))
        + ", …. To read one of them as 'id_a': columns= (--column NAME=id_a)."
    )
    assert second.endswith("there is no column 'id_b'.")  # columns are listed once


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "ndjson", "parquet"])
def test_profiles_of_every_format(folder, suffix):
    rows = [
        {"id": "p", "image": "anna.png; ben.png", "text": " hello ", "age": 30},
        {"id": "q", "image": None, "text": "no photo", "age": None},
    ]
    path = folder / f"profiles.{suffix}"
    if suffix == "csv":
        path.write_text('id,image,text,age\np,anna.png; ben.png," hello ",30\nq,,no photo,\n')
    elif suffix == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), path)
    else:
        path.write_text("\r\n".join(map(json.dumps, rows)))
    profiles = [
        Profile("p", (folder / "anna.png", folder / "ben.png"), "hello", {"age": 30}),
        Profile("q", (), "no photo"),
    ]
    assert read_profiles(path) == profiles
    pairs = write(folder, "p,q,match", "q,p,rejected", header="id_a,id_b,outcome\n")
    assert problems(pairs, profiles=path).count("is on both sides") == 2
    one_sided = write(folder, "p,q,rejected", header="id_a,id_b,outcome\n")
    read = Pairs.read(one_sided, profiles=path, sides=1)
    assert list(read.people) == profiles
    assert (len(read), read.rejected.tolist()) == (0, [[0, 1]])


def test_invalid_parquet_files(folder):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = folder / "pairs.parquet"
    columns = {"id_a": ["a"], "image_a": ["anna.png"], "id_b": ["b"], "image_b": ["ben.png"]}
    nested = {**columns, "image_a": [{"bytes": b"x" * 300, "path": None}], "tags_b": [["x"]]}
    parquet.write_table(pyarrow.table(nested), path)
    assert problems(path).endswith(
        "pairs.parquet: nested values in image_a (struct<bytes: binary, path: null>)."
    )
    parquet.write_table(pyarrow.table({**columns, "image_a": [b"x" * 300]}), path)
    assert "pairs.parquet row 1, column image_a: 'xxx" in problems(path)
    parquet.write_table(pyarrow.table({**columns, "image_a": [b"\xff\xd8\xff"]}), path)
    assert problems(path).startswith("pairs.parquet row 1, column image_a: not UTF-8 (byte 0xff)")
    parquet.write_table(pyarrow.table({**columns, "id_b": [" "]}), path)
    assert problems(path) == "pairs.parquet row 1, column id_b: the id is blank."
    cells = [*columns.values(), ["c"]]
    twice = pyarrow.Table.from_arrays(list(map(pyarrow.array, cells)), [*columns, "id_a"])
    parquet.write_table(twice, path)
    assert problems(path).endswith("pairs.parquet: the schema names columns twice: 'id_a'.")
    parquet.write_table(pyarrow.table(columns).slice(0, 0), path)
    assert problems(path) == "pairs.parquet: the file has no rows."
    parquet.write_table(
        pyarrow.table({**columns, "text_b": ["naive"]}),
        path,
        compression="none",
        use_dictionary=False,
    )
    # A stray byte in a column declared as UTF-8
    path.write_bytes(path.read_bytes().replace(b"naive", b"na\xefve"))
    assert Pairs.read(path).profiles["b"].text == "na\ufffdve"


def test_people_may_have_only_texts_or_attributes(folder):
    header = "id_a,age_a,image_count_a,id_b,age_b,text_b\n"
    pairs = Pairs.read(write(folder, "a,31,2,b,,hello", header=header))
    assert pairs.profiles["a"].attributes == {"age": 31, "image_count": 2}
    assert (pairs.profiles["a"].images, pairs.profiles["b"].text) == ((), "hello")
    people = write(folder, "p,31", "q,", name="profiles.csv", header="id,age\n")
    message = r"'q' has neither a photo nor a text nor an attribute"
    with pytest.raises(DataError, match=message) as caught:
        read_profiles(people)
    assert len(caught.value.problems) == 1
    bare = write(folder, "p", name="profiles.csv", header="id\n")
    with pytest.raises(DataError, match="there is no column 'image'"):
        read_profiles(bare)
    assert "there is no column 'image_b'" in problems(
        write(folder, "a,31,b", header="id_a,age_a,id_b\n")
    )
    misspelled = write(folder, "a,31,1,b,2", header="id_a,age_a,photo_a,id_b,photo_b\n")
    assert "there is no column 'image_a'" in problems(misspelled)


def test_invalid_tables(folder):
    (folder / "none.csv").touch()
    assert "none.csv: the file is empty" in problems(folder / "none.csv")
    assert "No such file" in problems(folder / "nowhere.csv")
    assert "must end in .csv, .tsv, .parquet" in problems(write(folder, name="pairs.xlsx"))
    assert "there is no column 'image_a'. Did you mean 'imagea'?" in problems(
        write(folder, "1,2,3,4", header="id_a,imagea,id_b,image_b\n")
    )
    assert "line 1 names columns twice: 'id_a'" in problems(
        write(folder, "1,2", header="id_a,id_a\n")
    )
    (folder / "latin.csv").write_bytes((HEADER + "a1,anna.png,caf\xe9").encode("latin-1"))
    message = problems(folder / "latin.csv")
    assert "latin.csv line 2: has 3 cells, the header has 11" in message
    assert "latin.csv: not UTF-8. Save the file as UTF-8" in message
    assert "iconv -f WINDOWS-1252" in message
    (folder / "sheet.csv").write_bytes(HEADER.encode("utf-16"))
    assert problems(folder / "sheet.csv").endswith(
        "sheet.csv: UTF-16. Save the file as UTF-8, for example with: "
        "iconv -f UTF-16 -t UTF-8 sheet.csv > sheet-utf8.csv"
    )
    (folder / "wide.csv").write_bytes(b"id_a\0id_b\n")
    assert "line 1 contains a NUL byte" in problems(folder / "wide.csv")
    assert "the file has no rows" in problems(write(folder))
    bad = write(folder, "{", "[1]", '{"id_a": {"x": 1}}', name="bad.jsonl", header="")
    message = problems(bad)
    assert "bad.jsonl line 1: not valid JSON" in message
    assert "bad.jsonl line 2: not a JSON object" in message
    assert "bad.jsonl line 3, column id_a: the value is nested." in message
    (folder / "bad.parquet").write_bytes(b"PAR?")
    assert "not a Parquet file" in problems(folder / "bad.parquet")
    assert "pairs.csv line 2 and after: cannot be read as CSV" in problems(write(folder, 'a,"b" c'))
    (folder / "folder.csv").mkdir()
    assert "folder.csv: the folder holds no tables" in problems(folder / "folder.csv")
    assert problems(write(folder, "{}", "{}", name="bare.jsonl", header="")).splitlines() == [
        f"bare.jsonl: there is no column {name!r}."
        for name in ("id_a", "id_b", "image_a", "image_b")
    ]


def test_photo_paths_are_relative_to_the_images_folder(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = write(elsewhere, "a1,anna.png,b1,ben.png", header="id_a,image_a,id_b,image_b\n")
    assert Pairs.read(path, images=folder).profiles["a1"].images == (folder / "anna.png",)
    assert problems(path) == (
        f"pairs.csv: none of the 2 photos exists in {elsewhere}. The first is 'anna.png'. Name the "
        "folder that paths are relative to with `images` (--images)."
    )
    path = write(folder, "a1,anna.png,b1,ben.png", header="id_a,image_a,id_b,image_b\n")
    assert problems(path, images=elsewhere) == (
        f"pairs.csv: none of the 2 photos exists in {elsewhere}. The first is 'anna.png'. It is in "
        f"{folder}: leave `images` (--images) out."
    )
    path = write(folder, "a,photos/anna.png,b,photos/ben.png", header=IDS_AND_IMAGES)
    assert problems(path).endswith(
        "'anna.png' is there: `images` (--images) must be the folder above."
    )


def test_one_sided_pairs(folder):
    path = write(
        folder, "x,anna.png,y,ben.png", "y,ben.png,z,cleo.png", header="id_a,image_a,id_b,image_b\n"
    )
    pairs = Pairs.read(path, sides=1)
    assert pairs.ids_a == pairs.ids_b == ("x", "y", "z")
    assert pairs.matches.tolist() == [[0, 1], [1, 2]]
    twice = write(
        folder, "x,anna.png,y,ben.png", "y,ben.png,x,anna.png", header="id_a,image_a,id_b,image_b\n"
    )
    assert "is given twice" in problems(twice, sides=1)
    with pytest.raises(ConfigurationError, match="`sides` must be 1 or 2, got 3"):
        Pairs.read(path, sides=3)


def test_profiles_are_read_from_a_folder_of_photos(folder):
    (folder / "more").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "more" / "anna.jpg")
    Image.new("RGB", (4, 4)).save(folder / "anna.jpg")
    assert [p.id for p in read_profiles(folder)] == [
        "anna.jpg",
        "anna.png",
        "ben",
        "cleo",
        "dan",
        "more/anna",
    ]
    Image.new("RGB", (4, 4)).save(
        folder / "anna.jpg.png"
    )  # its stem is the name of a different file
    assert len({p.id for p in read_profiles(folder)}) == len(read_profiles(folder)) == 7
    (folder / "broken.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"1 photos cannot be read:\n.*broken.png: not a photo"):
        read_profiles(folder)
    (folder / "void").mkdir()
    with pytest.raises(DataError, match="holds no photos"):
        read_profiles(folder / "void")


def disjoint(n):
    people = [Profile(f"{side}{i}", text="x") for i in range(n) for side in "ab"]
    return Pairs.of(people, [Pair(f"a{i}", f"b{i}") for i in range(n)])


def test_objects_are_validated():
    people = [Profile("x"), Profile("y"), Profile("x")]
    pairs = [Pair("x", "x"), Pair("x", "z"), Pair("x", "y"), Pair("x", "y"), Pair("y", "x")]
    with pytest.raises(DataError) as caught:
        Pairs.of(people, pairs)
    text = "\n".join(caught.value.problems)
    assert caught.value.summary == f"{len(caught.value.problems)} problems in 5 pairs:"
    with pytest.raises(DataError, match="pair 1: 'y', 'x' is given twice"):
        Pairs.of(people[:2], [Pair("x", "y"), Pair("y", "x")], sides=1)
    with pytest.raises(ConfigurationError, match="`sides` must be 1 or 2, got 0"):
        Pairs.of([], [], sides=0)
    for expected in (
        "'x' is given twice",
        "paired with itself",
        "no profile 'z'",
        "pair 3: 'x', 'y' is given twice",
        "on both sides",
    ):
        assert expected in text


def test_the_split_of_the_paper_is_exact():
    assert [len(part) for part in disjoint(495).split(0.70, 0.15)] == [346, 74, 75]
    # 0.29 * 100 is 28.999…
    assert [len(part) for part in disjoint(100).split(0.29, 0.01)] == [29, 1, 70]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(7, 200), seed=st.integers(0, 99))
def test_disjoint_pairs_split_by_floor_floor_rest(n, seed):
    parts = disjoint(n).split(0.5, 0.25, seed=seed)
    assert [len(part) for part in parts] == [n // 2, n // 4, n - n // 2 - n // 4]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_splits_share_no_person_and_no_group(data):
    edges = data.draw(
        st.lists(
            st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=8, max_size=60, unique=True
        )
    )
    groups = data.draw(
        st.lists(st.one_of(st.none(), st.integers(0, 30)), min_size=len(edges), max_size=len(edges))
    )
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
        return  # a single component contains all pairs
    everything = [*parts, parts.crossing]
    assert {pair for part in everything for pair in part.pairs} == set(pairs.pairs)
    assert sum(len(part.pairs) for part in everything) == len(pairs.pairs)
    assert parts.by == "people" or not parts.crossing.pairs
    for first, second in combinations(parts, 2):
        assert not set(first.profiles) & set(second.profiles)
        groups = [{pair.group for pair in part.pairs} for part in (first, second)]
        assert groups[0] & groups[1] <= {None}
    assert not leakage(*parts)


def random_log(people, matches, *, seed=0, tail=None):
    """Distinct matches between two sides, at random or with popular people (Pareto)."""
    rng = np.random.default_rng(seed)
    weights = np.ones((2, people)) if tail is None else rng.pareto(tail, (2, people)) + 1
    first, second = (rng.choice(people, 4 * matches, p=side / side.sum()) for side in weights)
    edges = list(dict.fromkeys(zip(first.tolist(), second.tolist(), strict=True)))[:matches]
    assert len(edges) == matches
    return Pairs.of(
        [Profile(f"{side}{i}") for i in range(people) for side in "ab"],
        [Pair(f"a{i}", f"b{j}") for i, j in edges],
    )


@pytest.mark.parametrize(
    ("people", "matches", "tail"),
    [(1000, 1200, 2.0), (1000, 2000, None), (2000, 6000, 1.5), (300, 3000, None)],
)
def test_graphs_are_split_by_people_in_the_asked_shares(people, matches, tail):
    pairs = random_log(people, matches, tail=tail)
    # Nearly all pairs are connected, so that whole components leave two parts all but empty
    assert np.bincount(pairs.components()).max() > 0.75 * matches
    with pytest.raises(
        DataError,
        match=r"split (is empty|misses its sizes by more than a fifth).*--split-by people",
    ):
        pairs.split(by="component")
    parts = pairs.split()
    assert parts.by == "people"
    kept = sum(map(len, parts))
    for part, share in zip(parts, (0.70, 0.15, 0.15), strict=True):
        assert len(part) == pytest.approx(share * kept, rel=0.2)
    # A part with a share q of both sides' people holds q² of the pairs: q₁² : q₂² = 70 : 15
    assert kept / matches == pytest.approx(1 / (np.sqrt(0.7) + 2 * np.sqrt(0.15)) ** 2, rel=0.15)
    assert len(parts.crossing) == matches - kept
    assert f"{matches - kept} of {matches} matches are between parts" in parts.reason
    for first, second in combinations(parts, 2):
        assert not set(first.profiles) & set(second.profiles)


def test_households_and_popular_people_in_splits_by_people():
    pairs = random_log(200, 800, seed=1)
    homes = [
        dataclasses.replace(pair, group=f"home {index // 2}" if index < 40 else None)
        for index, pair in enumerate(pairs.pairs)
    ]
    parts = Pairs.of(pairs.people, homes).split(by="people", seed=2)
    groups = [{pair.group for pair in part.pairs} - {None} for part in parts]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 20
    couples = disjoint(40)
    assert [len(part) for part in couples.split(by="component")] == [28, 6, 6]
    with pytest.raises(ConfigurationError, match="Did you mean 'people'"):
        couples.split(by="peple")


def test_splits_depend_on_the_seed_but_not_on_the_row_order():
    pairs = disjoint(40)
    shuffled = pairs.subset(np.random.default_rng(0).permutation(40))
    for part, same in zip(pairs.split(seed=3), shuffled.split(seed=3), strict=True):
        assert set(part.profiles) == set(same.profiles)
    assert set(pairs.split(seed=3)[2].profiles) != set(pairs.split(seed=4)[2].profiles)


def test_splits_are_stable_across_versions():
    # The expected values are fixed: a seed must identify the same split in all versions
    edges = [(0, 0), (0, 1), (1, 1), (6, 5), *((i, i) for i in range(2, 13) if i != 6)]
    outcomes = {8: "rejected"}
    groups = {2: "room", 9: "room"}
    pairs = Pairs.of(
        [Profile(f"{side}{i}") for side in "ab" for i in range(13)],
        [Pair(f"a{i}", f"b{j}", outcomes.get(i, "match"), groups.get(i)) for i, j in edges],
    )
    parts = [[pair.a for pair in part.pairs] for part in pairs.split(0.5, 0.25, seed=4)]
    assert parts == [
        ["a0", "a0", "a1", "a3", "a7", "a8", "a10"],
        ["a6", "a4", "a5"],
        ["a2", "a9", "a11", "a12"],
    ]
    folds = [fold.tolist() for fold in pairs.folds(3, seed=4)]
    assert folds == [[0, 1, 2, 5, 8, 9], [3, 6, 7, 11], [4, 10, 12, 13]]


def test_invalid_splits():
    pairs = disjoint(10)
    with pytest.raises(ConfigurationError, match=r"a sum of at most 1, got 0\.9 and 0\.2"):
        pairs.split(0.9, 0.2)
    chain = Pairs.of(
        [Profile(f"a{i}") for i in range(9)] + [Profile("b")],
        [Pair(f"a{i}", "b") for i in range(9)],
    )
    with pytest.raises(DataError, match="split is empty: 9 matches are in 1 components"):
        chain.split()
    for train, validation in ((0, 0.5), (1.1, 0), (0.5, -0.1), (float("nan"), 0)):
        with pytest.raises(ConfigurationError, match="needs shares with 0 < train, 0 ≤ validation"):
            pairs.split(train, validation)
    with pytest.raises(DataError, match="needs matches, and there are none: 0 pairs are"):
        disjoint(0).split()
    for count, name in ((1, "training"), (6, "validation")):  # ⌊6 · 0.15⌋ = 0
        with pytest.raises(
            DataError,
            match=f"The {name} split is empty: {count} matches are in {count} comp",
        ):
            disjoint(count).split()
    assert [len(part) for part in disjoint(7).split()] == [4, 1, 2]
    assert [len(part) for part in disjoint(1).split(1, 0)] == [1, 0, 0]
    assert [len(part) for part in pairs.split(0.8, 0.0)] == [8, 0, 2]
    assert [len(part) for part in pairs.split(0.8, 0.2)] == [8, 2, 0]


def test_folds_cover_every_pair_once():
    folds = disjoint(23).folds(5, seed=1)
    assert sorted(np.concatenate(folds)) == list(range(23))
    assert sorted(len(fold) for fold in folds) == [4, 4, 5, 5, 5]
    with pytest.raises(
        ConfigurationError, match="from 2 to the number of components with a match, 23; got 1"
    ):
        disjoint(23).folds(1)


def graph(draw, sides):
    """Draws pairs with groups and rejections, and labels their components by repeated merging."""
    node = st.integers(0, 40)
    edges = draw(st.lists(st.tuples(node, node), min_size=6, max_size=50, unique=True))
    a, b = ("a", "b") if sides == 2 else ("x", "x")
    named = {(f"{a}{i}", f"{b}{j}"): None for i, j in edges if sides == 2 or i < j}
    group = st.one_of(st.none(), st.integers(0, 30).map(str))
    outcome = st.sampled_from(["match", "match", "match", "rejected"])
    pairs = [Pair(i, j, draw(outcome), draw(group)) for i, j in named]
    people = {person for pair in pairs for person in (pair.a, pair.b)}
    label = list(range(len(pairs)))
    owners = defaultdict(list)
    for index, pair in enumerate(pairs):
        for name in {("person", pair.a), ("person", pair.b), ("group", pair.group)} - {
            ("group", None)
        }:
            owners[name].append(index)
    for members in owners.values():
        joined = {label[index] for index in members}
        label = [min(joined) if number in joined else number for number in label]
    return Pairs.of([Profile(person) for person in sorted(people)], pairs, sides=sides), label


def touched(pairs):
    return set(pairs.profiles) | {
        ("group", pair.group) for pair in pairs.pairs if pair.group is not None
    }


@settings(max_examples=60, deadline=None)
@given(data=st.data(), sides=st.sampled_from([1, 2]))
def test_splits_and_folds_of_random_graphs_are_disjoint_and_complete(data, sides):
    pairs, label = graph(data.draw, sides)
    assert len(set(zip(pairs.components().tolist(), label, strict=True))) == len(set(label))
    assert len(set(pairs.components().tolist())) == len(set(label))
    seed = data.draw(st.integers(0, 5))
    matched = {
        number for number, pair in zip(label, pairs.pairs, strict=True) if pair.outcome == "match"
    }
    for k in range(2, min(len(matched), 5) + 1):
        folds = pairs.folds(k, seed=seed)
        assert sorted(np.concatenate(folds)) == list(range(len(pairs.pairs)))
        parts = [pairs.subset(fold) for fold in folds]
        assert all(len(part) for part in parts)
        assert sum(len(touched(part)) for part in parts) == len(touched(pairs))
    with pytest.raises(
        ConfigurationError,
        match=rf"components with a match, {len(matched)}; got {len(matched) + 1}",
    ):
        pairs.folds(len(matched) + 1)
    try:
        parts = pairs.split(0.6, 0.2, seed=seed)
    except DataError as error:
        reasons = ("split is empty", "by more than a fifth", "needs matches, and there are none")
        assert any(reason in str(error) for reason in reasons)  # noqa: PT017
        return
    everything = [*parts, parts.crossing]
    assert sorted(pair.a + pair.b for part in everything for pair in part.pairs) == sorted(
        p.a + p.b for p in pairs.pairs
    )
    assert len(set.union(*map(touched, parts))) == sum(len(touched(part)) for part in parts)
    if parts.by == "component":
        assert sum(len(touched(part)) for part in parts) == len(touched(pairs))
    shuffled = pairs.subset(data.draw(st.permutations(range(len(pairs.pairs)))))
    for part, again in zip(parts, shuffled.split(0.6, 0.2, seed=seed), strict=True):
        assert set(part.pairs) == set(again.pairs)


def test_rejections_stay_with_their_people():
    people = [Profile(f"{side}{i}") for i in range(20) for side in "ab"]
    matches = [Pair(f"a{i}", f"b{i}") for i in range(20)]
    pairs = Pairs.of(
        people, [*matches, Pair("a0", "b1", "rejected"), Pair("a2", "b3", "rejected", "g")]
    )
    assert repr(pairs) == "Pairs(20 matches, 2 rejected, 40 people, sides=2)"
    parts = pairs.split(0.5, 0.25)
    assert [len(part) for part in parts] == [10, 5, 5]
    assert sum(len(part.rejected) for part in parts) == 2
    with pytest.raises(ConfigurationError, match="components with a match, 0; got 2"):
        pairs.subset([20, 21]).folds(2)  # folds require matches


def noise(seed, levels=255):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, levels, (9, 9, 3), np.uint8)).resize(
        (160, 160), Image.Resampling.BICUBIC
    )


def jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def couple(name, first, second):
    return Pairs.of(
        [Profile(f"{name}1", (first,)), Profile(f"{name}2", (second,))],
        [Pair(f"{name}1", f"{name}2")],
    )


def test_independent_splits_have_no_leaks():
    report = leakage(couple("p", noise(0), noise(1)), couple("q", noise(2), noise(3)))
    assert not report
    assert str(report) == "The splits share no people, groups or photos."
    report.raise_if_any()


def test_photos_in_memory_are_compared():
    photo = noise(0)
    same = leakage(couple("p", photo, noise(1)), couple("q", photo.copy(), noise(2)))
    assert same.photos == ("'p1' of split 1 and 'q1' of split 2 have the same photo",)
    assert not same.near_duplicates
    reencoded = (
        couple("p", jpeg(photo, 95), noise(1)),
        couple("q", jpeg(photo.resize((120, 120)), 60), noise(2)),
    )
    report = leakage(*reencoded)
    assert not report.photos
    assert len(report.near_duplicates) == 1
    assert report.near_duplicates[0].startswith(
        "'p1' of split 1 and 'q1' of split 2 have nearly the same photo ("
    )
    assert not leakage(*reencoded, near_duplicate_bits=-1)
    # Photos with the same layout but different colors are distinct
    inverted = Image.merge("RGB", photo.split()[::-1])
    grey = Image.merge("RGB", [photo.convert("L")] * 3)
    assert not leakage(couple("p", photo, noise(1)), couple("q", inverted, grey))


def test_damaged_photos_do_not_stop_the_search():
    cut = jpeg(noise(0), 90)[:700]
    report = leakage(couple("p", cut, noise(1)), couple("q", cut, noise(2)))
    assert report.photos == ("'p1' of split 1 and 'q1' of split 2 have the same photo",)


def test_only_the_printed_report_truncates_long_lists_of_leaks():
    pairs = disjoint(8)
    report = leakage(pairs, pairs)
    assert len(report.people) == 16
    assert str(report).splitlines()[0] == "The splits share 16 people."
    assert str(report).splitlines()[-1] == "  - … and 11 more"
    with pytest.raises(DataError, match="The splits are not independent:") as caught:
        report.raise_if_any()
    assert caught.value.problems == report.people
    with pytest.raises(ConfigurationError, match="at least two"):
        leakage()


def test_leaks_are_reported(tmp_path):
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)).resize(
        (160, 160), Image.Resampling.BICUBIC
    )
    photo.save(tmp_path / "original.png")
    photo.resize((120, 120)).save(tmp_path / "reencoded.jpg", quality=70)
    (tmp_path / "copy.png").write_bytes((tmp_path / "original.png").read_bytes())
    Image.new("RGB", (50, 50), "navy").save(tmp_path / "flat.png")
    Image.new("RGB", (60, 60), "navy").save(tmp_path / "flat2.png")

    def part(*people, group=None):
        profiles = [Profile(name, (tmp_path / file,)) for name, file in people]
        return Pairs.of(profiles, [Pair(profiles[0].id, profiles[1].id, "match", group)])

    report = leakage(
        part(("anna", "original.png"), ("ben", "flat.png"), group="house"),
        part(("cleo", "copy.png"), ("dan", "reencoded.jpg"), group="house"),
        part(("anna", "original.png"), ("eve", "flat2.png")),
    )
    assert report.people == ("'anna' is in split 1 and split 3",)
    assert report.groups == ("the group 'house' is in split 1 and split 2",)
    assert len(report.photos) == 2  # anna in splits 1 and 3, with cleo's copy
    # Anna in splits 1 and 3, with dan's re-encoded photo; plain-colored photos are ignored
    assert len(report.near_duplicates) == 2
    assert "'dan'" in report.near_duplicates[0]
    with pytest.raises(DataError, match="not independent"):
        report.raise_if_any()
    assert "1 person, 1 group, 2 identical photos, 2 nearly identical photos" in str(report)
    clean = leakage(
        part(("anna", "original.png"), ("ben", "flat.png")),
        part(("x", "flat2.png"), ("y", "flat.png")),
    )
    assert clean.photos == (
        "'ben' ("
        + str(tmp_path / "flat.png")
        + ") of split 1 and 'y' ("
        + str(tmp_path / "flat.png")
        + ") of split 2 have the same photo",
    )
    with pytest.raises(ConfigurationError, match="at least two"):
        leakage(disjoint(3))


def test_splits_of_real_photos_share_no_rooms():
    pairs = Pairs.read(shared("furniture/pairs.csv"))
    assert len(pairs) == 464
    parts = pairs.split(seed=0)
    assert [len(part) for part in parts] == [324, 69, 71]
    report = leakage(*parts, near_duplicate_bits=-1)
    assert not report.people
    assert not report.groups


def test_identical_real_photos_are_reported():
    # A shop shows different colors of an article with the same photo
    pairs = Pairs.read(shared("furniture/pairs.csv"), check_images=False)
    parts = pairs.split(seed=0)
    digests = [
        {hashlib.sha256(i.read_bytes()).digest() for p in part.people for i in p.images}
        for part in parts
    ]
    expected = sum(len(first & second) for first, second in combinations(digests, 2))
    assert expected > 0
    assert len(leakage(*parts, near_duplicate_bits=-1).photos) == expected


def test_outcomes_of_objects_are_validated():
    people = [Profile("x"), Profile("y")]
    with pytest.raises(
        DataError, match=r"pair 0: the outcome 'maybe' is neither 'match', 'rejected' nor 'open'"
    ):
        Pairs.of(people, [Pair("x", "y", "maybe")])


def test_ids_of_objects_must_be_distinct_in_every_file():
    with pytest.raises(DataError) as caught:
        Pairs.of(
            [Profile("José"), Profile("Jose\u0301"), Profile("x\ud83d"), Profile("y")],
            [Pair("José", "x\ud83d"), Pair("Jose\u0301", "y")],
        )
    assert caught.value.problems == (
        "the ids 'Jos\\xe9' and 'Jose\\u0301' are the same characters in different Unicode normal "
        "forms; use one of them.",
        "the id 'x\\ud83d' is not valid Unicode.",
    )
    with pytest.raises(DataError) as caught:
        Pairs.of([Profile("José"), Profile("y")], [Pair("Jose\u0301", "y")])
    assert caught.value.problems == (
        "pair 0: there is no profile 'Jose\u0301'. 'Jos\\xe9' has the same characters.",
    )

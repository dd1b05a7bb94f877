"""Bad rows: equal problems are one line, one cause is one problem, and rows can be skipped."""

import csv
import datetime
import decimal
import stat

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pairmatch import Pairs
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.data import read_profiles
from pairmatch.data.skipping import Skipped
from pairmatch.io.problems import Problem, messages

PEOPLE = 40  # on each side


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name in "xy":
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"no")
    return folder


def write(folder, text, name="people.csv"):
    path = folder / name
    path.write_text(text)
    return path


def problems(read, *args, **options):
    with pytest.raises(DataError) as caught:
        read(*args, **options)
    return list(caught.value.problems) or [str(caught.value)]


# One line per kind


def test_problems_that_differ_in_what_they_quote_are_one_line():
    few = [Problem(f"'{n}.png' does not exist.", f"line {n}", "image") for n in range(2, 6)]
    assert messages("p.csv", few) == [
        f"p.csv line {n}, column image: '{n}.png' does not exist." for n in range(2, 6)
    ]
    many = [Problem(f"'{n}.png' does not exist.", f"line {n}", "image") for n in range(2, 5002)]
    other = Problem("the id is blank.", "line 9", "id")
    assert messages("p.csv", [*many[:7], other, *many[7:]]) == [
        "p.csv line 2 and 4,999 more rows, column image: '2.png' does not exist.",
        "p.csv line 9, column id: the id is blank.",
    ]
    assert messages("p.csv", [*many[:1] * 4, *many[1:3], Problem("unreadable.")]) == [
        "p.csv line 2 and 3 more rows, column image: '2.png' does not exist.",
        "p.csv line 3, column image: '3.png' does not exist.",
        "p.csv line 4, column image: '4.png' does not exist.",
        "p.csv: unreadable.",
    ]


def test_wrong_outcomes_are_one_line(tmp_path):
    rows = "".join(f"a{n},b{n},liked\n" for n in range(15_858))
    people = "".join(f"{side}{n},hi\n" for n in range(15_858) for side in "ab")
    pairs = write(tmp_path, "id_a,id_b,outcome\n" + rows, "pairs.csv")
    profiles = write(tmp_path, "id,text\n" + people)
    assert problems(Pairs.read, pairs, profiles=profiles) == [
        "pairs.csv line 2 and 15,857 more rows, column outcome: 'liked' is neither 'match', "
        "'rejected' nor 'open'."
    ]


# One cause is one problem


def test_a_bad_profile_is_not_a_problem_of_its_pairs(tmp_path, photos):
    pairs = write(tmp_path, "id_a,id_b\na,b1\na,b2\na,b3\na,b4\na,b5\n", "pairs.csv")
    rows = "".join(f"b{n},x.png\n" for n in range(1, 6))
    for cell, problem in (
        ("gone.png", f"column image: 'gone.png' does not exist in {photos}."),
        ("broken.png", "not a photo in a format that pairmatch reads."),
        ("", "'a' has neither a photo nor a text nor an attribute."),
    ):
        profiles = write(tmp_path, f"id,image\na,{cell}\n{rows}")
        (found,) = problems(Pairs.read, pairs, profiles=profiles, images=photos)
        assert found.startswith("people.csv line 2, ")
        assert found.endswith(problem)


def test_a_wrong_type_of_ids_is_one_problem(tmp_path):
    pairs = write(tmp_path, "id_a,id_b\n1,2\n3,4\n5,6\n", "pairs.csv")
    profiles = write(tmp_path, "id,text\n" + "".join(f"{n}.0,hi\n" for n in range(1, 7)))
    for mode in ("stop", "skip"):
        (problem,) = problems(Pairs.read, pairs, profiles=profiles, on_bad_row=mode)
        assert problem.startswith(
            "pairs.csv: 6 cells have ids that are not in people.csv. '1' is '1.0' there: whole "
            "numbers were written as fractions"
        )


def test_a_wrong_folder_of_photos_is_one_problem(tmp_path, photos):
    profiles = write(tmp_path, "id,image\n" + "".join(f"{n},img/{n}.png\n" for n in range(900)))
    for mode in ("stop", "skip"):
        assert problems(read_profiles, profiles, images=photos, on_bad_row=mode) == [
            f"people.csv: none of the 900 photos exists in {photos}. The first is 'img/0.png'. "
            "Name the folder that paths are relative to with `images` (--images)."
        ]


def test_profiles_that_no_pair_names_are_not_read(tmp_path, photos):
    profiles = write(tmp_path, "id,image\na,x.png\nb,y.png\nc,broken.png\nd,gone.png\ne,\n")
    pairs = write(tmp_path, "id_a,id_b\na,b\n", "pairs.csv")
    assert set(Pairs.read(pairs, profiles=profiles, images=photos).profiles) == {"a", "b"}
    assert len(problems(read_profiles, profiles, images=photos)) == 3


# Skipping


SKIPPED = [
    ("people.csv", "line 4", "", "", "has 4 cells, the header has 3. Put quotes around texts that "
     "contain commas."),
    ("people.csv", "line 5", "id", "", "the id is blank."),
    ("people.csv", "line 6", "id", "a", "'a' is given twice, first in line 2."),
    ("people.csv", "line 7", "image", "c", "'gone.png' does not exist in {photos}."),
    ("people.csv", "line 10", "image", "e", "'gone.png' does not exist in {photos}."),
    ("people.csv", "line 9", "image", "f", "'f' has neither a photo nor a text nor an attribute."),
    ("people.csv", "line 8", "image", "d", "{photos}/broken.png: not a photo in a format that "
     "pairmatch reads."),
]  # fmt: skip


def test_people_that_cannot_be_read_are_left_out(tmp_path, photos, caplog):
    path = write(
        tmp_path,
        "id,image,text\na,x.png,hi\nb,y.png,\nh,x.png,hello,there\n,x.png,\na,y.png,\n"
        "c,gone.png,hi\nd,broken.png,\nf,,\ne,gone.png;x.png,\ng,,hi\n",
    )
    people = read_profiles(path, images=photos, on_bad_row="skip", most_skipped=0.6)
    assert [person.id for person in people] == ["a", "b", "e", "g"]
    assert people[2].images == (photos / "x.png",)  # one photo of two is enough
    assert people.skipped == tuple(
        Skipped(*entry[:-1], entry[-1].format(photos=photos)) for entry in SKIPPED
    )
    (message,) = [text for text in caplog.messages if "left out" in text]
    first, *lines = message.splitlines()
    assert first == f"{path}: left out 6 of 10 people:"
    assert lines[0].startswith("  - 1 row: people.csv line 4: has 4")
    several = "  - 2 rows, the first: people.csv line 7, column image: 'gone.png' does not exist"
    assert sum(line.startswith(several) for line in lines) == 1
    with pytest.raises(DataError) as caught:
        read_profiles(path, images=photos)
    assert str(caught.value).endswith(
        "\n  To go on without these rows and cells: on_bad_row='skip' (--on-bad-row skip)."
    )
    with pytest.raises(DataError) as caught:
        read_profiles(path, images=photos, on_bad_row="skip", most_skipped=0.5)
    assert caught.value.summary == (
        f"{path}: 6 of 10 people cannot be used, more than 50.0% (most_skipped=, --most-skipped):"
    )
    assert len(caught.value.problems) == len(SKIPPED)


def test_pairs_of_people_that_are_left_out_go_with_them(tmp_path, photos):
    profiles = write(tmp_path, "id,image\na,x.png\nb,y.png\nc,gone.png\nd,y.png\ne,x.png\n")
    pairs = write(
        tmp_path,
        "id_a,id_b,outcome\na,b,\nc,b,\na,d,liked\na,z,\ne,e,\n,b,\na,b,\nb,d,\ne,d,\n",
        "pairs.csv",
    )
    read = Pairs.read(pairs, profiles=profiles, images=photos, on_bad_row="skip", most_skipped=0.9)
    assert [(pair.a, pair.b) for pair in read.pairs] == [("a", "b"), ("e", "d")]
    assert set(read.profiles) == {"a", "b", "d", "e"}
    entries = [(entry.location, entry.column, entry.id, entry.reason) for entry in read.skipped]
    assert entries == [
        (
            "line 4",
            "outcome",
            "",
            "'liked' is neither 'match', 'rejected' nor 'open'.",
        ),
        ("line 6", "id_b", "e", "'e' is paired with itself."),
        ("line 7", "id_a", "", "the id is blank."),
        ("line 8", "id_a", "a", "the pair 'a', 'b' is given twice, first in line 2."),
        ("line 5", "id_b", "z", "'z' is not in people.csv."),
        ("line 3", "id_a", "c", "'c' was left out."),
        (
            "line 9",
            "id_a",
            "b",
            "'b' is on both sides, first as id_b in line 2. Use sides=1 (--sides 1) if anyone may "
            "match anyone, or give the two people different ids.",
        ),
        ("line 4", "image", "c", f"'gone.png' does not exist in {photos}."),
    ]
    with pytest.raises(DataError, match=r"7 of 9 pairs cannot be used, more than 50\.0%"):
        Pairs.read(pairs, profiles=profiles, images=photos, on_bad_row="skip", most_skipped=0.5)
    file = tmp_path / "skipped.csv"
    read.write_skipped(file)
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == ["file", "location", "column", "id", "reason"]
    assert [row["location"] for row in rows] == [entry[0] for entry in entries]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_people_in_a_pairs_file_are_left_out(tmp_path, photos):
    path = write(
        tmp_path,
        "id_a,image_a,age_a,id_b,image_b\n"
        "a,x.png,31,b,y.png\nc,gone.png,32,d,y.png\na,x.png,40,e,broken.png\na,x.png,31,f,x.png\n",
        "pairs.csv",
    )
    read = Pairs.read(path, images=photos, on_bad_row="skip", most_skipped=0.5)
    assert [(pair.a, pair.b) for pair in read.pairs] == [("a", "b"), ("a", "f")]
    assert read.profiles["a"].attributes == {"age": 31}  # the first of two statements
    assert [(entry.location, entry.column, entry.id) for entry in read.skipped] == [
        ("line 4", "age_a", "a"),
        ("line 3", "image_a", "c"),
        ("line 4", "image_b", "e"),
        ("line 3", "id_a", "c"),
        ("line 4", "id_b", "e"),
    ]


@pytest.mark.parametrize(
    ("text", "name", "problem"),
    [
        ("person,image\na,x.png\n", "people.csv", "there is no column 'id'"),
        ('id,text\na,"b" c\nb,hi\n', "people.csv", "line 2 and after: cannot be read as CSV"),
        ("id,text\na,안녕\nb,안녕하세요\n".encode("cp949"), "people.csv", "iconv -f CP949"),
        ("PAR?", "people.parquet", "not a Parquet file"),
    ],
)
def test_what_concerns_a_whole_file_is_never_skipped(tmp_path, text, name, problem):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=problem):
        read_profiles(path, on_bad_row="skip", most_skipped=1.0)


def test_nothing_is_skipped_in_clean_files(tmp_path, photos, caplog):
    path = write(tmp_path, "id,image\na,x.png\nb,y.png\n")
    assert read_profiles(path, images=photos, on_bad_row="skip").skipped == ()
    assert caplog.messages == []


def test_options_are_checked(tmp_path):
    path = write(tmp_path, "id,text\na,hi\n")
    with pytest.raises(ConfigurationError, match="Did you mean 'skip'"):
        read_profiles(path, on_bad_row="skipp")
    with pytest.raises(ConfigurationError, match="must be a share from 0 to 1, got 5"):
        read_profiles(path, most_skipped=5)
    with pytest.raises(ConfigurationError, match=r"'keep_word'\. Did you mean 'keep_words'"):
        Pairs.read(path, keep_word=["NA"])


# A warehouse export


def export():
    """The tables of a warehouse: people of both sides, and their decisions."""
    ids = [f"{side}{n:03}" for side in "ab" for n in range(PEOPLE)]
    photos = [["x.png", "y.png"] for _ in ids]
    bios = ["I cook." for _ in ids]
    photos[3], bios[3] = ["gone.png"], None  # cannot be read
    photos[4], bios[4] = ["broken.png"], "hi"
    photos[5] = [None, "x.png"]
    bios[6] = "N/A"
    bios[7] = "\\N"
    heights = [str(150 + n % 40) for n in range(len(ids))]
    heights[8] = "1,80 m"
    heights[9] = "NULL"
    people = {
        "": list(range(len(ids))),
        "user_id": pa.array([name.encode() for name in ids], pa.binary()),
        "photos": pa.array(photos, pa.list_(pa.string())),
        "bio": pa.array(bios).dictionary_encode(),
        "zip": pa.array([f"{n:05}" for n in range(len(ids))]),
        "income": pa.array([decimal.Decimal("1234.50")] * len(ids), pa.decimal128(10, 2)),
        "joined": pa.array(
            [datetime.datetime(2026, 1, 2, 3)] * len(ids), pa.timestamp("ns", "UTC")
        ),
        "smokes": pa.array([n % 2 == 0 for n in range(len(ids))]),
        "height": pa.array(heights),
        "tags": pa.array([["cats", "dogs"], None] * PEOPLE, pa.list_(pa.string())),
        "device": pa.array([{"os": "x"}] * len(ids)),
    }
    men, women = ids[:PEOPLE], ids[PEOPLE:]
    rows = [(a, b, 1, 1, "2026-10-01") for a, b in zip(men, women, strict=True)]
    rows += [(a, b, 1, 0, "2026-10-02") for a, b in zip(men, women[1:], strict=False)]
    rows += [(men[0], women[0], 0, 1, "2026-10-03")]  # changed his mind
    rows += [(men[1], "b999", 1, 1, "2026-10-03")]  # deleted her account
    liker, liked, likes, back, days = zip(*rows, strict=True)
    pairs = {
        "liker": pa.array(liker).dictionary_encode(),
        "liked": pa.array(liked, pa.large_string()),
        "likes": pa.array(likes, pa.int8()),
        "liked_back": pa.array([bool(like) for like in back]),
        "at": pa.array([datetime.date.fromisoformat(day) for day in days]),
    }
    return pa.table(pairs), pa.table(people)


COLUMNS = {
    **{"user_id": "id", "photos": "image", "bio": "text"},
    **{"liker": "id_a", "liked": "id_b", "likes": "a_likes", "liked_back": "b_likes", "at": "time"},
}


def as_csv(table, path):
    """CSV has no lists: photos are separated by `;`."""
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        cells = column.to_pylist()
        if name == "device":
            continue
        if pa.types.is_list(column.type):
            cells = [None if c is None else ";".join(filter(None, c)) for c in cells]
        cells = [cell.decode() if isinstance(cell, bytes) else cell for cell in cells]
        columns[name] = pa.array(["" if cell is None else str(cell) for cell in cells])
    pacsv.write_csv(pa.table(columns), path)
    return path


@pytest.mark.parametrize("form", ["parquet", "csv", "arrow", "pandas", "polars", "duckdb"])
def test_a_warehouse_export_is_read_as_it_is(form, tmp_path, photos, caplog):
    pairs, people = export()
    options = {"columns": COLUMNS, "images": photos, "on_bad_row": "skip", "most_skipped": 0.1}
    if form == "parquet":
        for name, table in (("pairs", pairs), ("people", people)):
            pq.write_table(table, tmp_path / f"{name}.parquet")
        read = Pairs.read(
            tmp_path / "pairs.parquet", profiles=tmp_path / "people.parquet", **options
        )
    elif form == "csv":
        profiles = as_csv(people, tmp_path / "people.csv")
        read = Pairs.read(as_csv(pairs, tmp_path / "pairs.csv"), profiles=profiles, **options)
    else:
        module = None if form == "arrow" else pytest.importorskip(form)
        convert = {
            "arrow": lambda table: table,
            "pandas": lambda table: table.to_pandas(),
            "polars": lambda table: module.from_arrow(table),
            "duckdb": lambda table: module.from_arrow(table),
        }[form]
        if form in ("polars", "duckdb"):  # name columns that have no name
            people = people.rename_columns(["Unnamed: 0", *people.column_names[1:]])
        read = Pairs.from_frame(convert(pairs), profiles=convert(people), **options)
    gone = {"a003", "a004", "b999"}
    assert len(read.pairs) == 2 * PEOPLE - 1 - 4  # each of two men had two pairs
    assert not gone & set(read.profiles)
    assert len(read.profiles) == 2 * PEOPLE - 3  # b004 had pairs with these two men alone
    first = read.pairs[0]
    assert (first.a, first.b, first.outcome) == ("a000", "b000", "rejected")
    assert first.time == datetime.datetime(2026, 10, 3, tzinfo=datetime.UTC)
    assert sum(pair.outcome == "match" for pair in read.pairs) == PEOPLE - 3
    person = read.profiles["a005"]
    assert person.images == (photos / "x.png",)
    height = 155 if form == "csv" else "155"
    assert dict(person.attributes) | {"joined": ""} == {
        "zip": "00005",
        "income": 1234.5,
        "joined": "",
        "smokes": False,
        "height": height,
    }
    assert read.profiles["a006"].text == read.profiles["a007"].text == ""
    assert "height" not in read.profiles["a009"].attributes
    reasons = [entry.reason.split(" in ")[0].split(": ")[-1] for entry in read.skipped]
    expected = [
        "'b999' is not",
        *["'a003' was left out."] * 2,
        *["'a004' was left out."] * 2,
        "'gone.png' does not exist",
        "not a photo",
    ]
    if form == "csv":
        expected.append(
            "'1,80 m' is not a number, as other cells of height are. Correct it, or read the "
            "column as text with text_columns=['height'] (--text-column height)."
        )
        assert "height" not in read.profiles["a008"].attributes
    assert sorted(reasons) == sorted(expected)
    log = "\n".join(caplog.messages)
    assert "left out 3 of 81 people and 5 of 81 pairs:" in log
    assert "text: 1 cell 'N/A', 1 cell '\\\\N'; height: 1 cell 'NULL'" in log
    assert "columns without a name are ignored" in log
    assert "1 pair was decided several times (2 rows)" in log
    assert form == "csv" or "nested values are ignored: device (80 values)" in log
    assert read.profiles["a000"].attributes["tags"] == "cats;dogs"

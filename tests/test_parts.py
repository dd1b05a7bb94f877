"""Tables in several files: folders of parts, patterns, lists, compressed files."""

import bz2
import gzip
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pairmatch import Pairs
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.data import read_profiles
from pairmatch.gallery import Exclusions

HEADER = "id_a,id_b,outcome,time\n"


@pytest.fixture
def profiles(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("id,text\n" + "".join(f"{side}{n},hi\n" for side in "ab" for n in range(9)))
    return path


@pytest.fixture
def log(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    for part in range(3):
        (folder / f"part-{part}.csv").write_text(
            f"{HEADER}a{part},b{part},match,2026-10-0{part + 1}\n"
        )
    return folder


def ids(pairs):
    return [(pair.a, pair.b) for pair in pairs.pairs]


def problems(read, *args, **options):
    with pytest.raises(DataError) as caught:
        read(*args, **options)
    return list(caught.value.problems) or [str(caught.value)]


EXPECTED = [("a0", "b0"), ("a1", "b1"), ("a2", "b2")]


def test_a_folder_a_pattern_and_a_list_are_one_table(log, profiles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = sorted(log.iterdir())
    for source in (
        log,
        "log",
        str(log / "*.csv"),
        "log/part-?.csv",
        files,
        (str(files[0]), *files[1:]),
    ):
        assert ids(Pairs.read(source, profiles=profiles)) == EXPECTED
    assert ids(Pairs.read(["log/part-[12].csv", files[0]], profiles=profiles)) == [
        *EXPECTED[1:],
        EXPECTED[0],
    ]
    assert [profile.id for profile in read_profiles([profiles])][:2] == ["a0", "a1"]
    assert Pairs.read(log, profiles=[profiles]) == Pairs.read(files, profiles=str(profiles))


def test_what_programs_leave_in_folders_is_skipped(log, profiles, caplog):
    for name in ("_SUCCESS", "_committed_17", ".part-0.csv.crc", "part-3.csv"):
        (log / name).touch()
    (log / "part-4.csv").write_text("id_a,id_b\n")  # without rows
    (log / "_temporary").mkdir()
    (log / "_temporary" / "part-9.csv").write_text(f"{HEADER}a9,b9,match,\n")
    assert ids(Pairs.read(log, profiles=profiles)) == EXPECTED
    assert ids(Pairs.read(log / "*.csv", profiles=profiles)) == EXPECTED
    assert caplog.messages == []
    (log / "README.txt").write_text("hi")
    Pairs.read(log, profiles=profiles)
    assert caplog.messages == [f"{log}: skipped 1 files that are not tables: README.txt."]
    (log / "README.txt").unlink()
    (log / "date=2026-11-01").symlink_to(log / "_temporary")
    caplog.clear()
    assert ids(Pairs.read(log, profiles=profiles)) == EXPECTED
    assert caplog.messages == [
        f"{log}: skipped 1 links to folders, which are not followed: date=2026-11-01."
    ]
    for file in log.glob("*.csv"):
        file.write_text("")
    assert problems(Pairs.read, log, profiles=profiles)[0] == "log: the files have no rows."


def test_problems_name_the_file_and_its_line(log, profiles, tmp_path):
    (log / "part-1.csv").write_text(HEADER + "a1,b1,match,\na2,b1,liked,\na3,b3,match,,,\n")
    with (log / "part-2.csv").open("a") as file:
        file.write("a4,b4,match,\na4,b4,match,\na5,b5\n")
    assert problems(Pairs.read, log, profiles=profiles) == [
        "log/part-2.csv line 5: has 2 cells, the header has 4. Put quotes around texts that "
        "contain commas.",
        "log/part-1.csv line 3, column outcome: 'liked' is neither 'match', 'rejected' nor 'open'.",
        "log/part-2.csv line 4, column id_a: the pair 'a4', 'b4' is given twice, first in "
        "part-2.csv line 3.",
    ]
    read = Pairs.read(log, profiles=profiles, on_bad_row="skip", most_skipped=0.5)
    assert [(entry.file, entry.location) for entry in read.skipped] == [
        ("log/part-2.csv", "line 5"),
        ("log/part-1.csv", "line 3"),
        ("log/part-2.csv", "line 4"),
    ]
    assert ids(read) == [("a0", "b0"), ("a1", "b1"), ("a3", "b3"), ("a2", "b2"), ("a4", "b4")]


def test_a_part_without_a_column_stops(log, profiles):
    (log / "part-1.csv").write_text("id_a,id_b,time\na1,b1,\n")
    expected = (
        "log: part-1.csv without the column 'outcome', which part-0.csv has: the files of a table "
        "have the same columns."
    )
    for mode in ("stop", "skip"):
        assert problems(Pairs.read, log, profiles=profiles, on_bad_row=mode) == [expected]
    shutil.copy(log / "part-1.csv", log / "part-2.csv")
    assert problems(Pairs.read, log, profiles=profiles)[0].startswith(
        "log: part-1.csv and 1 more without the column 'outcome', which part-0.csv has"
    )


def test_json_lines_leave_out_missing_values(tmp_path, profiles):
    (tmp_path / "1.jsonl").write_text('{"id_a": "a0", "id_b": "b0"}\n')
    (tmp_path / "2.jsonl").write_text('{"id_a": "a1", "id_b": "b1", "pool": "north"}\n')
    read = Pairs.read(tmp_path / "*.jsonl", profiles=profiles)
    assert [pair.pool for pair in read.pairs] == [None, "north"]


def test_types_that_differ_between_parts(tmp_path):
    parts = ([1, 2], ["3", "x"], [4.0], [None])
    for number, cells in enumerate(parts):
        table = pa.table({"id": [f"p{number}{n}" for n in range(len(cells))], "size": cells})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    one = pa.table({"id": ["p00", "p01", "p10", "p11", "p20"], "size": ["1", "2", "3", "x", "4.0"]})
    people = read_profiles(tmp_path, on_bad_row="skip", most_skipped=0.5)
    assert [person.attributes["size"] for person in people] == one["size"].to_pylist()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_folders_named_after_values_are_columns(kind, tmp_path):
    for date, region in (
        ("2026-11-01", "north%2Feast"),
        ("2026-11-02", "__HIVE_DEFAULT_PARTITION__"),
    ):
        folder = tmp_path / "log" / f"date={date}" / f"region={region}"
        folder.mkdir(parents=True)
        table = pa.table({"id_a": [f"a{date}"], "id_b": ["b"], "text_a": ["hi"], "text_b": ["ho"]})
        if kind == "csv":
            (folder / "0.csv").write_text(f"id_a,id_b,text_a,text_b\na{date},b,hi,ho\n")
        else:
            pq.write_table(table, folder / "0.snappy.parquet")
    columns = {"date": "time", "region": "pool"}
    days = sorted((tmp_path / "log").iterdir())
    files = sorted((tmp_path / "log").rglob("0.*"))
    for source in (tmp_path / "log", tmp_path / "log" / "*" / "*" / "0.*", days, files):
        pairs = Pairs.read(source, columns=columns).pairs
        assert [pair.pool for pair in pairs] == ["north/east", None]
        assert [pair.time.day for pair in pairs] == [1, 2]
    year = tmp_path / "people" / "age=31"
    year.mkdir(parents=True)
    pq.write_table(pa.table({"id": ["x"], "text": ["hi"]}), year / "0.parquet")
    assert read_profiles(tmp_path / "people")[0].attributes == {"age": 31}
    shutil.copytree(year, tmp_path / "people" / "size=2")
    assert (
        "without the column 'age', which age=31/0.parquet has"
        in problems(read_profiles, tmp_path / "people")[0]
    )


def test_compressed_files(log, profiles, tmp_path):
    shrink = {"gz": gzip.compress, "bz2": bz2.compress, "zst": lambda text: zstd(text)}
    for suffix, compress in shrink.items():
        folder = tmp_path / suffix
        folder.mkdir()
        for file in log.iterdir():
            first, second = file.read_bytes()[:20], file.read_bytes()[20:]
            # Unloads are concatenated streams, too
            (folder / f"{file.name}.{suffix}").write_bytes(compress(first) + compress(second))
        assert ids(Pairs.read(folder, profiles=profiles)) == EXPECTED
        assert ids(Pairs.read(folder / f"part-0.csv.{suffix}", profiles=profiles)) == EXPECTED[:1]
        damaged = folder / f"part-0.csv.{suffix}"
        damaged.write_bytes(damaged.read_bytes()[:-5])
        assert "Truncated compressed stream" in problems(Pairs.read, folder, profiles=profiles)[0]
    exclusions = tmp_path / "seen.jsonl.gz"
    exclusions.write_bytes(gzip.compress(b'{"id": "a", "other": "b"}'))
    assert list(Exclusions.read(exclusions).of("a")) == ["b"]


def zstd(content):
    return pa.compress(content, "zstd", asbytes=True)


def test_photos_are_sought_in_the_folder_of_the_table(tmp_path, log):
    folder = tmp_path / "people"
    (folder / "date=2026").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (folder / "date=2026" / "0.csv").write_text("id,image\na,a.png\n")
    assert read_profiles(folder, images=tmp_path)[0].images == (tmp_path / "a.png",)
    shutil.copy(tmp_path / "a.png", tmp_path / "people.png")
    assert "does not exist in" in problems(read_profiles, folder)[0]  # none of its own
    # A folder with photos is a folder of photos, whatever tables are beside them
    shutil.copy(tmp_path / "a.png", folder / "a.png")
    assert [person.id for person in read_profiles(folder)] == ["a"]
    assert [person.id for person in read_profiles(folder / "*" / "*.csv")] == ["a"]


def test_files_that_are_no_table(log, profiles, tmp_path):
    read = {"profiles": profiles}
    assert "no file matches" in problems(Pairs.read, log / "*.parquet", **read)[0]
    (tmp_path / "empty").mkdir()
    assert "the folder holds no tables" in problems(Pairs.read, tmp_path / "empty", **read)[0]
    same = [log, log / "part-1.csv"]
    assert "part-1.csv: the file is given twice" in problems(Pairs.read, same, **read)[0]
    (log / "part-9.jsonl").write_text("{}")
    message = problems(Pairs.read, log, **read)[0]
    assert "must have one format, got part-2.csv, part-9.jsonl" in message
    assert f"with a pattern, such as '{log}/*.csv'." in message
    archive = tmp_path / "log.tar.gz"
    archive.write_bytes(b"")
    assert problems(Pairs.read, archive, **read)[0].endswith(
        "Unpack the archive, and name the folder."
    )
    (log / "_delta_log").mkdir()
    assert "a Delta table, whose folder holds deleted rows" in problems(Pairs.read, log, **read)[0]
    with pytest.raises(ConfigurationError, match="`path` must name at least one file"):
        Pairs.read([], profiles=profiles)

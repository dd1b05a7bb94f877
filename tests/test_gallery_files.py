"""Files of galleries and slates: whose they are, damage, erasure, and read-only folders."""

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pairmatch import Gallery, Profile
from pairmatch.core.arrays import unit_rows
from pairmatch.core.errors import ConfigurationError, DataError, PairmatchError, StoreError
from pairmatch.gallery import Slates, forget, recommend_all
from pairmatch.gallery.folder import Folder


def vectors(count, width=8, seed=0):
    return unit_rows(np.random.default_rng(seed).normal(size=(count, width)))


def crowd(count):
    return [
        Profile(f"person-{n}", attributes={"age": 20 + n, "town": f"town {n}é", "b": bool(n % 2)})
        for n in range(count)
    ]


def use_gallery(folder):
    """Everything that reads or changes a gallery."""
    gallery = Gallery.open(folder)
    gallery.search(vectors(2), 5, where="age > 20 and town != 'x'")
    list(gallery), list(gallery.chunks()), gallery.ids, gallery.embeddings
    gallery.add(["new"], vectors(1))
    gallery.remove(["person-2"])
    gallery.save()
    gallery.forget(["person-3"])


def use_slates(folder):
    """Everything that reads or changes slates."""
    slates = Slates(folder)
    slates.table()
    slates.of("person-1")
    slates.exposure("a", ["person-1"])
    slates.forget(["person-5"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    gallery = Gallery.of(crowd(30), vectors(30))
    gallery.save(folder / "gallery")
    opened = Gallery.open(folder / "gallery")
    opened.add([Profile("late", attributes={"age": 99, "town": "z"})], vectors(1, seed=1))
    opened.remove(["person-4"])
    opened._folder.close()
    recommend_all(gallery, None, folder / "slates", 5)
    return folder


# Whose files they are


OTHERS = ["training.arrow", ".mine.part", "0" * 32 + ".arrow", ".a.arrow.part", "notes.txt"]


def outputs(gallery):
    return {
        "gallery": lambda folder: gallery.save(folder),
        "slates": lambda folder: recommend_all(gallery, None, folder, 2),
    }


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("kind", ["gallery", "slates"])
def test_a_folder_with_other_files_is_refused(kind, name, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / name).write_bytes(b"mine")
    write = outputs(Gallery.of(crowd(3), vectors(3)))[kind]
    with pytest.raises(ConfigurationError, match="holds files that pairmatch did not write"):
        write(tmp_path / "d")
    assert {file.name: file.read_bytes() for file in (tmp_path / "d").iterdir()} == {name: b"mine"}


@pytest.mark.parametrize("kind", ["gallery", "slates"])
def test_nothing_of_others_is_deleted_from_our_folder(kind, tmp_path):
    gallery = Gallery.of(crowd(3), vectors(3))
    folder = tmp_path / "d"
    outputs(gallery)[kind](folder)
    others = dict.fromkeys([*OTHERS, "a-team.parquet", ".a-00000.parquet.bak"], b"mine")
    for name, content in others.items():
        (folder / name).write_bytes(content)
    outputs(gallery)[kind](folder)
    if kind == "gallery":
        opened = Gallery.open(folder)
        opened.add(["x"], vectors(1))
        opened.save()
        opened.forget(["x"])
        assert len(list(folder.glob("*-*.arrow"))) == 1
    else:
        assert Slates(folder).forget(["person-1"]) > 0
    assert {name: (folder / name).read_bytes() for name in others} == others


def test_a_folder_of_another_kind_is_refused(tmp_path):
    gallery = Gallery.of(crowd(3), vectors(3))
    write = outputs(gallery)
    write["gallery"](tmp_path / "g")
    write["slates"](tmp_path / "s")
    for kind, folder in (("slates", "g"), ("gallery", "s")):
        before = sorted(file.name for file in (tmp_path / folder).iterdir())
        with pytest.raises(ConfigurationError):
            write[kind](tmp_path / folder)
        assert sorted(file.name for file in (tmp_path / folder).iterdir()) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="is a file, and a folder is needed"):
        write["gallery"](tmp_path / "file")


@pytest.mark.parametrize("name", ["notes.txt", "training.arrow", "a-00000.parquet"])
def test_an_unmarked_gallery_among_other_files_is_not_replaced(name, tmp_path, saved):
    folder = tmp_path / "g"
    shutil.copytree(saved / "gallery", folder)
    (folder / ".pairmatch").unlink()
    (folder / name).write_text("mine")
    with pytest.raises(ConfigurationError, match=name.replace(".", r"\.")):
        Gallery.of(["a"], vectors(1)).save(folder)
    assert len(Gallery.open(folder)) == 30  # it can still be used


def test_an_unmarked_damaged_journal_is_not_replaced(tmp_path):
    content = b"SQLite format 3\0" + random.Random(0).randbytes(9_000)
    (tmp_path / "gallery.sqlite").write_bytes(content)
    with pytest.raises(ConfigurationError, match="did not write"):
        Gallery.of(["a"], vectors(1)).save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["gallery.sqlite"]


@pytest.mark.parametrize("name", ["x" * 300, "y" * 5_000, "a\0b", "a\ud83d"])
def test_names_that_no_file_can_have_are_one_error(name):
    gallery = Gallery.of(crowd(3), vectors(3))
    assert not Gallery.exists(name)
    for call in (
        Gallery.open,
        gallery.save,
        Slates,
        lambda folder: recommend_all(gallery, None, folder),
        lambda folder: forget(["a"], store=folder, galleries=[folder], slates=[folder]),
    ):
        with pytest.raises(PairmatchError):
            call(name)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON journal BEGIN DELETE FROM journal; END",
        "CREATE TRIGGER t BEFORE DELETE ON journal BEGIN SELECT RAISE(IGNORE); END",
        "CREATE VIEW v AS SELECT * FROM journal",
    ],
)
def test_journals_that_run_statements_are_refused(statement, tmp_path, saved):
    shutil.copytree(saved / "gallery", tmp_path / "g")
    with sqlite3.connect(tmp_path / "g" / "gallery.sqlite") as base:
        base.execute(statement)
    base.close()
    with pytest.raises(StoreError, match="triggers or views"):
        Gallery.open(tmp_path / "g")


def test_a_database_of_another_application_is_refused(tmp_path):
    (tmp_path / "d").mkdir()
    with sqlite3.connect(tmp_path / "d" / "gallery.sqlite") as base:
        base.execute("CREATE TABLE mine (x)")
    content = (tmp_path / "d" / "gallery.sqlite").read_bytes()
    with pytest.raises(ConfigurationError, match="did not write"):
        Gallery.of(crowd(3), vectors(3)).save(tmp_path / "d")
    with pytest.raises(StoreError, match="another application"):
        Gallery.open(tmp_path / "d")
    assert (tmp_path / "d" / "gallery.sqlite").read_bytes() == content


def test_a_folder_of_an_earlier_version_is_ours(tmp_path, saved):
    """Earlier versions wrote no mark and no token, and files without checksums."""
    folder = tmp_path / "g"
    shutil.copytree(saved / "gallery", folder)
    (folder / ".pairmatch").unlink()
    file = next(folder.glob("*.arrow"))
    earlier = f"{'ab' * 16}.arrow"
    file.rename(folder / earlier)
    with sqlite3.connect(folder / "gallery.sqlite") as base:
        base.execute("UPDATE journal SET name = ?, attributes = NULL WHERE act = 'file'", [earlier])
        base.execute("DELETE FROM about WHERE key IN ('token', 'obsolete')")
        base.execute("PRAGMA application_id = 0")
    base.close()
    assert len(Gallery.open(folder)) == 30
    Gallery.of(crowd(2), vectors(2)).save(folder)
    assert not (folder / earlier).exists()
    assert Gallery.open(folder).ids == ["person-0", "person-1"]
    shutil.copytree(saved / "slates", tmp_path / "s")
    (tmp_path / "s" / ".pairmatch").unlink()
    assert len(Slates(tmp_path / "s").of("person-1")) == 5
    recommend_all(Gallery.of(crowd(30), vectors(30)), None, tmp_path / "s", 5)


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    """A killed save leaves a part file, or a whole one that the journal does not name yet."""
    Gallery.of(crowd(3), vectors(3)).save(tmp_path / "g")
    file = next((tmp_path / "g").glob("*.arrow"))
    token = file.name.split("-")[0]
    leftovers = [f"{token}-{'0' * 32}.arrow", f".{token}-{'1' * 32}.arrow.part"]
    for name in leftovers:
        shutil.copy(file, tmp_path / "g" / name)
    assert Gallery.open(tmp_path / "g").forget(["person-1"]) == 1
    names = {file.name for file in (tmp_path / "g").iterdir()}
    assert not names & {*leftovers, file.name}


# Damage


def damaged(content, seed):
    """The content after one of several kinds of damage."""
    source = random.Random(seed)
    content = bytearray(content)
    place = source.randrange(len(content))
    kind = seed % 4
    if kind == 0:
        for _ in range(4):
            content[source.randrange(len(content))] ^= source.randrange(1, 256)
    elif kind == 1:
        content = content[:place]
    elif kind == 2:
        content[place : place + source.randrange(1, 40)] = source.randbytes(source.randrange(40))
    else:
        content[place] ^= 1 << source.randrange(8)
    return bytes(content)


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("kind", ["gallery", "slates"])
def test_damaged_files_are_one_error(kind, seed, saved, tmp_path):
    pattern = {"gallery": "*.arrow", "slates": "*.parquet"}[kind]
    shutil.copytree(saved / kind, tmp_path / "d")
    file = next((tmp_path / "d").glob(pattern))
    content = file.read_bytes()
    changed = damaged(content, seed)
    file.write_bytes(changed)
    use = {"gallery": use_gallery, "slates": use_slates}[kind]
    if changed == content:
        use(tmp_path / "d")
        return
    with pytest.raises(PairmatchError, match=r"cannot be read|are damaged"):
        use(tmp_path / "d")
    assert file.read_bytes() == changed


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("name", ["gallery.sqlite", "slates.json"])
def test_damaged_journals_and_settings_never_end_in_a_traceback(name, seed, saved, tmp_path):
    kind = name.split(".")[0]
    shutil.copytree(saved / kind, tmp_path / "d")
    file = tmp_path / "d" / name
    file.write_bytes(damaged(file.read_bytes(), seed))
    try:
        {"gallery": use_gallery, "slates": use_slates}[kind](tmp_path / "d")
        if kind == "slates":
            recommend_all(Gallery.of(crowd(30), vectors(30)), None, tmp_path / "d", 5)
    except PairmatchError:
        pass


HOSTILE_ROWS = [
    ("drop", "x", None, None),
    ("add", b"x", "{}", vectors(1).tobytes()),
    ("add", "x", "{", vectors(1).tobytes()),
    ("add", "x", "[1]", vectors(1).tobytes()),
    ("add", "x", '{"age": {"deep": 1}}', vectors(1).tobytes()),
    ("add", "x", '{"age": "old"}', vectors(1).tobytes()),
    ("add", "x", '{"town": "\\ud800"}', vectors(1).tobytes()),
    ("add", "x", "[" * 100_000, vectors(1).tobytes()),
    ("add", "x", 5, vectors(1).tobytes()),
    ("add", "x", "{}", None),
    ("add", "x", "{}", b"abc"),
    ("add", "x", "{}", "text"),
    ("add", "x", "{}", vectors(1, width=7).tobytes()),
    ("add", "x", "{}", np.full(8, np.nan, np.float32).tobytes()),
    ("file", "../../etc/passwd", None, None),
    ("file", "training.arrow", None, None),
    ("file", "a" * 32 + ".arrow", None, None),
    ("file", "a" * 32 + ".arrow", '{"bytes": -1}', None),
    ("file", "a" * 32 + ".arrow", "null", None),
]


@pytest.mark.parametrize("row", HOSTILE_ROWS, ids=str)
def test_a_hostile_journal_is_one_error(row, tmp_path, saved):
    shutil.copytree(saved / "gallery", tmp_path / "g")
    with sqlite3.connect(tmp_path / "g" / "gallery.sqlite") as base:
        query = "INSERT INTO journal (act, name, attributes, vector) VALUES (?, ?, ?, ?)"
        base.execute(query, row)
    base.close()
    with pytest.raises(StoreError, match=r"damaged|cannot be read"):
        Gallery.open(tmp_path / "g")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("side", '"c"'),
        ("width", "-1"),
        ("width", "9"),
        ("width", "1e999"),
        ("made_by", "[]"),
        ("generation", "9" * 400),
        ("generation", "true"),
        ("side", "{"),
        ("side", "[" * 100_000),
    ],
)
def test_a_hostile_description_is_one_error(key, value, tmp_path, saved):
    shutil.copytree(saved / "gallery", tmp_path / "g")
    with sqlite3.connect(tmp_path / "g" / "gallery.sqlite") as base:
        base.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, value))
    base.close()
    with pytest.raises(StoreError, match=r"damaged|wide, not 9"):
        Gallery.open(tmp_path / "g")


def test_all_damaged_changes_are_listed(tmp_path, saved):
    shutil.copytree(saved / "gallery", tmp_path / "g")
    with sqlite3.connect(tmp_path / "g" / "gallery.sqlite") as base:
        query = "INSERT INTO journal (act, name, attributes, vector) VALUES (?, ?, ?, ?)"
        base.executemany(query, [("drop", "x", None, None), ("add", "x", "[", None)] * 4)
    base.close()
    with pytest.raises(StoreError, match=r"its act is unknown; change .*; and 3 more\. Restore"):
        Gallery.open(tmp_path / "g")


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"id": ["a"]}),
        pa.table({"id": [1], "embedding": pa.array([[1.0] * 8], pa.list_(pa.float32(), 8))}),
        pa.table({"id": ["a"], "embedding": pa.array([[1.0] * 8], pa.list_(pa.float64(), 8))}),
        pa.table({"id": ["a"], "embedding": pa.array([[1.0] * 7], pa.list_(pa.float32(), 7))}),
        pa.table({"id": [None], "embedding": pa.array([[1.0] * 8], pa.list_(pa.float32(), 8))}),
        pa.table({"id": ["a"], "embedding": pa.array([None], pa.list_(pa.float32(), 8))}),
        pa.table(
            {
                "id": ["a"],
                "embedding": pa.array([[1.0] * 8], pa.list_(pa.float32(), 8)),
                "attribute.age": [["x"]],
            }
        ),
    ],
    ids=range(7),
)
def test_arrow_files_with_other_columns_are_one_error(table, tmp_path, saved):
    """Files of earlier versions have no checksum: their columns are checked nevertheless."""
    shutil.copytree(saved / "gallery", tmp_path / "g")
    file = next((tmp_path / "g").glob("*.arrow"))
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with sqlite3.connect(tmp_path / "g" / "gallery.sqlite") as base:
        base.execute("UPDATE journal SET attributes = NULL WHERE act = 'file'")
    base.close()
    with pytest.raises(StoreError, match="cannot be read"):
        Gallery.open(tmp_path / "g")


def test_slates_with_other_columns_are_one_error(tmp_path, saved):
    shutil.copytree(saved / "slates", tmp_path / "s")
    pq.write_table(pa.table({"id": ["a"], "secret": [1]}), tmp_path / "s" / "a-00000.parquet")
    with pytest.raises(DataError, match="its columns are id, secret"):
        Slates(tmp_path / "s").table()
    (tmp_path / "s" / "slates.json").write_text(json.dumps({"k": 5}))
    with pytest.raises(DataError, match="does not hold the settings of slates"):
        recommend_all(Gallery.of(crowd(3), vectors(3)), None, tmp_path / "s", 5)
    (tmp_path / "s" / ".pairmatch").unlink()
    with pytest.raises(DataError, match="holds no slates"):
        Slates(tmp_path / "s")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of POSIX")
def test_named_pipes_are_not_waited_for(tmp_path, saved):
    for kind, pattern in (("gallery", "*.arrow"), ("slates", "a-*.parquet")):
        shutil.copytree(saved / kind, tmp_path / kind)
        file = next((tmp_path / kind).glob(pattern))
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(PairmatchError, match="not a regular file"):
            {"gallery": use_gallery, "slates": use_slates}[kind](tmp_path / kind)


def test_other_programs_read_slates(saved):
    """The checksum lies where readers of Parquet do not look."""
    file = next((saved / "slates").glob("a-*.parquet"))
    assert b"pairmatch sha256" in file.read_bytes()
    assert pq.read_table(file).column_names == ["id", "rank", "candidate", "score"]
    assert pq.read_table(file).num_rows == 150


# Erasure


def traces(folder, *needles):
    return {
        file.name
        for file in folder.rglob("*")
        if file.is_file() and any(needle in file.read_bytes() for needle in needles)
    }


def test_nothing_of_many_forgotten_people_stays(tmp_path):
    """Journals whose pages were split and merged many times keep copies of rows in their slack."""
    rng = np.random.default_rng(0)
    e = vectors(900)
    people = [Profile(f"person-{n}-", attributes={"secret": f"word{n}-" * 9}) for n in range(900)]
    Gallery().save(tmp_path / "g")
    gallery = Gallery.open(tmp_path / "g")
    for start in range(0, 900, 150):
        gallery.add(people[start : start + 150], e[start : start + 150])
        gallery.remove([people[n].id for n in rng.integers(0, start + 150, 30)])
        if start == 450:
            gallery.save()
    recommend_all(gallery, None, tmp_path / "s", 9)
    forgotten = sorted(rng.choice(900, 300, replace=False).tolist())
    needles = [people[n].id.encode() for n in forgotten]
    needles += [f"word{n}-".encode() for n in forgotten] + [e[n].tobytes() for n in forgotten]
    ids = [people[n].id for n in forgotten]
    forget(ids, galleries=[tmp_path / "g"], slates=[tmp_path / "s"])
    assert traces(tmp_path, *needles) == set()
    assert Gallery.open(tmp_path / "g").ids == gallery.ids
    assert not set(gallery.ids) & set(ids)


def test_an_open_reader_keeps_forget_from_success(tmp_path, monkeypatch):
    import pairmatch.io.sqlite as sqlite

    monkeypatch.setattr(sqlite, "ERASURE_SECONDS", 0.1)
    Gallery.of(crowd(3), vectors(3)).save(tmp_path / "g")
    Gallery.open(tmp_path / "g").add(["victim-1"], vectors(1))
    reader = sqlite3.connect(tmp_path / "g" / "gallery.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM journal").fetchone()
    with pytest.raises(StoreError, match="still has deleted data"):
        forget(["victim-1"], galleries=[tmp_path / "g"])
    reader.close()
    forget(["victim-1"], galleries=[tmp_path / "g"])
    assert traces(tmp_path, b"victim-1") == set()


def test_every_place_is_tried(tmp_path):
    people = crowd(6)
    for name in "AC":
        Gallery.of(people, vectors(6)).save(tmp_path / f"g{name}")
        recommend_all(Gallery.of(people, vectors(6)), None, tmp_path / f"s{name}", 3)
    shutil.copytree(tmp_path / "sA", tmp_path / "damaged")
    file = next((tmp_path / "damaged").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-9])
    (tmp_path / "nothing").mkdir()
    with pytest.raises(StoreError) as error:
        forget(
            ["person-1"],
            galleries=[tmp_path / "gA", tmp_path / "nothing", tmp_path / "gC"],
            slates=[tmp_path / "sA", tmp_path / "damaged", tmp_path / "sC"],
        )
    message = str(error.value)
    assert message.startswith("2 of 6 places are not erased completely")
    assert "nothing holds no gallery" in message
    assert f"{file} cannot be read" in message
    for name in "AC":
        assert "person-1" not in Gallery.open(tmp_path / f"g{name}").ids
        assert Slates(tmp_path / f"s{name}").of("person-1") == []
        assert traces(tmp_path / f"s{name}", b"person-1") == set()


def test_forgetting_in_slates_continues_after_a_damaged_file(tmp_path, monkeypatch):
    import pairmatch.gallery.bulk as bulk

    monkeypatch.setattr(bulk, "_PEOPLE", 3)
    recommend_all(Gallery.of(crowd(9), vectors(9)), None, tmp_path / "s", 8)
    first, second, third = Slates(tmp_path / "s").files()
    second.write_bytes(b"no")
    with pytest.raises(StoreError, match=r"in 1 files .*a-00001.parquet cannot be read"):
        Slates(tmp_path / "s").forget(["person-1"])
    assert traces(tmp_path, b"person-1") == set()
    assert [len(pq.read_table(file)) for file in (first, third)] == [14, 21]


# Folders that are read-only

_READ = """
import sys, numpy as np
from pairmatch import Gallery
from pairmatch.core.errors import PairmatchError
for folder in sys.argv[1:]:
    gallery = Gallery.open(folder)
    print(gallery.search(np.ones((1, 8)), 3, where="age > 20").eligible.tolist(), len(gallery))
    for change in (lambda: gallery.add(["x"], np.ones((1, 8))), lambda: gallery.remove(["late"]),
                   gallery.save, lambda: gallery.forget(["late"])):
        try:
            change()
            print("changed")
        except PairmatchError as error:
            assert "read-only" in str(error), error
"""


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="file modes of POSIX")
def test_a_gallery_on_a_read_only_disk_can_be_searched(saved, tmp_path):
    """Root, whom file modes do not stop, gives up that privilege first."""
    shutil.copytree(saved / "gallery", tmp_path / "closed")
    # A copy made while a process has the gallery open has changes in its write-ahead log
    Gallery.of(crowd(30), vectors(30)).save(tmp_path / "live")
    live = Gallery.open(tmp_path / "live")
    live.add([Profile("late", attributes={"age": 99})], vectors(1))
    live.remove(["person-4"])
    shutil.copytree(tmp_path / "live", tmp_path / "open")
    assert (tmp_path / "open" / "gallery.sqlite-wal").stat().st_size
    folders = [tmp_path / "closed", tmp_path / "open"]
    command = [sys.executable, "-c", _READ, *map(str, folders)]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root cannot be kept from writing without setpriv")
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    before = {}
    for folder in folders:
        before |= {file: file.read_bytes() for file in folder.iterdir()}
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    for folder in folders:
        folder.chmod(0o755)
    assert run.stderr == ""
    assert run.stdout == "[29] 30\n[29] 30\n"
    assert {file: file.read_bytes() for folder in folders for file in folder.iterdir()} == before


def test_a_folder_object_is_closed(tmp_path):
    folder = Folder(tmp_path / "g", create=True)
    assert folder.changes_since(0, 0)[1] == []
    folder.close()

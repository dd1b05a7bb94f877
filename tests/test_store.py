"""The store and its SQLite file: permissions, concurrency, erasure, formats and errors."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pairmatch import Gallery, Profile
from pairmatch.core.errors import StoreError, UploadError
from pairmatch.io import sqlite, traces
from pairmatch.io.sqlite import Database
from pairmatch.io.sqlite_files import APPLICATION_IDS
from pairmatch.io.store import QUERY_ID, Store, content_key


def test_files_are_readable_only_by_their_owner(tmp_path):
    with Store(tmp_path / "folder" / "store.sqlite") as store:
        store.put_features({"k": np.ones(3, np.float32)})
        for file in store.path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert len(list(store.path.parent.iterdir())) == 3  # the file, its -wal and its -shm
    with Store(tmp_path / "plain") as store:
        assert store.path == tmp_path / "plain" / "store.sqlite"


def test_written_values_are_read_back(tmp_path):
    vectors = {
        f"k{i}": np.random.default_rng(i).normal(size=4).astype(np.float16 if i % 2 else np.float32)
        for i in range(1203)
    }
    with Store(tmp_path / "s.sqlite") as store:
        store.put_features(vectors)
        store.put_features({"k0": np.zeros(4, np.float32)})  # the first vector of a key is kept
        store.put_metadata({"m": {"caption": "zwei Äpfel", "n": 1}})
        store.put_metadata({"m": {"caption": "neu"}})
    with Store(tmp_path / "s.sqlite") as store:
        read = store.features([*vectors, "absent"])
        assert read.keys() == vectors.keys()
        assert all(
            np.array_equal(read[k], v) and read[k].dtype == v.dtype for k, v in vectors.items()
        )
        assert store.has_features(["k1", "absent"]) == {"k1"}
        assert store.metadata(["m", "absent"]) == {"m": {"caption": "neu"}}


def test_forgetting_erases_vectors_metadata_and_ids(tmp_path):
    secret = np.frombuffer(b"ANNAS-VECTOR-BYTES-1", np.uint8).astype(np.float32)
    with Store(tmp_path / "s.sqlite") as store:
        store.link([("anna", "k1"), ("anna", "m1"), ("twin", "k1"), ("ben", "k2")])
        store.put_features({"k1": secret, "k2": np.ones(3, np.float32)})
        store.put_metadata({"m1": {"caption": "ANNAS-CAPTION"}})
        erased = store.forget(["anna", "unknown"])
        assert (erased.people, erased.features, erased.metadata) == (1, 1, 1)
        assert store.counts() == {"features": 1, "metadata": 0, "people": 1}
        content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        for trace in (secret.tobytes(), b"ANNAS-CAPTION", b"anna"):
            assert trace not in content
        assert store.forget(["anna"]).people == 0


def test_keys_are_canonical():
    assert content_key({"a": 1, "b": [2.5, "ü"]}) == content_key({"b": [2.5, "ü"], "a": 1})
    assert content_key({"a": 1}) != content_key({"a": "1"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_key({"a": float("nan")})


def test_invalid_stores_are_errors(tmp_path):
    (tmp_path / "text.sqlite").write_text("this is a long text and not a database" * 50)
    with pytest.raises(StoreError, match=r"text.sqlite cannot be opened: file is not a database"):
        Store(tmp_path / "text.sqlite")
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path / "text.sqlite" / "below.sqlite")
    newer = sqlite3.connect(tmp_path / "newer.sqlite")
    newer.execute("PRAGMA user_version = 99")
    newer.execute(f"PRAGMA application_id = {APPLICATION_IDS['store']}")
    newer.close()
    message = (
        r"^The store [^ ]*newer.sqlite has format 99; this pairmatch reads up to 2: "
        r"[^(]*\(--store\)\.$"
    )
    with pytest.raises(StoreError, match=message):
        Store(tmp_path / "newer.sqlite")


WRITER = """
import sys
import numpy as np
from pairmatch.io.store import Store
store = Store(sys.argv[1])
for i in range(150):
    name = f"{sys.argv[2]}-{i}"
    store.put_features({f"shared{i}": np.full(64, i, np.float32), name: np.ones(64, np.float32)})
    store.link([(f"person{i}", f"shared{i}")])
"""


def test_processes_write_concurrently(tmp_path):
    path = tmp_path / "s.sqlite"
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name])
        for name in ("first", "second")
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    with Store(path) as store:
        assert store.counts() == {"features": 450, "metadata": 0, "people": 150}
        assert all(
            np.all(v == int(k[6:]))
            for k, v in store.features([f"shared{i}" for i in range(150)]).items()
        )
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def create_store(path):
    with Store(path / "store.sqlite") as store:
        store.put_features({"key": np.ones(2, np.float32)})
        return store.counts()["features"]


def create_gallery(path):
    people = [Profile("anna"), Profile("ben")]
    Gallery.of(people, np.eye(2, dtype=np.float32)).save(path)
    return len(Gallery.open(path))


@pytest.mark.parametrize(
    ("create", "size", "rounds"), [(create_store, 1, 50), (create_gallery, 2, 8)]
)
def test_threads_create_a_file_concurrently(tmp_path, create, size, rounds):
    threads = 6
    barrier = threading.Barrier(threads)

    def work(_):
        sizes = []
        try:
            for number in range(rounds):
                barrier.wait(60)
                sizes.append(create(tmp_path / str(number)))
        except BaseException:
            barrier.abort()  # so that the other threads fail immediately
            raise
        return sizes

    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work, index) for index in range(threads)]
        assert [future.result(timeout=120) for future in futures] == [[size] * rounds] * threads


CREATOR = """
import sys, time
from pathlib import Path
import test_store
create, folder, name = getattr(test_store, sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
(folder / f"ready-{name}").touch()
deadline = time.monotonic() + 60
while not (folder / "go").exists():
    assert time.monotonic() < deadline
for number in range(int(sys.argv[4])):
    create(folder / str(number))
"""


@pytest.mark.parametrize(("create", "rounds"), [("create_store", 20), ("create_gallery", 5)])
def test_processes_create_a_file_concurrently(tmp_path, create, rounds):
    names = ["first", "second", "third"]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", CREATOR, create, str(tmp_path), name, str(rounds)],
            cwd=Path(__file__).parent,
            stderr=subprocess.PIPE,
        )
        for name in names
    ]
    try:
        deadline = time.monotonic() + 60
        while not all((tmp_path / f"ready-{name}").exists() for name in names):
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in running)
            time.sleep(0.01)
        (tmp_path / "go").touch()
        errors = [process.communicate(timeout=120)[1] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait(10)
    assert [process.returncode for process in running] == [0, 0, 0], errors


def read_in_background(path):
    """Opens a second connection whose transaction prevents truncation of the write-ahead log."""
    reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM metadata").fetchone() == (1,)
    return reader


def test_forgetting_fails_while_a_reader_blocks_truncation_of_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "ERASURE_SECONDS", 0.3)

    def content():
        return b"".join(file.read_bytes() for file in tmp_path.iterdir())

    with Store(tmp_path / "s.sqlite") as store:
        store.link([("anna", "m1")])
        store.put_metadata({"m1": {"caption": "ANNAS-CAPTION"}})
        reader = read_in_background(store.path)
        with pytest.raises(StoreError, match="still has deleted data in its file or its write"):
            store.forget(["anna"])
        assert store.counts() == {"features": 0, "metadata": 0, "people": 0}
        assert b"ANNAS-CAPTION" in content()
        reader.close()
        assert store.forget(["anna"]).people == 0
        assert b"ANNAS-CAPTION" not in content()


def test_forgetting_waits_for_a_reader(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.link([("anna", "m1")])
        store.put_metadata({"m1": {"caption": "ANNAS-CAPTION"}})
        reader = read_in_background(store.path)
        timer = threading.Timer(0.3, reader.close)
        timer.start()
        assert store.forget(["anna"]).metadata == 1
        timer.join(60)
        assert all(b"ANNAS-CAPTION" not in file.read_bytes() for file in tmp_path.iterdir())


def test_older_stores_are_upgraded(tmp_path):
    old = sqlite3.connect(tmp_path / "old.sqlite")
    old.execute(
        "CREATE TABLE features (key TEXT PRIMARY KEY, dtype TEXT NOT NULL, vector BLOB NOT NULL, "
        "created REAL NOT NULL) WITHOUT ROWID"
    )
    old.execute("INSERT INTO features VALUES ('k', '<f4', ?, 0)", (b"\0\0\x80?",))
    old.execute("PRAGMA user_version = 1")
    old.commit()
    old.close()
    with Store(tmp_path / "old.sqlite") as store:
        assert store.features(["k"])["k"].tolist() == [1.0]
        store.put_corrections({"anna": {"age": 30}})
        assert store.corrections(["anna", "ben"]) == {"anna": {"age": 30}}
    assert sqlite3.connect(tmp_path / "old.sqlite").execute("PRAGMA user_version").fetchone() == (
        2,
    )


@pytest.fixture
def database(tmp_path):
    opened = Database(
        tmp_path / "d.sqlite",
        kind="store",
        name="The file d",
        version=1,
        schema=["CREATE TABLE numbers (number INTEGER PRIMARY KEY)"],
        remedy="name another file",
        synchronous="FULL",
    )
    yield opened
    opened.close()


def test_durability_follows_the_option(database, tmp_path):
    assert database.select("PRAGMA synchronous") == [(2,)]
    assert database.select("PRAGMA secure_delete") == [(1,)]
    assert database.select("PRAGMA journal_mode") == [("wal",)]
    with Store(tmp_path / "s.sqlite") as store:
        assert store._database.select("PRAGMA synchronous") == [(1,)]


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (ValueError("no"), ValueError, "no"),
        (OSError("disk full"), StoreError, "The file d cannot be written: disk full"),
        (UploadError("not allowed"), UploadError, "not allowed"),
    ],
)
def test_failed_transactions_are_rolled_back(database, raised, expected, message):
    def insert_and_fail():
        with database.transaction() as connection:
            connection.execute("INSERT INTO numbers VALUES (1)")
            raise raised

    def insert_twice():
        with database.transaction() as connection:
            connection.executemany("INSERT INTO numbers VALUES (?)", [(1,), (1,)])

    with pytest.raises(expected, match=message):
        insert_and_fail()
    with pytest.raises(StoreError, match="cannot be written: UNIQUE constraint failed"):
        insert_twice()
    assert database.select("SELECT * FROM numbers") == []
    with pytest.raises(StoreError, match="cannot be read: no such table: words"):
        database.select("SELECT * FROM words")


def test_snapshots_do_not_see_later_writes(database):
    writer = sqlite3.connect(database.path, isolation_level=None)
    with database.snapshot():
        assert database.select("SELECT * FROM numbers") == []
        writer.execute("INSERT INTO numbers VALUES (1)")
        assert database.select("SELECT * FROM numbers") == []
    assert database.select("SELECT * FROM numbers") == [(1,)]
    writer.close()


def test_files_are_created_only_on_request(tmp_path):
    options = {
        "kind": "store",
        "name": "The file d",
        "version": 1,
        "schema": (),
        "remedy": "name another file",
    }
    with pytest.raises(StoreError, match=r"does not exist\. Name another file\.$"):
        Database(tmp_path / "none.sqlite", create=False, **options)
    assert not (tmp_path / "none.sqlite").exists()


def test_a_lock_excludes_other_processes_and_is_private(tmp_path):
    with Store(tmp_path / "s.sqlite") as store, Store(tmp_path / "s.sqlite") as second:
        with store.exclusive("batches"):
            message = r"Another process is working on the batches of .*s\.sqlite: wait until"
            with pytest.raises(StoreError, match=message), second.exclusive("batches"):
                pass
            with second.exclusive("exports"):
                pass
        with second.exclusive("batches"):
            pass
    assert stat.S_IMODE((tmp_path / "s.sqlite-batches").stat().st_mode) == 0o600


def content_and_modes(folder):
    return {
        file.name: (file.read_bytes(), stat.S_IMODE(file.stat().st_mode))
        for file in folder.iterdir()
        if file.is_file()
    }


def write_text_file(path):
    path.write_text("id_a,id_b\nanna,ben\n" * 100)


def write_short_file(path):
    path.write_bytes(b"x")


def write_other_database(path, statement="CREATE TABLE users (name TEXT)"):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def write_other_database_with_a_log(path):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE users (name TEXT)")
    connection.close()


def write_other_database_with_our_table(path):
    write_other_database(path, "CREATE TABLE features (key TEXT, enabled INTEGER)")


def write_other_database_with_our_version(path):
    write_other_database(path)
    write_other_database(path, "PRAGMA user_version = 2")


def write_other_marked_database(path):
    write_other_database(path)
    write_other_database(path, "PRAGMA application_id = 252006673")  # a Fossil repository


def write_gallery(path):
    Gallery.of([Profile("anna"), Profile("ben")], np.eye(2, dtype=np.float32)).save(path.parent)
    (path.parent / "gallery.sqlite").rename(path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_text_file, "file is not a database"),
        (write_short_file, "file is not a database"),
        (write_other_database, r"it is a database of another application \(users\)"),
        (write_other_database_with_a_log, "database of another application"),
        (write_other_database_with_our_table, r"of another application \(features\)"),
        (write_other_database_with_our_version, "database of another application"),
        (write_other_marked_database, "database of another application"),
        (write_gallery, "it is a gallery of pairmatch, not a store"),
        (os.mkfifo, "it is not a regular file"),
    ],
)
def test_files_that_are_not_stores_are_refused_unchanged(write, message, tmp_path):
    write(tmp_path / "given.db")
    (tmp_path / "given.db").chmod(0o644)
    if write is os.mkfifo:
        with pytest.raises(StoreError, match=message):
            Store(tmp_path / "given.db")
        return
    before = content_and_modes(tmp_path)
    with pytest.raises(StoreError, match=message):
        Store(tmp_path / "given.db")
    assert content_and_modes(tmp_path) == before


def test_a_database_in_use_is_refused_unchanged(tmp_path):
    connection = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE users (name TEXT)")  # still in the write-ahead log
    before = content_and_modes(tmp_path)
    with pytest.raises(StoreError, match="database of another application"):
        Store(tmp_path / "app.db")
    assert content_and_modes(tmp_path).keys() == before.keys()
    for name in ("app.db", "app.db-wal"):  # -shm holds the locks of all readers
        assert content_and_modes(tmp_path)[name] == before[name]
    connection.execute("INSERT INTO users VALUES ('anna')")
    connection.close()


def test_a_store_is_not_a_gallery(tmp_path):
    with Store(tmp_path / "gallery.sqlite") as store:
        store.put_features({"key": np.ones(2, np.float32)})
    before = content_and_modes(tmp_path)
    with pytest.raises(StoreError, match="it is a store of pairmatch, not a gallery"):
        Gallery.open(tmp_path)
    assert content_and_modes(tmp_path) == before


def test_empty_files_and_empty_databases_become_stores(tmp_path):
    (tmp_path / "empty").touch(0o644)
    write_other_database(tmp_path / "tables", "VACUUM")
    for name in ("empty", "tables"):
        with Store(tmp_path / name) as store:
            store.put_metadata({"key": {"n": 1}})
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        header = (tmp_path / name).read_bytes()[:100]
        assert int.from_bytes(header[68:72], "big") == APPLICATION_IDS["store"]


def test_a_mark_in_the_log_counts(tmp_path):
    """A process that was killed while it marked an earlier file leaves the mark in the log."""
    connection = sqlite3.connect(tmp_path / "s.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE later (value TEXT)")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute(f"PRAGMA application_id = {APPLICATION_IDS['store']}")
    connection.execute("PRAGMA user_version = 2")
    assert int.from_bytes((tmp_path / "s.sqlite").read_bytes()[68:72], "big") == 0
    Store(tmp_path / "s.sqlite").close()
    connection.close()


def test_missing_stores_are_created_only_on_request(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        Store(tmp_path / "typo.sqlite", create=False)
    assert not any(tmp_path.iterdir())


def test_locks_leave_other_files_unchanged(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        lock = tmp_path / "s.sqlite-batches"
        lock.write_text("notes")
        lock.chmod(0o644)
        with pytest.raises(StoreError, match="is in the way of a lock"), store.exclusive("batches"):
            pass
        assert lock.read_text() == "notes"
        assert stat.S_IMODE(lock.stat().st_mode) == 0o644


def test_forgetting_leaves_no_trace_of_any_person(tmp_path):
    """People of several sizes in several orders, so that pages are split and merged many times."""
    random = np.random.default_rng(0)
    people = [f"person-{i:04d}-{i * 7919 % 10007:05d}." for i in range(900)]
    keys = {person: [content_key({"of": person, "n": n}) for n in range(2)] for person in people}
    with Store(tmp_path / "s.sqlite") as store:
        for start in range(0, 900, 30):
            group = people[start : start + 30]
            store.link([(person, key) for person in group for key in keys[person]])
            store.put_features(
                {keys[p][0]: random.normal(size=random.integers(4, 300)) for p in group}
            )
            store.put_metadata({keys[p][1]: {"caption": f"caption of {p}" * 3} for p in group})
            store.put_corrections({p: {"age": 30} for p in group[::3]})
        forgotten = [str(person) for person in random.permutation(people)[:600]]
        assert store.forget(forgotten).people == 600
        content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        left = [
            text
            for person in forgotten
            for text in (person, *keys[person])
            if text.encode() in content
        ]
        assert left == []
        kept = set(people) - set(forgotten)
        assert all(person.encode() in content for person in kept)
        assert store.counts() == {"features": 300, "metadata": 300, "people": 300}


def test_remaining_traces_are_an_error(tmp_path, monkeypatch):
    key = content_key({"of": "anna"})
    with Store(tmp_path / "s.sqlite") as store:
        store.link([("anna", key)])
        monkeypatch.setattr(Database, "purge", lambda _: None)  # the key stays in the log
        with pytest.raises(StoreError, match="still has traces of 1 erased keys"):
            store.forget(["anna"])


def test_traces_are_those_of_a_plain_search(tmp_path, monkeypatch):
    monkeypatch.setattr(traces, "_CHUNK_BYTES", 100)  # so that texts cross the borders
    random = np.random.default_rng(0)
    content = random.integers(97, 101, 5000, np.uint8).tobytes()  # a, b, c and d
    (tmp_path / "file").write_bytes(content)
    texts = ["".join(random.choice(list("abcd"), size)) for size in (4, 5, 6, 7) for _ in range(90)]
    texts += [content[at : at + 64].decode() for at in (0, 37, 68, 4936)]
    files = [tmp_path / "file", tmp_path / "missing"]
    expected = {text for text in texts if text.encode() in content}
    assert traces.find_traces(files, texts) == expected
    assert len(expected) < len(set(texts))


def test_queries_without_an_id_can_be_forgotten(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.link([(QUERY_ID, "k1"), ("anna", "k2")])
        store.put_metadata({"k1": {"caption": "QUERY-CAPTION"}, "k2": {"caption": "neu"}})
        assert store.forget_queries().metadata == 1
        assert store.counts() == {"features": 0, "metadata": 1, "people": 1}
        content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert b"QUERY-CAPTION" not in content
        assert b"0query" not in content


@pytest.mark.parametrize(
    "change",
    [
        "vector = x'000000'",
        "vector = 'text'",
        "vector = x''",
        "dtype = '<U7'",
        "dtype = 'no such type'",
        "vector = x'0000c07f0000c07f'",  # NaN
    ],
)
def test_damaged_features_count_as_absent(change, tmp_path, caplog):
    with Store(tmp_path / "s.sqlite") as store:
        store.put_features({"k1": np.ones(2, np.float32), "k2": np.ones(2, np.float32)})
    connection = sqlite3.connect(tmp_path / "s.sqlite", isolation_level=None)
    connection.execute(f"UPDATE features SET {change} WHERE key = 'k1'")
    connection.close()
    with Store(tmp_path / "s.sqlite") as store:
        assert store.features(["k1", "k2"]).keys() == {"k2"}
        assert "has 1 damaged features: they count as absent" in caplog.text
        if "c07f" in change:
            store.drop_features(["k1"])  # values are not looked at before they are read
        assert store.has_features(["k1", "k2"]) == {"k2"}
        store.put_features({"k1": np.full(2, 3, np.float32), "k2": np.zeros(2, np.float32)})
        assert store.features(["k1"])["k1"].tolist() == [3, 3]
        assert store.features(["k2"])["k2"].tolist() == [1, 1]


@pytest.mark.parametrize("text", ["[1]", "{", "null", "3", '{"a": ' * 500 + "1" + "}" * 500, b"\1"])
def test_damaged_metadata_counts_as_absent(text, tmp_path, caplog):
    with Store(tmp_path / "s.sqlite") as store:
        store.put_metadata({"k1": {"caption": "a"}, "k2": {"caption": "b"}})
        store.put_corrections({"anna": {"age": 30}, "ben": {"age": 31}})
        with store._database.transaction() as connection:
            connection.execute("UPDATE metadata SET outcome = ? WHERE key = 'k1'", (text,))
        assert store.metadata(["k1", "k2"]) == {"k2": {"caption": "b"}}
        assert "has 1 damaged metadata outcomes" in caplog.text
        with store._database.transaction() as connection:
            connection.execute("UPDATE corrections SET value = '{' WHERE person = 'anna'")
        assert store.corrections(["anna", "ben"]) == {"ben": {"age": 31}}


@pytest.mark.parametrize("key", [b"\xff\x00", bytes(32), 5, 1.5])
def test_people_with_damaged_keys_can_be_forgotten(key, tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.link([("anna", "k1"), ("ben", "k2")])
    connection = sqlite3.connect(tmp_path / "s.sqlite")
    with connection:
        connection.execute("UPDATE people SET key = ? WHERE person = 'anna'", (key,))
    connection.close()
    with Store(tmp_path / "s.sqlite") as store:
        assert store.forget(["anna"]).people == 1
        assert store.counts()["people"] == 1


def test_damaged_files_are_errors(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        vectors = {f"{i:064x}": np.ones(64, np.float32) for i in range(100)}
        store.put_features(vectors)
        store.link([(f"person-{i}", key) for i, key in enumerate(vectors)])
    content = (tmp_path / "s.sqlite").read_bytes()
    random = np.random.default_rng(0)
    messages = []
    for number in range(60):
        damaged = bytearray(content)
        if number % 3 == 0:
            damaged = damaged[: random.integers(1, len(content))]
        elif number % 3 == 1:
            at = random.integers(0, len(content) - 200)
            damaged[at : at + 200] = random.bytes(200)
        else:
            damaged[random.integers(0, 100)] ^= 0xFF
        path = tmp_path / f"{number}.sqlite"
        path.write_bytes(damaged)
        try:
            with Store(path) as store:
                store.features(list(vectors))
                store.counts()
                store.forget(["person-1"])
        except StoreError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all(f"The store {tmp_path}" in message for message in messages)


def test_values_that_sqlite_cannot_hold_are_errors(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        with pytest.raises(StoreError, match="cannot be written"):
            store.link([("anna\ud800", "k1")])
        with pytest.raises(StoreError, match="cannot be read"):
            store.features(["\ud800"])
        usage = {"input_tokens": 10**30, "output_tokens": 1, "cached_tokens": 0, "usd": None}
        with pytest.raises(StoreError, match="cannot be written"):
            store.put_metadata({"k": {"usage": usage}}, model="m")
        assert store.counts() == {"features": 0, "metadata": 0, "people": 0}


def test_stores_that_cannot_be_written_are_read(tmp_path, monkeypatch):
    with Store(tmp_path / "s.sqlite") as store:
        store.put_features({"k": np.ones(2, np.float32)})
    before = content_and_modes(tmp_path)
    monkeypatch.setattr(sqlite, "is_writable", lambda _: False)  # the tests may run as root
    with Store(tmp_path / "s.sqlite") as store:
        assert store.features(["k"])["k"].tolist() == [1, 1]
        with pytest.raises(StoreError, match="the file or its folder is read-only"):
            store.put_features({"l": np.ones(2, np.float32)})
    assert content_and_modes(tmp_path) == before
    with pytest.raises(StoreError, match=r"cannot be opened: Permission denied\."):
        Store(tmp_path / "new.sqlite")

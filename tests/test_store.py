"""The store and its SQLite file: permissions, concurrency, erasure, formats and errors."""

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
from pairmatch.io import sqlite
from pairmatch.io.sqlite import Database
from pairmatch.io.store import Store, content_key


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
    ("create", "size", "rounds"), [(create_store, 1, 150), (create_gallery, 2, 8)]
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


@pytest.mark.parametrize(("create", "rounds"), [("create_store", 60), ("create_gallery", 8)])
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
    monkeypatch.setattr(sqlite, "TIMEOUT_SECONDS", 0.3)

    def content():
        return b"".join(file.read_bytes() for file in tmp_path.iterdir())

    with Store(tmp_path / "s.sqlite") as store:
        store.link([("anna", "m1")])
        store.put_metadata({"m1": {"caption": "ANNAS-CAPTION"}})
        reader = read_in_background(store.path)
        with pytest.raises(StoreError, match="still has deleted data in its write-ahead log"):
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
    options = {"name": "The file d", "version": 1, "schema": (), "remedy": "name another file"}
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

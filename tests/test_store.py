"""The store: private, content-addressed, safe between processes, and able to forget."""

import sqlite3
import stat
import subprocess
import sys

import numpy as np
import pytest

from pairmatch.core.errors import StoreError
from pairmatch.io.store import Store, content_key


def test_files_are_private_to_their_owner(tmp_path):
    with Store(tmp_path / "folder" / "store.sqlite") as store:
        store.put_features({"k": np.ones(3, np.float32)})
        for file in store.path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert len(list(store.path.parent.iterdir())) == 3  # the file, its -wal and its -shm
    with Store(tmp_path / "plain") as store:
        assert store.path == tmp_path / "plain" / "store.sqlite"


def test_what_goes_in_comes_out(tmp_path):
    vectors = {
        f"k{i}": np.random.default_rng(i).normal(size=4).astype(np.float16 if i % 2 else np.float32)
        for i in range(1203)
    }
    with Store(tmp_path / "s.sqlite") as store:
        store.put_features(vectors)
        store.put_features(
            {"k0": np.zeros(4, np.float32)}
        )  # equal keys mean equal content: the first stays
        store.put_metadata({"m": {"caption": "zwei Äpfel", "n": 1}})
        store.put_metadata({"m": {"caption": "neu"}})
    with Store(tmp_path / "s.sqlite") as store:
        found = store.features([*vectors, "absent"])
        assert found.keys() == vectors.keys()
        assert all(
            np.array_equal(found[k], v) and found[k].dtype == v.dtype for k, v in vectors.items()
        )
        assert store.has_features(["k1", "absent"]) == {"k1"}
        assert store.metadata(["m", "absent"]) == {"m": {"caption": "neu"}}


def test_forgetting_erases_people_their_bytes_and_their_ids(tmp_path):
    secret = np.frombuffer(b"ANNAS-VECTOR-BYTES-1", np.uint8).astype(np.float32)
    with Store(tmp_path / "s.sqlite") as store:
        store.link([("anna", "k1"), ("anna", "m1"), ("twin", "k1"), ("ben", "k2")])
        store.put_features({"k1": secret, "k2": np.ones(3, np.float32)})
        store.put_metadata({"m1": {"caption": "ANNAS-CAPTION"}})
        gone = store.forget(["anna", "nobody"])
        assert (gone.people, gone.features, gone.metadata) == (1, 1, 1)
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


def test_files_that_are_no_store(tmp_path):
    (tmp_path / "text.sqlite").write_text("this is no database at all, but a long text" * 50)
    with pytest.raises(StoreError, match=r"text.sqlite cannot be opened: file is not a database"):
        Store(tmp_path / "text.sqlite")
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path / "text.sqlite" / "below.sqlite")
    newer = sqlite3.connect(tmp_path / "newer.sqlite")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    words = r"^The store [^ ]*newer.sqlite has format 99; this pairmatch reads up to 2: [^(]*\(--store\)\.$"
    with pytest.raises(StoreError, match=words):
        Store(tmp_path / "newer.sqlite")


WRITER = """
import sys
import numpy as np
from pairmatch.io.store import Store
store = Store(sys.argv[1])
for i in range(150):
    store.put_features({f"shared{i}": np.full(64, i, np.float32), f"{sys.argv[2]}-{i}": np.ones(64, np.float32)})
    store.link([(f"person{i}", f"shared{i}")])
"""


def test_processes_write_at_once(tmp_path):
    path = tmp_path / "s.sqlite"
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in ("one", "two")
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    with Store(path) as store:
        assert store.counts() == {"features": 450, "metadata": 0, "people": 150}
        assert all(
            np.all(v == int(k[6:]))
            for k, v in store.features([f"shared{i}" for i in range(150)]).items()
        )
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)

"""Merging, checking and describing stores, and the commands `store merge|verify|info`."""

import json
import os
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from pairmatch.cli import app
from pairmatch.core.errors import ConfigurationError, StoreError
from pairmatch.io.store import Store, content_key
from pairmatch.io.store_checks import store_content, verify_store
from pairmatch.io.store_merging import merge_stores

USAGE = {"input_tokens": 10, "cached_tokens": 0, "output_tokens": 5, "usd": 0.25}


def key(name):
    return content_key({"of": name})


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def fill(path, people, *, dtype="float32", value=1.0, width=8):
    """A store with one vector per person, under the key of the person's name."""
    with Store(path) as store:
        store.link((person, key(person)) for person in people)
        store.put_features({key(person): np.full(width, value, dtype) for person in people})
    return path


def rows(path, table):
    connection = sqlite3.connect(path)
    try:
        return sorted(connection.execute(f"SELECT * FROM {table}"), key=repr)
    finally:
        connection.close()


def change(path, statement, *values):
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement, values)
    connection.close()


def tables(path):
    names = ("features", "metadata", "people", "corrections", "calls", "batches")
    return {name: rows(path, name) for name in names}


def test_merging_is_the_union_and_idempotent(tmp_path):
    first = fill(tmp_path / "first.sqlite", [f"a{i}" for i in range(1203)])
    second = fill(tmp_path / "second.sqlite", ["a5", "b1"], dtype="float16")
    change(second, "DELETE FROM features WHERE key = ?", key("a5"))
    with Store(second) as store:
        store.put_features({key("a5"): np.ones(8, np.float32)})
        store.link([("ben", key("a5"))])  # two people with the same photo
    target = tmp_path / "all.sqlite"
    merged = merge_stores([first, second, first], target)
    assert (merged.stores, merged.features, merged.present) == (2, 1204, 1)
    assert merged.links == 1203 + 2
    assert {row[:2] for row in rows(target, "people")} == {
        *((f"a{i}", key(f"a{i}")) for i in range(1203)),
        ("b1", key("b1")),
        ("ben", key("a5")),
    }
    assert rows(target, "features") == sorted(
        {
            *rows(first, "features"),
            *(row for row in rows(second, "features") if row[0] == key("b1")),
        },
        key=repr,
    )
    before = tables(target)
    again = merge_stores([second, first], target)
    assert (again.features, again.links, again.present) == (0, 0, 1205)
    assert tables(target) == before


def test_people_of_merged_stores_can_be_forgotten(tmp_path):
    shards = [fill(tmp_path / f"{name}.sqlite", [name, "shared"]) for name in ("anna", "ben")]
    target = tmp_path / "all.sqlite"
    merge_stores(shards, target)
    with Store(target) as store:
        assert store.forget(["anna", "shared"]).features == 2
        assert store.known(["anna", "ben", "shared"]) == {"ben"}
    assert [row[0] for row in rows(target, "features")] == [key("ben")]
    assert key("anna").encode() not in target.read_bytes()


def test_conflicts_keep_the_target_and_are_reported(tmp_path):
    target = fill(tmp_path / "all.sqlite", ["anna", "ben"], value=1.0)
    other = fill(tmp_path / "other.sqlite", ["anna", "ben", "carl"], value=1.25)
    merged = merge_stores([other], target)
    assert (merged.features, merged.conflicting) == (1, 2)
    assert {conflict.key for conflict in merged.conflicts} == {key("anna"), key("ben")}
    assert [conflict.difference for conflict in merged.conflicts] == [0.25, 0.25]
    with Store(target) as store:
        assert store.features([key("anna")])[key("anna")][0] == 1
    result = run("store", "merge", other, "--into", target)
    assert result.exit_code == 0
    assert "2 keys have other content" in result.output
    assert "differs by up to 0.25" in result.output


@pytest.mark.parametrize(
    ("dtype", "content"),
    [("<f4", b"123"), ("<f4", b""), ("<i4", b"1234"), ("<f4", np.float32("nan").tobytes())],
)
def test_damaged_vectors_are_skipped_or_replaced(dtype, content, tmp_path):
    damaged = fill(tmp_path / "damaged.sqlite", ["anna", "ben"])
    statement = "UPDATE features SET dtype = ?, vector = ? WHERE key = ?"
    change(damaged, statement, dtype, content, key("anna"))
    sound = fill(tmp_path / "sound.sqlite", ["anna"])
    target = tmp_path / "all.sqlite"
    merged = merge_stores([damaged], target)
    assert (merged.features, merged.damaged) == (1, 1)
    assert [row[0] for row in rows(target, "people")] == ["ben"]
    assert merge_stores([sound], damaged).features == 1
    with Store(damaged) as store:
        assert store.features([key("anna")])[key("anna")].tolist() == [1] * 8


def outcome(metadata=None, refusal=None):
    answer = {"refusal": refusal, "detail": "no"} if refusal else {"metadata": metadata}
    return {**answer, "usage": USAGE}


def test_metadata_replace_refusals_and_costs_are_added_once(tmp_path):
    first, second, target = (tmp_path / f"{name}.sqlite" for name in ("first", "second", "all"))
    with Store(first) as store:
        store.link([("anna", key("anna")), ("ben", key("ben"))])
        store.put_metadata(
            {key("anna"): outcome(refusal="policy"), key("ben"): outcome({"age": 30})}, model="m"
        )
    with Store(second) as store:
        store.link([("anna", key("anna")), ("ben", key("ben"))])
        store.put_metadata(
            {key("anna"): outcome({"age": 20}), key("ben"): outcome({"age": 31})}, model="m"
        )
    for order in ([first, second], [second, first]):
        target.unlink(missing_ok=True)
        merged = merge_stores(order, target)
        assert (merged.calls, merged.conflicting) == (4, 1)
        with Store(target) as store:
            assert store.metadata([key("anna")])[key("anna")]["metadata"] == {"age": 20}
            (spent,) = store.spent()
            assert (spent.calls, spent.usd) == (4, 1.0)
        assert merge_stores(order, target).calls == 0


def test_the_newer_corrections_count(tmp_path):
    older, newer = tmp_path / "older.sqlite", tmp_path / "newer.sqlite"
    for path, created, values in ((older, 1.0, {"a": 1, "b": 2}), (newer, 2.0, {"a": 3})):
        with Store(path) as store:
            store.put_corrections({"anna": values})
        change(path, "UPDATE corrections SET created = ?", created)
    for order in ([older, newer], [newer, older]):
        target = tmp_path / f"{order[0].stem}-first.sqlite"
        merge_stores(order, target)
        with Store(target) as store:
            assert store.corrections(["anna"]) == {"anna": {"a": 3}}


def test_submitted_batches_stay_where_they_are(tmp_path):
    source, target = tmp_path / "source.sqlite", tmp_path / "all.sqlite"
    with Store(source) as store:
        store.put_batch("one", "generator", [key("anna")])
    merged = merge_stores([source], target)
    assert merged.unfinished == {source: 1}
    assert "collect them with that store" in str(merged)
    assert rows(target, "batches") == []


def test_all_unusable_stores_are_named_and_nothing_is_written(tmp_path):
    good = fill(tmp_path / "good.sqlite", ["anna"])
    (tmp_path / "text.sqlite").write_text("no database, but long enough to be read as a header")
    target = tmp_path / "all.sqlite"
    with pytest.raises(StoreError) as error:
        merge_stores([good, tmp_path / "text.sqlite", tmp_path / "missing.sqlite"], target)
    assert "text.sqlite" in str(error.value)
    assert "missing.sqlite" in str(error.value)
    assert not target.exists()
    with pytest.raises(ConfigurationError, match="into itself"):
        merge_stores([good], good)
    with pytest.raises(ConfigurationError, match="Name the stores"):
        merge_stores([], target)
    result = run("store", "merge", tmp_path / "missing.sqlite", "--into", target)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


KILLED = """
import os, signal, sys
from pairmatch.io import store_merging
merge_page = store_merging._Merge._merge_page
def merge_and_die(self, page, merge):
    merge_page(self, page, merge)
    os.kill(os.getpid(), signal.SIGKILL)
store_merging._Merge._merge_page = merge_and_die
store_merging.merge_stores([sys.argv[1]], sys.argv[2])
"""


def test_a_killed_merge_is_finished_by_the_next(tmp_path):
    source = fill(tmp_path / "source.sqlite", [f"a{i}" for i in range(1100)])
    target = tmp_path / "all.sqlite"
    killed = subprocess.run([sys.executable, "-c", KILLED, source, target], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    partial = rows(target, "features")
    assert 0 < len(partial) < 1100
    assert {row[0] for row in partial} == {row[1] for row in rows(target, "people")}
    merged = merge_stores([source], target)
    assert (merged.features, merged.present) == (1100 - len(partial), len(partial))
    assert rows(target, "features") == rows(source, "features")
    assert rows(target, "people") == rows(source, "people")


def test_a_sound_store_has_no_problems(tmp_path):
    path = fill(tmp_path / "store.sqlite", [f"a{i}" for i in range(600)])
    with Store(path) as store:
        store.put_metadata({key("a1"): outcome({"age": 3})}, model="m")
        store.put_corrections({"anna": {"age": 4}})
        assert verify_store(store) == []
        content = store_content(store)
    assert content.features == {("float32", 8): 600}
    assert (content.people, content.metadata, content.refusals) == (601, 1, 0)
    result = run("store", "verify", path)
    assert result.exit_code == 0
    assert "600 features and 1 metadata outcomes of 600 people" in result.output
    result = run("store", "info", path)
    assert "600 of width 8 in float32" in result.output
    assert "m: 1 calls" in result.output


def test_every_damaged_row_is_named_and_repaired(tmp_path):
    path = fill(tmp_path / "store.sqlite", [f"a{i}" for i in range(600)])
    with Store(path) as store:
        store.link((f"a{i}", key(f"a{i}")) for i in range(5))
        store.put_metadata({key(f"a{i}"): outcome({"age": i}) for i in range(5)})
        store.put_metadata({key("nobody"): outcome({"age": 1})})
        store.put_corrections({"anna": {"age": 4}})
        store.put_features({key("a stranger"): np.ones(8, np.float32)})
    update = "UPDATE features SET vector = ? WHERE key = ?"
    change(path, update, b"123", key("a7"))
    change(path, update, np.full(8, np.inf, np.float32).tobytes(), key("a8"))
    change(path, "UPDATE features SET dtype = '<i4' WHERE key = ?", key("a9"))
    change(path, "UPDATE features SET key = 'short' WHERE key = ?", key("a10"))
    change(path, "UPDATE metadata SET outcome = '[1]' WHERE key = ?", key("a3"))
    change(path, "UPDATE metadata SET outcome = '{' WHERE key = ?", key("a4"))
    change(path, "UPDATE corrections SET value = '{'")
    change(path, "INSERT INTO people VALUES ('anna', 'other')")
    with Store(path) as store:
        problems = {problem.what: problem.count for problem in verify_store(store)}
    assert problems == {
        "damaged vectors": 3,
        "vectors whose key is no content key": 1,
        "vectors of no person, which `forget` cannot reach": 1,
        "damaged metadata outcomes": 2,
        "metadata outcomes of no person, which `forget` cannot reach": 1,
        "damaged corrections": 1,
        "links of people to what is no content key": 1,
    }
    result = run("store", "verify", path)
    assert result.exit_code == 2
    assert "remove them with --repair; the next run extracts them again" in result.output
    result = run("store", "verify", path, "--repair")
    assert result.exit_code == 0
    assert "Removed 3 damaged vectors." in result.output
    with Store(path) as store:
        assert verify_store(store) == []
        assert store.counts() == {"features": 596, "metadata": 3, "people": 600}
        assert store.corrections(["anna"]) == {}


def test_damage_of_the_file_itself_is_an_error_with_its_fix(tmp_path):
    path = fill(tmp_path / "store.sqlite", [f"a{i}" for i in range(3000)], width=700)
    assert path.stat().st_size > 8_000_000  # smaller files are checked when they are opened
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8 * 4096] = os.urandom(8 * 4096)
    path.write_bytes(content)
    result = run("store", "verify", path)
    assert result.exit_code == 2
    assert "damaged places in the file" in result.output
    assert "restore a copy" in result.output


def test_missing_stores_are_not_created(tmp_path):
    for command in ("info", "verify"):
        result = run("store", command, tmp_path / "none.sqlite")
        assert result.exit_code == 2
        assert "does not exist" in result.output
    assert list(tmp_path.iterdir()) == []


def test_stored_json_stays_as_it_was_written(tmp_path):
    source, target = tmp_path / "source.sqlite", tmp_path / "all.sqlite"
    with Store(source) as store:
        store.link([("anna", key("anna"))])
        store.put_metadata({key("anna"): outcome({"words": "größer", "list": [1, 2.5, None]})})
    merge_stores([source], target)
    assert rows(source, "metadata") == rows(target, "metadata")
    assert json.loads(rows(target, "metadata")[0][1])["metadata"]["words"] == "größer"

"""People in the store: the keys that hold their data, their corrections, and their erasure."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pairmatch.core.errors import StoreError
from pairmatch.core.text import all_spellings, matching
from pairmatch.io.claims import TABLE as CLAIMS_TABLE
from pairmatch.io.reading import MISSING, Damage
from pairmatch.io.sqlite import Database, chunks, marks
from pairmatch.io.traces import find_traces

#: Id of query people that have none; no table or command line can hold it.
QUERY_ID = "\0query"

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS people ("
    "person TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (person, key)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS people_by_key ON people (key)",
    "CREATE TABLE IF NOT EXISTS corrections ("
    "person TEXT NOT NULL, attribute TEXT NOT NULL, value TEXT NOT NULL, created REAL NOT NULL, "
    "PRIMARY KEY (person, attribute)) WITHOUT ROWID",
)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What `Store.forget` erased.

    Attributes:
        people: Number of people that were in the store.
        features: Number of features removed.
        metadata: Number of metadata outcomes removed.
        corrections: Number of corrections removed.
    """

    people: int
    features: int
    metadata: int
    corrections: int = 0


def link_people(database: Database, links: Iterable[tuple[str, str]]) -> None:
    """Records (person id, key) links; writes nothing if all exist."""
    rows = sorted(set(links))
    query = "SELECT person, key FROM people WHERE key IN ({})"
    existing = set(database.select_in(query, sorted({key for _, key in rows})))
    new = [row for row in rows if row not in existing]
    if new:
        with database.transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO people VALUES (?, ?)", new)


def read_corrections(database: Database, people: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Corrections by person and attribute."""
    corrections: dict[str, dict[str, Any]] = {}
    query = "SELECT person, attribute, value FROM corrections WHERE person IN ({})"
    damage = Damage(database.name, "corrections")
    for person, attribute, text in database.select_in(query, people):
        value = damage.json_value(text)
        if value is not MISSING:
            corrections.setdefault(person, {})[attribute] = value
    damage.report()
    return corrections


def write_corrections(database: Database, corrections: Mapping[str, Mapping[str, Any]]) -> None:
    """Replaces all corrections of each person."""
    now = time.time()
    rows = [
        (person, attribute, json.dumps(value, ensure_ascii=False), now)
        for person, values in corrections.items()
        for attribute, value in values.items()
    ]
    with database.transaction() as connection:
        connection.executemany(
            "DELETE FROM corrections WHERE person = ?", [(person,) for person in corrections]
        )
        connection.executemany("INSERT INTO corrections VALUES (?, ?, ?, ?)", rows)


def known_people(database: Database, ids: Sequence[str]) -> set[str]:
    """Subset of the ids that have links or corrections."""
    found = {
        person
        for table in ("people", "corrections")
        for (person,) in database.select_in(
            f"SELECT DISTINCT person FROM {table} WHERE person IN ({{}})", all_spellings(ids)
        )
    }
    return matching(ids, found)


def forget_people(database: Database, ids: Sequence[str]) -> Forgotten:
    """Erases people and everything under their keys; no bytes remain in the files.

    The file is rewritten, which takes time and disk space in proportion to its size.

    Raises:
        StoreError: The deletion fails; or it succeeds, but traces remain in the files.
    """
    people: set[str] = set()
    keys: set[str] = set()
    corrections = 0
    with database.transaction() as connection:
        for chunk in chunks(all_spellings(ids)):
            linked, linked_keys = _unlink(connection, chunk)
            corrected, removed = _delete_corrections(connection, chunk)
            people |= linked | corrected
            keys |= linked_keys
            corrections += removed
        features, metadata = _delete_content(connection, keys)
    database.purge()
    _check_erased(database, keys)
    return Forgotten(len(people), features, metadata, corrections)


def _check_erased(database: Database, keys: set[str]) -> None:
    """Searches the bytes of the files for keys that are in no table."""
    with database.snapshot():  # no checkpoint of another process rewrites what is read
        # A damaged file may hold keys that are no text
        texts = {key for key in keys if isinstance(key, str)}
        traces = find_traces(database.files(), texts)
        # Another process may have stored a person again in the meantime
        query = "SELECT key FROM people WHERE key IN ({})"
        traces -= {key for (key,) in database.select_in(query, sorted(traces))}
    if traces:
        raise StoreError(
            f"{database.name} still has traces of {len(traces)} erased keys in its files, although "
            "the deletion is complete: stop other processes that use it and delete again."
        )


def _unlink(connection: sqlite3.Connection, ids: list[str]) -> tuple[set[str], set[str]]:
    """Deletes the links of people; returns the people that had links, and the keys."""
    condition = f"FROM people WHERE person IN ({marks(ids)})"
    rows = connection.execute(f"SELECT person, key {condition}", ids).fetchall()
    connection.execute(f"DELETE {condition}", ids)
    return {person for person, _ in rows}, {key for _, key in rows}


def _delete_corrections(connection: sqlite3.Connection, ids: list[str]) -> tuple[set[str], int]:
    """Deletes the corrections of people; returns the people that had some, and their number."""
    condition = f"FROM corrections WHERE person IN ({marks(ids)})"
    rows = connection.execute(f"SELECT person {condition}", ids).fetchall()
    connection.execute(f"DELETE {condition}", ids)
    return {person for (person,) in rows}, len(rows)


def _delete_content(connection: sqlite3.Connection, keys: Iterable[str]) -> tuple[int, int]:
    """Deletes everything under the keys; returns the number of features and of outcomes."""
    features = 0
    metadata = 0
    connection.execute(CLAIMS_TABLE)
    for key in keys:
        features += connection.execute("DELETE FROM features WHERE key = ?", (key,)).rowcount
        metadata += connection.execute("DELETE FROM metadata WHERE key = ?", (key,)).rowcount
        connection.execute("DELETE FROM people WHERE key = ?", (key,))
        connection.execute("DELETE FROM batched WHERE key = ?", (key,))
        connection.execute("DELETE FROM claims WHERE key = ?", (key,))
    return features, metadata

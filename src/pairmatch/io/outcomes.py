"""Metadata in the store: outcomes, the calls that were paid for, and submitted batches."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pairmatch.io.reading import Damage
from pairmatch.io.sqlite import Database

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS metadata ("
    "key TEXT PRIMARY KEY, outcome TEXT NOT NULL, created REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS calls ("
    "model TEXT NOT NULL, outcome TEXT NOT NULL, input_tokens INTEGER NOT NULL, "
    "cached_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, usd REAL, "
    "created REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS batches ("
    "id TEXT PRIMARY KEY, generator TEXT NOT NULL, remote TEXT, created REAL NOT NULL) "
    "WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS batched ("
    "batch TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (batch, key)) WITHOUT ROWID",
)


@dataclass(frozen=True, slots=True)
class Spent:
    """Cost of a model over all calls in a store; holds no personal data.

    Attributes:
        model: Name of the model.
        calls: Number of answers that were paid for.
        input_tokens: Number of input tokens, cached ones included.
        output_tokens: Number of output tokens, reasoning included.
        usd: Sum over the calls with a known price.
        unpriced: Number of calls without a known price.
    """

    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    usd: float
    unpriced: int

    def __str__(self) -> str:
        tokens = self.input_tokens + self.output_tokens
        cost = f"${self.usd:.4f}"
        if self.unpriced:
            cost += f" and {self.unpriced} calls of unknown price"
        return f"{self.model}: {self.calls} calls, {tokens:,} tokens, {cost}"


@dataclass(frozen=True, slots=True)
class SubmittedBatch:
    """A batch of metadata requests that has not been collected yet.

    Attributes:
        id: Id that pairmatch gave the batch; the provider receives it too.
        remote: Id that the provider gave the batch; None until its response to the submission.
        created: Time of the submission, in seconds since 1970.
        keys: Keys of the outcomes that the batch will deliver.
    """

    id: str
    remote: str | None
    created: float
    keys: tuple[str, ...]


def read_outcomes(database: Database, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Outcomes that exist, by key."""
    query = "SELECT key, outcome FROM metadata WHERE key IN ({})"
    damage = Damage(database.name, "metadata outcomes")
    outcomes = {}
    for key, text in database.select_in(query, keys):
        outcome = damage.json_object(text)
        if outcome is not None:
            outcomes[key] = outcome
    damage.report()
    return outcomes


def write_outcomes(
    database: Database,
    outcomes: Mapping[str, Mapping[str, Any]],
    model: str | None,
    batch: str | None,
    owner: str | None,
) -> None:
    """Writes outcomes and, if a model is named, their cost.

    Closes the batch that delivered them, or gives up the claims of the run that generated them.
    """
    now = time.time()
    calls = [] if model is None else _calls(model, outcomes, now)
    with database.transaction() as connection:
        wanted = set(outcomes)
        if batch is not None:
            wanted &= _close_batch(connection, batch)
        if owner is not None:
            wanted &= _give_up(connection, owner, list(wanted))
        rows = [
            (key, json.dumps(outcome, ensure_ascii=False), now)
            for key, outcome in outcomes.items()
            if key in wanted
        ]
        connection.executemany("INSERT OR REPLACE INTO metadata VALUES (?, ?, ?)", rows)
        connection.executemany("INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", calls)


def _calls(
    model: str, outcomes: Mapping[str, Mapping[str, Any]], now: float
) -> list[tuple[Any, ...]]:
    """Rows of `calls`: one per outcome that used tokens."""
    rows = []
    for outcome in outcomes.values():
        usage = outcome["usage"]
        if usage["input_tokens"] + usage["output_tokens"]:
            rows.append(
                (
                    model,
                    outcome.get("refusal", "metadata"),
                    usage["input_tokens"],
                    usage["cached_tokens"],
                    usage["output_tokens"],
                    usage["usd"],
                    now,
                )
            )
    return rows


def _close_batch(connection: sqlite3.Connection, batch: str) -> set[str]:
    """Deletes a batch; returns its keys, without those that were forgotten since its submission."""
    rows = connection.execute("SELECT key FROM batched WHERE batch = ?", (batch,)).fetchall()
    connection.execute("DELETE FROM batched WHERE batch = ?", (batch,))
    connection.execute("DELETE FROM batches WHERE id = ?", (batch,))
    return {key for (key,) in rows}


def _give_up(connection: sqlite3.Connection, owner: str, keys: Sequence[str]) -> set[str]:
    """Gives up claims; returns their keys, without those that were forgotten since."""
    return {
        key
        for key in keys
        if connection.execute(
            "DELETE FROM claims WHERE key = ? AND owner = ?", (key, owner)
        ).rowcount
    }


def read_spending(database: Database) -> list[Spent]:
    """Cost of every model, by name."""
    rows = database.select(
        "SELECT model, count(*), sum(input_tokens), sum(output_tokens), total(usd), "
        "count(*) - count(usd) FROM calls GROUP BY model ORDER BY model"
    )
    return [Spent(*row) for row in rows]


def add_batch(database: Database, batch: str, generator: str, keys: Sequence[str]) -> None:
    """Records a batch and its keys."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO batches VALUES (?, ?, NULL, ?)", (batch, generator, time.time())
        )
        connection.executemany("INSERT INTO batched VALUES (?, ?)", [(batch, key) for key in keys])


def name_batch(database: Database, batch: str, remote: str) -> None:
    """Records the provider's id of a batch."""
    with database.transaction() as connection:
        connection.execute("UPDATE batches SET remote = ? WHERE id = ?", (remote, batch))


def read_batches(database: Database, generator: str) -> list[SubmittedBatch]:
    """Batches of a generator that were not collected yet, oldest first."""
    with database.snapshot():
        rows = database.select(
            "SELECT id, remote, created FROM batches WHERE generator = ? ORDER BY created",
            (generator,),
        )
        return [
            SubmittedBatch(
                batch,
                remote,
                created,
                tuple(
                    key
                    for (key,) in database.select(
                        "SELECT key FROM batched WHERE batch = ?", (batch,)
                    )
                ),
            )
            for batch, remote, created in rows
        ]

"""A gallery on disk: Arrow files that are memory-mapped, and a journal that survives a kill.

`gallery.sqlite` holds what happened since, in order: a person added (with vector), a person
removed, a file of many people added. Each is one transaction, on disk when the call returns. Saving
again writes everybody who is left into new files and empties the journal, in one transaction too.
Both files are private to their owner.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pairmatch.core.errors import StoreError
from pairmatch.core.types import AttributeValue
from pairmatch.gallery.blocks import Block, Vectors

JOURNAL = "gallery.sqlite"
_FORMAT = 1
_ROWS = 65_536  # people of one record batch: what saving holds in memory at once
_TIMEOUT_SECONDS = 60.0
_SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE journal (
    number INTEGER PRIMARY KEY AUTOINCREMENT, act TEXT NOT NULL, name TEXT NOT NULL, attributes TEXT, vector BLOB);
"""

Change = tuple[int, str, str, str | None, bytes | None]


class Folder:
    """The files of one gallery; several processes may read and one at a time write.

    Args:
        path: The folder.
        create: Makes it where it is not there.

    Raises:
        StoreError: There is no gallery, or one of a newer version, or the files cannot be used.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        journal = path / JOURNAL
        if not create and not journal.exists():
            raise StoreError(
                f"{path} holds no gallery (no {JOURNAL}): build one with `Gallery.save(folder)`."
            )
        try:
            if create:
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
                os.close(os.open(journal, os.O_CREAT | os.O_RDWR, 0o600))
            self.connection = sqlite3.connect(
                journal, timeout=_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
            )
            run = self.connection.execute
            run("PRAGMA journal_mode = WAL")
            run("PRAGMA synchronous = FULL")
            run("PRAGMA secure_delete = ON")
            found = run("PRAGMA user_version").fetchone()[0]
            if found > _FORMAT:
                raise StoreError(
                    f"{path} has gallery format {found}, this pairmatch reads up to {_FORMAT}: upgrade."
                )
            if not found:
                self.connection.executescript(
                    f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_FORMAT}; COMMIT;"
                )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"The gallery {path} cannot be opened: {error}.") from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction; other writers wait."""
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield
            self.connection.execute("COMMIT")
        except BaseException as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error | OSError) and not isinstance(error, StoreError):
                raise StoreError(f"Writing to the gallery {self.path} failed: {error}.") from error
            raise

    def news(self, generation: int, seen: int) -> tuple[dict[str, Any], list[Change]]:
        """What is said of the gallery (`side`, `width`, `made_by`, `generation`), and what happened, as of one moment.

        Args:
            generation: That is known; of another, everything is given.
            seen: Number of the last change that is known.
        """
        run = self.connection.execute
        alone = not self.connection.in_transaction
        try:
            if alone:
                run("BEGIN")
            about = {key: json.loads(value) for key, value in run("SELECT key, value FROM about")}
            after = seen if about.get("generation", 0) == generation else 0
            changes = run(
                "SELECT number, act, name, attributes, vector FROM journal WHERE number > ? ORDER BY number",
                (after,),
            ).fetchall()
            if alone:
                run("COMMIT")
        except sqlite3.Error as error:
            if alone and self.connection.in_transaction:
                run("ROLLBACK")
            raise StoreError(f"Reading the gallery {self.path} failed: {error}.") from error
        return about, changes

    def append(
        self,
        ids: Sequence[str],
        attributes: Sequence[Mapping[str, AttributeValue]],
        vectors: Vectors,
    ) -> None:
        """Notes people as added, within a transaction."""
        rows = [
            ("add", person, json.dumps(dict(own), ensure_ascii=False), vector.tobytes())
            for person, own, vector in zip(ids, attributes, vectors, strict=True)
        ]
        self.connection.executemany(
            "INSERT INTO journal (act, name, attributes, vector) VALUES (?, ?, ?, ?)", rows
        )

    def append_removals(self, ids: Sequence[str]) -> None:
        """Notes people as removed, within a transaction."""
        self.connection.executemany(
            "INSERT INTO journal (act, name) VALUES ('remove', ?)", [(person,) for person in ids]
        )

    def append_file(self, blocks: Sequence[Block]) -> None:
        """Writes people to a file of their own and notes it, within a transaction."""
        self.connection.execute(
            "INSERT INTO journal (act, name) VALUES ('file', ?)", (self._write(blocks),)
        )

    def replace(self, blocks: Sequence[Block], about: Mapping[str, Any]) -> None:
        """Puts the people who are alive in the blocks in the place of everything, within a transaction."""
        run = self.connection.execute
        before = run("SELECT value FROM about WHERE key = 'generation'").fetchone()
        run("DELETE FROM journal")
        run("DELETE FROM about")
        said = {**about, "generation": json.loads(before[0]) + 1 if before else 1}
        self.connection.executemany(
            "INSERT INTO about VALUES (?, ?)",
            [(key, json.dumps(value)) for key, value in said.items()],
        )
        if blocks:
            self.append_file(blocks)

    def _write(self, blocks: Sequence[Block]) -> str:
        """One Arrow file of all who are alive, whole and on the disk when this returns.

        Gives its name.
        """
        name = f"{uuid.uuid4().hex}.arrow"
        tables = [block.living().slice(0, 0) for block in blocks]
        schema = pa.concat_tables(tables, promote_options="permissive").schema
        width = blocks[0].vectors.shape[1]
        full = schema.append(pa.field("embedding", pa.list_(pa.float32(), width)))
        part = self.path / f".{name}.part"
        with (
            os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "wb") as file,
            pa.ipc.new_file(file, full) as writer,
        ):
            for people, vectors in _batches(blocks, schema):
                embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)
                table = people.append_column(full.field("embedding"), embedding).combine_chunks()
                writer.write_table(table)
        _sync(part)
        part.replace(self.path / name)
        if os.name == "posix":  # a new name is on the disk only when its folder is
            _sync(self.path)
        return name

    def read(self, name: str) -> list[Block]:
        """The blocks of a file, memory-mapped."""
        try:
            with pa.memory_map(str(self.path / name)) as source:
                reader = pa.ipc.open_file(source)
                batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"The gallery file {self.path / name} cannot be read: {error}."
            ) from error
        blocks = []
        for batch in batches:
            column = batch.column("embedding")
            vectors = column.flatten().to_numpy(zero_copy_only=True).reshape(len(batch), -1)
            people = pa.table(batch.drop_columns(["embedding"]))
            blocks.append(Block(people, vectors, np.ones(len(batch), bool)))
        return blocks

    def sweep(self) -> None:
        """Removes files that nothing names any more, and empties SQLite's own log."""
        with self.writing():  # nobody is writing a file that is not named yet
            named = {
                name
                for (name,) in self.connection.execute(
                    "SELECT name FROM journal WHERE act = 'file'"
                )
            }
            for file in [*self.path.glob("*.arrow"), *self.path.glob(".*.part")]:
                if file.name not in named:
                    with contextlib.suppress(
                        OSError
                    ):  # where a mapped file cannot be removed, the next sweep does it
                        file.unlink()
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > deadline:
                raise StoreError(
                    f"Another process keeps reading {self.path}: what was erased is still in its log."
                )
            time.sleep(0.05)

    def close(self) -> None:
        self.connection.close()


def _batches(blocks: Sequence[Block], schema: pa.Schema) -> Iterator[tuple[pa.Table, Vectors]]:
    """People who are alive with their vectors, at most `_ROWS` at a time."""
    waiting: list[Block] = []
    for block in blocks:
        for start in range(0, len(block), _ROWS):
            part = slice(start, start + _ROWS)
            alive = block.alive[part]
            if not alive.any():
                continue
            piece = Block(block.people.slice(start, len(alive)), block.vectors[part], alive)
            if waiting and sum(int(one.alive.sum()) for one in waiting) + int(alive.sum()) > _ROWS:
                yield _joined(waiting, schema)
                waiting = []
            waiting.append(piece)
    if waiting:
        yield _joined(waiting, schema)


def _joined(blocks: Sequence[Block], schema: pa.Schema) -> tuple[pa.Table, Vectors]:
    tables = [schema.empty_table(), *(block.living() for block in blocks)]
    people = (
        pa.concat_tables(tables, promote_options="permissive").select(schema.names).cast(schema)
    )
    return people, np.ascontiguousarray(
        np.concatenate([block.vectors[block.alive] for block in blocks])
    )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

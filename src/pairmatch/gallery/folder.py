"""The files of a gallery on disk: memory-mapped Arrow files, and a journal of later changes.

`gallery.sqlite` holds the changes in order: a person added (with vector), a person removed, a file
of many people added. Each change is one transaction, on disk when the call returns. Saving writes
all remaining people to new files and empties the journal, in one transaction as well. All files are
private to their owner.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import StoreError
from pairmatch.core.types import AttributeValue, Side
from pairmatch.gallery.blocks import Block, vectors_of
from pairmatch.io.sqlite import Database

JOURNAL = "gallery.sqlite"
_FORMAT = 1
_BATCH_ROWS = 65_536  # people per record batch, all that saving holds in memory
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS journal ("
    "number INTEGER PRIMARY KEY AUTOINCREMENT, act TEXT NOT NULL, name TEXT NOT NULL, "
    "attributes TEXT, vector BLOB)",
)

Change = tuple[int, str, str, str | None, bytes | None]


class Folder:
    """The files of one gallery. Several processes may read at once, and one at a time may write.

    Args:
        path: Path to the folder.
        create: Whether to create the folder and the journal if they are missing.

    Raises:
        StoreError: The folder holds no gallery, one of a newer format, or one that cannot be used.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        journal = path / JOURNAL
        if not create and not journal.exists():
            raise StoreError(
                f"{path} holds no gallery (no {JOURNAL}): build one with `Gallery.save(folder)`."
            )
        self.database = Database(
            journal,
            kind="gallery",
            name=f"The gallery {path}",
            version=_FORMAT,
            schema=_SCHEMA,
            remedy="save the gallery to another folder",
            synchronous="FULL",
            create=create,
        )
        self.connection = self.database.connection

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction; other writers wait."""
        with self.database.transaction():
            yield

    def changes_since(
        self, generation: int, last_change: int
    ) -> tuple[dict[str, Any], list[Change]]:
        """Reads the description of the gallery and its changes, as of one moment.

        Args:
            generation: Generation that the reader has; changes of another are read from the start.
            last_change: Number of the last change that the reader has.

        Returns:
            `side`, `width`, `made_by` and `generation`; and the changes in order.
        """
        with self.database.snapshot() as connection:
            run = connection.execute
            about = {key: json.loads(value) for key, value in run("SELECT key, value FROM about")}
            after = last_change if about.get("generation", 0) == generation else 0
            changes = run(
                "SELECT number, act, name, attributes, vector FROM journal "
                "WHERE number > ? ORDER BY number",
                (after,),
            ).fetchall()
        return about, changes

    def append(
        self,
        ids: Sequence[str],
        attributes: Sequence[Mapping[str, AttributeValue]],
        vectors: Vectors,
    ) -> None:
        """Records people as added, within a transaction."""
        rows = [
            ("add", person, json.dumps(dict(row), ensure_ascii=False), vector.tobytes())
            for person, row, vector in zip(ids, attributes, vectors, strict=True)
        ]
        self.connection.executemany(
            "INSERT INTO journal (act, name, attributes, vector) VALUES (?, ?, ?, ?)", rows
        )

    def append_removals(self, ids: Sequence[str]) -> None:
        """Records people as removed, within a transaction."""
        self.connection.executemany(
            "INSERT INTO journal (act, name) VALUES ('remove', ?)", [(person,) for person in ids]
        )

    def append_file(self, blocks: Iterable[Block], schema: pa.Schema | None = None) -> None:
        """Writes people to a new file and records it, within a transaction.

        Args:
            blocks: At least one person that is alive.
            schema: Columns of the people; by default those of all blocks, which are then read
                twice.
        """
        if schema is None:
            blocks = list(blocks)
            tables = [block.people.slice(0, 0) for block in blocks]
            schema = pa.concat_tables(tables, promote_options="permissive").schema
        name = self._write(blocks, schema)
        self.connection.execute("INSERT INTO journal (act, name) VALUES ('file', ?)", (name,))

    def replace(
        self, blocks: Sequence[Block], *, side: Side, made_by: str | None, width: int | None
    ) -> None:
        """Replaces the whole gallery with the people of the blocks, within a transaction."""
        run = self.connection.execute
        row = run("SELECT value FROM about WHERE key = 'generation'").fetchone()
        run("DELETE FROM journal")
        run("DELETE FROM about")
        generation = json.loads(row[0]) + 1 if row else 1
        about = {"side": side, "made_by": made_by, "width": width, "generation": generation}
        self.connection.executemany(
            "INSERT INTO about VALUES (?, ?)",
            [(key, json.dumps(value)) for key, value in about.items()],
        )
        living = [block for block in blocks if block.alive.any()]
        if living:
            self.append_file(living)

    def _write(self, blocks: Iterable[Block], schema: pa.Schema) -> str:
        """Writes one Arrow file of all people that are alive, and returns its name.

        The file is complete and on disk when this returns.
        """
        name = f"{uuid.uuid4().hex}.arrow"
        part = self.path / f".{name}.part"
        with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "wb") as file:
            writer = None
            for people, vectors in _batches(blocks, schema):
                flat = pa.array(vectors.ravel())
                embedding = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
                table = people.append_column("embedding", embedding).combine_chunks()
                writer = writer or pa.ipc.new_file(file, table.schema)
                writer.write_table(table)
            if writer is not None:
                writer.close()
        _sync(part)
        part.replace(self.path / name)
        if os.name == "posix":  # a new name is on disk only once its folder is
            _sync(self.path)
        return name

    def read(self, name: str) -> list[Block]:
        """Reads the blocks of a file, memory-mapped."""
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
            vectors = vectors_of(batch.column("embedding"))
            blocks.append(Block.of(pa.table(batch.drop_columns(["embedding"])), vectors))
        return blocks

    def sweep(self) -> None:
        """Removes files that the journal no longer names, and the traces of deleted people."""
        with self.writing():  # no other process is writing a file that has no entry yet
            rows = self.connection.execute("SELECT name FROM journal WHERE act = 'file'")
            named = {name for (name,) in rows}
            for file in [*self.path.glob("*.arrow"), *self.path.glob(".*.part")]:
                if file.name not in named:
                    # A file that is mapped and cannot be removed is left to the next sweep
                    with contextlib.suppress(OSError):
                        file.unlink()
        self.database.purge()

    def close(self) -> None:
        """Closes the journal."""
        self.database.close()


def _batches(blocks: Iterable[Block], schema: pa.Schema) -> Iterator[tuple[pa.Table, Vectors]]:
    """Yields people that are alive with their vectors, at most `_BATCH_ROWS` at a time."""
    waiting: list[Block] = []
    rows = 0
    for block in blocks:
        for start in range(0, len(block), _BATCH_ROWS):
            part = slice(start, start + _BATCH_ROWS)
            alive = block.alive[part]
            count = int(alive.sum())
            if not count:
                continue
            if waiting and rows + count > _BATCH_ROWS:
                yield _joined(waiting, schema)
                waiting = []
                rows = 0
            waiting.append(Block(block.people.slice(start, len(alive)), block.vectors[part], alive))
            rows += count
    if waiting:
        yield _joined(waiting, schema)


def _joined(blocks: Sequence[Block], schema: pa.Schema) -> tuple[pa.Table, Vectors]:
    tables = [schema.empty_table(), *(block.living() for block in blocks)]
    people = pa.concat_tables(tables, promote_options="permissive")
    vectors = np.concatenate([block.vectors[block.alive] for block in blocks])
    return people.select(schema.names).cast(schema), np.ascontiguousarray(vectors)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""The files of a gallery on disk: memory-mapped Arrow files, and a journal of later changes.

`gallery.sqlite` holds the changes in order: a person added (with vector), a person removed, a file
of many people added. Each change is one transaction, on disk when the call returns. Saving writes
all remaining people to new files and empties the journal, in one transaction as well. All files are
private to their owner.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import StoreError
from pairmatch.core.text import printable
from pairmatch.core.types import AttributeValue, Side
from pairmatch.gallery.arrow_files import check_vectors_of, read_people, sync, write_people
from pairmatch.gallery.blocks import Block
from pairmatch.gallery.description import checked_description
from pairmatch.gallery.journal import FILE_NAME, Change, read_changes
from pairmatch.io.files import parse_json
from pairmatch.io.outputs import check_output_folder, claim_folder, foreign_names
from pairmatch.io.sqlite import Database
from pairmatch.io.sqlite_files import why_not_ours

JOURNAL = "gallery.sqlite"
_JOURNAL_FILES = {f"{JOURNAL}{end}" for end in ("", "-wal", "-shm", "-journal")}
_KIND = "gallery"
_FORMAT = 1
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS journal ("
    "number INTEGER PRIMARY KEY AUTOINCREMENT, act TEXT NOT NULL, name TEXT NOT NULL, "
    "attributes TEXT, vector BLOB)",
)


def check_folder(path: Path, other: type[Any] | None = None) -> None:
    """Checks that a gallery can be saved to a folder, without creating anything.

    Args:
        path: Path to the folder.
        other: Another kind of gallery that the folder holds.

    Raises:
        StoreError: The folder holds a gallery of another kind.
        ConfigurationError: The folder holds files that pairmatch did not write, or cannot be
            written.
    """
    if other is not None:
        raise StoreError(
            f"{path} holds a {other.__name__}, which saving would not replace: choose another "
            "folder, or delete it first."
        )
    check_output_folder(path, _KIND, is_earlier=is_earlier_gallery)


def is_earlier_gallery(path: Path) -> bool:
    """Whether a folder without a mark holds a gallery of an earlier version, and nothing else."""
    journal = path / JOURNAL
    try:
        is_ours = journal.is_file() and (
            why_not_ours(journal, "gallery", version=_FORMAT, schema=_SCHEMA) is None
        )
        names = foreign_names(path)
    except (OSError, sqlite3.Error):
        return False
    return is_ours and all(
        name in _JOURNAL_FILES or FILE_NAME.fullmatch(name.removeprefix(".").removesuffix(".part"))
        for name in names
    )


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
        # Files whose vectors were not compared with their checksum yet
        self._unchecked: list[tuple[Path, list[Block], str | None]] = []
        journal = path / JOURNAL
        if create:
            claim_folder(path, _KIND, is_earlier=is_earlier_gallery, private=True)
        if not create:
            _check_present(journal)
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
        if create:
            with self.writing():
                self._token()

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

        Raises:
            StoreError: The journal is damaged.
        """
        with self.database.snapshot():
            about = checked_description(self._about())
            after = last_change if about["generation"] == generation else 0
            rows = self.connection.execute(
                "SELECT number, act, name, attributes, vector FROM journal "
                "WHERE number > ? ORDER BY number",
                (after,),
            ).fetchall()
        return about, read_changes(rows, about["width"], self.database.name)

    def _about(self) -> dict[str, Any]:
        """All values that describe the gallery."""
        try:
            rows = self.connection.execute("SELECT key, value FROM about").fetchall()
            return {str(key): parse_json(value) for key, value in rows}
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self.database.name} has a damaged description: {error}.") from error

    def _set_about(self, key: str, value: Any) -> None:
        self.connection.execute(
            "INSERT OR REPLACE INTO about VALUES (?, ?)", (key, json.dumps(value))
        )

    def _token(self) -> str:
        """What the names of this gallery's files begin with; made within a transaction.

        A file with such a name is one that this gallery wrote, even if a run was killed before the
        journal could name it.
        """
        token = self._about().get("token")
        if not isinstance(token, str) or not re.fullmatch("[0-9a-f]{16}", token):
            token = secrets.token_hex(8)
            self._set_about("token", token)
        return token

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
        name = f"{self._token()}-{uuid.uuid4().hex}.arrow"
        part = self.path / f".{name}.part"
        checksums = write_people(part, blocks, schema)
        part.replace(self.path / name)
        if os.name == "posix":  # a new name is on disk only once its folder is
            sync(self.path)
        self.connection.execute(
            "INSERT INTO journal (act, name, attributes) VALUES ('file', ?, ?)",
            (name, json.dumps(checksums)),
        )

    def journaled(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that changes name, removals included."""
        query = "SELECT DISTINCT name FROM journal WHERE act != 'file' AND name IN ({})"
        return {str(name) for (name,) in self.database.select_in(query, ids)}

    def replace(
        self, blocks: Sequence[Block], *, side: Side, made_by: str | None, width: int | None
    ) -> None:
        """Replaces the whole gallery with the people of the blocks, within a transaction."""
        run = self.connection.execute
        about = self._about()
        generation = checked_description(about)["generation"] + 1
        rows = run("SELECT name FROM journal WHERE act = 'file'").fetchall()
        self._set_about("obsolete", sorted({*_names(about), *(str(name) for (name,) in rows)}))
        run("DELETE FROM journal")
        for key, value in (
            ("side", side),
            ("made_by", made_by),
            ("width", width),
            ("generation", generation),
        ):
            self._set_about(key, value)
        living = [block for block in blocks if block.alive.any()]
        if living:
            self.append_file(living)

    def read(self, change: Change, width: int | None) -> list[Block]:
        """Reads the blocks of a file, memory-mapped."""
        path = self.path / change.name
        blocks = read_people(path, change.checksums, width)
        self._unchecked.append((path, blocks, change.checksums))
        return blocks

    def forget_files(self) -> None:
        """Forgets the files of an earlier generation."""
        self._unchecked = []

    def check_vectors(self) -> None:
        """Compares the vectors of files with their checksums, once per file.

        Raises:
            StoreError: Vectors are damaged.
        """
        while self._unchecked:
            check_vectors_of(*self._unchecked[-1])
            self._unchecked.pop()

    def sweep(self) -> None:
        """Removes files of this gallery that its journal no longer names, and all traces of people.

        Other files are left alone, and so is a file that cannot be removed, on some systems because
        a process has it mapped: the next sweep removes it.

        Raises:
            StoreError: Traces remain in the journal.
        """
        is_clean = True
        with self.writing():  # no other process is writing a file that has no entry yet
            rows = self.connection.execute("SELECT name FROM journal WHERE act = 'file'")
            named = {name for (name,) in rows}
            own = re.compile(rf"\.?{self._token()}-[0-9a-f]{{32}}\.arrow(\.part)?")
            obsolete = _names(self._about())
            for file in sorted(self.path.iterdir()):
                if file.name in named or not (own.fullmatch(file.name) or file.name in obsolete):
                    continue
                try:
                    file.unlink()
                except OSError:
                    is_clean = False
            if is_clean:
                self.connection.execute("DELETE FROM about WHERE key = 'obsolete'")
        self.database.purge()

    def check_erased(self) -> None:
        """Raises StoreError if a sweep had to leave files with removed people."""
        with self.database.snapshot():
            kept = sorted(name for name in _names(self._about()) if (self.path / name).exists())
        if kept:
            raise StoreError(
                f"{self.database.name} still has files with removed people that cannot be deleted: "
                f"{', '.join(kept)}. Stop other processes that use the gallery, then delete again."
            )

    def close(self) -> None:
        """Closes the journal."""
        self.database.close()


def _check_present(journal: Path) -> None:
    """Raises StoreError if there is no journal, or its folder cannot be read."""
    try:
        journal.stat()
        return
    except (FileNotFoundError, NotADirectoryError):
        reason = f"no {JOURNAL}"
    except (OSError, ValueError) as error:  # no permission, or no file can have this name
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
    raise StoreError(
        f"{printable(str(journal.parent))} holds no gallery ({reason}): build one with "
        "`pairmatch gallery build MATCHER PEOPLE --output FOLDER`, or `Gallery.save(folder)`."
    )


def _names(about: Mapping[str, Any]) -> set[str]:
    """Names of files that an earlier version or state of the gallery named."""
    names = about.get("obsolete")
    listed = [str(name) for name in names] if isinstance(names, list) else []
    return {name for name in listed if FILE_NAME.fullmatch(name)}

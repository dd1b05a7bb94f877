"""Exclusions in a file that several processes read and write at once."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from pairmatch.core.errors import ConfigurationError, StoreError
from pairmatch.core.ids import id_text, id_texts
from pairmatch.core.text import has_surrogates, printable
from pairmatch.gallery.exclusions import Exclusions
from pairmatch.io.sqlite import Database, marks

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS exclusions ("
    "person TEXT NOT NULL, other TEXT NOT NULL, PRIMARY KEY (person, other)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS exclusions_by_other ON exclusions (other)",
)


class ExclusionFile:
    """Pairs of people where the second is not shown to the first, in one SQLite file.

    Use it where exclusions grow while people are served; `Exclusions` holds those of one run in
    memory. Pairs are on disk when a call returns, and every other process sees them in its next
    call. Threads may share one object.

    Args:
        path: Path to the file, private to its owner (mode 0600).
        create: Whether to create a missing file.

    Raises:
        StoreError: The file is missing and `create` is false, cannot be opened, is damaged, or
            holds something else: it is not changed then.
    """

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        self.path = Path(path)
        if not create and not self.path.exists():
            raise StoreError(
                f"The exclusions {printable(str(self.path))} do not exist: name another file."
            )
        self._database = Database(
            self.path,
            kind="list of exclusions",
            name=f"The file of exclusions {printable(str(self.path))}",
            version=1,
            schema=_SCHEMA,
            remedy="name another file",
            synchronous="FULL",
            create=create,
        )

    def add(self, pairs: Iterable[tuple[str, str]], *, symmetric: bool = False) -> int:
        """Adds pairs, all or none.

        Args:
            pairs: (id, id of the person who is not shown).
            symmetric: Whether neither is shown to the other.

        Returns:
            Number of pairs (person, other) that are new.

        Raises:
            ConfigurationError: An id is not text, or not valid Unicode.
        """
        return self._change("INSERT OR IGNORE INTO exclusions VALUES (?, ?)", pairs, symmetric)

    def remove(self, pairs: Iterable[tuple[str, str]], *, symmetric: bool = False) -> int:
        """Takes pairs back, all or none; pairs that are not in the file are ignored.

        The people are shown again; `forget` erases every trace of a person.

        Args:
            pairs: (id, id of the person who is shown again).
            symmetric: Whether both are shown to each other again.

        Returns:
            Number of pairs (person, other) that were in the file.

        Raises:
            ConfigurationError: An id is not text, or not valid Unicode.
        """
        return self._change(
            "DELETE FROM exclusions WHERE person = ? AND other = ?", pairs, symmetric
        )

    def _change(self, statement: str, pairs: Iterable[tuple[str, str]], symmetric: bool) -> int:
        """Executes a statement for each pair; returns the number of rows that it changed."""
        rows = [(_checked(person), _checked(other)) for person, other in pairs]
        if symmetric:
            rows += [(other, person) for person, other in rows]
        with self._database.transaction() as connection:
            before = connection.total_changes
            connection.executemany(statement, rows)
            return connection.total_changes - before

    def of(self, person: str) -> set[str]:
        """The ids that are not shown to a person."""
        if has_surrogates(person):
            return set()
        query = "SELECT other FROM exclusions WHERE person = ?"
        return {other for (other,) in self._database.select(query, (_normal(person),))}

    def known(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that are in any pair."""
        wanted = id_texts("known(ids)", ids)
        forms = sorted({_normal(person) for person in wanted if not has_surrogates(person)})
        found = {
            person
            for column in ("person", "other")
            for (person,) in self._database.select_in(
                f"SELECT DISTINCT {column} FROM exclusions WHERE {column} IN ({{}})", forms
            )
        }
        return {person for person in wanted if _normal(person) in found}

    def forget(self, ids: Sequence[str]) -> int:
        """Erases all pairs of people; the file is rewritten, so that no trace of them remains.

        Returns:
            Number of pairs (person, other) erased.

        Raises:
            StoreError: The deletion fails, or another process keeps traces in use.
        """
        wanted = id_texts("forget(ids)", ids)
        forms = sorted({_normal(person) for person in wanted if not has_surrogates(person)})
        count = 0
        with self._database.transaction() as connection:
            for start in range(0, len(forms), 200):
                part = forms[start : start + 200]
                condition = f"person IN ({marks(part)}) OR other IN ({marks(part)})"
                query = f"DELETE FROM exclusions WHERE {condition}"
                count += connection.execute(query, [*part, *part]).rowcount
        self._database.purge()
        return count

    def exclusions(self) -> Exclusions:
        """All pairs of this moment, for `recommend_all` and `Matcher.recommend`."""
        return Exclusions(self.pairs())

    def pairs(self) -> list[tuple[str, str]]:
        """All pairs (person, other) of this moment."""
        return self._database.select("SELECT person, other FROM exclusions")

    def __len__(self) -> int:
        """Number of pairs (person, other)."""
        return int(self._database.select("SELECT count(*) FROM exclusions")[0][0])

    def close(self) -> None:
        """Closes the file; the object cannot be used afterwards."""
        self._database.close()


def _checked(person: object) -> str:
    text = id_text(person)
    if not text.strip() or has_surrogates(text):
        raise ConfigurationError(
            f"An exclusion needs two ids of valid Unicode, got {printable(repr(text))[:100]}."
        )
    return _normal(text)


def _normal(person: str) -> str:
    return unicodedata.normalize("NFC", person)

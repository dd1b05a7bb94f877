"""Pairs of people that must not be shown to each other: seen before, or blocked."""

from __future__ import annotations

import hashlib
import json
import logging
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.ids import id_text, id_texts
from pairmatch.core.text import printable
from pairmatch.io.sqlite_files import is_database
from pairmatch.io.tables import read_table, words_for_missing

_IDS_AT_ONCE = 1000
_log = logging.getLogger(__name__)

Present = Callable[[Collection[str]], set[str]]


class Exclusions:
    """Pairs of people where the second is not shown to the first.

    Args:
        pairs: (id, id of the person who is not shown).
        symmetric: Whether neither is shown to the other. Use it for blocks rather than for
            candidates that were seen before.

    Raises:
        ConfigurationError: A pair is not two ids.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = (), *, symmetric: bool = False) -> None:
        self._excluded: dict[str, set[str]] = {}
        for pair in pairs:
            if isinstance(pair, str) or len(pair) != 2:
                raise ConfigurationError(
                    f"`Exclusions(pairs)` takes pairs of ids, got {printable(repr(pair))[:100]}."
                )
            self.add(*pair, symmetric=symmetric)

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        symmetric: bool = False,
        keep_words: Collection[str] = (),
        columns: Mapping[str, str] | None = None,
    ) -> Exclusions:
        """Reads a .csv, .parquet or .jsonl file with the columns `id` and `other`.

        The file of an [`ExclusionFile`][pairmatch.gallery.exclusion_file.ExclusionFile] is read
        too.

        Args:
            path: Path to the file, to a folder of such files, or a pattern.
            symmetric: Whether neither person is shown to the other.
            keep_words: Ids that would stand for a missing value, such as `None`.
            columns: Names of columns by their names in the file: `{"viewer": "id"}`. Those that the
                file lacks are of other tables.

        Raises:
            ConfigurationError: `keep_words` has a word that is always a value.
            DataError: The file cannot be read, lacks a column, or has blank cells.
            StoreError: The file is a database of something else.
        """
        if is_database(Path(path)):
            from pairmatch.gallery.exclusion_file import ExclusionFile

            file = ExclusionFile(path, create=False)
            try:
                return cls(file.pairs(), symmetric=symmetric)
            finally:
                file.close()
        names = ("id", "other")
        table = read_table(
            Path(path),
            ids=names,
            missing_words=words_for_missing(keep_words),
            renamed=columns,
        )
        missing = [name for name in names if name not in table.columns]
        if missing:
            raise DataError(
                f"{path}: exclusions need the columns id and other; {' and '.join(missing)} is "
                "missing. Rename others with columns= (--column)."
            )
        for row, cells in enumerate(zip(*map(table.column, names), strict=True)):
            for name, cell in zip(names, cells, strict=True):
                if cell is None:
                    table.report_missing_id(row, name)
        if table.problems:
            raise DataError(f"{path} cannot be used:", table.messages())
        pairs = zip(table.column("id"), table.column("other"), strict=True)
        return cls(pairs, symmetric=symmetric)

    def add(self, person: str, other: str, *, symmetric: bool = False) -> None:
        """Adds a pair: `other` is not shown to `person`, and if symmetric, nor vice versa.

        Raises:
            ConfigurationError: One of the two is not an id.
        """
        person, other = _normal(id_text(person)), _normal(id_text(other))
        self._excluded.setdefault(person, set()).add(other)
        if symmetric:
            self._excluded.setdefault(other, set()).add(person)

    def forget(self, ids: Iterable[str]) -> None:
        """Removes all pairs of people."""
        forgotten = set(map(_normal, id_texts("forget(ids)", ids)))
        self._excluded = {
            person: kept
            for person, others in self._excluded.items()
            if person not in forgotten and (kept := others - forgotten)
        }

    def of(self, person: str) -> Collection[str]:
        """Returns the ids that are not shown to a person."""
        return self._excluded.get(_normal(person), frozenset())

    def ids(self) -> Iterator[str]:
        """Ids of all people of all pairs, some of them several times."""
        for person, others in self._excluded.items():
            yield person
            yield from others

    def check(self, present: Present, place: str) -> None:
        """Compares the pairs with the people that they are for, and reports those of others.

        Pairs of people who are not there are kept: they may be added later.

        Args:
            present: Function of ids; returns those that are there.
            place: Where, such as "in the galleries".

        Raises:
            ConfigurationError: Not a single id is there.
        """
        if not self._excluded:
            return
        known = present(set(self.ids()))
        if not known:
            raise _nobody(len(self), next(self.ids()), place)
        matched = sum(
            len(known.intersection(others))
            for person, others in self._excluded.items()
            if person in known
        )
        if matched < len(self):
            _log.warning(
                "%d of %d exclusions concern people who are not %s, and hide no one there for now.",
                len(self) - matched,
                len(self),
                place,
            )

    def digest(self) -> str:
        """Returns a hash of the pairs that does not depend on their order."""
        pairs = sorted(
            (person, other) for person, others in self._excluded.items() for other in others
        )
        return hashlib.blake2b(json.dumps(pairs).encode(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        """Number of pairs (person, other)."""
        return sum(map(len, self._excluded.values()))


def hidden_from(
    person: str, exclude: Exclusions | Iterable[str], present: Present, place: str
) -> set[str]:
    """Ids that are not shown to one person, after a comparison with the candidates.

    Args:
        person: Id of the person.
        exclude: Exclusions of many people, or ids that are not shown to this person.
        present: Function of ids; returns those of candidates.
        place: Where the candidates are, such as "among the candidates".

    Raises:
        ConfigurationError: `exclude` is not a list of ids, or matches no candidate at all.
    """
    if isinstance(exclude, str):
        raise ConfigurationError(f"`exclude` takes ids: write exclude=[{exclude!r}].")
    of_person = isinstance(exclude, Exclusions)
    hidden = set(
        exclude.of(person)
        if isinstance(exclude, Exclusions)
        else id_texts("recommend(exclude=...)", exclude)
    )
    known = present(hidden) if hidden else set()
    if isinstance(exclude, Exclusions) and not hidden and len(exclude):
        # Other people have exclusions; if no id of these is known, ids are written differently
        ids = exclude.ids()
        while not known:
            part = set(islice(ids, _IDS_AT_ONCE))
            if not part:
                raise _nobody(len(exclude), next(exclude.ids()), place)
            known = present(part) | ({person} & part)
        return hidden
    if hidden and not known and not of_person:
        raise _nobody(len(hidden), min(hidden), place)
    if len(known) < len(hidden):
        _log.warning(
            "%d of %d people who are not to be shown to %s are not %s.",
            len(hidden) - len(known),
            len(hidden),
            printable(person) or "the query person",
            place,
        )
    return hidden


def _normal(person: str) -> str:
    """An id in Unicode normal form C, as files have it."""
    return unicodedata.normalize("NFC", person)


def _nobody(count: int, example: str, place: str) -> ConfigurationError:
    return ConfigurationError(
        f"The {count:,} exclusions match no one: none of their ids is {place}. Write the ids as "
        f"they are written there (1 and 1.0 are two ids); one of the exclusions has {example!r}."
    )

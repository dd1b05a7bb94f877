"""Names of columns: as files have them, and as readers know them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from pairmatch.core.errors import DataError
from pairmatch.io.parts import location_of

# Names that programs give to columns without one: pandas' index and blank headers, readr's `...1`;
# with `_a` or `_b` once two tables were merged into pairs
_UNNAMED = re.compile(r"|(Unnamed: \d+(\.\d+)?(_level_\d+)?|__index_level_\d+__|\.\.\.\d+)(_[ab])?")


class Header:
    """Names of the columns of a table, which may have several files.

    Args:
        sources: Receives the names that files have, before they are renamed.
        renamed: Names of columns by their names in the file; others keep their names.
        known: Names that are read in capital letters, too.

    Attributes:
        unnamed: Number of values in each column without a name.
        columns: Names of the columns of each file with rows.
    """

    def __init__(
        self, sources: list[str], renamed: Mapping[str, str], known: Collection[str]
    ) -> None:
        self.unnamed: Counter[str] = Counter()
        self.columns: dict[str, list[str]] = {}
        self._sources = sources
        self._renamed = renamed
        self._known = known

    def names(self, columns: Sequence[str], path: Path) -> list[str]:
        """Names of the columns of a file; blank for those that have none.

        Raises:
            DataError: Two columns would have one name, which only one of them has in the file.
        """
        sources = [unicodedata.normalize("NFC", column.strip()) for column in columns]
        names: list[str] = []
        first: dict[str, str] = {}
        for number, source in enumerate(sources, 1):
            if source not in self._renamed and _UNNAMED.fullmatch(source):
                self.unnamed[source or f"column {number}"] += 0
                names.append("")
                continue
            name = self._renamed.get(source) or self._lower(source, sources)
            other = first.setdefault(name, source)
            if other != source:
                raise DataError(
                    f"{location_of(path)}: the columns {other!r} and {source!r} would both be "
                    f"{name!r}: give one of them another name with columns= (--column)."
                )
            if source not in self._sources:
                self._sources.append(source)
            names.append(name)
        return names

    def lacking(self) -> Iterator[str]:
        """The problem of each column that only some of the files have."""
        for column in dict.fromkeys(chain.from_iterable(self.columns.values())):
            files = [file for file, columns in self.columns.items() if column not in columns]
            if files:
                other = next(file for file, columns in self.columns.items() if column in columns)
                more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
                yield (
                    f"{files[0]}{more} without the column {column!r}, which {other} has: the files "
                    "of a table have the same columns."
                )

    def _lower(self, source: str, sources: Collection[str]) -> str:
        """A name that the reader knows in small letters, unless the file has that name, too."""
        name = source.lower()
        if name in self._known:
            return source if name in sources else name
        if "id_a" in self._known and source.endswith(("_A", "_B")):
            return source[:-2] + source[-2:].lower()
        return source

"""A gallery in LanceDB, for more candidates than memory holds."""

from __future__ import annotations

import itertools
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import ConfigurationError, missing_extra
from pairmatch.core.types import AttributeValue, Side
from pairmatch.gallery.blocks import Chunk, Entry, chunks_of, vectors_of
from pairmatch.gallery.folder import Folder
from pairmatch.gallery.gallery import Gallery
from pairmatch.gallery.index import Additions
from pairmatch.gallery.lance_columns import (
    attribute_fields,
    check_schema,
    description_of,
    kinds_of,
    rows_of,
    table_schema,
    width_of,
)
from pairmatch.gallery.lance_errors import is_of_lance, lance_errors
from pairmatch.gallery.lance_index import build_index, is_indexed
from pairmatch.gallery.lance_search import (
    SCAN_ROWS,
    batches,
    entries_in,
    ids_in,
    one_of,
    people_of,
    scan,
    search_table,
)
from pairmatch.gallery.request import SearchRequest
from pairmatch.gallery.results import SearchResult
from pairmatch.io.files import is_present
from pairmatch.io.outputs import claim_folder
from pairmatch.rules import Kind

_TABLE = "gallery"
_FOLDER_KIND = "lance gallery"
_ATTEMPTS = 3  # readings of a table that other processes rewrite
_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


@final
class LanceGallery(Gallery):
    """Candidates in a LanceDB folder, for galleries far larger than memory.

    Without an index, a search reads the vectors of all eligible candidates in blocks and is exact.
    After `build_index` it is approximate and fast: measure its recall on your own vectors. Searches
    with a bonus remain exact. Changes are on disk when a call returns, and other processes see them
    in their next call. Numeric attributes are returned as floats; people that are replaced in one
    call come last, in no particular order.

    Args:
        folder: Path to the folder, created if it is missing.
        side: Side of the candidates; by default that of an existing gallery, or "b".
        made_by: Digest of the head that embedded the candidates; by default that of an existing
            gallery.

    Raises:
        MissingExtraError: lancedb is not installed.
        ConfigurationError: The gallery exists with another `side` or `made_by`, or the folder holds
            files that pairmatch did not write.
        StoreError: The folder holds a damaged gallery, or a table that is no gallery.
    """

    def __init__(
        self, folder: str | Path, *, side: Side | None = None, made_by: str | None = None
    ) -> None:
        super().__init__(side=side or "b", made_by=made_by)
        try:
            import lancedb
        except ImportError as error:
            raise missing_extra("LanceGallery", "lancedb", "lance") from error
        self.folder = Path(folder)
        if not self.exists(self.folder):
            claim_folder(self.folder, _FOLDER_KIND, private=True)
        # With an interval of zero, each call sees the changes of other processes
        self._database = lancedb.connect(str(self.folder), read_consistency_interval=timedelta(0))
        self._table: Any = None
        self._open_table()
        for name, value in (("side", side), ("made_by", made_by)):
            kept = getattr(self, name)
            if value is not None and value != kept:
                raise ConfigurationError(
                    f"The gallery {self.folder} has {name}={kept!r}, got {value!r}: leave out "
                    f"`{name}`, or use another folder."
                )

    @classmethod
    def exists(cls, folder: str | Path) -> bool:
        """Whether a folder holds a LanceGallery."""
        table = Path(folder) / f"{_TABLE}.lance"
        return is_present(table) and table.is_dir()

    def build_index(self, index_type: str = "IVF_PQ", **options: Any) -> None:
        """Builds LanceDB's approximate index; later searches without a bonus use it.

        Args:
            index_type: Type of the index in LanceDB, such as "IVF_HNSW_SQ".
            options: Options of that type in lancedb, such as `num_partitions=256`.

        Raises:
            ConfigurationError: The gallery is empty, or LanceDB has no such type of index.
        """
        table = self._open_table()
        if table is None:
            raise ConfigurationError("`build_index` needs people: add some first.")
        build_index(table, index_type, options)

    def forget(self, ids: Iterable[str]) -> int:
        """Removes people and rewrites all files, so that none holds removed people.

        This drops the index: call `build_index` again. No other process may write during the call.

        Returns:
            Number of people that were in the gallery.
        """
        count = self.remove(ids)
        with self._lock, lance_errors(self.folder):
            table = self._open_table()
            if table is not None:
                if is_indexed(table):
                    _log.warning("The index of %s was dropped: call build_index again", self.folder)
                people = table.search().to_batches(SCAN_ROWS)
                self._table = self._database.create_table(
                    _TABLE, people, schema=table.schema, mode="overwrite"
                )
                self._make_private()
                self._compact(delete_unverified=True)
        return count

    def _known(self, ids: Sequence[str]) -> set[str]:
        """Looks in the earlier versions of the table as well, newest first."""

        def read(table: Any) -> set[str]:
            held: set[str] = set()
            missing = list(ids)
            versions = {version["version"] for version in table.list_versions()}
            for version in sorted(versions | {table.version}, reverse=True):
                table.checkout(version)
                if "id" in table.schema.names:
                    held |= ids_in(table, missing)
                missing = [person for person in missing if person not in held]
                if not missing:
                    break
            return held

        return self._read(read, set())

    def save(self, folder: str | Path | None = None) -> Path:
        """Writes all people to a folder for `Gallery.open`, or compacts the gallery's own files.

        Args:
            folder: Folder, created if it is missing; a gallery in it is replaced. None compacts the
                files of this gallery and drops their old versions. They may still hold removed
                people; `forget` erases these.

        Returns:
            The folder.
        """
        if folder is None:
            self._compact()
            return self.folder
        path = self.check_target(folder)
        table = self._snapshot()
        target = Folder(path, create=True)
        with target.writing():
            width = None if table is None else width_of(table.schema)
            target.replace([], side=self.side, made_by=self.made_by, width=width)
            if table is not None:
                blocks = self._guarded(scan(table))
                first = next(blocks, None)
                if first is not None:
                    target.append_file(itertools.chain([first], blocks), first.people.schema)
        target.sweep()
        target.close()
        return target.path

    def _compact(self, *, delete_unverified: bool = False) -> None:
        """Merges the table's files and deletes old versions.

        Args:
            delete_unverified: Whether to delete what killed writers left as well. A writer that is
                at work would fail.
        """
        table = self._open_table()
        if table is not None:
            with warnings.catch_warnings(), lance_errors(self.folder):
                # LanceDB warns that processes that read an old version will fail
                warnings.filterwarnings("ignore", "optimize")
                table.optimize(cleanup_older_than=timedelta(0), delete_unverified=delete_unverified)

    def chunks(self, rows: int = 1024) -> Iterator[Chunk]:
        table = self._snapshot()
        return iter(()) if table is None else self._guarded(chunks_of(scan(table), rows))

    @property
    def ids(self) -> list[str]:
        def read(table: Any) -> list[str]:
            parts = batches(table, ["id"])
            return [person for part in parts for person in part.column("id").to_pylist()]

        return self._read(read, [])

    @property
    def embeddings(self) -> Vectors:
        def read(table: Any) -> Vectors:
            parts = [vectors_of(part.column("vector")) for part in batches(table, ["vector"])]
            return np.concatenate([np.empty((0, width_of(table.schema)), np.float32), *parts])

        return self._read(read, np.empty((0, 0), np.float32))

    @property
    def attribute_kinds(self) -> dict[str, Kind]:
        table = self._open_table()
        return {} if table is None else kinds_of(table.schema)

    @property
    def width(self) -> int | None:
        table = self._open_table()
        return None if table is None else width_of(table.schema)

    def __len__(self) -> int:
        return self._read(lambda table: int(table.count_rows()), 0)

    def _open_table(self) -> Any:
        """Returns the table, always at its latest version; None until people are added."""
        with self._lock:
            if self._table is None and self.exists(self.folder):
                with lance_errors(self.folder):
                    table = self._database.open_table(_TABLE)
                    check_schema(table.schema)
                    about = description_of(table.schema)
                self._table = table
                if about is not None:  # galleries of older versions do not have it
                    self.side = about["side"]
                    self.made_by = about["made_by"]
            return self._table

    def _snapshot(self) -> Any:
        """Returns the table fixed at its present version; None until people are added."""
        if self._open_table() is None:
            return None
        with lance_errors(self.folder):
            table = self._database.open_table(_TABLE)
            table.checkout(table.version)
        return table

    def _read(self, read: Callable[[Any], _Result], empty: _Result) -> _Result:
        """Reads one version of the table; again, if another process deleted its files."""
        for _ in range(_ATTEMPTS - 1):
            table = self._snapshot()
            if table is None:
                return empty
            try:
                return read(table)
            except Exception as error:
                if not is_of_lance(error):
                    raise
        table = self._snapshot()
        with lance_errors(self.folder):
            return empty if table is None else read(table)

    def _guarded(self, parts: Iterator[_Result]) -> Iterator[_Result]:
        """Yields parts of the table; errors of LanceDB become those of pairmatch."""
        with lance_errors(self.folder):
            yield from parts

    def _make_private(self) -> None:
        """Lets only the owner enter the table's folder: LanceDB creates files by the umask."""
        (self.folder / f"{_TABLE}.lance").chmod(0o700)

    def _add(self, additions: Additions) -> Additions:
        with lance_errors(self.folder):
            return self._merge(additions)

    def _merge(self, additions: Additions) -> Additions:
        """Inserts people, or replaces those with the same id."""
        table = self._open_table()
        if table is None:
            additions, kinds = additions.fitted(None, {})
            about = json.dumps({"side": self.side, "made_by": self.made_by})
            schema = table_schema(kinds, additions.vectors.shape[1], about)
            self._table = self._database.create_table(_TABLE, rows_of(additions, schema))
            self._make_private()
            return additions
        existing = kinds_of(table.schema)
        additions, kinds = additions.fitted(width_of(table.schema), existing)
        added = {name: kind for name, kind in kinds.items() if name not in existing}
        if added:
            table.add_columns(attribute_fields(added))
        merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(rows_of(additions, table.schema))
        return additions

    def _remove(self, ids: Sequence[str]) -> int:
        table = self._open_table()
        if table is None or not ids:
            return 0
        with lance_errors(self.folder):
            count = int(table.count_rows(one_of(ids)))
            if count:
                table.delete(one_of(ids))
        return count

    def _attributes(self, ids: Sequence[str]) -> dict[str, dict[str, AttributeValue]]:
        return self._read(lambda table: dict(people_of(table, one_of(ids))), {})

    def _entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        return self._read(lambda table: entries_in(table, ids), {})

    def _present(self, ids: Sequence[str]) -> set[str]:
        return self._read(lambda table: ids_in(table, ids), set())

    def _people(self) -> Iterator[tuple[str, dict[str, AttributeValue]]]:
        table = self._snapshot()
        if table is not None:
            yield from self._guarded(people_of(table))

    def _search(self, request: SearchRequest) -> SearchResult:
        def read(table: Any) -> SearchResult:
            result = search_table(table, request)
            if not request.with_attributes:
                return result
            return result.with_attributes(dict(people_of(table, one_of(result.people))))

        if self._open_table() is None:
            request.checked_bonus(0)
        return self._read(read, SearchResult.empty(len(request.queries), 0, "no candidates"))

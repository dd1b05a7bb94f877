"""A gallery in LanceDB, for more candidates than memory holds."""

from __future__ import annotations

import itertools
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import ConfigurationError, missing_extra
from pairmatch.core.types import AttributeValue, Side
from pairmatch.gallery.attributes import attributes_of
from pairmatch.gallery.blocks import Block, Chunk, chunks_of, vectors_of
from pairmatch.gallery.folder import Folder
from pairmatch.gallery.gallery import Gallery
from pairmatch.gallery.index import Additions
from pairmatch.gallery.lance_columns import (
    METADATA_KEY,
    attribute_fields,
    block_of,
    column_names,
    kinds_of,
    rows_of,
    sql_columns,
    table_schema,
    width_of,
)
from pairmatch.gallery.lance_filters import LanceFilters, one_of
from pairmatch.gallery.lance_index import build_index, is_indexed, nearest
from pairmatch.gallery.ranking import rank_stream
from pairmatch.gallery.request import SearchRequest
from pairmatch.gallery.results import SearchResult
from pairmatch.rules import Kind

_TABLE = "gallery"
_SCAN_ROWS = 65_536  # people that a scan holds in memory at once
_log = logging.getLogger(__name__)


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
        ConfigurationError: The gallery exists with another `side` or `made_by`.
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
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
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
        return (Path(folder) / f"{_TABLE}.lance").is_dir()

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
        with self._lock:
            table = self._open_table()
            if table is not None:
                if is_indexed(table):
                    _log.warning("The index of %s was dropped: call build_index again", self.folder)
                people = table.search().to_batches(_SCAN_ROWS)
                self._table = self._database.create_table(
                    _TABLE, people, schema=table.schema, mode="overwrite"
                )
                self._make_private()
                self.save()
        return count

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
            table = self._open_table()
            if table is not None:
                with warnings.catch_warnings():
                    # LanceDB warns that processes that read an old version will fail
                    warnings.filterwarnings("ignore", "optimize")
                    table.optimize(cleanup_older_than=timedelta(0))
            return self.folder
        target = Folder(self._check_target(folder), create=True)
        with target.writing():
            target.replace([], side=self.side, made_by=self.made_by, width=self.width)
            blocks = self._scan()
            first = next(blocks, None)
            if first is not None:
                target.append_file(itertools.chain([first], blocks), first.people.schema)
        target.sweep()
        target.close()
        return target.path

    def chunks(self, rows: int = 1024) -> Iterator[Chunk]:
        return chunks_of(self._scan(), rows)

    @property
    def ids(self) -> list[str]:
        return [
            person for batch in self._batches(["id"]) for person in batch.column("id").to_pylist()
        ]

    @property
    def embeddings(self) -> Vectors:
        parts = [vectors_of(batch.column("vector")) for batch in self._batches(["vector"])]
        return np.concatenate(parts) if parts else np.empty((0, self.width or 0), np.float32)

    @property
    def attribute_kinds(self) -> dict[str, Kind]:
        table = self._open_table()
        return {} if table is None else kinds_of(table.schema)

    @property
    def width(self) -> int | None:
        table = self._open_table()
        return None if table is None else width_of(table.schema)

    def __len__(self) -> int:
        table = self._open_table()
        return 0 if table is None else int(table.count_rows())

    def _open_table(self) -> Any:
        """Returns the table; None until people are added."""
        with self._lock:
            if self._table is None and self.exists(self.folder):
                self._table = self._database.open_table(_TABLE)
                about = (self._table.schema.metadata or {}).get(METADATA_KEY)
                if about is not None:  # galleries of older versions do not have it
                    values = json.loads(about)
                    self.side = values["side"]
                    self.made_by = values["made_by"]
            return self._table

    def _make_private(self) -> None:
        """Lets only the owner enter the table's folder: LanceDB creates files by the umask."""
        (self.folder / f"{_TABLE}.lance").chmod(0o700)

    def _add(self, additions: Additions) -> None:
        table = self._open_table()
        if table is None:
            kinds = additions.check(None, {})
            about = json.dumps({"side": self.side, "made_by": self.made_by})
            schema = table_schema(kinds, additions.vectors.shape[1], about)
            self._table = self._database.create_table(_TABLE, rows_of(additions, schema))
            self._make_private()
            return
        existing = kinds_of(table.schema)
        kinds = additions.check(width_of(table.schema), existing)
        added = {name: kind for name, kind in kinds.items() if name not in existing}
        if added:
            table.add_columns(attribute_fields(added))
        merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(rows_of(additions, table.schema))

    def _remove(self, ids: Sequence[str]) -> int:
        table = self._open_table()
        if table is None or not ids:
            return 0
        count = int(table.count_rows(one_of(ids)))
        if count:
            table.delete(one_of(ids))
        return count

    def _attributes(self, ids: Sequence[str]) -> dict[str, dict[str, AttributeValue]]:
        return dict(self._people(where=one_of(ids)))

    def _people(self, where: str | None = None) -> Iterator[tuple[str, dict[str, AttributeValue]]]:
        table = self._open_table()
        if table is None:
            return
        columns = [name for name in table.schema.names if name != "vector"]
        for batch in self._batches(columns, where=where):
            people = block_of([batch]).people
            yield from zip(people["id"].to_pylist(), attributes_of(people), strict=True)

    def _search(self, request: SearchRequest) -> SearchResult:
        table = self._open_table()
        if table is None:
            request.checked_bonus(0)
            return SearchResult.empty(len(request.queries), request.k, "no candidates")
        schema = table.schema
        request.check(width_of(schema), kinds_of(schema), is_new=False)
        if request.bonus is not None:
            return self._search_exactly(request, request.checked_bonus(len(self)))
        filters = LanceFilters(table, request, sql_columns(schema))
        if not filters.is_supported():
            return self._search_exactly(request)
        if is_indexed(table):
            return self._search_index(request, filters)
        if request.rule is not None and len(request.groups) == 1:
            return self._search_filtered(request, filters)
        return self._search_exactly(request)

    def _search_exactly(self, request: SearchRequest, bonus: Vectors | None = None) -> SearchResult:
        """Reads all candidates and applies the rule here, for each query person."""
        ranking, finalists = rank_stream(self._scan(request.attributes), request, bonus)
        return ranking.result(finalists, request.filters)

    def _search_filtered(self, request: SearchRequest, filters: LanceFilters) -> SearchResult:
        """Reads the eligible candidates of one query person, exactly."""
        person = request.groups[0].person
        request = request.without_rule()
        ranking, finalists = rank_stream(self._scan((), filters.condition(person)), request)
        result = ranking.result(finalists, request.filters)
        if not ranking.remaining.any():
            return SearchResult.empty(len(result.ids), request.k, filters.excluded_by(person))
        return result

    def _search_index(self, request: SearchRequest, filters: LanceFilters) -> SearchResult:
        result = SearchResult.empty(len(request.queries), request.k, "")
        excluded_by: list[str | None] = [None] * len(request.queries)
        for group in request.groups:
            for query in group.queries:
                excluded = () if request.excluded is None else request.excluded[query]
                condition = filters.condition(group.person, excluded)
                result.eligible[query] = self._table.count_rows(condition)
                if not result.eligible[query]:
                    excluded_by[query] = filters.excluded_by(group.person)
                    continue
                ids, scores = nearest(self._table, request.queries[query], request.k, condition)
                result.ids[query, : len(ids)] = ids
                result.scores[query, : len(ids)] = scores
        return SearchResult(result.ids, result.scores, result.eligible, tuple(excluded_by))

    def _scan(
        self, attributes: Sequence[str] | None = None, where: str | None = None
    ) -> Iterator[Block]:
        """Yields the people of one version of the table in order, in large blocks.

        Args:
            attributes: Names of attributes to read; None reads all.
            where: SQL condition.
        """
        table = self._open_table()
        if table is None:
            return
        columns = column_names(table.schema)
        names = columns if attributes is None else attributes
        selected = ["id", "vector", *(columns[name] for name in names if name in columns)]
        waiting: list[pa.RecordBatch] = []
        for batch in self._batches(selected, where):
            if waiting and sum(map(len, waiting)) + len(batch) > _SCAN_ROWS:
                yield block_of(waiting)
                waiting = []
            waiting.append(batch)
        if waiting:
            yield block_of(waiting)

    def _batches(self, columns: list[str], where: str | None = None) -> Iterator[pa.RecordBatch]:
        table = self._open_table()
        if table is None:
            return
        search = table.search().select(columns)
        if where is not None:
            search = search.where(where)
        yield from (batch for batch in search.to_batches(_SCAN_ROWS) if len(batch))

"""Searches one version of a LanceDB table.

LanceDB stores and reads people; rules are evaluated here, as in all galleries, because the SQL of
its versions differs in what null, NaN and a division by zero mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pairmatch.core.arrays import Ints, Vectors
from pairmatch.core.types import AttributeValue
from pairmatch.gallery.attributes import attributes_of
from pairmatch.gallery.blocks import Block, Entry
from pairmatch.gallery.lance_columns import block_of, column_names, kinds_of, width_of
from pairmatch.gallery.lance_index import is_indexed, nearest
from pairmatch.gallery.ranking import first_empty, rank_stream, select
from pairmatch.gallery.request import QueryGroup, SearchRequest
from pairmatch.gallery.results import SearchResult

ROW = "_rowid"
#: People that a scan holds in memory at once.
SCAN_ROWS = 65_536
_MAX_TAKEN = 16_384  # eligible people; up to this number, their vectors are read one by one
_MAX_TAKEN_SHARE = 0.25  # of all people; above it, reading all vectors in order is faster


def scan(table: Any, attributes: Sequence[str] | None = None) -> Iterator[Block]:
    """Yields the people of a table in order, in large blocks.

    Args:
        table: The LanceDB table.
        attributes: Names of attributes to read; None reads all.
    """
    columns = column_names(table.schema)
    names = columns if attributes is None else attributes
    selected = ["id", "vector", *(columns[name] for name in names if name in columns)]
    waiting: list[pa.RecordBatch] = []
    for batch in batches(table, selected):
        if waiting and sum(map(len, waiting)) + len(batch) > SCAN_ROWS:
            yield block_of(waiting)
            waiting = []
        waiting.append(batch)
    if waiting:
        yield block_of(waiting)


def batches(
    table: Any, columns: Sequence[str], where: str | None = None, *, with_rows: bool = False
) -> Iterator[pa.RecordBatch]:
    """Yields some columns of a table in order; `with_rows` adds the row ids as `_rowid`."""
    query = table.search().select(list(columns))
    if where is not None:
        query = query.where(where)
    if with_rows:
        query = query.with_row_id(True)
    yield from (batch for batch in query.to_batches(SCAN_ROWS) if len(batch))


def search_table(table: Any, request: SearchRequest) -> SearchResult:
    """The best eligible candidates of each query in one version of a table."""
    schema = table.schema
    count = int(table.count_rows())
    request = request.fitted(width_of(schema), kinds_of(schema), is_new=False).capped(count)
    if request.bonus is not None:
        return _search_exactly(table, request, request.checked_bonus(count))
    indexed = is_indexed(table)
    if not indexed and (request.rule is None or len(request.groups) > 1):
        return _search_exactly(table, request)
    result = SearchResult.empty(len(request.queries), request.k, "")
    excluded_by: list[str | None] = [None] * len(request.queries)
    for group in request.groups:
        part = _search_group(table, request.of_group(group), group, count, indexed=indexed)
        result.ids[group.queries] = part.ids
        result.scores[group.queries] = part.scores
        result.eligible[group.queries] = part.eligible
        for query, name in zip(group.queries, part.excluded_by, strict=True):
            excluded_by[query] = name
    return SearchResult(result.ids, result.scores, result.eligible, tuple(excluded_by))


def _search_exactly(
    table: Any, request: SearchRequest, bonus: Vectors | None = None
) -> SearchResult:
    """Reads all candidates and applies the rule to each block."""
    ranking, finalists = rank_stream(scan(table, request.attributes), request, bonus)
    return ranking.result(finalists, request.filters)


def _search_group(
    table: Any, request: SearchRequest, group: QueryGroup, count: int, *, indexed: bool
) -> SearchResult:
    """Searches for queries whose eligible candidates are the same."""
    if request.rule is None:
        return _search_index(table, request, None, count) or _search_exactly(table, request)
    most = None if indexed else int(_MAX_TAKEN_SHARE * count)
    rows, remaining = _eligible_rows(table, request, group, most)
    if len(rows) <= (_MAX_TAKEN if most is None else most):
        ranking, finalists = rank_stream(_taken(table, rows), request.without_rule())
        result = ranking.result(finalists, ("no candidates",))
        excluded_by = tuple(
            None if eligible else first_empty(request.filters, remaining)
            for eligible in result.eligible
        )
        return SearchResult(result.ids, result.scores, result.eligible, excluded_by)
    indexed_result = _search_index(table, request, np.sort(rows), count) if indexed else None
    return indexed_result or _search_exactly(table, request)


def _eligible_rows(
    table: Any, request: SearchRequest, group: QueryGroup, most: int | None
) -> tuple[Ints, Ints]:
    """Row ids of the candidates that satisfy the rule, and their number after each filter.

    It stops at the first batch with which there are more than `most`.
    """
    columns = column_names(table.schema)
    names = [columns[name] for name in request.attributes if name in columns]
    rows: list[Ints] = []
    remaining = np.zeros(len(request.filters), np.int64)
    for batch in batches(table, ["id", *names], with_rows=True):
        block = block_of([batch.drop_columns([ROW])])
        selection = select([block], request.rule, group.person, mutual=request.mutual)
        remaining += selection.remaining
        rows.append(_row_ids(batch)[selection.rows])
        if most is not None and sum(map(len, rows)) > most:
            break
    return np.concatenate([np.empty(0, np.int64), *rows]), remaining


def _taken(table: Any, rows: Ints) -> Iterator[Block]:
    """Yields people with their vectors by row ids, in the order of the row ids given."""
    for start in range(0, len(rows), SCAN_ROWS):
        part = rows[start : start + SCAN_ROWS]
        query = table.take_row_ids(part.tolist()).select(["id", "vector"]).with_row_id()
        taken = query.to_arrow().combine_chunks()
        found = _row_ids(taken)
        sorter = np.argsort(found)
        order = sorter[np.searchsorted(found, part, sorter=sorter)]
        yield block_of(taken.drop_columns([ROW]).take(pa.array(order)).to_batches())


def _search_index(
    table: Any, request: SearchRequest, allowed: Ints | None, count: int
) -> SearchResult | None:
    """Asks the index for more and more candidates until k of them are eligible.

    Args:
        table: The LanceDB table.
        request: Queries with the same eligible candidates.
        allowed: Row ids of the candidates that satisfy the rule, sorted; None allows all.
        count: Number of people in the table.

    Returns:
        The result; None if the index does not find k eligible candidates of a query.
    """
    result = SearchResult.empty(len(request.queries), request.k, "exclusions")
    for number, query in enumerate(request.queries):
        hidden = _rows_of(table, () if request.excluded is None else request.excluded[number])
        shown = count if allowed is None else len(allowed)
        shown -= len(hidden if allowed is None else np.intersect1d(allowed, hidden))
        result.eligible[number] = shown
        wanted = min(request.k, shown)
        limit = wanted + len(hidden)
        while wanted:
            ids, scores, found = nearest(table, query, limit)
            kept = ~np.isin(found, hidden)
            if allowed is not None:
                kept &= np.isin(found, allowed)
            places = np.flatnonzero(kept)[:wanted]
            if len(places) == wanted:
                result.ids[number, :wanted] = ids[places]
                result.scores[number, :wanted] = scores[places]
                break
            if len(found) < limit or limit >= count:
                return None
            limit = min(4 * limit, count)
    excluded_by = tuple(None if shown else "exclusions" for shown in result.eligible)
    return SearchResult(result.ids, result.scores, result.eligible, excluded_by)


def _rows_of(table: Any, ids: Iterable[str]) -> Ints:
    """Row ids of people, sorted."""
    wanted = sorted(set(ids))
    if not wanted:
        return np.empty(0, np.int64)
    found = batches(table, ["id"], one_of(wanted), with_rows=True)
    return np.sort(np.concatenate([np.empty(0, np.int64), *map(_row_ids, found)]))


def _row_ids(rows: pa.RecordBatch | pa.Table) -> Ints:
    numbers: Ints = rows.column(ROW).to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers


def ids_in(table: Any, ids: Sequence[str]) -> set[str]:
    """Those of the ids that one version of a table has."""
    parts = batches(table, ["id"], one_of(ids))
    return {person for part in parts for person in part.column("id").to_pylist()}


def entries_in(table: Any, ids: Sequence[str]) -> dict[str, Entry]:
    """Attributes and embeddings of those of the ids that one version of a table has, by id."""
    names = ["id", "vector", *column_names(table.schema).values()]
    blocks = (block_of([part]) for part in batches(table, names, one_of(ids)))
    return {
        block.ids[row].as_py(): (block.attributes(row), np.array(block.vectors[row]))
        for block in blocks
        for row in range(len(block))
    }


def one_of(ids: Iterable[str]) -> str:
    """The condition that a person has one of the ids."""
    quoted = ["'" + person.replace("'", "''") + "'" for person in ids]
    return f"id IN ({', '.join(quoted)})" if quoted else "FALSE"


def people_of(
    table: Any, where: str | None = None
) -> Iterator[tuple[str, dict[str, AttributeValue]]]:
    """Yields the id and the attributes of people of a table."""
    columns = [name for name in table.schema.names if name != "vector"]
    for batch in batches(table, columns, where):
        people = block_of([batch]).people
        yield from zip(people["id"].to_pylist(), attributes_of(people), strict=True)

"""A gallery in LanceDB, for more people than memory holds.

Its own index, approximate where it is built.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pairmatch.core.arrays import check_vectors
from pairmatch.core.errors import ConfigurationError, missing_extra
from pairmatch.core.types import Profile
from pairmatch.gallery.blocks import check_attributes, kind_of_arrow
from pairmatch.gallery.results import Found
from pairmatch.gallery.selection import Attributes, Where
from pairmatch.rules import Kind, kind_of, parse_rule

_TABLE = "gallery"
_OWN = ("id", "vector")
_ARROW: dict[Kind, pa.DataType] = {"number": pa.float64(), "text": pa.string(), "bool": pa.bool_()}


class LanceGallery:
    """Candidates in a LanceDB folder, with the `search`, `add` and `remove` of `Gallery`.

    Choose it for galleries far larger than memory. Without an index every search reads all vectors
    and is exact; after `build_index` it is approximate: measure its recall on your own vectors.
    Attributes are columns, filters run in the database. It has no bonus, no mutual rules, no
    journal of its own and no `forget` that overwrites bytes: `remove` with `compact=True` drops old
    versions of the files.

    Args:
        folder: Made where it is not there.

    Raises:
        MissingExtraError: lancedb is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            import lancedb
        except ImportError as error:
            raise missing_extra("LanceGallery", "lancedb", "lance") from error
        self.folder = Path(folder)
        self._base = lancedb.connect(str(self.folder))
        names = self._base.list_tables().tables
        self._table: Any = self._base.open_table(_TABLE) if _TABLE in names else None

    def add(
        self, people: Sequence[Profile] | Sequence[str], embeddings: npt.NDArray[np.floating]
    ) -> None:
        """Adds people; whoever is there already is replaced.

        Args:
            people: N profiles, or ids.
            embeddings: [N, K] finite, unit length.
        """
        ids = [one.id if isinstance(one, Profile) else str(one) for one in people]
        attributes = [dict(one.attributes) if isinstance(one, Profile) else {} for one in people]
        check_vectors("embeddings", embeddings)
        if len(ids) != len(embeddings) or len(set(ids)) < len(ids):
            raise ConfigurationError(
                f"Each person needs one embedding and comes once, got {len(ids)} people, {len(set(ids))} of them "
                f"different, and {len(embeddings)} embeddings."
            )
        before = self.attribute_kinds
        kinds = check_attributes(ids, attributes, before)
        clash = [name for name in kinds if name in _OWN]
        if clash:
            raise ConfigurationError(
                f"An attribute cannot be called {clash[0]!r} in a LanceGallery."
            )
        vectors = np.ascontiguousarray(embeddings, np.float32)
        width = vectors.shape[1]
        columns: dict[str, pa.Array] = {
            "id": pa.array(ids, pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width),
        }
        for name, kind in kinds.items():
            columns[name] = pa.array([own.get(name) for own in attributes], _ARROW[kind])
        rows = pa.table(columns)
        if self._table is None:
            self._table = self._base.create_table(_TABLE, rows)
            return
        fresh = [pa.field(name, _ARROW[kind]) for name, kind in kinds.items() if name not in before]
        if fresh:
            self._table.add_columns(fresh)
        self._table.merge_insert(
            "id"
        ).when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def remove(self, ids: Iterable[str], *, compact: bool = False) -> int:
        """Removes people from every search from now on.

        Args:
            ids: People; those who are not there are no error.
            compact: Also rewrites the files and drops old versions.

        Returns:
            How many of them were there.
        """
        if self._table is None:
            return 0
        before = len(self)
        wanted = list(ids)
        if wanted:
            self._table.delete(f"id IN ({', '.join(map(_quoted, wanted))})")
        if compact:
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", "optimize"
                )  # that others lose old versions is what is asked for
                self._table.optimize(cleanup_older_than=timedelta(0))
        return before - len(self)

    def search(
        self,
        queries: npt.NDArray[np.floating],
        k: int = 20,
        *,
        where: Where = None,
        asking: Sequence[Attributes] | None = None,
        excluded: Sequence[Collection[str]] | None = None,
    ) -> Found:
        """The best eligible candidates of each query; exact as long as there is no index.

        Args:
            queries: [Q, K] finite.
            k: Most candidates per query, at least 1.
            where: Rule for candidates, as in `Gallery.search`.
            asking: Attributes of those who ask, one mapping per query.
            excluded: Per query, ids that are not shown.
        """
        check_vectors("queries", queries)
        if k < 1:
            raise ConfigurationError(f"`search(k=...)` must be at least 1, got {k}.")
        count = len(queries)
        ids = np.full((count, k), None, object)
        scores = np.full((count, k), -np.inf, np.float32)
        eligible = np.zeros(count, np.int64)
        emptied: list[str | None] = ["no candidates"] * count
        people: list[Attributes] = [{}] * count if asking is None else list(asking)
        rule = None if where is None else parse_rule(where)
        if self._table is None or not len(self):
            return Found(ids, scores, eligible, tuple(emptied))
        if rule is not None:
            asked = {name: kind_of(value) for person in people for name, value in person.items()}
            rule.check(self.attribute_kinds, asked)
        for number in range(count):
            filters = [] if rule is None else [rule.sql(people[number])]
            hidden = sorted(excluded[number]) if excluded is not None else []
            if hidden:
                filters.append(f"id NOT IN ({', '.join(map(_quoted, hidden))})")
            said = " AND ".join(filters) or None
            eligible[number] = self._table.count_rows(said)
            emptied[number] = None
            if not eligible[number]:
                emptied[number] = self._emptied_by(rule, people[number])
                continue
            query = (
                self._table.search(np.ascontiguousarray(queries[number], np.float32))
                .distance_type("dot")
                .limit(k)
            )
            if said:
                query = query.where(said, prefilter=True)
            found = query.select(["id", "_distance"]).to_arrow()
            ids[number, : len(found)] = found["id"].to_pylist()
            scores[number, : len(found)] = (
                1 - found["_distance"].to_numpy()
            )  # Lance's dot distance is 1 − a·b
        return Found(ids, scores, eligible, tuple(emptied))

    def build_index(self, **options: Any) -> None:
        """Builds LanceDB's approximate index.

        Args:
            options: As `lancedb`'s `create_index` takes them, such as `index_type="IVF_HNSW_SQ"`.
        """
        if self._table is None:
            raise ConfigurationError("`build_index` needs people: add some first.")
        self._table.create_index(metric="dot", **options)

    @property
    def attribute_kinds(self) -> dict[str, Kind]:
        """Name and kind (`number`, `text`, `bool`) of every attribute."""
        if self._table is None:
            return {}
        return {
            one.name: kind_of_arrow(one.type) for one in self._table.schema if one.name not in _OWN
        }

    def __len__(self) -> int:
        return 0 if self._table is None else int(self._table.count_rows())

    def _emptied_by(self, rule: Any, person: Attributes) -> str:
        """The first clause after which nobody is left."""
        for stop in range(1, 1 + (0 if rule is None else len(rule.clauses))):
            if not self._table.count_rows(rule.first(stop).sql(person)):
                return str(rule.clauses[stop - 1])
        return "exclusions"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

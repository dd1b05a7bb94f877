"""`QueryTable`: one row per query, with named columns. Every evaluation produces one.

The path from vectors to figures is the same everywhere: `rank_queries` turns embeddings into a
table, [`summarize`][pairmatch.evaluation.intervals.summarize] turns a table into metrics with
intervals, and [`compare`][pairmatch.evaluation.comparison.compare] turns two tables into a test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Ints, Vectors, unit_rows
from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.links import Links
from pairmatch.evaluation.medians import median_rank
from pairmatch.evaluation.pooled_ranks import rank_all
from pairmatch.evaluation.ranks import Doubles, PartnerRanks, query_metrics
from pairmatch.evaluation.rivals import Rivals

DEFAULT_KS = (5, 10, 20, 30, 50)
DIRECTIONS = ("a_to_b", "b_to_a")


@dataclass(frozen=True, slots=True, eq=False)
class QueryTable:
    """Metrics of every query, as named columns of equal length. Q is the number of rows.

    Attributes:
        ks: K of Recall@K, ascending.
        columns: Arrays [Q] by name. Always present: `direction` (0 if the query person is on side
            a, 1 if on side b), `query` (row of the query person on their side), `component`
            (people of one label are one observation), `candidates` (size of the gallery),
            `recall_at_K` for each K, `reciprocal_rank`, and `rank` (expected rank of the
            best-ranked partner). Evaluations add what the rank is made of: `ahead` (candidates
            that score above that partner), `tied` (candidates that score the same, the partner
            included) and `tied_partners` (partners among those). Evaluations that know who was seen
            in training add `seen`: 1 if the query person was, else 0. Cross-validation adds
            `repeat` and `fold`. With pools, a query is a person in a pool, and `pool` is its name
            (blank if the pool is not known, so that all people are candidates).
        links: The partners of each row, for intervals and tests where people stand in several
            pairs; None if only the components are known. They are not part of saved tables.
    """

    ks: tuple[int, ...]
    columns: Mapping[str, npt.NDArray[Any]]
    links: Links | None = None

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """[Q] column by name.

        Raises:
            ConfigurationError: The column does not exist.
        """
        if name not in self.columns:
            raise ConfigurationError(unknown_name("column", name, self.columns))
        return self.columns[name]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.columns["query"])

    @property
    def recall(self) -> Doubles:
        """[Q, number of K] float64 recall at each K, in [0, 1]."""
        return np.stack([self.columns[f"recall_at_{k}"] for k in self.ks], axis=1)

    @property
    def metric_names(self) -> list[str]:
        """Names that `metric` takes: `MRR`, and `R@K` for each K."""
        return ["MRR", *(f"R@{k}" for k in self.ks)]

    @property
    def median_rank(self) -> float:
        """Median rank of the best-ranked partner, over queries and orders of tied candidates."""
        if "tied" not in self.columns:
            return float(np.median(self["rank"]))
        return median_rank(self["ahead"], self["tied"], self["tied_partners"])

    @property
    def queries(self) -> int:
        """Number of distinct queries: a person counts once per pool, however often tested."""
        if "pool" not in self.columns:
            return self.people
        people = self.columns["query"] * 2 + self.columns["direction"]
        pools = np.unique(self.columns["pool"], return_inverse=True)[1]
        return len(np.unique(people * (pools.max(initial=0) + 1) + pools))

    @property
    def people(self) -> int:
        """Number of distinct query people."""
        return len(np.unique(self.columns["query"] * 2 + self.columns["direction"]))

    def metric(self, name: str) -> Doubles:
        """[Q] float64 values whose mean is the metric.

        Args:
            name: `MRR`, or `R@K` with one of `ks`.

        Raises:
            ConfigurationError: The name is unknown.
        """
        if name not in self.metric_names:
            raise ConfigurationError(unknown_name("metric", name, self.metric_names))
        return self["reciprocal_rank" if name == "MRR" else f"recall_at_{name[2:]}"]

    def with_column(self, name: str, values: npt.NDArray[Any]) -> QueryTable:
        """The table with another column, [Q] values."""
        return replace(self, columns={**self.columns, name: values})

    def select(self, rows: npt.NDArray[np.bool_] | Ints) -> QueryTable:
        """Some of the rows, by mask or by number."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        links = None if self.links is None else self.links.select(rows)
        return QueryTable(self.ks, columns, links)

    def clusters(self) -> Ints | Links:
        """[Q] int64 labels of independent clusters of rows; the links if there are too few."""
        components = self["component"]
        if self.links is None:
            return components
        return self.links.clusters(components, self.columns.get("pool"))

    @property
    def independent(self) -> int:
        """Number of independent clusters; of people of the smaller side if links are used."""
        clusters = self.clusters()
        return clusters.independent if isinstance(clusters, Links) else len(np.unique(clusters))

    @property
    def interval_notes(self) -> list[str]:
        """A note where intervals and tests are over people; none where they are over clusters."""
        clusters = self.clusters()
        return [clusters.note] if isinstance(clusters, Links) else []

    def same_queries(self, other: QueryTable) -> bool:
        """Whether both tables describe the same queries among equally many candidates, in order."""
        names = ["direction", "query", "candidates"]
        names += [name for name in ("pool",) if name in {*self.columns, *other.columns}]
        return len(self) == len(other) and all(
            name in self.columns
            and name in other.columns
            and np.array_equal(self[name], other[name])
            for name in names
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """One dictionary per query; `direction` is text."""
        names = list(self.columns)
        columns = [values.tolist() for values in self.columns.values()]
        place = names.index("direction")
        columns[place] = [DIRECTIONS[direction] for direction in columns[place]]
        for row in zip(*columns, strict=True):
            yield dict(zip(names, row, strict=True))

    @classmethod
    def concatenate(cls, tables: Sequence[QueryTable]) -> QueryTable:
        """The rows of several tables with the same columns, one after the other."""
        first = tables[0]
        columns = {
            name: np.concatenate([table[name] for table in tables]) for name in first.columns
        }
        links = [table.links for table in tables if table.links is not None]
        return cls(
            first.ks, columns, Links.concatenate(links) if len(links) == len(tables) else None
        )


@dataclass(frozen=True, slots=True, eq=False)
class RankedQueries:
    """Every query of one set of people, ranked.

    Attributes:
        ranks: Ranks of the true partners, one entry per direction that has queries.
        table: One row per query.
        chance: The same rows for a random order.
    """

    ranks: tuple[PartnerRanks, ...]
    table: QueryTable
    chance: QueryTable


def embed_sides(
    data: PairedFeatures, head: ProjectionHead | None = None
) -> tuple[Vectors, Vectors]:
    """Embeddings of the query and candidate roles: [N, K] and [M, K] float32, unit length.

    Args:
        data: N and M people. In one-sided sets all people are embedded in both roles.
        head: Projects the features; None compares the features themselves.
    """
    others = data.a if data.b is None else data.b
    if head is None:
        e_a = unit_rows(data.a)
        return e_a, e_a if data.one_sided else unit_rows(others)
    e_a = head.embed(data.a, "a")
    if data.one_sided and head.treats_sides_alike:
        return e_a, e_a
    return e_a, head.embed(others, "b")


def rank_queries(
    data: PairedFeatures, e_a: Vectors, e_b: Vectors, ks: Sequence[int]
) -> RankedQueries:
    """Ranks the candidates of every person who has a partner, inside the pool of the pair.

    Args:
        data: People and matches; its components become the table's.
        e_a: [N, K] float32, unit length.
        e_b: [M, K] float32, unit length.
        ks: K of Recall@K, ascending.
    """
    return tabulate(data, rank_all(data, e_a, e_b), ks, (e_a, e_b))


def tabulate(
    data: PairedFeatures,
    ranks: Sequence[PartnerRanks],
    ks: Sequence[int],
    embeddings: tuple[Vectors, Vectors],
    first: Sequence[PartnerRanks] | None = None,
) -> RankedQueries:
    """One row per query from the ranks of the partners.

    Args:
        data: People and matches; its components become the table's.
        ranks: Ranks in the directions of `rank_all`; a direction may have no queries.
        ks: K of Recall@K, ascending.
        embeddings: [N, K] and [M, K] float32 that were ranked.
        first: Ranks by the embeddings, if `ranks` are those of a second stage.
    """
    tables, chances = [], []
    in_several_pairs = len(np.unique(data.components)) < data.independent
    for direction, partner_ranks in enumerate(ranks):
        if not len(partner_ranks.queries):
            continue
        metrics = query_metrics(partner_ranks, ks)
        size = len(metrics.queries)
        shared: dict[str, npt.NDArray[Any]] = {
            "direction": np.full(size, direction, np.int64),
            "query": metrics.queries,
            "component": _component_of(data, direction)[metrics.queries],
            "candidates": metrics.candidates,
        }
        if data.pools is not None:
            shared["pool"] = np.array([*data.pools.names, ""])[metrics.pools]
        recall = {f"recall_at_{k}": metrics.recall[:, i] for i, k in enumerate(ks)}
        chance = {f"recall_at_{k}": metrics.chance_recall[:, i] for i, k in enumerate(ks)}
        recall |= {
            "reciprocal_rank": metrics.reciprocal_rank,
            "rank": metrics.rank,
            "ahead": metrics.ahead,
            "tied": metrics.tied,
            "tied_partners": metrics.tied_partners,
        }
        chance |= {
            "reciprocal_rank": metrics.chance_reciprocal_rank,
            "rank": metrics.chance_rank,
            "ahead": np.zeros(size),
            "tied": metrics.candidates.astype(np.float64),
            "tied_partners": metrics.partners,
        }
        pairs = np.stack([partner_ranks.queries, partner_ranks.partners], axis=1)
        units = data.unit_pairs(pairs[:, ::-1] if direction else pairs)
        links = Links(np.append(partner_ranks.starts()[0], len(units)), units)
        rivals = None
        if in_several_pairs:
            rivals = Rivals.of(data, *embeddings, (first or ranks)[direction], direction)
        tables.append(QueryTable(tuple(ks), shared | recall, replace(links, rivals=rivals)))
        chances.append(QueryTable(tuple(ks), shared | chance, links))
    return RankedQueries(
        tuple(partner_ranks for partner_ranks in ranks if len(partner_ranks.queries)),
        QueryTable.concatenate(tables),
        QueryTable.concatenate(chances),
    )


def table_at_ks(table: QueryTable, ranks: Sequence[PartnerRanks], ks: Sequence[int]) -> QueryTable:
    """The rows of a table of `rank_queries` with recall at other K.

    Args:
        table: One row per query.
        ranks: Ranks of the true partners behind the table, one entry per direction.
        ks: K of Recall@K, ascending.
    """
    recall = np.concatenate([query_metrics(partner_ranks, ks).recall for partner_ranks in ranks])
    kept = {name: table[name] for name in table.columns if not name.startswith("recall_at_")}
    columns = kept | {f"recall_at_{k}": recall[:, i] for i, k in enumerate(ks)}
    return QueryTable(tuple(ks), columns, table.links)


def check_ks(ks: Sequence[int]) -> tuple[int, ...]:
    """Distinct K in ascending order.

    Raises:
        ConfigurationError: `ks` is empty, or a K is not a whole number of at least 1.
    """
    values = np.asarray(ks)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "iu" or values.min() < 1:
        raise ConfigurationError(f"`ks` must be whole numbers of at least 1, got {ks!r}.")
    return tuple(sorted({int(k) for k in values}))


def usable_ks(
    ks: Sequence[int] | None, candidates: int, *, pooled: bool = False
) -> tuple[tuple[int, ...], list[str]]:
    """The K that fit the smallest gallery, or the largest pool, and a note about those that do not.

    Args:
        ks: Requested K; None for the recipe's.
        candidates: Size of the smallest gallery, or of the largest pool.
        pooled: Whether there are pools.

    Raises:
        ConfigurationError: A requested K is below 1 or larger than the gallery.
    """
    gallery = "largest pool" if pooled else "smallest gallery"
    wanted = DEFAULT_KS if ks is None else check_ks(ks)
    beyond = [k for k in wanted if k > candidates]
    if beyond and ks is not None:
        raise ConfigurationError(
            f"K = {', '.join(map(str, beyond))} is larger than the {gallery} "
            f"({candidates} candidates): leave it out, or evaluate on more pairs."
        )
    kept = tuple(k for k in wanted if k <= candidates) or (1,)
    note = (
        f"Recall@{', @'.join(map(str, beyond))} left out: the {gallery} has {candidates} "
        "candidates."
    )
    return kept, [note] if beyond else []


def _component_of(data: PairedFeatures, direction: int) -> Ints:
    """Component of each person of the query side; −1 for people without a match."""
    people = data.a if direction == 0 or data.b is None else data.b
    components = np.full(len(people), -1, np.int64)
    components[data.matches[:, direction]] = data.components
    if data.one_sided:
        components[data.matches[:, 1]] = data.components
    return components

"""What a report shows, as plain data, and how it is collected from a fitted matcher."""

from __future__ import annotations

import base64
import datetime
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pairmatch.core._version import __version__
from pairmatch.core.pools import NO_POOL
from pairmatch.data import Pairs
from pairmatch.evaluation.evaluation import Evaluation
from pairmatch.gallery.results import Recommendation
from pairmatch.io.images import ImageSource, load_image
from pairmatch.io.spreadsheets import csv_bytes
from pairmatch.matcher.matcher import Matcher
from pairmatch.report.curves import evaluation_curves

_THUMBNAIL_PX = 184
_MAX_QUERIES = 8
_MAX_CANDIDATES = 6


@dataclass(frozen=True, slots=True)
class Candidate:
    """A ranked candidate of a query.

    Attributes:
        rank: Rank, from 1.
        photo: Thumbnail, as a data URL.
        is_partner: Whether this is the true partner.
    """

    rank: int
    photo: str
    is_partner: bool


@dataclass(frozen=True, slots=True)
class Query:
    """A query person of the test pairs.

    Attributes:
        photo: Thumbnail, as a data URL.
        candidates: Candidates to show, best first.
    """

    photo: str
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        name: Text of the first column.
        cells: (value, interval) of the other columns; empty strings for none.
        kind: Color of the row: `ours`, `frozen`, `chance`, or empty for none.
        is_best: Whether the row is shown in bold.
    """

    name: str
    cells: Sequence[tuple[str, str]]
    kind: str = ""
    is_best: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A sortable table.

    Attributes:
        first: Heading of the first column.
        columns: Headings of the other columns.
        rows: Rows, in their original order.
        caption: Caption, for screen readers.
    """

    first: str
    columns: Sequence[str]
    rows: Sequence[Row]
    caption: str

    def csv(self, run: str = "") -> bytes:
        """The table in CSV: intervals have columns of their own, and numbers are plain numbers.

        Args:
            run: What produced the figures; if it is known, a column of its own.
        """
        cells = [row.cells for row in self.rows]
        with_interval = [any(row[i][1] for row in cells) for i in range(len(self.columns))]
        columns = [self.first]
        for name, has_interval in zip(self.columns, with_interval, strict=True):
            columns += [name, f"{name} interval"] if has_interval else [name]
        rows: list[dict[str, Any]] = []
        for row in self.rows:
            values: dict[str, Any] = {self.first: row.name}
            for name, (value, interval) in zip(self.columns, row.cells, strict=True):
                values |= {name: _number(value), f"{name} interval": interval}
            rows.append({**values, "run": run} if run else values)
        return csv_bytes([*columns, "run"] if run else columns, rows)

    def download(self, run: str = "") -> str:
        """`csv` as a data URL."""
        return _data_url("text/csv;charset=utf-8", self.csv(run))


def _number(text: str) -> float | int | str:
    """The number that a cell shows, or its text."""
    plain = text.replace("\N{MINUS SIGN}", "-")
    for convert in (int, float):
        try:
            return convert(plain)
        except ValueError:
            continue
    return text


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a figure of shares.

    Attributes:
        name: What the share is of.
        share: The share, in [0, 1].
        text: What it consists of.
    """

    name: str
    share: float
    text: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page.

    Attributes:
        title: Heading.
        text: Paragraphs.
        table: Table below the text.
        plots: Figures below the table.
        bars: Shares of a whole, drawn as bars.
        data: The figures of the section as JSON values, for the `.json` file.
    """

    title: str
    text: Sequence[str] = ()
    table: Table | None = None
    plots: Sequence[Any] = ()
    bars: Sequence[Bar] = ()
    data: Any = None


@dataclass(frozen=True, slots=True)
class Report:
    """Content of the page, as plain data. The page omits everything that is empty here.

    Attributes:
        title: Heading of the page.
        evaluation: Result of `Evaluation.to_dict`; empty if the page is not about one evaluation.
        verdict: Which learner to use, in a sentence.
        lead: Summary in plain words; by default derived from the evaluation.
        curves: Recall@K by name (`ours`, `frozen`, `chance`), one value per K of `curve_ks`.
        curve_ks: K of the curves; by default 1, 2, ….
        bands: Intervals (low, high) of the curves, by name.
        ranks: Rank of the best-ranked partner of each query.
        rank_chance: Share of queries that a random order puts into each bar of the rank histogram
            (`rank_edges` has the bars); by default proportional to the width of the bar.
        history: Rows of the training history.
        sections: Further sections, after the figures.
        queries: Example queries with photos; empty if photos are not to be shown.
        facts: Settings and sizes, by name.
        notes: What a reader has to know.
        run: What produced the figures: versions, data, seed, threads and command.
        created: ISO date.
        version: Version of pairmatch.
    """

    title: str
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    verdict: str = ""
    lead: str = ""
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    curve_ks: Sequence[int] = ()
    bands: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    ranks: Sequence[float] = ()
    rank_chance: Sequence[float] = ()
    history: Sequence[Mapping[str, float]] = ()
    sections: Sequence[Section] = ()
    queries: Sequence[Query] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    run: str = ""
    created: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).date().isoformat()
    )
    version: str = __version__


def matcher_report(
    matcher: Matcher,
    train: Pairs,
    validation: Pairs,
    test: Pairs,
    evaluation: Evaluation,
    *,
    title: str,
    photos: bool = False,
    verdict: str = "",
    sections: Sequence[Section] = (),
    notes: Sequence[str] = (),
) -> Report:
    """Collects the report of a fitted matcher.

    Args:
        matcher: Fitted matcher.
        train: Pairs that the matcher was trained on.
        validation: Pairs that early stopping used.
        test: Pairs that the matcher was evaluated on.
        evaluation: Evaluation of the matcher on `test`.
        title: Heading of the page.
        photos: Whether to show thumbnails of some test people; do not use this with photos of real
            people.
        verdict: Which learner to use, in a sentence; for example that of `diagnose`.
        sections: Further sections of the page, for example those of `diagnose`.
        notes: What else a reader has to know; shown before the notes of the matcher and of the
            evaluation.
    """
    return Report(
        title=title,
        evaluation=evaluation.to_dict(),
        verdict=verdict,
        **evaluation_curves(evaluation, seed=matcher.seed),
        history=matcher.history,
        sections=sections,
        queries=_examples(matcher, test) if photos else (),
        facts={
            "Pairs": f"{len(train)} to train, {len(validation)} to validate, {len(test)} to test",
            "People": str(len({*train.profiles, *validation.profiles, *test.profiles})),
            **matcher.summary(),
        },
        notes=[*notes, *matcher.notes, *evaluation.notes],
    )


def _examples(matcher: Matcher, test: Pairs) -> tuple[Query, ...]:
    """Evenly chosen people of side a, with their best candidates and their true partner."""
    gallery = matcher.gallery([test.profiles[person] for person in test.ids_b])
    partners, others = _partners_and_strangers(test)
    people = [person for person in partners if test.profiles[person].images]
    rows = np.linspace(0, len(people) - 1, min(_MAX_QUERIES, len(people))).astype(int)
    queries = []
    for person in (people[row] for row in rows):
        ranking = matcher.recommend(test.profiles[person], gallery, len(gallery))
        kept = [item for item in ranking if item.profile.id not in others.get(person, ())]
        kept = [replace(item, rank=rank) for rank, item in enumerate(kept, 1)]
        candidates = _shown_candidates(kept, partners[person])
        queries.append(Query(thumbnail(test.profiles[person].images[0]), candidates))
    return tuple(queries)


def _partners_and_strangers(test: Pairs) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """The partners of each person of side a, and the people who are no candidates.

    With pools, both are those of the first pool in which the person has a partner: candidates are
    the people of this pool.
    """
    matches = [pair for pair in test.pairs if pair.outcome == "match"]
    partners: dict[str, set[str]] = {}
    if test.pools is None:
        for pair in matches:
            partners.setdefault(pair.a, set()).add(pair.b)
        return partners, {}
    row_a = {person: row for row, person in enumerate(test.ids_a)}
    row_b = {person: row for row, person in enumerate(test.ids_b)}
    rows = np.array([(row_a[pair.a], row_b[pair.b]) for pair in matches], np.int64)
    pools = test.pools.of_pairs(rows.reshape(-1, 2)).pool.tolist()
    members = [set(b.tolist()) for _, b in test.pools.people()]
    first: dict[str, int] = {}
    others: dict[str, set[str]] = {}
    for pair, pool in zip(matches, pools, strict=True):
        if first.setdefault(pair.a, pool) == pool:
            partners.setdefault(pair.a, set()).add(pair.b)
    for person, pool in first.items():
        inside = set(row_b.values()) if pool == NO_POOL else members[pool]
        others[person] = {other for other, row in row_b.items() if row not in inside}
    for pair in matches:
        others[pair.a] |= {pair.b} - partners[pair.a]
    return partners, others


def _shown_candidates(
    ranking: Sequence[Recommendation], partners: set[str]
) -> tuple[Candidate, ...]:
    """The best candidates, and the best-ranked partner even if it ranks lower."""
    true = [candidate for candidate in ranking if candidate.profile.id in partners][:1]
    lower = [candidate for candidate in true if candidate.rank > _MAX_CANDIDATES]
    return tuple(
        Candidate(
            rank=candidate.rank,
            photo=thumbnail(candidate.profile.images[0]),
            is_partner=candidate.profile.id in partners,
        )
        for candidate in [*ranking[:_MAX_CANDIDATES], *lower]
        if candidate.profile.images
    )


def thumbnail(source: ImageSource) -> str:
    """A small JPEG as a data URL, without the file's metadata."""
    buffer = io.BytesIO()
    image = load_image(source, longest_side_px=_THUMBNAIL_PX)
    image.info.clear()
    image.save(buffer, "JPEG", quality=80)
    return _data_url("image/jpeg", buffer.getvalue())

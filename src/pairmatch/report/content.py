"""What a report shows, as plain data, and how it is gathered from a fitted matcher."""

from __future__ import annotations

import base64
import datetime
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from pairmatch.core._version import __version__
from pairmatch.data import Pairs
from pairmatch.evaluation.evaluator import Evaluation
from pairmatch.evaluation.intervals import Metrics, summaries
from pairmatch.evaluation.ranks import query_metrics
from pairmatch.io.images import ImageSource, load_image
from pairmatch.matcher.matcher import Matcher

_THUMBNAIL_PX = 184
_QUERIES, _CANDIDATES = 8, 6
_CURVE_POINTS = 80  # most K of the recall curve
_BARS = 15  # most bars of the rank histogram
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Candidate:
    """A ranked candidate of a query, with a thumbnail as a data URL."""

    rank: int
    photo: str
    is_partner: bool


@dataclass(frozen=True, slots=True)
class Query:
    """A test person's thumbnail and the candidates shown for them."""

    photo: str
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table.

    Its name, a colour (`ours`, `frozen`, `chance` or none), and (value, interval) by column.
    """

    name: str
    cells: Sequence[tuple[str, str]]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table that readers can sort: heading of the first column, of the others, and rows."""

    first: str
    columns: Sequence[str]
    rows: Sequence[Row]
    caption: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: a heading, words, a table, figures, and the same as JSON values."""

    title: str
    text: Sequence[str] = ()
    table: Table | None = None
    plots: Sequence[Any] = ()
    data: Any = None


@dataclass(frozen=True, slots=True)
class Report:
    """What the page shows; plain data. Whatever is left out here is left out there.

    Attributes:
        title: Heading.
        evaluation: As `Evaluation.to_dict` gives it; empty where the page is about something else.
        lead: The result in plain words; made from the evaluation where it is empty.
        curves: Recall@K by name (`ours`, `frozen`, `chance`), one value per K of `curve_ks`.
        curve_ks: K of the curves; 1, 2, … where it is empty.
        bands: Interval (low, high) of the curves by name.
        ranks: Rank of the best-placed partner of every query.
        rank_chance: Share of queries that a random order would put into each bar of the rank
            histogram (`rank_edges` says which); alike for all ranks where it is empty.
        history: Rows of the training history.
        sections: Further parts, after the figures.
        queries: Examples with photos; empty where photos are not to be shown.
        facts: What was used, by name.
        notes: What a reader has to know.
        created: ISO date.
        version: Of pairmatch.
    """

    title: str
    evaluation: Mapping[str, Any] = field(default_factory=dict)
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
    sections: Sequence[Section] = (),
    notes: Sequence[str] = (),
) -> Report:
    """Gathers what the page shows about a fitted matcher.

    Args:
        matcher: After `fit`.
        train: Its training pairs.
        validation: Its validation pairs.
        test: The pairs of `evaluation`.
        evaluation: Of the matcher on `test`.
        title: Heading of the page.
        photos: Shows thumbnails of some test people; leave it off for photos of real people.
        sections: Further parts of the page, such as `diagnostic_sections` makes them.
        notes: Shown beside the matcher's and the evaluation's own.
    """
    return Report(
        title=title,
        evaluation=evaluation.to_dict(),
        **evaluation_curves(evaluation, seed=matcher.training.seed),
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


def evaluation_curves(evaluation: Evaluation, *, seed: int = 0) -> dict[str, Any]:
    """The fields of a `Report` that the figures of an evaluation are drawn from.

    Args:
        evaluation: Its intervals, where it has some, become bands around the curves.
        seed: Of the bootstrap; the evaluator's own gives the very intervals of the table.
    """
    size = min(evaluation.candidates)
    spread = np.linspace(1, size, min(size, _CURVE_POINTS)).round().astype(int).tolist()
    ks = sorted({*spread, *evaluation.both.recall})
    curves, bands = {}, {}
    for name, one in (("ours", evaluation), ("frozen", evaluation.frozen)):
        if one is not None:
            line = _recall_line(one, ks, _RESAMPLES if evaluation.both.recall_interval else 0, seed)
            curves[name] = list(line.recall.values())
            if line.recall_interval:
                bands[name] = list(line.recall_interval.values())
    shares = np.minimum(np.array(ks)[:, None] / [p.candidates for p in evaluation.placements], 1)
    curves["chance"] = np.average(
        shares, axis=1, weights=[len(m.queries) for m in evaluation.query_metrics]
    ).tolist()
    return {
        "curves": curves,
        "curve_ks": ks,
        "bands": bands,
        "ranks": evaluation.ranks.tolist(),
        "rank_chance": _chance_of_bars(evaluation, rank_edges(max(evaluation.candidates))),
    }


def _recall_line(evaluation: Evaluation, ks: Sequence[int], resamples: int, seed: int) -> Metrics:
    measured = [query_metrics(placements, ks) for placements in evaluation.placements]
    return summaries(
        measured, evaluation.query_clusters, ks, resamples, (1 - evaluation.confidence) / 2, seed
    )[0]


def rank_edges(candidates: int) -> npt.NDArray[np.float64]:
    """[bars + 1] edges of the rank histogram.

    Each bar spans as many whole ranks, the last one no more.
    """
    span = -(-candidates // _BARS)
    return np.append(np.arange(0, candidates, span), candidates) + 0.5


def _chance_of_bars(evaluation: Evaluation, edges: npt.NDArray[np.float64]) -> list[float]:
    """Share of queries whose best-placed partner a random order puts into each bar.

    With m partners among n candidates, none stands among the first r with probability C(n − r, m) /
    C(n, m).
    """
    within = np.zeros(len(edges))
    for placements in evaluation.placements:
        m = np.unique(placements.queries, return_counts=True)[1]
        n = placements.candidates
        rest = np.maximum(n - np.floor(edges), 0)[:, None]
        none = gammaln(rest + 1) - gammaln(rest - m + 1) - gammaln(n + 1) + gammaln(n - m + 1)
        within += (1 - np.exp(none)).sum(1)
    return np.diff(within / evaluation.queries).tolist()


def _examples(matcher: Matcher, test: Pairs) -> tuple[Query, ...]:
    """Evenly chosen people of side a, with their best candidates and their partner wherever it stands."""
    gallery = matcher.gallery([test.profiles[person] for person in test.ids_b])
    partners: dict[str, set[str]] = {}
    for pair in test.pairs:
        if pair.outcome == "match":
            partners.setdefault(pair.a, set()).add(pair.b)
    asking = [person for person in partners if test.profiles[person].images]
    chosen = [
        asking[i] for i in np.linspace(0, len(asking) - 1, min(_QUERIES, len(asking))).astype(int)
    ]
    queries = []
    for person in chosen:
        found = matcher.recommend(test.profiles[person], gallery, len(gallery))
        true = [one for one in found if one.profile.id in partners[person]]
        shown = found[:_CANDIDATES] + [one for one in true[:1] if one.rank > _CANDIDATES]
        candidates = [
            Candidate(
                one.rank, thumbnail(one.profile.images[0]), one.profile.id in partners[person]
            )
            for one in shown
            if one.profile.images
        ]
        queries.append(Query(thumbnail(test.profiles[person].images[0]), tuple(candidates)))
    return tuple(queries)


def thumbnail(source: ImageSource) -> str:
    """A small JPEG as a data URL; pixels alone, no metadata of the file."""
    buffer = io.BytesIO()
    image = load_image(source, longest_side_px=_THUMBNAIL_PX)
    image.info.clear()
    image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

"""Sweeps: many combinations of parts and options on one extraction per backbone and prompt."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pairmatch.core import registry
from pairmatch.core.callbacks import Callback, Callbacks
from pairmatch.core.components import label_components
from pairmatch.core.errors import ConfigurationError, MissingWeightsError
from pairmatch.core.feature_blocks import feature_blocks
from pairmatch.core.interfaces import Learner
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.progress import progress_bar
from pairmatch.core.units import IDENTICAL_FEATURES_NOTE
from pairmatch.data import Pairs
from pairmatch.evaluation.crossvalidation import COMPARED, CrossValidation
from pairmatch.evaluation.intervals import summarize
from pairmatch.evaluation.measuring import chance_table, measure_learner
from pairmatch.evaluation.pool_notes import pool_notes
from pairmatch.evaluation.query_table import usable_ks
from pairmatch.evaluation.splits import (
    Split,
    cross_validation_splits,
    holdout_splits,
    smallest_gallery,
)
from pairmatch.experiments import sweep_folder
from pairmatch.experiments.building import build_matchers
from pairmatch.experiments.grid import Combination, grid
from pairmatch.experiments.rows import FinishedRows, digest_features
from pairmatch.features.extractor import plan_extractions
from pairmatch.features.plan import format_duration
from pairmatch.io.checkpoints import offline
from pairmatch.io.store import content_key
from pairmatch.matcher.matcher import Matcher
from pairmatch.matcher.pipeline import people_of
from pairmatch.matcher.planning import identity, plan_work
from pairmatch.matcher.work import WorkPlan

__all__ = ["COMPARED", "Combination", "SplitKind", "SweepPlan", "grid", "plan", "sweep"]

_PRICE = ("gpus", "usd_per_hour", "accelerator")

SplitKind = Literal["cross-validation", "holdout"]


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What a sweep would do; `print` lists it.

    Attributes:
        labels: Labels of the combinations and baselines, in order.
        people: Number of distinct people.
        extractions: Number of passes of a backbone over people; combinations share them.
        to_extract: Number of inputs that are not in the store yet, over all extractions.
        fits: Number of fits.
        seconds: Estimated time of extractions and fits; None if unknown.
        work: What is to be extracted and generated, with time and cost.
    """

    labels: tuple[str, ...]
    people: int
    extractions: int
    to_extract: int
    fits: int
    seconds: float | None
    work: WorkPlan

    def __str__(self) -> str:
        rows = "1 row" if len(self.labels) == 1 else f"{len(self.labels)} rows"
        extractions = "1 extraction" if self.extractions == 1 else f"{self.extractions} extractions"
        heading = f"{rows}, {extractions} of {self.people} people:"
        estimate = "" if self.seconds is None else f"; about {format_duration(self.seconds)}"
        summary = f"{self.to_extract} inputs to extract, {self.fits} fits{estimate}."
        rows_text = (f"  {label}" for label in self.labels)
        return "\n".join([heading, *rows_text, summary, str(self.work)])


def sweep(
    pairs: Pairs,
    combinations: Sequence[Combination],
    *,
    baselines: Sequence[str] = COMPARED,
    splits: SplitKind = "cross-validation",
    repeats: int = 5,
    folds: int = 5,
    ks: Sequence[int] | None = None,
    seed: int = 0,
    join_identical: bool = False,
    output: str | Path | None = None,
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
    **shared: Any,
) -> CrossValidation:
    """Tests every combination on the same people, with one extraction per backbone and prompt.

    Args:
        pairs: All pairs.
        combinations: Combinations to test, from `grid`. A re-ranker is used in the folds in which
            it passes its gate.
        baselines: Learners in the same table, for every set of features.
        splits: `cross-validation`, or `holdout`: repeated splits of the recipe's sizes.
        repeats: Number of repeats of either.
        folds: Number of folds of cross-validation.
        ks: K of Recall@K; by default the recipe's.
        seed: Seed for splits and fits.
        join_identical: Whether people with identical features stay together.
        output: Folder for finished rows; an interrupted sweep resumes from it.
        progress: Whether to show progress bars.
        callbacks: Receive the metrics of each row, without intervals.
        shared: Arguments of every `Matcher`: `store`, `device`, `allow_upload`, `max_usd`.

    Raises:
        ConfigurationError: Names all combinations that cannot be built; or the folder holds files
            that pairmatch did not write.
    """
    matchers = build_matchers(combinations, seed, {**shared, "progress": progress}, pairs.people)
    if output is not None:
        sweep_folder.claim(Path(output))
    requests = (request for m in matchers for request in m.extraction_requests(pairs.people))
    for extraction in plan_extractions(requests):
        extraction.run()
    keys, features = _feature_sets(matchers, pairs, join_identical)
    rows = _rows(combinations, matchers, keys, baselines)
    first = features[keys[0]]
    drawn = _draw_splits(first, splits, repeats, folds, seed)
    used, notes = usable_ks(ks, smallest_gallery(first, drawn), pooled=first.pools is not None)
    chance = chance_table(first, drawn, used)
    notes += pool_notes(chance)
    finished = FinishedRows(output, drawn, chance, seed)
    tables = {}
    with progress_bar(progress) as bar, Callbacks(callbacks) as reported:
        task = bar.add_task("Sweeping", total=len(rows) * len(drawn))
        for label, (key, learner) in rows.items():
            measure = partial(
                measure_learner,
                features[key],
                learner,
                drawn,
                used,
                seed=seed,
                on_split=lambda *_: bar.advance(task),
            )
            tables[label] = finished.read_or_measure(features[key], learner, measure)
            bar.update(task, completed=len(tables) * len(drawn))
            reported.on_evaluation(label, summarize(tables[label], resamples=0).flat())
    shared_people = first.identical_across_components()
    if shared_people:
        notes.append(IDENTICAL_FEATURES_NOTE.format(shared_people))
    return CrossValidation(tables, chance, seed=seed, notes=tuple(notes))


def plan(
    pairs: Pairs,
    combinations: Sequence[Combination],
    *,
    baselines: Sequence[str] = COMPARED,
    splits: SplitKind = "cross-validation",
    repeats: int = 5,
    folds: int = 5,
    seed: int = 0,
    progress: bool = False,
    **shared: Any,
) -> SweepPlan:
    """What `sweep` would do, and how long it takes.

    Extracts ten inputs per pass (their features are kept) and times one fit per row. Needs no
    network, and generates no metadata. Arguments are those of `sweep`, and `gpus`, `usd_per_hour`
    and `accelerator` of [`Matcher.plan`][pairmatch.matcher.matcher.Matcher.plan]; `progress` is
    accepted for symmetry and has no effect.
    """
    price = {name: shared.pop(name) for name in _PRICE if name in shared}
    with offline():
        matchers = build_matchers(combinations, seed, {**shared, "progress": False}, pairs.people)
        work = plan_work([matcher.pipeline for matcher in matchers], pairs.people, **price)
        keys = [_features_key(matcher) for matcher in matchers]
        rows = _rows(combinations, matchers, keys, baselines)
        fits = repeats * (folds if splits == "cross-validation" else 1)
        seconds = work.seconds
        try:
            of_key = dict(zip(keys, matchers, strict=True))
            for key, learner in rows.values() if seconds is not None else ():
                data = _noise(pairs, [backbone.dim for backbone in of_key[key].backbones])
                split = _draw_splits(data, splits, 1, folds, seed)[0]
                seconds = (seconds or 0.0) + fits * _time_fit(data, learner, split, seed)
        except MissingWeightsError:  # the width of the features is unknown
            seconds = None
    return SweepPlan(
        labels=tuple(rows),
        people=len(pairs.people),
        extractions=len(work.passes),
        to_extract=work.new,
        fits=len(rows) * fits,
        seconds=seconds,
        work=work,
    )


def _rows(
    combinations: Sequence[Combination],
    matchers: Sequence[Matcher],
    keys: Sequence[str],
    baselines: Sequence[str],
) -> dict[str, tuple[str, Learner]]:
    """Rows of the table by label: combinations, then baselines for each set of features.

    Args:
        combinations: Combinations of the sweep.
        matchers: One per combination.
        keys: Key of each matcher's features; equal keys stand for equal features.
        baselines: Names of learners.

    Returns:
        By label, the key of the features and the learner.
    """
    rows = {}
    first_labels: dict[str, str] = {}
    for combination, matcher, key in zip(combinations, matchers, keys, strict=True):
        rows[combination.label] = (key, matcher.stages())
        first_labels.setdefault(key, combination.label)
    for key, label in first_labels.items():
        for baseline in baselines:
            row = baseline if len(first_labels) == 1 else f"{baseline} ({label})"
            if row in rows:
                raise ConfigurationError(
                    f"{row!r} names both a combination and a baseline: change the label, or omit "
                    "the baseline."
                )
            rows[row] = (key, registry.create("learners", baseline))
    return rows


def _feature_sets(
    matchers: Sequence[Matcher], pairs: Pairs, join_identical: bool
) -> tuple[list[str], dict[str, PairedFeatures]]:
    """Key of each matcher's features, and the distinct features by key."""
    keys = []
    features: dict[str, PairedFeatures] = {}
    for matcher in matchers:
        data = matcher.paired_features(pairs, join_identical=join_identical)
        keys.append(digest_features(data))
        features.setdefault(keys[-1], data)
    return keys, _with_common_units(features)


def _with_common_units(features: Mapping[str, PairedFeatures]) -> dict[str, PairedFeatures]:
    """The features with the same units in every set.

    Joining people with identical features depends on the features: people who are identical in one
    set stay together in all of them, so that all rows test the same queries.
    """
    labels = [data.units for data in features.values()]
    if all(np.array_equal(units, labels[0]) for units in labels):
        return dict(features)
    people = np.arange(len(labels[0]))
    links = []
    for units in labels:
        _, first, inverse = np.unique(units, return_index=True, return_inverse=True)
        links.append(np.stack([people, first[inverse]], axis=1))
    joined = label_components(np.concatenate(links), len(people))
    return {key: data.with_units(joined) for key, data in features.items()}


def _pass_keys(matcher: Matcher) -> list[str]:
    """Key of each backbone's pass over people, without generating metadata for them."""
    metadata = matcher.metadata
    text = {
        "metadata": None if metadata is None else dict(metadata.fingerprint()),
        "prompt": matcher.pipeline.prompt,
        "prompt_attributes": list(matcher.pipeline.prompt_attributes),
    }
    return [
        content_key(
            {
                "backbone": identity(backbone),
                "text": text if backbone.reads_text else None,
            }
        )
        for backbone in matcher.backbones
    ]


def _features_key(matcher: Matcher) -> str:
    """Key of a matcher's features, without extracting them."""
    return content_key(
        {
            "passes": _pass_keys(matcher),
            "poolers": [dict(pooler.fingerprint()) for pooler in matcher.poolers],
            "weights": matcher.pipeline.weights,
            "dtype": matcher.pipeline.store_dtype,
        }
    )


def _draw_splits(
    data: PairedFeatures, kind: SplitKind, repeats: int, folds: int, seed: int
) -> list[Split]:
    if kind == "holdout":
        return holdout_splits(data, repeats=repeats, seed=seed)
    return cross_validation_splits(data, repeats=repeats, folds=folds, seed=seed)


def _time_fit(data: PairedFeatures, learner: Learner, split: Split, seed: int) -> float:
    """Seconds that one fit and its test take."""
    start = time.perf_counter()
    measure_learner(data, learner, [split], (1,), seed=seed)
    return time.perf_counter() - start


def _noise(pairs: Pairs, widths: Sequence[int]) -> PairedFeatures:
    """Random features with the blocks of the extracted ones, to time fits on."""
    rng = np.random.default_rng(0)
    width = sum(widths)
    a = rng.standard_normal((len(pairs.ids_a), width), np.float32)
    b = None if pairs.sides == 1 else rng.standard_normal((len(pairs.ids_b), width), np.float32)
    blocks = feature_blocks(["noise"] * len(widths), widths)
    return replace(pairs.with_features(a, b), blocks=blocks, people=people_of(pairs))

"""Sweeps: many combinations of parts and options on one extraction per backbone and prompt."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pairmatch.core import registry
from pairmatch.core.config import list_of_parts
from pairmatch.core.errors import ConfigurationError, PairmatchError
from pairmatch.core.interfaces import Backbone, Learner
from pairmatch.core.paired_features import IDENTICAL_FEATURES_NOTE, PairedFeatures
from pairmatch.data import Pairs
from pairmatch.evaluation.crossvalidation import (
    BASELINES,
    CrossValidation,
    chance_table,
    measure_learner,
    progress_bar,
)
from pairmatch.evaluation.query_table import usable_ks
from pairmatch.evaluation.splits import (
    Split,
    cross_validation_splits,
    holdout_splits,
    smallest_gallery,
)
from pairmatch.experiments.grid import Combination, grid, parse_part
from pairmatch.experiments.rows import FinishedRows, digest_features
from pairmatch.features.extractor import plan_extractions
from pairmatch.features.plan import format_duration
from pairmatch.io.store import Store, content_key
from pairmatch.matcher.matcher import Matcher

__all__ = ["Combination", "SplitKind", "SweepPlan", "grid", "plan", "sweep"]

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
        seconds: Estimated time; None if photos would have to be sent somewhere first.
    """

    labels: tuple[str, ...]
    people: int
    extractions: int
    to_extract: int
    fits: int
    seconds: float | None

    def __str__(self) -> str:
        plural = "" if self.extractions == 1 else "s"
        heading = (
            f"{len(self.labels)} rows, {self.extractions} extraction{plural} of {self.people} "
            "people:"
        )
        estimate = "" if self.seconds is None else f"; about {format_duration(self.seconds)}"
        summary = f"{self.to_extract} inputs to extract, {self.fits} fits{estimate}."
        return "\n".join([heading, *(f"  {label}" for label in self.labels), summary])


def sweep(
    pairs: Pairs,
    combinations: Sequence[Combination],
    *,
    baselines: Sequence[str] = BASELINES,
    splits: SplitKind = "cross-validation",
    repeats: int = 5,
    folds: int = 5,
    ks: Sequence[int] | None = None,
    seed: int = 0,
    join_identical: bool = False,
    output: str | Path | None = None,
    progress: bool = False,
    **shared: Any,
) -> CrossValidation:
    """Tests every combination on the same people, extracting features once per backbone and prompt.

    Args:
        pairs: All pairs there are.
        combinations: Combinations to test, from `grid`.
        baselines: Learners in the same table, for every set of features.
        splits: `cross-validation`, or `holdout`: repeated splits of the recipe's sizes.
        repeats: Number of repeats of either.
        folds: Number of folds of cross-validation.
        ks: K of Recall@K; by default the recipe's.
        seed: Seed for splits and fits.
        join_identical: Whether people with identical features stay together.
        output: Folder in which finished rows are kept; an interrupted sweep resumes from it.
        progress: Whether to show progress bars.
        shared: Arguments of every `Matcher`: `store`, `device`, `allow_upload`, `max_usd`.

    Raises:
        ConfigurationError: Names all combinations that cannot be built.
    """
    matchers = _build_matchers(combinations, seed, {**shared, "progress": progress})
    requests = (request for m in matchers for request in m.extraction_requests(pairs.people))
    for extraction in plan_extractions(requests):
        extraction.run()
    labels = [combination.label for combination in combinations]
    features = [m.paired_features(pairs, join_identical=join_identical) for m in matchers]
    tasks = _tasks(labels, matchers, features, baselines)
    first = features[0]
    cuts = _split(first, splits, repeats, folds, seed)
    used, notes = usable_ks(ks, smallest_gallery(first, cuts))
    chance = chance_table(first, cuts, used)
    finished = FinishedRows(output, cuts, chance, seed)
    tables = {}
    with progress_bar(progress) as bar:
        task = bar.add_task("Sweeping", total=len(tasks) * len(cuts))
        for label, (data, learner) in tasks.items():
            tables[label] = finished.read(data, learner) or measure_learner(
                data, learner, cuts, used, seed=seed, on_split=lambda: bar.advance(task)
            )
            finished.write(data, learner, tables[label])
            bar.update(task, completed=len(tables) * len(cuts))
    shared_people = first.identical_across_components()
    if shared_people:
        notes.append(IDENTICAL_FEATURES_NOTE.format(shared_people))
    return CrossValidation(tables, chance, seed=seed, notes=tuple(notes))


def plan(
    pairs: Pairs,
    combinations: Sequence[Combination],
    *,
    baselines: Sequence[str] = BASELINES,
    splits: SplitKind = "cross-validation",
    repeats: int = 5,
    folds: int = 5,
    seed: int = 0,
    progress: bool = False,
    **shared: Any,
) -> SweepPlan:
    """What `sweep` would do, and how long it takes.

    Extracts a handful of people (their features are kept) and times one fit per row. No photo is
    sent anywhere: if metadata would have to be generated elsewhere, there is no time estimate.
    Arguments are those of `sweep`; `progress` is accepted for symmetry and has no effect.
    """
    matchers = _build_matchers(combinations, seed, {**shared, "progress": False})
    local = [m for m in matchers if m.metadata is None or not m.metadata.sends_photos]
    requests = (request for m in local for request in m.extraction_requests(pairs.people))
    extractions = plan_extractions(requests)
    remote = {_remote_key(m) for m in matchers if m not in local}
    to_extract = sum(len(extraction.missing) for extraction in extractions)
    seconds = sum(extraction.measure().seconds or 0.0 for extraction in extractions)
    fits = repeats * (folds if splits == "cross-validation" else 1)
    for index, matcher in enumerate(matchers):
        noise = _noise(pairs, sum(backbone.dim for backbone in matcher.backbones))
        learners = [matcher.learner]
        if index == 0:
            learners += [registry.create("learners", name) for name in baselines]
        cut = _split(noise, splits, 1, folds, seed)[0]
        for learner in learners:
            start = time.perf_counter()
            measure_learner(noise, learner, [cut], (1,), seed=seed)
            seconds += (time.perf_counter() - start) * fits
    labels = (*(combination.label for combination in combinations), *baselines)
    return SweepPlan(
        labels=labels,
        people=len(pairs.people),
        extractions=len(extractions) + len(remote),
        to_extract=to_extract,
        fits=len(labels) * fits,
        seconds=None if remote else seconds,
    )


def _tasks(
    labels: Sequence[str],
    matchers: Sequence[Matcher],
    features: Sequence[PairedFeatures],
    baselines: Sequence[str],
) -> dict[str, tuple[PairedFeatures, Learner]]:
    """Features and learner of every row: combinations, then baselines for each set of features."""
    tasks = {}
    distinct: dict[str, tuple[str, PairedFeatures]] = {}
    for label, matcher, data in zip(labels, matchers, features, strict=True):
        _, data = distinct.setdefault(digest_features(data), (label, data))
        tasks[label] = (data, matcher.learner)
    for label, data in distinct.values():
        for baseline in baselines:
            row = baseline if len(distinct) == 1 else f"{baseline} ({label})"
            tasks[row] = (data, registry.create("learners", baseline))
    return tasks


def _build_matchers(
    combinations: Sequence[Combination], seed: int, shared: Mapping[str, Any]
) -> list[Matcher]:
    """One matcher per combination; equal backbones share an instance with all poolers' layers."""
    if not combinations:
        raise ConfigurationError("A sweep needs at least one combination.")
    labels = [combination.label for combination in combinations]
    problems = [
        f"{label}: named twice" for label in dict.fromkeys(labels) if labels.count(label) > 1
    ]
    store = shared.get("store")
    shared = {**shared, "store": store if isinstance(store, Store) else Store(store), "seed": seed}
    layers = _layers(combinations)
    backbones: dict[str, Backbone] = {}
    matchers = []
    for combination in combinations:
        arguments = {**combination.arguments, **shared}
        try:
            specs = list_of_parts(arguments.get("backbone", "qwen3-vl-2b"))
            device = arguments.get("device", "auto")
            arguments["backbone"] = [
                _shared_backbone(backbones, spec, layers, device) for spec in specs
            ]
            matchers.append(Matcher(**arguments))
        except (PairmatchError, TypeError) as error:
            problems.append(f"{combination.label}: {error}")
    if problems:
        raise ConfigurationError(
            f"{len(problems)} combinations cannot be built:\n  " + "\n  ".join(problems)
        )
    return matchers


def _layers(combinations: Iterable[Combination]) -> list[int]:
    """Layers that the poolers of all combinations read."""
    layers = set()
    for combination in combinations:
        pooler = combination.arguments.get("pooler")
        for spec in [] if pooler is None else list_of_parts(pooler):
            _, options = parse_part(spec)
            layers.add(options.get("layer"))
    return sorted(layer for layer in layers if layer is not None)


def _shared_backbone(
    backbones: dict[str, Backbone], spec: Any, layers: Sequence[int], device: str
) -> Backbone:
    name, options = parse_part(spec)
    if layers and "layers" in registry.options("backbones", name):
        options = {**options, "layers": list(layers)}
    key = content_key({"name": name, "options": options})
    if key not in backbones:
        backbones[key] = registry.create("backbones", (name, options), device=device)
    return backbones[key]


def _remote_key(matcher: Matcher) -> str:
    """Tells the extractions of matchers apart whose metadata would be generated elsewhere."""
    metadata = matcher.metadata
    fingerprint = {} if metadata is None else dict(metadata.fingerprint())
    backbones = [dict(backbone.fingerprint()) for backbone in matcher.backbones]
    return content_key(
        {"metadata": fingerprint, "backbones": backbones, "prompt": matcher.pipeline.prompt}
    )


def _split(
    data: PairedFeatures, kind: SplitKind, repeats: int, folds: int, seed: int
) -> list[Split]:
    if kind == "holdout":
        return holdout_splits(data, repeats=repeats, seed=seed)
    return cross_validation_splits(data, repeats=repeats, folds=folds, seed=seed)


def _noise(pairs: Pairs, width: int) -> PairedFeatures:
    """Random features in the shape of the real ones, to time fits on."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((len(pairs.ids_a), width), np.float32)
    b = None if pairs.sides == 1 else rng.standard_normal((len(pairs.ids_b), width), np.float32)
    is_match = [pair.outcome == "match" for pair in pairs.pairs]
    groups = pairs.components()[is_match].tolist()
    return PairedFeatures.of(a, b, matches=pairs.matches, groups=groups)

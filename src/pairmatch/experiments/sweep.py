"""Grids of parts and options, on one extraction for all that share it.

Minutes for what would take days.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pairmatch.core import registry
from pairmatch.core._version import __version__
from pairmatch.core.config import PartSpec, TrainingConfig, parse_spec
from pairmatch.core.errors import ConfigurationError, PairmatchError, unknown_name
from pairmatch.core.interfaces import Backbone, ContrastiveLoss, Learner, Pooler, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.types import Profile
from pairmatch.data import Pairs
from pairmatch.evaluation.crossvalidation import (
    BASELINES,
    TWINS,
    CrossValidation,
    Split,
    cross_validation_splits,
    frame,
    holdout_splits,
    measure,
    progress_bar,
    usable_ks,
)
from pairmatch.features.extractor import FeatureStore
from pairmatch.features.prompt import leave_out
from pairmatch.io.files import write_file
from pairmatch.io.store import Store, content_key
from pairmatch.learning.heads import build_head
from pairmatch.matcher.matcher import Matcher, several

_PARTS = ("backbone", "pooler", "metadata", "head", "loss")
_DEFAULTS = {"backbone": "qwen3-vl-2b", "head": "mlp", "loss": "infonce"}
_INTERFACES = {"heads": ProjectionHead, "losses": ContrastiveLoss}
_KEY_FORMAT = 1
_PROBE_PEOPLE = 4


@dataclass(frozen=True, slots=True)
class Combination:
    """One point of a grid.

    What is different about it, in words, and the arguments of its `Matcher`.
    """

    label: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep would do; `print` lists it.

    Attributes:
        labels: Every combination and baseline, in order.
        people: Distinct people.
        extractions: Passes of a backbone over people: combinations that share one count once.
        to_embed: People's inputs that are not in the store yet, over all extractions.
        fits: Fits that no earlier run has left.
        seconds: Estimate; None before anything was timed.
    """

    labels: tuple[str, ...]
    people: int
    extractions: int
    to_embed: int
    fits: int
    seconds: float | None

    def __str__(self) -> str:
        guess = "" if self.seconds is None else f"; about {_duration(self.seconds)}"
        plural = "" if self.extractions == 1 else "s"
        lines = [
            f"{len(self.labels)} lines, {self.extractions} extraction{plural} of {self.people} people:"
        ]
        lines += [f"  {label}" for label in self.labels]
        return "\n".join([*lines, f"{self.to_embed} inputs to embed, {self.fits} fits{guess}."])


def grid(base: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> list[Combination]:
    """All combinations of the values of some axes.

    Args:
        base: Arguments of `Matcher` that all share.
        axes: By `backbone`, `pooler`, `metadata`, `head`, `loss` (names, or names with options), or
            `part.option` (`head.width`, `loss.temperature`, `training.epochs`, `pooler.layer`,
            `backbone.max_pixels`), or another argument of `Matcher` (`prompt`): the values to try.
            The axis `without` leaves metadata fields out of the prompt: a field, a tuple of them,
            or None for all of them in; nobody's photo is asked about again for it.

    Raises:
        ConfigurationError: An axis without values, or an option of a part that is given as an
            instance.
    """
    empty = [axis for axis, values in axes.items() if not values]
    if empty:
        raise ConfigurationError(f"The axes {', '.join(empty)} have no values to try.")
    found = []
    for values in itertools.product(*axes.values()):
        arguments = dict(base)
        chosen = dict(zip(axes, values, strict=True))
        for axis in sorted(
            chosen, key=lambda name: ("." in name, name == "without")
        ):  # parts, then their options
            if axis == "without":
                left = chosen[axis] or ()
                arguments["prompt"] = leave_out(
                    arguments.get("prompt"), [left] if isinstance(left, str) else left
                )
                continue
            part, dot, option = axis.partition(".")
            arguments[part] = (
                _with_option(part, arguments.get(part), option, chosen[axis])
                if dot
                else chosen[axis]
            )
        label = ", ".join(_label(axis, value) for axis, value in chosen.items()) or "as it is"
        found.append(Combination(label, arguments))
    return found


def sweep(
    pairs: Pairs,
    combinations: Sequence[Combination],
    *,
    baselines: Sequence[str] = BASELINES,
    splits: Literal["cross-validation", "holdout"] = "cross-validation",
    repeats: int = 5,
    folds: int = 5,
    ks: Sequence[int] | None = None,
    seed: int = 0,
    join_identical: bool = False,
    output: str | Path | None = None,
    progress: bool = False,
    **shared: Any,
) -> CrossValidation:
    """Tests every combination on the same people, embedding everybody once per backbone and prompt.

    Args:
        pairs: All the pairs there are.
        combinations: As `grid` makes them.
        baselines: Learners that stand in the same table, for every set of features.
        splits: `cross-validation`, or `holdout`: repeated splits of the recipe's sizes.
        repeats: Of either.
        folds: Of cross-validation.
        ks: K of Recall@K.
        seed: Of splits and fits.
        join_identical: People with identical features stay together.
        output: Folder in which every finished line is kept, so that a sweep goes on where it was
            stopped.
        progress: Shows progress bars.
        shared: Arguments that every `Matcher` gets: `store`, `device`, `allow_upload`, `max_usd`.

    Raises:
        ConfigurationError: Combinations that cannot be built: all of them, at once.
    """
    matchers = _matchers(combinations, seed, {**shared, "progress": progress})
    for group in _extractions(matchers):
        group.embed(pairs.people)
    sets: dict[str, PairedFeatures] = {}
    names: dict[str, str] = {}
    lines: dict[str, tuple[str, Learner]] = {}
    for combination, matcher in zip(combinations, matchers, strict=True):
        data = matcher.paired_features(pairs, join_identical=join_identical)
        key = _digest(data)
        sets.setdefault(key, data)
        names.setdefault(key, combination.label)
        lines[combination.label] = (key, matcher.learner())
    for key, name in names.items():
        for baseline in baselines:
            label = baseline if len(sets) == 1 else f"{baseline} ({name})"
            lines[label] = (key, registry.create("learners", baseline))
    first = next(iter(sets.values()))
    cuts = _splits(first, splits, repeats, folds, seed)
    used, notes = usable_ks(first, cuts, ks)
    columns, chance = frame(first, cuts, used)
    asked = {
        "format": _KEY_FORMAT,
        "version": __version__,
        "ks": list(used),
        "seed": seed,
        "splits": _digest_splits(cuts),
    }
    values = []
    with progress_bar(progress) as bar:
        task = bar.add_task("Sweeping", total=len(lines) * len(cuts))
        for key, learner in lines.values():
            file = _file(output, {**asked, "features": key, "learner": _described(learner)})
            found = None if file is None else _kept(file, (len(chance), len(used) + 2))
            if found is None:
                found = measure(
                    sets[key], learner, cuts, used, seed=seed, on_split=lambda: bar.advance(task)
                )
                if file is not None:
                    buffer = io.BytesIO()
                    np.save(buffer, found)
                    write_file(file, buffer.getvalue())
            else:
                bar.advance(task, len(cuts))
            values.append(found)
    twins = first.identical_across_components()
    if twins:
        notes.append(TWINS.format(twins))
    return CrossValidation(
        tuple(lines), used, columns, np.stack(values), chance, seed=seed, notes=tuple(notes)
    )


def plan(
    pairs: Pairs,
    combinations: Sequence[Combination],
    *,
    baselines: Sequence[str] = BASELINES,
    repeats: int = 5,
    folds: int = 5,
    splits: Literal["cross-validation", "holdout"] = "cross-validation",
    seed: int = 0,
    progress: bool = False,
    **shared: Any,
) -> Plan:
    """What `sweep` would do and about how long it takes, after embedding a handful of people and timing one fit a line.

    Nobody's photo is sent anywhere: where metadata would have to be asked for, the estimate leaves
    that out. Arguments as for `sweep`.
    """
    matchers = _matchers(combinations, seed, {**shared, "progress": False})
    groups = _extractions(matchers)
    seconds, missing, local = 0.0, 0, True
    for group in groups:
        if group.matcher.metadata is not None and group.matcher.metadata.sends_photos:
            local = False
            continue
        waiting = group.missing(pairs.people)
        missing += len(waiting)
        if waiting:
            group.embed(waiting[:1])  # loads the model
            start = time.perf_counter()
            group.embed(waiting[1 : 1 + _PROBE_PEOPLE])
            seconds += (
                (time.perf_counter() - start)
                / _PROBE_PEOPLE
                * max(len(waiting) - 1 - _PROBE_PEOPLE, 0)
            )
    count = repeats * (folds if splits == "cross-validation" else 1)
    for matcher in matchers:
        width = sum(backbone.dim for backbone in matcher.backbones)
        blank = _noise(pairs, width)
        learners = [
            matcher.learner(),
            *(registry.create("learners", name) for name in baselines if matcher is matchers[0]),
        ]
        split = _splits(blank, splits, 1, folds, seed)[0]
        for learner in learners:
            start = time.perf_counter()
            measure(blank, learner, [split], (1,), seed=seed)
            seconds += (time.perf_counter() - start) * count
    labels = (*(c.label for c in combinations), *baselines)
    return Plan(
        labels,
        len(pairs.people),
        len(groups),
        missing,
        len(labels) * count,
        seconds if local else None,
    )


@dataclass(frozen=True, slots=True)
class _Extraction:
    """One pass of one backbone over one text of everybody, for all the poolers that combinations ask of it."""

    matcher: Matcher
    backbone: Backbone
    poolers: tuple[Pooler, ...]

    def embed(self, people: Sequence[Profile]) -> None:
        if people:
            self._store().extract(
                self.matcher.annotate(people), self.backbone, self.poolers, **self._prompt()
            )

    def missing(self, people: Sequence[Profile]) -> list[Profile]:
        annotated = self.matcher.annotate(people)
        plan = self._store().plan(annotated, self.backbone, self.poolers, **self._prompt())
        return list(plan.missing)

    def _store(self) -> FeatureStore:
        return self.matcher.feature_store

    def _prompt(self) -> dict[str, Any]:
        return {"prompt": self.matcher.prompt, "prompt_attributes": self.matcher.prompt_attributes}


def _extractions(matchers: Sequence[Matcher]) -> list[_Extraction]:
    groups: dict[str, tuple[Matcher, Backbone, dict[str, Pooler]]] = {}
    for matcher in matchers:
        generator = None if matcher.metadata is None else dict(matcher.metadata.fingerprint())
        text = {
            "metadata": generator,
            "prompt": matcher.prompt,
            "attributes": list(matcher.prompt_attributes),
        }
        for backbone, pooler in zip(matcher.backbones, matcher.poolers, strict=True):
            key = content_key({"backbone": id(backbone), **(text if backbone.reads_text else {})})
            group = groups.setdefault(key, (matcher, backbone, {}))
            group[2].setdefault(content_key(dict(pooler.fingerprint())), pooler)
    return [
        _Extraction(matcher, backbone, tuple(poolers.values()))
        for matcher, backbone, poolers in groups.values()
    ]


def _matchers(
    combinations: Sequence[Combination], seed: int, shared: Mapping[str, Any]
) -> list[Matcher]:
    """One per combination.

    Those that name the same backbone share its instance, with the layers of all poolers.
    """
    if not combinations:
        raise ConfigurationError("A sweep needs at least one combination.")
    labels = [combination.label for combination in combinations]
    problems = [
        f"{label}: named twice" for label in dict.fromkeys(labels) if labels.count(label) > 1
    ]
    layers = sorted(
        {
            options["layer"]
            for combination in combinations
            for spec in several(combination.arguments.get("pooler"))
            for _, options in [_parsed(spec)]
            if options.get("layer") is not None
        }
    )
    store = shared.get("store")
    if not isinstance(store, Store):
        store = Store(store)
    device = shared.get("device", "auto")
    built: dict[str, Backbone] = {}
    matchers = []
    for combination in combinations:
        try:
            arguments = {**combination.arguments, **shared, "store": store}
            backbones = []
            for spec in several(arguments.get("backbone", "qwen3-vl-2b")):
                name, options = _parsed(spec)
                if layers and "layers" in registry.options("backbones", name):
                    options = {**options, "layers": layers}
                key = content_key({"name": name, "options": options})
                if key not in built:
                    built[key] = registry.create("backbones", (name, options), device=device)
                backbones.append(built[key])
            training = arguments.get("training") or {}
            settings = (
                training if isinstance(training, TrainingConfig) else TrainingConfig(**training)
            )
            matchers.append(
                Matcher(
                    **{**arguments, "backbone": backbones, "training": replace(settings, seed=seed)}
                )
            )
            build_head(
                arguments.get("head", "mlp"), dim=8
            )  # its options are checked now, not after hours
        except (PairmatchError, TypeError) as error:
            problems.append(f"{combination.label}: {error}")
    if problems:
        raise ConfigurationError(
            f"{len(problems)} combinations cannot be built:\n  " + "\n  ".join(problems)
        )
    return matchers


def _parsed(spec: PartSpec) -> tuple[str, dict[str, Any]]:
    parsed = parse_spec(spec) if spec is not None else ("", {})
    if parsed is None:
        raise ConfigurationError(f"A sweep takes parts by name, not as instances: {spec!r}.")
    return parsed


def _with_option(part: str, spec: Any, option: str, value: Any) -> Any:
    if part == "training":
        return {**(spec or {}), option: value}
    if part not in _PARTS:
        raise ConfigurationError(unknown_name("part in a sweep", part, [*_PARTS, "training"]))
    if spec is None and part in ("pooler", "metadata"):
        raise ConfigurationError(f"`{part}.{option}` needs `{part}` to be named.")
    changed = []
    for one in several(spec if spec is not None else _DEFAULTS[part]):
        name, options = _parsed(one)
        changed.append((name, {**options, option: value}))
    return changed if part in ("backbone", "pooler") else changed[0]


def _splits(
    data: PairedFeatures,
    kind: Literal["cross-validation", "holdout"],
    repeats: int,
    folds: int,
    seed: int,
) -> list[Split]:
    if kind == "holdout":
        return holdout_splits(data, repeats=repeats, seed=seed)
    return cross_validation_splits(data, repeats=repeats, folds=folds, seed=seed)


def _noise(pairs: Pairs, width: int) -> PairedFeatures:
    """Random features in the shape of the real ones, to time fits on."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((len(pairs.ids_a), width), np.float32)
    b = None if pairs.sides == 1 else rng.standard_normal((len(pairs.ids_b), width), np.float32)
    matched = [pair.outcome == "match" for pair in pairs.pairs]
    return PairedFeatures.of(
        a, b, matches=pairs.matches, groups=pairs.components()[matched].tolist()
    )


def _digest(data: PairedFeatures) -> str:
    digest = hashlib.sha256()
    for array in (data.a, data.b, data.matches, data.rejected, data.components):
        digest.update(
            b"-" if array is None else f"{array.shape}{array.dtype}".encode() + array.tobytes()
        )
    return digest.hexdigest()


def _digest_splits(splits: Sequence[Split]) -> str:
    digest = hashlib.sha256()
    for split in splits:
        digest.update(
            f"{split.repeat} {split.fold} ".encode()
            + split.train.tobytes()
            + b"|"
            + split.test.tobytes()
        )
    return digest.hexdigest()


def _described(learner: Learner) -> dict[str, Any]:
    name, options = registry.describe("learners", learner)
    return json.loads(
        json.dumps({"name": name, "options": options}, default=_plain, sort_keys=True)
    )


def _plain(value: Any) -> Any:
    """Parts and settings inside a learner's options, as JSON."""
    if isinstance(value, TrainingConfig):
        return asdict(value)
    kind = next(kind for kind, interface in _INTERFACES.items() if isinstance(value, interface))
    return registry.describe(kind, value)


def _file(output: str | Path | None, parts: Mapping[str, Any]) -> Path | None:
    if output is None:
        return None
    folder = Path(output) / "lines"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{content_key(parts)}.npy"


def _kept(file: Path, shape: tuple[int, int]) -> npt.NDArray[np.float64] | None:
    if not file.exists():
        return None
    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError):
        return None  # damaged: done anew
    return found if found.shape == shape else None


def _label(axis: str, value: Any) -> str:
    if axis == "without":
        names = [value] if isinstance(value, str) else value or ()
        return f"without {', '.join(names)}" if names else "with every attribute"
    return f"{axis} {_words(value)}"


def _words(value: Any) -> str:
    if isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[1], Mapping):
        options = ", ".join(f"{key}={one}" for key, one in value[1].items())
        return f"{value[0]} ({options})" if options else str(value[0])
    if isinstance(value, list):
        return " + ".join(map(_words, value))
    return "none" if value is None else str(value)


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )

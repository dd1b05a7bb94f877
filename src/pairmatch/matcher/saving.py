"""Between a matcher and its record: names and options of parts, never pickles or import paths."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pairmatch.core import registry
from pairmatch.core._version import __version__
from pairmatch.core.config import PartSpec, list_of_parts, parse_spec
from pairmatch.core.errors import (
    ConfigurationError,
    PairmatchError,
    PartError,
    SavedMatcherError,
    unknown_name,
)
from pairmatch.core.interfaces import Learner, ProjectionHead, Reranker
from pairmatch.core.second_stage import SecondStage
from pairmatch.core.text import printable
from pairmatch.learning.evidence import evidence_of
from pairmatch.learning.heads import PerSideHead, build_head, describe_head
from pairmatch.matcher.files import RECORD, RERANKER, WEIGHTS
from pairmatch.matcher.pipeline import FeaturePipeline
from pairmatch.matcher.records import (
    generator_spec,
    learner_record,
    named_record,
    part_options,
    part_record,
    provider_hint,
)

_log = logging.getLogger(__name__)
#: Attributes of a matcher that are saved unchanged.
STATE = ("sides", "seed", "data", "notes", "metrics")
_LOAD_OPTIONS = ("store", "device", "allow_upload", "max_usd", "progress", "callbacks", "engine")


def describe(
    pipeline: FeaturePipeline,
    learner: Learner,
    head: ProjectionHead,
    reranker: Reranker | None = None,
    second: SecondStage | None = None,
) -> dict[str, Any]:
    """The record of a matcher's parts, as `matcher.json` holds it.

    A re-ranker that is not used is left out if it has no registered name.

    Raises:
        PartError: A part's class has no registered name.
        ConfigurationError: An option cannot be written as JSON.
    """
    name, options = describe_head(head)
    metadata = pipeline.metadata
    return {
        "pairmatch": __version__,
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "dim": _dim(head),
        "parts": {
            "backbones": [part_record("backbones", backbone) for backbone in pipeline.backbones],
            "poolers": [part_record("poolers", pooler) for pooler in pipeline.poolers],
            "metadata": None if metadata is None else part_record("metadata", metadata),
            "learner": learner_record(learner),
            "head": named_record("heads", name, options),
            "reranker": _reranker_record(reranker, second),
        },
        "evidence": {item.kind: round(item.share, 4) for item in evidence_of(head)},
        "fingerprints": pipeline.trained_on,
        "weights": pipeline.weights,
        "prompt": pipeline.prompt,
        "prompt_attributes": list(pipeline.prompt_attributes),
        "store_dtype": pipeline.store_dtype,
    }


def constructor_arguments(
    record: Mapping[str, Any], metadata: PartSpec | Mapping[str, Any] = None
) -> dict[str, Any]:
    """Arguments of `Matcher` that a record stands for.

    Args:
        record: The record.
        metadata: Generator that replaces the saved one, or options that override its own.
    """
    parts = record["parts"]
    return {
        "backbone": [_spec(entry) for entry in parts["backbones"]],
        "pooler": [_spec(entry) for entry in parts["poolers"]],
        "metadata": generator_spec(parts["metadata"], metadata),
        "learner": _spec(parts["learner"]),
        "reranker": _reranker_spec(record),
        "seed": record["seed"],
        "weights": record["weights"],
        "prompt": record["prompt"],
        "prompt_attributes": record["prompt_attributes"],
        "store_dtype": record["store_dtype"],
    }


def replaced_backbones(record: Mapping[str, Any], given: PartSpec) -> list[PartSpec]:
    """Backbones that replace the saved ones; one of the same name keeps what it learned."""
    specs = list_of_parts(given)
    for position, (spec, entry) in enumerate(
        zip(specs, record["parts"]["backbones"], strict=False)
    ):
        parsed = parse_spec(spec)
        if parsed is not None and parsed[0] == entry["name"]:
            kept = part_options({**entry, "options": {}})
            specs[position] = (parsed[0], {**kept, **parsed[1]})
    return specs


def build_saved_head(record: Mapping[str, Any], weights: Mapping[str, Tensor]) -> ProjectionHead:
    """The fitted head, in evaluation mode."""
    spec = _spec(record["parts"]["head"])
    problems = _shape_problems(spec, record["dim"], weights)
    if problems:
        raise SavedMatcherError(f"{WEIGHTS} does not fit its head: {'; '.join(problems)}.")
    head = build_head(spec, dim=record["dim"])
    head.load_state_dict(weights)
    return head.eval()


def restored_second(
    reranker: Reranker, state: Mapping[str, Tensor], head: ProjectionHead
) -> SecondStage:
    """The fitted second stage of a matcher with this head."""
    try:
        return SecondStage.restored(reranker, state, width=head.width)
    except ConfigurationError as error:
        raise SavedMatcherError(f"{RERANKER} does not fit its matcher: {error}") from error


def _shape_problems(spec: PartSpec, dim: int, weights: Mapping[str, Tensor]) -> list[str]:
    """Tensors that differ from those of the head, which takes no memory to find out."""
    try:
        with torch.device("meta"):
            expected = build_head(spec, dim=dim).state_dict()
    except PairmatchError:
        raise
    except Exception:  # a head that needs real tensors: `load_state_dict` compares
        return []
    problems = []
    for name in sorted({*expected, *weights}):
        if name not in weights:
            problems.append(f"{name} is missing")
        elif name not in expected:
            problems.append(f"{printable(name)} is not a tensor of this head")
        elif weights[name].shape != expected[name].shape:
            shapes = (list(weights[name].shape), list(expected[name].shape))
            problems.append(f"{name} has shape {shapes[0]} instead of {shapes[1]}")
        elif weights[name].is_floating_point() != expected[name].is_floating_point():
            types = (weights[name].dtype, expected[name].dtype)
            problems.append(f"{name} has the type {types[0]} instead of {types[1]}")
    return problems


def check_load_options(options: Mapping[str, Any]) -> None:
    """Raises ConfigurationError that names every option that `Matcher.load` does not take."""
    unknown = [name for name in options if name not in _LOAD_OPTIONS]
    if unknown:
        raise ConfigurationError(
            " ".join(unknown_name("option of `load`", name, _LOAD_OPTIONS) for name in unknown)
        )


@contextmanager
def explained_errors(folder: Path, record: Mapping[str, Any]) -> Iterator[None]:
    """Explains errors that occur while a matcher is built from its record.

    Options of a damaged record reach the constructors of any part, so any error may occur.
    """
    try:
        yield
    except PartError as error:
        hint = provider_hint(record)
        raise PartError(f"{error} {hint}".strip()) from error
    except PairmatchError:
        raise
    except Exception as error:
        reason = printable(" ".join(str(error).split()))[:300]
        raise SavedMatcherError(
            f"No matcher can be built from {printable(str(folder / RECORD))}, which is damaged or "
            f"was not written by `save`: {type(error).__name__}: {reason}."
        ) from error


def _reranker_record(reranker: Reranker | None, second: SecondStage | None) -> Any:
    if reranker is None and second is not None:
        reranker = second.reranker  # of a matcher whose next `fit` has none
    if reranker is None:
        return None
    try:
        return part_record("rerankers", reranker)
    except PartError as error:
        if second is not None:
            raise
        _log.warning("The re-ranker, which is not used, is not saved: %s", error)
        return None


def _reranker_spec(record: Mapping[str, Any]) -> PartSpec:
    """The re-ranker of a record; None for one that is not used, and not installed."""
    entry = record["parts"].get("reranker")
    if entry is None or "reranker_state" in record:
        return _spec(entry)
    if not registry.is_installed("rerankers", entry["name"]):
        _log.warning(
            "The re-ranker %r, which this matcher does not use, is not installed: fitting again "
            "leaves it out. %s",
            printable(entry["name"]),
            provider_hint(record),
        )
        return None
    return _spec(entry)


def _spec(entry: Mapping[str, Any] | None) -> PartSpec:
    return None if entry is None else (entry["name"], part_options(entry))


def _dim(head: ProjectionHead) -> int:
    """Width of the features that a head takes."""
    return int((head.a if isinstance(head, PerSideHead) else head).dim)  # type: ignore[arg-type]

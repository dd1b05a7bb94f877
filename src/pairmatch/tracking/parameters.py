"""What a run was told, as flat parameters for a tracker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pairmatch.core._version import __version__
from pairmatch.core.errors import ConfigurationError, PartError
from pairmatch.data import Pairs
from pairmatch.data.digests import data_digests
from pairmatch.finetuning.config import FinetuneConfig
from pairmatch.matcher.card import without_folder
from pairmatch.matcher.matcher import Matcher
from pairmatch.matcher.records import learner_record, part_record

Parameter = str | int | float


def run_parameters(
    matcher: Matcher, parts: Mapping[str, Pairs], finetune: FinetuneConfig | None = None
) -> dict[str, Parameter]:
    """Parts and options of a matcher, with counts and digests of the data.

    They hold no id, photo, text or attribute of a person, no folder, no address of a server and no
    key: `backbone` is `clip`, `learner.training.epochs` is 30, `data.train.matches` is 346 and
    `data.photos` is a SHA-256.

    Args:
        matcher: Matcher before or after `fit`.
        parts: Pairs by name, such as `train`, `validation` and `test`.
        finetune: Hyperparameters of a fine-tuning, which become `finetune.rank` and so on.

    Raises:
        ImageError: A photo cannot be read.
    """
    parameters: dict[str, Parameter] = {"pairmatch": __version__, "seed": matcher.seed}
    several = len(matcher.backbones) > 1
    for number, (backbone, pooler) in enumerate(
        zip(matcher.backbones, matcher.poolers, strict=True), start=1
    ):
        suffix = str(number) if several else ""
        parameters |= _part(f"backbone{suffix}", "backbones", backbone)
        parameters |= _part(f"pooler{suffix}", "poolers", pooler)
    if matcher.metadata is not None:
        parameters |= _part("metadata", "metadata", matcher.metadata)
    parameters |= _part("learner", "learners", matcher.learner)
    if matcher.reranker is not None:
        parameters |= _part("reranker", "rerankers", matcher.reranker)
    if finetune is not None:
        parameters |= dict(_flat("finetune", finetune.to_dict()))
    for name, pairs in parts.items():
        parameters[f"data.{name}.pairs"] = len(pairs.pairs)
        parameters[f"data.{name}.matches"] = len(pairs.matches)
        parameters[f"data.{name}.people"] = len(pairs.people)
    tables: Sequence[Pairs] = list(parts.values())
    return parameters | {f"data.{name}": value for name, value in data_digests(tables).items()}


def _part(label: str, kind: str, part: Any) -> dict[str, Parameter]:
    """Name and options of a part, without what it has learned; its class if it has no name."""
    try:
        record = learner_record(part) if kind == "learners" else part_record(kind, part)
    except (PartError, ConfigurationError):
        return {label: type(part).__name__}
    adapter = record.get("adapter") or {}
    described = {key: adapter[key] for key in ("digest", "rank", "alpha") if key in adapter}
    return {
        label: record["name"],
        **dict(_flat(label, without_folder(record["options"]))),
        **dict(_flat(f"{label}.adapter", described)),
    }


def _flat(label: str, value: Any) -> list[tuple[str, Parameter]]:
    """Options by dotted names; options that are not set are left out."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[1], Mapping):
        return [(label, str(value[0])), *_flat(label, value[1])]  # a part with options
    if isinstance(value, Mapping):
        return [item for name, inner in value.items() for item in _flat(f"{label}.{name}", inner)]
    if value is None:
        return []
    return [(label, value if isinstance(value, str | int | float) else json.dumps(value))]

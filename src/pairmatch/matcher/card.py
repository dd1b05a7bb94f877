"""Descriptions of a matcher: the summary in reports, and the model card."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pairmatch.core import registry
from pairmatch.core.config import TrainingConfig
from pairmatch.core.errors import PartError
from pairmatch.core.interfaces import Learner, ProjectionHead
from pairmatch.core.second_stage import SecondStage
from pairmatch.learning.evidence import evidence_of
from pairmatch.learning.heads import describe_head
from pairmatch.matcher.pipeline import FeaturePipeline

_NO_METADATA = "none: no generator sees the photos"
_LIMITS = """
It ranks people by what their profiles have in common with past matches, biases included. It is not
a judgment of a person, and it should not decide alone who is shown to whom.
"""


def summary(
    pipeline: FeaturePipeline,
    learner: Learner,
    head: ProjectionHead | None,
    second: SecondStage | None = None,
) -> dict[str, str]:
    """Parts and options of a matcher, by name of the part; a re-ranker if it is in use."""
    parts = {
        "Backbone": " + ".join(_part("backbones", backbone) for backbone in pipeline.backbones),
        "Pooling": ", ".join(_part("poolers", pooler) for pooler in pipeline.poolers),
        "Metadata": _metadata(pipeline),
        **_learner(learner),
    }
    if head is not None:
        parts["Head"] = _words(*describe_head(head))
    evidence = evidence_of(head)
    if evidence:
        shares = (f"{item.kind} {100 * item.share:.0f} %" for item in evidence)
        parts["Evidence"] = ", ".join(shares)
    if second is not None:
        parts["Re-ranker"] = _part("rerankers", second.reranker)
    return parts


def _metadata(pipeline: FeaturePipeline) -> str:
    if pipeline.metadata is None:
        return _NO_METADATA
    if not pipeline.reads_text:
        return "none: no backbone here reads text"
    part = _part("metadata", pipeline.metadata)
    return f"none: {part} described no training photo" if pipeline.described == 0 else part


def _learner(learner: Learner) -> dict[str, str]:
    """The learner; its loss and training hyperparameters, if it has any, on their own."""
    try:
        name, options = registry.describe("learners", learner)
    except PartError:
        return {"Learner": type(learner).__name__}
    rows = {}
    options = {key: value for key, value in options.items() if key not in ("device", "progress")}
    if "loss" in options:
        loss = options.pop("loss")
        options.pop("head", None)
        rows["Loss"] = _part("losses", registry.create("losses", loss))
    if "training" in options:
        training = options.pop("training") or TrainingConfig()
        fields = training if isinstance(training, Mapping) else dataclasses.asdict(training)
        rows["Training"] = ", ".join(f"{key} {value}" for key, value in fields.items())
    return {"Learner": _words(name, options), **rows}


def _part(kind: str, part: Any) -> str:
    try:
        name, options = registry.describe(kind, part)
    except PartError:
        return type(part).__name__
    learned = {key: options.pop(key) for key in getattr(part, "learned", ())}
    return "; ".join([_words(name, options), *_learned_words(learned)])


def _learned_words(learned: Mapping[str, Any]) -> list[str]:
    """What a backbone has learned, by its names only: `encodings of age, smoker`."""
    return [
        f"{key} of {', '.join(value)}"
        for key, value in learned.items()
        if isinstance(value, Mapping) and value
    ]


def _words(name: str, options: Mapping[str, Any]) -> str:
    shown = ", ".join(
        f"{key}={_named_parts(value) or getattr(value, '__name__', value)}"
        for key, value in options.items()
        if value is not None and value not in ((), [], {})
    )
    return f"{name} ({shown})" if shown else name


def model_card(record: Mapping[str, Any]) -> str:
    """Model card in the Hugging Face format: parts, training and figures.

    Args:
        record: Content of `matcher.json`.
    """
    from huggingface_hub import ModelCardData

    front_matter = ModelCardData(
        library_name="pairmatch", tags=["pairmatch", "matching", "recommendation"]
    )
    lines = [
        "---",
        front_matter.to_yaml(),
        "---",
        "",
        "# A pairmatch matcher",
        "",
        f"Made by pairmatch {record['pairmatch']} on {record['created']}. Load it with "
        '`pairmatch.Matcher.from_pretrained("this folder, or owner/name on the hub")`.',
        "",
        *_parts_table(_parts_in_effect(record)),
        "",
    ]
    data = record.get("data")
    if data:
        lines.append(f"Trained on {data['pairs']} pairs ({data['people']} people).")
    evidence = record.get("evidence") or {}
    if evidence:
        shares = [f"{100 * share:.0f} % {kind}" for kind, share in evidence.items()]
        lines += ["", f"It ranks by: {', '.join(shares)}."]
        sources = record["parts"]["head"]["options"].get("block_shares") or {}
        if sources:
            words = [f"{100 * share:.0f} % {name}" for name, share in sources.items()]
            lines.append(f"Its features: {', '.join(words)}.")
    metrics = record.get("metrics")
    if metrics:
        heading = f"Measured on {metrics['queries']} queries of held-out pairs:"
        is_tuned = any(entry.get("adapter") for entry in record["parts"]["backbones"])
        features = "features of the fine-tuned backbones" if is_tuned else "frozen features"
        lines += ["", heading, "", *_metrics_table(metrics, features)]
    for note in record.get("notes", []):
        lines += ["", f"Note: {note}"]
    return "\n".join(lines) + "\n" + _LIMITS


def _parts_in_effect(record: Mapping[str, Any]) -> dict[str, Any]:
    """The parts, without those that had no part in the ranking.

    They are a metadata generator that described no photo of the training people, and a re-ranker
    that cross-validation did not support.
    """
    parts = dict(record["parts"])
    if (record.get("data") or {}).get("described") == 0:
        parts["metadata"] = None
    if record.get("reranker_sha256") is None:
        parts.pop("reranker", None)
    return parts


def _parts_table(parts: Mapping[str, Any]) -> list[str]:
    rows = ["| part | name | options | from |", "| --- | --- | --- | --- |"]
    optional = ["reranker"] if "reranker" in parts else []
    for kind in ("backbones", "poolers", "metadata", "learner", "head", *optional):
        entries = parts[kind] if isinstance(parts[kind], list) else [parts[kind]]
        for entry in entries:
            if entry is None:
                none = _NO_METADATA if kind == "metadata" else "none"
                rows.append(f"| {kind} | {none} | | |")
                continue
            words = [f"{key}={_option_words(value)}" for key, value in entry["options"].items()]
            words += _learned_words(entry.get("learned", {}))
            adapter = entry.get("adapter")
            if adapter:
                layers = len(adapter["targets"])
                words.append(f"fine-tuned: rank {adapter['rank']}, {layers} layers")
            options = ", ".join(words)
            source = f"{entry['distribution']} {entry['version']}"
            rows.append(f"| {kind} | {entry['name']} | {options or 'defaults'} | {source} |")
    return rows


def _named_parts(value: Any) -> str:
    """The names of parts by name, such as the heads of a stacked head; empty for other options."""
    if not isinstance(value, Mapping) or not value:
        return ""
    specs = value.values()
    is_parts = all(isinstance(spec, list | tuple) and len(spec) == 2 for spec in specs)
    return "; ".join(value) if is_parts else ""


def _option_words(value: Any) -> str:
    value = without_folder(value)
    if _named_parts(value):
        return _named_parts(value)
    if isinstance(value, list) and len(value) == 2 and isinstance(value[1], Mapping):
        return _words(*value)
    if isinstance(value, Mapping) and "title" not in value:
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


def without_folder(value: Any) -> Any:
    """A path without its folders, which may name a person or a machine; a schema by its title."""
    if isinstance(value, Mapping) and "title" in value:
        return value["title"]
    if isinstance(value, Mapping):
        return {key: without_folder(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folder(item) for item in value]
    is_path = isinstance(value, str) and Path(value).is_absolute()
    return Path(value).name if is_path else value


def _metrics_table(metrics: Mapping[str, Any], features: str) -> list[str]:
    ks = list(metrics["both"]["recall"])
    lines = [
        "| | " + " | ".join(f"R@{k}" for k in ks) + " | MRR |",
        "| --- |" + " --- |" * (len(ks) + 1),
    ]
    rows = [("chance", metrics["chance"]), ("this matcher", metrics["both"])]
    if "frozen" in metrics:
        rows.insert(1, (features, metrics["frozen"]["both"]))
    for name, figures in rows:
        intervals = figures.get("intervals") or {"recall": {}}
        values = [
            f"{100 * figures['recall'][k]:.1f} %{_interval(intervals['recall'].get(k), 100, 1)}"
            for k in ks
        ]
        values.append(f"{figures['mrr']:.3f}{_interval(intervals.get('mrr'), 1, 3)}")
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    if metrics["both"].get("intervals"):
        confidence = 100 * metrics["confidence"]
        lines += ["", f"In brackets: {confidence:.0f} % intervals over people."]
    return lines


def _interval(bounds: Sequence[float] | None, factor: int, digits: int) -> str:
    if bounds is None:
        return ""
    low, high = (f"{factor * bound:.{digits}f}" for bound in bounds)
    return f" ({low}–{high})"

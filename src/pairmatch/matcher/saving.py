"""The folder of a saved matcher.

JSON, safetensors, CSV and a model card. No pickle, no import path, no person.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from pairmatch.core import registry
from pairmatch.core.errors import ConfigurationError, SavedMatcherError
from pairmatch.io.files import write_file
from pairmatch.metadata.schema import write_schema

FORMAT = 1
_OWN_MACHINE = ("device", "threads")  # options that describe a machine, not the matcher


def write(
    folder: Path,
    record: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    history: Sequence[Mapping[str, float]],
) -> None:
    """Writes the folder.

    `matcher.json` comes last and holds the digest of the weights, so halves are noticed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = save_tensors(
        {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    )
    record = {"format": FORMAT, **record, "head_sha256": hashlib.sha256(tensors).hexdigest()}
    write_file(folder / "head.safetensors", tensors)
    write_file(folder / "history.csv", _csv(history))
    write_file(folder / "README.md", model_card(record).encode())
    write_file(
        folder / "matcher.json", (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()
    )


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], list[dict[str, float]]]:
    """Reads the folder; nothing of it is executed.

    Raises:
        SavedMatcherError: No such folder, a file is missing or damaged, or another format.
    """
    path = folder / "matcher.json"
    if not path.is_file():
        raise SavedMatcherError(f"{folder} holds no saved matcher (there is no {path.name}).")
    try:
        record = json.loads(path.read_bytes())
    except ValueError as error:
        raise SavedMatcherError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(record, dict) or not isinstance(record.get("format"), int):
        raise SavedMatcherError(f"{path} is not a saved matcher: it has no format version.")
    if record["format"] != FORMAT:
        raise SavedMatcherError(
            f"{path} has format {record['format']}, this pairmatch reads format {FORMAT}: upgrade pairmatch, "
            "or fit anew."
        )
    try:
        content = (folder / "head.safetensors").read_bytes()
    except OSError as error:
        raise SavedMatcherError(
            f"{folder / 'head.safetensors'} cannot be read: {error.strerror}."
        ) from error
    if hashlib.sha256(content).hexdigest() != record.get("head_sha256"):
        raise SavedMatcherError(
            f"{folder / 'head.safetensors'} does not belong to {path.name} (its digest differs): the folder was "
            "changed or saving was interrupted. Save the matcher again."
        )
    try:
        weights = load_tensors(content)
    except SafetensorError as error:
        raise SavedMatcherError(f"{folder / 'head.safetensors'} is damaged: {error}.") from error
    return record, weights, _history(folder / "history.csv")


def part_record(kind: str, part: Any) -> dict[str, Any]:
    """How a part is written down: registered name, options, and the distribution that provides it.

    Raises:
        PartError: The part's class is registered under no name.
        ConfigurationError: An option that cannot be written as JSON.
    """
    name, options = registry.describe(kind, part)
    defaults = inspect.signature(type(part).__init__).parameters
    # A default class (a metadata schema) comes back with the part; a schema of the user's own is
    # written as JSON Schema
    options = {
        key: write_schema(value)
        if isinstance(value, type) and issubclass(value, BaseModel)
        else value
        for key, value in options.items()
        if not (isinstance(value, type) and value is defaults[key].default)
    }
    return named_record(
        kind, name, {key: value for key, value in options.items() if key not in _OWN_MACHINE}
    )


def named_record(kind: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a part whose name and options are known."""
    plain = {
        key: str(value) if isinstance(value, Path) else value for key, value in options.items()
    }
    for key, value in plain.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"The option {key}={value!r} of {name!r} cannot be written into a saved matcher: {error}."
            ) from error
    distribution, version = registry.provenance(kind, name)
    return {"name": name, "options": plain, "distribution": distribution, "version": version}


def provider_hint(record: Mapping[str, Any]) -> str:
    """Which distributions the saved matcher's parts came from, those that are missing here."""
    installed = {(plugin.kind, plugin.name) for plugin in registry.plugins()}
    kinds = {"backbones": "backbones", "poolers": "poolers", "metadata": "metadata"}
    kinds |= {"head": "heads", "loss": "losses", "learner": "learners"}
    missing = []
    for part, kind in kinds.items():
        entries = record["parts"].get(part)
        for entry in entries if isinstance(entries, list) else [entries]:
            if entry and (kind, entry["name"]) not in installed:
                missing.append(
                    f"{entry['name']!r} came from {entry['distribution']} {entry['version']}: install it"
                )
    return f"In this saved matcher {'; '.join(missing)}." if missing else ""


def _csv(history: Sequence[Mapping[str, float]]) -> bytes:
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()


def _history(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            {key: float(value) for key, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def model_card(record: Mapping[str, Any]) -> str:
    """Model card in the Hugging Face format.

    Parts, training and figures; nothing about any person.
    """
    from huggingface_hub import ModelCardData

    parts = record["parts"]
    lines = [
        "---",
        ModelCardData(
            library_name="pairmatch", tags=["pairmatch", "matching", "recommendation"]
        ).to_yaml(),
        "---",
        "",
        "# A pairmatch matcher",
        "",
        f"Made by pairmatch {record['pairmatch']} on {record['created']}. "
        'Load it with `pairmatch.Matcher.from_pretrained("this folder, or owner/name on the hub")`.',
        "",
        "| part | name | options | from |",
        "| --- | --- | --- | --- |",
    ]
    learned = parts.get("learner") is not None
    for kind in ("backbones", "poolers", "metadata", "head", "learner" if learned else "loss"):
        entries = parts[kind] if isinstance(parts[kind], list) else [parts[kind]]
        for entry in entries:
            if entry is None:
                lines.append(f"| {kind} | none | | |")
                continue
            options = (
                ", ".join(f"{key}={_shown(value)}" for key, value in entry["options"].items())
                or "defaults"
            )
            lines.append(
                f"| {kind} | {entry['name']} | {options} | {entry['distribution']} {entry['version']} |"
            )
    if not learned:
        training = ", ".join(f"{key} {value}" for key, value in record["training"].items())
        lines += ["", f"Training: {training}."]
    data = record.get("data")
    if data:
        lines += [""] * learned
        lines.append(f"Trained on {data['pairs']} pairs ({data['people']} people).")
    metrics = record.get("metrics")
    if metrics:
        lines += [
            "",
            f"Measured on {metrics['queries']} queries of held-out pairs:",
            "",
            *_table(metrics),
        ]
    for note in record.get("notes", []):
        lines += ["", f"Note: {note}"]
    lines += [
        "",
        "It ranks people by what their photos and texts have in common with past matches, biases included. It is no",
        "judgement of a person, and it should not decide alone who is shown to whom.",
        "",
    ]
    return "\n".join(lines)


def without_folders(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the names of files alone where parts have paths, whose folders may name a person or a machine."""
    parts = {
        kind: [_bare(entry) for entry in part] if isinstance(part, list) else _bare(part)
        for kind, part in record["parts"].items()
    }
    return {**record, "parts": parts}


def _bare(entry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return (
        None
        if entry is None
        else {**entry, "options": {key: _shown(value) for key, value in entry["options"].items()}}
    )


def _shown(value: Any) -> Any:
    """A path without its folders, which may name a person or a machine; a schema by its name."""
    if isinstance(value, Mapping) and "title" in value:
        return value["title"]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _table(metrics: Mapping[str, Any]) -> list[str]:
    ks = list(metrics["both"]["recall"])
    lines = [
        "| | " + " | ".join(f"R@{k}" for k in ks) + " | MRR |",
        "| --- |" + " --- |" * (len(ks) + 1),
    ]
    rows = [("chance", metrics["chance"]), ("this matcher", metrics["both"])]
    if "frozen" in metrics:
        rows.insert(1, ("frozen features", metrics["frozen"]["both"]))
    for name, figures in rows:
        intervals = figures.get("intervals") or {"recall": {}}
        values = [
            f"{100 * figures['recall'][k]:.1f} %{_interval(intervals['recall'].get(k), 100, 1)}"
            for k in ks
        ]
        values.append(f"{figures['mrr']:.3f}{_interval(intervals.get('mrr'), 1, 3)}")
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    if metrics["both"].get("intervals"):
        lines += ["", f"In brackets: {100 * metrics['confidence']:.0f} % intervals over people."]
    return lines


def _interval(bounds: Sequence[float] | None, factor: int, digits: int) -> str:
    return (
        ""
        if bounds is None
        else f" ({factor * bounds[0]:.{digits}f}–{factor * bounds[1]:.{digits}f})"
    )

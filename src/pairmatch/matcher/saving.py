"""The folder of a saved matcher: JSON, safetensors, CSV and a model card.

It contains no pickle, no import path, and no photo, id, text or feature of any person.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from pairmatch.core._version import __version__
from pairmatch.core.config import PartSpec
from pairmatch.core.errors import (
    ConfigurationError,
    PairmatchError,
    PartError,
    SavedMatcherError,
    unknown_name,
)
from pairmatch.core.interfaces import Learner, ProjectionHead
from pairmatch.io.files import write_file
from pairmatch.io.spreadsheets import csv_bytes
from pairmatch.learning.heads import PerSideHead, build_head, describe_head
from pairmatch.matcher.card import model_card
from pairmatch.matcher.pipeline import FeaturePipeline
from pairmatch.matcher.records import (
    generator_spec,
    learner_record,
    named_record,
    part_record,
    provider_hint,
)

FORMAT = 2
#: Attributes of a matcher that are saved unchanged.
STATE = ("sides", "seed", "data", "notes", "metrics")
_LOAD_OPTIONS = ("store", "device", "allow_upload", "max_usd", "progress")


def describe(pipeline: FeaturePipeline, learner: Learner, head: ProjectionHead) -> dict[str, Any]:
    """The record of a matcher's parts, as `matcher.json` holds it.

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
        },
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
        "seed": record["seed"],
        "weights": record["weights"],
        "prompt": record["prompt"],
        "prompt_attributes": record["prompt_attributes"],
        "store_dtype": record["store_dtype"],
    }


def build_saved_head(record: Mapping[str, Any], weights: Mapping[str, Tensor]) -> ProjectionHead:
    """The fitted head, in evaluation mode."""
    head = build_head(_spec(record["parts"]["head"]), dim=record["dim"])
    head.load_state_dict(weights)
    return head.eval()


def check_load_options(options: Mapping[str, Any]) -> None:
    """Raises ConfigurationError that names every option that `Matcher.load` does not take."""
    unknown = [name for name in options if name not in _LOAD_OPTIONS]
    if unknown:
        raise ConfigurationError(
            " ".join(unknown_name("option of `load`", name, _LOAD_OPTIONS) for name in unknown)
        )


@contextmanager
def explained_errors(folder: Path, record: Mapping[str, Any]) -> Iterator[None]:
    """Explains errors that occur while a matcher is built from its record."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise SavedMatcherError(
            f"{folder / 'matcher.json'} was not written by `save`: {error!r}."
        ) from error
    except PartError as error:
        try:
            hint = provider_hint(record)
        except (KeyError, TypeError, AttributeError):  # a damaged record has no hint to give
            hint = ""
        raise PartError(f"{error} {hint}".strip()) from error
    except PairmatchError:
        raise
    except RuntimeError as error:  # load_state_dict: names or shapes
        raise SavedMatcherError(
            f"{folder / 'head.safetensors'} does not fit its head: {error}"
        ) from error


def write(
    folder: Path,
    record: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    history: Sequence[Mapping[str, float]],
) -> None:
    """Writes the files of a matcher.

    `matcher.json` comes last and holds the digest of the weights, so that an interrupted save is
    noticed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = save_tensors({key: value.cpu().contiguous() for key, value in weights.items()})
    record = {"format": FORMAT, **record, "head_sha256": hashlib.sha256(tensors).hexdigest()}
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_file(folder / "head.safetensors", tensors)
    write_file(folder / "history.csv", _csv(history))
    write_file(folder / "README.md", model_card(record).encode())
    write_file(folder / "matcher.json", text.encode())


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], list[dict[str, float]]]:
    """Reads record, weights and history; nothing is executed.

    Records of format 1 are converted to format 2.

    Raises:
        SavedMatcherError: The folder does not exist, a file is missing or damaged, or the format is
            unknown.
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
    if not 1 <= record["format"] <= FORMAT:
        raise SavedMatcherError(
            f"{path} has format {record['format']}, this pairmatch reads formats 1 to {FORMAT}: "
            "upgrade pairmatch, or fit again."
        )
    weights_path = folder / "head.safetensors"
    try:
        content = weights_path.read_bytes()
    except OSError as error:
        raise SavedMatcherError(f"{weights_path} cannot be read: {error.strerror}.") from error
    if hashlib.sha256(content).hexdigest() != record.get("head_sha256"):
        raise SavedMatcherError(
            f"{weights_path} does not belong to {path.name} (its digest differs): the folder was "
            "changed or saving was interrupted. Save the matcher again."
        )
    try:
        weights = load_tensors(content)
    except SafetensorError as error:
        raise SavedMatcherError(f"{weights_path} is damaged: {error}.") from error
    record = _converted(record, path)
    _check_state(record, path)
    return record, weights, _history(folder / "history.csv")


def _check_state(record: Mapping[str, Any], path: Path) -> None:
    """Raises SavedMatcherError that names every value of a wrong type."""
    kinds: dict[str, Any] = {
        "parts": Mapping,
        "fingerprints": list | None,
        "sides": int | None,
        "seed": int,
        "data": Mapping | None,
        "notes": list,
        "metrics": Mapping | None,
    }
    wrong = [
        f"{name} is {type(record.get(name)).__name__}"
        for name, kind in kinds.items()
        if name not in record or not isinstance(record[name], kind)
    ]
    fingerprints = record.get("fingerprints") or []
    if isinstance(fingerprints, list) and not all(isinstance(f, Mapping) for f in fingerprints):
        wrong.append("fingerprints holds other values than objects")
    if wrong:
        raise SavedMatcherError(f"{path} was not written by `save`: {'; '.join(wrong)}.")


def _spec(entry: Mapping[str, Any] | None) -> PartSpec:
    return None if entry is None else (entry["name"], dict(entry["options"]))


def _dim(head: ProjectionHead) -> int:
    """Width of the features that a head takes."""
    return int((head.a if isinstance(head, PerSideHead) else head).dim)  # type: ignore[arg-type]


def _converted(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """A record of format 1, which named head, loss, method and training apart, as format 2."""
    if record["format"] == FORMAT:
        return record
    try:
        parts = dict(record["parts"])
        loss = parts.pop("loss")
        method = parts.pop("method")
        training = record["training"]
        contrastive = {
            "head": list(_spec(parts["head"])),
            "loss": list(_spec(loss)),
            "training": training,
        }
        learner = method or {
            "name": "contrastive",
            "options": contrastive,
            "distribution": "pairmatch",
            "version": record["pairmatch"],
            "uses": [{"kind": "losses", **loss}],
        }
        parts["learner"] = learner
        return {**record, "format": FORMAT, "parts": parts, "seed": training["seed"]}
    except (KeyError, TypeError) as error:
        raise SavedMatcherError(f"{path} was not written by `save`: {error!r}.") from error


def _csv(history: Sequence[Mapping[str, float]]) -> bytes:
    return csv_bytes(list(dict.fromkeys(key for row in history for key in row)), history)


def _history(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                {key: float(value) for key, value in row.items() if value}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise SavedMatcherError(f"{path} is damaged: {error}.") from error

"""The folder of a saved matcher: JSON, safetensors, CSV and a model card.

No pickle, no import path, nothing of any person.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import hashlib
import inspect
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from pairmatch.core import registry
from pairmatch.core._version import __version__
from pairmatch.core.config import PartSpec, TrainingConfig, parse_spec
from pairmatch.core.errors import (
    ConfigurationError,
    PairmatchError,
    PartError,
    SavedMatcherError,
    unknown_name,
)
from pairmatch.core.interfaces import ContrastiveLoss, Learner, ProjectionHead
from pairmatch.io.files import write_file
from pairmatch.learning.heads import PerSideHead, build_head, describe_head
from pairmatch.matcher.card import model_card, without_folder
from pairmatch.matcher.pipeline import FeaturePipeline
from pairmatch.metadata.schema import write_schema

FORMAT = 2
#: Attributes of a matcher that are saved as they are.
STATE = ("sides", "seed", "data", "notes", "metrics")
_MACHINE_OPTIONS = ("device", "threads", "progress")  # describe a machine or a run, not the matcher
_LOAD_OPTIONS = ("store", "device", "allow_upload", "max_usd", "progress")


def describe(pipeline: FeaturePipeline, learner: Learner, head: ProjectionHead) -> dict[str, Any]:
    """The record of a matcher's parts, as `matcher.json` holds it.

    Raises:
        PartError: A part's class has no registered name.
        ConfigurationError: An option that cannot be written as JSON.
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


def constructor_arguments(record: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Matcher` that a record stands for."""
    parts = record["parts"]
    return {
        "backbone": [_spec(entry) for entry in parts["backbones"]],
        "pooler": [_spec(entry) for entry in parts["poolers"]],
        "metadata": _spec(parts["metadata"]),
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
    """Turns what goes wrong while a matcher is built from its record into clear errors."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise SavedMatcherError(
            f"{folder / 'matcher.json'} was not written by `save`: {error!r}."
        ) from error
    except PartError as error:
        raise PartError(f"{error} {provider_hint(record)}".strip()) from error
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
        SavedMatcherError: No such folder, a missing or damaged file, or another format.
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
    return _converted(record, path), weights, _history(folder / "history.csv")


def part_record(kind: str, part: Any) -> dict[str, Any]:
    """How a part is written down: registered name, options, and the distribution it comes from.

    Raises:
        PartError: The part's class has no registered name.
        ConfigurationError: An option that cannot be written as JSON.
    """
    name, options = registry.describe(kind, part)
    defaults = inspect.signature(type(part).__init__).parameters
    # A default class (a metadata schema) comes back with the part; the user's own is written down
    written = {
        key: _plain(value)
        for key, value in options.items()
        if not (isinstance(value, type) and value is defaults[key].default)
    }
    return named_record(kind, name, written)


def named_record(kind: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a part whose name and options are known."""
    kept = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in options.items()
        if key not in _MACHINE_OPTIONS
    }
    for key, value in kept.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"The option {key}={value!r} of {name!r} cannot be written into a saved matcher: "
                f"{error}."
            ) from error
    distribution, version = registry.provenance(kind, name)
    return {"name": name, "options": kept, "distribution": distribution, "version": version}


def learner_record(learner: Learner) -> dict[str, Any]:
    """The record of a learner, with the distributions of the head and loss that it uses."""
    record = part_record("learners", learner)
    uses = []
    for kind, option in (("heads", "head"), ("losses", "loss")):
        spec = record["options"].get(option)
        if spec is not None:
            name, _ = parse_spec(spec) or ("", {})
            distribution, version = registry.provenance(kind, name)
            uses.append(
                {"kind": kind, "name": name, "distribution": distribution, "version": version}
            )
    return {**record, "uses": uses}


def provider_hint(record: Mapping[str, Any]) -> str:
    """The distributions that provided a saved matcher's parts and are missing here."""
    installed = {(plugin.kind, plugin.name) for plugin in registry.plugins()}
    parts = record["parts"]
    entries = [
        *(("backbones", entry) for entry in parts["backbones"]),
        *(("poolers", entry) for entry in parts["poolers"]),
        ("metadata", parts["metadata"]),
        ("learners", parts["learner"]),
        ("heads", parts["head"]),
        *((entry["kind"], entry) for entry in parts["learner"].get("uses", ())),
    ]
    missing = dict.fromkeys(
        f"{entry['name']!r} came from {entry['distribution']} {entry['version']}: install it"
        for kind, entry in entries
        if entry and (kind, entry["name"]) not in installed
    )
    return f"In this saved matcher {'; '.join(missing)}." if missing else ""


def without_folders(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with bare file names, because folders may name a person or a machine."""
    parts = {
        kind: [_bare(entry) for entry in part] if isinstance(part, list) else _bare(part)
        for kind, part in record["parts"].items()
    }
    return {**record, "parts": parts}


def _bare(entry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    options = {key: without_folder(value) for key, value in entry["options"].items()}
    return {**entry, "options": options}


def _plain(value: Any) -> Any:
    """An option as JSON values: parts by name and options, schemas as JSON Schema."""
    if isinstance(value, type) and issubclass(value, BaseModel):
        return write_schema(value)
    if isinstance(value, TrainingConfig):
        return dataclasses.asdict(value)
    if isinstance(value, ProjectionHead):
        return list(describe_head(value))
    if isinstance(value, ContrastiveLoss):
        return list(registry.describe("losses", value))
    return list(value) if isinstance(value, tuple) else value


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

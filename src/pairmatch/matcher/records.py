"""How parts are written down in a saved matcher: registered names, options and distributions."""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pairmatch.core import registry
from pairmatch.core.config import PartSpec, TrainingConfig, parse_spec
from pairmatch.core.errors import ConfigurationError, SavedMatcherError
from pairmatch.core.interfaces import ContrastiveLoss, Learner, ProjectionHead
from pairmatch.io.adapters import Adapter
from pairmatch.learning.heads import describe_head
from pairmatch.matcher.card import without_folder
from pairmatch.metadata.schema import write_schema
from pairmatch.metadata.servers import NOT_SAVED

_log = logging.getLogger(__name__)
# Describe a machine or a run, not the matcher
_MACHINE_OPTIONS = ("device", "threads", "progress", "api_key_variable")
# Decide where photos and keys are sent: neither written into a saved matcher nor read from one
_SENDING_OPTIONS = ("base_url", "api_key_variable")


def part_record(kind: str, part: Any) -> dict[str, Any]:
    """The record of a part: registered name, options, and the distribution it comes from.

    What a backbone has learned is kept apart from its options, unchanged; of an adapter, only the
    description: its weights are in a file of their own.

    Raises:
        PartError: The part's class has no registered name.
        ConfigurationError: An option cannot be written as JSON.
    """
    name, options = registry.describe(kind, part)
    learned = {key: options.pop(key) for key in getattr(part, "learned", ())}
    adapter = options.pop("adapter") if isinstance(options.get("adapter"), Adapter) else None
    defaults = inspect.signature(type(part).__init__).parameters
    # A default class (a metadata schema) is restored with the part; a user's class is saved
    written = {
        key: _plain(value)
        for key, value in options.items()
        if not (isinstance(value, type) and value is defaults[key].default)
    }
    _check_json(name, learned)
    record = {**named_record(kind, name, written), **({"learned": learned} if learned else {})}
    return record if adapter is None else {**record, "adapter": adapter.record()}


def named_record(kind: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a part whose name and options are known."""
    kept = {key: _plain(value) for key, value in options.items() if key not in _MACHINE_OPTIONS}
    if kept.get("base_url") is not None:
        kept["base_url"] = NOT_SAVED
    _check_json(name, kept)
    distribution, version = registry.provenance(kind, name)
    return {"name": name, "options": kept, "distribution": distribution, "version": version}


def part_options(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of a part in a record: options, what it has learned, its adapter."""
    adapter = {"adapter": entry["adapter"]} if entry.get("adapter") is not None else {}
    return {**entry["options"], **entry.get("learned", {}), **adapter}


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


def generator_spec(
    entry: Mapping[str, Any] | None, given: PartSpec | Mapping[str, Any]
) -> PartSpec:
    """The metadata generator of a saved matcher, with what is given when it is loaded.

    Where photos and keys go is only taken from what is given: a saved matcher may be a stranger's.

    Args:
        entry: The generator's record; None if the matcher has none.
        given: Another generator, or options that override the saved ones.

    Raises:
        SavedMatcherError: The record names a file as its schema.
    """
    if given is not None and not isinstance(given, Mapping):
        return given
    if entry is None:
        if given:
            raise ConfigurationError(
                "This matcher was saved without a metadata generator: `load(metadata=...)` needs "
                "a generator, and not only options."
            )
        return None
    options = dict(entry["options"])
    sending = {key: options.pop(key) for key in _SENDING_OPTIONS if key in options}
    if sending.get("base_url") is not None:
        options["base_url"] = NOT_SAVED
    if sending.get("api_key_variable") or sending.get("base_url") not in (None, NOT_SAVED):
        _log.warning(
            "The saved matcher names a server or a key for its metadata: both are ignored. A "
            "saved matcher does not decide where photos go: name them yourself with "
            "`load(metadata={...})` (--set metadata.base_url=URL)."
        )
    if not isinstance(options.get("schema", {}), Mapping):
        raise SavedMatcherError(
            "The saved matcher names its schema instead of holding it: pass the schema with "
            "`load(metadata={'schema': ...})`, if you trust it."
        )
    return entry["name"], {**options, **(given or {})}


def provider_hint(record: Mapping[str, Any]) -> str:
    """The distributions that provided a saved matcher's parts and are missing here."""
    parts = record["parts"]
    entries = [
        *(("backbones", entry) for entry in parts["backbones"]),
        *(("poolers", entry) for entry in parts["poolers"]),
        ("metadata", parts["metadata"]),
        ("learners", parts["learner"]),
        ("heads", parts["head"]),
        ("rerankers", parts.get("reranker")),
        *((entry["kind"], entry) for entry in parts["learner"].get("uses", ())),
    ]
    missing = dict.fromkeys(
        f"{entry['name']!r} came from {entry['distribution']} {entry['version']}: install it"
        for kind, entry in entries
        if entry and not registry.is_installed(kind, entry["name"])
    )
    return f"In this saved matcher {'; '.join(missing)}." if missing else ""


def without_folders(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with bare file names, because folders may name a person or a machine."""
    parts = {
        kind: [_bare(entry) for entry in part] if isinstance(part, list) else _bare(part)
        for kind, part in record["parts"].items()
    }
    return {**record, "parts": parts}


def _check_json(name: str, options: Mapping[str, Any]) -> None:
    for key, value in options.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"The option {key}={value!r} of {name!r} cannot be written into a saved matcher: "
                f"{error}."
            ) from error


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
        return _plain(describe_head(value))
    if isinstance(value, ContrastiveLoss):
        return _plain(registry.describe("losses", value))
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if key not in _MACHINE_OPTIONS}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value

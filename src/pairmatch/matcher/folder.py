"""The folder of a saved matcher: JSON, safetensors, CSV and a model card.

It contains no pickle, no import path, and no photo, id, text or feature of any person. A save
replaces all files at once, whatever interrupts it.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from pairmatch.core.errors import ConfigurationError, SavedMatcherError
from pairmatch.core.text import printable, replace_surrogates
from pairmatch.io.adapters import Adapter
from pairmatch.io.files import parse_json, read_file
from pairmatch.io.replacing import current_file, replace_files
from pairmatch.io.spreadsheets import csv_bytes
from pairmatch.matcher.card import model_card
from pairmatch.matcher.files import (
    ADAPTERS,
    CARD,
    HISTORY,
    MOST_RECORD_BYTES,
    OPTIONAL,
    RECORD,
    RERANKER,
    WEIGHTS,
    claim,
)
from pairmatch.matcher.saved_record import FORMAT, FORMAT_RERANKED, checked_record

_MOST_WEIGHTS_BYTES = 16_000_000_000
_MOST_HISTORY_BYTES = 64_000_000
_ATTEMPTS = 5


def write_folder(
    folder: Path,
    record: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    history: Sequence[Mapping[str, float]],
    adapters: Sequence[Adapter] = (),
    reranker: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes the files of a matcher: all of them or, if it fails or is killed, none.

    Files of other names in the folder are kept.

    Args:
        folder: The folder.
        record: Content of `matcher.json`.
        weights: Tensors of the head.
        history: One row per epoch.
        adapters: Those of the backbones.
        reranker: What the re-ranker has learned; None without one.

    Raises:
        ConfigurationError: The folder holds something else, cannot be written, or a weight is not
            finite.
    """
    damaged = _not_finite({**weights, **(reranker or {})})
    if damaged:
        raise ConfigurationError(
            f"The head cannot be saved: {', '.join(damaged)} hold values that are not finite. The "
            "training diverged: lower the learning rate and fit again."
        )
    tensors = _tensor_file(weights)
    version = FORMAT if reranker is None else FORMAT_RERANKED
    record = {"format": version, **record, "head_sha256": hashlib.sha256(tensors).hexdigest()}
    optional = {ADAPTERS: _adapter_file(adapters)} if adapters else {}
    if reranker is not None:
        optional[RERANKER] = _tensor_file(reranker)
        record["reranker_sha256"] = hashlib.sha256(optional[RERANKER]).hexdigest()
    try:
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        raise ConfigurationError(f"The matcher cannot be saved: {error}.") from error
    contents = {
        WEIGHTS: tensors,
        HISTORY: _csv(history),
        CARD: replace_surrogates(model_card(record)).encode(),
        RECORD: replace_surrogates(text).encode(),
    }
    claim(folder)
    try:
        replace_files(folder, {**optional, **contents})
        for name in set(OPTIONAL).difference(optional):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        advice = "name another folder"
        if error.errno == errno.EFBIG:
            advice = "raise the limit on the size of files (ulimit -f), or name another folder"
        raise ConfigurationError(
            f"The matcher cannot be written to {printable(str(folder))}: "
            f"{error.strerror or error}: {advice}. The previous files are unchanged."
        ) from error


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], list[dict[str, float]]]:
    """Reads record, weights and history; nothing is executed.

    Records of format 1 are converted to format 2. The records of adapters are replaced by the
    adapters themselves, and the digest of a re-ranker's state by `reranker_state`.

    Raises:
        SavedMatcherError: The folder does not exist, a file is missing or damaged, or the format is
            unknown.
    """
    for _ in range(_ATTEMPTS):
        contents = _read_contents(folder)
        # Another process may have saved in between: then some files are older than others
        if _read_bytes(folder, RECORD, MOST_RECORD_BYTES) == contents[RECORD]:
            break
    path = folder / RECORD
    try:
        value = parse_json(contents[RECORD])
    except ValueError as error:
        raise SavedMatcherError(f"{_shown(path)} is not valid JSON: {error}.") from error
    record = checked_record(value, path)
    if hashlib.sha256(contents[WEIGHTS]).hexdigest() != record["head_sha256"]:
        raise SavedMatcherError(
            f"{_shown(folder / WEIGHTS)} does not belong to {RECORD} (its digest differs): the "
            "folder was changed. Save the matcher again."
        )
    weights = _tensors(contents[WEIGHTS], folder / WEIGHTS)
    _read_adapters(record, contents.get(ADAPTERS), folder / ADAPTERS)
    digest = record.pop("reranker_sha256", None)
    if digest is not None:
        content = contents.get(RERANKER)
        if content is None or hashlib.sha256(content).hexdigest() != digest:
            raise SavedMatcherError(
                f"{_shown(folder / RERANKER)} is missing, or does not belong to {RECORD} (its "
                "digest differs): the folder was changed. Save the matcher again."
            )
        record["reranker_state"] = _tensors(content, folder / RERANKER)
    return record, weights, _history(contents[HISTORY], folder / HISTORY)


def _tensor_file(tensors: Mapping[str, Tensor]) -> bytes:
    return save_tensors({key: value.cpu().contiguous() for key, value in tensors.items()})


def _tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors of a file, which are all finite."""
    try:
        tensors = load_tensors(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise SavedMatcherError(f"{_shown(path)} is damaged: {printable(str(error))}.") from error
    damaged = _not_finite(tensors)
    if damaged:
        raise SavedMatcherError(
            f"{_shown(path)} is damaged: {printable(', '.join(damaged))} hold values that are not "
            "finite."
        )
    return tensors


def _adapter_file(adapters: Sequence[Adapter]) -> bytes:
    """Content of the file of all adapters: `<digest>/<name>`."""
    return save_tensors(
        {
            f"{adapter.digest}/{name}": value
            for adapter in adapters
            for name, value in adapter.tensors().items()
        }
    )


def _read_adapters(record: Mapping[str, Any], content: bytes | None, path: Path) -> None:
    """Puts adapters in the place of their descriptions in the record."""
    entries = [entry for entry in record["parts"]["backbones"] if entry.get("adapter")]
    if not entries:
        return
    if content is None:
        raise SavedMatcherError(f"{_shown(path)}, which {RECORD} needs, is missing.")
    try:
        tensors = load_tensors(content)
        for entry in entries:
            start = f"{entry['adapter'].get('digest')}/"
            entry["adapter"] = Adapter.of_record(
                entry["adapter"],
                {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)},
            )
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise SavedMatcherError(
            f"{_shown(path)} is damaged, or does not belong to {RECORD}: {printable(str(error))}"
        ) from error


def _read_contents(folder: Path) -> dict[str, bytes]:
    if not current_file(folder, RECORD).is_file():
        raise SavedMatcherError(f"{_shown(folder)} holds no saved matcher (there is no {RECORD}).")
    contents = {
        RECORD: _read_bytes(folder, RECORD, MOST_RECORD_BYTES),
        WEIGHTS: _read_bytes(folder, WEIGHTS, _MOST_WEIGHTS_BYTES),
        HISTORY: b"",
    }
    if current_file(folder, HISTORY).exists():
        contents[HISTORY] = _read_bytes(folder, HISTORY, _MOST_HISTORY_BYTES)
    for name in OPTIONAL:
        if current_file(folder, name).exists():
            contents[name] = _read_bytes(folder, name, _MOST_WEIGHTS_BYTES)
    return contents


def _read_bytes(folder: Path, name: str, most_bytes: int) -> bytes:
    """The current content of a file; it may be moved to its place while it is looked up."""
    for attempt in range(_ATTEMPTS):
        try:
            return read_file(current_file(folder, name), most_bytes=most_bytes)
        except FileNotFoundError as error:
            if attempt == _ATTEMPTS - 1:
                raise SavedMatcherError(
                    f"{_shown(folder / name)} cannot be read: {error.strerror}."
                ) from error
        except OSError as error:
            raise SavedMatcherError(
                f"{_shown(folder / name)} cannot be read: {error.strerror or error}."
            ) from error
    raise AssertionError


def _shown(path: Path) -> str:
    return printable(str(path))


def _not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors with values that are NaN or infinite."""
    return [
        name
        for name, value in weights.items()
        if (value.is_floating_point() or value.is_complex()) and not torch.isfinite(value).all()
    ]


def _csv(history: Sequence[Mapping[str, float]]) -> bytes:
    columns = list(dict.fromkeys(key for row in history for key in row))
    return csv_bytes(columns or ["epoch"], history)


def _history(content: bytes, path: Path) -> list[dict[str, float]]:
    try:
        rows = [
            {key: float(value) for key, value in row.items() if value}
            for row in csv.DictReader(io.StringIO(content.decode(), newline=""))
        ]
    except (ValueError, TypeError, csv.Error) as error:
        raise SavedMatcherError(f"{_shown(path)} is damaged: {printable(str(error))}.") from error
    if not all(math.isfinite(value) for row in rows for value in row.values()):
        raise SavedMatcherError(f"{_shown(path)} is damaged: some values are not finite.")
    return rows

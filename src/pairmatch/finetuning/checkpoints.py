"""Checkpoints of a fine-tuning run: safetensors and JSON, replaced as a whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from pairmatch.core.errors import ConfigurationError
from pairmatch.io.files import parse_json, read_file
from pairmatch.io.outputs import check_output_folder, claim_folder
from pairmatch.io.replacing import current_file, replace_files

RECORD = "checkpoint.json"
WEIGHTS = "checkpoint.safetensors"
#: Name of the mark of such folders.
KIND = "checkpoint"
_FORMAT = 2
_MOST_RECORD_BYTES = 64_000_000
_MOST_WEIGHTS_BYTES = 64_000_000_000


@dataclass
class Position:
    """Where a run is.

    Attributes:
        epoch: Epoch that is under way, from 1.
        step: Number of steps of it that are done.
        total: Sum of the losses of these steps, each times its number of people of side a.
        count: Number of these people.
        history: One row per finished epoch.
        best_epoch: Epoch whose weights are kept; 0 before the first.
        best_mrr: Its validation MRR.
        frozen_mrr: Validation MRR of the frozen features; None without validation pairs.
        is_done: Whether training has ended.
    """

    epoch: int = 1
    step: int = 0
    total: float = 0.0
    count: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_mrr: float = -1.0
    frozen_mrr: float | None = None
    is_done: bool = False


class Checkpoints:
    """The checkpoint of one run, in a folder.

    Args:
        folder: The folder; it is created at the first write.
        run: What the run depends on, as JSON values: a checkpoint of another run is refused.

    Raises:
        ConfigurationError: The folder holds something else, or cannot be written.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        check_output_folder(folder, KIND)
        self.folder = folder
        self.run = json.loads(json.dumps(run))

    def read(self) -> tuple[Position, dict[str, Tensor]] | None:
        """Position and tensors of the checkpoint; None if there is none.

        Raises:
            ConfigurationError: It belongs to another run, or is damaged.
        """
        path = current_file(self.folder, RECORD)
        if not path.exists():
            return None
        try:
            record = parse_json(read_file(path, most_bytes=_MOST_RECORD_BYTES))
            content = read_file(current_file(self.folder, WEIGHTS), most_bytes=_MOST_WEIGHTS_BYTES)
            if not isinstance(record, dict) or record.get("format") != _FORMAT:
                raise ValueError(f"{RECORD} is of another format")
            if _digest(content, record.get("run"), record.get("position")) != record.get("sha256"):
                raise ValueError(f"{WEIGHTS} does not belong to {RECORD}, or one was changed")
            position = Position(**record["position"])
            tensors = load_tensors(content)
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigurationError(
                f"The checkpoint in {self.folder} cannot be read ({reason}): delete {RECORD} and "
                f"{WEIGHTS} to start from the beginning, or name another folder."
            ) from error
        if record["run"] != self.run:
            raise ConfigurationError(
                f"{self.folder} holds a checkpoint of another run (it differs in "
                f"{', '.join(_differences(record['run'], self.run))}): name another folder, or "
                f"delete {RECORD} and {WEIGHTS}."
            )
        return position, tensors

    def write(self, position: Position, tensors: Mapping[str, Tensor]) -> None:
        """Replaces the checkpoint; after a kill, the earlier one is there.

        Raises:
            ConfigurationError: The folder cannot be written.
        """
        content = save_tensors(
            {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        )
        where = asdict(position)
        record = {
            "format": _FORMAT,
            "run": self.run,
            "position": where,
            "sha256": _digest(content, self.run, where),
        }
        claim_folder(self.folder, KIND, private=True)
        try:
            replace_files(
                self.folder,
                {WEIGHTS: content, RECORD: (json.dumps(record, indent=2) + "\n").encode()},
                private=[RECORD, WEIGHTS],
            )
        except OSError as error:
            raise ConfigurationError(
                f"The checkpoint cannot be written to {self.folder}: {error.strerror or error}."
            ) from error


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with a prefix before their names."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names have a prefix, without it."""
    start = f"{prefix}/"
    return {name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimizer as tensors: `<parameter>/<name>`."""
    return {
        f"{number}/{name}": torch.as_tensor(value)
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Takes the state that `optimizer_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition("/")
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _digest(weights: bytes, run: Any, position: Any) -> str:
    """SHA-256 (hex) of everything in a checkpoint."""
    total = hashlib.sha256(weights)
    total.update(json.dumps([run, position], sort_keys=True).encode())
    return total.hexdigest()


def _differences(then: Any, now: Mapping[str, Any]) -> list[str]:
    """Names of the entries in which two runs differ."""
    if not isinstance(then, dict):
        return ["everything"]
    names = []
    for key in sorted({*then, *now}):
        before, after = then.get(key), now.get(key)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            names += [f"{key}.{name}" for name in _differences(before, after)]
        else:
            names.append(key)
    return names

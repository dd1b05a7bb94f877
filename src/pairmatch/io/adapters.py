"""Low-rank adapters of frozen networks (LoRA): safetensors and JSON, merged when a model loads."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from pairmatch.core.errors import BackboneError, ConfigurationError
from pairmatch.core.text import printable
from pairmatch.io.files import expand_user, parse_json, read_file
from pairmatch.io.replacing import current_file, replace_files

#: Names of the two files of an adapter.
WEIGHTS = "adapter.safetensors"
RECORD = "adapter.json"
_FORMAT = 1
_MOST_RECORD_BYTES = 16_000_000
_MOST_WEIGHTS_BYTES = 16_000_000_000
_SAMPLE = 64  # leading base weights of a layer that are kept, to recognize the base again
# Two number formats of one weight differ by at most one unit in the last place of bfloat16
_RELATIVE, _ABSOLUTE = 2.0**-7, 1e-6
_PARTS = ("lora_A", "lora_B", "base")


@dataclass(frozen=True, eq=False)
class Adapter:
    """A low-rank correction of linear layers, W + (alpha / rank) · B · A (Hu et al. 2021, LoRA).

    It belongs to one base model, of which it holds the first weights of each layer that it changes:
    a model with other weights is refused. Two adapters with equal values are equal.

    Attributes:
        weights: For each layer by its name: `<layer>.lora_A` [rank, inputs], `<layer>.lora_B`
            [outputs, rank], and `<layer>.base`, up to 64 weights of the base; all float32.
        rank: Rank of the correction of each layer.
        alpha: Numerator of its scale.
        base: What identifies the base model: its hub name, or None for a folder, and its commit or
            the digest of its files.
    """

    weights: Mapping[str, Tensor]
    rank: int
    alpha: float
    base: Mapping[str, str | None]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Adapter) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Adapter({len(self.targets)} layers, rank {self.rank}, {self.digest[:12]})"

    @classmethod
    def of(cls, value: Adapter | str | Path | None) -> Adapter | None:
        """An adapter unchanged, or the one in a folder; None for None.

        Raises:
            BackboneError: As in `read`.
        """
        return cls.read(value) if isinstance(value, str | Path) else value

    @classmethod
    def read(cls, folder: str | Path) -> Adapter:
        """The adapter in a folder, or in the folder of an `adapter.safetensors`; runs no code.

        Raises:
            BackboneError: There is no adapter, or its files are damaged.
        """
        path = expand_user(folder)
        path = path.parent if path.name == WEIGHTS else path
        try:
            contents = [
                read_file(current_file(path, name), most_bytes=most)
                for name, most in ((RECORD, _MOST_RECORD_BYTES), (WEIGHTS, _MOST_WEIGHTS_BYTES))
            ]
        except OSError as error:
            raise BackboneError(
                f"{path} holds no adapter ({error.strerror or error}): name a folder with "
                f"{WEIGHTS} and {RECORD}, as `Adapter.write` or `pairmatch finetune` writes them."
            ) from error
        try:
            return cls.of_record(parse_json(contents[0]), load_tensors(contents[1]))
        except (SafetensorError, ValueError, KeyError, OverflowError) as error:
            raise BackboneError(f"The adapter in {path} is damaged: {error}") from error

    @classmethod
    def of_record(cls, record: Any, weights: Mapping[str, Tensor]) -> Adapter:
        """The adapter that a record describes, with every value checked.

        Raises:
            ConfigurationError: Lists what is wrong with it.
        """
        problems = _record_problems(record) or _weights_problems(record, weights)
        if problems:
            raise ConfigurationError(f"{'; '.join(map(printable, problems[:20]))}.")
        float32 = {name: value.to(torch.float32) for name, value in weights.items()}
        adapter = cls(float32, record["rank"], float(record["alpha"]), record["base"])
        if adapter.digest != record["digest"]:
            raise ConfigurationError(
                "the digest of its weights is not that of its record: the files were changed."
            )
        return adapter

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the layers that the adapter changes, sorted."""
        return tuple(sorted(name[: -len(".base")] for name in self.weights if _is(name, "base")))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of rank, scale, names and values."""
        total = hashlib.sha256(f"{_FORMAT} {self.rank} {float(self.alpha)!r}\n".encode())
        for name in sorted(self.weights):
            value = self.weights[name].detach().cpu().to(torch.float32).contiguous()
            total.update(f"{name} {list(value.shape)}\n".encode())
            total.update(value.numpy().tobytes())
        return total.hexdigest()

    def record(self) -> dict[str, Any]:
        """What describes the adapter beside its weights; JSON values."""
        return {
            "format": _FORMAT,
            "kind": "lora",
            "rank": self.rank,
            "alpha": self.alpha,
            "targets": list(self.targets),
            "base": dict(self.base),
            "digest": self.digest,
        }

    def fingerprint(self) -> dict[str, Any]:
        """What makes its features others than those of the base or of another adapter."""
        return {
            "digest": self.digest,
            "rank": self.rank,
            "alpha": self.alpha,
            "base": dict(self.base),
            "targets": hashlib.sha256("\n".join(self.targets).encode()).hexdigest(),
        }

    def write(self, folder: str | Path) -> Path:
        """Writes `adapter.safetensors` and `adapter.json`, both or none, and returns the folder.

        Raises:
            ConfigurationError: The folder cannot be written.
        """
        path = expand_user(folder)
        try:
            path.mkdir(parents=True, exist_ok=True)
            replace_files(path, {WEIGHTS: save_tensors(self.tensors()), RECORD: self._json()})
        except OSError as error:
            raise ConfigurationError(
                f"The adapter cannot be written to {path}: {error.strerror or error}."
            ) from error
        return path

    def tensors(self) -> dict[str, Tensor]:
        """The weights on the CPU, contiguous, as safetensors takes them."""
        return {name: value.detach().cpu().contiguous() for name, value in self.weights.items()}

    def _json(self) -> bytes:
        return (json.dumps(self.record(), indent=2, allow_nan=False) + "\n").encode()

    def merge(self, network: nn.Module, *, model: str) -> None:
        """Adds the correction to the weights of a network in memory; its files do not change.

        The sum is computed in float32 and rounded to the format of the network.

        Args:
            network: The base model.
            model: Its name, for messages.

        Raises:
            BackboneError: The network is not the base of the adapter.
        """
        self._check_base(network, model)
        scale = self.alpha / self.rank
        for name in self.targets:
            layer = network.get_submodule(name)
            weight = layer.weight
            assert isinstance(weight, Tensor)
            a, b = (
                self.weights[f"{name}.{part}"].to(weight.device) for part in ("lora_A", "lora_B")
            )
            merged = weight.detach().float() + scale * (b @ a)
            layer.weight = nn.Parameter(merged.to(weight.dtype), requires_grad=False)

    def _check_base(self, network: nn.Module, model: str) -> None:
        layers = dict(network.named_modules())
        problems = []
        for name in self.targets:
            a, b, base = (self.weights[f"{name}.{part}"] for part in _PARTS)
            layer = layers.get(name)
            if not isinstance(layer, nn.Linear):
                problems.append(f"it has no linear layer {name}")
            elif layer.weight.shape != (len(b), a.shape[1]):
                problems.append(
                    f"{name} is {list(layer.weight.shape)} instead of {[len(b), a.shape[1]]}"
                )
            elif not torch.allclose(base_sample(layer), base, rtol=_RELATIVE, atol=_ABSOLUTE):
                problems.append(f"{name} has other weights")
        if problems:
            origin = self.base.get("model") or "a folder"
            more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise BackboneError(
                f"The adapter belongs to another base model than {model}: "
                f"{'; '.join(problems[:3])}{more}. It was trained on {origin} "
                f"({str(self.base.get('weights'))[:12]}): load that model, or fine-tune {model}."
            )


def base_sample(layer: nn.Linear) -> Tensor:
    """[at most 64] float32: the leading weights of a layer, which identify its base model."""
    return layer.weight.detach().flatten()[:_SAMPLE].float().cpu()


def adapted(network: nn.Module, adapter: Adapter | None, *, model: str) -> nn.Module:
    """The network with an adapter merged into its weights; unchanged without one.

    Raises:
        BackboneError: The network is not the base of the adapter.
    """
    if adapter is not None:
        adapter.merge(network, model=model)
    return network


def adapter_entry(adapter: Adapter | None) -> dict[str, Any]:
    """Entry of a backbone's fingerprint; empty without an adapter, which changes no key."""
    return {} if adapter is None else {"adapter": adapter.fingerprint()}


def _is(name: str, part: str) -> bool:
    return name.endswith(f".{part}")


def _record_problems(record: Any) -> list[str]:
    if not isinstance(record, dict):
        return ["its record is not a JSON object"]
    if record.get("format") != _FORMAT or record.get("kind") != "lora":
        return [f"its format is not {_FORMAT} of the kind lora: upgrade pairmatch"]
    rank: Any = record.get("rank")
    alpha: Any = record.get("alpha")
    base: Any = record.get("base")
    targets: Any = record.get("targets")
    checks = {
        "rank": type(rank) is int and 1 <= rank <= 65_536,
        "alpha": type(alpha) in (int, float) and 0 < alpha < math.inf,
        "base": isinstance(base, dict)
        and all(isinstance(value, str | None) for value in base.values()),
        "digest": isinstance(record.get("digest"), str),
        "targets": isinstance(targets, list)
        and bool(targets)
        and all(isinstance(name, str) and name for name in targets),
    }
    return [f"{name} has no valid value" for name, is_valid in checks.items() if not is_valid]


def _weights_problems(record: Mapping[str, Any], weights: Mapping[str, Tensor]) -> list[str]:
    expected = {f"{name}.{part}" for name in record["targets"] for part in _PARTS}
    problems = [f"{name} is missing" for name in sorted(expected - weights.keys())]
    problems += [f"{name} is no part of it" for name in sorted(weights.keys() - expected)]
    for name, value in weights.items():
        sides = {"lora_A": 0, "lora_B": 1}
        side = sides.get(name.rpartition(".")[2])
        if side is not None and (value.ndim != 2 or value.shape[side] != record["rank"]):
            problems.append(f"{name} has shape {list(value.shape)} at rank {record['rank']}")
        elif not value.is_floating_point() or not torch.isfinite(value).all():
            problems.append(f"{name} holds values that are not finite")
        elif side is None and (value.ndim != 1 or not 1 <= len(value) <= _SAMPLE):
            problems.append(f"{name} has shape {list(value.shape)}")
    return problems

"""Settings of a training run, and the notation in which parts are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pairmatch.core.errors import ConfigurationError

#: A part is named by a registered name, by a name with options, or is the instance itself.
PartSpec = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How a head is trained; the defaults are the published recipe's.

    Attributes:
        epochs: Most passes over the training pairs, at least 1.
        batch_size: Pairs in a batch, at least 2; all other pairs of the batch serve as negatives.
        learning_rate: AdamW's, above 0.
        weight_decay: AdamW's decoupled decay, at least 0; a loss's own parameters are never
            decayed.
        patience: Epochs without a better validation MRR before training stops, at least 1. Without
            validation pairs all epochs are run.
        seed: Seeds initial weights, order of pairs and dropout; equal seeds give bit-identical
            heads on one CPU.
    """

    epochs: int = 30
    batch_size: int = 48
    learning_rate: float = 5e-5
    weight_decay: float = 1e-3
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigurationError that names every field out of range at once."""
        least = {"epochs": 1, "batch_size": 2, "weight_decay": 0, "patience": 1, "seed": 0}
        problems = []
        for item in fields(self):
            value = getattr(self, item.name)
            whole = item.type == "int"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                problems.append(
                    f"{item.name} must be {'a whole number' if whole else 'a number'}, got {value!r}"
                )
            elif item.name == "learning_rate":
                if not 0 < value < float("inf"):
                    problems.append(f"learning_rate must be positive, got {value}")
            elif not least[item.name] <= value < float("inf"):
                problems.append(f"{item.name} must be at least {least[item.name]}, got {value}")
        if problems:
            raise ConfigurationError("`TrainingConfig(...)`: " + "; ".join(problems) + ".")


def parse_spec(spec: PartSpec) -> tuple[str, dict[str, Any]] | None:
    """Name and options of a part given as `"name"` or `("name", {options})`; None for an instance.

    Raises:
        ConfigurationError: A tuple that is not a name and a mapping of options.
    """
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, tuple | list):
        if len(spec) == 2 and isinstance(spec[0], str) and isinstance(spec[1], Mapping):
            return spec[0], dict(spec[1])
        raise ConfigurationError(
            f'A part is "name", ("name", {{options}}) or an instance, got {spec!r}.'
        )
    return None

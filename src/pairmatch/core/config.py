"""Training hyperparameters, and the notation in which parts are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pairmatch.core.errors import ConfigurationError

#: A part is given as a registered name, a name with options, or an instance.
PartSpec = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Training hyperparameters; the defaults are those of the published recipe.

    Attributes:
        epochs: Maximum number of passes over the training pairs, at least 1.
        batch_size: Number of pairs per batch, at least 2; the other pairs of a batch serve as
            negatives.
        learning_rate: Learning rate of AdamW, above 0.
        weight_decay: Decoupled weight decay of AdamW, at least 0; parameters of the loss are never
            decayed.
        patience: Number of epochs without a better validation MRR after which training stops, at
            least 1. Without validation pairs all epochs are run.
        hard_negatives: Number of mined negatives per person that are added to the batches, at
            least 0; see [`mine_negatives`][pairmatch.learning.negatives.mine_negatives].
        hard_negatives_skip: Number of the closest people that mining passes over, at least 0: they
            are the likeliest unknown matches.
        seed: Seed for initial weights, order of pairs and dropout; equal seeds give bit-identical
            heads on the same CPU with the same number of threads.
    """

    epochs: int = 30
    batch_size: int = 48
    learning_rate: float = 5e-5
    weight_decay: float = 1e-3
    patience: int = 5
    hard_negatives: int = 0
    hard_negatives_skip: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigurationError that names every field out of range at once."""
        minimum = {"epochs": 1, "batch_size": 2, "patience": 1}  # of the others 0
        problems = []
        for item in fields(self):
            value = getattr(self, item.name)
            whole = item.type == "int"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                kind = "a whole number" if whole else "a number"
                problems.append(f"{item.name} must be {kind}, got {value!r}")
            elif item.name == "learning_rate":
                if not 0 < value < float("inf"):
                    problems.append(f"learning_rate must be positive, got {value}")
            elif not minimum.get(item.name, 0) <= value < float("inf"):
                least = minimum.get(item.name, 0)
                problems.append(f"{item.name} must be at least {least}, got {value}")
        if problems:
            raise ConfigurationError("`TrainingConfig(...)`: " + "; ".join(problems) + ".")


def parse_spec(spec: PartSpec) -> tuple[str, dict[str, Any]] | None:
    """Name and options of a part given as `"name"` or `("name", {options})`; None for an instance.

    Raises:
        ConfigurationError: A tuple is not a name and a mapping of options.
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


def list_of_parts(spec: PartSpec) -> list[PartSpec]:
    """One part as a list of one; a list of parts unchanged. `("name", {options})` is one part.

    Raises:
        ConfigurationError: The list is empty.
    """
    is_named = isinstance(spec, tuple) and len(spec) == 2 and isinstance(spec[1], Mapping)
    if isinstance(spec, list | tuple) and not is_named:
        if not spec:
            raise ConfigurationError("A list of parts must name at least one.")
        return list(spec)
    return [spec]

"""Hyperparameters of fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pairmatch.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig:
    """Hyperparameters of fine-tuning a backbone with LoRA.

    Attributes:
        epochs: Maximum number of passes over the training pairs, at least 1.
        batch_size: Number of pairs per batch, at least 2; the other pairs of a batch serve as
            negatives. It costs time, not memory: see `micro_batch`.
        micro_batch: Number of people that run through the backbone at once, at least 1, with
            gradient caching. None keeps what the gradients of all people of a batch need, which
            saves a forward pass and takes much more memory.
        learning_rate: Highest learning rate of the adapter, above 0.
        head_learning_rate: Highest learning rate of head and loss, above 0.
        weight_decay: Decoupled weight decay of AdamW, at least 0; parameters of the loss are never
            decayed.
        warmup: Share of the steps over which the learning rate rises to its highest value, in
            [0, 1); it then falls to 0 along a cosine.
        clip: Largest norm of the gradient of a step; a longer one is scaled down. Above 0.
        patience: Number of epochs without a better validation MRR after which training stops, at
            least 1. Without validation pairs all epochs are run.
        rank: Rank of the correction of each layer, at least 1.
        alpha: Numerator of the scale of the correction, alpha / rank; above 0.
        dropout: Share of the inputs of the adapter that is dropped in training, in [0, 1).
        targets: Last parts of the names of the layers to adapt, such as `("q_proj", "v_proj")`;
            empty for every linear layer.
        bfloat16: Whether products are computed in bfloat16; None does so on accelerators and for
            backbones that are in bfloat16.
        hard_negatives: Number of negatives per person, mined from the frozen features, that are
            added to the batches, at least 0; as in
            [`TrainingConfig`][pairmatch.core.config.TrainingConfig].
        hard_negatives_skip: Number of the closest people that mining passes over, at least 0.
        gradient_checkpointing: Whether the states of inner layers are computed twice instead of
            kept: less memory, and more time.
        checkpoint_steps: Number of steps after which a checkpoint is written, besides the one after
            each epoch; 0 for none.
        seed: Seed for initial weights, order of pairs and dropout.
    """

    epochs: int = 10
    batch_size: int = 64
    micro_batch: int | None = 16
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup: float = 0.1
    clip: float = 1.0
    patience: int = 3
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    targets: tuple[str, ...] = ()
    bfloat16: bool | None = None
    hard_negatives: int = 0
    hard_negatives_skip: int = 20
    gradient_checkpointing: bool = False
    checkpoint_steps: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigurationError that names every field out of range at once."""
        if isinstance(self.targets, list):  # from JSON
            object.__setattr__(self, "targets", tuple(self.targets))
        checks: dict[str, tuple[Callable[[Any], bool], str]] = {
            "epochs": (_whole(1), "a whole number of at least 1"),
            "batch_size": (_whole(2), "a whole number of at least 2"),
            "micro_batch": (_or_none(_whole(1)), "a whole number of at least 1, or None"),
            "learning_rate": (_positive, "a positive number"),
            "head_learning_rate": (_positive, "a positive number"),
            "weight_decay": (_at_least_0, "a number of at least 0"),
            "warmup": (_share, "a number in [0, 1)"),
            "clip": (_positive, "a positive number"),
            "patience": (_whole(1), "a whole number of at least 1"),
            "rank": (_whole(1), "a whole number of at least 1"),
            "alpha": (_positive, "a positive number"),
            "dropout": (_share, "a number in [0, 1)"),
            "targets": (_names, "a tuple of names of layers"),
            "bfloat16": (_or_none(_is_bool), "true, false or None"),
            "hard_negatives": (_whole(0), "a whole number of at least 0"),
            "hard_negatives_skip": (_whole(0), "a whole number of at least 0"),
            "gradient_checkpointing": (_is_bool, "true or false"),
            "checkpoint_steps": (_whole(0), "a whole number of at least 0"),
            "seed": (_whole(0), "a whole number of at least 0"),
        }
        problems = [
            f"{name} must be {what}, got {getattr(self, name)!r}"
            for name, (is_valid, what) in checks.items()
            if not is_valid(getattr(self, name))
        ]
        if problems:
            raise ConfigurationError("`FinetuneConfig(...)`: " + "; ".join(problems) + ".")

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "targets": list(self.targets)}


def rate_factor(done: float, warmup: float, step: float) -> float:
    """Share of the highest learning rate: a linear rise, then half a cosine to 0.

    Args:
        done: Share of the steps that are done, in [0, 1).
        warmup: Share of the steps of the rise.
        step: Share of one step; the first rate of the rise is not 0.
    """
    if done < warmup:
        return min(1.0, (done + step) / warmup)
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _at_least_0(value: Any) -> bool:
    return _number(value) and value >= 0


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value < 1


def _names(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(name, str) and name for name in value)

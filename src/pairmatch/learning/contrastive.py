"""The learner `contrastive`: the published recipe, a head trained with a contrastive loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from pairmatch.core import registry
from pairmatch.core.config import PartSpec, TrainingConfig, parse_spec
from pairmatch.core.errors import ConfigurationError, PartError, unknown_name
from pairmatch.core.interfaces import FittedHead, Learner, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.splits import hold_out
from pairmatch.learning.heads import build_head
from pairmatch.learning.trainer import Trainer

_PROBE_DIM = 240  # a width with many divisors; the backbone's own is unknown before it is loaded


class Contrastive(Learner):
    """A projection head trained with in-batch negatives; by default the published recipe.

    Args:
        head: Name, name with options, or instance of a head, as `Trainer` takes it.
        loss: Name, name with options, or instance of a loss.
        training: Training hyperparameters, as a `TrainingConfig` or its fields; the seed is that of
            `fit`.
        validation: Share of the training pairs that is held out for early stopping if `fit` gets no
            validation pairs, in [0, 1). The default is the recipe's 15 of 85; 0 runs all epochs.
        device: Device to train on.
    """

    uses_validation: ClassVar[bool] = True

    def __init__(
        self,
        *,
        head: PartSpec = "mlp",
        loss: PartSpec = "infonce",
        training: TrainingConfig | Mapping[str, Any] | None = None,
        validation: float = 0.15 / 0.85,
        device: str = "cpu",
    ) -> None:
        if not 0 <= validation < 1:
            raise ConfigurationError(
                f"`Contrastive(validation=...)` must be in [0, 1), got {validation}."
            )
        if training is not None and not isinstance(training, TrainingConfig | Mapping):
            raise ConfigurationError(
                "`Contrastive(training=...)` takes a `TrainingConfig` or its fields, got "
                f"{training!r}."
            )
        fields = [field.name for field in dataclasses.fields(TrainingConfig)]
        for name in training if isinstance(training, Mapping) else ():
            if name not in fields:
                raise ConfigurationError(unknown_name("option of training", name, fields))
        if not isinstance(head, ProjectionHead):
            build_head(head, dim=_PROBE_DIM)  # a wrong option fails now, not after extraction
        self.head = head
        self.loss = loss
        self.training = TrainingConfig(**training) if isinstance(training, Mapping) else training
        self.validation = validation
        self.device = device
        self._loss = registry.create("losses", loss)

    def fit(
        self, train: PairedFeatures, validation: PairedFeatures | None = None, *, seed: int = 0
    ) -> FittedHead:
        """Trains the head, with early stopping on validation pairs.

        A head without weights to train, such as `identity`, is returned untrained.
        """
        untrained = self.untrained_head(train.dim)
        if untrained is not None:
            return FittedHead(untrained)
        if validation is None:
            train, validation = self._hold_out(train, seed)
        config = dataclasses.replace(self.training or TrainingConfig(), seed=seed)
        trainer = Trainer(
            self.head,
            self._loss,
            config,
            device=self.device,
            callbacks=self.callbacks,
            warns=False,
        )
        result = trainer.fit(train, validation)
        return FittedHead(result.head.cpu(), result.history, result.notes)

    def untrained_head(self, dim: int) -> ProjectionHead | None:
        """A head without weights to train, such as `identity`, serves before any fit."""
        if isinstance(self.head, ProjectionHead):
            return None if self.head.trainable else build_head(self.head, dim=dim)
        parsed = parse_spec(self.head)
        if parsed is None:
            raise PartError(f"A head must implement `pairmatch.ProjectionHead`, got {self.head!r}.")
        head_class: type[ProjectionHead] = registry.load("heads", parsed[0])
        return None if head_class.trainable else build_head(self.head, dim=dim).eval()

    def _hold_out(
        self, train: PairedFeatures, seed: int
    ) -> tuple[PairedFeatures, PairedFeatures | None]:
        """Training and validation pairs that share no people; None if a part would be empty."""
        size = int(len(train) * self.validation + 1e-9)
        if not size:
            return train, None
        _, kept, held_out = hold_out(train, size, seed=seed)
        if not (len(kept) and len(held_out)):
            return train, None
        return train.take(kept), train.take(held_out)

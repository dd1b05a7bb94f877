"""Trains a projection head on stored features: no backbone runs, so thirty epochs take seconds."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pairmatch.core import registry
from pairmatch.core.arrays import Floats, Ints
from pairmatch.core.callbacks import Callback, Callbacks
from pairmatch.core.config import PartSpec, TrainingConfig
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ContrastiveLoss, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.query_table import RankedQueries, embed_sides, rank_queries
from pairmatch.learning.batches import Batches
from pairmatch.learning.heads import build_head

_log = logging.getLogger(__name__)
_MEMORIZED_SAMPLE = 2000  # maximum number of training pairs examined for memorization


@dataclass(frozen=True, slots=True, eq=False)
class TrainingResult:
    """A trained head and how it was trained.

    Attributes:
        head: The head in evaluation mode, with the weights of the best epoch.
        loss: The loss, with the parameters that it learned (a temperature).
        history: One row per epoch: `epoch` from 1, `train_loss`, and `validation_mrr` if there are
            validation pairs.
        best_epoch: Epoch whose weights were kept; the last one without validation pairs.
        train_recall_at_1: Share of (at most 2,000) training pairs whose partner the head ranks
            first.
        validation_mrr: MRR at the best epoch; None without validation pairs.
        validation_chance_mrr: MRR of a random order of the validation candidates.
        notes: Caveats about the fit, for example that the head only memorizes.
    """

    head: ProjectionHead
    loss: ContrastiveLoss
    history: tuple[dict[str, float], ...]
    best_epoch: int
    train_recall_at_1: float
    validation_mrr: float | None
    validation_chance_mrr: float | None
    notes: tuple[str, ...]


class Trainer:
    """Fits a projection head with a contrastive loss, by AdamW with early stopping.

    The defaults are the recipe: MLP head of width 512, InfoNCE a → b with τ = 0.2,
    `TrainingConfig()`.

    Args:
        head: Name, name with options, or instance; an instance is copied, so that every fit starts
            from its weights.
        loss: Name, name with options, or instance; copied as well.
        config: Training hyperparameters.
        device: Device to train on.
        callbacks: Receive every epoch, and the end of the training, such as `ProgressBar()`.
        warns: Whether to log the result's notes as warnings.
    """

    def __init__(
        self,
        head: PartSpec = "mlp",
        loss: PartSpec = "infonce",
        config: TrainingConfig | None = None,
        *,
        device: str | torch.device = "cpu",
        callbacks: Sequence[Callback] = (),
        warns: bool = True,
    ) -> None:
        self.head = head
        self.loss = loss
        self.config = config or TrainingConfig()
        self.device = device
        self.callbacks = tuple(callbacks)
        self.warns = warns

    def fit(
        self, train: PairedFeatures, validation: PairedFeatures | None = None
    ) -> TrainingResult:
        """Trains on matched pairs.

        Args:
            train: At least 2 matches. All of them are known to the loss, so that no match is ever
                a negative, and neither are open pairs; rejected pairs are extra negatives of the
                batches that hold one of the two.
            validation: Pairs of other people for early stopping; without them all epochs are run.

        Raises:
            ConfigurationError: There are fewer than 2 pairs, the validation features differ in
                width or number of sides, or the head cannot be trained.
        """
        _check_data(train, validation)
        run = _Run(self, train, validation)
        with Callbacks(self.callbacks) as callbacks, torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            for epoch in range(1, self.config.epochs + 1):
                improves = run.epoch(epoch)
                callbacks.on_epoch(run.history[-1], self.config.epochs)
                if not improves:
                    break
        result = run.result()
        if self.warns:
            for note in result.notes:
                _log.warning(note)
        return result

    def fit_arrays(
        self,
        features_a: Floats,
        features_b: Floats | None = None,
        *,
        matches: Ints | Sequence[tuple[int, int]] | None = None,
        rejected: Ints | Sequence[tuple[int, int]] | None = None,
        validation: PairedFeatures | None = None,
    ) -> TrainingResult:
        """`fit` for features in arrays: a wrapper around `PairedFeatures.of`.

        Args:
            features_a: [N, D] features of side a.
            features_b: [M, D] features of side b; None for a one-sided set.
            matches: [P, 2] rows that match; by default row i matches row i.
            rejected: [R, 2] rows of pairs in which one person declined.
            validation: As in `fit`.
        """
        train = PairedFeatures.of(features_a, features_b, matches=matches, rejected=rejected)
        return self.fit(train, validation)


class _Run:
    """The state of one training run."""

    def __init__(
        self, trainer: Trainer, train: PairedFeatures, validation: PairedFeatures | None
    ) -> None:
        self.config = trainer.config
        self.train = train
        self.validation = validation
        self.device = trainer.device
        head = build_head(trainer.head, dim=train.dim, seed=self.config.seed)
        self.head = copy.deepcopy(head).to(self.device)
        self.loss = copy.deepcopy(registry.create("losses", trainer.loss)).to(self.device)
        self.optimizer = _optimizer(self.head, self.loss, self.config)
        self.batches = Batches(train, self.config)
        self.table_a = torch.from_numpy(train.a).to(self.device)
        self.table_b = self.table_a
        if train.b is not None:
            self.table_b = torch.from_numpy(train.b).to(self.device)
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self.best_mrr = -1.0
        self.best_weights: dict[str, Any] | None = None
        self.best_loss: dict[str, Any] = {}

    def epoch(self, epoch: int) -> bool:
        """Trains one epoch; False if training should stop."""
        row = {"epoch": float(epoch), "train_loss": self._train_loss()}
        if not np.isfinite(row["train_loss"]):
            raise ConfigurationError(
                f"Training diverged in epoch {epoch} (loss {row['train_loss']}): lower "
                f"`learning_rate` ({self.config.learning_rate:g})."
            )
        self.history.append(row)
        if self.validation is None:
            self.best_epoch = epoch
            return True
        mrr = _mrr(self._rank(self.validation))
        row["validation_mrr"] = mrr
        if mrr > self.best_mrr:
            self.best_epoch = epoch
            self.best_mrr = mrr
            self.best_weights = {
                name: weight.detach().clone() for name, weight in self.head.state_dict().items()
            }
            self.best_loss = copy.deepcopy(self.loss.state_dict())
        return epoch - self.best_epoch < self.config.patience

    def _train_loss(self) -> float:
        """Mean loss of one pass over the training pairs."""
        self.head.train()
        total = 0.0
        count = 0
        for rows_a, rows_b, positives, unknown in self.batches.epoch():
            z_a, z_b = self.head(self.table_a[rows_a], self.table_b[rows_b])
            e_a = torch.nn.functional.normalize(z_a, dim=1)
            e_b = torch.nn.functional.normalize(z_b, dim=1)
            loss = self.loss(e_a, e_b, positives.to(self.device), unknown.to(self.device))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += float(loss.detach()) * len(rows_a)
            count += len(rows_a)
        return total / count

    def _rank(self, data: PairedFeatures) -> RankedQueries:
        return rank_queries(data, *embed_sides(data, self.head), (1,))

    def result(self) -> TrainingResult:
        """Restores the best epoch's weights and examines them."""
        if self.best_weights is not None:
            self.head.load_state_dict(self.best_weights)
            self.loss.load_state_dict(self.best_loss)
        self.head.eval()
        sample = _first_matches(self.train, _MEMORIZED_SAMPLE)
        train_recall = float(self._rank(sample).table["recall_at_1"].mean())
        mrr = None
        chance = None
        notes = []
        if self.validation is not None:
            ranked = self._rank(self.validation)
            mrr = _mrr(ranked)
            chance = float(ranked.chance["reciprocal_rank"].mean())
            if train_recall > 0.9 and mrr < 1.25 * chance:
                notes.append(
                    f"The head only memorizes: it ranks {100 * train_recall:.0f} % of training "
                    f"partners first, but on validation pairs its MRR is {mrr:.3f} and chance is "
                    f"{chance:.3f}. More pairs, a smaller head, dropout or other features may help."
                )
        return TrainingResult(
            head=self.head,
            loss=self.loss,
            history=tuple(self.history),
            best_epoch=self.best_epoch,
            train_recall_at_1=train_recall,
            validation_mrr=mrr,
            validation_chance_mrr=chance,
            notes=tuple(notes),
        )


def _check_data(train: object, validation: object) -> None:
    for name, data in (("train", train), ("validation", validation)):
        if not isinstance(data, PairedFeatures) and not (name == "validation" and data is None):
            raise ConfigurationError(
                f"`Trainer.fit({name}=...)` takes `PairedFeatures`, got {type(data).__name__}: "
                "build them with `PairedFeatures.of(a, b)`, or call `fit_arrays`."
            )
    assert isinstance(train, PairedFeatures)
    if isinstance(validation, PairedFeatures) and (
        validation.one_sided != train.one_sided or validation.dim != train.dim
    ):
        raise ConfigurationError(
            "Training and validation features must have the same width and number of sides."
        )
    if len(train) < 2:
        raise ConfigurationError(
            f"Training needs at least 2 matched pairs, got {len(train)}: the other pairs of a "
            "batch are the negatives."
        )


def _optimizer(
    head: ProjectionHead, loss: ContrastiveLoss, config: TrainingConfig
) -> torch.optim.Optimizer:
    """AdamW over head and loss; the loss's own parameters are not decayed."""
    weights = [weight for weight in head.parameters() if weight.requires_grad]
    if not head.trainable or not weights:
        raise ConfigurationError(
            f"The head {type(head).__name__} has nothing to train: evaluate it without `fit`, or "
            "choose another."
        )
    groups: list[dict[str, Any]] = [{"params": weights}]
    loss_parameters = [weight for weight in loss.parameters() if weight.requires_grad]
    if loss_parameters:
        groups.append({"params": loss_parameters, "weight_decay": 0.0})
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )


def _mrr(ranked: RankedQueries) -> float:
    return float(ranked.table["reciprocal_rank"].mean())


def _first_matches(data: PairedFeatures, count: int) -> PairedFeatures:
    """The first matches and their people, so that partners are ranked only among these."""
    matches = data.matches[:count]
    if data.b is None:
        rows, flat = np.unique(matches, return_inverse=True)
        return PairedFeatures.of(data.a[rows], matches=flat.reshape(-1, 2))
    rows_a, index_a = np.unique(matches[:, 0], return_inverse=True)
    rows_b, index_b = np.unique(matches[:, 1], return_inverse=True)
    return PairedFeatures.of(
        data.a[rows_a], data.b[rows_b], matches=np.stack([index_a, index_b], axis=1)
    )

"""Trains a projection head on vectors alone: no model is run, so thirty epochs take seconds."""

from __future__ import annotations

import copy
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.progress import track

from pairmatch.core import registry
from pairmatch.core.arrays import Floats, Ints, check_matches, check_sides
from pairmatch.core.config import PartSpec, TrainingConfig
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ContrastiveLoss, ProjectionHead
from pairmatch.evaluation.ranks import place, query_metrics
from pairmatch.learning.heads import build_head, embed

_log = logging.getLogger(__name__)
_MEMORISED_SAMPLE = (
    2000  # training pairs looked at to tell memorising; more would cost more than they tell
)


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A trained head and how it came about.

    Attributes:
        head: In evaluation mode, with the weights of the best epoch.
        loss: The loss, with what it learned (a temperature).
        history: One row per epoch: `epoch` from 1, `train_loss`, and `validation_mrr` where there
            is a validation set.
        best_epoch: Whose weights were kept; the last, without a validation set.
        train_recall_at_1: Share of (at most 2,000) training pairs whose partner the head puts
            first.
        validation_mrr: At the best epoch; None without a validation set.
        validation_chance_mrr: What a random order would score there.
        notes: What a reader has to know, for example that the head only memorised.
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
        loss: Name, name with options, or instance; copied likewise.
        config: Numbers of the run.
        device: Where the head is trained.
        progress: Shows a progress bar.
        warns: Logs the result's notes as warnings.
    """

    def __init__(
        self,
        head: PartSpec = "mlp",
        loss: PartSpec = "infonce",
        config: TrainingConfig | None = None,
        *,
        device: str | torch.device = "cpu",
        progress: bool = False,
        warns: bool = True,
    ) -> None:
        self.head, self.loss = head, loss
        self.config = config or TrainingConfig()
        self.device, self.progress, self.warns = device, progress, warns

    def fit(
        self,
        features_a: Floats,
        features_b: Floats | None = None,
        *,
        matches: Ints | Sequence[tuple[int, int]] | None = None,
        rejected: Ints | Sequence[tuple[int, int]] | None = None,
        validation_a: Floats | None = None,
        validation_b: Floats | None = None,
        validation_matches: Ints | Sequence[tuple[int, int]] | None = None,
    ) -> TrainingResult:
        """Trains on matched rows.

        Args:
            features_a: [N, D] features of side a.
            features_b: [M, D] features of side b; None for a one-sided set.
            matches: [P, 2] rows that match, at least 2; by default row i matches row i. All of them
                are known to the loss, so that no match is ever a negative.
            rejected: [R, 2] rows where one of the two said no: extra negatives of the batches that
                hold one of them.
            validation_a: [N', D] features of people held out; without them all epochs are run.
            validation_b: [M', D] the same for side b.
            validation_matches: As `matches`.

        Raises:
            ConfigurationError: Fewer than 2 pairs, widths that do not fit, values that are not
                finite, or a head that cannot be trained.
        """
        data = _Rows.of("features", features_a, features_b, matches, rejected)
        held_out = None
        if validation_a is None and (validation_b is not None or validation_matches is not None):
            raise ConfigurationError(
                "`validation_b` and `validation_matches` need `validation_a` too."
            )
        if validation_a is not None:
            held_out = _Rows.of("validation", validation_a, validation_b, validation_matches, None)
            if held_out.one_sided != data.one_sided or held_out.a.shape[1] != data.a.shape[1]:
                raise ConfigurationError(
                    "Training and validation features must have the same width and the same sides."
                )
        if len(data.matches) < 2:
            raise ConfigurationError(
                f"Training needs at least 2 matched pairs, got {len(data.matches)}: the other pairs of a batch are the "
                "negatives."
            )
        config = self.config
        head = copy.deepcopy(build_head(self.head, dim=data.a.shape[1], seed=config.seed)).to(
            self.device
        )
        loss = copy.deepcopy(registry.create("losses", self.loss)).to(self.device)
        groups: list[dict[str, Any]] = [
            {"params": [p for p in head.parameters() if p.requires_grad]},
            {"params": [p for p in loss.parameters() if p.requires_grad], "weight_decay": 0.0},
        ]
        if not head.trainable or not groups[0]["params"]:
            raise ConfigurationError(
                f"The head {type(head).__name__} has nothing to train: evaluate it without `fit`, or choose another."
            )
        optimiser = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        history: list[dict[str, float]] = []
        best_epoch, best_mrr, best_weights = 0, -1.0, None
        batches = _Batches(data, config)
        table_a = torch.from_numpy(data.a).to(self.device)
        table_b = table_a if data.one_sided else torch.from_numpy(data.b).to(self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            epochs = track(
                range(1, config.epochs + 1), "Training", disable=not self.progress, transient=True
            )
            for epoch in epochs:
                head.train()
                total, count = 0.0, 0
                for rows_a, rows_b, positives in batches.epoch():
                    z_a, z_b = head(table_a[rows_a], table_b[rows_b])
                    value = loss(
                        torch.nn.functional.normalize(z_a, dim=1),
                        torch.nn.functional.normalize(z_b, dim=1),
                        positives.to(self.device),
                    )
                    optimiser.zero_grad(set_to_none=True)
                    value.backward()
                    optimiser.step()
                    total += float(value.detach()) * len(rows_a)
                    count += len(rows_a)
                row = {"epoch": float(epoch), "train_loss": total / count}
                if not np.isfinite(row["train_loss"]):
                    raise ConfigurationError(
                        f"Training diverged in epoch {epoch} (loss {row['train_loss']}): lower `learning_rate` "
                        f"({config.learning_rate:g})."
                    )
                history.append(row)
                if held_out is None:
                    best_epoch = epoch
                    continue
                row["validation_mrr"] = held_out.mrr(head)[0]
                if row["validation_mrr"] > best_mrr:
                    best_epoch, best_mrr = epoch, row["validation_mrr"]
                    best_weights = {
                        key: value.detach().clone() for key, value in head.state_dict().items()
                    }
                    best_loss = copy.deepcopy(loss.state_dict())
                elif epoch - best_epoch >= config.patience:
                    break
        if best_weights is not None:
            head.load_state_dict(best_weights)
            loss.load_state_dict(best_loss)
        head.eval()
        sample = _Rows(
            data.a, data.b, data.matches[:_MEMORISED_SAMPLE], data.rejected, data.one_sided
        )
        train_recall = sample.recall_at_1(head)
        validation_mrr, chance = (None, None) if held_out is None else held_out.mrr(head)
        notes = []
        if (
            validation_mrr is not None
            and chance is not None
            and train_recall > 0.9
            and validation_mrr < 1.25 * chance
        ):
            notes.append(
                f"The head only memorises: it puts {100 * train_recall:.0f} % of training partners first, but on "
                f"validation pairs its MRR is {validation_mrr:.3f} where chance is {chance:.3f}. More pairs, a smaller "
                "head, dropout or other features may help."
            )
        if self.warns:
            for note in notes:
                _log.warning(note)
        return TrainingResult(
            head,
            loss,
            tuple(history),
            best_epoch,
            train_recall,
            validation_mrr,
            chance,
            tuple(notes),
        )


@dataclass(frozen=True, slots=True)
class _Rows:
    """Checked features of a set, with the rows that match; `b` is `a` in one-sided sets."""

    a: Any
    b: Any
    matches: Ints
    rejected: Ints
    one_sided: bool

    @classmethod
    def of(
        cls,
        name: str,
        a: Floats,
        b: Floats | None,
        matches: Ints | Sequence[tuple[int, int]] | None,
        rejected: Ints | Sequence[tuple[int, int]] | None,
    ) -> _Rows:
        people_b = None if b is None else len(b)
        known = check_matches(check_sides(name, a, b, matches), len(a), people_b)
        refused = np.empty((0, 2), np.int64)
        if rejected is not None and len(rejected):
            refused = check_matches(rejected, len(a), people_b)
        first = np.ascontiguousarray(a, np.float32)
        return cls(
            first,
            first if b is None else np.ascontiguousarray(b, np.float32),
            known,
            refused,
            b is None,
        )

    def mrr(self, head: ProjectionHead) -> tuple[float, float]:
        """MRR over the queries of both directions, and chance's."""
        e_a = embed(head, self.a, "a")
        found = place(e_a, None if self.one_sided else embed(head, self.b, "b"), self.matches)
        measured = [
            query_metrics(placements, (1,)) for placements in found if placements is not None
        ]
        ours = np.concatenate([metrics.reciprocal_rank for metrics in measured]).mean()
        chance = np.concatenate([metrics.chance_reciprocal_rank for metrics in measured]).mean()
        return float(ours), float(chance)

    def recall_at_1(self, head: ProjectionHead) -> float:
        """Share of partners that come first among the people of `matches`."""
        rows_a, index_a = np.unique(self.matches[:, 0], return_inverse=True)
        rows_b, index_b = np.unique(self.matches[:, 1], return_inverse=True)
        if self.one_sided:
            rows_a, index = np.unique(self.matches, return_inverse=True)
            index_a, index_b = index.reshape(-1, 2).T
        e_a = embed(head, self.a[rows_a], "a")
        e_b = None if self.one_sided else embed(head, self.b[rows_b], "b")
        found = place(e_a, e_b, np.stack([index_a, index_b], axis=1))
        measured = [
            query_metrics(placements, (1,)) for placements in found if placements is not None
        ]
        return float(np.concatenate([metrics.recall for metrics in measured]).mean())


class _Batches:
    """Draws batches of pairs.

    Distinct people on each side, every known match marked, rejected partners added.
    """

    def __init__(self, data: _Rows, config: TrainingConfig) -> None:
        self.data = data
        self.size = config.batch_size
        self.rng = np.random.default_rng(config.seed)
        known = (
            data.matches
            if not data.one_sided
            else np.concatenate([data.matches, data.matches[:, ::-1]])
        )
        self.people = len(data.b)
        self.codes = np.unique(known[:, 0] * self.people + known[:, 1])
        self.rejected: tuple[dict[int, list[int]], dict[int, list[int]]] = (
            defaultdict(list),
            defaultdict(list),
        )
        for a, b in data.rejected.tolist():
            for first, second in ((a, b), (b, a)) if data.one_sided else ((a, b),):
                self.rejected[0][first].append(second)
                self.rejected[1][second].append(first)

    def epoch(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yields rows of side a [A], rows of side b [B] and the matches among them [A, B] bool."""
        order = self.data.matches[self.rng.permutation(len(self.data.matches))]
        for pairs in self._oriented(order) if self.data.one_sided else self._chunks(order):
            if len(pairs) < 2:
                continue
            rows_a, rows_b = self._with_rejected(_distinct(pairs[:, 0]), _distinct(pairs[:, 1]))
            codes = rows_a[:, None] * self.people + rows_b[None, :]
            places = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
            positives = self.codes[places] == codes
            yield torch.from_numpy(rows_a), torch.from_numpy(rows_b), torch.from_numpy(positives)

    def _chunks(self, order: Ints) -> Iterator[Ints]:
        for start in range(0, len(order), self.size):
            yield order[start : start + self.size]

    def _oriented(self, order: Ints) -> Iterator[Ints]:
        """Batches of a one-sided set in which nobody stands on both sides.

        They would be their own negative.
        """
        waiting = order.tolist()
        while waiting:
            sides: dict[int, int] = {}
            batch: list[tuple[int, int]] = []
            later: list[list[int]] = []
            for position, (i, j) in enumerate(waiting):
                if len(batch) == self.size:
                    later += waiting[position:]
                    break
                swap = bool(self.rng.integers(2))
                for first, second in ((j, i), (i, j)) if swap else ((i, j), (j, i)):
                    if sides.get(first, 0) == 0 and sides.get(second, 1) == 1:
                        sides[first], sides[second] = 0, 1
                        batch.append((first, second))
                        break
                else:
                    later.append([i, j])
            yield np.array(batch, np.int64)
            waiting = later

    def _with_rejected(self, rows_a: Ints, rows_b: Ints) -> tuple[Ints, Ints]:
        """Adds, at random and at most a batch's worth per side, the people whom those of the batch were rejected by."""
        if not len(self.data.rejected):
            return rows_a, rows_b
        here_a, here_b = set(rows_a.tolist()), set(rows_b.tolist())
        more_b = {x for a in rows_a.tolist() for x in self.rejected[0].get(a, ())} - here_b
        more_a = {x for b in rows_b.tolist() for x in self.rejected[1].get(b, ())} - here_a
        if self.data.one_sided:
            more_b -= here_a
            more_a -= here_b | more_b
        return self._join(rows_a, more_a), self._join(rows_b, more_b)

    def _join(self, rows: Ints, more: set[int]) -> Ints:
        extra = np.array(sorted(more), np.int64)
        if len(extra) > self.size:
            extra = self.rng.choice(extra, self.size, replace=False)
        return np.concatenate([rows, extra])


def _distinct(values: Ints) -> Ints:
    """The values in order of first appearance, each once."""
    _, first = np.unique(values, return_index=True)
    return values[np.sort(first)]

"""One fine-tuning run: epochs, validation, the best weights, checkpoints."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pairmatch.core import registry
from pairmatch.core.arrays import Ints, Vectors
from pairmatch.core.callbacks import Callbacks
from pairmatch.core.config import TrainingConfig
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ContrastiveLoss, ProjectionHead
from pairmatch.core.progress import track
from pairmatch.data import Pairs
from pairmatch.evaluation.query_table import embed_sides, rank_queries
from pairmatch.features.running import worker_count
from pairmatch.finetuning.caching import Passes, gather_features, take_gradients
from pairmatch.finetuning.checkpoints import (
    Checkpoints,
    Position,
    optimizer_tensors,
    prefixed,
    restore_optimizer,
    without_prefix,
)
from pairmatch.finetuning.config import FinetuneConfig, rate_factor
from pairmatch.finetuning.identity import run_identity
from pairmatch.finetuning.lora import LoRALayers
from pairmatch.finetuning.people import Decoder, People, with_features
from pairmatch.finetuning.ranks import Ranks
from pairmatch.learning.batches import Batches
from pairmatch.learning.heads import build_head

if TYPE_CHECKING:
    from pairmatch.finetuning.finetuner import Finetuner

_TOGETHER = 16  # people per pass without gradient caching, of similar length


class Run:
    """The state of one fine-tuning run; nothing of it is random but what its seed decides.

    Args:
        finetuner: Backbone, pooler, head, loss and hyperparameters.
        train: Pairs to train on.
        validation: Pairs for early stopping, or None.
        folder: Folder of the checkpoint, or None.

    Attributes:
        layers: The LoRA layers in the network.
        head: The head; after training, that of the best epoch.
        loss: The loss, likewise.
        position: Where the run is.
    """

    def __init__(
        self, finetuner: Finetuner, train: Pairs, validation: Pairs | None, folder: Path | None
    ) -> None:
        self.config: FinetuneConfig = finetuner.config
        self.ranks = Ranks()
        self.shown = finetuner.progress and self.ranks.is_main
        self.callbacks = finetuner.callbacks if self.ranks.is_main else ()
        self.backbone = finetuner.backbone
        reading = (self.backbone, finetuner.prompt, finetuner.prompt_attributes)
        self.train_pairs = train
        self.people = People.of(train, *reading)
        self.validation = validation
        self.validation_people = None if validation is None else People.of(validation, *reading)
        network = self.backbone.network  # type: ignore[attr-defined]
        self.layers = LoRALayers(network, self.config)
        try:
            self._prepare(finetuner, folder)
        except BaseException:
            self.layers.remove()
            raise

    def _prepare(self, finetuner: Finetuner, folder: Path | None) -> None:
        """Head, loss, optimizer and checkpoint, once the width of the features is known."""
        weight = next(self.layers.network.parameters())
        wants_bfloat16 = self.config.bfloat16
        if wants_bfloat16 is None:
            wants_bfloat16 = weight.device.type != "cpu" or weight.dtype == torch.bfloat16
        self.passes = Passes(
            self.backbone,
            finetuner.pooler,
            self._width(finetuner),
            weight.device,
            self.config.seed,
            wants_bfloat16,
        )
        head = build_head(finetuner.head, dim=self.passes.width, seed=self.config.seed)
        self.head: ProjectionHead = copy.deepcopy(head).to(weight.device)
        loss = registry.create("losses", finetuner.loss)
        self.loss: ContrastiveLoss = copy.deepcopy(loss).to(weight.device)
        self.optimizer = self._optimizer()
        self.position = Position()
        self.best: dict[str, Tensor] = {}
        self.pool = ThreadPoolExecutor(self.backbone.workers or worker_count(), "pairmatch-prepare")
        self.batches = self._batches()
        self.checkpoints: Checkpoints | None = None
        if folder is not None:
            people = [self.people, *([self.validation_people] if self.validation_people else [])]
            parts = (self.backbone, finetuner.pooler, self.head, self.loss)
            self.checkpoints = Checkpoints(folder, run_identity(self.config, *parts, people))
            self._resume(self.checkpoints)

    def _batches(self) -> Batches:
        """Batches of the training pairs; hard negatives are mined from the frozen features."""
        config = TrainingConfig(
            batch_size=self.config.batch_size,
            hard_negatives=self.config.hard_negatives,
            hard_negatives_skip=self.config.hard_negatives_skip,
            seed=self.config.seed,
        )
        if not config.hard_negatives:
            return Batches(self.people.pairs, config)
        # The correction of an adapter is zero before the first step
        return Batches(with_features(self.train_pairs, self.features(self.people)), config)

    def train(self) -> None:
        """Runs all epochs, or as many as validation pairs allow, and takes the best weights."""
        if self.validation is not None and self.position.frozen_mrr is None:
            self.position.frozen_mrr = self._mrr(None)
        with Callbacks(self.callbacks) as callbacks:
            for row in self.position.history:  # epochs before an interruption
                callbacks.on_epoch(row, self.config.epochs)
            while not self.position.is_done:
                self._epoch()
                self._write()
                callbacks.on_epoch(self.position.history[-1], self.config.epochs)
        self.layers.restore(without_prefix("adapter", self.best))
        self.head.load_state_dict(without_prefix("head", self.best))
        self.loss.load_state_dict(without_prefix("loss", self.best))
        self.head.eval()

    def close(self) -> None:
        """Ends threads and takes the LoRA layers out of the network."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.layers.remove()

    # One epoch

    def _epoch(self) -> None:
        position = self.position
        batches = self._epoch_batches(position.epoch)
        people = [self._rows(a, b) for a, b, _, _ in batches]
        decoder = self._decoder(self.people)
        first = position.step
        self.head.train()
        with self.layers.training():
            steps = zip(batches[first:], decoder.batches(people[first:]), strict=True)
            description = f"Fine-tuning, epoch {position.epoch} of {self.config.epochs}"
            for batch, parts in track(steps, description, len(people) - first, shown=self.shown):
                self._step(batch, parts, len(batches))
                every = self.config.checkpoint_steps
                if every and position.step % every == 0 and position.step < len(batches):
                    self._write()
        self._end_epoch()

    def _step(self, batch: tuple[Tensor, ...], parts: Sequence[Any], steps: int) -> None:
        rows_a, rows_b, positives, unknown = batch
        position = self.position
        device = self.passes.device
        marks = positives.to(device), unknown.to(device)

        def objective(features: Tensor) -> Tensor:
            z_a, z_b = self.head(features[: len(rows_a)], features[len(rows_a) :])
            e_a = torch.nn.functional.normalize(z_a, dim=1)
            e_b = torch.nn.functional.normalize(z_b, dim=1)
            return self.loss(e_a, e_b, *marks)

        self.optimizer.zero_grad(set_to_none=True)
        loss = take_gradients(
            self.passes,
            parts,
            objective,
            list(self.layers.matrices().values()),
            people=len(rows_a) + len(rows_b),
            step=(position.epoch - 1) * 2**24 + position.step,
            ranks=self.ranks,
            caching=self.config.micro_batch is not None,
        )
        if not math.isfinite(loss):
            raise ConfigurationError(
                f"Training diverged in epoch {position.epoch} (loss {loss}): lower "
                f"`learning_rate` ({self.config.learning_rate:g})."
            )
        done = (position.epoch - 1 + position.step / steps) / self.config.epochs
        factor = rate_factor(done, self.config.warmup, 1 / (steps * self.config.epochs))
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest"] * factor
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(weights, self.config.clip)
        self.optimizer.step()
        position.step += 1
        position.total += loss * len(rows_a)
        position.count += len(rows_a)

    def _end_epoch(self) -> None:
        """Records the epoch, keeps the best weights, and decides whether to go on."""
        position = self.position
        row = {"epoch": float(position.epoch), "train_loss": position.total / position.count}
        mrr = None
        if self.validation is not None:
            mrr = self._mrr(self.head)
            row["validation_mrr"] = mrr
        position.history.append(row)
        if mrr is None or mrr > position.best_mrr:
            position.best_epoch = position.epoch
            position.best_mrr = -1.0 if mrr is None else mrr
            self.best = self._weights()
        waited = position.epoch - position.best_epoch
        position.is_done = position.epoch == self.config.epochs or waited >= self.config.patience
        position.epoch += 1
        position.step, position.total, position.count = 0, 0.0, 0

    def _epoch_batches(self, epoch: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """The batches of an epoch, which depend on the seed and its number alone."""
        self.batches.rng = np.random.default_rng([self.config.seed, epoch])
        return list(self.batches.epoch())

    def _rows(self, rows_a: Tensor, rows_b: Tensor) -> Ints:
        """Rows of `people` of a batch: side a, then side b."""
        shift = 0 if self.people.pairs.one_sided else len(self.people.pairs.a)
        return np.concatenate([rows_a.numpy(), rows_b.numpy() + shift])

    def try_steps(self, count: int) -> tuple[int, list[float]]:
        """Takes the first steps of the first epoch.

        Returns:
            Number of steps of the epoch, and the seconds of each that was taken.
        """
        batches = self._epoch_batches(1)
        people = [self._rows(a, b) for a, b, _, _ in batches[:count]]
        seconds = []
        with self.layers.training():
            decoded = self._decoder(self.people).batches(people)
            for batch in batches[:count]:
                start = time.perf_counter()
                self._step(batch, next(decoded), len(batches))
                seconds.append(time.perf_counter() - start)
        return len(batches), seconds

    # Evaluation

    def _mrr(self, head: ProjectionHead | None) -> float:
        """MRR on the validation pairs; of the cosine of the features without a head."""
        assert self.validation is not None
        assert self.validation_people is not None
        data = with_features(self.validation, self.features(self.validation_people))
        ranked = rank_queries(data, *embed_sides(data, head), (1,))
        return float(ranked.table["reciprocal_rank"].mean())

    def features(self, people: People) -> Vectors:
        """[people, D] float32 features by the weights of now, without dropout."""
        size = self.config.micro_batch or _TOGETHER
        order = np.argsort(-people.lengths, kind="stable")
        width = size * self.ranks.count
        chunks = [order[start : start + width] for start in range(0, len(order), width)]
        decoder = self._decoder(people)
        features = np.empty((len(order), self.passes.width), np.float32)
        work = zip(chunks, decoder.batches(chunks), strict=True)
        for rows, parts in track(work, "Extracting features", len(chunks), shown=self.shown):
            computed = gather_features(
                self.passes, parts, people=len(rows), step=0, ranks=self.ranks
            )
            features[rows] = computed.cpu().numpy()
        return features

    def _decoder(self, people: People) -> Decoder:
        size = self.config.micro_batch or _TOGETHER
        return Decoder(people, self.backbone, self.pool, self.ranks, size)

    def _width(self, finetuner: Finetuner) -> int:
        """Width D of the features; this pass also loads what is loaded at the first use."""
        first = self.people.items[:1]
        prepared = self.people.prepared(self.backbone, lambda: self.backbone.prepare(first))
        with torch.no_grad():
            states = self.backbone.forward(prepared)
            return int(finetuner.pooler.pool(states).shape[1])

    # Weights and checkpoints

    def _optimizer(self) -> torch.optim.AdamW:
        """AdamW over adapter, head and loss, with the highest learning rate of each."""
        decay = self.config.weight_decay
        head_rate = self.config.head_learning_rate
        groups = [
            (list(self.layers.matrices().values()), self.config.learning_rate, decay),
            ([w for w in self.head.parameters() if w.requires_grad], head_rate, decay),
            ([w for w in self.loss.parameters() if w.requires_grad], head_rate, 0.0),
        ]
        return torch.optim.AdamW(
            [
                {"params": weights, "lr": rate, "highest": rate, "weight_decay": decayed}
                for weights, rate, decayed in groups
                if weights
            ]
        )

    def _weights(self) -> dict[str, Tensor]:
        """Copies of the weights of adapter, head and loss."""
        modules = {"head": self.head.state_dict(), "loss": self.loss.state_dict()}
        copies = {
            kind: {name: value.detach().cpu().clone() for name, value in state.items()}
            for kind, state in modules.items()
        }
        return {
            **prefixed("adapter", self.layers.snapshot()),
            **prefixed("head", copies["head"]),
            **prefixed("loss", copies["loss"]),
        }

    def _write(self) -> None:
        if self.checkpoints is None or not self.ranks.is_main:
            return
        tensors = {
            **prefixed("now", self._weights()),
            **prefixed("best", self.best),
            **prefixed("optimizer", optimizer_tensors(self.optimizer)),
        }
        self.checkpoints.write(self.position, tensors)

    def _resume(self, checkpoints: Checkpoints) -> None:
        saved = checkpoints.read()
        epoch, step = (0, 0) if saved is None else (saved[0].epoch, saved[0].step)
        if not self.ranks.agree([epoch, step]):
            raise ConfigurationError(
                f"The processes of this run find different checkpoints in {checkpoints.folder}: "
                "the folder must be one that all of them share."
            )
        if saved is None:
            return
        self.position, tensors = saved
        now = without_prefix("now", tensors)
        self.layers.restore(without_prefix("adapter", now))
        self.head.load_state_dict(without_prefix("head", now))
        self.loss.load_state_dict(without_prefix("loss", now))
        self.best = without_prefix("best", tensors)
        restore_optimizer(self.optimizer, without_prefix("optimizer", tensors))

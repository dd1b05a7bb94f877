"""Gradient caching: contrastive batches of any size in the memory of a few people.

Gao et al. (2021), "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pairmatch.core.interfaces import Backbone, Pooler
from pairmatch.finetuning.ranks import Ranks

#: Number that stands for the head, where others count the micro-batches of a step.
HEAD = 2**31


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """Some people of a batch, who run through the backbone together.

    Attributes:
        number: Position among the micro-batches of its batch, from 0.
        rows: [n] rows of its people in the features of the batch.
        prepared: Returns the input of the backbone; waits until it is decoded.
    """

    number: int
    rows: Tensor
    prepared: Callable[[], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Passes:
    """Passes through backbone and pooler.

    Dropout is seeded by step and micro-batch, so that a second pass over a micro-batch drops what
    the first one dropped, in whatever process, and a resumed run what the whole run drops.

    Attributes:
        backbone: Its network is what is trained.
        pooler: Reduces the states of a person to a feature.
        width: Width D of the features.
        device: Device of the network.
        seed: Seed of the run.
        bfloat16: Whether products are computed in bfloat16.
    """

    backbone: Backbone
    pooler: Pooler
    width: int
    device: torch.device
    seed: int = 0
    bfloat16: bool = False

    def features(self, prepared: Any, step: int = 0, number: int = 0) -> Tensor:
        """[n, D] float32 features of a prepared micro-batch."""
        self.set_seed(step, number)
        with self._precision():
            return self.pooler.pool(self.backbone.forward(prepared)).float()

    def set_seed(self, step: int, number: int) -> None:
        """Seeds dropout for a part of a step."""
        mixed = np.random.SeedSequence([self.seed, step, number]).generate_state(1, np.uint64)
        torch.manual_seed(int(mixed[0]))

    def _precision(self) -> AbstractContextManager[Any]:
        if not self.bfloat16:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def take_gradients(
    passes: Passes,
    micro_batches: Sequence[MicroBatch],
    objective: Callable[[Tensor], Tensor],
    trained: Sequence[Tensor],
    *,
    people: int,
    step: int,
    ranks: Ranks,
    caching: bool = True,
) -> float:
    """Gradients of the loss of a whole batch; returns the loss.

    With caching, the features of all micro-batches are computed without a graph. Head and loss run
    once, on all of them, so that BatchNorm and negatives are those of the whole batch; that gives
    the gradient of each feature. A second pass over each micro-batch, with a graph, carries it into
    the backbone. Without caching, the graphs of the first passes are kept.

    Args:
        passes: Backbone and pooler.
        micro_batches: Those of this process.
        objective: Loss of the batch from its features [people, D].
        trained: Parameters of the backbone that are trained.
        people: Number of people in the batch, of all processes.
        step: Number of the step, which seeds dropout.
        ranks: Processes that share the batch.
        caching: Whether the graphs of the first passes are left out.
    """

    def run(part: MicroBatch) -> Tensor:
        return passes.features(part.prepared(), step, part.number)

    kept = None if caching and len(micro_batches) > 1 else [run(part) for part in micro_batches]
    features = gather_features(
        passes, micro_batches, people=people, step=step, ranks=ranks, computed=kept
    ).requires_grad_()
    passes.set_seed(step, HEAD)
    loss = objective(features)
    loss.backward()
    assert features.grad is not None
    for number, part in enumerate(micro_batches):
        first = run(part) if kept is None else kept[number]
        first.backward(features.grad[part.rows.to(passes.device)])
    ranks.sum_gradients(trained)
    return float(loss.detach())


@torch.no_grad()
def gather_features(
    passes: Passes,
    micro_batches: Sequence[MicroBatch],
    *,
    people: int,
    step: int,
    ranks: Ranks,
    computed: Sequence[Tensor] | None = None,
) -> Tensor:
    """[people, D] float32 features of a batch without a graph, from all processes.

    Args:
        passes: Backbone and pooler.
        micro_batches: Those of this process.
        people: Number of people in the batch, of all processes.
        step: Number of the step, which seeds dropout.
        ranks: Processes that share the batch.
        computed: Features of each micro-batch, where they are known.
    """
    features = torch.zeros(people, passes.width, device=passes.device)
    for number, part in enumerate(micro_batches):
        if computed is None:
            values = passes.features(part.prepared(), step, part.number)
        else:
            values = computed[number].detach()
        features[part.rows.to(passes.device)] = values
    return ranks.sum(features)

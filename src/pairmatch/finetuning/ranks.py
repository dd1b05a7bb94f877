"""The processes that share a fine-tuning run, one per device."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from pairmatch.core.errors import ConfigurationError, missing_extra


class Ranks:
    """The processes of a run that `accelerate launch` or `torchrun` started; one without them.

    Each process holds the whole model and takes a share of the micro-batches. What they compute is
    summed, so that all take the same step, and the result does not depend on their number.

    Attributes:
        index: Number of this process, from 0.
        count: Number of processes.

    Raises:
        ConfigurationError: The processes that were started are not joined: each would tune alone.
        MissingExtraError: accelerate is not installed.
    """

    def __init__(self) -> None:
        self.index = 0
        self.count = 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            self._join()

    def _join(self) -> None:
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise missing_extra(
                "Fine-tuning in several processes", "accelerate", "finetune"
            ) from error
        # Without an accelerator it joins no processes unless it is told so
        uses_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
        state = PartialState(cpu=uses_cpu or not torch.accelerator.is_available())
        self.index = state.process_index
        self.count = state.num_processes
        started = int(os.environ["WORLD_SIZE"])
        if self.count != started:
            raise ConfigurationError(
                f"{started} processes were started for this run, and accelerate joined "
                f"{self.count}: check `accelerate config`, or start one process."
            )

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.index == 0

    def wait(self) -> None:
        """Waits until all processes are here."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def agree(self, numbers: Sequence[int]) -> bool:
        """Whether all processes have the same numbers."""
        if self.count == 1:
            return True
        from accelerate.utils import gather_object

        return len(set(gather_object([tuple(numbers)]))) == 1

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes; every process has the same shape."""
        if self.count == 1:
            return values
        from accelerate.utils import reduce

        total: Tensor = reduce(values, "sum")
        return total

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replaces the gradients by their sums over all processes, in one transfer."""
        if self.count == 1:
            return
        weights = list(parameters)
        grads = [
            torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights
        ]
        total = self.sum(torch.cat([grad.flatten() for grad in grads]))
        pieces = total.split([weight.numel() for weight in weights])
        for weight, piece in zip(weights, pieces, strict=True):
            weight.grad = piece.view_as(weight)

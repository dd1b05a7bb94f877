"""What a fine-tuning would take, measured on a few steps."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from pairmatch.core.errors import MissingWeightsError
from pairmatch.data import Pairs
from pairmatch.features.plan import format_duration
from pairmatch.finetuning.finetuner import Finetuner
from pairmatch.finetuning.people import People
from pairmatch.finetuning.run import Run

_STEPS = 3  # the first one is not counted: it allocates memory
_PAIRS = 16  # for the time of a pass without gradients


@dataclass(frozen=True, slots=True)
class TuningPlan:
    """What a fine-tuning would do; `print` shows it in a sentence.

    Attributes:
        backbone: Name of the backbone.
        matches: Number of matches to train on.
        people: Number of people to train on.
        held_out: Number of people to validate on, before the first epoch and after each.
        epochs: Maximum number of epochs.
        steps: Number of steps of an epoch; None if the weights are not on this machine.
        step_seconds: Seconds of a step, likewise.
        person_seconds: Seconds of a pass over one person without gradients, likewise.
    """

    backbone: str
    matches: int
    people: int
    held_out: int
    epochs: int
    steps: int | None = None
    step_seconds: float | None = None
    person_seconds: float | None = None

    @property
    def seconds(self) -> float | None:
        """Estimated seconds of all epochs on this machine; None if unknown."""
        if self.steps is None or self.step_seconds is None or self.person_seconds is None:
            return None
        validation = (self.epochs + 1) * self.held_out * self.person_seconds
        return self.epochs * self.steps * self.step_seconds + validation

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the attributes, and `seconds`."""
        return {**asdict(self), "seconds": self.seconds}

    def __str__(self) -> str:
        epochs = "1 epoch" if self.epochs == 1 else f"up to {self.epochs} epochs"
        text = (
            f"Fine-tuning {self.backbone}: {self.matches:,} matches of {self.people:,} people, "
            f"{epochs}"
        )
        if self.seconds is None or self.step_seconds is None:
            return f"{text}; the weights are not on this machine, so the time is unknown."
        steps = "1 step" if self.steps == 1 else f"{self.steps:,} steps"
        return (
            f"{text} of {steps}, {self.held_out:,} people to validate on: about "
            f"{format_duration(self.seconds)} ({self.step_seconds:.3g} s per step, measured)."
        )


def plan_tuning(
    finetuner: Finetuner, train: Pairs, validation: Pairs | None, *, name: str
) -> TuningPlan:
    """Takes three steps of a fine-tuning, and drops what they learned; nothing is written.

    Args:
        finetuner: The fine-tuning.
        train: Pairs to train on.
        validation: Pairs for early stopping, or None.
        name: Name of the backbone.

    Raises:
        ConfigurationError: As in `Finetuner.fit`.
        DataError: People with nothing to read, or with missing photo files.
    """
    matched = [row for row, pair in enumerate(train.pairs) if pair.outcome == "match"]
    held_out = validation if validation else None
    plan = TuningPlan(
        backbone=name,
        matches=len(train),
        people=len(train.people),
        held_out=0 if held_out is None else len(held_out.people),
        epochs=finetuner.config.epochs,
    )
    with finetuner.guarded():
        try:
            run = Run(finetuner, train, None, None)
        except MissingWeightsError:
            return plan
        try:
            steps, seconds = run.try_steps(_STEPS)
            reading = (finetuner.backbone, finetuner.prompt, finetuner.prompt_attributes)
            few = People.of(train.subset(matched[:_PAIRS]), *reading)
            start = time.perf_counter()
            run.features(few)
            passed = time.perf_counter() - start
        finally:
            run.close()
    counted = seconds[1:] or seconds
    return TuningPlan(
        **{
            **asdict(plan),
            "steps": steps,
            "step_seconds": sum(counted) / len(counted),
            "person_seconds": passed / len(few.items),
        }
    )

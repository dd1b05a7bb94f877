"""Sends epochs and metrics of a run to an experiment tracker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from pairmatch.core.callbacks import Callback
from pairmatch.core.errors import ConfigurationError, PairmatchError, unknown_name
from pairmatch.tracking.runs import MLflowRun, TensorBoardRun, TrackedRun, WandbRun

_log = logging.getLogger(__name__)
_RUNS: Mapping[str, Callable[[str], TrackedRun]] = {
    "mlflow": MLflowRun,
    "wandb": WandbRun,
    "tensorboard": TensorBoardRun,
}


class Tracker(Callback):
    """One run in MLflow, Weights & Biases or TensorBoard, as a callback.

    The run gets parameters, and the numbers that callbacks get: one point per epoch, and the
    metrics of evaluations, with the name of what was evaluated (`test/mrr`). The curves of a
    fine-tuning have its name before theirs (`finetune hf-text/train_loss`). It gets no photo, id
    or text of a person. Close the tracker at the end, or use it in a `with` block:

    `with Tracker("mlflow") as tracker: Matcher(callbacks=[tracker]).fit(train, validation)`

    If the tracker fails in the course of a run (a full disk, a server that is down), a warning says
    so, and the work is done without it.

    Args:
        target: `mlflow`, `wandb` or `tensorboard`, and optionally a colon and where the run is
            kept. MLflow takes a file (SQLite) or an address; by default its own setting
            (`MLFLOW_TRACKING_URI`), or `mlflow.db` in the working folder. Weights & Biases takes a
            folder, by default `wandb`, for a run that is written offline and that `wandb sync`
            uploads later; or `online`, which sends it to the server of `wandb login`. TensorBoard
            takes a folder, by default `runs`.
        parameters: What the run was told, by name; see
            [`run_parameters`][pairmatch.tracking.parameters.run_parameters].

    Raises:
        ConfigurationError: The tracker is unknown, or the run cannot be created there.
        MissingExtraError: The tracker's package is not installed.
    """

    def __init__(
        self, target: str, parameters: Mapping[str, str | int | float] | None = None
    ) -> None:
        self.target = target
        kind, _, location = target.partition(":")
        if kind not in _RUNS:
            raise ConfigurationError(unknown_name("tracker", kind, _RUNS))
        self._epoch = 0
        self._phase = ""
        self._is_open = True
        try:
            self._run = _RUNS[kind](location)
            self._run.describe(dict(parameters or {}))
        except PairmatchError:
            raise
        except Exception as error:  # of any kind, by the tracker
            raise ConfigurationError(f"No run can be created in {target!r}: {error}") from error

    def __enter__(self) -> Tracker:
        """Returns itself."""
        return self

    def __exit__(self, error: type[BaseException] | None, *details: object) -> None:
        """Closes the run, as failed after an error."""
        self.close(failed=error is not None)

    def on_phase(self, name: str) -> None:
        """Names the curves of a fine-tuning; those of the learner have no name."""
        self._phase = "" if name == "fit" else f"{name}/"

    def on_epoch(self, row: Mapping[str, float], epochs: int) -> None:
        """Adds a point to the curve of each number in the row."""
        self._epoch = int(row["epoch"])
        numbers = {f"{self._phase}{name}": value for name, value in row.items() if name != "epoch"}
        self._attempt(lambda: self._run.log(numbers, self._epoch))

    def on_evaluation(self, name: str, metrics: Mapping[str, float]) -> None:
        """Adds metrics, at the latest epoch."""
        numbers = {f"{name}/{metric}": value for metric, value in metrics.items()}
        self._attempt(lambda: self._run.log(numbers, self._epoch))

    def on_end(self) -> None:
        """Has everything written that was added so far."""
        self._attempt(self._run.flush)

    def close(self, *, failed: bool = False) -> None:
        """Ends the run; what is reported later is ignored.

        Args:
            failed: Whether the run is marked as failed, where the tracker distinguishes that.
        """
        self._attempt(lambda: self._run.close(failed))
        self._is_open = False

    def _attempt(self, act: Callable[[], Any]) -> None:
        if not self._is_open:
            return
        try:
            act()
        except Exception as error:  # of any kind, by the tracker: no reason to lose the work
            self._is_open = False
            _log.warning(
                "%s takes no more numbers (%s: %s): the work goes on without it.",
                self.target,
                type(error).__name__,
                error,
            )

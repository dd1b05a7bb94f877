"""Callbacks: what a training or an evaluation reports while it runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from rich.progress import Progress

from pairmatch.core.progress import progress_bar

_log = logging.getLogger(__name__)


class Callback:
    """Receives what `Trainer`, `Finetuner`, `Matcher`, `cross_validate` and `sweep` report.

    Derive from it and write the methods that you need; the others do nothing. They are called in
    the thread of the work, which waits for them. An exception ends the work, and has a note with
    the name of the callback; in `on_end`, where nothing is left to end, it becomes a warning. A
    callback gets numbers and names of learners, never ids, photos or texts.
    """

    def on_phase(self, name: str) -> None:
        """Called before each part of a work that trains more than once.

        That is `Matcher.finetune`: `finetune hf-text` for each backbone that is tuned (`finetune
        hf-text 2` for a second one of the same name), and then `fit` for the learner. Other work
        has one part, and does not call it.

        Args:
            name: Name of the part whose epochs follow.
        """

    def on_epoch(self, row: Mapping[str, float], epochs: int) -> None:
        """Called after every epoch of a training.

        A fine-tuning that resumes from a checkpoint first reports the epochs before it, so that
        the curve is complete.

        Args:
            row: `epoch` from 1, `train_loss` (mean per pair), and `validation_mrr` in [0, 1] if
                there are validation pairs.
            epochs: Maximum number of epochs; a training may stop earlier.
        """

    def on_evaluation(self, name: str, metrics: Mapping[str, float]) -> None:
        """Called after every evaluation.

        Args:
            name: What was evaluated: `test` by `Matcher.evaluate`, the label of a learner by
                `cross_validate` and `sweep`.
            metrics: `mrr`, `recall_at_10` and others by name; shares are in [0, 1], and
                `median_rank` counts from 1.
        """

    def on_end(self) -> None:
        """Called when the work that reported has ended, after an error, too.

        That is once per `Trainer.fit`, `Finetuner.fit`, `Matcher.evaluate`, `cross_validate` and
        `sweep`; a matcher that is fitted and evaluated reports two ends.
        """


class Callbacks(Callback):
    """Several callbacks as one. At the end of a `with` block, it reports the end.

    Args:
        callbacks: Called in this order.
    """

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self._callbacks = tuple(callbacks)

    def __enter__(self) -> Callbacks:
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Reports the end, after an error, too."""
        self.on_end()

    def on_phase(self, name: str) -> None:
        """Calls each."""
        self._call("on_phase", lambda callback: callback.on_phase(name))

    def on_epoch(self, row: Mapping[str, float], epochs: int) -> None:
        """Calls each with a copy of the row."""
        self._call("on_epoch", lambda callback: callback.on_epoch(dict(row), epochs))

    def on_evaluation(self, name: str, metrics: Mapping[str, float]) -> None:
        """Calls each with a copy of the metrics."""
        self._call("on_evaluation", lambda callback: callback.on_evaluation(name, dict(metrics)))

    def on_end(self) -> None:
        """Calls each, even if an earlier one fails: the result of the work is not lost."""
        for callback in self._callbacks:
            try:
                callback.on_end()
            except Exception as error:
                _log.warning(
                    "The callback %s failed at the end of the work (%s: %s).",
                    type(callback).__name__,
                    type(error).__name__,
                    error,
                )

    def _call(self, method: str, call: Callable[[Callback], None]) -> None:
        for callback in self._callbacks:
            try:
                call(callback)
            except Exception as error:
                error.add_note(f"Raised by the callback {type(callback).__name__}, in {method}.")
                raise


class ProgressBar(Callback):
    """A progress bar over the epochs of a training, on standard error; it vanishes at the end."""

    _bar: Progress | None = None

    def on_epoch(self, row: Mapping[str, float], epochs: int) -> None:
        """Advances the bar; it appears with the first epoch."""
        if self._bar is None:
            self._bar = progress_bar(True, transient=True)
            self._bar.start()
            self._bar.add_task("Training")
        self._bar.update(self._bar.task_ids[0], completed=row["epoch"], total=epochs)

    def on_end(self) -> None:
        """Removes the bar; the next training gets a new one."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

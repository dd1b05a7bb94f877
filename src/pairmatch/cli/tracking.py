"""The option `--track` of commands that fit: records the run in an experiment tracker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pairmatch.data.splits import SplitPairs
    from pairmatch.finetuning.config import FinetuneConfig
    from pairmatch.matcher.matcher import Matcher

Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="TRACKER[:LOCATION]",
        help="Record parameters and metrics in mlflow, wandb (offline, or wandb:online) or "
        "tensorboard; repeatable.",
        show_default=False,
    ),
]


@contextmanager
def tracked(
    targets: Sequence[str] | None,
    matcher: Matcher,
    parts: SplitPairs,
    finetune: FinetuneConfig | None = None,
) -> Iterator[None]:
    """Has a matcher report to trackers in the block; their runs end with it.

    Args:
        targets: Trackers, as `--track` names them.
        matcher: The matcher, before it is fitted.
        parts: Pairs to train, validate and test on.
        finetune: Hyperparameters of a fine-tuning.

    Raises:
        ConfigurationError: A tracker is unknown, or cannot be used.
    """
    if not targets:
        yield
        return
    from pairmatch.tracking import Tracker, run_parameters

    named = dict(zip(("train", "validation", "test"), parts, strict=True))
    used = {name: part for name, part in named.items() if len(part)}
    parameters = run_parameters(matcher, used, finetune)
    with ExitStack() as runs:
        trackers = [runs.enter_context(Tracker(target, parameters)) for target in targets]
        before = matcher.callbacks
        matcher.callbacks = (*before, *trackers)
        try:
            yield
        finally:
            matcher.callbacks = before

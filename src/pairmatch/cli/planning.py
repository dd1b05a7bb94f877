"""Options of the price before the start: `--plan` of several commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pairmatch.core.errors import ConfigurationError

if TYPE_CHECKING:
    from pairmatch.matcher.work import WorkPlan

PlanOnly = Annotated[
    bool,
    typer.Option(
        "--plan",
        help="Say what is new, how long it takes and what it costs, and stop; needs no network.",
    ),
]
GPUs = Annotated[
    int,
    typer.Option("--gpus", min=1, help="Number of devices that share the work; for --plan."),
]
USDPerHour = Annotated[
    float | None,
    typer.Option(
        "--usd-per-hour", min=0, help="Price of a device, in US dollars per hour; for --plan."
    ),
]
Accelerator = Annotated[
    str | None,
    typer.Option(
        "--accelerator",
        metavar="NAME|TFLOPS",
        help="Device to plan for: H100, A100, L4, T4, or its peak in TFLOP/s.",
        show_default="this machine",
    ),
]


def check_plan(
    plan_only: bool,
    gpus: int = 1,
    usd_per_hour: float | None = None,
    accelerator: str | None = None,
) -> None:
    """Refuses options of a plan without `--plan`, and an unknown accelerator.

    Raises:
        ConfigurationError: Names the options.
    """
    if not plan_only and (gpus != 1 or usd_per_hour is not None or accelerator is not None):
        raise ConfigurationError(
            "--gpus, --usd-per-hour and --accelerator describe a plan: add --plan."
        )
    if accelerator is not None:
        from pairmatch.features.rates import accelerator_rate

        accelerator_rate(accelerator)


def check_output(output: object, plan_only: bool) -> None:
    """Requires `--output`, which only a plan does not need."""
    if output is None and not plan_only:
        raise typer.BadParameter("--output is needed, except with --plan.")


def write_plan(path: Path | None, plan: WorkPlan) -> None:
    """Writes a plan as JSON."""
    from pairmatch.io.replacing import replace_file

    if path is not None:
        content = json.dumps({"plan": plan.to_dict()}, indent=2) + "\n"
        replace_file(path, content.encode(), private=True)

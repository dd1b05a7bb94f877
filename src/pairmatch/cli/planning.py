"""Options of the price before the start: `--plan` of several commands."""

from __future__ import annotations

from typing import Annotated

import typer

from pairmatch.core.errors import ConfigurationError

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
    values = {"--gpus": gpus != 1, "--usd-per-hour": usd_per_hour, "--accelerator": accelerator}
    given = [option for option, value in values.items() if value not in (None, False)]
    if given and not plan_only:
        raise ConfigurationError(f"{', '.join(given)}: only for a plan; add --plan.")
    if accelerator is not None:
        from pairmatch.features.rates import accelerator_rate

        accelerator_rate(accelerator)


def check_output(output: object, plan_only: bool) -> None:
    """Requires `--output`, which only a plan does not need."""
    if output is None and not plan_only:
        raise typer.BadParameter("--output is needed, except with --plan.")

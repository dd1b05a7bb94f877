"""Checks of generator options that report all problems at once."""

from __future__ import annotations

from collections.abc import Sequence

from pairmatch.core.errors import ConfigurationError


def below_minimum(minimum: float, **options: float | None) -> list[str]:
    """Problems of the options that are below the minimum; None is allowed."""
    return [
        f"{name} must be at least {minimum}, got {value}"
        for name, value in options.items()
        if value is not None and value < minimum
    ]


def raise_problems(owner: object, problems: Sequence[str]) -> None:
    """Raises a `ConfigurationError` that names the class and all problems, if there are any."""
    if problems:
        raise ConfigurationError(f"`{type(owner).__name__}(...)`: {'; '.join(problems)}.")

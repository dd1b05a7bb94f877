"""Presets: named sets of arguments for a matcher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pairmatch.core.errors import ConfigurationError, unknown_name

#: Arguments of `Matcher` by preset. `paper` is the published recipe; `best` joins several learners;
#: `robust` is its earlier name.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "best": {"learner": "best"},
    "robust": {"learner": "robust"},
}


def preset_arguments(name: str) -> dict[str, Any]:
    """Arguments of `Matcher` that a preset stands for.

    Raises:
        ConfigurationError: The preset is unknown.
    """
    if name not in PRESETS:
        raise ConfigurationError(unknown_name("preset", name, PRESETS))
    return dict(PRESETS[name])

"""Grids: combinations of parts and options that a sweep compares."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pairmatch.core import registry
from pairmatch.core.config import PartSpec, TrainingConfig, list_of_parts, parse_spec
from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.features.prompt import leave_out

RECIPE_LABEL = "recipe"
#: Parts whose options can be axes, and the part that such an axis configures if none is named.
_DEFAULTS = {
    "backbone": "qwen3-vl-2b",
    "pooler": None,
    "metadata": None,
    "head": "mlp",
    "loss": "infonce",
    "learner": "contrastive",
    "reranker": None,
}


@dataclass(frozen=True, slots=True)
class Combination:
    """One point of a grid.

    Attributes:
        label: Its values of the axes, as text; unique in a sweep.
        arguments: Arguments of its `Matcher`.
    """

    label: str
    arguments: Mapping[str, Any]


def grid(base: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> list[Combination]:
    """All combinations of the values of some axes.

    Args:
        base: Arguments of `Matcher` that all combinations share.
        axes: Values to try, by `backbone`, `pooler`, `metadata`, `head`, `loss`, `learner`,
            `reranker` (names, or names with options), `part.option` (`head.width`,
            `loss.temperature`, `training.epochs`, `pooler.layer`, `backbone.max_pixels`), or
            another argument of `Matcher` (`prompt`). The axis `without` leaves metadata fields out
            of the prompt: a field, a tuple of them, or None to keep all; it generates no new
            metadata.

    Raises:
        ConfigurationError: An axis has no values, or sets an option of a part that is an instance.
    """
    empty = [axis for axis, values in axes.items() if not values]
    if empty:
        raise ConfigurationError(f"The axes {', '.join(empty)} have no values to try.")
    # Parts come before their options, and `without` changes the prompt that another axis may set
    order = sorted(axes, key=lambda axis: ("." in axis, axis == "without"))
    combinations = []
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        arguments = dict(base)
        for axis in order:
            _apply(arguments, axis, chosen[axis])
        label = ", ".join(_label(axis, value) for axis, value in chosen.items())
        combinations.append(Combination(label or RECIPE_LABEL, arguments))
    return combinations


def parse_part(spec: PartSpec) -> tuple[str, dict[str, Any]]:
    """Name and options of a part; an empty name for None.

    Raises:
        ConfigurationError: The part is an instance.
    """
    parsed = ("", {}) if spec is None else parse_spec(spec)
    if parsed is None:
        raise ConfigurationError(f"A sweep takes parts by name, not as instances: {spec!r}.")
    return parsed


def _apply(arguments: dict[str, Any], axis: str, value: Any) -> None:
    """Sets one axis in the arguments of a matcher."""
    if axis == "without":
        fields = [value] if isinstance(value, str) else value or ()
        arguments["prompt"] = leave_out(_prompt_of(arguments), fields)
        return
    part, dot, option = axis.partition(".")
    arguments[part] = _with_option(part, arguments.get(part), option, value) if dot else value


def _prompt_of(arguments: Mapping[str, Any]) -> str | None:
    """The template of a matcher: by default that of the first of its backbones that has one."""
    if arguments.get("prompt") is not None:
        return str(arguments["prompt"])
    specs = list_of_parts(arguments.get("backbone", _DEFAULTS["backbone"]))
    parts: list[Any] = [registry.load("backbones", parse_part(spec)[0]) for spec in specs]
    return next((part.default_prompt for part in parts if part.default_prompt), None)


def _with_option(part: str, spec: Any, option: str, value: Any) -> Any:
    """The part, or each of several backbones or poolers, with one more option."""
    if part == "training":
        fields = asdict(spec) if isinstance(spec, TrainingConfig) else spec or {}
        return {**fields, option: value}
    if part not in _DEFAULTS:
        raise ConfigurationError(unknown_name("part in a sweep", part, [*_DEFAULTS, "training"]))
    if spec is None:
        spec = _DEFAULTS[part]
    if spec is None:
        raise ConfigurationError(f"`{part}.{option}` needs `{part}` to be named.")
    parts = []
    for part_spec in list_of_parts(spec):
        name, options = parse_part(part_spec)
        parts.append((name, {**options, option: value}))
    return parts if part in ("backbone", "pooler") else parts[0]


def _label(axis: str, value: Any) -> str:
    if axis == "without":
        fields = [value] if isinstance(value, str) else value or ()
        return f"without {', '.join(fields)}" if fields else "with every attribute"
    return f"{axis} {_value_text(value)}"


def _value_text(value: Any) -> str:
    """A value in a label: `mlp (width=256)` for a part with options, `clip + onnx` for a list."""
    if isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[1], Mapping):
        options = ", ".join(f"{name}={option}" for name, option in value[1].items())
        return f"{value[0]} ({options})" if options else str(value[0])
    if isinstance(value, list):
        return " + ".join(map(_value_text, value))
    return "none" if value is None else str(value)

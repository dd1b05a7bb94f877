"""Builds the matchers of a sweep's combinations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pairmatch.core import registry
from pairmatch.core.config import list_of_parts
from pairmatch.core.errors import ConfigurationError, PairmatchError
from pairmatch.core.interfaces import Backbone
from pairmatch.core.types import Profile
from pairmatch.experiments.grid import Combination, parse_part
from pairmatch.io.store import Store, content_key
from pairmatch.matcher.matcher import Matcher


def build_matchers(
    combinations: Sequence[Combination],
    seed: int,
    shared: Mapping[str, Any],
    people: Sequence[Profile],
) -> list[Matcher]:
    """One matcher per combination; equal backbones share an instance with all poolers' layers.

    Args:
        combinations: Combinations with distinct labels, at least one.
        seed: Seed of every matcher.
        shared: Arguments of every matcher; they override those of the combinations.
        people: All people of the sweep: backbones that learn do so from them, without the pairs.

    Raises:
        ConfigurationError: Names all combinations that cannot be built.
    """
    if not combinations:
        raise ConfigurationError("A sweep needs at least one combination.")
    labels = [combination.label for combination in combinations]
    problems = [
        f"{label}: the label is used twice"
        for label in dict.fromkeys(labels)
        if labels.count(label) > 1
    ]
    store = shared.get("store")
    shared = {**shared, "store": store if isinstance(store, Store) else Store(store), "seed": seed}
    layers = _layers(combinations)
    backbones: dict[str, Backbone] = {}
    matchers = []
    for combination in combinations:
        arguments = {**combination.arguments, **shared}
        try:
            specs = list_of_parts(arguments.get("backbone", "qwen3-vl-2b"))
            device = arguments.get("device", "auto")
            arguments["backbone"] = [
                _shared_backbone(backbones, spec, layers, device) for spec in specs
            ]
            matcher = Matcher(**arguments)
            matcher.pipeline = matcher.pipeline.ready(people)
            matchers.append(matcher)
        except (PairmatchError, TypeError) as error:
            problems.append(f"{combination.label}: {error}")
    if problems:
        plural = "" if len(problems) == 1 else "s"
        raise ConfigurationError(
            f"{len(problems)} combination{plural} cannot be built:\n  " + "\n  ".join(problems)
        )
    return matchers


def _layers(combinations: Iterable[Combination]) -> list[int]:
    """Layers that the poolers of all combinations read."""
    layers = set()
    for combination in combinations:
        for spec in list_of_parts(combination.arguments.get("pooler")):
            _, options = parse_part(spec)
            layer = options.get("layer")
            if isinstance(layer, int):  # the pooler rejects other values
                layers.add(layer)
    return sorted(layers)


def _shared_backbone(
    backbones: dict[str, Backbone], spec: Any, layers: Sequence[int], device: str
) -> Backbone:
    """The backbone of a spec, from `backbones` if an earlier combination named it."""
    name, options = parse_part(spec)
    if layers and "layers" in registry.options("backbones", name):
        options = {**options, "layers": list(layers)}
    key = content_key({"name": name, "options": options})
    if key not in backbones:
        backbones[key] = registry.create("backbones", (name, options), device=device)
    return backbones[key]

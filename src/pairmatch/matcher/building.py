"""The parts of a matcher, from the specs that name them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pairmatch.core import registry
from pairmatch.core.config import PartSpec, list_of_parts, parse_spec
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import Backbone, MetadataGenerator, Pooler, Reranker
from pairmatch.learning.reranking import create_reranker
from pairmatch.metadata.models import generator_in_service


def build_backbones(
    backbone: PartSpec, pooler: PartSpec, device: str
) -> tuple[list[Backbone], list[Pooler]]:
    """Backbones by their specs, and a pooler for each.

    One backbone with several poolers, and backbones with equal specs, are one instance that stands
    in the list several times: it runs once for all of its poolers.

    Raises:
        PartError: A part is unknown or broken.
        ConfigurationError: An option is invalid, or the number of poolers is wrong.
    """
    specs = list_of_parts(backbone)
    pooler_specs = [None] if pooler is None else list_of_parts(pooler)
    if len(specs) == 1:
        specs = specs * len(pooler_specs)
    if len(pooler_specs) == 1:
        pooler_specs = pooler_specs * len(specs)
    if len(pooler_specs) != len(specs):
        raise ConfigurationError(
            f"`pooler` needs one part, or one per backbone: {len(specs)}, got {len(pooler_specs)}."
        )
    named = [None if spec is None else registry.create("poolers", spec) for spec in pooler_specs]
    keys = [parse_spec(spec) or spec for spec in specs]
    backbones: list[Backbone] = []
    for key in keys:
        first = keys.index(key)
        if first < len(backbones):
            backbones.append(backbones[first])
            continue
        readers = [pooler for other, pooler in zip(keys, named, strict=True) if other == key]
        backbones.append(registry.create("backbones", _with_layers(key, readers), device=device))
    poolers = [
        registry.create("poolers", part.default_pooler) if given is None else given
        for part, given in zip(backbones, named, strict=True)
    ]
    kinds = [
        (id(part), pooler.fingerprint()) for part, pooler in zip(backbones, poolers, strict=True)
    ]
    if any(kind in kinds[:place] for place, kind in enumerate(kinds)):
        raise ConfigurationError(
            "`backbone` and `pooler` name the same backbone with the same pooler twice: its "
            "features would only count double. Name it once; `weights` makes it count more."
        )
    return backbones, poolers


def _with_layers(spec: PartSpec, poolers: Sequence[Pooler | None]) -> PartSpec:
    """The spec of a backbone that returns the layers that its poolers read, if it takes layers."""
    layers = [getattr(pooler, "layer", None) for pooler in poolers]
    wanted = {layer for layer in layers if isinstance(layer, int)}  # backbones reject other values
    name, options = parse_spec(spec) or ("", {})
    given = options.get("layers", ())
    if not wanted or not name or not isinstance(given, list | tuple):
        return spec
    if "layers" not in registry.options("backbones", name):
        return spec
    return name, {**options, "layers": sorted({*given, *wanted})}


def default_generator(backbones: Iterable[Backbone | type[Backbone]]) -> PartSpec:
    """The metadata generator of the first backbone that has a default one; None if none has."""
    names = [part.default_metadata for part in backbones if part.default_metadata]
    return generator_in_service(names[0]) if names else None


def build_metadata(
    spec: PartSpec, backbones: Sequence[Backbone], device: str
) -> MetadataGenerator | None:
    """The metadata generator by its spec; by default that of the first backbone that has one.

    Args:
        spec: A part; `"auto"` for the default, None or `"none"` for none.
        backbones: Frozen models.
        device: Device of a generator that runs on this machine.

    Raises:
        PartError: The part is unknown or broken.
        ConfigurationError: An option is invalid.
    """
    if spec == "auto":
        spec = default_generator(backbones)
    return None if spec in (None, "none") else registry.create("metadata", spec, device=device)


def build_reranker(spec: PartSpec, device: str) -> Reranker | None:
    """The re-ranker by its spec, not fitted; None or `"none"` for none.

    Raises:
        PartError: The part is unknown or broken.
        ConfigurationError: An option is invalid.
    """
    return None if spec in (None, "none") else create_reranker(spec, device)


def check_weights(weights: Sequence[float] | None, backbones: int) -> list[float] | None:
    """The weights as floats.

    Raises:
        ConfigurationError: `weights` is not one positive number per backbone.
    """
    if weights is None:
        return None
    if len(weights) != backbones or min(weights) <= 0:
        raise ConfigurationError(
            f"`weights` needs one positive number per backbone ({backbones}), got {weights}."
        )
    return [float(weight) for weight in weights]

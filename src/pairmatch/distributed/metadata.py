"""Metadata generators on the nodes of a Ray cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import MetadataGenerator, OnOutcome
from pairmatch.core.types import Profile, Refusal
from pairmatch.distributed.engine import RayEngine
from pairmatch.distributed.parts import PartRecipe, sent_images
from pairmatch.distributed.workers import MetadataWorker

_PEOPLE = 16  # per task


class RayMetadata(MetadataGenerator):
    """A generator that works on the nodes of a cluster; its outcomes have the same keys.

    Args:
        generator: A generator that needs no other machine.
        engine: The cluster.

    Raises:
        ConfigurationError: The generator sends photos to a server, which sets the pace.
    """

    def __init__(self, generator: MetadataGenerator, engine: RayEngine) -> None:
        if generator.sends_photos:
            raise ConfigurationError(
                f"{type(generator).__name__} sends photos to a server, whose limits set the pace: "
                "it needs no cluster. Omit --engine, or choose a generator that runs on the nodes: "
                "qwen3-vl or measured."
            )
        self.generator = generator
        self.engine = engine
        self.schema = generator.schema

    def generate(
        self,
        profiles: Sequence[Profile],
        on_outcome: OnOutcome | None = None,
        *,
        max_usd: float | None = None,
    ) -> list[BaseModel | Refusal]:
        """Generates metadata, one outcome per profile, in order.

        Raises:
            ClusterError: The cluster has no room for a worker, or a node has other versions.
        """
        tasks = [profiles[start : start + _PEOPLE] for start in range(0, len(profiles), _PEOPLE)]
        outcomes: list[BaseModel | Refusal] = [Refusal("stopped", "not generated")] * len(profiles)
        recipe = PartRecipe.of(self.generator)
        pool = self.engine.pool(
            MetadataWorker,
            (recipe, dict(self.fingerprint())),
            uses_accelerator=recipe.uses_accelerator,
        )
        for number, answers in pool.map(tasks, _sent_profiles):
            stop = False
            for position, value, usage in answers:
                index = number * _PEOPLE + position
                is_refusal = isinstance(value, Refusal)
                outcomes[index] = value if is_refusal else self.schema.model_validate(value)
                if on_outcome is not None:
                    stop = bool(on_outcome(index, outcomes[index], usage)) or stop
            if stop:
                break
        return outcomes

    def fingerprint(self) -> Mapping[str, Any]:
        """That of the generator."""
        return self.generator.fingerprint()


def _sent_profiles(profiles: Sequence[Profile]) -> list[Profile]:
    return [dataclasses.replace(one, images=sent_images(one.images)) for one in profiles]

"""Features that pass through memory only: nothing is read from a store or written to one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pairmatch.core.arrays import Vectors
from pairmatch.core.errors import DataError
from pairmatch.core.interfaces import Backbone, Pooler
from pairmatch.core.types import Profile
from pairmatch.features.engines import pooled_vectors
from pairmatch.features.inputs import build_items
from pairmatch.io.store import QUERY_ID


def fresh_features(
    profiles: Sequence[Profile],
    backbone: Backbone,
    poolers: Sequence[Pooler],
    *,
    prompt: str | None = None,
    prompt_attributes: Sequence[str] = (),
    dtype: str = "float32",
) -> list[Vectors]:
    """Features of a few people from one pass of a backbone: one [N, D] float32 array per pooler.

    `FeatureStore.extract` is for everyone else: it looks features up, and runs many people in
    batches that fit into memory.

    Args:
        profiles: N people.
        backbone: Frozen model.
        poolers: Each reduces its states to one vector per person.
        prompt: Template of the text that the backbone reads; None for the backbone's own.
        prompt_attributes: Names of the profile attributes that enter the prompt.
        dtype: Number format to which values are rounded, that of the matcher's store.

    Raises:
        DataError: A person has nothing that the backbone reads.
        ImageError: A photo cannot be decoded.
        BackboneError: The backbone returns the wrong shape, or values that are not finite.
    """
    items = build_items(profiles, backbone, prompt, prompt_attributes)
    kinds = " or ".join(["photos"] * backbone.reads_images + ["text"] * backbone.reads_text)
    name = type(backbone).__name__
    people = ["the query person" if one.id == QUERY_ID else one.id for one in profiles]
    for person, item in zip(people, items, strict=True):
        if not (item.images or item.text or backbone.reads_attributes):
            raise DataError(f"{person}: has nothing that {name} reads ({kinds}).")
    with torch.inference_mode():
        prepared = backbone.prepare(items)
    vectors = pooled_vectors(backbone, poolers, dtype, prepared, people)
    return [part.astype(np.float32) for part in vectors]

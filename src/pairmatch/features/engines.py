"""One batch through a backbone, in this process or in those of an engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from pairmatch.core.errors import BackboneError, PairmatchError
from pairmatch.core.interfaces import Backbone, Pooler
from pairmatch.core.types import Item


@dataclass(frozen=True, slots=True, eq=False)
class Extracted:
    """Result of one batch on an engine.

    Attributes:
        vectors: One [n, D] array per pooler, for the people of the batch without a problem.
        problems: Why photos cannot be read, by position in the batch.
        truncated: Number of people whose text was longer than the backbone reads.
    """

    vectors: list[npt.NDArray[np.floating]]
    problems: dict[int, str] = field(default_factory=dict)
    truncated: int = 0


class ExtractionEngine(Protocol):
    """Runs a backbone elsewhere than in this process."""

    def extract(
        self,
        backbone: Backbone,
        poolers: Sequence[Pooler],
        dtype: str,
        batches: Sequence[Sequence[Item]],
    ) -> Iterator[tuple[int, Extracted]]:
        """Yields the number and the result of every batch once, in any order."""
        ...


def pooled_vectors(
    backbone: Backbone,
    poolers: Sequence[Pooler],
    dtype: str,
    prepared: Any,
    names: Sequence[str],
) -> list[npt.NDArray[np.floating]]:
    """Runs the model on a prepared batch; one [B, D] array of `dtype` per pooler.

    Raises:
        BackboneError: The output has the wrong shape, or values that are not finite.
    """
    part = type(backbone).__name__
    with torch.inference_mode():
        states = backbone.forward(prepared)
        pooled = [pooler.pool(states).float().cpu().numpy() for pooler in poolers]
    stored = [vectors.astype(dtype) for vectors in pooled]
    for vectors in stored:
        if vectors.ndim != 2 or len(vectors) != len(names):
            raise BackboneError(
                f"{part} returned vectors of shape {list(vectors.shape)} for {len(names)} people."
            )
        invalid = [
            name for name, row in zip(names, vectors, strict=True) if not np.isfinite(row).all()
        ]
        if invalid:
            raise BackboneError(
                f"{part} returned values that are not finite in {dtype} for "
                f"{', '.join(invalid[:5])}{' and others' if len(invalid) > 5 else ''}: "
                "try dtype='float32'."
            )
    return stored


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out.

    Accelerators raise their own class, torch on the CPU raises a RuntimeError, numpy and
    Pillow raise a MemoryError.
    """
    if isinstance(error, PairmatchError):
        return False
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    return "can't allocate memory" in message or "out of memory" in message

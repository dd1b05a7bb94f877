"""`SecondStage`: a re-ranker with what it needs to know of the head whose candidates it orders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pairmatch.core.arrays import Ints, Vectors
from pairmatch.core.candidates import CandidatePairs
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import Reranker
from pairmatch.core.types import Side

_FIELDS = {
    "weights": (2, "K", "R"),
    "offsets": (2, "R"),
    "means": (2, "K"),
    "axes": (2, "K", "S"),
    "residuals": (2,),
}


@dataclass(frozen=True, slots=True, eq=False)
class Traits:
    """What embeddings of one head tell of people, in numbers that do not depend on its axes.

    The first index of every array is the side: 0 for people of side a (of queries, in one-sided
    sets), 1 for the others. Nothing here tells of a person.

    Attributes:
        weights: [2, K, R] float32: the traits of a person are `embedding @ weights + offsets`.
        offsets: [2, R] float32.
        means: [2, K] float32 mean embedding of the training people of a side.
        axes: [2, K, S] float32 leading axes of their covariance, each as long as its standard
            deviation.
        residuals: [2] float32 variance in each other direction.
    """

    weights: Vectors
    offsets: Vectors
    means: Vectors
    axes: Vectors
    residuals: Vectors

    @property
    def width(self) -> int:
        """Width K of the embeddings."""
        return int(self.means.shape[1])

    def of(self, embeddings: Vectors, side: int) -> Vectors:
        """[N, R] float32 traits of people by their [N, K] embeddings."""
        return embeddings @ self.weights[side] + self.offsets[side]

    def hubness(self, embeddings: Vectors, side: int) -> Vectors:
        """[M, 2] mean and standard deviation of the scores of candidates with people of a side.

        The standard deviation follows from the leading axes of the covariance; all other directions
        count equally.
        """
        along = embeddings @ self.axes[side]
        lengths = np.maximum(np.linalg.norm(self.axes[side], axis=0), 1e-30)
        rest = (embeddings**2).sum(1) - ((along / lengths) ** 2).sum(1)
        variance = (along**2).sum(1) + self.residuals[side] * np.maximum(rest, 0)
        mean = embeddings @ self.means[side]
        return np.stack([mean, np.sqrt(variance)], axis=1).astype(np.float32)

    def state(self) -> dict[str, Tensor]:
        """The arrays as tensors."""
        return {name: torch.from_numpy(getattr(self, name)) for name in _FIELDS}

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> Traits:
        """What `state` returned.

        Raises:
            ConfigurationError: A tensor is missing, or has another shape.
        """
        problems = [f"{name} is missing" for name in _FIELDS if name not in state]
        sizes: dict[str, int] = {}
        for name, letters in () if problems else _FIELDS.items():
            shape = tuple(state[name].shape)
            fits = len(shape) == len(letters) and all(
                size == (letter if isinstance(letter, int) else sizes.setdefault(letter, size))
                for size, letter in zip(shape, letters, strict=True)
            )
            problems += [] if fits else [f"{name} has shape {list(shape)}"]
        if problems:
            raise ConfigurationError(f"The state of the second stage is: {'; '.join(problems)}.")
        return cls(**{name: state[name].float().numpy().copy() for name in _FIELDS})


@dataclass(frozen=True, slots=True, eq=False)
class SecondStage:
    """A re-ranker, and the traits of people that the head of the first stage tells.

    Attributes:
        reranker: Orders the best candidates.
        traits: Of the head.
    """

    reranker: Reranker
    traits: Traits

    @property
    def top(self) -> int:
        """Number of candidates of each query that are ordered again."""
        return self.reranker.top

    @property
    def needs_profiles(self) -> bool:
        """Whether the re-ranker reads profiles."""
        return self.reranker.needs_profiles

    def pairs(
        self, side: Side, queries: Vectors, candidates: Vectors, rows: Ints, scores: Vectors
    ) -> CandidatePairs:
        """What the re-ranker reads, without profiles.

        Args:
            side: Side of the query people.
            queries: [Q, K] float32 embeddings.
            candidates: [M, K] float32 embeddings.
            rows: [P, 2] int64 rows of both.
            scores: [P] float32.

        Raises:
            ConfigurationError: The embeddings are those of another head.
        """
        if candidates.shape[1] != self.traits.width:
            raise ConfigurationError(
                f"This second stage was fitted on embeddings {self.traits.width} wide, and these "
                f"are {candidates.shape[1]} wide: fit it with the head that it serves."
            )
        asking = int(side == "b")
        return CandidatePairs(
            side,
            self.traits.of(queries, asking),
            self.traits.of(candidates, 1 - asking),
            self.traits.hubness(candidates, asking),
            rows,
            scores,
        )

    def score(self, pairs: CandidatePairs) -> npt.NDArray[np.float64]:
        """[P] float64 scores of the re-ranker.

        Raises:
            ConfigurationError: It returned another shape, or values that are not finite.
        """
        if not len(pairs):
            return np.empty(0)
        result: Any = self.reranker.score(pairs)
        scores = np.asarray(result, np.float64)
        if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
            raise ConfigurationError(
                f"`{type(self.reranker).__name__}.score` must return one finite number per pair, "
                f"[{len(pairs)}], got shape {list(scores.shape)}."
            )
        return scores

    def state(self) -> dict[str, Tensor]:
        """What was learned, by names that begin with `traits.` and `reranker.`."""
        parts = {"traits": self.traits.state(), "reranker": self.reranker.state()}
        return {f"{part}.{name}": value for part in parts for name, value in parts[part].items()}

    @classmethod
    def restored(cls, reranker: Reranker, state: Mapping[str, Tensor]) -> SecondStage:
        """The second stage of a re-ranker with the same options, from what `state` returned.

        Raises:
            ConfigurationError: Tensors are missing, unknown, or have another shape.
        """
        parts: dict[str, dict[str, Tensor]] = {"traits": {}, "reranker": {}}
        for name, value in state.items():
            part, _, rest = name.partition(".")
            if part not in parts:
                raise ConfigurationError(f"The state of the second stage has no {name!r}.")
            parts[part][rest] = value
        traits = Traits.of_state(parts["traits"])
        return cls(reranker.with_state(parts["reranker"]), traits)

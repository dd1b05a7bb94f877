"""`SecondStage`: a re-ranker with what it needs to know of the head whose candidates it orders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pairmatch.core import registry
from pairmatch.core.arrays import Ints, Vectors
from pairmatch.core.candidates import CandidatePairs
from pairmatch.core.errors import ConfigurationError, PairmatchError, PartError
from pairmatch.core.interfaces import Reranker
from pairmatch.core.text import error_words
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
            if not state[name].is_floating_point():
                problems.append(f"{name} has the type {state[name].dtype}")
        if not problems and (state["residuals"] < 0).any():
            problems.append("residuals, which are variances, are negative")
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
            PartError: It failed.
        """
        if not len(pairs):
            return np.empty(0)
        with _explained(self.reranker, "score"):
            scores = np.asarray(self.reranker.score(pairs), np.float64)
        wrong = f"shape {list(scores.shape)}" if scores.shape != (len(pairs),) else ""
        if not wrong and not np.isfinite(scores).all():
            wrong = f"{int((~np.isfinite(scores)).sum())} values that are not finite"
        if wrong:
            raise ConfigurationError(
                f"{_named(self.reranker)} must return one finite number per pair from `score`, "
                f"[{len(pairs)}], got {wrong}."
            )
        return scores

    def state(self) -> dict[str, Tensor]:
        """What was learned, by names that begin with `traits.` and `reranker.`.

        Raises:
            PartError: The state of the re-ranker is not a mapping of tensors.
        """
        with _explained(self.reranker, "state"):
            learned = dict(self.reranker.state())
        if not all(isinstance(value, Tensor) for value in learned.values()):
            raise PartError(
                f"{_named(self.reranker)} must return tensors from `state`: nothing else is saved."
            )
        parts = {"traits": self.traits.state(), "reranker": learned}
        return {f"{part}.{name}": value for part in parts for name, value in parts[part].items()}

    @classmethod
    def restored(
        cls, reranker: Reranker, state: Mapping[str, Tensor], *, width: int
    ) -> SecondStage:
        """The second stage of a re-ranker with the same options, from what `state` returned.

        A re-ranker that reads traits scores a pair of zeros, so that tensors that do not fit each
        other are found here and not by the first person who is served.

        Args:
            reranker: Re-ranker that has not learned.
            state: What was learned.
            width: Width of the embeddings of the head.

        Raises:
            ConfigurationError: Tensors are missing, unknown, or have another shape.
            PartError: The re-ranker fails with this state.
        """
        parts: dict[str, dict[str, Tensor]] = {"traits": {}, "reranker": {}}
        for name, value in state.items():
            part, _, rest = name.partition(".")
            if part not in parts:
                raise ConfigurationError(f"The state of the second stage has no {name!r}.")
            parts[part][rest] = value
        traits = Traits.of_state(parts["traits"])
        with _explained(reranker, "with_state"):
            second = cls(reranker.with_state(parts["reranker"]), traits)
        zero = np.zeros((1, width), np.float32)
        pairs = second.pairs("a", zero, zero, np.zeros((1, 2), np.int64), zero[:, 0])
        if not second.needs_profiles:
            second.score(pairs)
        return second


def fit_reranker(reranker: Reranker, train: Sequence[CandidatePairs], *, seed: int = 0) -> Reranker:
    """A re-ranker that has learned from lists of candidates.

    Raises:
        PartError: It failed, or `fit` did not return a re-ranker.
    """
    with _explained(reranker, "fit"):
        fitted: Any = reranker.fit(train, seed=seed)
    if not isinstance(fitted, Reranker):
        raise PartError(f"{_named(reranker)} must return a re-ranker from `fit`, got {fitted!r}.")
    return fitted


@contextmanager
def _explained(reranker: Reranker, method: str) -> Iterator[None]:
    """Names the re-ranker in errors that it did not raise on purpose."""
    try:
        yield
    except PairmatchError:
        raise
    except Exception as error:
        raise PartError(f"{_named(reranker)} failed in `{method}`: {error_words(error)}") from error


def _named(reranker: Reranker) -> str:
    return f"The re-ranker {registry.label('rerankers', reranker)}"

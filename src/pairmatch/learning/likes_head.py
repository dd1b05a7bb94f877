"""The head of the learner `likes`: log odds of both sides as inner products of unit vectors."""

from __future__ import annotations

import copy
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pairmatch.core.arrays import Floats, Vectors
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.types import Side, Target
from pairmatch.learning.closed_form_heads import unit
from pairmatch.learning.heads import check_positive


class LikesHead(ProjectionHead):
    """What each side wants: two blocks of coordinates, one for the yes of side a and one for b's.

    Within a block, the inner product of a person of side a and one of side b is the log odds of
    that side's yes. Each block is extended by one coordinate per side so that all people have the
    same length (Bachrach et al. 2014, "Speeding Up the Xbox Recommender System Using a Euclidean
    Transformation for Inner-Product Spaces"): scaling to unit length then changes no order, and the
    score is exactly the weighted sum of both log odds, times a constant. Made by the learner
    `likes`.

    Args:
        dim: Width D of the features.
        rank: Number R of coordinates per block; the output has width 2 (R + 2).
    """

    trainable: ClassVar[bool] = False
    maps: Tensor
    bias: Tensor
    longest: Tensor
    weights: Tensor

    def __init__(self, *, dim: int, rank: int) -> None:
        super().__init__()
        check_positive("LikesHead", dim=dim, rank=rank)
        self.dim = dim
        self.rank = rank
        self.width = 2 * (rank + 2)
        self.register_buffer("maps", torch.eye(dim, rank).repeat(2, 1, 2))  # side, D, block × R
        self.register_buffer("bias", torch.zeros(2, 2 * rank))
        self.register_buffer("longest", torch.ones(2, 2))  # side, block
        self.register_buffer("weights", torch.ones(2))

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Projects [B, D] to [B, 2 (R + 2)], all rows equally long.

        A person whose vector is longer than twice the longest of the training people is shortened
        to that length.
        """
        row = int(side == "b")
        z = (unit(h) @ self.maps[row] + self.bias[row]).view(len(h), 2, self.rank)
        z = z / self.longest[row][:, None]
        z = z / z.norm(dim=2, keepdim=True).clamp_min(1)
        rest = (1 - z.square().sum(2, keepdim=True)).clamp_min(0).sqrt()
        none = torch.zeros_like(rest)
        z = torch.cat([z, rest, none] if side == "a" else [z, none, rest], dim=2)
        return (z * self._scales().sqrt()[:, None]).flatten(1)

    def for_target(self, target: Target) -> LikesHead:
        """The head whose score is the log odds of one side's yes, or of a match."""
        if target == "match":
            return self
        head = copy.deepcopy(self)
        head.weights = torch.tensor([1.0, 0.0] if target == "a_likes" else [0.0, 1.0])
        return head

    def side_vectors(self, embeddings: Floats, side: Side) -> Vectors:
        """Vectors whose inner products are the log odds that the people of one side say yes.

        For [`reciprocal_top_k`][pairmatch.market.reciprocal.reciprocal_top_k]; the probability is
        `scipy.special.expit` of the inner product.

        Args:
            embeddings: [N, K] embeddings that this head made, of people of either side.
            side: Side whose yes is meant.

        Returns:
            [N, R + 2] float32; compare vectors of people of side a with those of side b.

        Raises:
            ConfigurationError: The embeddings have another width, or the head scores only the other
                side's yes.
        """
        block = int(side == "b")
        weight = float(self.weights[block])
        if np.ndim(embeddings) != 2 or np.shape(embeddings)[1] != self.width or not weight:
            raise ConfigurationError(
                f"`LikesHead.side_vectors` takes embeddings [people, {self.width}] of a head that "
                f"scores the yes of side {side}, got shape {list(np.shape(embeddings))}"
                f"{'' if weight else ' of a head for the other side'}."
            )
        columns = slice(block * (self.rank + 2), (block + 1) * (self.rank + 2))
        scale = np.sqrt(float(self._scales().sum()) / weight)
        return (np.asarray(embeddings)[:, columns] * scale).astype(np.float32)

    def _scales(self) -> Tensor:
        """[2] weight of each block, times the factor by which its inner products were divided."""
        return self.weights * self.longest.prod(0)

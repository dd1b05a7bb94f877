"""Learners on products of features: tastes that depend on sizes and combinations, not on signs.

No linear map can express that partners are alike in how strong a trait is, or that one side shows
what two traits of the other amount to. Products of the leading directions of the features can, and
closed-form learners on them cost little.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pairmatch.core.arrays import Vectors, unit_rows
from pairmatch.core.config import PartSpec
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.types import Side
from pairmatch.learning.baselines import CCA, Ridge
from pairmatch.learning.closed_form_heads import fill, unit
from pairmatch.learning.decompositions import Decompositions, MatchedSides
from pairmatch.learning.heads import build_head, check_positive, describe_head

_SHRINKAGE = 0.1  # of the whitening: small, so that products weigh all directions alike


class ProductHead(ProjectionHead):
    """A head on the products of R leading directions of the features, in pairs.

    With y = (x − mean of the side) · basis, the head gets y_i y_j for i ≤ j, minus their mean over
    the people of the side. Made by the learner `best`.

    Args:
        dim: Width D of the features.
        rank: Number R of directions, at most D.
        head: Name and options of the head, for features of width R (R + 1) / 2.
    """

    trainable: ClassVar[bool] = False
    mean: Tensor
    basis: Tensor
    product_mean: Tensor

    def __init__(self, *, dim: int, rank: int, head: PartSpec) -> None:
        super().__init__()
        check_positive("ProductHead", dim=dim, rank=rank)
        if rank > dim:
            raise ConfigurationError(
                f"`ProductHead(rank=...)` must be at most dim ({dim}), got {rank}."
            )
        self.dim = dim
        self.rank = rank
        size = rank * (rank + 1) // 2
        inner = build_head(head, dim=size).requires_grad_(False)
        self.head = head
        self.inner = inner
        self.width = inner.width
        self.register_buffer("mean", torch.zeros(2, dim))
        self.register_buffer("basis", torch.eye(dim, rank))
        self.register_buffer("product_mean", torch.zeros(2, size))

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Projects [B, D] to [B, K]."""
        return self.inner.project(self.products(h, side), side)

    def products(self, h: Tensor, side: Side) -> Tensor:
        """[B, R (R + 1) / 2] centered products of features [B, D]."""
        row = int(side == "b")
        y = (unit(h) - self.mean[row]) @ self.basis
        first, second = torch.triu_indices(self.rank, self.rank, device=y.device)
        return y[:, first] * y[:, second] - self.product_mean[row]


def product_bases(
    decompositions: Decompositions, learners: Mapping[str, tuple[int, CCA | Ridge]]
) -> dict[str, ProjectionHead]:
    """Heads that closed-form learners make on products of features, by label.

    Args:
        decompositions: Of the features and matches.
        learners: By label, the number of directions whose products are used (fewer, if the
            features have fewer), and the learner.
    """
    train = decompositions.train
    people = decompositions.people()
    if not len(people.singular):  # identical people
        return {}
    most = max(rank for rank, _ in learners.values())
    singular = people.singular[::-1][:most]
    count = len(people.coordinates)
    mean_variance = (people.singular**2).sum() / count / min(count, train.dim)
    scales = ((1 - _SHRINKAGE) * singular**2 / count + _SHRINKAGE * mean_variance) ** -0.5
    basis = people.basis[:, ::-1][:, :most] * scales
    solved: dict[int, tuple[ProductHead, MatchedSides]] = {}
    heads: dict[str, ProjectionHead] = {}
    for label, (most, learner) in learners.items():
        rank = min(most, len(singular))
        if rank not in solved:
            mapped = ProductHead(dim=train.dim, rank=rank, head="identity")
            fill(mapped, mean=people.means, basis=basis[:, :rank])
            sides = [_products(mapped, train.a, "a")]
            sides.append(sides[0] if train.b is None else _products(mapped, train.b, "b"))
            fill(mapped, product_mean=np.stack([side.mean(0) for side in sides]))
            centers = [side - side.mean(0) for side in sides]
            features = train.with_features(centers[0], None if train.b is None else centers[1])
            solved[rank] = mapped, MatchedSides.of(features)
        mapped, matched = solved[rank]
        inner = learner.solve(matched)
        head = ProductHead(dim=train.dim, rank=rank, head=describe_head(inner))
        head.inner.load_state_dict(inner.state_dict())
        heads[label] = fill(
            head, mean=mapped.mean, basis=mapped.basis, product_mean=mapped.product_mean
        )
    return heads


def _products(head: ProductHead, features: Vectors, side: Side) -> Vectors:
    """[N, R (R + 1) / 2] float32."""
    with torch.inference_mode():
        return head.products(torch.from_numpy(unit_rows(features)), side).numpy()

"""Stacked generalization: several heads joined by weights that held-out partners decide.

Wolpert 1992; with non-negative weights, Breiman 1996. The embeddings of the heads are scaled by the
square roots of their weights and concatenated, so that the inner product of two embeddings is the
weighted mean of the heads' cosines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, cat, nn

from pairmatch.core.arrays import Vectors
from pairmatch.core.config import PartSpec
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.types import Side
from pairmatch.learning.closed_form_heads import unit
from pairmatch.learning.decompositions import Doubles, leading_svd
from pairmatch.learning.heads import build_head, describe_head

_MOST_PEOPLE = 1000  # of each side, who show which directions matter
LEAST_WIDTH = 3  # one coordinate, and one per side for the length


class StackedHead(ProjectionHead):
    """Several heads side by side: the score is the weighted mean of their cosines.

    Made by the learner `best`; before any fit, all heads weigh the same.

    Args:
        dim: Width D of the features.
        parts: By label, name and options of each head.
        columns: Ranges of columns that the heads read, [first, after the last]; all if empty.
        block_shares: Share of the score's variation by block of features; none of a single block.
        reduced_width: Width K to which the joined embeddings are reduced, at least 3; None for
            their own width.
    """

    trainable: ClassVar[bool] = False
    weights: Tensor
    spreads: Tensor
    basis: Tensor

    def __init__(
        self,
        *,
        dim: int,
        parts: Mapping[str, PartSpec],
        columns: Sequence[Sequence[int]] = (),
        block_shares: Mapping[str, float] | None = None,
        reduced_width: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(parts, Mapping) or not parts:
            raise ConfigurationError(
                "`StackedHead(parts=...)` takes name and options of one head or more by label, "
                f"got {parts!r}."
            )
        if not all(0 <= start < stop <= dim for start, stop in columns):
            raise ConfigurationError(
                f"`StackedHead(columns=...)`: ranges ascend from 0 to dim ({dim}), got {columns!r}."
            )
        read = sum(stop - start for start, stop in columns) or dim
        self.dim = dim
        self.columns = [tuple(bounds) for bounds in columns]
        self.parts = dict(parts)
        self.block_shares = dict(block_shares or {})
        self.heads = nn.ModuleList(
            build_head(spec, dim=read).requires_grad_(False) for spec in parts.values()
        )
        self.joined_width = sum(head.width for head in self._heads)
        self.reduced_width = reduced_width
        self.width = self.joined_width
        if reduced_width is not None:
            if not LEAST_WIDTH <= reduced_width <= self.joined_width:
                raise ConfigurationError(
                    f"`StackedHead(reduced_width=...)` must be from {LEAST_WIDTH} to the width of "
                    f"the joined embeddings ({self.joined_width}), got {reduced_width}."
                )
            self.width = reduced_width
            self.register_buffer("basis", torch.eye(self.joined_width, reduced_width - 2))
        self.register_buffer("weights", torch.full((len(parts),), 1 / len(parts)))
        self.register_buffer("spreads", torch.ones(len(parts)))

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Projects [B, D] to [B, K]: the sum of the heads' widths, or the reduced width."""
        z = self._joined(h, side)
        if self.reduced_width is None:
            return z
        y = unit(z) @ self.basis
        # One coordinate per side makes the length 1 and changes no product (Bachrach et al. 2014)
        rest = (1 - y.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
        none = torch.zeros_like(rest)
        return cat([y, rest, none] if side == "a" else [y, none, rest], 1)

    def _joined(self, h: Tensor, side: Side) -> Tensor:
        if self.columns:
            h = cat([h[:, slice(*bounds)] for bounds in self.columns], 1)
        parts = [unit(head.project(h, side)) for head in self._heads]
        return cat([part * root for part, root in zip(parts, self.weights.sqrt(), strict=True)], 1)

    @property
    def _heads(self) -> list[ProjectionHead]:
        return list(self.heads)  # type: ignore[arg-type]

    @property
    def shares(self) -> dict[str, float]:
        """By label, how much of the score's variation each head contributes; the sum is 1."""
        parts = self.weights * self.spreads
        return dict(zip(self.parts, (parts / parts.sum()).tolist(), strict=True))

    @classmethod
    def joined(
        cls, heads: Mapping[str, ProjectionHead], weights: Doubles, spreads: Doubles
    ) -> StackedHead:
        """Joins fitted heads.

        Args:
            heads: By label, all for features of one width.
            weights: [heads] positive weights of their cosines.
            spreads: [heads] standard deviations of their cosines among the candidates of a query.
        """
        dim = int(next(iter(heads.values())).dim)  # type: ignore[arg-type]
        parts = {label: describe_head(head) for label, head in heads.items()}
        stacked = cls(dim=dim, parts=parts)
        for part, head in zip(stacked.heads, heads.values(), strict=True):
            part.load_state_dict(head.state_dict())
        stacked.weights.copy_(torch.from_numpy(weights / weights.sum()))
        stacked.spreads.copy_(torch.from_numpy(spreads))
        return stacked.eval()

    def reduced(self, train: PairedFeatures, width: int) -> StackedHead:
        """The head with narrower embeddings of unit length, whose products are nearly its scores.

        Joined embeddings are projected to the directions in which training people of both sides
        vary most around 0 (a truncated SVD), and one coordinate per side makes them equally long.

        Args:
            train: Training people, of whom at most 1,000 of each side are used.
            width: Width K, at least 3; smaller if the people span fewer directions.
        """
        sides = [self.embed(_spaced(train.a), "a")]
        sides.append(self.embed(_spaced(train.a if train.b is None else train.b), "b"))
        rows = np.concatenate(sides).astype(np.float64)
        _, _, basis = leading_svd(rows, width - 2)
        _, options = describe_head(self)
        head = StackedHead(**{**options, "dim": self.dim, "reduced_width": basis.shape[1] + 2})
        basis, _ = np.linalg.qr(basis)
        values = torch.from_numpy(basis.astype(np.float32))
        head.load_state_dict({**self.state_dict(), "basis": values})
        return head.eval()


def _spaced(side: Vectors) -> Vectors:
    """At most `_MOST_PEOPLE` rows, evenly spaced."""
    rows = np.linspace(0, len(side) - 1, min(len(side), _MOST_PEOPLE)).astype(np.int64)
    return side[rows]

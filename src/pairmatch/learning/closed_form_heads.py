"""Projection heads whose weights are computed in closed form, by learners without epochs.

All of them start from unit-length features x = h / ‖h‖, and all are per side: their buffers hold
one entry for side a and one for side b.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, cat, nn

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.types import Side
from pairmatch.learning.heads import check_positive

_TINY = float(np.finfo(np.float32).tiny)


def unit(x: Tensor) -> Tensor:
    """Rows [B, K] scaled to unit length; zeros stay zeros."""
    return nn.functional.normalize(x, dim=1, eps=_TINY)


class MetricHead(ProjectionHead):
    """Whitening followed by a metric: two symmetric linear maps with unit length after each.

    z = M · norm(W · (norm(sign(x) |x|^power) − mean of the side)), where W and M are a multiple of
    the identity except along R directions. Made by the learners `centred`, `whitened` and
    `metric`; before any fit it is the cosine of the powered features.

    Args:
        dim: Width D of the features; the output has the same width.
        rank: Number R of directions of the whitening, at most D.
        metric_rank: Number of directions of the metric; None uses `rank`.
        power: Exponent that evens out large and small features, in (0, 1]; 1 leaves them unchanged
            (Perronnin et al. 2010).
    """

    trainable: ClassVar[bool] = False
    mean: Tensor

    def __init__(
        self, *, dim: int, rank: int = 0, metric_rank: int | None = None, power: float = 1.0
    ) -> None:
        super().__init__()
        check_positive("MetricHead", dim=dim)
        ranks = {"whitening": rank, "metric": rank if metric_rank is None else metric_rank}
        if not all(0 <= value <= dim for value in ranks.values()) or not 0 < power <= 1:
            raise ConfigurationError(
                f"`MetricHead(...)`: ranks must be from 0 to dim ({dim}) and power in (0, 1], got "
                f"{rank}, {metric_rank} and {power}."
            )
        self.dim = dim
        self.width = dim
        self.rank = rank
        self.metric_rank = metric_rank
        self.power = power
        self.register_buffer("mean", torch.zeros(2, dim))
        # y = rest · x + basis · ((scale − rest) · basisᵀ x)
        for name, size in ranks.items():
            self.register_buffer(f"{name}_basis", torch.zeros(dim, size))
            self.register_buffer(f"{name}_scale", torch.ones(size))
            self.register_buffer(f"{name}_rest", torch.ones(()))

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Projects [B, D] to [B, D]."""
        x = unit(h)
        if self.power != 1:
            x = unit(x.sign() * x.abs() ** self.power)
        white = unit(self._map("whitening", x - self.mean[int(side == "b")]))
        return self._map("metric", white)

    def _map(self, name: str, x: Tensor) -> Tensor:
        basis = getattr(self, f"{name}_basis")
        scale = getattr(self, f"{name}_scale")
        rest = getattr(self, f"{name}_rest")
        if not basis.shape[1]:
            return rest * x
        return rest * x + ((x @ basis) * (scale - rest)) @ basis.T


class SideMapHead(ProjectionHead):
    """One linear map per side into a common space, z = (x − mean of the side) · W_side.

    Made by the learner `cca`.

    Args:
        dim: Width D of the features.
        width: Width K of the output.
    """

    trainable: ClassVar[bool] = False
    mean: Tensor
    maps: Tensor

    def __init__(self, *, dim: int, width: int) -> None:
        super().__init__()
        check_positive("SideMapHead", dim=dim, width=width)
        self.dim = dim
        self.width = width
        self.register_buffer("mean", torch.zeros(2, dim))
        self.register_buffer("maps", torch.eye(dim, width).repeat(2, 1, 1))

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Projects [B, D] to [B, K]."""
        row = int(side == "b")
        return (unit(h) - self.mean[row]) @ self.maps[row]


class PartnerMapHead(ProjectionHead):
    """Predicts the partner's features from a person's, in both directions.

    With y = x − mean of the side, a person of side a becomes [norm(y · W_a), norm(y)] and one of
    side b [norm(y), norm(y · W_b)]: the score is the sum of the cosines of each person with what
    the other's features predict. Made by the learner `ridge`.

    Args:
        dim: Width D of the features; the output has width 2 D.
    """

    trainable: ClassVar[bool] = False
    mean: Tensor
    maps: Tensor

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        check_positive("PartnerMapHead", dim=dim)
        self.dim = dim
        self.width = 2 * dim
        self.register_buffer("mean", torch.zeros(2, dim))
        self.register_buffer("maps", torch.eye(dim).repeat(2, 1, 1))

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Projects [B, D] to [B, 2 D]."""
        row = int(side == "b")
        centered = unit(h) - self.mean[row]
        predicted = unit(centered @ self.maps[row])
        actual = unit(centered)
        return cat([predicted, actual] if side == "a" else [actual, predicted], dim=1)


class PopularityHead(ProjectionHead):
    """Ranks candidates by cosine with the mean person of the other side, equally for every query.

    A person of side a becomes [x, mean of a], one of side b [mean of b, x]: the score is x_a · mean
    of b + mean of a · x_b, whose first term is the same for all candidates. Made by the learner
    `popularity`.

    Args:
        dim: Width D of the features; the output has width 2 D.
    """

    trainable: ClassVar[bool] = False
    mean: Tensor

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        check_positive("PopularityHead", dim=dim)
        self.dim = dim
        self.width = 2 * dim
        self.register_buffer("mean", torch.zeros(2, dim))

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Projects [B, D] to [B, 2 D]."""
        x = unit(h)
        mean = self.mean[int(side == "b")].expand_as(x)
        return cat([x, mean] if side == "a" else [mean, x], dim=1)


def fill(head: ProjectionHead, **values: object) -> ProjectionHead:
    """Sets buffers of a head by name, as float32, and switches it to evaluation mode."""
    tensors = {
        name: torch.as_tensor(np.asarray(value, np.float32)) for name, value in values.items()
    }
    head.load_state_dict({**head.state_dict(), **tensors})
    return head.eval()

"""Projection heads.

The small trained map from frozen features to the space where partners are close.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pairmatch.core import registry
from pairmatch.core.config import PartSpec, parse_spec
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.types import Side

Floats = npt.NDArray[np.floating]


def _positive(head: str, **values: int) -> None:
    wrong = [
        f"`{head}({key}=...)` must be positive, got {value}"
        for key, value in values.items()
        if value < 1
    ]
    if wrong:
        raise ConfigurationError("; ".join(wrong) + ".")


def _share(head: str, dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ConfigurationError(f"`{head}(dropout=...)` must be in [0, 1), got {dropout}.")


class MLPHead(ProjectionHead):
    """The recipe's head, z = W2 · ReLU(BN(W1 · h)) (Kim et al., Eq. 2 and 3). The default.

    Without biases, as printed: BatchNorm's shift serves as W1's.

    Args:
        dim: Width D of the features.
        width: Width K of the output; 512 in the paper's best model, 256 in its base.
        hidden: Width of W1's output; None takes D.
        dropout: Share of input features dropped in training, in [0, 1); 0 in the paper.
    """

    treats_sides_alike: ClassVar[bool] = True

    def __init__(
        self, *, dim: int, width: int = 512, hidden: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        _positive("MLPHead", dim=dim, width=width, hidden=dim if hidden is None else hidden)
        _share("MLPHead", dropout)
        self.dim, self.width, self.hidden, self.dropout = dim, width, hidden, dropout
        inner = dim if hidden is None else hidden
        self.layers = nn.Sequential(
            nn.Linear(dim, inner, bias=False),
            nn.BatchNorm1d(inner),
            nn.ReLU(),
            nn.Linear(inner, width, bias=False),
        )

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Projects [B, D] to [B, K]; in training mode B must be at least 2, for BatchNorm."""
        return self.layers(nn.functional.dropout(h, self.dropout, self.training))


class LinearHead(ProjectionHead):
    """A single matrix, z = W · h. Choose it for very few pairs, or to see what one linear map can do.

    Args:
        dim: Width D of the features.
        width: Width K of the output.
        dropout: Share of input features dropped in training, in [0, 1).
    """

    treats_sides_alike: ClassVar[bool] = True

    def __init__(self, *, dim: int, width: int = 512, dropout: float = 0.0) -> None:
        super().__init__()
        _positive("LinearHead", dim=dim, width=width)
        _share("LinearHead", dropout)
        self.dim, self.width, self.dropout = dim, width, dropout
        self.layer = nn.Linear(dim, width, bias=False)

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Projects [B, D] to [B, K]."""
        return self.layer(nn.functional.dropout(h, self.dropout, self.training))


class ResidualHead(ProjectionHead):
    """The features plus a low-rank correction, z = h + V · U · h, where V starts at zero.

    Starts as the frozen baseline and moves away only as far as the pairs pull it: choose it where
    frozen cosine is already good.

    Args:
        dim: Width D of the features; the output has the same width.
        rank: Rank of the correction.
        dropout: Share of the correction's input dropped in training, in [0, 1).
    """

    treats_sides_alike: ClassVar[bool] = True

    def __init__(self, *, dim: int, rank: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        _positive("ResidualHead", dim=dim, rank=rank)
        _share("ResidualHead", dropout)
        self.dim, self.width, self.rank, self.dropout = dim, dim, rank, dropout
        self.down = nn.Linear(dim, rank, bias=False)
        self.up = nn.Linear(rank, dim, bias=False)
        nn.init.zeros_(self.up.weight)

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Corrects [B, D] by a map of rank `rank`."""
        return h + self.up(self.down(nn.functional.dropout(h, self.dropout, self.training)))


class IdentityHead(ProjectionHead):
    """Leaves features as they are: the frozen baseline. Needs no training.

    Args:
        dim: Width D of the features and of the output.
    """

    trainable: ClassVar[bool] = False
    treats_sides_alike: ClassVar[bool] = True

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        _positive("IdentityHead", dim=dim)
        self.dim, self.width = dim, dim

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Returns [B, D] unchanged."""
        return h


class MetricHead(ProjectionHead):
    """Two symmetric linear maps with unit length after each: whitening, then a metric. Learned in closed form.

    z = M · norm(W · (norm(sign(h) |h|^power) − mean of the side)), where W and M are a multiple of
    the identity but for R directions. It is what the learner `robust` makes; before that it is
    cosine of the powered features.

    Args:
        dim: Width D of the features; the output has the same width.
        rank: Number R of directions, at most D.
        power: Exponent that evens large and small features, in (0, 1]; 1 leaves them (Perronnin et
            al. 2010).
    """

    trainable: ClassVar[bool] = False
    mean: Tensor

    def __init__(self, *, dim: int, rank: int = 0, power: float = 1.0) -> None:
        super().__init__()
        _positive("MetricHead", dim=dim)
        if not 0 <= rank <= dim or not 0 < power <= 1:
            raise ConfigurationError(
                f"`MetricHead(...)`: rank must be from 0 to dim ({dim}) and power in (0, 1], got {rank} and {power}."
            )
        self.dim, self.width, self.rank, self.power = dim, dim, rank, power
        self.register_buffer("mean", torch.zeros(2, dim))
        for name in ("whitening", "metric"):  # y = rest · x + basis · ((scale − rest) · basisᵀ x)
            self.register_buffer(f"{name}_basis", torch.zeros(dim, rank))
            self.register_buffer(f"{name}_scale", torch.ones(rank))
            self.register_buffer(f"{name}_rest", torch.ones(()))

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Projects [B, D] to [B, D]."""
        x = unit(h)
        if self.power != 1:
            x = unit(x.sign() * x.abs() ** self.power)
        white = unit(self._map("whitening", x - self.mean[int(side == "b")]))
        return self._map("metric", white)

    def _map(self, name: str, x: Tensor) -> Tensor:
        basis, scale, rest = (
            getattr(self, f"{name}_{part}") for part in ("basis", "scale", "rest")
        )
        return rest * x + ((x @ basis) * (scale - rest)) @ basis.T


class PerSideHead(ProjectionHead):
    """Two heads of one kind, one per side, for sides that look different (guests and hosts, people and jobs).

    Named by the option `shared=False` of any head.

    Args:
        a: Head of side a.
        b: Head of side b, of the same output width.
    """

    def __init__(self, *, a: ProjectionHead, b: ProjectionHead) -> None:
        super().__init__()
        if a.width != b.width:
            raise ConfigurationError(
                f"Both heads of `PerSideHead` need one output width, got {a.width} and {b.width}."
            )
        self.a, self.b, self.width = a, b, a.width

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Projects [B, D] to [B, K] with the head of the side."""
        return (self.a if side == "a" else self.b).project(h, side)


def build_head(spec: PartSpec, *, dim: int, seed: int = 0) -> ProjectionHead:
    """Builds a head for features of width D; the option `shared=False` gives each side its own.

    Args:
        spec: `"mlp"`, `("mlp", {"width": 256, "shared": False})` or an instance, which is returned
            as it is.
        dim: Width D of the features.
        seed: Seeds the initial weights; the global random state is left alone.

    Raises:
        PartError: The name is unknown.
        ConfigurationError: An option does not exist or is out of range.
    """
    parsed = parse_spec(spec)
    if parsed is None:
        return registry.create("heads", spec)
    name, options = parsed
    shared = options.pop("shared", True)
    if not isinstance(shared, bool):
        raise ConfigurationError(
            f"`shared` of the head {name!r} must be true or false, got {shared!r}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = [
            registry.create("heads", (name, options), dim=dim) for _ in range(1 if shared else 2)
        ]
    if not shared and not heads[0].trainable:
        return heads[0]
    return heads[0] if shared else PerSideHead(a=heads[0], b=heads[1])


def describe_head(head: ProjectionHead) -> tuple[str, dict[str, Any]]:
    """Registered name and options that `build_head` turns into the same architecture.

    Raises:
        PartError: A head of an unregistered class, or two sides that are built differently.
    """
    if isinstance(head, PerSideHead):
        sides = [registry.describe("heads", side) for side in (head.a, head.b)]
        if sides[0] != sides[1]:
            raise ConfigurationError(
                f"Only two sides of one build can be saved, got {sides[0]} and {sides[1]}."
            )
        name, options = sides[0]
        return name, {**_without_dim(options), "shared": False}
    name, options = registry.describe("heads", head)
    return name, _without_dim(options)


def _without_dim(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != "dim"}


def embed(
    head: ProjectionHead, features: Floats, side: Side, *, rows: int = 8192
) -> npt.NDArray[np.float32]:
    """Embeddings e = z / ‖z‖ of features, with the head in evaluation mode, on the head's device.

    Args:
        head: The head; its mode is left as it was.
        features: [N, D], any floating type.
        side: Side that these people are on.
        rows: People per pass.

    Returns:
        [N, K] float32, unit length; a z of zeros stays zero.
    """
    parameter = next(head.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    result = np.empty((len(features), head.width), np.float32)
    training = head.training
    head.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(features), rows):
                h = torch.from_numpy(np.array(features[start : start + rows], np.float32)).to(
                    device
                )
                result[start : start + rows] = unit(head.project(h, side)).cpu().numpy()
    finally:
        head.train(training)
    return result


def unit(x: Tensor) -> Tensor:
    """Rows [B, K] scaled to unit length; zeros stay zeros."""
    return nn.functional.normalize(x, dim=1, eps=float(np.finfo(np.float32).tiny))


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A projection that is a head, as a learner returns it that can serve in a `Matcher` and be saved.

    Attributes:
        head: In evaluation mode.
        notes: What a reader has to know of how it came about.
    """

    head: ProjectionHead
    notes: tuple[str, ...] = ()

    def __call__(self, features: Floats, side: Side) -> npt.NDArray[np.float32]:
        """Embeddings [N, K] of features [N, D]."""
        return embed(self.head, features, side)

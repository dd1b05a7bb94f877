"""Projection heads that are trained by gradient descent, and the construction of heads by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pairmatch.core import registry
from pairmatch.core.config import PartSpec, parse_spec
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ProjectionHead
from pairmatch.core.types import Side


def check_positive(head: str, **values: int) -> None:
    """Raises ConfigurationError that names every option below 1."""
    wrong = [
        f"`{head}({key}=...)` must be positive, got {value}"
        for key, value in values.items()
        if value < 1
    ]
    if wrong:
        raise ConfigurationError("; ".join(wrong) + ".")


def check_dropout(head: str, dropout: float) -> None:
    """Raises ConfigurationError unless the share is in [0, 1)."""
    if not 0 <= dropout < 1:
        raise ConfigurationError(f"`{head}(dropout=...)` must be in [0, 1), got {dropout}.")


class MLPHead(ProjectionHead):
    """The recipe's head, z = W2 · ReLU(BN(W1 · h)) (Kim et al., Eq. 2 and 3). The default.

    Has no biases, as in the paper: BatchNorm's shift replaces that of W1.

    Args:
        dim: Width D of the features.
        width: Width K of the output; 512 in the paper's best model, 256 in its base.
        hidden: Width of W1's output; None means D.
        dropout: Share of input features dropped in training, in [0, 1); 0 in the paper.
    """

    treats_sides_alike: ClassVar[bool] = True

    def __init__(
        self, *, dim: int, width: int = 512, hidden: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_positive("MLPHead", dim=dim, width=width, hidden=dim if hidden is None else hidden)
        check_dropout("MLPHead", dropout)
        self.dim = dim
        self.width = width
        self.hidden = hidden
        self.dropout = dropout
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
    """A single matrix, z = W · h.

    Choose it for very few pairs, or to see what one linear map can do.

    Args:
        dim: Width D of the features.
        width: Width K of the output.
        dropout: Share of input features dropped in training, in [0, 1).
    """

    treats_sides_alike: ClassVar[bool] = True

    def __init__(self, *, dim: int, width: int = 512, dropout: float = 0.0) -> None:
        super().__init__()
        check_positive("LinearHead", dim=dim, width=width)
        check_dropout("LinearHead", dropout)
        self.dim = dim
        self.width = width
        self.dropout = dropout
        self.layer = nn.Linear(dim, width, bias=False)

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Projects [B, D] to [B, K]."""
        return self.layer(nn.functional.dropout(h, self.dropout, self.training))


class ResidualHead(ProjectionHead):
    """The features plus a low-rank correction, z = h + V · U · h, where V starts at zero.

    Starts as the frozen baseline and moves away only as far as the pairs require. Choose it if
    frozen cosine is already good.

    Args:
        dim: Width D of the features; the output has the same width.
        rank: Rank of the correction.
        dropout: Share of the correction's input dropped in training, in [0, 1).
    """

    treats_sides_alike: ClassVar[bool] = True

    def __init__(self, *, dim: int, rank: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        check_positive("ResidualHead", dim=dim, rank=rank)
        check_dropout("ResidualHead", dropout)
        self.dim = dim
        self.width = dim
        self.rank = rank
        self.dropout = dropout
        self.down = nn.Linear(dim, rank, bias=False)
        self.up = nn.Linear(rank, dim, bias=False)
        nn.init.zeros_(self.up.weight)

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Corrects [B, D] by a map of rank `rank`."""
        return h + self.up(self.down(nn.functional.dropout(h, self.dropout, self.training)))


class IdentityHead(ProjectionHead):
    """Returns features unchanged: the frozen baseline. Needs no training.

    Args:
        dim: Width D of the features and of the output.
    """

    trainable: ClassVar[bool] = False
    treats_sides_alike: ClassVar[bool] = True

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        check_positive("IdentityHead", dim=dim)
        self.dim = dim
        self.width = dim

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Returns [B, D] unchanged."""
        return h


class PerSideHead(ProjectionHead):
    """Two heads of one kind, one per side.

    Choose it for sides that look different (guests and hosts, people and jobs), with the option
    `shared=False` of any trainable head.

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
        self.a = a
        self.b = b
        self.width = a.width

    def project(self, h: Tensor, side: Side) -> Tensor:
        """Projects [B, D] to [B, K] with the head of the side."""
        return (self.a if side == "a" else self.b).project(h, side)


def build_head(spec: PartSpec, *, dim: int, seed: int = 0) -> ProjectionHead:
    """Builds a head for features of width D; the option `shared=False` gives each side its own.

    Args:
        spec: `"mlp"`, `("mlp", {"width": 256, "shared": False})` or an instance, which is returned
            unchanged.
        dim: Width D of the features.
        seed: Seed for the initial weights; the global random state is not touched.

    Raises:
        PartError: The name is unknown.
        ConfigurationError: An option does not exist or is out of range.
    """
    parsed = parse_spec(spec)
    if parsed is None:
        head = registry.create("heads", spec)
        width = getattr(head.a if isinstance(head, PerSideHead) else head, "dim", dim)
        if width != dim:
            raise ConfigurationError(
                f"The head {type(head).__name__} takes features of width {width}, but these have "
                f"width {dim}: build it with dim={dim}, or give its name and options."
            )
        return head
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
        PartError: The head's class is not registered, or its two sides differ in architecture.
    """
    if isinstance(head, PerSideHead):
        sides = [registry.describe("heads", side) for side in (head.a, head.b)]
        if sides[0] != sides[1]:
            raise ConfigurationError(
                "Both sides must have the same architecture to be saved, got "
                f"{sides[0]} and {sides[1]}."
            )
        name, options = sides[0]
        return name, {**_without_dim(options), "shared": False}
    name, options = registry.describe("heads", head)
    return name, _without_dim(options)


def _without_dim(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != "dim"}

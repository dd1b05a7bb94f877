"""The conformance check for projection heads."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pairmatch.core.interfaces import ProjectionHead
from pairmatch.testing.contract import check_stored_arguments


def check_head(make_head: Callable[..., ProjectionHead], *, dim: int = 12) -> None:
    """Checks a head: its shape, finite gradients, and equal output after saving and loading.

    Args:
        make_head: The class, or a function that takes `dim`.
        dim: Width D of the features used in the check.

    Raises:
        AssertionError: A check fails.
    """
    head = make_head(dim=dim)
    name = type(head).__name__
    check_stored_arguments(head)
    generator = torch.Generator().manual_seed(0)
    h_a = torch.randn(6, dim, generator=generator)
    h_b = torch.randn(6, dim, generator=generator)
    _check_training(head, h_a, h_b)
    head.eval()
    with torch.no_grad():
        if head.treats_sides_alike:
            assert torch.equal(head.project(h_a, "a"), head.project(h_a, "b")), (
                f"{name}.treats_sides_alike is true, but the two sides are projected differently"
            )
        single = torch.cat([head.project(row[None], "a") for row in h_a])
        assert torch.allclose(single, head.project(h_a, "a"), atol=1e-5), (
            f"{name}: in evaluation mode, a person's vector depends on the rest of the batch"
        )
        restored = make_head(dim=dim).eval()
        restored.load_state_dict(head.state_dict())
        assert torch.equal(restored.project(h_b, "b"), head.project(h_b, "b")), (
            f"{name}: state_dict() does not hold everything"
        )


def _check_training(head: ProjectionHead, h_a: torch.Tensor, h_b: torch.Tensor) -> None:
    """Checks the output in training mode, and that gradients reach every trained parameter."""
    name = type(head).__name__
    z_a, z_b = head.train()(h_a, h_b)
    for z in (z_a, z_b):
        assert z.shape == (len(h_a), head.width), (
            f"{name}: output must be [B, width = {head.width}], got {list(z.shape)}"
        )
        assert bool(torch.isfinite(z).all()), f"{name} returns values that are not finite"
    parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
    assert bool(parameters) == head.trainable, (
        f"{name}.trainable is {head.trainable}, but it has {len(parameters)} parameters to train"
    )
    if not parameters:
        return
    (z_a.square().sum() + (z_a * z_b).sum()).backward()
    unreached = sum(
        parameter.grad is None or not bool(torch.isfinite(parameter.grad).all())
        for parameter in parameters
    )
    assert not unreached, (
        f"{name}: {unreached} of {len(parameters)} parameters get no finite gradient"
    )

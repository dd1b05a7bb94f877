"""The conformance check for losses."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from pairmatch.core.interfaces import ContrastiveLoss
from pairmatch.testing.contract import check_stored_arguments


def check_loss(loss: ContrastiveLoss) -> None:
    """Checks a loss.

    It must be a finite scalar that falls as partners come closer, and must never push a known match
    or an open pair away.

    Raises:
        AssertionError: A check fails.
    """
    name = type(loss).__name__
    check_stored_arguments(loss)
    generator = torch.Generator().manual_seed(0)
    a = normalize(torch.randn(6, 8, generator=generator), dim=1)
    b = normalize(torch.randn(6, 8, generator=generator), dim=1)
    diagonal = torch.eye(6, dtype=torch.bool)
    far = loss(a, b, diagonal)
    assert far.ndim == 0, f"{name} must return a scalar, got shape {list(far.shape)}"
    assert bool(torch.isfinite(far)), f"{name} is not finite"
    near = loss(a, normalize(b + 3 * a, dim=1), diagonal)
    assert near < far, f"{name} does not fall as partners come closer"
    _check_positives(loss, a, b)
    _check_unknown(loss, a, b)
    one_pair = loss(a[:1], b[:1], diagonal[:1, :1])
    assert bool(torch.isfinite(one_pair)), f"{name} is not finite for a batch of one pair"
    unmatched_columns = loss(a[:4], b, diagonal[:4])
    assert bool(torch.isfinite(unmatched_columns)), (
        f"{name} must accept columns without a match (rejected people)"
    )


def _check_positives(loss: ContrastiveLoss, a: torch.Tensor, b: torch.Tensor) -> None:
    """Checks the gradient at a person who matches all candidates."""
    name = type(loss).__name__
    positives = torch.eye(len(a), dtype=torch.bool)
    positives[0] = True
    candidates = b.clone().requires_grad_()
    loss(a, candidates, positives).backward()
    assert candidates.grad is not None, f"{name} has no gradient"
    assert bool(torch.isfinite(candidates.grad).all()), f"{name} has gradients that are not finite"
    anchor = a[:1].clone()
    candidates = b.clone().requires_grad_()
    value = loss(anchor, candidates, positives[:1])
    if not value.requires_grad:
        return
    value.backward()
    assert candidates.grad is not None
    pushed = (candidates.grad * anchor).sum(1) > 1e-6
    assert not bool(pushed.any()), (
        f"{name} pushes a known match away: `positives` must never be negatives"
    )


def _check_unknown(loss: ContrastiveLoss, a: torch.Tensor, b: torch.Tensor) -> None:
    """Checks the gradient at a candidate of open pairs alone."""
    name = type(loss).__name__
    positives = torch.eye(len(a), dtype=torch.bool)
    positives[:, 0] = False
    unknown = torch.zeros_like(positives)
    unknown[:, 0] = True
    candidates = b.clone().requires_grad_()
    value = loss(a, candidates, positives, unknown)
    assert bool(torch.isfinite(value)), f"{name} is not finite with open pairs"
    value.backward()
    assert candidates.grad is not None
    assert not bool(candidates.grad[0].abs().max() > 1e-6), (
        f"{name} learns from open pairs: `unknown` must be neither matches nor negatives"
    )

"""The conformance check for poolers."""

from __future__ import annotations

import torch

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import Pooler
from pairmatch.core.types import TokenStates
from pairmatch.testing.contract import check_fingerprint, check_stored_arguments


def check_pooler(pooler: Pooler) -> None:
    """Checks a pooler: its shape, a stable fingerprint, and that padding does not matter.

    Raises:
        AssertionError: A check fails.
    """
    name = type(pooler).__name__
    check_stored_arguments(pooler)
    check_fingerprint(pooler)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, 6, 5, generator=generator)
    mask = torch.tensor(
        [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]], dtype=torch.bool
    )
    first_token = torch.tensor([1, 0, 0, 0, 0, 0], dtype=torch.bool)
    pooled = torch.randn(3, 7, generator=generator)
    layer = getattr(pooler, "layer", None)

    def output(values: torch.Tensor) -> TokenStates:
        return TokenStates(
            states=values,
            mask=mask,
            image_mask=mask & first_token,
            end=mask.sum(1) - 1,
            pooled=pooled,
            layers={} if layer is None else {layer: values},
        )

    result = pooler.pool(output(states))
    assert result.shape in ((3, 5), (3, 7)), (
        f"{name}.pool must return [B, D] or [B, P], got {list(result.shape)}"
    )
    noisy = states.clone()
    noisy[~mask] = 1e4
    assert torch.allclose(result, pooler.pool(output(noisy))), (
        f"{name}: padding changes the pooled vector"
    )
    try:
        pooler.pool(TokenStates())
    except ConfigurationError:
        return
    raise AssertionError(
        f"{name}.pool must raise ConfigurationError if the backbone returns nothing that it can "
        "pool"
    )

"""What the result of a run depends on, by which a checkpoint of another run is recognized."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from torch import nn

from pairmatch.core import registry
from pairmatch.core.errors import PartError
from pairmatch.core.interfaces import Backbone, ContrastiveLoss, Pooler, ProjectionHead
from pairmatch.core.pools import Pools
from pairmatch.finetuning.config import FinetuneConfig
from pairmatch.finetuning.people import People
from pairmatch.io.store import content_key
from pairmatch.learning.heads import describe_head

_BESIDE = ("checkpoint_steps", "gradient_checkpointing")  # no result depends on them


def run_identity(
    config: FinetuneConfig,
    backbone: Backbone,
    pooler: Pooler,
    head: ProjectionHead,
    loss: ContrastiveLoss,
    people: Sequence[People],
) -> dict[str, Any]:
    """What a run depends on, as JSON values.

    Args:
        config: Hyperparameters.
        backbone: The frozen backbone.
        pooler: Its pooler.
        head: The head before training.
        loss: The loss before training.
        people: Those to train on, and those to validate on.
    """
    options = config.to_dict()
    return {
        "config": {name: options[name] for name in options if name not in _BESIDE},
        "backbone": dict(backbone.fingerprint()),
        "pooler": dict(pooler.fingerprint()),
        "head": _part_identity("heads", head),
        "loss": _part_identity("losses", loss),
        "data": content_key(
            {
                "people": [list(part.digests) for part in people],
                "pairs": [part.pairs.decisions.pairs.tolist() for part in people],
                "outcomes": [list(part.pairs.ends) for part in people],
                "units": [_listed(part.pairs.units_a, part.pairs.units_b) for part in people],
                "pools": [_pools(part.pairs.pools) for part in people],
            }
        ),
    }


def _part_identity(kind: str, part: nn.Module) -> str:
    """Digest of name, options and weights; of the class and its layers if it has no name."""
    try:
        described = describe_head(part) if kind == "heads" else registry.describe(kind, part)  # type: ignore[arg-type]
    except PartError:
        described = (type(part).__qualname__, {"layers": repr(part)})
    words = repr((described[0], sorted((key, repr(value)) for key, value in described[1].items())))
    total = hashlib.sha256(words.encode())
    for name, value in sorted(part.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _pools(pools: Pools | None) -> Any:
    if pools is None:
        return None
    return [list(pools.names), *_listed(pools.a, pools.b, pools.pairs, pools.pool)]


def _listed(*arrays: Any) -> list[Any]:
    return [None if values is None else values.tolist() for values in arrays]

"""Combines the outputs of a person's photos."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def by_person(rows: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Concatenates the tokens of each person's photos, padded on the right.

    Args:
        rows: [photos, T, D] tokens of all photos, person after person.
        counts: Number of photos of each of the B people.

    Returns:
        [B, most photos × T, D] tokens, and a bool mask [B, most photos × T] of the real ones.
    """
    parts = rows.split(list(counts))
    states = nn.utils.rnn.pad_sequence([part.flatten(0, 1) for part in parts], batch_first=True)
    lengths = torch.tensor([count * rows.shape[1] for count in counts], device=rows.device)
    return states, torch.arange(states.shape[1], device=rows.device)[None, :] < lengths[:, None]


def mean_by_person(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Mean over each person's photos: [photos, P] becomes [B, P] float32."""
    return torch.stack([part.float().mean(0) for part in rows.split(list(counts))])

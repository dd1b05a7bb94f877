"""Joins the outputs of a person's several photos."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def by_person(rows: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Joins the tokens of each person's photos.

    [photos, T, D] becomes [B, most photos × T, D] and a mask [B, …].
    """
    parts = rows.split(list(counts))
    states = nn.utils.rnn.pad_sequence([part.flatten(0, 1) for part in parts], batch_first=True)
    lengths = torch.tensor([count * rows.shape[1] for count in counts], device=rows.device)
    return states, torch.arange(states.shape[1], device=rows.device)[None, :] < lengths[:, None]


def mean_by_person(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Mean over each person's photos: [photos, P] becomes [B, P] float32."""
    return torch.stack([part.float().mean(0) for part in rows.split(list(counts))])

"""Poolers: from the token states of a sequence to one vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import Pooler
from pairmatch.core.types import TokenStates


def _states(states: TokenStates, layer: int | None, pooler: str) -> Tensor:
    if layer is None:
        if states.states is None:
            raise ConfigurationError(
                f"The pooler {pooler!r} needs token states, and this backbone gives its own pooled output alone: use "
                "pooler='native'."
            )
        return states.states
    if layer not in states.layers:
        raise ConfigurationError(
            f"The pooler {pooler!r} asks for layer {layer}, and the backbone gave {sorted(states.layers) or 'none'}: "
            f"name it in the backbone's option layers=[{layer}]."
        )
    return states.layers[layer]


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    """[B, D] float32 mean over the tokens of the mask.

    Bfloat16 sums would lose what distinguishes people.
    """
    weights = mask.to(torch.float32).unsqueeze(-1)
    return (states.float() * weights).sum(1) / weights.sum(1).clamp(min=1)


def _mask(mask: Tensor | None, pooler: str, what: str) -> Tensor:
    if mask is None:
        raise ConfigurationError(
            f"The pooler {pooler!r} needs {what}, and this backbone does not tell them apart."
        )
    return mask


class MeanPooler(Pooler):
    """Mean over every real token, photo and text alike. The recipe's default (Kim et al., Table 2).

    Args:
        layer: A layer that the backbone was asked to give (`layers=`); None for the last, after the
            final norm.
    """

    def __init__(self, *, layer: int | None = None) -> None:
        self.layer = layer

    def pool(self, states: TokenStates) -> Tensor:
        """[B, D] float32."""
        return _mean(
            _states(states, self.layer, "mean"), _mask(states.mask, "mean", "a mask of real tokens")
        )

    def fingerprint(self) -> Mapping[str, Any]:
        """Name and layer."""
        return {"pooler": "mean", "layer": self.layer}


class EOSPooler(Pooler):
    """The state of the token that ends the sequence (Kim et al., Table 2); what causal embedding models prescribe.

    Args:
        layer: As for `mean`.
    """

    def __init__(self, *, layer: int | None = None) -> None:
        self.layer = layer

    def pool(self, states: TokenStates) -> Tensor:
        """[B, D] float32."""
        tokens = _states(states, self.layer, "eos")
        if states.end is None:
            raise ConfigurationError(
                "The pooler 'eos' needs a token that ends the sequence, and this backbone has none."
            )
        return tokens[torch.arange(len(tokens), device=tokens.device), states.end].float()

    def fingerprint(self) -> Mapping[str, Any]:
        """Name and layer."""
        return {"pooler": "eos", "layer": self.layer}


class ImageMeanPooler(Pooler):
    """Mean over the tokens of the photos alone. For someone without photos it is a vector of zeros.

    Args:
        layer: As for `mean`.
    """

    def __init__(self, *, layer: int | None = None) -> None:
        self.layer = layer

    def pool(self, states: TokenStates) -> Tensor:
        """[B, D] float32."""
        tokens = _states(states, self.layer, "image-mean")
        return _mean(tokens, _mask(states.image_mask, "image-mean", "image tokens"))

    def fingerprint(self) -> Mapping[str, Any]:
        """Name and layer."""
        return {"pooler": "image-mean", "layer": self.layer}


class TextMeanPooler(Pooler):
    """Mean over the real tokens that do not stand for photos: prompt and chat template. Zeros for someone without any.

    Args:
        layer: As for `mean`.
    """

    def __init__(self, *, layer: int | None = None) -> None:
        self.layer = layer

    def pool(self, states: TokenStates) -> Tensor:
        """[B, D] float32."""
        tokens = _states(states, self.layer, "text-mean")
        real = _mask(states.mask, "text-mean", "a mask of real tokens")
        words = real & ~_mask(states.image_mask, "text-mean", "image tokens")
        if not words.any():
            raise ConfigurationError(
                "The pooler 'text-mean' needs tokens of text, and this backbone gives none: use 'mean' or 'image-mean'."
            )
        return _mean(tokens, words)

    def fingerprint(self) -> Mapping[str, Any]:
        """Name and layer."""
        return {"pooler": "text-mean", "layer": self.layer}


class NativePooler(Pooler):
    """The backbone's own pooled output, where it has one (CLIP's projected embedding, an ONNX model's output)."""

    def pool(self, states: TokenStates) -> Tensor:
        """[B, P] float32."""
        if states.pooled is None:
            raise ConfigurationError(
                "The pooler 'native' needs a pooled output, and this backbone has none: use 'mean'."
            )
        return states.pooled.float()

    def fingerprint(self) -> Mapping[str, Any]:
        """Name."""
        return {"pooler": "native"}

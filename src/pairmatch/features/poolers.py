"""Poolers: from the token states of a sequence to one vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import Pooler
from pairmatch.core.types import TokenStates


class MeanPooler(Pooler):
    """Mean over all real tokens, of photos and text. The default of the recipe.

    Source: Kim et al., Table 2.

    Args:
        layer: Index of a layer that the backbone returns (its option `layers=`); None for the
            last layer, after the final norm.
    """

    def __init__(self, *, layer: int | None = None) -> None:
        self.layer = layer

    def pool(self, states: TokenStates) -> Tensor:
        """[B, D] float32."""
        tokens = _layer_states(states, self.layer, "mean")
        return _mean(tokens, _require(states.mask, "mean", "a mask of real tokens"))

    def fingerprint(self) -> Mapping[str, Any]:
        """Name and layer."""
        return {"pooler": "mean", "layer": self.layer}


class EOSPooler(Pooler):
    """State of the token that ends the sequence. Choose it for causal embedding models.

    Source: Kim et al., Table 2.

    Args:
        layer: Index of a layer that the backbone returns, as for `mean`.
    """

    def __init__(self, *, layer: int | None = None) -> None:
        self.layer = layer

    def pool(self, states: TokenStates) -> Tensor:
        """[B, D] float32."""
        tokens = _layer_states(states, self.layer, "eos")
        if states.end is None:
            raise ConfigurationError(
                "The pooler 'eos' needs a token that ends the sequence, and this backbone has none."
            )
        return tokens[torch.arange(len(tokens), device=tokens.device), states.end].float()

    def fingerprint(self) -> Mapping[str, Any]:
        """Name and layer."""
        return {"pooler": "eos", "layer": self.layer}


class ImageMeanPooler(Pooler):
    """Mean over the photo tokens; zeros for a person without photos.

    Args:
        layer: Index of a layer that the backbone returns, as for `mean`.
    """

    def __init__(self, *, layer: int | None = None) -> None:
        self.layer = layer

    def pool(self, states: TokenStates) -> Tensor:
        """[B, D] float32."""
        tokens = _layer_states(states, self.layer, "image-mean")
        return _mean(tokens, _require(states.image_mask, "image-mean", "image tokens"))

    def fingerprint(self) -> Mapping[str, Any]:
        """Name and layer."""
        return {"pooler": "image-mean", "layer": self.layer}


class TextMeanPooler(Pooler):
    """Mean over the real tokens outside photos: prompt and chat template.

    Zeros for a person without any.

    Args:
        layer: Index of a layer that the backbone returns, as for `mean`.
    """

    def __init__(self, *, layer: int | None = None) -> None:
        self.layer = layer

    def pool(self, states: TokenStates) -> Tensor:
        """[B, D] float32."""
        tokens = _layer_states(states, self.layer, "text-mean")
        real_mask = _require(states.mask, "text-mean", "a mask of real tokens")
        text_mask = real_mask & ~_require(states.image_mask, "text-mean", "image tokens")
        if not text_mask.any():
            raise ConfigurationError(
                "The pooler 'text-mean' needs text tokens, and this backbone returns none: use "
                "'mean' or 'image-mean'."
            )
        return _mean(tokens, text_mask)

    def fingerprint(self) -> Mapping[str, Any]:
        """Name and layer."""
        return {"pooler": "text-mean", "layer": self.layer}


class NativePooler(Pooler):
    """The backbone's own pooled output: CLIP's projected embedding, an ONNX model's output."""

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


def _layer_states(states: TokenStates, layer: int | None, pooler: str) -> Tensor:
    """[B, T, D] states of a layer, or of the last one if `layer` is None."""
    if layer is None:
        if states.states is None:
            raise ConfigurationError(
                f"The pooler {pooler!r} needs token states, and this backbone returns only its "
                "own pooled output: use pooler='native'."
            )
        return states.states
    if layer not in states.layers:
        raise ConfigurationError(
            f"The pooler {pooler!r} needs layer {layer}, and the backbone returned layers "
            f"{sorted(states.layers) or 'none'}: set the backbone's option layers=[{layer}]."
        )
    return states.layers[layer]


def _require(mask: Tensor | None, pooler: str, description: str) -> Tensor:
    if mask is None:
        raise ConfigurationError(
            f"The pooler {pooler!r} needs {description}, and this backbone does not mark them."
        )
    return mask


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    """[B, D] float32 mean over the masked tokens.

    Sums in bfloat16 would lose the differences between people.
    """
    weights = mask.to(torch.float32).unsqueeze(-1)
    return (states.float() * weights).sum(1) / weights.sum(1).clamp(min=1)

"""Number of operations of transformers models, counted by torch on a copy without weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Lengths of the two texts that are counted
_SHORT = 16
_LONG = 48
# What a network raises that torch cannot run without weights, or that needs other inputs
_UNCOUNTED = (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError, IndexError)


@dataclass(frozen=True, slots=True)
class TextOperations:
    """Floating-point operations of a text encoder.

    Maps of tokens grow in proportion to the length, and attention with its square.

    Attributes:
        linear: Operations per token.
        square: Operations per pair of tokens.
    """

    linear: float
    square: float

    @classmethod
    def of(cls, config: Any) -> TextOperations | None:
        """Counts two lengths, which determine both; None if torch cannot count them."""
        network = _without_weights(encoder_class(config), config)
        if network is None:
            return None
        network = encoder_of(network, config)
        short, long = (_counted(network, _tokens(length)) for length in (_SHORT, _LONG))
        if short is None or long is None:
            return None
        square = (long / _LONG - short / _SHORT) / (_LONG - _SHORT)
        return cls(short / _SHORT - square * _SHORT, square)

    def at(self, length: int) -> float:
        """Operations for a text of `length` tokens."""
        return length * (self.linear + self.square * length)


def photo_operations(config: Any, inputs: Mapping[str, Tensor]) -> float | None:
    """Floating-point operations of an image encoder for a photo; None if torch cannot count them.

    Args:
        config: Configuration of the checkpoint.
        inputs: What the checkpoint's processor made of one photo.
    """
    from transformers import AutoModel

    network = _without_weights(AutoModel, config)
    if network is None:
        return None
    return _counted(getattr(network, "vision_model", network), inputs)


def encoder_class(config: Any) -> Any:
    """The class that loads the text encoder of a checkpoint."""
    from transformers import AutoModel, AutoModelForTextEncoding
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES

    has_encoder = config.model_type in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
    return AutoModelForTextEncoding if has_encoder else AutoModel


def encoder_of(network: Any, config: Any) -> Any:
    """The encoder of a network that `encoder_class` loaded; of models that write text, its part."""
    from transformers import AutoModel

    is_pair = bool(getattr(config, "is_encoder_decoder", False))
    return network.get_encoder() if is_pair and encoder_class(config) is AutoModel else network


def _without_weights(auto: Any, config: Any) -> Any | None:
    """The network of a configuration on the device `meta`, which holds shapes only."""
    try:
        with torch.device("meta"):
            return auto.from_config(config, trust_remote_code=False).eval()
    except _UNCOUNTED:
        return None


def _tokens(length: int) -> dict[str, Tensor]:
    # Without a mask, whose values would have to be known
    return {"input_ids": torch.zeros(1, length, dtype=torch.long)}


def _counted(network: Any, inputs: Mapping[str, Tensor]) -> float | None:
    from torch.utils.flop_counter import FlopCounterMode

    taken = inspect.signature(network.forward).parameters
    moved = {name: value.to("meta") for name, value in inputs.items() if name in taken}
    try:
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(**moved)
    except _UNCOUNTED:
        return None
    return float(counter.get_total_flops()) or None

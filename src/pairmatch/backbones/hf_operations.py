"""Number of operations of transformers models, counted by torch on a copy without weights."""

from __future__ import annotations

from typing import Any

import torch

# Lengths of the two texts that are counted
_SHORT = 64
_LONG = 256


def photo_operations(network: Any, inputs: dict[str, Any]) -> float:
    """Floating-point operations of an image encoder for a photo.

    Args:
        network: Network on the device `meta`.
        inputs: Arguments of its `forward` for one photo, on any device.
    """
    return _counted(network, {name: value.to("meta") for name, value in inputs.items()})


def text_operations(network: Any, length: int) -> float:
    """Floating-point operations of a text encoder for a text of `length` tokens.

    Maps of tokens grow in proportion to the length, and attention with its square: the counts of
    two lengths determine both.
    """
    if length in (_SHORT, _LONG):
        return _counted_text(network, length)
    short, long = (_counted_text(network, tokens) / tokens for tokens in (_SHORT, _LONG))
    square = (long - short) / (_LONG - _SHORT)
    return length * (short + square * (length - _SHORT))


def _counted_text(network: Any, length: int) -> float:
    tokens = torch.zeros(1, length, dtype=torch.long, device="meta")
    return _counted(network, {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})


def _counted(network: Any, inputs: dict[str, Any]) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(**inputs)
    return float(counter.get_total_flops())

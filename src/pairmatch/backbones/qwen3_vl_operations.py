"""Number of operations of Qwen3-VL, from its configuration alone.

A product of matrices [n, d] and [d, m] takes 2 n d m operations. Per token, a layer of width d with
an MLP of width f takes 2 (attention weights + MLP weights); attention takes 4 n d per token more, n
the number of tokens of the sequence. Logits are not computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Qwen3VLShape:
    """Sizes that decide the number of operations; the defaults are those of the 2B models.

    Attributes:
        layers: Number of layers of the language model.
        width: Its width.
        mlp: Width of its MLPs, which have three matrices.
        heads: Width of all attention heads.
        key_heads: Width of all key heads; that of the value heads is equal.
        vision_layers: Number of layers of the image encoder.
        vision_width: Its width.
        vision_mlp: Width of its MLPs, which have two matrices.
        patch_values: Number of pixel values of a patch, for two frames.
        merged: Number of patches of an image token.
        mergers: Number of maps from patches to image tokens.
    """

    layers: int = 28
    width: int = 2048
    mlp: int = 6144
    heads: int = 2048
    key_heads: int = 1024
    vision_layers: int = 24
    vision_width: int = 1024
    vision_mlp: int = 4096
    patch_values: int = 3 * 2 * 16 * 16
    merged: int = 4
    mergers: int = 4

    @classmethod
    def of(cls, config: Any) -> Qwen3VLShape:
        """The sizes in a configuration of transformers."""
        text, vision = config.text_config, config.vision_config
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        patch = vision.temporal_patch_size * vision.patch_size**2
        return cls(
            layers=text.num_hidden_layers,
            width=text.hidden_size,
            mlp=text.intermediate_size,
            heads=text.num_attention_heads * head,
            key_heads=text.num_key_value_heads * head,
            vision_layers=vision.depth,
            vision_width=vision.hidden_size,
            vision_mlp=vision.intermediate_size,
            patch_values=vision.in_channels * patch,
            merged=vision.spatial_merge_size**2,
            mergers=1 + len(vision.deepstack_visual_indexes),
        )

    def text_operations(self, tokens: int) -> float:
        """Operations of the language model for a sequence of image and text tokens."""
        weights = self.width * (2 * self.heads + 2 * self.key_heads + 3 * self.mlp)
        return 2.0 * self.layers * tokens * (weights + 2 * tokens * self.heads)

    def image_operations(self, tokens: int) -> float:
        """Operations of the image encoder for a photo of some image tokens."""
        patches = tokens * self.merged
        d = self.vision_width
        layer = 4 * d * d + 2 * d * self.vision_mlp + 2 * patches * d
        joined = d * self.merged
        merger = tokens * joined * (joined + self.width)
        encoder = patches * (self.patch_values * d + self.vision_layers * layer)
        return 2.0 * (encoder + self.mergers * merger)

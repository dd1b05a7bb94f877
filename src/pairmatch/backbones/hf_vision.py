"""Image encoders from transformers: DINOv2 and DINOv3, SigLIP, ViT, ConvNeXt, …"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from pairmatch.backbones.hf_operations import photo_operations
from pairmatch.backbones.photos import by_person, mean_by_person
from pairmatch.core.devices import resolve_device, resolve_dtype
from pairmatch.core.errors import BackboneError
from pairmatch.core.interfaces import Backbone
from pairmatch.core.types import Item, TokenStates
from pairmatch.io.adapters import Adapter, adapted, adapter_entry
from pairmatch.io.checkpoints import (
    check_unchanged,
    checkpoint_fingerprint,
    freeze,
    load_network,
    load_pretrained,
)
from pairmatch.io.images import load_image

# Larger photos are shrunk to this size before the checkpoint's own processor resizes them
_LONGEST_SIDE_PX = 2048


class HFVisionBackbone(Backbone):
    """An image encoder by hub name or folder. Choose it for DINOv2/3, SigLIP 2 and the like.

    For models with two towers (SigLIP, CLIP), only the image tower is used. The pooler `native`
    returns the model's own pooled output, or the mean of its tokens if it has none, averaged over
    a person's photos. `mean` pools all tokens, `image-mean` the patches without class and register
    tokens.

    Args:
        model: Hub name or folder.
        revision: Branch, tag or commit of a hub model.
        adapter: `Adapter`, or the folder of one, that fine-tuning made for this model.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        device: `auto`, `cpu`, `cuda`, …

    Raises:
        BackboneError: At the first use, if the weights are missing, the folder is wrong, or the
            model is not an image encoder.
    """

    default_pooler: ClassVar[str] = "native"

    def __init__(
        self,
        *,
        model: str,
        revision: str | None = None,
        adapter: Adapter | str | Path | None = None,
        dtype: str = "auto",
        device: str = "auto",
    ) -> None:
        self.model = str(model)
        self.revision = revision
        self.adapter = Adapter.of(adapter)
        self.dtype = dtype
        self.device = device
        self._device = resolve_device(device)
        self._dtype = resolve_dtype(dtype, self._device)
        if self._device.type == "cpu":
            self.workers = 1

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        return load_pretrained(AutoConfig, self.model, self.revision)

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoImageProcessor

        assert self._weights
        processor = load_pretrained(AutoImageProcessor, self.model, self.revision)
        check_unchanged(self._weights, self.model, self.revision, self._config)
        return processor

    @cached_property
    def _weights(self) -> Mapping[str, str | None]:
        """What identifies the checkpoint, read once: what is in memory stays as it was loaded."""
        return checkpoint_fingerprint(self.model, self.revision, self._config)

    @cached_property
    @torch.inference_mode(False)  # weights that are made in it can never be in a graph
    def _network(self) -> Any:
        from transformers import AutoModel

        assert self._weights
        if self._config.model_type == "vit_mae":
            raise BackboneError(
                f"{self.model} is a masked autoencoder, which reads a random quarter of the "
                "patches: the features of a photo would differ each time. Choose a ViT, DINOv2 or "
                "SigLIP."
            )
        model = load_network(
            AutoModel,
            self.model,
            self.revision,
            unused=("text_model", "text_projection", "logit_"),
            dtype=self._dtype,
        )
        self._has_pooler = not any("pooler" in name for name in model.missing_weights)
        tower = getattr(model, "vision_model", model)
        if tower is model and getattr(model, "main_input_name", "") != "pixel_values":
            raise BackboneError(
                f"{self.model} is a {type(model).__name__}, which does not read images; text "
                "encoders load with the backbone 'hf-text'."
            )
        check_unchanged(self._weights, self.model, self.revision, self._config)
        network = freeze(tower, self._device, self._dtype)
        return adapted(network, self.adapter, model=self.model)

    @property
    def network(self) -> Any:
        """The network that fine-tuning adapts."""
        return self._network

    @cached_property
    def dim(self) -> int:
        """Width of the token states."""
        config = getattr(self._config, "vision_config", self._config)
        width = getattr(config, "hidden_size", None) or getattr(config, "hidden_sizes", [None])[-1]
        if not isinstance(width, int):
            raise BackboneError(
                f"{self.model} is a {config.model_type!r} checkpoint, whose configuration states "
                "no hidden_size: 'hf-vision' loads image encoders such as DINOv2, SigLIP or ViT."
            )
        return width

    @cached_property
    def _operations(self) -> float | None:
        """Number of floating-point operations for a photo of 640 × 480 pixels."""
        from transformers import AutoImageProcessor

        processor = load_pretrained(AutoImageProcessor, self.model, self.revision)
        photo = processor(images=Image.new("RGB", (640, 480)), return_tensors="pt")
        return photo_operations(self._config, photo)

    def operations(self, item: Item) -> float | None:
        """Number of floating-point operations; None if torch cannot count them."""
        each = self._operations
        return None if each is None else len(item.images) * each

    def prepare(self, items: Sequence[Item]) -> tuple[dict[str, Tensor], list[int]]:
        """The model inputs for all photos, from the checkpoint's processor, and photo counts."""
        photos = [
            load_image(image, longest_side_px=_LONGEST_SIDE_PX)
            for item in items
            for image in item.images
        ]
        outputs = [self._processor(images=photo, return_tensors="pt") for photo in photos]
        inputs = {
            name: torch.cat([output[name] for output in outputs])
            for name in outputs[0]
            if name in self._input_names
        }
        return inputs, [len(item.images) for item in items]

    @cached_property
    def _input_names(self) -> frozenset[str]:
        """Names of the inputs that the model takes."""
        return frozenset(inspect.signature(self._network.forward).parameters)

    def forward(self, batch: tuple[dict[str, Tensor], list[int]]) -> TokenStates:
        """Token states of each person's photos, concatenated, and the pooled output."""
        prepared, counts = batch
        inputs = {name: value.to(self._device) for name, value in prepared.items()}
        pixels = inputs["pixel_values"].to(self._dtype)
        inputs["pixel_values"] = pixels
        output = self._network(**inputs)
        tokens = output.last_hidden_state
        if tokens.ndim == 4:  # convolutional: [photos, D, rows, columns]
            tokens = tokens.flatten(2).transpose(1, 2)
        real = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        if "pixel_attention_mask" in inputs:  # native aspect, padded (SigLIP 2 NaFlex)
            real = inputs["pixel_attention_mask"].bool()
        # A pooler whose weights the checkpoint lacks would return random numbers
        pooled = getattr(output, "pooler_output", None) if self._has_pooler else None
        if pooled is None:
            weights = real.unsqueeze(-1).float()
            pooled = (tokens.float() * weights).sum(1) / weights.sum(1)
        else:
            pooled = pooled.flatten(1)
        states, mask = by_person(tokens, counts)
        mask = mask & by_person(real.unsqueeze(-1), counts)[0].squeeze(-1)
        patches = torch.arange(tokens.shape[1], device=tokens.device) >= self._prefix(
            pixels, tokens.shape[1]
        )
        image_mask = mask & patches.repeat(max(counts))[None, :]
        return TokenStates(
            states=states, mask=mask, image_mask=image_mask, pooled=mean_by_person(pooled, counts)
        )

    def _prefix(self, pixels: Tensor, tokens: int) -> int:
        """Number of class and register tokens before the patches."""
        patch = getattr(getattr(self._config, "vision_config", self._config), "patch_size", None)
        if not isinstance(patch, int) or pixels.ndim != 4:
            return 0
        return max(0, tokens - (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch))

    def fingerprint(self) -> Mapping[str, Any]:
        """Weights (folder digest or hub commit), number format, and library versions."""
        return {
            "backbone": "hf-vision",
            "format": 1,
            **self._weights,
            **adapter_entry(self.adapter),
            "dtype": str(self._dtype),
            "transformers": version("transformers"),
            "torch": torch.__version__,
            "torchvision": version("torchvision"),
            "pillow": version("pillow"),
        }

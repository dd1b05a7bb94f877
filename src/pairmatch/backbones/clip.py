"""CLIP models through open_clip."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from pairmatch.backbones.photos import by_person, mean_by_person
from pairmatch.core.devices import resolve_device, resolve_dtype
from pairmatch.core.errors import BackboneError, ConfigurationError
from pairmatch.core.interfaces import Backbone
from pairmatch.core.text import PLAIN_PROMPT
from pairmatch.core.types import Item, TokenStates
from pairmatch.io.checkpoints import freeze, load_or_explain, weights_digest
from pairmatch.io.files import expand_user
from pairmatch.io.images import load_image


class CLIPBackbone(Backbone):
    """A CLIP image encoder, optionally with its text encoder. A small, fast alternative to a VLM.

    The pooler `native` returns the projected image embedding, unit length, averaged over a
    person's photos. With `text=True`, the unit-length text embedding of the prompt is
    concatenated to it; a missing photo or text becomes zeros. `mean` and `image-mean` pool the
    image tokens before the projection, if the architecture has them (ViT).

    Args:
        model: Architecture name in open_clip.
        pretrained: Weights tag in open_clip, or path to a weights file.
        text: Whether to read the profile text too, as it is, without the labels of the recipe's
            prompt. CLIP's text encoder reads 77 tokens; the excess is cut off.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        device: `auto`, `cpu`, `cuda`, …
        random_weights: Whether to use random weights instead of `pretrained`: for testing a
            pipeline, never for results.

    Raises:
        ConfigurationError: open_clip has no architecture `model`.
        BackboneError: At the first use, if the weights cannot be loaded.
    """

    default_pooler: ClassVar[str] = "native"
    default_prompt: ClassVar[str | None] = PLAIN_PROMPT

    def __init__(
        self,
        *,
        model: str = "ViT-B-32",
        pretrained: str = "laion2b_s34b_b79k",
        text: bool = False,
        dtype: str = "auto",
        device: str = "auto",
        random_weights: bool = False,
    ) -> None:
        import open_clip

        self.model = model
        self.pretrained = pretrained
        self.text = text
        self.dtype = dtype
        self.device = device
        self.random_weights = random_weights
        self.reads_text = text
        self._device = resolve_device(device)
        self._dtype = resolve_dtype(dtype, self._device)
        if self._device.type == "cpu":
            self.workers = 1
        if ":" in model or open_clip.get_model_config(model) is None:
            raise ConfigurationError(
                f"open_clip has no model {model!r}; it has "
                f"{', '.join(open_clip.list_models()[:8])}, … (open_clip.list_models()). Name "
                "weights in a file with pretrained=PATH (command line: --set "
                "backbone.pretrained=PATH)."
            )

    @cached_property
    def _weights(self) -> str:
        """What identifies the weights, read once: what is in memory stays as it was loaded."""
        return self._identify_weights()

    def _identify_weights(self) -> str:
        if self.random_weights:
            return "random"
        file = expand_user(self.pretrained)
        return weights_digest(file) if file.exists() else self.pretrained

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """Model and preprocessing."""
        import open_clip

        def load() -> tuple[Any, Any]:
            if self.random_weights:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    model, _, preprocess = open_clip.create_model_and_transforms(
                        self.model, load_weights=False
                    )
            else:
                model, preprocess = open_clip.create_model_from_pretrained(
                    self.model, pretrained=self.pretrained
                )
            return model, preprocess

        read = self._weights
        model, preprocess = load_or_explain(load, model=self.pretrained, option="pretrained")
        if self._identify_weights() != read:
            raise BackboneError(
                f"The file {self.pretrained} changed after it was first read: run again, and in "
                "Python make a new object."
            )
        if hasattr(model.visual, "output_tokens"):
            model.visual.output_tokens = True
        return freeze(model, self._device, self._dtype), preprocess

    @cached_property
    def _tokenize(self) -> Any:
        import open_clip

        return load_or_explain(
            lambda: open_clip.get_tokenizer(self.model), model=self.model, option="model"
        )

    @cached_property
    def _padding(self) -> int:
        """Id of the padding token: that of a tokenizer from transformers, or CLIP's own 0."""
        tokenizer = getattr(self._tokenize, "tokenizer", None)
        return getattr(tokenizer, "pad_token_id", None) or 0

    @cached_property
    def _config(self) -> dict[str, Any]:
        import open_clip

        return open_clip.get_model_config(self.model)

    @property
    def dim(self) -> int:
        """Width P of the pooled output: the width of one embedding, or two with text."""
        return int(self._config["embed_dim"]) * (2 if self.text else 1)

    @cached_property
    def _operations(self) -> tuple[int, int]:
        """Number of floating-point operations for a photo, and for a text."""
        import open_clip
        from torch.utils.flop_counter import FlopCounterMode

        with torch.device("meta"), torch.inference_mode():
            model = open_clip.create_model(self.model, load_weights=False, device="meta")
            size = self._config["vision_cfg"].get("image_size", 224)
            with FlopCounterMode(display=False) as photo:
                model.visual(torch.zeros(1, 3, size, size))
            if not self.text:
                return photo.get_total_flops(), 0
            length = self._config["text_cfg"].get("context_length", 77)
            with FlopCounterMode(display=False) as text:
                model.encode_text(torch.zeros(1, length, dtype=torch.long))
        return photo.get_total_flops(), text.get_total_flops()

    def operations(self, item: Item) -> float:
        """Number of floating-point operations, counted on a model without weights."""
        photo, text = self._operations
        return len(item.images) * photo + text

    def prepare(
        self, items: Sequence[Item]
    ) -> tuple[Tensor | None, list[int], Tensor | None, list[bool]]:
        """Pixels of all photos, photo counts, tokens of all texts, and whether each has a text."""
        _, preprocess = self._loaded
        longest_side_px = 4 * int(self._config["vision_cfg"].get("image_size", 224))
        pixels = [
            preprocess(load_image(image, longest_side_px=longest_side_px))
            for item in items
            for image in item.images
        ]
        counts = [len(item.images) for item in items]
        if not self.text:
            return torch.stack(pixels), counts, None, []
        texts = [item.text for item in items]
        tokens = self._tokenize([_plain(text) for text in texts])
        self.truncated += int((tokens[:, -1] != self._padding).sum())
        return (
            torch.stack(pixels) if pixels else None,
            counts,
            tokens,
            [bool(text) for text in texts],
        )

    def forward(
        self, batch: tuple[Tensor | None, list[int], Tensor | None, list[bool]]
    ) -> TokenStates:
        """Token states of the photos, if all people have one, and the pooled output."""
        model, _ = self._loaded
        pixels, counts, tokens, has_text = batch
        width = int(self._config["embed_dim"])
        pooled = torch.zeros(len(counts), width, device=self._device)
        states = mask = None
        if pixels is not None:
            output = model.visual(pixels.to(self._device, self._dtype))
            embeddings, patches = output if isinstance(output, tuple) else (output, None)
            with_photos = [row for row, count in enumerate(counts) if count]
            means = mean_by_person(
                F.normalize(embeddings.float(), dim=-1), [counts[row] for row in with_photos]
            )
            pooled[with_photos] = F.normalize(means, dim=-1)
            if patches is not None and len(with_photos) == len(counts):
                states, mask = by_person(patches, counts)
        if tokens is not None:
            text = F.normalize(model.encode_text(tokens.to(self._device)).float(), dim=-1)
            text_mask = torch.tensor(has_text, device=self._device)[:, None]
            pooled = torch.cat([pooled, text * text_mask], dim=1)
        return TokenStates(states=states, mask=mask, image_mask=mask, pooled=pooled)

    def fingerprint(self) -> Mapping[str, Any]:
        """Architecture, weights (tag or file digest), number format, text, library versions."""
        return {
            "backbone": "clip",
            "format": 3 if self.text else 2,  # 2 read the labels of the recipe's prompt
            "model": self.model,
            "weights": self._weights,
            "text": self.text,
            "dtype": str(self._dtype),
            "open-clip-torch": version("open-clip-torch"),
            "torch": torch.__version__,
            "pillow": version("pillow"),
        }


def _plain(text: str) -> str:
    """The text with special tokens spelled as plain words, so that a bio cannot inject them.

    The tokenizer unescapes HTML and lowercases before it looks for special tokens.
    """
    return re.sub(
        "(start|end)_of_text",
        r"\1 of text",
        html.unescape(html.unescape(text)),
        flags=re.IGNORECASE,
    )

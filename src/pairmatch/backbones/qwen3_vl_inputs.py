"""Inputs of Qwen3-VL: photo sizes, and the token ids of a person in the chat template."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pairmatch.core.errors import BackboneError, ImageError
from pairmatch.io.images import image_size, load_image

# Marks the text while the chat template is rendered; private-use characters
_TEXT_MARK = "\ue000text\ue000"
_TOKEN_PX = 32  # one image token covers 32 × 32 pixels: patches of 16, merged 2 × 2
_MAX_ASPECT = 200  # limit of the checkpoint's own image processor

#: Returns the messages around a person's content and whether to open the assistant's turn.
Conversation = Callable[[list[dict[str, str]]], tuple[list[dict[str, Any]], bool]]


class PhotoSizer:
    """Brings photos to the size at which the checkpoint's image processor reads them.

    Args:
        min_pixels: Smaller photos are enlarged to this number of pixels.
        max_pixels: Larger photos are shrunk to this number of pixels.
    """

    def __init__(self, min_pixels: int, max_pixels: int) -> None:
        self.min_pixels = min_pixels
        self.max_pixels = max_pixels

    def target_size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) in pixels to which the checkpoint's image processor resizes a photo."""
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        return smart_resize(height, width, _TOKEN_PX, self.min_pixels, self.max_pixels)

    def token_count(self, source: Any) -> int:
        """Number of image tokens, from the photo's header; 0 if `load` would reject the photo."""
        width, height = image_size(source)
        if max(width, height) > _MAX_ASPECT * min(width, height):
            return 0
        target_height, target_width = self.target_size(width, height)
        return target_height * target_width // _TOKEN_PX**2

    def load(self, source: Any) -> tuple[Image.Image, bool]:
        """The photo, and whether it already has its final size.

        Photos of more than twice the final size are resized here, which is faster than in the
        image processor.

        Raises:
            ImageError: The photo cannot be read, or is more than 200 times as long as wide.
        """
        width, height = image_size(source)
        if max(width, height) > _MAX_ASPECT * min(width, height):
            name = source if isinstance(source, str | Path) else "a photo"
            raise ImageError(
                f"{name}: {width} × {height} pixels; the longer side must be at most "
                f"{_MAX_ASPECT} times the shorter one."
            )
        target_height, target_width = self.target_size(width, height)
        if min(width / target_width, height / target_height) <= 2:
            return load_image(source), False
        longest_side_px = math.ceil(
            2 * max(target_width, target_height * width / height, target_width * height / width)
        )
        photo = load_image(source, longest_side_px=longest_side_px)
        target = (target_width, target_height)
        return photo.resize(target, Image.Resampling.BICUBIC, reducing_gap=3.0), True


class PersonTokenizer:
    """Token ids of one person: image tokens and text inside the chat template.

    Text is tokenized separately from the template with special tokens split, so `<|im_end|>` or
    `<|image_pad|>` in a bio is plain text. Not thread-safe: a fast tokenizer keeps the settings
    of the current call.

    Args:
        processor: The checkpoint's processor.
        image_token: Id of the token that stands for an image patch.
        max_text_tokens: Maximum number of tokens of a person's text.
        max_tokens: Maximum number of tokens of a person: the positions of the checkpoint.
        conversation: Wraps a person's content in messages.
        model: Name of the checkpoint, for error messages.
    """

    def __init__(
        self,
        processor: Any,
        *,
        image_token: int,
        max_text_tokens: int,
        max_tokens: int,
        conversation: Conversation,
        model: str,
    ) -> None:
        self._processor = processor
        self._image_token = image_token
        self._max_text_tokens = max_text_tokens
        self._max_tokens = max_tokens
        self._conversation = conversation
        self._model = model
        self._frames: dict[tuple[int, bool], tuple[list[int], list[int]]] = {}

    def encode(self, image_tokens: Sequence[int], text: str) -> tuple[list[int], bool]:
        """Token ids, and whether the text was cut off.

        Args:
            image_tokens: Number of tokens of each photo.
            text: The person's text; may be empty.

        Raises:
            BackboneError: The chat template does not contain the text exactly once, or the photos
                alone exceed the positions of the checkpoint.
        """
        before, after = self._frame(len(image_tokens), bool(text))
        text_ids: list[int] = self._tokenize(text, split_special_tokens=True) if text else []
        ids: list[int] = []
        counts = iter(image_tokens)
        for token in before:
            ids += [token] * (next(counts) if token == self._image_token else 1)
        room = min(self._max_text_tokens, self._max_tokens - len(ids) - len(after))
        if room < 0:
            raise BackboneError(
                f"{len(image_tokens)} photos take {len(ids) + len(after):,} tokens, and "
                f"{self._model} reads {self._max_tokens:,}: set a smaller max_pixels= (command "
                "line: --set backbone.max_pixels=N)."
            )
        return ids + text_ids[:room] + after, len(text_ids) > room

    def _frame(self, photos: int, has_text: bool) -> tuple[list[int], list[int]]:
        """Token ids of the rendered chat template before and after the text."""
        key = (photos, has_text)
        if key not in self._frames:
            content = [{"type": "image"} for _ in range(photos)]
            if has_text:
                content.append({"type": "text", "text": _TEXT_MARK})
            messages, opened = self._conversation(content)
            rendered = self._processor.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=opened
            )
            parts = rendered.split(_TEXT_MARK) if has_text else [rendered, ""]
            if len(parts) != 2:
                raise BackboneError(
                    f"The chat template of {self._model} must contain a person's text exactly "
                    f"once, but contains it {len(parts) - 1} times."
                )
            before, after = (self._tokenize(part, split_special_tokens=False) for part in parts)
            self._frames[key] = (before, after)
        return self._frames[key]

    def _tokenize(self, text: str, *, split_special_tokens: bool) -> list[int]:
        encoded = self._processor.tokenizer(
            text, add_special_tokens=False, split_special_tokens=split_special_tokens
        )
        return list(encoded["input_ids"])

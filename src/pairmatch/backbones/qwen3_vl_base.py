"""The shared part of the Qwen3-VL backbones: loading, input preparation and the forward pass."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pairmatch.backbones.qwen3_vl_inputs import PersonTokenizer, PhotoSizer
from pairmatch.backbones.qwen3_vl_operations import Qwen3VLShape
from pairmatch.core.devices import intra_op_threads, resolve_device, resolve_dtype
from pairmatch.core.errors import BackboneError, ConfigurationError, MissingWeightsError
from pairmatch.core.interfaces import Backbone
from pairmatch.core.types import Item, TokenStates
from pairmatch.io.adapters import Adapter, adapted, adapter_entry
from pairmatch.io.checkpoints import (
    check_memory,
    check_unchanged,
    checkpoint_fingerprint,
    freeze,
    load_network,
    load_pretrained,
)

_BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
_MODELS_2B = ("Qwen/Qwen3-VL-2B-Instruct", "Qwen/Qwen3-VL-Embedding-2B")


class Qwen3VL(Backbone):
    """A frozen Qwen3-VL network. Final classes add the conversation and the end token."""

    reads_text = True

    def __init__(
        self,
        *,
        model: str | Path,
        revision: str | None,
        max_pixels: int,
        min_pixels: int,
        max_text_tokens: int,
        layers: Sequence[int],
        attention: str,
        adapter: Adapter | str | Path | None,
        dtype: str,
        device: str,
        threads: int | None,
    ) -> None:
        if not 0 < min_pixels <= max_pixels or max_text_tokens < 1:
            raise ConfigurationError(
                f"`{type(self).__name__}(...)` needs 0 < min_pixels ≤ max_pixels and "
                f"max_text_tokens of at least 1, got {min_pixels}, {max_pixels} and "
                f"{max_text_tokens}."
            )
        self.model = str(model)
        self.revision = revision
        self.max_pixels = max_pixels
        self.min_pixels = min_pixels
        self.max_text_tokens = max_text_tokens
        self.layers = tuple(layers)
        self.attention = attention
        self.adapter = Adapter.of(adapter)
        self.dtype = dtype
        self.device = device
        self.threads = threads
        self._device = resolve_device(device)
        self._dtype = resolve_dtype(dtype, self._device)
        self.max_batch_length = _BATCH_TOKENS.get(self._device.type, 4096)
        if self._device.type == "cpu":
            self.workers = 1
        self._sizer = PhotoSizer(min_pixels, max_pixels)
        self._tokenizer_lock = threading.Lock()

    @abstractmethod
    def _conversation(self, content: list[dict[str, str]]) -> tuple[list[dict[str, Any]], bool]:
        """Messages around a person's content, and whether to open the assistant's turn."""

    @abstractmethod
    def _end(self, ids: list[int]) -> int:
        """Position of the token that ends the sequence."""

    # Loading

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        config = load_pretrained(AutoConfig, self.model, self.revision)
        if config.model_type != "qwen3_vl":
            raise BackboneError(
                f"{self.model} is a {config.model_type!r} checkpoint; this backbone only loads "
                "'qwen3_vl'. Image encoders load with the backbone 'hf-vision', text encoders "
                "with 'hf-text'."
            )
        return config

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoProcessor

        assert self._weights
        processor = load_pretrained(AutoProcessor, self.model, self.revision)
        check_unchanged(self._weights, self.model, self.revision, self._config)
        return processor

    @cached_property
    def _tokenizer(self) -> PersonTokenizer:
        return PersonTokenizer(
            self._processor,
            image_token=self._image_token,
            max_text_tokens=self.max_text_tokens,
            max_tokens=int(self._config.text_config.max_position_embeddings),
            conversation=self._conversation,
            model=self.model,
        )

    @cached_property
    def _weights(self) -> Mapping[str, str | None]:
        """What identifies the checkpoint, read once: what is in memory stays as it was loaded."""
        return checkpoint_fingerprint(self.model, self.revision, self._config)

    @cached_property
    @torch.inference_mode(False)  # weights that are made in it can never be in a graph
    def _network(self) -> Any:
        """The base model without the language-model head, so that no logits are computed."""
        from transformers import AutoModel

        assert self._weights
        check_memory(self.model, self.revision, self._dtype, self._device)
        network = load_network(
            AutoModel,
            self.model,
            self.revision,
            dtype=self._dtype,
            attn_implementation=self.attention,
        )
        check_unchanged(self._weights, self.model, self.revision, self._config)
        network = freeze(network, self._device, self._dtype)
        return adapted(network, self.adapter, model=self.model)

    @property
    def network(self) -> Any:
        """The network that fine-tuning adapts."""
        return self._network

    @cached_property
    def _shape(self) -> Qwen3VLShape | None:
        """Sizes of the model; those of the 2B models are known without their configuration."""
        try:
            return Qwen3VLShape.of(self._config)
        except MissingWeightsError:
            return Qwen3VLShape() if self.model in _MODELS_2B else None

    @cached_property
    def _image_token(self) -> int:
        return int(self._config.image_token_id)

    @cached_property
    def _turn_end(self) -> int:
        return int(self._processor.tokenizer.convert_tokens_to_ids("<|im_end|>"))

    @cached_property
    def _pad(self) -> int:
        tokenizer = self._processor.tokenizer
        return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self._turn_end)

    # Input

    @property
    def dim(self) -> int:
        """Width D of the token states: 2,048 for the 2B model."""
        return int(self._config.text_config.hidden_size)

    def length(self, item: Item) -> int:
        """Image tokens by the photo headers, plus about one token per three characters of text."""
        image_tokens = sum(self._sizer.token_count(image) for image in item.images)
        return image_tokens + min(self.max_text_tokens, len(item.text) // 3) + 12

    def operations(self, item: Item) -> float | None:
        """Number of floating-point operations; None for a model of unknown size."""
        if self._shape is None:
            return None
        images = sum(
            self._shape.image_operations(self._sizer.token_count(image)) for image in item.images
        )
        return images + self._shape.text_operations(self.length(item))

    def prepare(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Token ids, padded on the right, and the patches of all photos.

        Text is tokenized separately from the chat template with special tokens split, so
        `<|im_end|>` or `<|image_pad|>` in a bio is plain text.

        Raises:
            ImageError: A photo cannot be read, or is more than 200 times as long as wide.
        """
        patches: list[Tensor] = []
        grids: list[Tensor] = []
        rows: list[Tensor] = []
        ends: list[int] = []
        merge = self._processor.image_processor.merge_size**2
        for item in items:
            image_tokens = []
            for image in item.images:
                pixels, grid = self._patches(image)
                patches.append(pixels)
                grids.append(grid)
                image_tokens.append(int(grid.prod()) // merge)
            ids = self._ids(image_tokens, item.text)
            rows.append(torch.tensor(ids))
            ends.append(self._end(ids))
        batch = self._padded(rows)
        batch["end"] = torch.tensor(ends)
        if patches:
            batch |= {"pixel_values": torch.cat(patches), "image_grid_thw": torch.cat(grids)}
        if self._device.type == "cuda":
            batch = {key: value.pin_memory() for key, value in batch.items()}
        return batch

    def _patches(self, image: Any) -> tuple[Tensor, Tensor]:
        """Pixel values of one photo's patches, and their grid [1, 3] (time, rows, columns)."""
        photo, has_final_size = self._sizer.load(image)
        output = self._processor.image_processor(
            images=[photo],
            do_resize=not has_final_size,
            size={"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
            return_tensors="pt",
        )
        return output["pixel_values"], output["image_grid_thw"]

    def _ids(self, image_tokens: Sequence[int], text: str) -> list[int]:
        """Token ids of one person; counts texts that are cut off."""
        with self._tokenizer_lock:
            ids, truncated = self._tokenizer.encode(image_tokens, text)
            self.truncated += truncated
        return ids

    def _padded(self, rows: list[Tensor]) -> dict[str, Tensor]:
        """[B, T] token ids padded on the right, and their masks."""
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self._pad)
        # With an odd length, bfloat16 products on CPUs are 5 to 8 % slower
        ids = torch.nn.functional.pad(ids, (0, ids.shape[1] % 2), value=self._pad)
        mask = torch.arange(ids.shape[1])[None, :] < lengths[:, None]
        return {
            "input_ids": ids,
            "real": mask,
            "mm_token_type_ids": ((ids == self._image_token) & mask).int(),
        }

    # Output

    def forward(self, batch: Mapping[str, Tensor]) -> TokenStates:
        """Last hidden states after the final norm, and the layers named in `layers`."""
        inputs = {key: value.to(self._device, non_blocking=True) for key, value in batch.items()}
        end = inputs.pop("end")
        mask = inputs.pop("real")
        # Padding is on the right and attention is causal, so no real token attends to it. Without
        # a mask, attention takes its fastest path in every batch.
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self._dtype)
        with intra_op_threads(self.threads):
            output = self._network(
                **inputs, use_cache=False, output_hidden_states=bool(self.layers)
            )
        return TokenStates(
            states=output.last_hidden_state,
            mask=mask,
            image_mask=inputs["mm_token_type_ids"].bool(),
            end=end,
            layers={layer: output.hidden_states[layer] for layer in self.layers},
        )

    def fingerprint(self) -> Mapping[str, Any]:
        """Weights (folder digest or hub commit), prompt, image size, number format, versions."""
        return {
            "backbone": type(self).__name__,
            "format": 1,
            **self._weights,
            **adapter_entry(self.adapter),
            "conversation": self._conversation([]),
            "max_pixels": self.max_pixels,
            "min_pixels": self.min_pixels,
            "max_text_tokens": self.max_text_tokens,
            "attention": self.attention,
            "dtype": str(self._dtype),
            "device": self._device.type,
            "transformers": version("transformers"),
            "torch": torch.__version__,
            "torchvision": version("torchvision"),
            "pillow": version("pillow"),
        }

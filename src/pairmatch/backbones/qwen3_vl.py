"""Qwen3-VL, frozen: reads a person's photos and text in one sequence. The recipe's backbone."""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from pairmatch.core.devices import intra_op_threads, resolve_device, resolve_dtype
from pairmatch.core.errors import BackboneError, ConfigurationError, ImageError
from pairmatch.core.interfaces import Backbone
from pairmatch.core.types import Item, TokenStates
from pairmatch.io.checkpoints import check_memory, checkpoint_mark, freeze, load_pretrained
from pairmatch.io.images import image_size, load_image

_TEXT = "\ue000text\ue000"  # stands for the text while the chat template is rendered; private-use characters
_TOKEN_PX = 32  # one image token covers 32 × 32 pixels: patches of 16, merged 2 × 2
_MAX_ASPECT = 200  # the checkpoint's own image processor refuses more
DEFAULT_MAX_PIXELS = (
    448 * 448 + 1
)  # 196 tokens; one more, because the processor rounds an exact square down
DEFAULT_MIN_PIXELS = 64 * 64
_BUDGET_TOKENS = {"cpu": 1024, "cuda": 16384}


class _Qwen3VL(Backbone):
    """What both backbones below do.

    They differ in the conversation around a person and in its last token.
    """

    reads_text = True

    @abstractmethod
    def _conversation(self, content: list[dict[str, str]]) -> tuple[list[dict[str, Any]], bool]:
        """Messages around a person's content, and whether the assistant's turn is opened after them."""

    @abstractmethod
    def _end(self, ids: list[int]) -> int:
        """Position of the token that ends the sequence."""

    def _set(
        self,
        model: str | Path,
        revision: str | None,
        max_pixels: int,
        min_pixels: int,
        max_text_tokens: int,
        layers: Sequence[int],
        attention: str,
        dtype: str,
        device: str,
        threads: int | None,
    ) -> None:
        if not 0 < min_pixels <= max_pixels or max_text_tokens < 1:
            raise ConfigurationError(
                f"`{type(self).__name__}(...)` needs 0 < min_pixels ≤ max_pixels and max_text_tokens of at least 1, "
                f"got {min_pixels}, {max_pixels} and {max_text_tokens}."
            )
        self.model, self.revision = str(model), revision
        self.max_pixels, self.min_pixels, self.max_text_tokens = (
            max_pixels,
            min_pixels,
            max_text_tokens,
        )
        self.layers, self.attention = tuple(layers), attention
        self.dtype, self.device, self.threads = dtype, device, threads
        self._device = resolve_device(device)
        self._dtype = resolve_dtype(dtype, self._device)
        self.max_batch_length = _BUDGET_TOKENS.get(self._device.type, 4096)
        if self._device.type == "cpu":
            self.workers = 1
        self._lock = (
            threading.Lock()
        )  # a fast tokenizer keeps settings of the call at hand: one thread at a time
        self._frames: dict[tuple[int, bool], tuple[list[int], list[int]]] = {}

    # Loading

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        config = load_pretrained(AutoConfig, self.model, self.revision)
        if config.model_type != "qwen3_vl":
            raise BackboneError(
                f"{self.model} is a {config.model_type!r} checkpoint; this backbone loads 'qwen3_vl' alone. "
                "Image encoders load with the backbone 'hf-vision', text encoders with 'hf-text'."
            )
        return config

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoProcessor

        assert self._config is not None
        return load_pretrained(AutoProcessor, self.model, self.revision)

    @cached_property
    def _network(self) -> Any:
        """The base model: no language-model head, so that no logits are computed."""
        from transformers import AutoModel

        assert self._config is not None
        check_memory(self.model, self.revision, self._dtype, self._device)
        loaded = load_pretrained(
            AutoModel,
            self.model,
            self.revision,
            dtype=self._dtype,
            attn_implementation=self.attention,
        )
        return freeze(loaded, self._device, self._dtype)

    # Input

    @property
    def dim(self) -> int:
        """Width D of the token states: 2,048 for the 2B model."""
        return int(self._config.text_config.hidden_size)

    def length(self, item: Item) -> int:
        """Tokens of the photos by their headers, and about one per three characters of text."""
        tokens = 0
        for image in item.images:
            width, height = image_size(image)
            if max(width, height) <= _MAX_ASPECT * min(
                width, height
            ):  # others are refused when they are prepared
                rows, columns = self._seen_size(width, height)
                tokens += rows * columns // _TOKEN_PX**2
        return tokens + min(self.max_text_tokens, len(item.text) // 3) + 12

    def prepare(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Token ids, padded on the right, and the patches of all photos.

        A user's text is tokenised apart from the chat template with special tokens split, so
        `<|im_end|>` or `<|image_pad|>` in a bio is plain text.

        Raises:
            ImageError: A photo that cannot be read, or is more than 200 times as long as wide.
        """
        patches, grids, rows, ends = [], [], [], []
        merge = self._processor.image_processor.merge_size**2
        for item in items:
            counts = []
            for image in item.images:
                photo, sized = self._photo(image)
                found = self._processor.image_processor(
                    images=[photo],
                    do_resize=not sized,
                    size={"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
                    return_tensors="pt",
                )
                patches.append(found["pixel_values"])
                grids.append(found["image_grid_thw"])
                counts.append(int(grids[-1].prod()) // merge)
            sequence = self._ids(counts, item.text)
            rows.append(torch.tensor(sequence))
            ends.append(self._end(sequence))
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self._pad)
        # An odd number of rows makes bfloat16 products on CPUs 5 to 8 % slower
        ids = torch.nn.functional.pad(ids, (0, ids.shape[1] % 2), value=self._pad)
        mask = torch.arange(ids.shape[1])[None, :] < lengths[:, None]
        batch: dict[str, Tensor] = {
            "input_ids": ids,
            "real": mask,
            "mm_token_type_ids": ((ids == self._image_token) & mask).int(),
            "end": torch.tensor(ends),
        }
        if patches:
            batch |= {"pixel_values": torch.cat(patches), "image_grid_thw": torch.cat(grids)}
        if self._device.type == "cuda":
            batch = {key: value.pin_memory() for key, value in batch.items()}
        return batch

    def _photo(self, source: Any) -> tuple[Image.Image, bool]:
        """The photo, and whether it has its final size.

        One more than twice that large is shrunk here: faster.
        """
        width, height = image_size(source)
        if max(width, height) > _MAX_ASPECT * min(width, height):
            name = source if isinstance(source, str | Path) else "a photo"
            raise ImageError(
                f"{name}: {width} × {height} pixels; a side over {_MAX_ASPECT} times the other is refused."
            )
        rows, columns = self._seen_size(width, height)
        if min(width / columns, height / rows) <= 2:
            return load_image(source), False
        photo = load_image(
            source,
            longest_side_px=math.ceil(
                2 * max(columns, rows * width / height, columns * height / width)
            ),
        )
        return photo.resize((columns, rows), Image.Resampling.BICUBIC, reducing_gap=3.0), True

    def _seen_size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) in pixels to which the checkpoint's image processor brings a photo."""
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        return smart_resize(height, width, _TOKEN_PX, self.min_pixels, self.max_pixels)

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

    def _ids(self, image_tokens: Sequence[int], text: str) -> list[int]:
        """Token ids of one person.

        The chat template's frame, image tokens, and the text as plain text.
        """
        with self._lock:
            before, after = self._frame(len(image_tokens), bool(text))
            tokenizer = self._processor.tokenizer
            middle = (
                tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
                if text
                else []
            )
            if len(middle) > self.max_text_tokens:
                self.truncated += 1
                middle = middle[: self.max_text_tokens]
        ids: list[int] = []
        photos = iter(image_tokens)
        for token in before:
            ids += [token] * (next(photos) if token == self._image_token else 1)
        return ids + middle + after

    def _frame(self, photos: int, has_text: bool) -> tuple[list[int], list[int]]:
        """Token ids of the rendered chat template before and after the text."""
        key = (photos, has_text)
        if key not in self._frames:
            content = [{"type": "image"} for _ in range(photos)]
            if has_text:
                content.append({"type": "text", "text": _TEXT})
            messages, opened = self._conversation(content)
            rendered = self._processor.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=opened
            )
            parts = rendered.split(_TEXT) if has_text else [rendered, ""]
            if len(parts) != 2:
                raise BackboneError(
                    f"The chat template of {self.model} does not hold the text of a person once."
                )
            tokenizer = self._processor.tokenizer
            before, after = (
                tokenizer(part, add_special_tokens=False, split_special_tokens=False)["input_ids"]
                for part in parts
            )
            self._frames[key] = (before, after)
        return self._frames[key]

    # Output

    def forward(self, batch: Mapping[str, Tensor]) -> TokenStates:
        """Last hidden states after the final norm, and the layers that were asked for."""
        moved = {key: value.to(self._device, non_blocking=True) for key, value in batch.items()}
        end, mask = moved.pop("end"), moved.pop("real")
        # Padding stands on the right and attention is causal: no real token sees it, so no mask has
        # to be applied, and
        # attention takes its fastest path in every batch
        moved["attention_mask"] = torch.ones_like(moved["input_ids"])
        if "pixel_values" in moved:
            moved["pixel_values"] = moved["pixel_values"].to(self._dtype)
        with intra_op_threads(self.threads):
            found = self._network(**moved, use_cache=False, output_hidden_states=bool(self.layers))
        layers = {layer: found.hidden_states[layer] for layer in self.layers} if self.layers else {}
        return TokenStates(
            states=found.last_hidden_state,
            mask=mask,
            image_mask=moved["mm_token_type_ids"].bool(),
            end=end,
            layers=layers,
        )

    def fingerprint(self) -> Mapping[str, Any]:
        """Weights (digest of a folder, commit of a hub model), prompt, image size, number format, library versions."""
        return {
            "backbone": type(self).__name__,
            "format": 1,
            **checkpoint_mark(self.model, self.revision, self._config),
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


class Qwen3VLBackbone(_Qwen3VL):
    """Qwen3-VL-2B-Instruct, or any other Qwen3-VL: photos and text of a person as one user turn. The default.

    The whole recipe's backbone: mean pooling over every token of the last hidden state (Kim et
    al.). `eos` takes the `<|im_end|>` of the turn, not the newline that the chat template puts
    after it.

    Args:
        model: Hub name or folder of a Qwen3-VL checkpoint of any size.
        revision: Branch, tag or commit of a hub model.
        max_pixels: Photos are shrunk to this many pixels, aspect kept; 32 × 32 pixels make one
            token.
        min_pixels: Photos are enlarged to this many.
        max_text_tokens: Longer texts are cut, with a warning that counts people.
        layers: Further layers to give for poolers with `layer=`; 1 is the first block's output.
        attention: Implementation that transformers knows: `sdpa`, `eager`, `flash_attention_2`.
        dtype: `auto` (bfloat16 on GPUs and on CPUs that multiply it, else float32), or a name.
        device: `auto`, `cpu`, `cuda`, …
        threads: Threads of one operation on the CPU; None leaves torch's setting. Two busy
            processes that both take every core run several times slower than one.

    Raises:
        BackboneError: At the first use: no weights, a wrong folder, another architecture, too
            little memory.
    """

    def __init__(
        self,
        *,
        model: str | Path = "Qwen/Qwen3-VL-2B-Instruct",
        revision: str | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        min_pixels: int = DEFAULT_MIN_PIXELS,
        max_text_tokens: int = 512,
        layers: Sequence[int] = (),
        attention: str = "sdpa",
        dtype: str = "auto",
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        self._set(
            model,
            revision,
            max_pixels,
            min_pixels,
            max_text_tokens,
            layers,
            attention,
            dtype,
            device,
            threads,
        )

    def _conversation(self, content: list[dict[str, str]]) -> tuple[list[dict[str, Any]], bool]:
        return [{"role": "user", "content": content}], False

    def _end(self, ids: list[int]) -> int:
        return len(ids) - 1 - ids[::-1].index(self._turn_end)


class Qwen3VLEmbeddingBackbone(_Qwen3VL):
    """Qwen3-VL-Embedding-2B: the same architecture, trained for retrieval; its authors' prompt and pooling.

    An instruction stands in the system turn, the assistant's turn is opened, and the state of the
    very last token is the vector (the model's paper, section 3.1): the pooler `eos`, which is its
    default.

    Args:
        model: Hub name or folder of a Qwen3-VL-Embedding checkpoint of any size.
        instruction: What the model is told to do; its authors' default.
        revision: As for `qwen3-vl-2b`, like all that follow.
    """

    default_pooler: ClassVar[str] = "eos"

    def __init__(
        self,
        *,
        model: str | Path = "Qwen/Qwen3-VL-Embedding-2B",
        instruction: str = "Represent the user's input.",
        revision: str | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        min_pixels: int = DEFAULT_MIN_PIXELS,
        max_text_tokens: int = 512,
        layers: Sequence[int] = (),
        attention: str = "sdpa",
        dtype: str = "auto",
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.instruction = instruction
        self._set(
            model,
            revision,
            max_pixels,
            min_pixels,
            max_text_tokens,
            layers,
            attention,
            dtype,
            device,
            threads,
        )

    def _conversation(self, content: list[dict[str, str]]) -> tuple[list[dict[str, Any]], bool]:
        system = {"role": "system", "content": [{"type": "text", "text": self.instruction}]}
        return [system, {"role": "user", "content": content}], True

    def _end(self, ids: list[int]) -> int:
        return len(ids) - 1

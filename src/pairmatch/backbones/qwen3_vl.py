"""Qwen3-VL, frozen: reads a person's photos and text in one sequence. The recipe's backbone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pairmatch.backbones.qwen3_vl_base import Qwen3VL
from pairmatch.io.adapters import Adapter

# 196 tokens; one more pixel, because the processor rounds an exact square down
DEFAULT_MAX_PIXELS = 448 * 448 + 1
DEFAULT_MIN_PIXELS = 64 * 64


class Qwen3VLBackbone(Qwen3VL):
    """Qwen3-VL-2B-Instruct or another Qwen3-VL: photos and text as one user turn. The default.

    With mean pooling over every token of the last hidden state, this is the backbone of the recipe
    (Kim et al.). The pooler `eos` reads the `<|im_end|>` of the turn, not the newline that the
    chat template adds after it.

    Args:
        model: Hub name or folder of a Qwen3-VL checkpoint of any size.
        revision: Branch, tag or commit of a hub model.
        max_pixels: Maximum number of pixels per photo; larger photos are shrunk with their aspect
            ratio kept. 32 × 32 pixels make one token.
        min_pixels: Minimum number of pixels per photo; smaller photos are enlarged.
        max_text_tokens: Maximum number of tokens per text; longer texts are cut off, with a
            warning.
        layers: Indices of further layers to return for poolers with `layer=`; 1 is the first
            block's output.
        attention: Attention implementation of transformers: `sdpa`, `eager`,
            `flash_attention_2`.
        adapter: `Adapter`, or the folder of one, that fine-tuning made for this model.
        dtype: `auto` (bfloat16 on GPUs and on CPUs with native support, else float32), `float32`,
            `bfloat16` or `float16`.
        device: `auto`, `cpu`, `cuda`, …
        threads: Number of CPU threads per operation; None for torch's setting. Two processes that
            both use every core run several times slower than one.

    Raises:
        ConfigurationError: A size is out of range.
        BackboneError: At the first use, if the weights are missing, the folder is wrong, the
            architecture is not Qwen3-VL, or there is too little memory.
    """

    default_metadata: ClassVar[str | None] = "gpt-5-nano"

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
        adapter: Adapter | str | Path | None = None,
        dtype: str = "auto",
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        super().__init__(
            model=model,
            revision=revision,
            max_pixels=max_pixels,
            min_pixels=min_pixels,
            max_text_tokens=max_text_tokens,
            layers=layers,
            attention=attention,
            adapter=adapter,
            dtype=dtype,
            device=device,
            threads=threads,
        )

    def _conversation(self, content: list[dict[str, str]]) -> tuple[list[dict[str, Any]], bool]:
        return [{"role": "user", "content": content}], False

    def _end(self, ids: list[int]) -> int:
        return len(ids) - 1 - ids[::-1].index(self._turn_end)


class Qwen3VLEmbeddingBackbone(Qwen3VL):
    """Qwen3-VL-Embedding-2B: the same architecture trained for retrieval.

    Follows the prompt and pooling of the model's authors: an instruction in the system turn, an
    opened assistant turn, and the state of the very last token as the vector (section 3.1 of the
    model's paper). That is the pooler `eos`, the default here.

    Args:
        model: Hub name or folder of a Qwen3-VL-Embedding checkpoint of any size.
        instruction: Task given to the model in the system turn; by default that of its authors.
        revision: Branch, tag or commit of a hub model. This and all further arguments are as for
            `qwen3-vl-2b`.
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
        adapter: Adapter | str | Path | None = None,
        dtype: str = "auto",
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        super().__init__(
            model=model,
            revision=revision,
            max_pixels=max_pixels,
            min_pixels=min_pixels,
            max_text_tokens=max_text_tokens,
            layers=layers,
            attention=attention,
            adapter=adapter,
            dtype=dtype,
            device=device,
            threads=threads,
        )
        self.instruction = instruction

    def _conversation(self, content: list[dict[str, str]]) -> tuple[list[dict[str, Any]], bool]:
        system = {"role": "system", "content": [{"type": "text", "text": self.instruction}]}
        return [system, {"role": "user", "content": content}], True

    def _end(self, ids: list[int]) -> int:
        return len(ids) - 1

"""Text encoders from transformers, which read the rendered prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any, ClassVar

import torch

from pairmatch.core.devices import resolve_device, resolve_dtype
from pairmatch.core.interfaces import Backbone
from pairmatch.core.types import Item, TokenStates
from pairmatch.io.checkpoints import checkpoint_fingerprint, freeze, load_pretrained


class HFTextBackbone(Backbone):
    """A sentence encoder over the rendered prompt. Choose it to add text to an image backbone.

    The default pooler is the mean over real tokens, as most sentence encoders prescribe.

    Args:
        model: Hub name or folder.
        revision: Branch, tag or commit of a hub model.
        max_tokens: Maximum number of tokens per text; longer texts are cut off, with a warning.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        device: `auto`, `cpu`, `cuda`, …

    Raises:
        BackboneError: At the first use, if the weights are missing or the folder is wrong.
    """

    reads_images = False
    reads_text = True
    default_pooler: ClassVar[str] = "mean"

    def __init__(
        self,
        *,
        model: str = "sentence-transformers/all-MiniLM-L6-v2",
        revision: str | None = None,
        max_tokens: int = 256,
        dtype: str = "auto",
        device: str = "auto",
    ) -> None:
        self.model = str(model)
        self.revision = revision
        self.max_tokens = max_tokens
        self.dtype = dtype
        self.device = device
        self._device = resolve_device(device)
        self._dtype = resolve_dtype(dtype, self._device)
        self.max_batch_length = 8192
        self.workers = 1

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        return load_pretrained(AutoConfig, self.model, self.revision)

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return load_pretrained(AutoTokenizer, self.model, self.revision)

    @cached_property
    def _network(self) -> Any:
        from transformers import AutoModel

        return freeze(
            load_pretrained(AutoModel, self.model, self.revision, dtype=self._dtype),
            self._device,
            self._dtype,
        )

    @property
    def dim(self) -> int:
        """Width D of the token states."""
        return int(self._config.hidden_size)

    def length(self, item: Item) -> int:
        """Estimated as one token per four characters."""
        return min(self.max_tokens, len(item.text) // 4 + 2)

    def prepare(self, items: Sequence[Item]) -> Any:
        """Token ids and mask, padded on the right."""
        texts = [item.text for item in items]
        # Special tokens are read as plain text, so that a [SEP] in a bio does not end the text
        uncut = self._tokenizer(texts, split_special_tokens=True)["input_ids"]
        self.truncated += sum(len(ids) > self.max_tokens for ids in uncut)
        return self._tokenizer(
            texts,
            split_special_tokens=True,
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            padding_side="right",
            return_tensors="pt",
        )

    def forward(self, batch: Any) -> TokenStates:
        """Last hidden states, their mask, and the position of the last real token."""
        mask = batch["attention_mask"].bool().to(self._device)
        states = self._network(**batch.to(self._device)).last_hidden_state
        return TokenStates(
            states=states, mask=mask, image_mask=torch.zeros_like(mask), end=mask.sum(1) - 1
        )

    def fingerprint(self) -> Mapping[str, Any]:
        """Weights (folder digest or hub commit), token limit, number format, library versions."""
        return {
            "backbone": "hf-text",
            "format": 2,
            **checkpoint_fingerprint(self.model, self.revision, self._config),
            "max_tokens": self.max_tokens,
            "dtype": str(self._dtype),
            "transformers": version("transformers"),
            "torch": torch.__version__,
        }

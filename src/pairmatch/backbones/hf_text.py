"""Any text encoder of transformers, over the rendered prompt: profile text, chosen attributes and metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch

from pairmatch.frozen import freeze, load_or_explain, resolve_device, resolve_dtype, weights_digest
from pairmatch.interfaces import Backbone
from pairmatch.types import Item, TokenStates


class HFTextBackbone(Backbone):
    """A sentence encoder beside an image backbone: what people write, joined with what they look like.

    Mean pooling over real tokens is the default, as most sentence encoders prescribe.

    Args:
        model: Hub name or folder.
        revision: Branch, tag or commit of a hub model.
        max_tokens: Longer texts are cut, with a warning that says how many.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        device: `auto`, `cpu`, `cuda`, …

    Raises:
        BackboneError: At the first use: no weights or a wrong folder.
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
        self.model, self.revision, self.max_tokens = str(model), revision, max_tokens
        self.dtype, self.device = dtype, device
        self._device = resolve_device(device)
        self._dtype = resolve_dtype(dtype, self._device)
        self.max_batch_length = 8192
        self.workers = 1

    def _load(self, kind: Any, **options: Any) -> Any:
        return load_or_explain(
            lambda: kind.from_pretrained(self.model, revision=self.revision or "main", **options),
            model=self.model,
            option="model",
        )

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        return self._load(AutoConfig)

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return self._load(AutoTokenizer)

    @cached_property
    def _network(self) -> Any:
        from transformers import AutoModel

        return freeze(self._load(AutoModel, dtype=self._dtype), self._device, self._dtype)

    @property
    def dim(self) -> int:
        """Width D of the token states."""
        return int(self._config.hidden_size)

    def length(self, item: Item) -> int:
        """About a token per four characters."""
        return min(self.max_tokens, len(item.text) // 4 + 2)

    def prepare(self, items: Sequence[Item]) -> Any:
        """Token ids and mask, padded on the right."""
        texts = [item.text for item in items]
        self.truncated += sum(len(ids) > self.max_tokens for ids in self._tokenizer(texts)["input_ids"])
        return self._tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            padding_side="right",
            return_tensors="pt",
        )

    def forward(self, batch: Any) -> TokenStates:
        """Last hidden states, their mask, and the last real token."""
        mask = batch["attention_mask"].bool().to(self._device)
        states = self._network(**batch.to(self._device)).last_hidden_state
        return TokenStates(states=states, mask=mask, image_mask=torch.zeros_like(mask), end=mask.sum(1) - 1)

    def fingerprint(self) -> Mapping[str, Any]:
        """Digest of a local folder's files or commit of a hub model, the cut, number format, and library versions."""
        local = Path(self.model).expanduser()
        weights = (
            weights_digest(local) if local.is_dir() else getattr(self._config, "_commit_hash", None) or self.revision
        )
        return {
            "backbone": "hf-text",
            "format": 1,
            "model": None if local.is_dir() else self.model,
            "weights": weights,
            "max_tokens": self.max_tokens,
            "dtype": str(self._dtype),
            "transformers": version("transformers"),
            "torch": torch.__version__,
        }

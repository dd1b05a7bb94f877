"""Text encoders from transformers, which read the rendered prompt."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch

from pairmatch.backbones.hf_operations import TextOperations, encoder_class, encoder_of
from pairmatch.core.devices import resolve_device, resolve_dtype
from pairmatch.core.errors import BackboneError
from pairmatch.core.interfaces import Backbone
from pairmatch.core.text import PLAIN_PROMPT
from pairmatch.core.types import Item, TokenStates
from pairmatch.io.adapters import Adapter, adapted, adapter_entry
from pairmatch.io.checkpoints import (
    check_unchanged,
    checkpoint_fingerprint,
    freeze,
    load_network,
    load_pretrained,
)
from pairmatch.io.files import parse_json, read_file

# Positions of these models start after the padding token's id, so they read fewer tokens than
# their table of positions has rows
_OFFSET_TYPES = frozenset(
    {"camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "mpnet", "roberta"}
    | {"roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"}
)


class HFTextBackbone(Backbone):
    """A sentence encoder of the profile text. Choose it to add text to an image backbone.

    It reads the text as it is, without the labels of the recipe's prompt; prompt attributes and
    metadata, if there are any, follow on lines of their own. The default pooler is the mean over
    real tokens, as most sentence encoders prescribe.

    Args:
        model: Hub name or folder.
        revision: Branch, tag or commit of a hub model.
        max_tokens: Maximum number of tokens per text, or fewer if the checkpoint reads fewer;
            longer texts are cut off, with a warning.
        adapter: `Adapter`, or the folder of one, that fine-tuning made for this model.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        device: `auto`, `cpu`, `cuda`, …

    Raises:
        BackboneError: At the first use, if the weights are missing, the folder is wrong, or the
            model is not a text encoder.
    """

    reads_images = False
    reads_text = True
    default_pooler: ClassVar[str] = "mean"
    default_prompt: ClassVar[str | None] = PLAIN_PROMPT

    def __init__(
        self,
        *,
        model: str = "sentence-transformers/all-MiniLM-L6-v2",
        revision: str | None = None,
        max_tokens: int = 256,
        adapter: Adapter | str | Path | None = None,
        dtype: str = "auto",
        device: str = "auto",
    ) -> None:
        self.model = str(model)
        self.revision = revision
        self.max_tokens = max_tokens
        self.adapter = Adapter.of(adapter)
        self.dtype = dtype
        self.device = device
        self._device = resolve_device(device)
        self._dtype = resolve_dtype(dtype, self._device)
        self.max_batch_length = 8192
        self.workers = 1

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        config = load_pretrained(AutoConfig, self.model, self.revision)
        if hasattr(config, "vision_config") or hasattr(config, "audio_config"):
            raise self._no_text_encoder("reads photos or sound as well as text")
        return config

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        assert self._weights
        tokenizer = load_pretrained(AutoTokenizer, self.model, self.revision)
        if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
            raise BackboneError(
                f"{self.model} holds no tokenizer: copy the tokenizer files (tokenizer.json, "
                "tokenizer_config.json) of the model into its folder."
            )
        if tokenizer.pad_token is None:  # padding is masked, so any token will do
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
        if tokenizer.pad_token is None:
            raise BackboneError(
                f"The tokenizer of {self.model} has no padding token: set `pad_token` in its "
                "tokenizer_config.json."
            )
        check_unchanged(self._weights, self.model, self.revision, self._config)
        return tokenizer

    @cached_property
    def _limit(self) -> int:
        """Number of tokens per text: the smallest of the user's and the checkpoint's limits."""
        config = self._config
        positions = getattr(config, "max_position_embeddings", None)
        if isinstance(positions, int) and config.model_type in _OFFSET_TYPES:
            positions -= (config.pad_token_id or 0) + 1
        limits = [
            self.max_tokens,
            positions,
            self._tokenizer.model_max_length,
            self._sentence_length,
        ]
        # Relative positions are given as -1, and no limit as 1e30
        return min(limit for limit in limits if isinstance(limit, int) and limit > 0)

    @property
    def _sentence_length(self) -> int | None:
        """Limit that sentence-transformers keeps in a file of its own."""
        from transformers.utils import cached_file

        try:
            file = cached_file(
                self.model,
                "sentence_bert_config.json",
                revision=self.revision or "main",
                _raise_exceptions_for_gated_repo=False,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
            settings = parse_json(read_file(Path(file), most_bytes=1_000_000)) if file else None
        except (OSError, ValueError):
            return None
        length = settings.get("max_seq_length") if isinstance(settings, dict) else None
        return length if isinstance(length, int) else None

    @cached_property
    def _weights(self) -> Mapping[str, str | None]:
        """What identifies the checkpoint, read once: what is in memory stays as it was loaded."""
        return checkpoint_fingerprint(self.model, self.revision, self._config)

    @cached_property
    @torch.inference_mode(False)  # weights that are made in it can never be in a graph
    def _network(self) -> Any:
        """The text encoder; of models that also write text, the encoder alone."""
        assert self._weights
        network = load_network(
            encoder_class(self._config), self.model, self.revision, dtype=self._dtype
        )
        network = encoder_of(network, self._config)
        if getattr(network, "main_input_name", "input_ids") != "input_ids":
            raise self._no_text_encoder("does not read text")
        check_unchanged(self._weights, self.model, self.revision, self._config)
        network = freeze(network, self._device, self._dtype)
        return adapted(network, self.adapter, model=self.model)

    @property
    def network(self) -> Any:
        """The network that fine-tuning adapts."""
        return self._network

    def _no_text_encoder(self, reason: str) -> BackboneError:
        from transformers import AutoConfig

        kind = load_pretrained(AutoConfig, self.model, self.revision).model_type
        return BackboneError(
            f"{self.model} is a {kind!r} checkpoint, which {reason}; 'hf-text' loads text encoders "
            "such as BERT, RoBERTa, MPNet or T5. Use 'hf-vision' for its photos, 'clip' with "
            "text=True for CLIP, or 'qwen3-vl-2b' for Qwen3-VL."
        )

    @property
    def dim(self) -> int:
        """Width D of the token states."""
        width = getattr(self._config, "hidden_size", None)
        if not isinstance(width, int):
            raise self._no_text_encoder("states no hidden_size")
        return width

    def length(self, item: Item) -> int:
        """Estimated as one token per four characters."""
        return min(self._limit, len(item.text) // 4 + 2)

    @cached_property
    def _operations(self) -> TextOperations | None:
        return TextOperations.of(self._config)

    def operations(self, item: Item) -> float | None:
        """Number of floating-point operations; None if torch cannot count them."""
        counted = self._operations
        length = min(self.max_tokens, len(item.text) // 4 + 2)  # needs no tokenizer
        return None if counted is None else counted.at(length)

    def prepare(self, items: Sequence[Item]) -> Any:
        """Token ids and mask, padded on the right."""
        texts = [item.text for item in items]
        # Special tokens are read as plain text, so that a [SEP] in a bio does not end the text
        uncut = self._tokenizer(texts, split_special_tokens=True, verbose=False)["input_ids"]
        self.truncated += sum(len(ids) > self._limit for ids in uncut)
        return self._tokenizer(
            texts,
            split_special_tokens=True,
            padding=True,
            truncation=True,
            max_length=self._limit,
            padding_side="right",
            return_tensors="pt",
        )

    @cached_property
    def _input_names(self) -> frozenset[str]:
        """Names of the inputs that the network takes."""
        return frozenset(inspect.signature(self._network.forward).parameters)

    def forward(self, batch: Any) -> TokenStates:
        """Last hidden states, their mask, and the position of the last real token."""
        mask = batch["attention_mask"].bool().to(self._device)
        inputs = {
            name: value.to(self._device)
            for name, value in batch.items()
            if name in self._input_names
        }
        if "use_cache" in self._input_names:  # keys and values are for writing text
            inputs["use_cache"] = False
        try:
            states = self._network(**inputs).last_hidden_state
        except (IndexError, TypeError, AttributeError, KeyError, ValueError) as error:
            raise BackboneError(
                f"{self.model}, a {self._config.model_type!r} checkpoint, cannot read token ids of "
                f"shape {list(mask.shape)} ({type(error).__name__}: {error}). Its tokenizer must "
                "be its own; if texts are too long for it, set max_tokens= (command line: --set "
                "backbone.max_tokens=N)."
            ) from error
        return TokenStates(
            states=states, mask=mask, image_mask=torch.zeros_like(mask), end=mask.sum(1) - 1
        )

    def fingerprint(self) -> Mapping[str, Any]:
        """Weights (folder digest or hub commit), token limit, number format, library versions."""
        return {
            "backbone": "hf-text",
            "format": 3,  # 2 read the recipe's prompt unless it was given another
            **self._weights,
            **adapter_entry(self.adapter),
            "max_tokens": self._limit,
            "dtype": str(self._dtype),
            "transformers": version("transformers"),
            "torch": torch.__version__,
        }

"""Metadata from a Qwen3-VL on this machine: the same schema, without upload or cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import BaseModel

from pairmatch.core.devices import intra_op_threads, resolve_device, resolve_dtype
from pairmatch.core.errors import GeneratorError, ImageError
from pairmatch.core.interfaces import MetadataGenerator, OnOutcome
from pairmatch.core.types import Profile, Refusal, Usage
from pairmatch.io.checkpoints import (
    check_memory,
    check_unchanged,
    checkpoint_fingerprint,
    freeze,
    load_pretrained,
)
from pairmatch.io.images import load_image
from pairmatch.metadata.options import below_minimum, raise_problems
from pairmatch.metadata.outcomes import Answer, add_usage
from pairmatch.metadata.schema import (
    Metadata,
    SchemaSpec,
    instructions,
    json_schema,
    read_reply,
    read_schema,
)

_MAX_ASPECT = 200  # limit of the checkpoint's image processor
_MIN_PIXELS = 64 * 64
# Any change makes all stored outcomes useless
_REPAIR = (
    "That cannot be used: {problem}. Answer again with the whole JSON object and nothing else."
)

# How errors of loading describe this part
_EXPLAINED: dict[str, Any] = {
    "part": "metadata",
    "otherwise": "metadata that needs no model, 'measured' or none",
    "kind": GeneratorError,
}

_ATTEMPTS = 2

Conversation = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Reply:
    """The model's reply to a conversation.

    Attributes:
        text: Decoded text.
        input_tokens: Number of tokens of the prompt and the photo.
        output_tokens: Number of tokens of the reply.
        is_truncated: Whether the reply reached `max_output_tokens`.
    """

    text: str
    input_tokens: int
    output_tokens: int
    is_truncated: bool


class Qwen3VLMetadata(MetadataGenerator):
    """Attributes written by a local Qwen3-VL that was trained to follow instructions.

    Choose it to write the recipe's attributes without sending photos anywhere; it is slow on a CPU.
    Answers are read as JSON and checked against the schema; an invalid answer is requested once
    more. Decoding is greedy, so a photo always gets the same answer.

    Args:
        model: Hub name or folder of an instruction-tuned Qwen3-VL checkpoint of any size.
        schema: Flat pydantic model, or its JSON Schema (an object, or the path to a file); by
            default the recipe's eight attributes.
        revision: Branch, tag or commit of a hub model.
        longest_side_px: Size of the longest side in pixels to which photos are shrunk.
        max_output_tokens: Maximum number of tokens per answer.
        batch_size: Number of photos per batch; None for 8 on GPUs and 1 on CPUs.
        attention: Attention implementation of transformers: `sdpa`, `eager`, `flash_attention_2`.
        dtype: `auto` (bfloat16 on GPUs and on CPUs with native support, else float32), `float32`,
            `bfloat16` or `float16`.
        device: `auto`, `cpu`, `cuda`, …
        threads: Number of CPU threads per operation; None for torch's setting.

    Raises:
        ConfigurationError: An option is out of range, or the schema is not flat.
    """

    def __init__(
        self,
        *,
        model: str | Path = "Qwen/Qwen3-VL-2B-Instruct",
        schema: SchemaSpec = Metadata,
        revision: str | None = None,
        longest_side_px: int = 512,
        max_output_tokens: int = 400,
        batch_size: int | None = None,
        attention: str = "sdpa",
        dtype: str = "auto",
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        problems = below_minimum(32, longest_side_px=longest_side_px)
        problems += below_minimum(1, max_output_tokens=max_output_tokens, batch_size=batch_size)
        raise_problems(self, problems)
        self.model = str(model)
        self.schema = read_schema(schema)
        self.revision = revision
        self.longest_side_px = longest_side_px
        self.max_output_tokens = max_output_tokens
        self.batch_size = batch_size
        self.attention = attention
        self.dtype = dtype
        self.device = device
        self.threads = threads
        self._device = resolve_device(device)
        self._dtype = resolve_dtype(dtype, self._device)

    def fingerprint(self) -> Mapping[str, Any]:
        """Weights, prompt, schema, image size, dtype, device and library versions.

        Weights are identified by the digest of a folder or the commit of a hub model.
        """
        return {
            "generator": "qwen3-vl",
            "format": 1,
            **self._weights,
            "instructions": instructions(self.schema),
            "repair": _REPAIR,
            "schema": json_schema(self.schema),
            "longest_side_px": self.longest_side_px,
            "max_output_tokens": self.max_output_tokens,
            "attention": self.attention,
            "dtype": str(self._dtype),
            "device": self._device.type,
            "transformers": version("transformers"),
            "torch": torch.__version__,
        }

    # Loading

    def _load(self, kind: Any, **options: Any) -> Any:
        return load_pretrained(kind, self.model, self.revision, explained=_EXPLAINED, **options)

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        config = self._load(AutoConfig)
        if config.model_type != "qwen3_vl":
            raise GeneratorError(
                f"{self.model} is a {config.model_type!r} checkpoint; 'qwen3-vl' loads only "
                "'qwen3_vl' checkpoints."
            )
        return config

    @cached_property
    def _weights(self) -> Mapping[str, str | None]:
        """What identifies the checkpoint, read once: what is in memory stays as it was loaded."""
        return checkpoint_fingerprint(self.model, self.revision, self._config)

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoProcessor

        assert self._weights
        processor = self._load(AutoProcessor)
        check_unchanged(self._weights, self.model, self.revision, self._config, kind=GeneratorError)
        return processor

    @cached_property
    def _network(self) -> Any:
        from transformers import AutoModelForImageTextToText

        assert self._weights
        check_memory(self.model, self.revision, self._dtype, self._device, kind=GeneratorError)
        network = self._load(
            AutoModelForImageTextToText, dtype=self._dtype, attn_implementation=self.attention
        )
        check_unchanged(self._weights, self.model, self.revision, self._config, kind=GeneratorError)
        return freeze(network, self._device, self._dtype)

    # Generating

    def generate(
        self,
        profiles: Sequence[Profile],
        on_outcome: OnOutcome | None = None,
        *,
        max_usd: float | None = None,
    ) -> list[BaseModel | Refusal]:
        """Generates metadata for the first photo of every profile, in batches.

        Raises:
            GeneratorError: At the first use, if the weights are missing, the folder is wrong, the
                architecture is not Qwen3-VL, or there is too little memory.
        """
        outcomes: list[BaseModel | Refusal] = [Refusal("stopped")] * len(profiles)
        size = self.batch_size or (1 if self._device.type == "cpu" else 8)
        for start in range(0, len(profiles), size):
            answers = self._generate_batch(profiles[start : start + size])
            for index, (outcome, usage) in enumerate(answers, start):
                outcomes[index] = outcome
                if on_outcome is not None and on_outcome(index, outcome, usage):
                    return outcomes
        return outcomes

    def _generate_batch(self, profiles: Sequence[Profile]) -> list[Answer]:
        """Outcome and cost per profile, in order; invalid answers are requested once more."""
        outcomes: dict[int, BaseModel | Refusal] = {}
        photos: dict[int, Image.Image] = {}
        for index, profile in enumerate(profiles):
            try:
                photos[index] = self._photo(profile)
            except ImageError as error:
                outcomes[index] = Refusal("unreadable", str(error))
        content = [{"type": "image"}, {"type": "text", "text": instructions(self.schema)}]
        conversations: dict[int, Conversation] = {
            index: [{"role": "user", "content": content}] for index in photos
        }
        usage = dict.fromkeys(range(len(profiles)), Usage())
        for _ in range(_ATTEMPTS):
            open_indices = [
                index for index in photos if not isinstance(outcomes.get(index), BaseModel)
            ]
            if not open_indices:
                break
            replies = self._replies(
                [conversations[index] for index in open_indices],
                [photos[index] for index in open_indices],
            )
            for index, reply in zip(open_indices, replies, strict=True):
                usage[index] = add_usage(
                    usage[index], Usage(reply.input_tokens, 0, reply.output_tokens)
                )
                metadata = read_reply(self.schema, _json_object(reply.text))
                if isinstance(metadata, BaseModel):
                    outcomes[index] = metadata
                    continue
                outcomes[index] = Refusal(
                    "truncated" if reply.is_truncated else "invalid",
                    f"{metadata}; reply: {reply.text[:500]}",
                )
                conversations[index] = [
                    *conversations[index],
                    _turn("assistant", reply.text),
                    _turn("user", _REPAIR.format(problem=metadata)),
                ]
        return [(outcomes[index], usage[index]) for index in range(len(profiles))]

    def _photo(self, profile: Profile) -> Image.Image:
        photo = load_image(profile.images[0], longest_side_px=self.longest_side_px)
        if max(photo.size) > _MAX_ASPECT * min(photo.size):
            raise ImageError(
                f"The photo has {photo.width} × {photo.height} pixels; the aspect ratio must not "
                f"exceed {_MAX_ASPECT}."
            )
        return photo

    def _replies(
        self, conversations: Sequence[Conversation], photos: Sequence[Image.Image]
    ) -> list[Reply]:
        """The model's reply to each conversation, in one batch."""
        tokenizer = self._processor.tokenizer
        prompts = [
            self._processor.apply_chat_template(
                conversation, tokenize=False, add_generation_prompt=True
            )
            for conversation in conversations
        ]
        batch = self._processor(
            text=prompts,
            images=[[photo] for photo in photos],
            size={"shortest_edge": _MIN_PIXELS, "longest_edge": self.longest_side_px**2 + 1},
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(self._device)
        batch["pixel_values"] = batch["pixel_values"].to(self._dtype)
        try:
            with torch.inference_mode(), intra_op_threads(self.threads):
                ids = self._network.generate(
                    **batch,
                    max_new_tokens=self.max_output_tokens,
                    do_sample=False,
                    # The checkpoint's sampling settings would cause warnings
                    temperature=None,
                    top_p=None,
                    top_k=None,
                )
        except torch.OutOfMemoryError as error:
            raise GeneratorError(
                f"{self.model} ran out of memory on {len(photos)} photos: lower batch_size or "
                "longest_side_px."
            ) from error
        end_tokens = self._network.generation_config.eos_token_id or tokenizer.eos_token_id
        end_tokens = {end_tokens} if isinstance(end_tokens, int) else set(end_tokens)
        input_tokens = batch["attention_mask"].sum(1).tolist()
        replies = []
        rows = ids[:, batch["input_ids"].shape[1] :].tolist()
        for row, count in zip(rows, input_tokens, strict=True):
            end = next(
                (position for position, token in enumerate(row) if token in end_tokens), None
            )
            text = tokenizer.decode(row[:end], skip_special_tokens=True)
            # `<|` starts special tokens: text that spells one must not become one in a repair turn
            text = text.replace("<|", "< |")
            replies.append(Reply(text, int(count), len(row[:end]), is_truncated=end is None))
        return replies


def _turn(role: str, text: str) -> dict[str, Any]:
    """A turn of text in a conversation."""
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _json_object(text: str) -> str:
    """The JSON object in a reply, without a code fence or other text around it."""
    match = re.search(r"\{.*\}", text, re.DOTALL)
    return match[0] if match else text

"""Metadata from a Qwen3-VL on this machine: the same schema, no photo leaves it, no bill."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import BaseModel

from pairmatch.core.devices import intra_op_threads, resolve_device, resolve_dtype
from pairmatch.core.errors import ConfigurationError, GeneratorError, ImageError
from pairmatch.core.interfaces import MetadataGenerator, OnOutcome
from pairmatch.core.types import Profile, Refusal, Usage
from pairmatch.io.checkpoints import check_memory, checkpoint_mark, freeze, load_pretrained
from pairmatch.io.images import load_image
from pairmatch.metadata.schema import (
    Metadata,
    SchemaSpec,
    instructions,
    json_schema,
    read_reply,
    read_schema,
)

_log = logging.getLogger(__name__)
_MAX_ASPECT = 200  # the checkpoint's own image processor refuses more
_MIN_PIXELS = 64 * 64
_REPAIR = (
    "That cannot be used: {problem}. Answer again with the whole JSON object and nothing else."
)

_EXPLAINED: dict[str, Any] = {
    "part": "metadata",
    "otherwise": "metadata that needs no model, 'measured' or none",
    "kind": GeneratorError,
}

Conversation = list[dict[str, Any]]


class Qwen3VLMetadata(MetadataGenerator):
    """Attributes written by a Qwen3-VL that runs here: instructed, read as JSON, checked, asked once more if wrong.

    Choose it to stay with the recipe's spirit without sending anything anywhere. Slow on a CPU.
    Greedy, so a photo gets the same words every time.

    Args:
        model: Hub name or folder of a Qwen3-VL checkpoint of any size that was trained to follow
            instructions.
        schema: A flat pydantic model, or its JSON Schema (an object, or the path of a file); the
            recipe's eight attributes by default.
        revision: Branch, tag or commit of a hub model.
        longest_side_px: Photos are shrunk to this.
        max_output_tokens: Most tokens of an answer.
        batch_size: Photos that are written about at once; None takes 8 on GPUs and 1 on CPUs.
        attention: Implementation that transformers knows: `sdpa`, `eager`, `flash_attention_2`.
        dtype: `auto` (bfloat16 on GPUs and on CPUs that multiply it, else float32), or a name.
        device: `auto`, `cpu`, `cuda`, …
        threads: Threads of one operation on the CPU; None leaves torch's setting.
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
        problems = [
            f"{name} must be at least {least}, got {value}"
            for name, least, value in (
                ("longest_side_px", 32, longest_side_px),
                ("max_output_tokens", 1, max_output_tokens),
                ("batch_size", 1, batch_size),
            )
            if value is not None and value < least
        ]
        if problems:
            raise ConfigurationError(f"`{type(self).__name__}(...)`: " + "; ".join(problems) + ".")
        self.model, self.schema, self.revision = str(model), read_schema(schema), revision
        self.longest_side_px, self.max_output_tokens = longest_side_px, max_output_tokens
        self.batch_size, self.attention = batch_size, attention
        self.dtype, self.device, self.threads = dtype, device, threads
        self._device = resolve_device(device)
        self._dtype = resolve_dtype(dtype, self._device)

    def fingerprint(self) -> Mapping[str, Any]:
        """Weights (digest of a folder, commit of a hub model), prompt, schema, image size, library versions."""
        return {
            "generator": "qwen3-vl",
            "format": 1,
            **checkpoint_mark(self.model, self.revision, self._config),
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
                f"{self.model} is a {config.model_type!r} checkpoint; 'qwen3-vl' loads 'qwen3_vl' alone."
            )
        return config

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoProcessor

        assert self._config is not None
        return self._load(AutoProcessor)

    @cached_property
    def _network(self) -> Any:
        from transformers import AutoModelForImageTextToText

        assert self._config is not None
        check_memory(self.model, self.revision, self._dtype, self._device, kind=GeneratorError)
        loaded = self._load(
            AutoModelForImageTextToText, dtype=self._dtype, attn_implementation=self.attention
        )
        return freeze(loaded, self._device, self._dtype)

    # Writing

    def generate(
        self,
        profiles: Sequence[Profile],
        on_outcome: OnOutcome | None = None,
        *,
        max_usd: float | None = None,
    ) -> list[BaseModel | Refusal]:
        """Writes about every profile's first photo, `batch_size` at once; where an answer is wrong, once more.

        Raises:
            GeneratorError: At the first use: no weights, a wrong folder, another architecture, too
                little memory.
        """
        outcomes: list[BaseModel | Refusal] = [Refusal("stopped")] * len(profiles)
        size = self.batch_size or (1 if self._device.type == "cpu" else 8)
        for start in range(0, len(profiles), size):
            part = range(start, min(start + size, len(profiles)))
            for index, (outcome, usage) in zip(
                part, self._write([profiles[i] for i in part]), strict=True
            ):
                outcomes[index] = outcome
                if on_outcome is not None and on_outcome(index, outcome, usage):
                    return outcomes
        return outcomes

    def _write(self, profiles: Sequence[Profile]) -> list[tuple[BaseModel | Refusal, Usage]]:
        outcomes: dict[int, BaseModel | Refusal] = {}
        photos: dict[int, Image.Image] = {}
        for index, profile in enumerate(profiles):
            try:
                photos[index] = self._photo(profile)
            except ImageError as error:
                outcomes[index] = Refusal("unreadable", str(error))
        content = [{"type": "image"}, {"type": "text", "text": instructions(self.schema)}]
        talks: dict[int, Conversation] = {
            index: [{"role": "user", "content": content}] for index in photos
        }
        usage = dict.fromkeys(range(len(profiles)), (0, 0))
        for _ in range(2):
            asked = [index for index in photos if not isinstance(outcomes.get(index), BaseModel)]
            if not asked:
                break
            answers = self._answers([talks[i] for i in asked], [photos[i] for i in asked])
            for index, (answer, tokens, new_tokens, was_cut) in zip(asked, answers, strict=True):
                usage[index] = (usage[index][0] + tokens, usage[index][1] + new_tokens)
                found = read_reply(self.schema, _object(answer))
                if isinstance(found, BaseModel):
                    outcomes[index] = found
                    continue
                outcomes[index] = Refusal(
                    "truncated" if was_cut else "invalid", f"{found}; reply: {answer[:500]}"
                )
                talks[index] = [
                    *talks[index],
                    {"role": "assistant", "content": [{"type": "text", "text": answer}]},
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": _REPAIR.format(problem=found)}],
                    },
                ]
        return [
            (outcomes[index], Usage(usage[index][0], 0, usage[index][1]))
            for index in range(len(profiles))
        ]

    def _photo(self, profile: Profile) -> Image.Image:
        photo = load_image(profile.images[0], longest_side_px=self.longest_side_px)
        if max(photo.size) > _MAX_ASPECT * min(photo.size):
            raise ImageError(
                f"{photo.width} × {photo.height} pixels; a side over {_MAX_ASPECT} times the other is refused."
            )
        return photo

    def _answers(
        self, talks: Sequence[Conversation], photos: Sequence[Image.Image]
    ) -> list[tuple[str, int, int, bool]]:
        """Of each conversation: the answer, its tokens read and written, and whether it was cut."""
        tokenizer = self._processor.tokenizer
        prompts = [
            self._processor.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
            for talk in talks
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
                    # A checkpoint's own settings for sampling would only warn here
                    temperature=None,
                    top_p=None,
                    top_k=None,
                )
        except torch.OutOfMemoryError as error:
            raise GeneratorError(
                f"{self.model} ran out of memory on {len(photos)} photos: lower batch_size or longest_side_px."
            ) from error
        ends = self._network.generation_config.eos_token_id or tokenizer.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends)
        read = batch["attention_mask"].sum(1).tolist()
        answers = []
        for row, tokens in zip(ids[:, batch["input_ids"].shape[1] :].tolist(), read, strict=True):
            length = next((position for position, token in enumerate(row) if token in ends), None)
            words = tokenizer.decode(row[:length], skip_special_tokens=True)
            # `<|` begins special tokens: an answer that spells one must not become one in the
            # repair
            answers.append(
                (words.replace("<|", "< |"), int(tokens), len(row[:length]), length is None)
            )
        return answers


def _object(answer: str) -> str:
    """The JSON object of an answer, without the fence or the words around it."""
    found = re.search(r"\{.*\}", answer, re.DOTALL)
    return found[0] if found else answer

"""Metadata from a model behind OpenAI's Responses API, or any server that speaks it."""

from __future__ import annotations

import base64
import datetime
import io
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from pairmatch.errors import ConfigurationError, GeneratorError, ImageError
from pairmatch.images import load_image
from pairmatch.interfaces import MetadataGenerator, OnOutcome
from pairmatch.metadata.models import MODELS, PHOTO_TOKENS, end_notice
from pairmatch.metadata.schema import Metadata, json_schema, read_reply
from pairmatch.types import Profile, Refusal, Usage

_log = logging.getLogger(__name__)
INSTRUCTIONS = (
    "You describe profile photos for a matching service. Fill in every attribute from what is plainly visible, in "
    "English, kindly and without guessing at ethnicity, health, religion, orientation or income."
)


class OpenAIMetadata(MetadataGenerator):
    """Attributes written by any model of that API, as structured output. Sends photos: nothing goes out unasked.

    Of a profile only the pixels of its first photo leave the machine: downscaled, encoded anew, without EXIF, file
    name, id or text.

    Args:
        model: Name of the model.
        schema: A flat pydantic model; the recipe's eight attributes by default.
        base_url: Of the server; None is the provider's own.
        api_key_variable: Environment variable that holds the key. The key itself is never an option, so it can be in no
            saved matcher, store or log.
        detail: How closely the model looks: `low`, `high` or `auto`.
        longest_side_px: Photos are shrunk to this before they are sent.
        concurrency: Requests under way at once.
        max_output_tokens: Most tokens of an answer, reasoning included.
        timeout_seconds: Of one request; the client retries twice and honours `Retry-After`.
        input_usd: Price of a million input tokens, in place of the table's.
        output_usd: Price of a million output tokens, in place of the table's.
    """

    sends_photos: ClassVar[bool] = True

    def __init__(
        self,
        *,
        model: str,
        schema: type[BaseModel] = Metadata,
        base_url: str | None = None,
        api_key_variable: str = "OPENAI_API_KEY",
        detail: Literal["low", "high", "auto"] = "low",
        longest_side_px: int = 512,
        concurrency: int = 32,
        max_output_tokens: int = 1000,
        timeout_seconds: float = 60.0,
        input_usd: float | None = None,
        output_usd: float | None = None,
    ) -> None:
        problems = [
            f"{name} must be at least 1, got {value}"
            for name, value in (
                ("longest_side_px", longest_side_px),
                ("concurrency", concurrency),
                ("max_output_tokens", max_output_tokens),
            )
            if value < 1
        ]
        if detail not in ("low", "high", "auto"):
            problems.append(f"detail is 'low', 'high' or 'auto', got {detail!r}")
        if problems:
            raise ConfigurationError(f"`{type(self).__name__}(...)`: " + "; ".join(problems) + ".")
        json_schema(schema)
        self.model, self.schema, self.base_url, self.api_key_variable = model, schema, base_url, api_key_variable
        self.detail, self.longest_side_px, self.concurrency = detail, longest_side_px, concurrency
        self.max_output_tokens, self.timeout_seconds = max_output_tokens, timeout_seconds
        self.input_usd, self.output_usd = input_usd, output_usd

    @property
    def host(self) -> str:
        """Where photos go."""
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or "api.openai.com"

    def fingerprint(self) -> Mapping[str, Any]:
        """Model, prompt, schema and how photos are sent."""
        return {
            "generator": "openai",
            "format": 1,
            "model": self.model,
            "instructions": INSTRUCTIONS,
            "schema": json_schema(self.schema),
            "detail": self.detail,
            "longest_side_px": self.longest_side_px,
        }

    def estimate(self, photos: int) -> Usage:
        """About what so many photos will cost: tokens, and USD where prices are known."""
        prompt = len(INSTRUCTIONS + str(json_schema(self.schema))) // 4
        tokens = (prompt + PHOTO_TOKENS) * photos
        answers = 150 * photos
        return Usage(tokens, 0, answers, self._usd(tokens, 0, answers))

    def _usd(self, tokens: int, cached: int, answer: int) -> float | None:
        facts = MODELS.get(self.model)
        price = self.input_usd if self.input_usd is not None else facts.input_usd if facts else None
        output = self.output_usd if self.output_usd is not None else facts.output_usd if facts else None
        if price is None or output is None:
            return None
        reduced = facts.cached_usd if facts and self.input_usd is None else price
        return ((tokens - cached) * price + cached * reduced + answer * output) / 1e6

    def check(self, today: datetime.date | None = None) -> None:
        """What can be said before the first call: a key, a model that has not ended.

        Raises:
            GeneratorError: No key, or the provider has shut the model down.
        """
        notice = end_notice(self.model, today or datetime.datetime.now(datetime.UTC).date())
        if notice and self.base_url is None:
            past, words = notice
            if past:
                raise GeneratorError(words)
            _log.warning(words)
        if not os.environ.get(self.api_key_variable):
            raise GeneratorError(
                f"There is no key: set the environment variable {self.api_key_variable}. Without one: "
                "metadata='measured' or none stays on this machine, and base_url= names a server of your own."
            )

    @cached_property
    def _client(self) -> Any:
        import openai

        return openai.OpenAI(
            api_key=os.environ[self.api_key_variable], base_url=self.base_url, timeout=self.timeout_seconds
        )

    def generate(self, profiles: Sequence[Profile], on_outcome: OnOutcome | None = None) -> list[BaseModel | Refusal]:
        """Asks for every profile's first photo, `concurrency` at once.

        Raises:
            GeneratorError: No key, a wrong key, an unknown or ended model, or no more credit: the server's words, once.
        """
        if not profiles:
            return []
        self.check()
        outcomes: list[BaseModel | Refusal] = [Refusal("stopped")] * len(profiles)
        waiting = iter(range(len(profiles)))
        stop = False
        with ThreadPoolExecutor(self.concurrency, "pairmatch-metadata") as pool:
            running: dict[Future[tuple[BaseModel | Refusal, Usage]], int] = {}
            try:
                while True:
                    while not stop and len(running) < self.concurrency and (index := next(waiting, None)) is not None:
                        running[pool.submit(self._ask, profiles[index])] = index
                    if not running:
                        return outcomes
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        index = running.pop(future)
                        outcome, usage = future.result()
                        outcomes[index] = outcome
                        if on_outcome is not None and on_outcome(index, outcome, usage):
                            stop = True
            except BaseException:
                # What is under way is paid for: its answers are kept before the error goes on
                for future in running:
                    future.cancel()
                for future, index in running.items():
                    if not future.cancelled() and future.exception() is None and on_outcome is not None:
                        on_outcome(index, *future.result())
                raise

    def _ask(self, profile: Profile) -> tuple[BaseModel | Refusal, Usage]:
        import openai

        try:
            photo = self._photo(profile)
        except ImageError as error:
            return Refusal("unreadable", str(error)), Usage()
        facts = MODELS.get(self.model)
        options: dict[str, Any] = {}
        if facts is not None and facts.effort is not None:
            options["reasoning"] = {"effort": facts.effort}
        form: dict[str, Any] = {
            "format": {
                "type": "json_schema",
                "name": self.schema.__name__,
                "schema": json_schema(self.schema),
                "strict": True,
            }
        }
        if facts is not None and facts.verbosity is not None:
            form["verbosity"] = facts.verbosity
        content = [{"type": "input_image", "image_url": photo, "detail": self.detail}]
        try:
            reply = self._client.responses.create(
                model=self.model,
                instructions=INSTRUCTIONS,
                input=[{"role": "user", "content": content}],
                text=form,
                max_output_tokens=self.max_output_tokens,
                store=False,
                **options,
            )
        except openai.APIStatusError as error:
            words = f"{self.host} answered {error.status_code}: {_words(error)}"
            code = error.code or ""
            if error.status_code == 404 or code == "model_not_found":
                notice = end_notice(self.model, datetime.date.max)
                raise GeneratorError(f"{words} {notice[1] if notice else 'Name another with model=.'}") from error
            if error.status_code in (401, 403) or code in ("insufficient_quota", "invalid_api_key"):
                raise GeneratorError(f"{words} (key from {self.api_key_variable})") from error
            if code == "content_filter":
                return Refusal("content_filter", words), Usage()
            return Refusal("error", words), Usage()
        except openai.APIConnectionError as error:  # timeouts included, after the client's retries
            return Refusal("error", f"{self.host}: {type(error).__name__}"), Usage()
        return self._read(reply), self._used(reply)

    def _photo(self, profile: Profile) -> str:
        """The first photo as a data URL: pixels alone."""
        image = load_image(profile.images[0], longest_side_px=self.longest_side_px)
        image.info.clear()
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

    def _read(self, reply: Any) -> BaseModel | Refusal:
        parts = [part for item in reply.output if item.type == "message" for part in item.content]
        refusals = [part.refusal for part in parts if part.type == "refusal"]
        if refusals:
            return Refusal("refusal", refusals[0])
        if reply.status == "incomplete":
            reason = reply.incomplete_details.reason if reply.incomplete_details else None
            if reason == "content_filter":
                return Refusal("content_filter", "cut by the provider's content filter")
            return Refusal("truncated", f"cut off ({reason}): raise max_output_tokens")
        text = "".join(part.text for part in parts if part.type == "output_text")
        found = read_reply(self.schema, text)
        return found if isinstance(found, BaseModel) else Refusal("invalid", f"{found}; reply: {text[:500]}")

    def _used(self, reply: Any) -> Usage:
        if reply.usage is None:
            return Usage(usd=None)
        cached = reply.usage.input_tokens_details.cached_tokens if reply.usage.input_tokens_details else 0
        tokens, answer = reply.usage.input_tokens, reply.usage.output_tokens
        return Usage(tokens, cached, answer, self._usd(tokens, cached, answer))


class GPT5NanoMetadata(OpenAIMetadata):
    """The recipe's generator: GPT-5-nano, which its provider shuts down on 2026-12-11. Options as for `openai`."""

    def __init__(
        self,
        *,
        schema: type[BaseModel] = Metadata,
        api_key_variable: str = "OPENAI_API_KEY",
        detail: Literal["low", "high", "auto"] = "low",
        longest_side_px: int = 512,
        concurrency: int = 32,
        max_output_tokens: int = 1000,
        timeout_seconds: float = 60.0,
    ) -> None:
        super().__init__(
            model="gpt-5-nano",
            schema=schema,
            api_key_variable=api_key_variable,
            detail=detail,
            longest_side_px=longest_side_px,
            concurrency=concurrency,
            max_output_tokens=max_output_tokens,
            timeout_seconds=timeout_seconds,
        )


def _words(error: Any) -> str:
    """The server's own words; never the request, which holds the photo, nor its headers, which hold the key."""
    body = error.body if isinstance(error.body, Mapping) else {}
    words = str(body.get("message") or error.message)
    return " ".join(words.split())[:300]

"""Metadata from a model behind OpenAI's Responses API, or any server that speaks it."""

from __future__ import annotations

import base64
import datetime
import io
import json
import logging
import math
import os
import re
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from pairmatch.core.errors import ConfigurationError, GeneratorError, ImageError
from pairmatch.core.interfaces import MetadataGenerator, OnOutcome
from pairmatch.core.types import Profile, Refusal, Usage
from pairmatch.io.images import load_image
from pairmatch.metadata.models import BATCH_SHARE, MODELS, PHOTO_TOKENS, end_notice
from pairmatch.metadata.pace import Cap, Pace
from pairmatch.metadata.schema import (
    INSTRUCTIONS,
    Metadata,
    SchemaSpec,
    json_schema,
    read_reply,
    read_schema,
)

_log = logging.getLogger(__name__)
_ANSWER_TOKENS = 150  # of eight attributes, for estimates alone

Answer = tuple[BaseModel | Refusal, Usage]


class OpenAIMetadata(MetadataGenerator):
    """Attributes written by any model of that API, as structured output. Sends photos: nothing goes out unasked.

    Of a profile only the pixels of its first photo leave the machine: downscaled, encoded anew,
    without EXIF, file name, id or text.

    Args:
        model: Name of the model.
        schema: A flat pydantic model, or its JSON Schema (an object, or the path of a file); the
            recipe's eight attributes by default.
        base_url: Of the server; None is the provider's own.
        api_key_variable: Environment variable that holds the key. The key itself is never an
            option, so it can be in no saved matcher, store or log.
        detail: How closely the model looks: `low`, `high` or `auto`.
        longest_side_px: Photos are shrunk to this before they are sent.
        concurrency: Requests under way at once.
        requests_per_minute: Limit of the account; None for none.
        tokens_per_minute: Limit of the account; None for none.
        max_output_tokens: Most tokens of an answer, reasoning included.
        timeout_seconds: Of one request.
        max_retries: Of one request, after pauses that grow or that the server asks for
            (`Retry-After`).
        input_usd: Price of a million input tokens, in place of the table's.
        output_usd: Price of a million output tokens, in place of the table's.
    """

    sends_photos: ClassVar[bool] = True

    def __init__(
        self,
        *,
        model: str,
        schema: SchemaSpec = Metadata,
        base_url: str | None = None,
        api_key_variable: str = "OPENAI_API_KEY",
        detail: Literal["low", "high", "auto"] = "low",
        longest_side_px: int = 512,
        concurrency: int = 32,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        max_output_tokens: int = 1000,
        timeout_seconds: float = 60.0,
        max_retries: int = 2,
        input_usd: float | None = None,
        output_usd: float | None = None,
    ) -> None:
        problems = [
            f"{name} must be at least 1, got {value}"
            for name, value in (
                ("longest_side_px", longest_side_px),
                ("concurrency", concurrency),
                ("requests_per_minute", requests_per_minute),
                ("tokens_per_minute", tokens_per_minute),
                ("max_output_tokens", max_output_tokens),
            )
            if value is not None and value < 1
        ]
        problems += [
            f"{name} must be at least 0, got {value}"
            for name, value in (
                ("max_retries", max_retries),
                ("input_usd", input_usd),
                ("output_usd", output_usd),
            )
            if value is not None and value < 0
        ]
        if timeout_seconds <= 0:
            problems.append(f"timeout_seconds must be above 0, got {timeout_seconds}")
        if detail not in ("low", "high", "auto"):
            problems.append(f"detail is 'low', 'high' or 'auto', got {detail!r}")
        if problems:
            raise ConfigurationError(f"`{type(self).__name__}(...)`: " + "; ".join(problems) + ".")
        self.model, self.schema, self.base_url, self.api_key_variable = (
            model,
            read_schema(schema),
            base_url,
            api_key_variable,
        )
        self.detail, self.longest_side_px, self.concurrency = detail, longest_side_px, concurrency
        self.requests_per_minute, self.tokens_per_minute = requests_per_minute, tokens_per_minute
        self.max_output_tokens = max_output_tokens
        self.timeout_seconds, self.max_retries = timeout_seconds, max_retries
        self.input_usd, self.output_usd = input_usd, output_usd

    @property
    def host(self) -> str:
        """Where photos go."""
        return self._address or "api.openai.com"

    @property
    def _address(self) -> str | None:
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or None

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

    # What can be said before the first call

    def estimate(self, photos: int, *, batch: bool = False) -> Usage:
        """About what so many photos will cost: tokens, and USD where prices are known."""
        tokens, answers = self._request_tokens * photos, _ANSWER_TOKENS * photos
        return Usage(tokens, 0, answers, self._usd(tokens, 0, answers, batch))

    def worst_usd(self, *, batch: bool = False) -> float:
        """Most that the answer for one photo should cost: all the output tokens that it may have.

        Raises:
            ConfigurationError: Prices are not known.
        """
        cost = self._usd(self._request_tokens, 0, self.max_output_tokens, batch)
        if cost is None:
            raise ConfigurationError(
                f"A cap on the cost needs prices, and none are known for {self.model}: give input_usd and output_usd, "
                "in USD for a million tokens."
            )
        return cost

    def notice(self, today: datetime.date | None = None) -> str | None:
        """What there is to know about the end of the model; None where nothing is known to end soon.

        Raises:
            GeneratorError: The provider has shut the model down.
        """
        found = end_notice(self.model, today or datetime.datetime.now(datetime.UTC).date())
        if found is None or self._address is not None:  # a server of one's own knows best
            return None
        past, words = found
        if past:
            raise GeneratorError(words)
        return words

    def check(self, today: datetime.date | None = None) -> None:
        """Warns of a model that ends soon, and makes sure of a key.

        Raises:
            GeneratorError: No key, or the provider has shut the model down.
        """
        notice = self.notice(today)
        if notice is not None:
            _log.warning(notice)
        if not os.environ.get(self.api_key_variable):
            raise GeneratorError(
                f"There is no key: set the environment variable {self.api_key_variable}. Without one: "
                "metadata='qwen3-vl', 'measured' or none stays on this machine, and base_url= names a server of your "
                "own (with any key)."
            )

    @property
    def _request_tokens(self) -> int:
        photo = (
            PHOTO_TOKENS * max(1.0, self.longest_side_px / 512) ** 2
        )  # tokens grow with the area
        return len(INSTRUCTIONS + str(json_schema(self.schema))) // 4 + math.ceil(photo)

    def _usd(self, tokens: int, cached: int, answer: int, batch: bool = False) -> float | None:
        facts = MODELS.get(self.model)
        price = self.input_usd if self.input_usd is not None else facts.input_usd if facts else None
        output = (
            self.output_usd if self.output_usd is not None else facts.output_usd if facts else None
        )
        if price is None or output is None:
            return None
        reduced = facts.cached_usd if facts and self.input_usd is None else price
        full = ((tokens - cached) * price + cached * reduced + answer * output) / 1e6
        return full * BATCH_SHARE if batch else full

    # Asking

    def generate(
        self,
        profiles: Sequence[Profile],
        on_outcome: OnOutcome | None = None,
        *,
        max_usd: float | None = None,
    ) -> list[BaseModel | Refusal]:
        """Asks for every profile's first photo, `concurrency` at once.

        Raises:
            GeneratorError: No key, a wrong key, an unknown or ended model, or no more credit: the
                server's words, once.
            ConfigurationError: A cap without prices.
        """
        if not profiles:
            return []
        cap = Cap(max_usd, 0.0 if max_usd is None else self.worst_usd())
        self.check()
        self.client  # noqa: B018  # made here and once: it takes a while, and the threads below share it
        pace = Pace(self.requests_per_minute, self.tokens_per_minute)
        expected = self._request_tokens + _ANSWER_TOKENS
        outcomes: list[BaseModel | Refusal] = [
            Refusal("stopped", "not asked: the cap on the cost")
        ] * len(profiles)
        waiting = deque(range(len(profiles)))
        done: SimpleQueue[Future[Answer]] = SimpleQueue()
        running: dict[Future[Answer], int] = {}
        with ThreadPoolExecutor(self.concurrency, "pairmatch-metadata") as pool:
            try:
                while True:
                    pause = 0.0
                    while (
                        waiting and len(running) < self.concurrency and cap.allows(len(running) + 1)
                    ):
                        pause = pace.pause()
                        if pause:
                            break
                        pace.begin(expected)
                        index = waiting.popleft()
                        future = pool.submit(self._ask, profiles[index])
                        running[future] = index
                        future.add_done_callback(done.put)
                    if not running and not pause:
                        return outcomes
                    try:
                        future = done.get(timeout=pause or None)
                    except Empty:
                        continue
                    index = running.pop(future)
                    outcome, usage = future.result()
                    outcomes[index] = outcome
                    cap.spend(usage)
                    pace.settle(expected, usage.input_tokens + usage.output_tokens)
                    if on_outcome is not None and on_outcome(index, outcome, usage):
                        waiting.clear()
            except BaseException:
                # What is under way is paid for: its answers are kept before the error goes on
                for future in running:
                    future.cancel()
                for future, index in running.items():
                    if (
                        not future.cancelled()
                        and future.exception() is None
                        and on_outcome is not None
                    ):
                        on_outcome(index, *future.result())
                raise

    @cached_property
    def client(self) -> Any:
        """The provider's own client."""
        import openai

        return openai.OpenAI(
            api_key=os.environ[self.api_key_variable],
            base_url=self.base_url,
            timeout=self.timeout_seconds,
            max_retries=self.max_retries,
        )

    def request(self, profile: Profile) -> dict[str, Any]:
        """The body of one request, as JSON values: prompt, schema, and the first photo's pixels as a data URL.

        Raises:
            ImageError: The photo cannot be read.
        """
        return {**self._frame, "input": [{"role": "user", "content": [self._content(profile)]}]}

    @cached_property
    def _frame(self) -> dict[str, Any]:
        """What all requests share."""
        form: dict[str, Any] = {
            "format": {
                "type": "json_schema",
                "name": re.sub(r"[^A-Za-z0-9_-]", "_", self.schema.__name__)[
                    :64
                ],  # all that the API takes
                "schema": json_schema(self.schema),
                "strict": True,
            }
        }
        frame: dict[str, Any] = {
            "model": self.model,
            "instructions": INSTRUCTIONS,
            "text": form,
            "max_output_tokens": self.max_output_tokens,
            "store": False,
        }
        facts = MODELS.get(self.model)
        if facts is not None and facts.verbosity is not None:
            form["verbosity"] = facts.verbosity
        if facts is not None and facts.effort is not None:
            frame["reasoning"] = {"effort": facts.effort}
        return frame

    def _content(self, profile: Profile) -> dict[str, str]:
        image = load_image(profile.images[0], longest_side_px=self.longest_side_px)
        image.info.clear()
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        url = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        return {"type": "input_image", "image_url": url, "detail": self.detail}

    def _ask(self, profile: Profile) -> Answer:
        import openai

        try:
            body = self.request(profile)
        except ImageError as error:
            return Refusal("unreadable", str(error)), Usage()
        try:
            # As `extra_body` it goes out as it is, and the answer comes back raw: the text is read
            # before any schema
            # could reject it, and a request takes half the time of the client's own checks
            reply = self.client.responses.with_raw_response.create(
                model=self.model, extra_body=body
            )
        except openai.APIStatusError as error:
            details = error.body if isinstance(error.body, Mapping) else {}
            failure = self.failure(
                error.status_code, {"message": error.message, "code": error.code, **details}
            )
            if isinstance(failure, GeneratorError):
                raise failure from None  # the cause holds the request, and with it the key
            return failure, Usage()
        except openai.APIConnectionError as error:  # timeouts included, after the client's retries
            return Refusal("error", f"{self.host}: {type(error).__name__}"), Usage()
        try:
            return self.read(json.loads(reply.content))
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            return Refusal(
                "error", f"{self.host} gave no response of this API: {type(error).__name__}"
            ), Usage()

    # Reading answers

    def failure(self, status: int, error: Mapping[str, Any]) -> Refusal | GeneratorError:
        """What a server's error means.

        Something about one photo, or something that concerns everybody.
        """
        code, words = str(error.get("code") or ""), self.said(status, error)
        if status == 404 or code == "model_not_found":
            notice = end_notice(self.model, datetime.date.max)
            return GeneratorError(f"{words} {notice[1] if notice else 'Name another with model=.'}")
        if status in (401, 403) or code in ("insufficient_quota", "invalid_api_key"):
            return GeneratorError(f"{words} (key from {self.api_key_variable})")
        return Refusal("content_filter" if code == "content_filter" else "error", words)

    def said(self, status: int | None, error: Mapping[str, Any]) -> str:
        """The server's own words.

        Never the request, which holds the photo, nor the key, should a server repeat it.
        """
        words = " ".join(str(error.get("message") or "no message").split())[:300]
        key = os.environ.get(self.api_key_variable)
        return f"{self.host} answered{f' {status}' if status else ''}: {words.replace(key, '…') if key else words}"

    def read(self, reply: Mapping[str, Any], *, batch: bool = False) -> Answer:
        """Outcome and cost of a response of the API, given as JSON values."""
        usage = self._used(reply.get("usage"), batch)
        try:
            return self._outcome(reply), usage
        except (KeyError, TypeError):  # it was paid for all the same
            return Refusal(
                "error", f"{self.host} gave a response that is not of this API: {str(reply)[:300]}"
            ), usage

    def _outcome(self, reply: Mapping[str, Any]) -> BaseModel | Refusal:
        parts = [
            part
            for item in reply["output"]
            if item["type"] == "message"
            for part in item["content"]
        ]
        refusals = [part["refusal"] for part in parts if part["type"] == "refusal"]
        if refusals:
            return Refusal("refusal", refusals[0])
        if reply.get("status") == "incomplete":
            reason = (reply.get("incomplete_details") or {}).get("reason")
            if reason == "content_filter":
                return Refusal("content_filter", "cut by the provider's content filter")
            return Refusal("truncated", f"cut off ({reason}): raise max_output_tokens")
        text = "".join(part["text"] for part in parts if part["type"] == "output_text")
        found = read_reply(self.schema, text)
        return (
            found
            if isinstance(found, BaseModel)
            else Refusal("invalid", f"{found}; reply: {text[:500]}")
        )

    def _used(self, usage: Mapping[str, Any] | None, batch: bool) -> Usage:
        if usage is None:
            return Usage(usd=None)
        cached = (usage.get("input_tokens_details") or {}).get("cached_tokens") or 0
        tokens, answer = usage["input_tokens"], usage["output_tokens"]
        return Usage(tokens, cached, answer, self._usd(tokens, cached, answer, batch))


class GPT5NanoMetadata(OpenAIMetadata):
    """The recipe's generator.

    GPT-5-nano, which its provider shuts down on 2026-12-11. Options as for `openai`.
    """

    def __init__(
        self,
        *,
        schema: SchemaSpec = Metadata,
        base_url: str | None = None,
        api_key_variable: str = "OPENAI_API_KEY",
        detail: Literal["low", "high", "auto"] = "low",
        longest_side_px: int = 512,
        concurrency: int = 32,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        max_output_tokens: int = 1000,
        timeout_seconds: float = 60.0,
        max_retries: int = 2,
        input_usd: float | None = None,
        output_usd: float | None = None,
    ) -> None:
        super().__init__(
            model="gpt-5-nano",
            schema=schema,
            base_url=base_url,
            api_key_variable=api_key_variable,
            detail=detail,
            longest_side_px=longest_side_px,
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            max_output_tokens=max_output_tokens,
            timeout_seconds=timeout_seconds,
            max_retries=max_retries,
            input_usd=input_usd,
            output_usd=output_usd,
        )

"""Metadata from a model behind OpenAI's Responses API, or another server that implements it."""

from __future__ import annotations

import datetime
import logging
import math
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from pairmatch.core.errors import ConfigurationError, GeneratorError
from pairmatch.core.interfaces import MetadataGenerator, OnOutcome
from pairmatch.core.types import Profile, Refusal, Usage
from pairmatch.metadata.limits import CostLimit, RateLimit
from pairmatch.metadata.models import PHOTO_TOKENS, Pricing, end_notice, succession
from pairmatch.metadata.openai_request import photo_content, request_template
from pairmatch.metadata.openai_response import ResponseReader
from pairmatch.metadata.openai_run import OpenAIRun
from pairmatch.metadata.options import below_minimum, raise_problems
from pairmatch.metadata.outside import OutsideText
from pairmatch.metadata.parallel import ParallelRequests
from pairmatch.metadata.schema import INSTRUCTIONS, Metadata, SchemaSpec, json_schema, read_schema
from pairmatch.metadata.servers import (
    check_server,
    host_name,
    key_variable_problem,
    read_key,
    route,
    server_url,
    url_problem,
)

_log = logging.getLogger(__name__)
_MOST_SECONDS = 86_400
_ANSWER_TOKENS = 150  # for eight attributes; used for estimates only


class OpenAIMetadata(MetadataGenerator):
    """Attributes written by any model of the API, as structured output.

    Sends photos, after the user's consent. Only the pixels of a profile's first photo leave the
    machine: shrunk and encoded again, without EXIF, file name, id or text.

    Args:
        model: Name of the model.
        schema: Flat pydantic model, or its JSON Schema (an object, or the path to a file); by
            default the recipe's eight attributes.
        base_url: URL of the server, without credentials; None for the provider's own. Saved
            matchers never hold it.
        api_key_variable: Environment variable that holds the key: `OPENAI_API_KEY`,
            `AZURE_OPENAI_API_KEY`, `VLLM_API_KEY`, or a name that begins with `PAIRMATCH_`. The
            key itself is never an option, so no saved matcher, store or log can contain it.
        detail: Level of detail at which the model reads the photo: `low`, `high` or `auto`.
        longest_side_px: Size of the longest side in pixels to which photos are shrunk before they
            are sent.
        concurrency: Maximum number of running requests.
        requests_per_minute: Request limit of the account; None for no limit.
        tokens_per_minute: Token limit of the account; None for no limit.
        max_output_tokens: Maximum number of tokens per answer, reasoning included.
        timeout_seconds: Time per request, its whole answer included, in seconds.
        max_retries: Number of retries per request, after growing delays or the delay that the
            server asks for (`Retry-After`).
        input_usd: Price per million input tokens, in USD; None for the price in the table.
        output_usd: Price per million output tokens, in USD; None for the price in the table.

    Raises:
        ConfigurationError: Options are out of range, or the schema is not flat.
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
            problem
            for problem in (url_problem(base_url), key_variable_problem(api_key_variable))
            if problem
        ]
        raise_problems(self, problems)
        problems = below_minimum(
            1,
            longest_side_px=longest_side_px,
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            max_output_tokens=max_output_tokens,
        )
        problems += below_minimum(
            0, max_retries=max_retries, input_usd=input_usd, output_usd=output_usd
        )
        if not 0 < timeout_seconds <= _MOST_SECONDS:
            problems.append(
                f"timeout_seconds must be above 0 and at most {_MOST_SECONDS}, got "
                f"{timeout_seconds}"
            )
        if detail not in ("low", "high", "auto"):
            problems.append(f"detail must be 'low', 'high' or 'auto', got {detail!r}")
        raise_problems(self, problems)
        self.model = model
        self.schema = read_schema(schema)
        self.base_url = base_url
        self.api_key_variable = api_key_variable
        self.detail = detail
        self.longest_side_px = longest_side_px
        self.concurrency = concurrency
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute
        self.max_output_tokens = max_output_tokens
        self.timeout_seconds = timeout_seconds
        self.max_retries = max_retries
        self.input_usd = input_usd
        self.output_usd = output_usd

    @property
    def host(self) -> str:
        """Server that receives the photos."""
        return host_name(self._base_url, self._key)

    @property
    def route(self) -> str:
        """What else decides where photos go: an environment variable, or a proxy."""
        return route(self.base_url)

    @property
    def model_words(self) -> str:
        """The model, and which one it succeeds if the provider has shut that down."""
        return self.model if self._base_url is not None else succession(self.model)

    @property
    def _base_url(self) -> str | None:
        return server_url(self.base_url)

    @property
    def _key(self) -> str:
        return read_key(self.api_key_variable)

    def fingerprint(self) -> Mapping[str, Any]:
        """Model, prompt, schema, and how photos are sent."""
        return {
            "generator": "openai",
            "format": 1,
            "model": self.model,
            "instructions": INSTRUCTIONS,
            "schema": json_schema(self.schema),
            "detail": self.detail,
            "longest_side_px": self.longest_side_px,
        }

    # Before the first request

    def estimate(self, photos: int, *, batch: bool = False) -> Usage:
        """Estimated cost of a number of photos: tokens, and USD if prices are known."""
        input_tokens = self._input_tokens * photos
        output_tokens = _ANSWER_TOKENS * photos
        usd = self._pricing.usd(input_tokens, 0, output_tokens, batch=batch)
        return Usage(input_tokens, 0, output_tokens, usd)

    def worst_usd(self, *, batch: bool = False) -> float:
        """Highest expected cost of a photo, in USD: an answer of `max_output_tokens`.

        Raises:
            ConfigurationError: The prices of the model are unknown.
        """
        usd = self._pricing.usd(self._input_tokens, 0, self.max_output_tokens, batch=batch)
        if usd is None:
            raise ConfigurationError(
                f"A cost limit needs prices, and none are known for {self.model}: pass input_usd "
                "and output_usd, in USD per million tokens."
            )
        return usd

    def notice(self, today: datetime.date | None = None) -> str | None:
        """Notice that the model will be shut down soon; None if no such date is known.

        Raises:
            GeneratorError: The provider has shut the model down.
        """
        notice = end_notice(self.model, today or datetime.datetime.now(datetime.UTC).date())
        if notice is None or self._base_url is not None:  # other servers keep their own dates
            return None
        is_shut_down, message = notice
        if is_shut_down:
            raise GeneratorError(message)
        return message

    def check(self, today: datetime.date | None = None) -> None:
        """Checks that there is a key, and warns of a model that will be shut down soon.

        Raises:
            GeneratorError: The key or the server is missing, or the provider has shut the model
                down.
        """
        notice = self.notice(today)
        if notice is not None:
            _log.warning(notice)
        check_server(self._base_url, self.api_key_variable)

    @property
    def _input_tokens(self) -> int:
        """Estimated number of input tokens per photo; grows with the area of the photo."""
        photo_tokens = PHOTO_TOKENS * max(1.0, self.longest_side_px / 512) ** 2
        return len(INSTRUCTIONS + str(json_schema(self.schema))) // 4 + math.ceil(photo_tokens)

    @property
    def _pricing(self) -> Pricing:
        return Pricing(self.model, self.input_usd, self.output_usd)

    # Requests

    def generate(
        self,
        profiles: Sequence[Profile],
        on_outcome: OnOutcome | None = None,
        *,
        max_usd: float | None = None,
    ) -> list[BaseModel | Refusal]:
        """Requests metadata for the first photo of every profile, in parallel.

        Raises:
            GeneratorError: The key is missing or wrong, the model is unknown or shut down, or the
                account has no credit left; with the server's message.
            ConfigurationError: `max_usd` is set, but the prices of the model are unknown.
        """
        if not profiles:
            return []
        cost = CostLimit(max_usd, 0.0 if max_usd is None else self.worst_usd())
        self.check()
        run = OpenAIRun(self)
        try:
            return ParallelRequests(
                profiles,
                run.request,
                on_outcome,
                concurrency=self.concurrency,
                rate=RateLimit(self.requests_per_minute, self.tokens_per_minute),
                cost=cost,
                expected_tokens=self._input_tokens + _ANSWER_TOKENS,
                close=run.close,
            ).run()
        finally:
            run.end()

    def client(
        self, *, most_bytes: int | None = None, stopped: threading.Event | None = None
    ) -> Any:
        """A client of the provider for one thread.

        Args:
            most_bytes: Largest body of an answer; None for that of an answer to one photo.
            stopped: When it is set, nothing more is sent.
        """
        from pairmatch.metadata.openai_client import MOST_ANSWER_BYTES, connect

        return connect(
            base_url=self._base_url,
            api_key=self._key,
            timeout_seconds=self.timeout_seconds,
            max_retries=self.max_retries,
            most_bytes=most_bytes or MOST_ANSWER_BYTES,
            stopped=stopped,
        )

    def reader(self) -> ResponseReader:
        """Reads the server's responses and errors."""
        return ResponseReader(
            self.host,
            self.api_key_variable,
            self.schema,
            self._pricing,
            OutsideText([self._key]),
        )

    def request(self, profile: Profile) -> dict[str, Any]:
        """The body of a request, as JSON values: prompt, schema and the first photo.

        Raises:
            ImageError: The photo cannot be read.
        """
        content = photo_content(
            profile.images[0], longest_side_px=self.longest_side_px, detail=self.detail
        )
        return {**self._template, "input": [{"role": "user", "content": [content]}]}

    @cached_property
    def _template(self) -> dict[str, Any]:
        return request_template(self.model, self.schema, max_output_tokens=self.max_output_tokens)


class GPT5NanoMetadata(OpenAIMetadata):
    """The recipe's generator: GPT-5-nano, which its provider shuts down on 2026-12-11.

    Options are those of `openai`, except for `model`.
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

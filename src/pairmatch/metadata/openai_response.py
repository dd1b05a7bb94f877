"""Responses and errors of OpenAI's Responses API, read from JSON values."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from pairmatch.core.errors import GeneratorError
from pairmatch.core.types import Refusal, Usage
from pairmatch.metadata.models import Pricing, end_notice
from pairmatch.metadata.outcomes import Answer
from pairmatch.metadata.schema import read_reply


@dataclass(frozen=True, slots=True)
class ResponseReader:
    """Reads the responses of one server.

    Attributes:
        host: Server, as error messages name it.
        api_key_variable: Environment variable that holds the key, which no message repeats.
        schema: Pydantic model of the answers.
        pricing: Prices of the model.
    """

    host: str
    api_key_variable: str
    schema: type[BaseModel]
    pricing: Pricing

    def answer(self, reply: Mapping[str, Any], *, batch: bool = False) -> Answer:
        """Outcome and cost of a successful response."""
        usage = self._usage(reply.get("usage"), batch=batch)
        try:
            return self._outcome(reply), usage
        except (KeyError, TypeError):  # it was paid for nevertheless
            return Refusal(
                "error",
                f"{self.host} returned a response in an unknown format: {str(reply)[:300]}",
            ), usage

    def failure(self, status: int, error: Mapping[str, Any]) -> Refusal | GeneratorError:
        """Meaning of an error: a refusal of one photo, or an error that affects all requests.

        Args:
            status: HTTP status.
            error: The server's error object.
        """
        code = str(error.get("code") or "")
        message = self.error_message(status, error)
        if status == 404 or code == "model_not_found":
            notice = end_notice(self.pricing.model, datetime.date.max)
            remedy = notice[1] if notice else "Name another model with model=."
            return GeneratorError(f"{message} {remedy}")
        if status in (401, 403) or code in ("insufficient_quota", "invalid_api_key"):
            return GeneratorError(self._name_key(message))
        return Refusal("content_filter" if code == "content_filter" else "error", message)

    def error_message(self, status: int | None, error: Mapping[str, Any]) -> str:
        """The server's own message.

        It never contains the request, which holds the photo, nor the key, even if the server
        repeats it.
        """
        message = " ".join(str(error.get("message") or "no message").split())[:300]
        key = os.environ.get(self.api_key_variable)
        if key:
            message = message.replace(key, "…")
        return f"{self.host} answered{f' {status}' if status else ''}: {message}"

    def exception_message(self, error: Any) -> str:
        """The server's message in an `openai.APIError`, or the name of a connection error."""
        status = getattr(error, "status_code", None)
        if status is None:
            return f"{self.host}: {type(error).__name__}"
        details = error.body if isinstance(error.body, Mapping) else {}
        message = self.error_message(status, {"message": error.message, **details})
        return self._name_key(message) if status in (401, 403) else message

    def _name_key(self, message: str) -> str:
        return f"{message} (key from {self.api_key_variable})"

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
                return Refusal("content_filter", "cut off by the provider's content filter")
            return Refusal("truncated", f"cut off ({reason}): raise max_output_tokens")
        text = "".join(part["text"] for part in parts if part["type"] == "output_text")
        metadata = read_reply(self.schema, text)
        if isinstance(metadata, BaseModel):
            return metadata
        return Refusal("invalid", f"{metadata}; reply: {text[:500]}")

    def _usage(self, usage: Mapping[str, Any] | None, *, batch: bool) -> Usage:
        if usage is None:
            return Usage(usd=None)
        input_tokens = usage["input_tokens"]
        cached_tokens = (usage.get("input_tokens_details") or {}).get("cached_tokens") or 0
        output_tokens = usage["output_tokens"]
        usd = self.pricing.usd(input_tokens, cached_tokens, output_tokens, batch=batch)
        return Usage(input_tokens, cached_tokens, output_tokens, usd)

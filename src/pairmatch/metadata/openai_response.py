"""Responses and errors of OpenAI's Responses API, read from JSON values."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from pairmatch.core.errors import GeneratorError
from pairmatch.core.types import Refusal, Usage
from pairmatch.io.files import parse_json
from pairmatch.metadata.models import Pricing, end_notice
from pairmatch.metadata.openai_errors import subject_of
from pairmatch.metadata.outcomes import Answer
from pairmatch.metadata.outside import OutsideText
from pairmatch.metadata.schema import read_reply

_MOST_TOKENS = 10**9  # of one answer; larger numbers are not counts of tokens
_REPLY = 500  # characters of an invalid answer or a refusal that are kept
_NOT_FINAL = ("cancelled", "in_progress", "queued")


@dataclass(frozen=True, slots=True)
class ResponseReader:
    """Reads the responses of one server.

    Every text of the server passes `texts` before it is stored, shown or cut.

    Attributes:
        host: Server, as error messages name it.
        key_variable: Environment variable that holds the key.
        schema: Pydantic model of the answers.
        pricing: Prices of the model.
        texts: Filter that removes the key.
    """

    host: str
    key_variable: str
    schema: type[BaseModel]
    pricing: Pricing
    texts: OutsideText

    def body(self, content: bytes, *, batch: bool = False) -> Answer:
        """Outcome and cost of a successful response.

        Raises:
            GeneratorError: The response reports an error that affects all requests.
        """
        text = self.texts.decode(content)
        try:
            reply = parse_json(text)
        except ValueError:
            return self.unknown(text), Usage()
        return self.answer(reply, batch=batch)

    def answer(self, reply: object, *, batch: bool = False) -> Answer:
        """Outcome and cost of a successful response that was parsed.

        Raises:
            GeneratorError: The response reports an error that affects all requests.
        """
        if not isinstance(reply, Mapping):
            return self.unknown(reply), Usage()
        outcome = self._outcome(reply)
        usage = reply.get("usage")
        if usage is None and isinstance(outcome, Refusal) and outcome.kind == "error":
            return outcome, Usage()
        return outcome, self._usage(usage, batch=batch)

    def failure(self, status: int | None, error: object) -> Refusal | GeneratorError:
        """Meaning of an error: a refusal of one photo, or an error that affects all requests.

        Args:
            status: HTTP status; None for an error inside a response.
            error: The server's error object, or what came in its place.
        """
        details = error if isinstance(error, Mapping) else {"message": error}
        subject = subject_of(status, details)
        message = self.error_message(status, details)
        if subject == "policy":
            return Refusal("content_filter", message)
        if subject == "photo":
            return Refusal("unreadable", message)
        if subject == "server":
            return Refusal("error", message)
        if status == 404 or details.get("code") == "model_not_found":
            notice = end_notice(self.pricing.model, datetime.date.max)
            remedy = notice[1] if notice else "Name another model with model=."
            return GeneratorError(f"{message} {remedy}")
        return GeneratorError(self._name_key(message) if status in (401, 402, 403) else message)

    def error_message(self, status: int | None, error: Mapping[str, Any]) -> str:
        """The server's own message.

        It never contains the request, which holds the photo, nor the key, even if the server
        repeats it.
        """
        message = error.get("message")
        code = error.get("code")
        if isinstance(message, str) and message.strip():
            words = self.texts.words(message)
        elif message is None and isinstance(code, str):
            words = self.texts.words(code)
        else:
            words = "no message" if not message else self.texts.words(_as_text(message))
        return f"{self.host} answered{f' {status}' if status else ''}: {words}"

    def status_failure(self, response: Any) -> Refusal | GeneratorError:
        """Meaning of a response whose status is an error."""
        return self.failure(response.status_code, self._error_object(response))

    def exception_message(self, error: Any) -> str:
        """The server's message in an `openai.APIError`, or the name of a connection error."""
        response = getattr(error, "response", None)
        if response is None:
            return f"{self.host}: {self.texts.words(_exception_words(error))}"
        details = self._error_object(response)
        message = self.error_message(
            response.status_code, details if isinstance(details, Mapping) else {"message": details}
        )
        return self._name_key(message) if response.status_code in (401, 402, 403) else message

    def _error_object(self, response: Any) -> object:
        """The error object of a response, or its text."""
        if 300 <= response.status_code < 400:
            return {"message": _redirect_words(response.headers.get("location", ""))}
        text = self.texts.decode(response.content)
        try:
            body = parse_json(text)
        except ValueError:
            return text
        return body.get("error", body) if isinstance(body, Mapping) else body

    def _name_key(self, message: str) -> str:
        return f"{message} (key from {self.key_variable})"

    def unknown(self, reply: object) -> Refusal:
        """The outcome of a body that is not of the API."""
        shown = self.texts.words(_as_text(reply)) or "an empty body"
        return Refusal("error", f"{self.host} returned a response in an unknown format: {shown}")

    def _outcome(self, reply: Mapping[str, Any]) -> BaseModel | Refusal:
        status = reply.get("status")
        error = reply.get("error")
        if status in _NOT_FINAL:
            return Refusal("error", f"{self.host} answered with the status {status!r}, not finally")
        if status == "failed" or (error and status not in ("completed", "incomplete")):
            failure = self.failure(None, error)
            if isinstance(failure, GeneratorError):
                raise failure
            return failure
        parts = _parts(reply)
        if status not in ("completed", "incomplete", None) or parts is None:
            return self.unknown(reply)
        refusals = [part.get("refusal") for part in parts if part["type"] == "refusal"]
        if refusals and isinstance(refusals[0], str):
            return Refusal("refusal", self.texts.words(refusals[0], _REPLY))
        if status == "incomplete":
            return self._incomplete(reply.get("incomplete_details"))
        texts = [part.get("text") for part in parts if part["type"] == "output_text"]
        plain = [text for text in texts if isinstance(text, str)]
        if refusals or not texts or len(plain) < len(texts):
            return self.unknown(reply)
        text = "".join(plain)
        metadata = read_reply(self.schema, text, self.texts)
        if isinstance(metadata, BaseModel):
            return metadata
        return Refusal("invalid", f"{metadata}; reply: {self.texts.words(text, _REPLY)}")

    def _incomplete(self, details: object) -> Refusal:
        reason = details.get("reason") if isinstance(details, Mapping) else None
        if reason == "content_filter":
            return Refusal("content_filter", "cut off by the provider's content filter")
        if reason == "max_output_tokens":
            return Refusal("truncated", "cut off (max_output_tokens): raise max_output_tokens")
        shown = self.texts.words(_as_text(reason))
        return Refusal("error", f"{self.host} cut the answer off, for the reason {shown}")

    def _usage(self, usage: object, *, batch: bool) -> Usage:
        """The cost; without a price if the server does not state the numbers of tokens."""
        details = usage if isinstance(usage, Mapping) else {}
        cached_details = details.get("input_tokens_details")
        cached = cached_details.get("cached_tokens") if isinstance(cached_details, Mapping) else 0
        input_tokens = _count(details.get("input_tokens"))
        output_tokens = _count(details.get("output_tokens"))
        if input_tokens is None or output_tokens is None:
            return Usage(usd=None)
        cached_tokens = min(_count(cached) or 0, input_tokens)
        usd = self.pricing.usd(input_tokens, cached_tokens, output_tokens, batch=batch)
        return Usage(input_tokens, cached_tokens, output_tokens, usd)


def _parts(reply: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """The parts of the messages in a reply; None if it has no output in the format of the API."""
    output = reply.get("output")
    if not isinstance(output, list):
        return None
    contents = [
        item.get("content")
        for item in output
        if isinstance(item, Mapping) and item.get("type") == "message"
    ]
    return [
        part
        for content in contents
        if isinstance(content, list)
        for part in content
        if isinstance(part, Mapping) and isinstance(part.get("type"), str)
    ]


def _redirect_words(location: str) -> str:
    """What a redirect means, with the host alone: the rest of an address may hold secrets."""
    try:
        host = urlsplit(location).hostname
    except ValueError:
        host = None
    return (
        f"a redirect to {host or 'another path'}, which is not followed: if it is where the photos "
        "are to go, name it with base_url="
    )


def _exception_words(error: Exception) -> str:
    """Name of an error of the connection, with its words if they are ours."""
    name = type(error).__name__
    return str(error) if name == "AnswerError" else name


def _count(value: object) -> int | None:
    """A plausible number of tokens, or None."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
    return value if is_count else None  # type: ignore[return-value]


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

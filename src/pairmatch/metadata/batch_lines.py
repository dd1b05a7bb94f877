"""Answers in the output files of a batch, each line and each field checked."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from pairmatch.core.errors import GeneratorError
from pairmatch.core.types import Refusal, Usage
from pairmatch.io.files import parse_json
from pairmatch.metadata.openai_client import MOST_ANSWER_BYTES
from pairmatch.metadata.openai_response import ResponseReader
from pairmatch.metadata.outcomes import Answer

_log = logging.getLogger(__name__)
_KEY = re.compile(r"[0-9a-f]{64}")
_MISSING = "the batch is finished and holds no answer to this photo"


@dataclass(slots=True)
class Delivered:
    """What the output files of a batch hold.

    Attributes:
        answers: Outcome and cost by key, for every key of the batch, and for keys that were
            erased since it was submitted.
        unanswered: Keys without a line of their own.
        unusable: Number of lines that were ignored, by reason.
        fault: Error of the request itself, if no line has anything else.
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    unusable: Counter[str] = field(default_factory=Counter)
    fault: GeneratorError | None = None

    def report(self, batch: str) -> None:
        """Logs lines that were ignored, and photos without an answer."""
        if self.unusable:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.unusable.items())
            _log.warning("Lines of the batch %s cannot be used: %s.", batch, reasons)
        if self.unanswered:
            _log.warning(
                "The batch %s is finished without an answer to %d of %d photos: they are "
                "submitted again, and paid for again, in the next run.",
                batch,
                len(self.unanswered),
                len(self.answers),
            )


def read_lines(contents: Iterable[bytes], keys: Sequence[str], reader: ResponseReader) -> Delivered:
    """The answers in output files; a line that cannot be used does not affect the others.

    Args:
        contents: Contents of the files.
        keys: Keys of the batch.
        reader: Reads responses and errors of the server.
    """
    delivered = Delivered()
    known = set(keys)
    faults: list[GeneratorError] = []
    for content in contents:
        # Bytes, because `str.splitlines` also splits at separators inside answers (U+2028, …)
        for line in content.split(b"\n"):
            if not line.strip():
                continue
            fields = _fields(line, reader)
            if isinstance(fields, str):
                delivered.unusable[fields] += 1
                continue
            key = fields.get("custom_id")
            # A key that the batch no longer has is that of a person who was erased: it costs
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                delivered.unusable["without the id of a photo in this batch"] += 1
                continue
            answer = _answer(fields, reader, faults)
            earlier = delivered.answers.get(key)
            if earlier is not None:
                delivered.unusable["repeated"] += 1
            if earlier is None or (
                not isinstance(earlier[0], BaseModel) and isinstance(answer[0], BaseModel)
            ):
                delivered.answers[key] = answer
    if faults and len(faults) == len(delivered.answers):
        delivered.fault = faults[0]
    delivered.unanswered = known - delivered.answers.keys()
    for key in delivered.unanswered:
        delivered.answers[key] = (Refusal("error", _MISSING), Usage())
    return delivered


def _fields(line: bytes, reader: ResponseReader) -> Mapping[str, Any] | str:
    """The object of a line, or why it cannot be used."""
    if len(line) > MOST_ANSWER_BYTES:
        return f"of more than {MOST_ANSWER_BYTES:,} bytes"
    try:
        fields = parse_json(reader.texts.decode(line))
    except ValueError:
        return "that are not JSON"
    return fields if isinstance(fields, Mapping) else "that are not objects"


def _answer(
    fields: Mapping[str, Any], reader: ResponseReader, faults: list[GeneratorError]
) -> Answer:
    """Outcome and cost in a line; errors that affect all requests are added to `faults`."""
    response = fields.get("response")
    error = fields.get("error")
    failure: Refusal | GeneratorError
    if not isinstance(response, Mapping):
        failure = reader.failure(None, error or {})
    else:
        status = response.get("status_code")
        body = response.get("body")
        if status == 200:
            try:
                return reader.answer(body, batch=True)
            except GeneratorError as raised:
                failure = raised
        else:
            number = status if isinstance(status, int) and 100 <= status < 600 else None
            inner = body.get("error") if isinstance(body, Mapping) else body
            failure = reader.failure(number, inner or error or {})
    if isinstance(failure, GeneratorError):
        faults.append(failure)
        failure = Refusal("error", str(failure))
    return failure, Usage()

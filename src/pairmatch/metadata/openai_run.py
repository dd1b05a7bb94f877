"""The requests of one run: made in threads, each with its own client and connection."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from pairmatch.core.errors import GeneratorError, ImageError
from pairmatch.core.types import Profile, Refusal, Usage
from pairmatch.metadata.outcomes import Answer

if TYPE_CHECKING:
    from pairmatch.metadata.openai import OpenAIMetadata

_ALIKE = 20  # photos that are rejected alike, before any other answer, stop a run
_PASSING = (408, 409, 425, 429)  # statuses that say nothing about the request

Outcome = BaseModel | Refusal


class OpenAIRun:
    """The requests of one call of `OpenAIMetadata.generate`.

    Args:
        generator: Generator of the metadata.
    """

    def __init__(self, generator: OpenAIMetadata) -> None:
        self._generator = generator
        self._reader = generator.reader()
        self._clients = threading.local()
        self._stopped = threading.Event()
        self._rejections: Counter[str] = Counter()

    def request(self, profile: Profile) -> Answer:
        """Requests metadata for the first photo of a profile.

        Raises:
            GeneratorError: The server's answer concerns all photos.
        """
        import openai

        from pairmatch.metadata.openai_client import Response

        try:
            body = self._generator.request(profile)
        except ImageError as error:
            return Refusal("unreadable", str(error)), Usage()
        try:
            # The client's own method for this route checks body and answer, which doubles the time
            # of a request and would reject an answer that misses the schema
            response = self._client.post("/responses", body=body, cast_to=Response)
        except openai.APIStatusError as error:
            # Raised without a cause, which would hold the request, and thus the key
            failure = self._reader.status_failure(error.response)
            if isinstance(failure, GeneratorError):
                raise failure from None
            is_passing = error.status_code in _PASSING or error.status_code >= 500
            return self._count(failure, is_final=not is_passing), Usage()
        except openai.OpenAIError as error:  # no connection, too slow or too large; after retries
            return Refusal("error", self._reader.exception_message(error)), Usage()
        outcome, usage = self._reader.body(response.content)
        return self._count(outcome, is_final=True), usage

    @property
    def _client(self) -> Any:
        if not hasattr(self._clients, "client"):
            self._clients.client = self._generator.client(stopped=self._stopped)
        return self._clients.client

    def _count(self, outcome: Outcome, *, is_final: bool) -> Outcome:
        """The outcome, unless the server has rejected the first photos all alike.

        Raises:
            GeneratorError: It has, so that further photos would be sent in vain.
        """
        if not isinstance(outcome, Refusal) or outcome.kind != "error":
            self._rejections[""] = 1  # a photo was accepted
        elif is_final:
            self._rejections[outcome.detail] += 1
            if self._rejections[outcome.detail] == _ALIKE and not self._rejections[""]:
                raise GeneratorError(
                    f"{outcome.detail} (the answer to each of the first {_ALIKE} photos, so the "
                    "run was stopped)"
                )
        return outcome

    def close(self) -> None:
        """Closes the connection of this thread."""
        if hasattr(self._clients, "client"):
            self._clients.client.close()

    def end(self) -> None:
        """Stops what is still running, and reports what was replaced in the answers."""
        self._stopped.set()
        self._reader.texts.report()

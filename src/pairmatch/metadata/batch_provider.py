"""The provider's side of batches: files and records, read as JSON and checked."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pairmatch.core.errors import PairmatchError
from pairmatch.io.files import parse_json
from pairmatch.metadata.openai import OpenAIMetadata

_log = logging.getLogger(__name__)
ENDPOINT = "/v1/responses"
_FINISHED = ("completed", "failed", "expired", "cancelled")
# The provider then deletes files that a killed process left behind
_FILE_LIFETIME_SECONDS = 7 * 24 * 3600
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
_MOST_PAGES = 1_000
_BYTES_PER_SECOND = 500_000  # slowest transfer of large files
_FILE_BYTES = 10_000_000  # besides the answers, in an output file
_LINE_BYTES = 20_000  # of an answer in an output file, which repeats prompt and schema


class ProviderError(PairmatchError):
    """The provider rejected a request, did not answer, or answered in an unknown format.

    Attributes:
        is_rejection: Whether the request certainly had no effect.
    """

    def __init__(self, message: str, *, is_rejection: bool = False) -> None:
        super().__init__(message)
        self.is_rejection = is_rejection


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """The provider's record of a batch.

    Attributes:
        id: The provider's id.
        status: State of the batch.
        input_file: Id of the file that was submitted.
        output_files: Ids of the files with answers and with errors.
        progress: Number of photos that are done, in words; "" if unknown.
        error: The first error of a batch that failed.
        name: Id that pairmatch gave the batch.
    """

    id: str
    status: str
    input_file: str | None
    output_files: tuple[str, ...]
    progress: str
    error: Mapping[str, Any]
    name: str | None

    @property
    def is_finished(self) -> bool:
        """Whether the batch has ended; states that are not known count as unfinished."""
        return self.status in _FINISHED

    @property
    def state(self) -> str:
        """Id, status and progress, in words."""
        return f"{self.id}, {self.status}{self.progress}"


class BatchProvider:
    """Files and batches at the provider.

    Args:
        generator: Generator whose server and key are used.

    Attributes:
        reader: Reads the server's responses and errors.
    """

    def __init__(self, generator: OpenAIMetadata) -> None:
        self.reader = generator.reader()
        self._generator = generator
        self._client = generator.client()

    def upload(self, content: bytes) -> str:
        """Uploads the requests of a batch; returns the id of the file."""
        file = self._call(
            lambda: self._client.files.with_raw_response.create(
                file=("batch.jsonl", content),
                purpose="batch",
                expires_after={"anchor": "created_at", "seconds": _FILE_LIFETIME_SECONDS},
                timeout=self._seconds(len(content)),
            )
        )
        return self._id(file)

    def start(self, file: str, name: str) -> str:
        """Starts a batch; returns its id."""
        # Not retried: a retry could start a second batch
        batches = self._client.with_options(max_retries=0).batches
        record = self._call(
            lambda: batches.with_raw_response.create(
                input_file_id=file,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={"pairmatch": name},
            )
        )
        return self._id(record)

    def record(self, remote: str) -> BatchRecord | None:
        """The record of a batch; None if the provider has none."""
        import openai

        try:
            value = self._call(
                lambda: self._client.batches.with_raw_response.retrieve(remote),
                passing=openai.NotFoundError,
            )
        except openai.NotFoundError:
            return None
        return self._read_record(value)

    def find(self, name: str) -> BatchRecord | None:
        """The record of a batch whose id is not known; None if it was never started.

        Reads all records: their dates say nothing, because they are of another clock.
        """
        batches = self._client.batches.with_raw_response
        after: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            page = self._call(partial(batches.list, limit=100, **after))
            values = page.get("data")
            if not isinstance(values, list):
                raise self._unknown(page)
            records = [self._read_record(value) for value in values]
            for record in records:
                if record.name == name:
                    return record
            if not records or page.get("has_more") is not True:
                return None
            if after.get("after") == records[-1].id:
                break
            after = {"after": records[-1].id}
        raise ProviderError(f"{self.reader.host} lists batches without an end")

    def download(self, file: str, photos: int, tokens: int) -> bytes:
        """Content of an output file; empty, with a warning, if it is gone or too large.

        Args:
            file: Id of the file.
            photos: Number of photos in the batch.
            tokens: Highest number of tokens of an answer.
        """
        import openai

        from pairmatch.metadata.openai_client import AnswerError

        most_bytes = _FILE_BYTES + photos * (_LINE_BYTES + 10 * tokens)
        try:
            with self._generator.client(most_bytes=most_bytes) as client:
                response = client.files.with_raw_response.content(
                    file, timeout=self._seconds(most_bytes)
                )
        except (openai.NotFoundError, AnswerError) as error:
            _log.warning(
                "The file %s cannot be read: %s", file, self.reader.exception_message(error)
            )
            return b""
        except openai.OpenAIError as error:
            raise self._error(error) from None
        content: bytes = response.content
        return content

    def delete(self, file: str) -> None:
        """Deletes a file; logs it if that fails."""
        import openai

        try:
            self._client.files.with_raw_response.delete(file)
        except openai.OpenAIError as error:
            _log.warning(
                "The file %s at %s could not be deleted: %s.",
                file,
                self.reader.host,
                type(error).__name__,
            )

    def close(self) -> None:
        """Closes the connection, and logs what was replaced in the answers."""
        self._client.close()
        self.reader.texts.report()

    def _seconds(self, size: int) -> float:
        return self._generator.timeout_seconds + size / _BYTES_PER_SECOND

    def _call(
        self, call: Callable[[], Any], passing: type[Exception] | tuple[()] = ()
    ) -> Mapping[str, Any]:
        """The JSON object that a call returns.

        Raises:
            ProviderError: The call fails, or returns something else.
        """
        import openai

        try:
            content = call().content
        except passing:
            raise
        except openai.OpenAIError as error:
            raise self._error(error) from None
        try:
            value = parse_json(content)
        except ValueError:
            value = self.reader.texts.decode(content)
        if not isinstance(value, Mapping):
            raise self._unknown(value)
        return value

    def _error(self, error: Exception) -> ProviderError:
        status = getattr(error, "status_code", 500)
        return ProviderError(self.reader.exception_message(error), is_rejection=status < 500)

    def _unknown(self, value: object) -> ProviderError:
        return ProviderError(self.reader.unknown(value).detail)

    def _id(self, value: Mapping[str, Any]) -> str:
        found = _id_of(value.get("id"))
        if found is None:
            raise self._unknown(value)
        return found

    def _read_record(self, value: object) -> BatchRecord:
        """The fields of a record, each checked."""
        status = value.get("status") if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or not isinstance(status, str):
            raise self._unknown(value)
        errors = value.get("errors")
        data = errors.get("data") if isinstance(errors, Mapping) else None
        first = data[0] if isinstance(data, list) and data else {}
        error = first if isinstance(first, Mapping) else {"message": str(first)}
        metadata = value.get("metadata")
        name = metadata.get("pairmatch") if isinstance(metadata, Mapping) else None
        remote = self._id(value)
        message = f"the batch {remote} failed: {error.get('message')}"
        files = (_id_of(value.get(key)) for key in ("output_file_id", "error_file_id"))
        return BatchRecord(
            id=remote,
            status=self.reader.texts.words(status),
            input_file=_id_of(value.get("input_file_id")),
            output_files=tuple(file for file in files if file is not None),
            progress=_progress(value.get("request_counts")),
            error={"code": error.get("code"), "message": message},
            name=name if isinstance(name, str) else None,
        )


def _id_of(value: object) -> str | None:
    """An id that can be part of an address, or None."""
    return value if isinstance(value, str) and _ID.fullmatch(value) else None


def _progress(counts: object) -> str:
    if not isinstance(counts, Mapping):
        return ""
    values = [counts.get(name) for name in ("completed", "failed", "total")]
    numbers = [value for value in values if isinstance(value, int)]
    if len(numbers) < len(values):
        return ""
    completed, failed, total = numbers
    return f", {completed + failed} of {total} done"

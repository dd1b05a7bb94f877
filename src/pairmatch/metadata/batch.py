"""Metadata through the provider's Batch API: half the price, answers within a day."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pairmatch.core.errors import ConfigurationError, GeneratorError, ImageError
from pairmatch.core.interfaces import MetadataGenerator
from pairmatch.core.types import Profile, Refusal, Usage
from pairmatch.io.store import Store, SubmittedBatch
from pairmatch.metadata.annotate import Annotation, AnnotationPlan
from pairmatch.metadata.limits import CostLimit
from pairmatch.metadata.openai import OpenAIMetadata
from pairmatch.metadata.outcomes import Answer, add_usage, generator_key, stored_outcome

_log = logging.getLogger(__name__)
_ENDPOINT = "/v1/responses"
_UNFINISHED = ("validating", "in_progress", "finalizing", "cancelling")
# The provider then deletes files that a killed process left behind
_FILE_LIFETIME_SECONDS = 7 * 24 * 3600
_CLOCK_TOLERANCE_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class BatchRun:
    """Result of a run in batches.

    Attributes:
        annotation: All people, with the metadata that exists by now; `asked` is the number of
            photos that this run submitted, `usage` the cost of the answers that it collected.
        under_way: Id, state and progress of each unfinished batch.
    """

    annotation: Annotation
    under_way: tuple[str, ...]

    def __str__(self) -> str:
        lines = [str(self.annotation), *(f"Unfinished: {batch}." for batch in self.under_way)]
        if self.under_way:
            lines.append(
                "Run the same command again to collect the answers; nothing is submitted twice."
            )
        return "\n".join(lines)


def annotate_in_batches(
    profiles: Sequence[Profile],
    generator: MetadataGenerator,
    store: Store,
    *,
    allow_upload: bool = False,
    max_usd: float | None = None,
    retry_refused: bool = False,
    max_requests: int = 50_000,
    max_megabytes: float = 100.0,
) -> BatchRun:
    """Collects finished batches, then submits the remaining photos; call it again to continue.

    Batches are recorded in the store before they are sent, so a killed process neither loses a
    batch nor submits one twice. Files at the provider are deleted after their answers are stored.

    Args:
        profiles: People; those with metadata keep it.
        generator: Generator that uses OpenAI's API.
        store: Store of the outcomes and of the unfinished batches.
        allow_upload: Whether photos may be sent. Collecting sends none.
        max_usd: Cost limit of the photos that are submitted, in USD.
        retry_refused: Whether to submit refused photos again.
        max_requests: Maximum number of photos per batch.
        max_megabytes: Maximum size of a batch, in megabytes.

    Raises:
        UploadError: Photos would leave this machine and `allow_upload` is false.
        GeneratorError: The key is missing, or the server rejects the batch; with its message.
        ConfigurationError: The generator has no batches, or `max_usd` is set without known prices.
        StoreError: Another process is submitting batches of this store.
        ImageError: A photo file is missing.
    """
    if not isinstance(generator, OpenAIMetadata):
        raise ConfigurationError(
            f"{type(generator).__name__} does not support batches: use `gpt-5-nano` or `openai`."
        )
    base = generator_key(generator)
    AnnotationPlan.of(profiles, generator, store).link(store)
    usage = Usage()
    states = []
    with store.exclusive("batches"):
        batches = store.batches(base)
        if batches:
            generator.check()
        for batch in batches:
            state, cost = _collect(generator, store, batch)
            usage = add_usage(usage, cost)
            states += [state] if state else []
        plan = AnnotationPlan.of(profiles, generator, store, retry_refused=retry_refused)
        submitted = 0
        if plan.to_submit:
            plan.check_consent(allow_upload, batch=True)
            limit = CostLimit(max_usd, 0.0 if max_usd is None else generator.worst_usd(batch=True))
            generator.check()
            for lines in _split(plan, generator, store, limit, max_requests, max_megabytes * 1e6):
                remote = _submit(generator, store, base, lines)
                submitted += len(lines)
                states.append(f"{remote}, {len(lines)} photos, submitted now")
    return BatchRun(plan.annotation(store, submitted, usage), tuple(states))


# Submitting


def _split(
    plan: AnnotationPlan,
    generator: OpenAIMetadata,
    store: Store,
    limit: CostLimit,
    max_requests: int,
    max_bytes: float,
) -> Iterator[dict[str, bytes]]:
    """Request lines by key, split into groups of the size of a batch."""
    lines: dict[str, bytes] = {}
    size = 0
    count = 0
    for key, profile in plan.to_submit.items():
        if not limit.allows(count + 1):
            break
        try:
            body = generator.request(profile)
        except ImageError as error:
            plan.outcomes[key] = stored_outcome(Refusal("unreadable", str(error)), Usage())
            store.put_metadata({key: plan.outcomes[key]})
            continue
        # The key is a digest of the photo, which identifies no person
        request = {"custom_id": key, "method": "POST", "url": _ENDPOINT, "body": body}
        line = json.dumps(request, ensure_ascii=False).encode() + b"\n"
        if lines and (len(lines) == max_requests or size + len(line) > max_bytes):
            yield lines
            lines = {}
            size = 0
        lines[key] = line
        size += len(line)
        count += 1
    if lines:
        yield lines


def _submit(generator: OpenAIMetadata, store: Store, base: str, lines: Mapping[str, bytes]) -> str:
    """Uploads and starts a batch; returns the provider's id."""
    import openai

    name = uuid.uuid4().hex
    store.put_batch(name, base, list(lines))
    client = generator.client
    try:
        file = client.files.create(
            file=("batch.jsonl", b"".join(lines.values())),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": _FILE_LIFETIME_SECONDS},
        )
    except openai.APIError as error:
        store.put_metadata({}, batch=name)
        message = generator.reader.exception_message(error)
        raise GeneratorError(f"The batch was not started. {message}") from None
    try:
        # Not retried: a retry could start a second batch
        batch = client.with_options(max_retries=0).batches.create(
            input_file_id=file.id,
            endpoint=_ENDPOINT,
            completion_window="24h",
            metadata={"pairmatch": name},
        )
    except openai.APIError as error:
        message = generator.reader.exception_message(error)
        if getattr(error, "status_code", 500) < 500:
            store.put_metadata({}, batch=name)
            raise GeneratorError(f"The batch was not started. {message}") from None
        raise GeneratorError(
            f"{message} while the batch was being started. Run the same command again: it finds "
            "out whether the batch was started."
        ) from None
    store.name_batch(name, batch.id)
    return str(batch.id)


# Collecting


def _collect(
    generator: OpenAIMetadata, store: Store, batch: SubmittedBatch
) -> tuple[str | None, Usage]:
    """Stores the answers of a batch, if it is finished.

    Returns:
        The state of the batch, or None if it is finished, and the cost of its answers.
    """
    import openai

    client = generator.client
    try:
        record = client.batches.retrieve(batch.remote) if batch.remote else _find(client, batch)
        if record is None:  # the process was killed before it started the batch
            store.put_metadata({}, batch=batch.id)
            return None, Usage()
        if batch.remote is None:
            store.name_batch(batch.id, record.id)
        if record.status in _UNFINISHED:
            return _state(record), Usage()
        lines = _read_lines(client, record)
    except openai.NotFoundError as error:
        if batch.remote is None:
            raise GeneratorError(generator.reader.exception_message(error)) from None
        _log.warning(
            "The provider no longer has the batch %s: its photos will be submitted again.",
            batch.remote,
        )
        store.put_metadata({}, batch=batch.id)
        return None, Usage()
    except openai.APIError as error:
        message = generator.reader.exception_message(error)
        raise GeneratorError(f"{message} while batches were being collected.") from None
    usage = _store_answers(generator, store, batch, lines)
    _delete_files(generator, record)
    if record.status == "failed":
        raise _failure(generator, record)
    return None, usage


def _find(client: Any, batch: SubmittedBatch) -> Any:
    """The provider's record of a batch with an unknown id; None if it was never started."""
    for record in client.batches.list(limit=100):  # newest first
        if (record.metadata or {}).get("pairmatch") == batch.id:
            return record
        if record.created_at < batch.created - _CLOCK_TOLERANCE_SECONDS:
            return None
    return None


def _state(record: Any) -> str:
    """Id, status and progress of a batch."""
    counts = record.request_counts
    progress = f", {counts.completed + counts.failed} of {counts.total} done" if counts else ""
    return f"{record.id}, {record.status}{progress}"


def _output_files(record: Any) -> list[str]:
    return [file for file in (record.output_file_id, record.error_file_id) if file]


def _read_lines(client: Any, record: Any) -> list[bytes]:
    """Lines of the output files."""
    # Bytes, because `str.splitlines` also splits at separators inside answers (U+2028, …)
    return [
        line
        for file in _output_files(record)
        for line in client.files.content(file).content.splitlines()
        if line.strip()
    ]


def _store_answers(
    generator: OpenAIMetadata, store: Store, batch: SubmittedBatch, lines: Sequence[bytes]
) -> Usage:
    """Stores the answers of a batch and closes it; returns their cost."""
    outcomes = {}
    usage = Usage()
    for line in map(json.loads, lines):
        outcome, cost = _read_answer(generator, line)
        outcomes[str(line["custom_id"])] = stored_outcome(outcome, cost)
        usage = add_usage(usage, cost)
    store.put_metadata(outcomes, model=generator.model, batch=batch.id)
    return usage


def _read_answer(generator: OpenAIMetadata, line: Mapping[str, Any]) -> Answer:
    """Outcome and cost in a line of an output file."""
    reader = generator.reader
    response = line.get("response")
    error = line.get("error")
    if response is None:
        return Refusal("error", reader.error_message(None, error or {})), Usage()
    body = response.get("body") or {}
    if response["status_code"] == 200:
        return reader.answer(body, batch=True)
    failure = reader.failure(response["status_code"], body.get("error") or error or {})
    return failure if isinstance(failure, Refusal) else Refusal("error", str(failure)), Usage()


def _delete_files(generator: OpenAIMetadata, record: Any) -> None:
    """Deletes the files of a batch at the provider; logs those that cannot be deleted."""
    import openai

    for file in [record.input_file_id, *_output_files(record)]:
        try:
            generator.client.files.delete(file)
        except openai.APIError as error:
            _log.warning(
                "The file %s at %s could not be deleted: %s.",
                file,
                generator.host,
                type(error).__name__,
            )


def _failure(generator: OpenAIMetadata, record: Any) -> GeneratorError:
    """The error of a batch that failed as a whole."""
    errors = (record.errors.data or []) if record.errors else []
    first = {"message": errors[0].message, "code": errors[0].code} if errors else {}
    message = f"the batch {record.id} failed: {first.get('message')}"
    failure = generator.reader.failure(400, {**first, "message": message})
    return GeneratorError(failure.detail) if isinstance(failure, Refusal) else failure

"""Metadata through the provider's Batch API.

Half the price, within a day, collected whenever it suits.
"""

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
from pairmatch.metadata.annotate import Annotation, Work, add_usage, generator_key, written_outcome
from pairmatch.metadata.openai import Answer, OpenAIMetadata
from pairmatch.metadata.pace import Cap

_log = logging.getLogger(__name__)
_ENDPOINT = "/v1/responses"
_UNDER_WAY = ("validating", "in_progress", "finalizing", "cancelling")
_UPLOAD_LASTS_SECONDS = (
    7 * 24 * 3600
)  # should a kill leave an uploaded file behind, the provider deletes it then


@dataclass(frozen=True, slots=True)
class BatchRun:
    """What came of a run in batches.

    Attributes:
        annotation: Everybody with what there is by now; `asked` counts photos that were submitted
            by this run, `usage` is what the answers that it collected cost.
        under_way: Batches that are not done: name, state and progress of each.
    """

    annotation: Annotation
    under_way: tuple[str, ...]

    def __str__(self) -> str:
        lines = [str(self.annotation), *(f"Under way: {batch}." for batch in self.under_way)]
        if self.under_way:
            lines.append(
                "Run the same command again to collect the answers; it submits nothing twice."
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
    """Collects the batches that are done, then submits everybody who is still to be asked; call it again to go on.

    What was submitted is noted in the store before it is sent, so neither a process that ends nor
    one that is killed loses a batch or submits one twice. Files at the provider are deleted once
    their answers are in the store.

    Args:
        profiles: People; those with metadata keep it.
        generator: One of OpenAI's API.
        store: Where outcomes and batches under way are kept.
        allow_upload: Lets photos be sent. Collecting sends none.
        max_usd: No more photos are submitted than this is sure to pay for.
        retry_refused: Asks again where there was a refusal.
        max_requests: Photos in one batch.
        max_megabytes: Size of one batch.

    Raises:
        UploadError: Photos would leave this machine and `allow_upload` is false.
        GeneratorError: No key, or the server refuses the batch: its words.
        ConfigurationError: A generator without batches, or a cap without prices.
        StoreError: Another process submits to this store right now.
        ImageError: A photo is not there.
    """
    if not isinstance(generator, OpenAIMetadata):
        raise ConfigurationError(
            f"{type(generator).__name__} has no batches: `gpt-5-nano` and `openai` have."
        )
    base = generator_key(generator)
    Work.of(profiles, generator, store).link(store)
    usage, states = Usage(), []
    with store.alone("batches"):
        waiting = store.batches(base)
        if waiting:
            generator.check()
        for batch in waiting:
            state, used = _collect(generator, store, batch)
            usage = add_usage(usage, used)
            states += [state] if state else []
        work = Work.of(profiles, generator, store, retry_refused=retry_refused)
        submitted = 0
        if work.asked:
            work.check_consent(allow_upload, batch=True)
            cap = Cap(max_usd, 0.0 if max_usd is None else generator.worst_usd(batch=True))
            generator.check()
            for lines in _files(work, generator, store, cap, max_requests, max_megabytes * 1e6):
                remote = _submit(generator, store, base, lines)
                submitted += len(lines)
                states.append(f"{remote}, {len(lines)} photos, submitted now")
    return BatchRun(work.annotation(store, submitted, usage), tuple(states))


def _files(
    work: Work,
    generator: OpenAIMetadata,
    store: Store,
    cap: Cap,
    max_requests: int,
    max_bytes: float,
) -> Iterator[dict[str, bytes]]:
    """Request lines by key, in groups that fit into one batch each."""
    lines: dict[str, bytes] = {}
    count, size = 0, 0
    for key, profile in work.asked.items():
        if not cap.allows(count + 1):
            break
        try:
            body = generator.request(profile)
        except ImageError as error:
            work.kept[key] = written_outcome(Refusal("unreadable", str(error)), Usage())
            store.put_metadata({key: work.kept[key]})
            continue
        # The key digests the photo: it names nobody
        line = {"custom_id": key, "method": "POST", "url": _ENDPOINT, "body": body}
        content = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        if lines and (len(lines) == max_requests or size + len(content) > max_bytes):
            yield lines
            lines, size = {}, 0
        lines[key] = content
        count, size = count + 1, size + len(content)
    if lines:
        yield lines


def _submit(generator: OpenAIMetadata, store: Store, base: str, lines: Mapping[str, bytes]) -> str:
    """Uploads and starts a batch; returns the provider's name of it."""
    import openai

    name = uuid.uuid4().hex
    store.put_batch(name, base, list(lines))
    client = generator.client
    try:
        file = client.files.create(
            file=("batch.jsonl", b"".join(lines.values())),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": _UPLOAD_LASTS_SECONDS},
        )
    except openai.APIError as error:
        store.put_metadata({}, batch=name)
        raise GeneratorError(f"The batch was not started. {_said(generator, error)}") from None
    try:
        # Tried once: a second try could start a second batch
        made = client.with_options(max_retries=0).batches.create(
            input_file_id=file.id,
            endpoint=_ENDPOINT,
            completion_window="24h",
            metadata={"pairmatch": name},
        )
    except openai.APIError as error:
        if getattr(error, "status_code", 500) < 500:
            store.put_metadata({}, batch=name)
            raise GeneratorError(f"The batch was not started. {_said(generator, error)}") from None
        raise GeneratorError(
            f"{_said(generator, error)} while the batch was being started. Run the same command again: it finds out "
            "whether it was."
        ) from None
    store.name_batch(name, made.id)
    return str(made.id)


def _collect(
    generator: OpenAIMetadata, store: Store, batch: SubmittedBatch
) -> tuple[str | None, Usage]:
    """The state of a batch that is not done, or None after its answers were put into the store.

    And their cost.
    """
    import openai

    client = generator.client
    try:
        found = client.batches.retrieve(batch.remote) if batch.remote else _find(client, batch)
        if found is None:  # killed before it was started
            store.put_metadata({}, batch=batch.id)
            return None, Usage()
        if batch.remote is None:
            store.name_batch(batch.id, found.id)
        if found.status in _UNDER_WAY:
            counts = found.request_counts
            progress = (
                f", {counts.completed + counts.failed} of {counts.total} done" if counts else ""
            )
            return f"{found.id}, {found.status}{progress}", Usage()
        files = [file for file in (found.output_file_id, found.error_file_id) if file]
        # Bytes: the lines of a text would also end at the separators (U+2028, …) that an answer may
        # hold
        lines = [
            line
            for file in files
            for line in client.files.content(file).content.splitlines()
            if line.strip()
        ]
    except openai.NotFoundError as error:
        if batch.remote is None:
            raise GeneratorError(_said(generator, error)) from None
        _log.warning(
            "The provider does not know the batch %s any more: its photos are to be asked for anew.",
            batch.remote,
        )
        store.put_metadata({}, batch=batch.id)
        return None, Usage()
    except openai.APIError as error:
        raise GeneratorError(f"{_said(generator, error)} while batches were collected.") from None
    outcomes, usage = {}, Usage()
    for line in map(json.loads, lines):
        outcome, cost = _answer(generator, line)
        outcomes[str(line["custom_id"])] = written_outcome(outcome, cost)
        usage = add_usage(usage, cost)
    store.put_metadata(outcomes, model=generator.model, batch=batch.id)
    for file in [found.input_file_id, *files]:
        try:
            client.files.delete(file)
        except openai.APIError as error:
            _log.warning(
                "The file %s at %s could not be deleted: %s.",
                file,
                generator.host,
                type(error).__name__,
            )
    if found.status == "failed":
        errors = (found.errors.data or []) if found.errors else []
        first = {"message": errors[0].message, "code": errors[0].code} if errors else {}
        failure = generator.failure(
            400, {**first, "message": f"the batch {found.id} failed: {first.get('message')}"}
        )
        raise GeneratorError(failure.detail if isinstance(failure, Refusal) else str(failure))
    return None, usage


def _find(client: Any, batch: SubmittedBatch) -> Any:
    """The provider's record of a batch whose name we never learned, if it was started."""
    for found in client.batches.list(limit=100):  # newest first
        if (found.metadata or {}).get("pairmatch") == batch.id:
            return found
        if found.created_at < batch.created - 3600:  # clocks differ
            return None
    return None


def _answer(generator: OpenAIMetadata, line: Mapping[str, Any]) -> Answer:
    """Outcome and cost of one line of a batch's output."""
    response, error = line.get("response"), line.get("error")
    if response is None:
        return Refusal("error", generator.said(None, error or {})), Usage()
    body = response.get("body") or {}
    if response["status_code"] == 200:
        return generator.read(body, batch=True)
    failure = generator.failure(response["status_code"], body.get("error") or error or {})
    return failure if isinstance(failure, Refusal) else Refusal("error", str(failure)), Usage()


def _said(generator: OpenAIMetadata, error: Any) -> str:
    status = getattr(error, "status_code", None)
    if status is None:
        return f"{generator.host}: {type(error).__name__}"
    details = error.body if isinstance(error.body, Mapping) else {}
    words = generator.said(status, {"message": error.message, **details})
    return f"{words} (key from {generator.api_key_variable})" if status in (401, 403) else words

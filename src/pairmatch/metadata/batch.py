"""Metadata through the provider's Batch API: half the price, answers within a day."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from pairmatch.core.errors import ConfigurationError, GeneratorError, ImageError
from pairmatch.core.interfaces import MetadataGenerator
from pairmatch.core.types import Profile, Refusal, Usage
from pairmatch.io.store import Store, SubmittedBatch
from pairmatch.metadata.annotate import Annotation, AnnotationPlan
from pairmatch.metadata.batch_lines import read_lines
from pairmatch.metadata.batch_provider import ENDPOINT, BatchProvider, ProviderError
from pairmatch.metadata.generating import Spending
from pairmatch.metadata.limits import CostLimit
from pairmatch.metadata.openai import OpenAIMetadata
from pairmatch.metadata.outcomes import (
    generator_key,
    stored_outcome,
)

_log = logging.getLogger(__name__)


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
    with store.exclusive("batches"), store.claims() as claims:
        batches = store.batches(base)
        if batches:
            generator.check()
        collected = _collect_all(generator, store, batches)
        states = list(collected.under_way)
        plan = AnnotationPlan.of(profiles, generator, store, retry_refused=retry_refused)
        # What a finished batch left out is not submitted again before somebody could see that
        wanted = plan.to_submit.keys() - collected.unanswered
        if wanted:
            plan.only(wanted).check_consent(allow_upload, batch=True)
            limit = CostLimit(max_usd, 0.0 if max_usd is None else generator.worst_usd(batch=True))
            generator.check()
            mine = claims.take(wanted)
            work = plan.refresh(store, mine, retry_refused=retry_refused)
            plan = plan.only(work, elsewhere=wanted - mine)
            for lines in _split(plan, generator, store, limit, max_requests, max_megabytes * 1e6):
                remote = _submit(generator, store, base, lines)
                collected.spending.submitted += len(lines)
                states.append(f"{remote}, {len(lines)} photos, submitted now")
    return BatchRun(plan.annotation(store, collected.spending), tuple(states))


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
        request = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
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
    name = uuid.uuid4().hex
    store.put_batch(name, base, list(lines))
    with closing(BatchProvider(generator)) as provider:
        remote = _start(provider, store, name, b"".join(lines.values()))
    store.name_batch(name, remote)
    return remote


def _start(provider: BatchProvider, store: Store, name: str, content: bytes) -> str:
    """Uploads and starts a batch that is recorded; returns the provider's id."""
    try:
        file = provider.upload(content)
    except ProviderError as error:
        store.put_metadata({}, batch=name)
        raise GeneratorError(f"The batch was not started. {error}") from None
    try:
        return provider.start(file, name)
    except ProviderError as error:
        if error.is_rejection:
            store.put_metadata({}, batch=name)
            raise GeneratorError(f"The batch was not started. {error}") from None
        raise GeneratorError(
            f"{error} while the batch was being started. Run the same command again: it finds "
            "out whether the batch was started."
        ) from None


# Collecting


@dataclass(slots=True)
class _Collected:
    """What the finished batches delivered.

    Attributes:
        spending: Cost of the answers.
        under_way: State of each unfinished batch.
        unanswered: Keys for which a finished batch held no answer.
        failures: Errors of batches that could not be collected, or that failed as a whole.
    """

    spending: Spending = field(default_factory=Spending)
    under_way: list[str] = field(default_factory=list)
    unanswered: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)


def _collect_all(
    generator: OpenAIMetadata, store: Store, batches: Sequence[SubmittedBatch]
) -> _Collected:
    """Stores the answers of all finished batches; one that fails does not keep the others.

    Raises:
        GeneratorError: Batches failed; the answers of the others are stored.
    """
    collected = _Collected()
    if not batches:
        return collected
    with closing(BatchProvider(generator)) as provider:
        for batch in batches:
            try:
                _collect(generator, provider, store, batch, collected)
            except ProviderError as error:
                collected.failures.append(f"{error} while batches were being collected.")
    if collected.failures:
        raise GeneratorError(" ".join(dict.fromkeys(collected.failures)))
    return collected


def _collect(
    generator: OpenAIMetadata,
    provider: BatchProvider,
    store: Store,
    batch: SubmittedBatch,
    collected: _Collected,
) -> None:
    """Stores the answers of a batch, if it is finished.

    Raises:
        ProviderError: The provider does not answer as expected.
    """
    record = provider.find(batch.id) if batch.remote is None else provider.record(batch.remote)
    if record is None:
        if batch.remote is not None:
            _log.warning(
                "The provider no longer has the batch %s: its photos will be submitted again.",
                batch.remote,
            )
        store.put_metadata({}, batch=batch.id)  # else the process was killed before it started
        return
    if batch.remote is None:
        store.name_batch(batch.id, record.id)
    if not record.is_finished:
        collected.under_way.append(record.state)
        return
    contents = [
        provider.download(file, len(batch.keys), generator.max_output_tokens)
        for file in record.output_files
    ]
    if contents or record.status == "completed":
        delivered = read_lines(contents, batch.keys, provider.reader)
        delivered.report(record.id)
        outcomes = {
            key: stored_outcome(outcome, usage)
            for key, (outcome, usage) in delivered.answers.items()
        }
        for _, usage in delivered.answers.values():
            collected.spending.add(usage)
        collected.unanswered |= delivered.unanswered
        if delivered.fault is not None:
            collected.failures.append(str(delivered.fault))
    else:
        outcomes = {}
    store.put_metadata(outcomes, model=generator.model, batch=batch.id)
    for file in (record.input_file, *record.output_files):
        if file is not None:
            provider.delete(file)
    if record.status == "failed":
        failure = provider.reader.failure(400, record.error)
        words = failure.detail if isinstance(failure, Refusal) else str(failure)
        collected.failures.append(words)

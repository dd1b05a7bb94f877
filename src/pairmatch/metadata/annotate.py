"""Fills people's metadata in from the store and a generator.

Asked once per photo, kept as each answer arrives.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from rich.progress import Progress

from pairmatch.core.errors import UploadError
from pairmatch.core.interfaces import MetadataGenerator
from pairmatch.core.types import Profile, Refusal, Usage
from pairmatch.io.images import image_digest
from pairmatch.io.store import Store, content_key
from pairmatch.metadata.schema import problems_of, schema_key

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would do.

    Attributes:
        photos: Distinct photos that would be asked for.
        kept: Distinct photos whose outcome is in the store.
        host: Where photos would go; None where they stay on this machine.
        usage: About what it would cost; None where the generator does not tell.
        pending: Distinct photos in batches that are under way.
        notice: What there is to know about the end of the model.
    """

    photos: int
    kept: int
    host: str | None
    usage: Usage | None
    pending: int = 0
    notice: str | None = None

    def __str__(self) -> str:
        text = f"{self.photos} photos to ask for, {self.kept} answered already"
        if self.pending:
            text += f", {self.pending} in batches under way"
        if self.host is not None and self.photos:
            text += f"; they would be sent to {self.host}"
        if self.usage is not None and self.photos:
            cost = (
                "at prices that are not known"
                if self.usage.usd is None
                else f"about ${self.usage.usd:.4f}"
            )
            text += f", about {self.usage.input_tokens + self.usage.output_tokens:,} tokens, {cost}"
        return text + "." + (f" {self.notice}" if self.notice and self.photos else "")


@dataclass(frozen=True, slots=True)
class Annotation:
    """What came of a run.

    Attributes:
        profiles: As given, with metadata where there is some.
        refused: Refusal by person, for those without.
        asked: Photos that were asked for.
        usage: What the answers of this run cost.
    """

    profiles: tuple[Profile, ...]
    refused: dict[str, Refusal]
    asked: int
    usage: Usage

    def __str__(self) -> str:
        done = sum(profile.metadata is not None for profile in self.profiles)
        text = f"{done} of {len(self.profiles)} people have metadata; {self.asked} photos were asked for now"
        if self.usage.input_tokens:
            cost = (
                "at prices that are not known"
                if self.usage.usd is None
                else f"${self.usage.usd:.4f}"
            )
            text += f", {self.usage.input_tokens + self.usage.output_tokens:,} tokens, {cost}"
        kinds = Counter(refusal.kind for refusal in self.refused.values())
        return text + "".join(f"; {count} {kind}" for kind, count in kinds.items()) + "."


def annotate(
    profiles: Sequence[Profile],
    generator: MetadataGenerator,
    store: Store,
    *,
    allow_upload: bool = False,
    max_usd: float | None = None,
    retry_refused: bool = False,
    progress: bool = False,
) -> Annotation:
    """Metadata for everybody who has a photo and none yet.

    Outcomes are found by photo, schema, prompt and model. Identical photos are asked for once.
    Refusals are kept and not asked for again, except those of the server (`error`), or all of them
    with `retry_refused`. What people said about themselves (`correct`) stands above what a
    generator wrote.

    Args:
        profiles: People; those with metadata keep it.
        generator: Asked for what is not in the store.
        store: Where outcomes are kept, each as it arrives.
        allow_upload: Lets a generator that sends photos do so.
        max_usd: No photo is begun that could bring the cost of this run beyond it.
        retry_refused: Asks again where there was a refusal.
        progress: Shows a progress bar.

    Raises:
        UploadError: Photos would leave this machine and `allow_upload` is false.
        GeneratorError: Nothing can be generated for anyone.
        ConfigurationError: A cap on the cost of a model whose prices are not known.
        ImageError: A photo is not there.
    """
    work = Work.of(profiles, generator, store, retry_refused=retry_refused)
    work.link(store)
    usage = Usage()
    if work.asked:
        work.check_consent(allow_upload)
        with Progress(disable=not progress) as bar:
            task = bar.add_task("Annotating", total=len(work.asked))
            names = list(work.asked)

            def keep(index: int, outcome: BaseModel | Refusal, cost: Usage) -> None:
                nonlocal usage
                written = written_outcome(outcome, cost)
                store.put_metadata({names[index]: written}, model=getattr(generator, "model", None))
                work.kept[names[index]] = written
                usage = add_usage(usage, cost)
                bar.advance(task)

            generator.generate(list(work.asked.values()), keep, max_usd=max_usd)
    return work.annotation(store, sum(key in work.kept for key in work.asked), usage)


def estimate(
    profiles: Sequence[Profile],
    generator: MetadataGenerator,
    store: Store,
    *,
    retry_refused: bool = False,
    batch: bool = False,
) -> Estimate:
    """What `annotate` (or `annotate_in_batches`) would do; asks nobody and sends nothing."""
    return Work.of(profiles, generator, store, retry_refused=retry_refused).estimate(batch=batch)


@dataclass(frozen=True, slots=True)
class Work:
    """Who has what and who is to be asked.

    Attributes:
        profiles: Everybody.
        generator: Who is asked.
        keys: By position in `profiles`, for those who have a photo and no metadata.
        kept: Outcomes by key, as they stand in the store.
        asked: Those to ask, one for each distinct photo, by key.
        pending: Keys in batches that are under way.
        corrections: What people said about themselves.
    """

    profiles: Sequence[Profile]
    generator: MetadataGenerator
    keys: dict[int, str]
    kept: dict[str, dict[str, Any]]
    asked: dict[str, Profile]
    pending: frozenset[str]
    corrections: dict[str, dict[str, Any]]

    @classmethod
    def of(
        cls,
        profiles: Sequence[Profile],
        generator: MetadataGenerator,
        store: Store,
        *,
        retry_refused: bool = False,
    ) -> Work:
        base = generator_key(generator)
        keys = {
            index: outcome_key(base, profile)
            for index, profile in enumerate(profiles)
            if profile.metadata is None and profile.images
        }
        kept = store.metadata(list(dict.fromkeys(keys.values())))
        pending = frozenset(key for batch in store.batches(base) for key in batch.keys)
        corrections = store.corrections(list(dict.fromkeys(profile.id for profile in profiles)))
        asked = {
            key: profiles[index]
            for index, key in keys.items()
            if key not in pending
            and _is_open(kept.get(key), retry_refused)
            and not set(generator.schema.model_fields)
            <= set(corrections.get(profiles[index].id, ()))
        }
        return cls(profiles, generator, keys, kept, asked, pending, corrections)

    def link(self, store: Store) -> None:
        """Notes whom the keys belong to, before anything is under them.

        What is there can be forgotten.
        """
        store.link((self.profiles[index].id, key) for index, key in self.keys.items())

    def check_consent(self, allow_upload: bool, *, batch: bool = False) -> None:
        """Raises UploadError where photos would leave this machine unasked."""
        if self.generator.sends_photos and not allow_upload:
            raise UploadError(
                f"{self.estimate(batch=batch)} Nothing was sent. Allow it with allow_upload=True (--yes), or choose a "
                "metadata generator that stays on this machine."
            )

    def estimate(self, *, batch: bool = False) -> Estimate:
        """What asking would mean."""
        generator: Any = self.generator
        host = getattr(generator, "host", "another machine") if generator.sends_photos else None
        guess = getattr(generator, "estimate", None)
        notice = getattr(generator, "notice", None)
        pending = self.pending & set(self.keys.values())
        return Estimate(
            len(self.asked),
            len(self.kept.keys() - self.asked.keys() - pending),
            host,
            guess(len(self.asked), **({"batch": True} if batch else {})) if guess else None,
            len(pending),
            notice() if notice and self.asked else None,
        )

    def annotation(self, store: Store, asked: int, usage: Usage) -> Annotation:
        """Everybody with what there is about them now."""
        schema = self.generator.schema
        pending = frozenset(
            key for batch in store.batches(generator_key(self.generator)) for key in batch.keys
        )
        found: list[Profile] = []
        refused = {}
        for index, profile in enumerate(self.profiles):
            if profile.metadata is not None:
                found.append(profile)
                continue
            outcome = self.kept.get(self.keys[index]) if index in self.keys else None
            metadata = (
                schema.model_validate(outcome["metadata"])
                if outcome and "metadata" in outcome
                else None
            )
            metadata = corrected(metadata, schema, self.corrections.get(profile.id, {}), profile.id)
            found.append(
                profile if metadata is None else dataclasses.replace(profile, metadata=metadata)
            )
            if metadata is None and index in self.keys:
                if self.keys[index] in pending:
                    refused[profile.id] = Refusal(
                        "pending", "in a batch under way; `annotate --batch` collects it"
                    )
                elif outcome is None:
                    refused[profile.id] = Refusal("stopped", "not asked: the cap on the cost")
                else:
                    refused[profile.id] = Refusal(outcome["refusal"], outcome["detail"])
        return Annotation(tuple(found), refused, asked, usage)


def generator_key(generator: MetadataGenerator) -> str:
    """Digest of everything but the photo that an outcome depends on.

    Model, prompt, schema, image size.
    """
    return content_key(
        {"metadata": 1, "of": dict(generator.fingerprint()), "schema": schema_key(generator.schema)}
    )


def outcome_key(base: str, profile: Profile) -> str:
    """Key of the outcome for a person's first photo."""
    return content_key({"of": base, "photo": image_digest(profile.images[0])})


def corrected(
    metadata: BaseModel | None, schema: type[BaseModel], corrections: Mapping[str, Any], person: str
) -> BaseModel | None:
    """Metadata with what a person said about themselves in its place.

    Attributes of other schemas are left out.
    """
    own = {name: value for name, value in corrections.items() if name in schema.model_fields}
    if not own:
        return metadata
    try:
        return schema.model_validate(
            {**(metadata.model_dump(mode="json") if metadata else {}), **own}
        )
    except ValidationError as error:
        _log.warning(
            "Corrections of %r do not fit %s and are left out: %s",
            person,
            schema.__name__,
            problems_of(error),
        )
        return metadata


def _is_open(outcome: Mapping[str, Any] | None, retry_refused: bool) -> bool:
    if outcome is None:
        return True
    return "refusal" in outcome and (retry_refused or outcome["refusal"] == "error")


def written_outcome(outcome: BaseModel | Refusal, cost: Usage) -> dict[str, Any]:
    """An outcome as the store keeps it."""
    usage = dataclasses.asdict(cost)
    if isinstance(outcome, Refusal):
        return {"refusal": outcome.kind, "detail": outcome.detail, "usage": usage}
    return {"metadata": outcome.model_dump(mode="json"), "usage": usage}


def add_usage(one: Usage, other: Usage) -> Usage:
    """The sum; its cost is known where both are."""
    usd = None if one.usd is None or other.usd is None else one.usd + other.usd
    return Usage(
        one.input_tokens + other.input_tokens,
        one.cached_tokens + other.cached_tokens,
        one.output_tokens + other.output_tokens,
        usd,
    )

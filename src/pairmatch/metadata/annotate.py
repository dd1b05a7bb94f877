"""Adds metadata to profiles, from the store and from a generator.

Each distinct photo is submitted once, and each outcome is stored as it arrives.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from pairmatch.core.errors import UploadError
from pairmatch.core.interfaces import MetadataGenerator
from pairmatch.core.progress import progress_bar
from pairmatch.core.types import Profile, Refusal, Usage
from pairmatch.io.store import Store
from pairmatch.metadata.generating import Spending, generate
from pairmatch.metadata.outcomes import (
    apply_corrections,
    generator_key,
    needs_generation,
    outcome_key,
    readable_outcomes,
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would submit and cost.

    Attributes:
        photos: Number of distinct photos to submit.
        kept: Number of distinct photos with a stored outcome.
        host: Server that would receive the photos; None if they stay on this machine.
        usage: Estimated cost; None if the generator gives no estimate.
        pending: Number of distinct photos in unfinished batches.
        notice: Notice that the model will be shut down soon.
        route: What else decides where the photos go, as words that follow the host.
        model: Model that would read the photos, and which model it succeeds; blank if unknown.
        key_variable: Environment variable whose value would be sent as the key.
    """

    photos: int
    kept: int
    host: str | None
    usage: Usage | None
    pending: int = 0
    notice: str | None = None
    route: str = ""
    model: str = ""
    key_variable: str | None = None

    def __str__(self) -> str:
        text = f"{self.photos} photos to submit, {self.kept} already answered"
        if self.pending:
            text += f", {self.pending} in unfinished batches"
        if self.host is not None and self.photos:
            reader = f" for {self.model}" if self.model else ""
            text += f"; they would be sent to {self.host}{self.route}{reader}"
        if self.usage is not None and self.photos:
            price = "price unknown" if self.usage.usd is None else f"about ${self.usage.usd:.4f}"
            text += f", about {_tokens(self.usage)}, {price}"
        if self.key_variable is not None and self.photos:
            text += f", with the key in {self.key_variable}"
        return text + "." + (f" {self.notice}" if self.notice and self.photos else "")


@dataclass(frozen=True, slots=True)
class Annotation:
    """Result of a run.

    Attributes:
        profiles: The profiles as passed, with metadata if there is any.
        refused: Refusal by id, for people with a photo but no metadata.
        asked: Number of photos that this run submitted.
        usage: Cost of the answers that this run received.
        uncounted: Number of answers whose cost is unknown, as the server stated no number of
            tokens.
    """

    profiles: tuple[Profile, ...]
    refused: dict[str, Refusal]
    asked: int
    usage: Usage
    uncounted: int = 0

    def __str__(self) -> str:
        annotated = sum(profile.metadata is not None for profile in self.profiles)
        text = (
            f"{annotated} of {len(self.profiles)} people have metadata; "
            f"{self.asked} photos submitted in this run"
        )
        if self.usage.input_tokens:
            price = "price unknown" if self.usage.usd is None else f"${self.usage.usd:.4f}"
            text += f", {_tokens(self.usage)}, {price}"
        if self.uncounted:
            text += f"; {self.uncounted} answers without a number of tokens, of unknown cost"
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
    """Adds metadata to every profile that has a photo and no metadata.

    Outcomes are stored by photo, schema, prompt and model; identical photos are submitted once. A
    stored refusal is final, except for server errors (`error`), unless `retry_refused` is set.
    People's corrections (`correct`) override what the generator wrote.

    Args:
        profiles: People; those with metadata keep it.
        generator: Generator that writes the metadata missing from the store.
        store: Store that is read, and that receives each outcome as it arrives.
        allow_upload: Whether the generator may send photos to another machine.
        max_usd: Cost limit of this run, in USD. No photo is submitted that could exceed it.
        retry_refused: Whether to submit refused photos again.
        progress: Whether to show a progress bar.

    Raises:
        UploadError: Photos would leave this machine and `allow_upload` is false.
        GeneratorError: The generator cannot work.
        ConfigurationError: `max_usd` is set, but the prices of the model are unknown.
        ImageError: A photo file is missing.
    """
    plan = AnnotationPlan.of(profiles, generator, store, retry_refused=retry_refused)
    plan.link(store)
    if not plan.to_submit:
        return plan.annotation(store, Spending())
    plan.check_consent(allow_upload)
    with progress_bar(progress) as bar:
        task = bar.add_task("Annotating", total=len(plan.to_submit))
        spending = generate(
            plan,
            store,
            max_usd=max_usd,
            retry_refused=retry_refused,
            advance=lambda: bar.advance(task),
        )
    return plan.annotation(store, spending)


def estimate(
    profiles: Sequence[Profile],
    generator: MetadataGenerator,
    store: Store,
    *,
    retry_refused: bool = False,
    batch: bool = False,
) -> Estimate:
    """What `annotate`, or `annotate_in_batches` with `batch`, would submit; sends nothing."""
    plan = AnnotationPlan.of(profiles, generator, store, retry_refused=retry_refused)
    return plan.estimate(batch=batch)


@dataclass(frozen=True, slots=True)
class AnnotationPlan:
    """The stored outcomes of a set of people, and the photos to submit.

    Attributes:
        profiles: All people.
        generator: Generator of the metadata.
        keys: Keys by position in `profiles`, for people with a photo and no metadata.
        outcomes: Stored outcomes by key; those of the run are added as they arrive.
        to_submit: Profiles to submit by key, one per distinct photo.
        pending: Keys in unfinished batches.
        corrections: Corrections by person and attribute.
        elsewhere: Keys that another run is submitting.
    """

    profiles: Sequence[Profile]
    generator: MetadataGenerator
    keys: dict[int, str]
    outcomes: dict[str, dict[str, Any]]
    to_submit: dict[str, Profile]
    pending: frozenset[str]
    corrections: dict[str, dict[str, Any]]
    elsewhere: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        profiles: Sequence[Profile],
        generator: MetadataGenerator,
        store: Store,
        *,
        retry_refused: bool = False,
    ) -> AnnotationPlan:
        """Compares the store with the profiles; changes nothing."""
        base = generator_key(generator)
        keys = {
            index: outcome_key(base, profile)
            for index, profile in enumerate(profiles)
            if profile.metadata is None and profile.images
        }
        outcomes = readable_outcomes(
            store.metadata(list(dict.fromkeys(keys.values()))), generator.schema
        )
        pending = _pending_keys(store, base)
        corrections = store.corrections(list(dict.fromkeys(profile.id for profile in profiles)))
        attributes = set(generator.schema.model_fields)
        to_submit = {
            key: profiles[index]
            for index, key in keys.items()
            if key not in pending
            and needs_generation(outcomes.get(key), retry_refused=retry_refused)
            and not attributes <= set(corrections.get(profiles[index].id, ()))
        }
        return cls(profiles, generator, keys, outcomes, to_submit, pending, corrections)

    def link(self, store: Store) -> None:
        """Links keys to people before anything is stored under them, so that `forget` erases it."""
        store.link((self.profiles[index].id, key) for index, key in self.keys.items())

    def only(self, keys: Collection[str], elsewhere: Collection[str] = ()) -> AnnotationPlan:
        """The plan with the photos of some keys only.

        Args:
            keys: Keys of the photos to submit.
            elsewhere: Keys that another run is submitting.
        """
        kept = {key: profile for key, profile in self.to_submit.items() if key in keys}
        return dataclasses.replace(self, to_submit=kept, elsewhere=frozenset(elsewhere))

    def check_consent(self, allow_upload: bool, *, batch: bool = False) -> None:
        """Raises `UploadError` if photos would leave this machine without permission."""
        if self.generator.sends_photos and not allow_upload:
            raise UploadError(
                f"{self.estimate(batch=batch)} Nothing was sent. Allow it with allow_upload=True "
                "(--yes), or choose a metadata generator that stays on this machine."
            )

    def estimate(self, *, batch: bool = False) -> Estimate:
        """What the plan would submit and cost."""
        generator: Any = self.generator
        photos = len(self.to_submit)
        pending = self.pending & set(self.keys.values())
        usage = None
        if hasattr(generator, "estimate"):
            usage = generator.estimate(photos, **({"batch": True} if batch else {}))
        notice = None
        if self.to_submit and hasattr(generator, "notice"):
            notice = generator.notice()
        return Estimate(
            photos=photos,
            kept=len(self.outcomes.keys() - self.to_submit.keys() - pending),
            host=getattr(generator, "host", "another machine") if generator.sends_photos else None,
            usage=usage,
            pending=len(pending),
            notice=notice,
            route=getattr(generator, "route", ""),
            model=getattr(generator, "model_words", ""),
            key_variable=getattr(generator, "api_key_variable", None),
        )

    def refresh(self, store: Store, keys: Collection[str], *, retry_refused: bool) -> list[str]:
        """Reads outcomes again; returns the keys, of those given, that still need generation."""
        pending = _pending_keys(store, generator_key(self.generator))
        fresh = readable_outcomes(store.metadata(list(keys)), self.generator.schema)
        self.outcomes.update(fresh)
        return [
            key
            for key in self.to_submit
            if key in keys
            and key not in pending
            and needs_generation(fresh.get(key), retry_refused=retry_refused)
        ]

    def annotation(self, store: Store, spending: Spending) -> Annotation:
        """The result of a run, from the outcomes that exist by now.

        Args:
            store: Store with the batches that are unfinished by now.
            spending: What the run submitted and spent.
        """
        pending = _pending_keys(store, generator_key(self.generator))
        profiles: list[Profile] = []
        refused = {}
        for index, profile in enumerate(self.profiles):
            if profile.metadata is None:
                metadata = self._metadata(index)
                if metadata is not None:
                    profile = dataclasses.replace(profile, metadata=metadata)
                elif index in self.keys:
                    refused[profile.id] = self._refusal(self.keys[index], pending)
            profiles.append(profile)
        return Annotation(
            tuple(profiles), refused, spending.submitted, spending.usage, spending.uncounted
        )

    def _metadata(self, index: int) -> BaseModel | None:
        """Generated and corrected metadata of a person who had none."""
        schema = self.generator.schema
        person = self.profiles[index].id
        outcome = self.outcomes.get(self.keys[index], {}) if index in self.keys else {}
        metadata = schema.model_validate(outcome["metadata"]) if "metadata" in outcome else None
        return apply_corrections(metadata, schema, self.corrections.get(person, {}), person)

    def _refusal(self, key: str, pending: frozenset[str]) -> Refusal:
        """Why there is no metadata under a key."""
        if key in pending:
            return Refusal("pending", "in an unfinished batch; `annotate --batch` collects it")
        outcome = self.outcomes.get(key)
        if key in self.elsewhere:
            return Refusal("pending", "submitted by another run; run this again to see its answer")
        if outcome is None:
            return Refusal("stopped", "not submitted: the cost limit was reached")
        return Refusal(outcome["refusal"], outcome["detail"])


def _pending_keys(store: Store, generator: str) -> frozenset[str]:
    return frozenset(key for batch in store.batches(generator) for key in batch.keys)


def _tokens(usage: Usage) -> str:
    return f"{usage.input_tokens + usage.output_tokens:,} tokens"

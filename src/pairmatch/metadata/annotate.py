"""Fills people's metadata in from the store and a generator: asked once per photo, kept as each answer arrives."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from rich.progress import Progress

from pairmatch.errors import UploadError
from pairmatch.images import image_digest
from pairmatch.interfaces import MetadataGenerator
from pairmatch.metadata.schema import schema_key
from pairmatch.store import Store, content_key
from pairmatch.types import Profile, Refusal, Usage


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would do.

    Attributes:
        photos: Distinct photos that would be asked for.
        kept: Distinct photos whose outcome is in the store.
        host: Where photos would go; None where they stay on this machine.
        usage: About what it would cost; None where the generator does not tell.
    """

    photos: int
    kept: int
    host: str | None
    usage: Usage | None

    def __str__(self) -> str:
        text = f"{self.photos} photos to ask for, {self.kept} answered already"
        if self.host is not None and self.photos:
            text += f"; they would be sent to {self.host}"
        if self.usage is not None and self.photos:
            cost = "at prices that are not known" if self.usage.usd is None else f"about ${self.usage.usd:.4f}"
            text += f", about {self.usage.input_tokens + self.usage.output_tokens:,} tokens, {cost}"
        return text + "."


@dataclass(frozen=True, slots=True)
class Annotation:
    """What came of a run.

    Attributes:
        profiles: As given, with metadata where there is some.
        refused: Refusal by person, for those without.
        asked: Photos that were asked for.
        usage: What they cost.
    """

    profiles: tuple[Profile, ...]
    refused: dict[str, Refusal]
    asked: int
    usage: Usage

    def __str__(self) -> str:
        done = sum(profile.metadata is not None for profile in self.profiles)
        text = f"{done} of {len(self.profiles)} people have metadata; {self.asked} photos were asked for now"
        if self.usage.input_tokens:
            cost = "at prices that are not known" if self.usage.usd is None else f"${self.usage.usd:.4f}"
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

    Outcomes are found by photo, schema, prompt and model. Identical photos are asked for once. Refusals are kept and
    not asked for again, except those of the server (`error`), or all of them with `retry_refused`.

    Args:
        profiles: People; those with metadata keep it.
        generator: Asked for what is not in the store.
        store: Where outcomes are kept, each as it arrives.
        allow_upload: Lets a generator that sends photos do so.
        max_usd: No photo is begun beyond this cost.
        retry_refused: Asks again where there was a refusal.
        progress: Shows a progress bar.

    Raises:
        UploadError: Photos would leave this machine and `allow_upload` is false.
        GeneratorError: Nothing can be generated for anyone.
        ImageError: A photo is not there.
    """
    waiting = [profile for profile in profiles if profile.metadata is None and profile.images]
    keys = _keys(waiting, generator)
    store.link((profile.id, key) for profile, key in zip(waiting, keys, strict=True))
    kept = store.metadata(list(dict.fromkeys(keys)))
    asked = {key: profile for profile, key in zip(waiting, keys, strict=True) if _is_open(kept.get(key), retry_refused)}
    usage = Usage()
    if asked:
        if generator.sends_photos and not allow_upload:
            raise UploadError(
                f"{_estimate(asked, kept, generator)} Nothing was sent. Allow it with allow_upload=True (--yes), or "
                "choose a metadata generator that stays on this machine."
            )
        with Progress(disable=not progress) as bar:
            task = bar.add_task("Annotating", total=len(asked))
            names = list(asked)

            def keep(index: int, outcome: BaseModel | Refusal, cost: Usage) -> bool:
                nonlocal usage
                kept[names[index]] = _written(outcome, cost)
                store.put_metadata({names[index]: kept[names[index]]})
                usage = _add(usage, cost)
                bar.advance(task)
                return max_usd is not None and (usage.usd or 0.0) >= max_usd

            generator.generate(list(asked.values()), keep)
    found, refused = {}, {}
    for profile, key in zip(waiting, keys, strict=True):
        outcome = kept.get(key, {"refusal": "stopped", "detail": "not asked"})
        if "metadata" in outcome:
            found[profile.id] = generator.schema.model_validate(outcome["metadata"])
        else:
            refused[profile.id] = Refusal(outcome["refusal"], outcome["detail"])
    return Annotation(
        tuple(dataclasses.replace(p, metadata=found[p.id]) if p.id in found else p for p in profiles),
        refused,
        sum(key in kept for key in asked) if asked else 0,
        usage,
    )


def estimate(
    profiles: Sequence[Profile], generator: MetadataGenerator, store: Store, *, retry_refused: bool = False
) -> Estimate:
    """What `annotate` would do; asks nobody and sends nothing."""
    waiting = [profile for profile in profiles if profile.metadata is None and profile.images]
    keys = _keys(waiting, generator)
    kept = store.metadata(list(dict.fromkeys(keys)))
    asked = {key: profile for profile, key in zip(waiting, keys, strict=True) if _is_open(kept.get(key), retry_refused)}
    return _estimate(asked, kept, generator)


def _estimate(asked: dict[str, Profile], kept: dict[str, Any], generator: MetadataGenerator) -> Estimate:
    host = getattr(generator, "host", "another machine") if generator.sends_photos else None
    guess = getattr(generator, "estimate", None)
    return Estimate(len(asked), len(kept.keys() - asked.keys()), host, guess(len(asked)) if guess else None)


def _keys(profiles: Sequence[Profile], generator: MetadataGenerator) -> list[str]:
    base = content_key({"metadata": 1, "of": dict(generator.fingerprint()), "schema": schema_key(generator.schema)})
    return [content_key({"of": base, "photo": image_digest(profile.images[0])}) for profile in profiles]


def _is_open(outcome: dict[str, Any] | None, retry_refused: bool) -> bool:
    if outcome is None:
        return True
    return "refusal" in outcome and (retry_refused or outcome["refusal"] == "error")


def _written(outcome: BaseModel | Refusal, cost: Usage) -> dict[str, Any]:
    usage = dataclasses.asdict(cost)
    if isinstance(outcome, Refusal):
        return {"refusal": outcome.kind, "detail": outcome.detail, "usage": usage}
    return {"metadata": outcome.model_dump(mode="json"), "usage": usage}


def _add(one: Usage, other: Usage) -> Usage:
    usd = None if one.usd is None or other.usd is None else one.usd + other.usd
    return Usage(
        one.input_tokens + other.input_tokens,
        one.cached_tokens + other.cached_tokens,
        one.output_tokens + other.output_tokens,
        usd,
    )

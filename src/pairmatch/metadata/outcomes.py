"""Outcomes of metadata generators: their keys, their stored form, costs and corrections."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from pairmatch.core.interfaces import MetadataGenerator
from pairmatch.core.types import Profile, Refusal, Usage
from pairmatch.io.images import image_digest
from pairmatch.io.store import content_key
from pairmatch.metadata.schema import problems_of, schema_key

_log = logging.getLogger(__name__)

#: Outcome and cost of one photo.
Answer = tuple[BaseModel | Refusal, Usage]


def generator_key(generator: MetadataGenerator) -> str:
    """Digest of everything but the photo that an outcome depends on: model, prompt and schema."""
    return content_key(
        {"metadata": 1, "of": dict(generator.fingerprint()), "schema": schema_key(generator.schema)}
    )


def outcome_key(generator: str, profile: Profile) -> str:
    """Key of the outcome for the first photo of a profile.

    Args:
        generator: Key of the generator, from `generator_key`.
        profile: Profile with at least one photo.
    """
    return content_key({"of": generator, "photo": image_digest(profile.images[0])})


def stored_outcome(outcome: BaseModel | Refusal, cost: Usage) -> dict[str, Any]:
    """The JSON object that the store keeps for an outcome."""
    usage = dataclasses.asdict(cost)
    if isinstance(outcome, Refusal):
        return {"refusal": outcome.kind, "detail": outcome.detail, "usage": usage}
    return {"metadata": outcome.model_dump(mode="json"), "usage": usage}


def needs_generation(outcome: Mapping[str, Any] | None, *, retry_refused: bool) -> bool:
    """Whether a photo with this stored outcome, or with none, is submitted to the generator."""
    if outcome is None:
        return True
    return "refusal" in outcome and (retry_refused or outcome["refusal"] == "error")


def add_usage(first: Usage, second: Usage) -> Usage:
    """The sum of two costs; its price is unknown if either price is."""
    usd = None if first.usd is None or second.usd is None else first.usd + second.usd
    return Usage(
        first.input_tokens + second.input_tokens,
        first.cached_tokens + second.cached_tokens,
        first.output_tokens + second.output_tokens,
        usd,
    )


def apply_corrections(
    metadata: BaseModel | None, schema: type[BaseModel], corrections: Mapping[str, Any], person: str
) -> BaseModel | None:
    """Metadata with a person's corrections, which override what the generator wrote.

    Args:
        metadata: Generated metadata, or None.
        schema: Pydantic model of the metadata.
        corrections: Values by attribute; attributes that the schema lacks are ignored.
        person: Id of the person, for the warning about corrections that do not fit the schema.

    Returns:
        The corrected metadata, or `metadata` itself if there is nothing to correct.
    """
    overrides = {name: value for name, value in corrections.items() if name in schema.model_fields}
    if not overrides:
        return metadata
    generated = {} if metadata is None else metadata.model_dump(mode="json")
    try:
        return schema.model_validate({**generated, **overrides})
    except ValidationError as error:
        _log.warning(
            "Corrections of %r do not fit %s and are ignored: %s",
            person,
            schema.__name__,
            problems_of(error),
        )
        return metadata

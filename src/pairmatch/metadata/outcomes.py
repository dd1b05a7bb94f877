"""Outcomes of metadata generators: their keys, their stored form, costs and corrections."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ValidationError

from pairmatch.core.interfaces import MetadataGenerator
from pairmatch.core.text import printable, replace_surrogates
from pairmatch.core.types import Profile, Refusal, Usage
from pairmatch.io.images import image_digest
from pairmatch.io.store import content_key
from pairmatch.metadata.outside import OutsideText
from pairmatch.metadata.schema import dump, is_storable, problems_of, schema_key

_log = logging.getLogger(__name__)
#: Kinds of refusals.
REFUSALS: tuple[str, ...] = get_args(get_type_hints(Refusal)["kind"])
_COUNTS = ("input_tokens", "cached_tokens", "output_tokens")
_MOST_DETAIL = 2_000  # characters

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
    """The JSON object that the store keeps for an outcome; it can be read again.

    Metadata that JSON or the store cannot hold become an `invalid` refusal.
    """
    usage = dataclasses.asdict(cost)
    if isinstance(outcome, Refusal):
        detail = replace_surrogates(outcome.detail)[:_MOST_DETAIL]
        return {"refusal": outcome.kind, "detail": detail, "usage": usage}
    if not is_storable(outcome):
        detail = "the attributes hold values that cannot be stored and read again"
        return {"refusal": "invalid", "detail": detail, "usage": usage}
    return {"metadata": dump(outcome), "usage": usage}


def readable_outcomes(
    outcomes: Mapping[str, Mapping[str, Any]], schema: type[BaseModel]
) -> dict[str, dict[str, Any]]:
    """Stored outcomes by key, without those that cannot be read; their number is logged."""
    readable = {}
    for key, outcome in outcomes.items():
        checked = _readable(outcome, schema)
        if checked is not None:
            readable[key] = checked
    damaged = len(outcomes) - len(readable)
    if damaged:
        _log.warning(
            "%d stored metadata outcomes cannot be read: they count as absent, and their photos "
            "are submitted again.",
            damaged,
        )
    return readable


def _readable(outcome: Mapping[str, Any], schema: type[BaseModel]) -> dict[str, Any] | None:
    """A stored outcome, or None if it has another form."""
    usage = outcome.get("usage")
    counts = [usage.get(name) for name in _COUNTS] if isinstance(usage, Mapping) else [None]
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        return None
    if "metadata" in outcome:
        for values in (outcome["metadata"], OutsideText().clean_json(outcome["metadata"])):
            try:
                schema.model_validate(values)
            except ValidationError:
                continue
            return {**outcome, "metadata": values}
        return None
    detail = outcome.get("detail")
    if outcome.get("refusal") not in REFUSALS or not isinstance(detail, str):
        return None
    return {**outcome, "detail": replace_surrogates(detail)[:_MOST_DETAIL]}


def needs_generation(outcome: Mapping[str, Any] | None, *, retry_refused: bool) -> bool:
    """Whether a photo with this stored outcome, or with none, is submitted to the generator."""
    if outcome is None:
        return True
    return "refusal" in outcome and (retry_refused or outcome["refusal"] == "error")


def is_uncounted(usage: Usage) -> bool:
    """Whether an answer came without a number of tokens."""
    return usage.usd is None and not usage.input_tokens and not usage.output_tokens


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
    generated = {} if metadata is None else dump(metadata)
    try:
        return schema.model_validate({**generated, **overrides})
    except ValidationError as error:
        _log.warning(
            "Corrections of '%s' do not fit %s and are ignored: %s",
            printable(person),
            schema.__name__,
            problems_of(error),
        )
        return metadata

"""What a backbone reads for each person, and the store keys of the resulting features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pairmatch.core.errors import DataError, ImageError
from pairmatch.core.interfaces import Backbone, Pooler
from pairmatch.core.progress import map_in_threads
from pairmatch.core.text import replace_surrogates
from pairmatch.core.types import Item, Profile
from pairmatch.features.prompt import render
from pairmatch.features.running import worker_count
from pairmatch.io.images import pixels_digest
from pairmatch.io.store import QUERY_ID, content_key

_KEY_FORMAT = 1


def build_items(
    profiles: Sequence[Profile], backbone: Backbone, prompt: str | None, attributes: Sequence[str]
) -> list[Item]:
    """Photos, rendered prompt and attributes of each person, if the backbone reads them.

    Args:
        profiles: N people.
        backbone: Frozen model.
        prompt: Template of the text; None for the backbone's own.
        attributes: Names of the profile attributes that enter the prompt.
    """
    template = backbone.default_prompt if prompt is None else prompt
    return [
        Item(
            profile.images if backbone.reads_images else (),
            render(profile, template=template, attributes=attributes)
            if backbone.reads_text
            else "",
            _known(profile.attributes) if backbone.reads_attributes else {},
        )
        for profile in profiles
    ]


def fit_backbone(
    profiles: Sequence[Profile], backbone: Backbone, prompt: str | None, attributes: Sequence[str]
) -> Backbone:
    """The backbone with what it learns from these people; most backbones learn nothing."""
    if not backbone.learned:
        return backbone
    return backbone.fit(build_items(profiles, backbone, prompt, attributes))


def digest_items(
    profiles: Sequence[Profile], items: Sequence[Item], backbone: Backbone
) -> list[str]:
    """SHA-256 (hex) of each item's photo bytes, text and attributes.

    Raises:
        DataError: Every person with nothing to read or with a missing photo file.
    """
    kinds = " or ".join(["photos"] * backbone.reads_images + ["text"] * backbone.reads_text)
    name = type(backbone).__name__
    empty = [
        "the query person" if profile.id == QUERY_ID else profile.id
        for profile, item in zip(profiles, items, strict=True)
        if not (item.images or item.text or backbone.reads_attributes)
    ]
    if len(empty) == len(profiles) > 1:
        raise DataError(
            f"None of the {len(profiles)} people has anything that {name} reads ({kinds}): check "
            "the columns of the file, or choose another backbone."
        )
    problems = [f"{person}: has nothing that {name} reads ({kinds})" for person in empty]
    outcomes = map_in_threads(_digest, items, workers=worker_count())
    problems += [
        f"{profile.id}: {outcome}"
        for profile, outcome in zip(profiles, outcomes, strict=True)
        if isinstance(outcome, ImageError)
    ]
    if problems:
        raise DataError(
            f"Features of {len(problems)} of {len(profiles)} people cannot be extracted:", problems
        )
    return [str(outcome) for outcome in outcomes]


def feature_keys(
    digests: Sequence[str], backbone: Backbone, poolers: Sequence[Pooler], dtype: str
) -> list[tuple[str, ...]]:
    """Store keys of each person's features, one per pooler."""
    shared = {"format": _KEY_FORMAT, "backbone": dict(backbone.fingerprint()), "dtype": dtype}
    bases = [content_key({**shared, "pooler": dict(pooler.fingerprint())}) for pooler in poolers]
    return [
        tuple(content_key({"of": base, "input": digest}) for base in bases) for digest in digests
    ]


def attribute_texts(item: Item) -> list[tuple[str, str]]:
    """Names, and values with their types, as texts that are equal in every process; sorted."""
    return sorted(
        (replace_surrogates(name), _value_text(value)) for name, value in item.attributes.items()
    )


def _digest(item: Item) -> str | ImageError:
    try:
        images = [pixels_digest(image) for image in item.images]
    except ImageError as error:
        return error
    content: dict[str, Any] = {"images": images, "text": item.text}
    if item.attributes:  # the keys of people without any do not depend on this entry
        content["attributes"] = attribute_texts(item)
    return content_key(content)


def _known(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that have a value: neither None nor a float that is not a number."""
    return {
        name: value
        for name, value in attributes.items()
        if value is not None and not (isinstance(value, float) and math.isnan(value))
    }


def _value_text(value: Any) -> str:
    if isinstance(value, set | frozenset):
        value = sorted(map(_value_text, value))
    return replace_surrogates(f"{type(value).__name__} {value!r}")

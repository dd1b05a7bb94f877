"""What a backbone reads for each person, and the store keys of the resulting features."""

from __future__ import annotations

from collections.abc import Sequence

from pairmatch.core.errors import DataError, ImageError
from pairmatch.core.interfaces import Backbone, Pooler
from pairmatch.core.progress import map_in_threads
from pairmatch.core.types import Item, Profile
from pairmatch.features.prompt import render
from pairmatch.features.running import worker_count
from pairmatch.io.images import pixels_digest
from pairmatch.io.store import content_key

_KEY_FORMAT = 1


def build_items(
    profiles: Sequence[Profile], backbone: Backbone, prompt: str | None, attributes: Sequence[str]
) -> list[Item]:
    """The photos and rendered prompt of each person, reduced to what the backbone reads."""
    return [
        Item(
            profile.images if backbone.reads_images else (),
            render(profile, template=prompt, attributes=attributes) if backbone.reads_text else "",
        )
        for profile in profiles
    ]


def digest_items(
    profiles: Sequence[Profile], items: Sequence[Item], backbone: Backbone
) -> list[str]:
    """SHA-256 (hex) of each item's photo bytes and text.

    Raises:
        DataError: Every person with nothing to read or with a missing photo file.
    """
    kinds = " or ".join(["photos"] * backbone.reads_images + ["text"] * backbone.reads_text)
    name = type(backbone).__name__
    empty = [
        profile.id
        for profile, item in zip(profiles, items, strict=True)
        if not item.images and not item.text
    ]
    problems = [f"{person}: has nothing that {name} reads ({kinds})" for person in empty]
    if len(empty) == len(profiles) > 1:
        problems = [
            f"none of these people has anything that {name} reads ({kinds}): check the columns of "
            "the file, or choose another backbone"
        ]
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


def _digest(item: Item) -> str | ImageError:
    try:
        return content_key(
            {"images": [pixels_digest(image) for image in item.images], "text": item.text}
        )
    except ImageError as error:
        return error

"""Digests of pairs and their people, by which changed data is recognized."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from pairmatch.core.progress import map_in_threads
from pairmatch.core.text import replace_surrogates
from pairmatch.core.types import Profile
from pairmatch.data.pairs import Pairs
from pairmatch.io.images import image_digest


def data_digests(tables: Sequence[Pairs]) -> dict[str, str]:
    """SHA-256 (hex) of what tables of pairs hold, in their order.

    Returns:
        `pairs`: who met whom, and what came of it; `people`: ids, texts and attributes; `photos`:
        the content of all photos.

    Raises:
        ImageError: A photo cannot be read.
    """
    people = [person for table in tables for person in table.profiles.values()]
    photos = [image for person in people for image in person.images]
    return {
        "pairs": _digest(repr(pair) for table in tables for pair in table.pairs),
        "people": _digest(_words(person) for person in people),
        "photos": _digest(map_in_threads(image_digest, photos)),
    }


def _words(person: Profile) -> str:
    attributes = sorted((name, repr(value)) for name, value in person.attributes.items())
    return repr((person.id, person.text, attributes))


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(replace_surrogates(text).encode() + b"\n")
    return digest.hexdigest()

"""Vectors of many people in a file, made block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.types import Profile, Side
from pairmatch.gallery import eligible
from pairmatch.gallery.blocks import Chunk
from pairmatch.gallery.index import Additions
from pairmatch.gallery.request import Where
from pairmatch.gallery.vectors import check_vectors_file, write_vectors
from pairmatch.matcher.matcher import Matcher

_ROWS = 4096  # people per block


def embed_to_file(
    matcher: Matcher,
    people: Sequence[Profile],
    path: str | Path,
    *,
    kind: Literal["embedding", "feature"] = "embedding",
    side: Side = "b",
    where: Where = None,
) -> int:
    """Writes vectors of people with their ids and attributes to a file.

    Features of each block go into the store first, so that an interrupted run resumes there. The
    file appears when it is complete.

    Args:
        matcher: Matcher; it need not be fitted for features.
        people: People with distinct ids.
        path: Path to a .parquet, .arrow or .npz file.
        kind: `embedding`, after the head and of unit length; or `feature`, before the head.
        side: Side of the people; features are the same on both.
        where: Rule for the people to embed.

    Returns:
        Number of people in the file.

    Raises:
        ConfigurationError: The rule cannot be used, an id occurs twice, or no person is left.
        NotFittedError: Embeddings need a fitted matcher.
    """
    check_vectors_file(path)
    chosen, excluded_by = eligible(people, where, asking={})
    if not chosen:
        raise ConfigurationError(f"There is no person to embed: {excluded_by or 'no people'}.")
    additions, kinds = Additions.of(chosen, np.zeros((len(chosen), 1), np.float32)).fitted(None, {})
    pipeline = matcher.pipeline.ready(chosen)

    def chunks() -> Iterator[Chunk]:
        for start in range(0, len(chosen), _ROWS):
            part = slice(start, start + _ROWS)
            profiles = chosen[part]
            vectors = (
                pipeline.features(profiles)
                if kind == "feature"
                else matcher.embed(profiles, side=side)
            )
            rows = [dict(row) for row in additions.attributes[part]]
            yield additions.ids[part], rows, vectors

    made_by = pipeline.digest() if kind == "feature" else matcher.embedding_digest()
    return write_vectors(path, chunks(), kinds=kinds, side=side, kind=kind, made_by=made_by)

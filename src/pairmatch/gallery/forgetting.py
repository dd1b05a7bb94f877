"""Erases people from all stores, galleries and slates at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pairmatch.core.errors import PairmatchError, StoreError
from pairmatch.core.text import printable
from pairmatch.gallery.gallery import Gallery
from pairmatch.gallery.slates import Slates
from pairmatch.io.store import Forgotten, Store


@dataclass(frozen=True, slots=True)
class Erased:
    """Counts of what `forget` erased.

    Attributes:
        store: People, features and metadata erased from the store; None without a store.
        galleries: Number of the people that were in each gallery, by folder.
        slates: Number of rows erased from each folder of slates.
        unknown: The ids that were in none of these places.
    """

    store: Forgotten | None
    galleries: dict[str, int]
    slates: dict[str, int]
    unknown: tuple[str, ...] = ()


def forget(
    ids: Sequence[str],
    *,
    store: Store | None = None,
    galleries: Iterable[str | Path] = (),
    slates: Iterable[str | Path] = (),
) -> Erased:
    """Erases people from a store, saved galleries and saved slates.

    No file keeps their ids or vectors.

    Args:
        ids: Ids of people; those that are in no place are in the result's `unknown`.
        store: Store of features and metadata. Those of a photo are erased even if another person
            has the same photo.
        galleries: Folders of galleries; each is rewritten.
        slates: Folders of slates.

    Raises:
        StoreError: A place holds no gallery or no slates, is damaged, or cannot be written. All
            other places are erased then; the message lists both.
    """
    known: set[str] = set()
    store_counts: Forgotten | None = None
    gallery_counts: dict[str, int] = {}
    slate_counts: dict[str, int] = {}
    failures = []
    if store is not None:
        try:
            known |= store.known(ids)
            store_counts = store.forget(ids)
        except PairmatchError as error:
            failures.append(str(error))
    for folder in galleries:
        try:
            gallery = Gallery.open(folder)
            known.update(person for person in ids if person in gallery)
            gallery_counts[str(folder)] = gallery.forget(ids)
        except PairmatchError as error:
            failures.append(str(error))
    for folder in slates:
        try:
            opened = Slates(folder)
            known |= opened.known(ids)
            slate_counts[str(folder)] = opened.forget(ids)
        except PairmatchError as error:
            failures.append(str(error))
    if failures:
        done = [str(store.path)] if store is not None and store_counts is not None else []
        done += [*gallery_counts, *slate_counts]
        raise StoreError(
            f"{len(failures)} of {len(failures) + len(done)} places are not erased completely "
            f"(erased: {', '.join(printable(place) for place in done) or 'none'}): "
            + " ".join(failures)
        )
    unknown = tuple(person for person in dict.fromkeys(ids) if person not in known)
    return Erased(store_counts, gallery_counts, slate_counts, unknown)

"""Erases people from all stores, galleries and slates at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pairmatch.core.errors import PairmatchError, StoreError
from pairmatch.gallery.bulk import Slates
from pairmatch.gallery.gallery import Gallery
from pairmatch.io.store import Forgotten, Store


@dataclass(frozen=True, slots=True)
class Erased:
    """Counts of what `forget` erased.

    Attributes:
        store: People, features and metadata erased from the store; None without a store.
        galleries: Number of the people that were in each gallery, by folder.
        slates: Number of rows erased from each folder of slates.
    """

    store: Forgotten | None
    galleries: dict[str, int]
    slates: dict[str, int]


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
        ids: Ids of people; unknown ids are ignored.
        store: Store of features and metadata. Those of a photo are erased even if another person
            has the same photo.
        galleries: Folders of galleries; each is rewritten.
        slates: Folders of slates.

    Raises:
        StoreError: A folder holds no gallery; nothing is erased then. Or a file cannot be written;
            everything else is erased then.
        DataError: A folder holds no slates; nothing is erased then.
    """
    opened_galleries = [(str(folder), Gallery.open(folder)) for folder in galleries]
    opened_slates = [(str(folder), Slates(folder)) for folder in slates]
    erased = Erased(store=None, galleries={}, slates={})
    failures = []
    if store is not None:
        try:
            erased = replace(erased, store=store.forget(ids))
        except PairmatchError as error:
            failures.append(str(error))
    for places, counts in ((opened_galleries, erased.galleries), (opened_slates, erased.slates)):
        for folder, place in places:
            try:
                counts[folder] = place.forget(ids)
            except PairmatchError as error:
                failures.append(str(error))
    if failures:
        done = ", ".join([*erased.galleries, *erased.slates]) or "none"
        raise StoreError(
            f"{len(failures)} places could not be erased completely (erased: {done}): "
            + " ".join(failures)
        )
    return erased

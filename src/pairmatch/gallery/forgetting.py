"""Erases people from all stores, galleries and slates at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pairmatch.gallery.bulk import Slates
from pairmatch.gallery.gallery import Gallery
from pairmatch.io.store import Forgotten, Store


@dataclass(frozen=True, slots=True)
class Erased:
    """Numbers of what `forget` erased.

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
        galleries: Folders of galleries; each is written again.
        slates: Folders of slates.

    Raises:
        StoreError: A folder holds no gallery, or a file cannot be written.
        DataError: A folder holds no slates.
    """
    opened_galleries = [(str(folder), Gallery.open(folder)) for folder in galleries]
    opened_slates = [(str(folder), Slates(folder)) for folder in slates]
    return Erased(
        store=None if store is None else store.forget(ids),
        galleries={folder: gallery.forget(ids) for folder, gallery in opened_galleries},
        slates={folder: opened.forget(ids) for folder, opened in opened_slates},
    )

"""Erases people everywhere at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pairmatch.gallery.bulk import Slates
from pairmatch.gallery.gallery import Gallery
from pairmatch.io.store import Forgotten, Store


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased.

    Attributes:
        store: From the store: people, features, metadata; None where no store was named.
        galleries: By folder: how many of the people were in it.
        slates: By folder: rows that are gone.
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
    """Erases people from a store, from saved galleries and from saved slates; no file keeps their ids or vectors.

    Args:
        ids: People; those who are nowhere are no error.
        store: Features and metadata, erased also where somebody else has the very same photo.
        galleries: Folders of galleries; each is written anew.
        slates: Folders of slates.

    Raises:
        StoreError: A folder that holds no gallery, or a file that cannot be written.
        DataError: A folder that holds no slates.
    """
    opened = [(str(folder), Gallery.open(folder)) for folder in galleries]
    listed = [(str(folder), Slates(folder)) for folder in slates]
    return Erased(
        None if store is None else store.forget(ids),
        {name: gallery.forget(ids) for name, gallery in opened},
        {name: slate.forget(ids) for name, slate in listed},
    )

"""Erases people from all stores, galleries and slates at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from pairmatch.core.errors import PairmatchError, StoreError
from pairmatch.core.ids import id_texts
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
    store: Store | str | Path | None = None,
    galleries: Iterable[str | Path] = (),
    slates: Iterable[str | Path] = (),
) -> Erased:
    """Erases people from a store, saved galleries and saved slates.

    No file keeps their ids or vectors.

    Args:
        ids: Ids of people; those that are in no place are in the result's `unknown`.
        store: Store of features and metadata, or the path to its file, which must exist. The data
            of a photo are erased even if another person has the same photo.
        galleries: Folders of galleries; each is rewritten.
        slates: Folders of slates.

    Raises:
        ConfigurationError: `ids` is not a list of ids.
        StoreError: A place holds no gallery or no slates, is damaged, or cannot be written. All
            other places are erased then; the message lists both.
    """
    ids = id_texts("forget(ids)", ids)
    known: set[str] = set()
    store_counts: Forgotten | None = None
    gallery_counts: dict[str, int] = {}
    slate_counts: dict[str, int] = {}
    failures: list[str] = []
    erased = []
    if store is not None:
        with _noted(failures), _opened(store) as opened:
            known |= opened.known(ids)
            store_counts = opened.forget(ids)
            erased.append(str(opened.path))
    for folder in galleries:
        with _noted(failures):
            gallery = Gallery.open(folder)
            known |= gallery.known(ids)
            gallery_counts[str(folder)] = gallery.forget(ids)
    for folder in slates:
        with _noted(failures):
            saved = Slates(folder)
            known |= saved.known(ids)
            slate_counts[str(folder)] = saved.forget(ids)
    erased += [*gallery_counts, *slate_counts]
    if len(failures) == 1 and not erased:
        raise StoreError(failures[0])
    if failures:
        raise StoreError(
            f"{len(failures)} of {len(failures) + len(erased)} places are not erased completely "
            f"(erased: {', '.join(printable(place) for place in erased) or 'none'}): "
            + " ".join(failures)
        )
    unknown = tuple(person for person in dict.fromkeys(ids) if person not in known)
    return Erased(store_counts, gallery_counts, slate_counts, unknown)


@contextmanager
def _noted(failures: list[str]) -> Iterator[None]:
    """Notes an error of the block, so that the next place is tried."""
    try:
        yield
    except PairmatchError as error:
        failures.append(str(error))


def _opened(store: Store | str | Path) -> AbstractContextManager[Store]:
    return nullcontext(store) if isinstance(store, Store) else Store(store, create=False)

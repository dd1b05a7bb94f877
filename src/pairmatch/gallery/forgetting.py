"""Erases people from stores, galleries, slates, exports and files of exclusions at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pairmatch.core.errors import PairmatchError, StoreError
from pairmatch.core.ids import id_texts
from pairmatch.core.text import all_spellings, matching, printable
from pairmatch.gallery.exclusion_file import ExclusionFile
from pairmatch.gallery.export import open_target, recorded_exports
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
        exports: Number of the people that were in each database, by address.
        unknown: The ids that were in none of these places.
        exclusions: Number of pairs erased from each file of exclusions.
    """

    store: Forgotten | None
    galleries: dict[str, int]
    slates: dict[str, int]
    exports: dict[str, int] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    exclusions: dict[str, int] = field(default_factory=dict)


def forget(
    ids: Sequence[str],
    *,
    store: Store | str | Path | None = None,
    galleries: Iterable[str | Path] = (),
    slates: Iterable[str | Path] = (),
    exports: Iterable[str] = (),
    exclusions: Iterable[str | Path] = (),
) -> Erased:
    """Erases people from a store, galleries, their exports, slates and files of exclusions.

    No file of pairmatch keeps their ids or vectors.

    Args:
        ids: Ids of people; those that are in no place are in the result's `unknown`.
        store: Store of features and metadata, or the path to its file, which must exist. The data
            of a photo are erased even if another person has the same photo.
        galleries: Folders of galleries; each is rewritten.
        slates: Folders of slates.
        exports: Addresses of further databases, as `open_target` takes them.
        exclusions: Files of `ExclusionFile`.

    Raises:
        ConfigurationError: `ids` is not a list of ids.
        StoreError: A place cannot be opened, reached or written, or holds something else. All
            others are erased then; the message lists both.
    """
    ids = id_texts("forget(ids)", ids)
    known: set[str] = set()
    store_counts: Forgotten | None = None
    failures: list[str] = []
    erased = []
    if store is not None:
        with _noted(failures), _opened(store) as opened:
            known |= opened.known(ids)
            store_counts = opened.forget(ids)
            erased.append(str(opened.path))
    addresses = dict.fromkeys(exports)
    folders = list(galleries)
    for folder in folders:
        with _noted(failures):
            addresses |= dict.fromkeys(recorded_exports(folder))
    exclusion_file = partial(ExclusionFile, create=False)
    gallery_counts = _erase(ids, folders, Gallery.open, known, failures)
    slate_counts = _erase(ids, slates, Slates, known, failures)
    exclusion_counts = _erase(ids, exclusions, exclusion_file, known, failures)
    export_counts = _erase_exports(ids, addresses, known, failures)
    erased += [*gallery_counts, *slate_counts, *exclusion_counts, *export_counts]
    _raise_failures(failures, erased)
    unknown = tuple(person for person in dict.fromkeys(ids) if person not in known)
    return Erased(
        store_counts, gallery_counts, slate_counts, export_counts, unknown, exclusion_counts
    )


def _erase(
    ids: Sequence[str],
    paths: Iterable[str | Path],
    open_place: Callable[[Path], Gallery | Slates | ExclusionFile],
    known: set[str],
    failures: list[str],
) -> dict[str, int]:
    """Erases people from places, adds those that were there to `known`, and counts them."""
    counts: dict[str, int] = {}
    for path in paths:
        with _noted(failures):
            place = open_place(Path(path))
            known |= place.known(ids)
            counts[str(path)] = place.forget(ids)
    return counts


def _raise_failures(failures: Sequence[str], erased: Sequence[str]) -> None:
    """Raises StoreError if a place is not erased; it lists those that are."""
    if len(failures) == 1 and not erased:
        raise StoreError(failures[0])
    if failures:
        raise StoreError(
            f"{len(failures)} of {len(failures) + len(erased)} places are not erased completely "
            f"(erased: {', '.join(printable(place) for place in erased) or 'none'}): "
            + " ".join(failures)
        )


def _erase_exports(
    ids: Sequence[str], addresses: Iterable[str], known: set[str], failures: list[str]
) -> dict[str, int]:
    """Erases people from databases, adds those that were there to `known`, and counts them."""
    counts: dict[str, int] = {}
    for address in addresses:
        with (
            _noted(failures, f"The export to {address} is not erased: "),
            open_target(address) as target,
        ):
            if target.contents is not None:  # else it was dropped since
                there = target.known(all_spellings(ids))
                known |= matching(ids, there)
                counts[address] = target.forget(sorted(there))
    return counts


@contextmanager
def _noted(failures: list[str], prefix: str = "") -> Iterator[None]:
    """Notes an error of the block, so that the next place is tried."""
    try:
        yield
    except PairmatchError as error:
        failures.append(f"{prefix}{error}")


def _opened(store: Store | str | Path) -> AbstractContextManager[Store]:
    return nullcontext(store) if isinstance(store, Store) else Store(store, create=False)

"""Leakage between splits: shared people, groups, identical and nearly identical photos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, product
from pathlib import Path
from typing import NamedTuple, TypeVar

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from pairmatch.core.errors import ConfigurationError, DataError, ImageError
from pairmatch.core.progress import map_in_threads
from pairmatch.core.text import printable
from pairmatch.data.pairs import Pairs
from pairmatch.io.images import ImageSource, image_digest, load_image
from pairmatch.io.photo_notices import grouped_notices

_T = TypeVar("_T")
_HASH_SIDE_PX = 256
_MAX_SHOWN = 5
# Standard deviation of gray levels below which a photo has no structure for a perceptual hash
_MIN_CONTRAST = 4.0
# Mean difference of 8 × 8 thumbnails. Encoding a photo again changes it by 1 or 2 levels of 255,
# and by less than 0.16 of the photo's own contrast. The second limit distinguishes small objects on
# a white background.
_MAX_COLOR_DIFFERENCE = 6.0
_MAX_COLOR_SHARE = 0.2


class _Photo(NamedTuple):
    """A photo of a person in a split."""

    part: int
    person: str
    image: ImageSource

    def __str__(self) -> str:
        file = f" ({printable(str(self.image))})" if isinstance(self.image, str | Path) else ""
        return f"{self.person!r}{file} of split {self.part + 1}"


#: The people of each split that have one photo: position of the split, then id.
_Owners = Mapping[int, Mapping[str, _Photo]]


class _Fingerprint(NamedTuple):
    """Properties of a photo that survive encoding it again."""

    hash: int  # perceptual hash, 64 bits
    colors: npt.NDArray[np.float32]  # [192], an 8 × 8 thumbnail
    tolerance: float  # difference of `colors` up to which photos count as the same


@dataclass(frozen=True, slots=True)
class Leakage:
    """Content that splits share; true if there is any. `print` shows a summary.

    Each entry is a sentence that names the splits (`split 1` is the first argument), the people and
    the photos.

    Attributes:
        people: Ids that are in several splits.
        groups: Groups that are in several splits.
        photos: Identical photos (equal bytes, or equal pixels of PIL images) of different people in
            two splits; one entry per photo and two splits, even if many people have the photo.
        near_duplicates: Photos of different people in two splits with nearly equal perceptual
            hashes and colors.
    """

    people: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    photos: tuple[str, ...] = ()
    near_duplicates: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.people or self.groups or self.photos or self.near_duplicates)

    def summary(self) -> str:
        """One sentence with counts, without any names."""
        kinds = [(len(sentences), *names) for *names, sentences in self._kinds() if sentences]
        counts = [f"{count} {one if count == 1 else many}" for count, one, many in kinds]
        return f"The splits share {', '.join(counts) or 'no people, groups or photos'}."

    def _kinds(self) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
        """Name of one, name of several, and sentences of each kind of leak."""
        return (
            ("person", "people", self.people),
            ("group", "groups", self.groups),
            ("identical photo", "identical photos", self.photos),
            ("nearly identical photo", "nearly identical photos", self.near_duplicates),
        )

    def __str__(self) -> str:
        lines = [self.summary()]
        for *_, sentences in self._kinds():
            lines += [f"  - {sentence}" for sentence in sentences[:_MAX_SHOWN]]
            if len(sentences) > _MAX_SHOWN:
                lines.append(f"  - … and {len(sentences) - _MAX_SHOWN} more")
        return "\n".join(lines)

    def raise_if_any(self) -> None:
        """Raises an error if the splits share anything.

        Raises:
            DataError: The splits share people, groups or photos; the error lists all of them.
        """
        if self:
            sentences = [sentence for *_, kind in self._kinds() for sentence in kind]
            raise DataError("The splits are not independent:", sentences)


def leakage(*parts: Pairs, near_duplicate_bits: int = 4, progress: bool = False) -> Leakage:
    """Finds content that splits share, which would let a model recognize test people.

    Args:
        parts: Two or more splits.
        near_duplicate_bits: Maximum number of differing bits between the 64-bit perceptual hashes
            (pHash; Zauner 2010) of two photos that count as nearly identical; −1 skips the search.
            Their colors must agree, too, because the hash captures only the layout, which is
            similar for all portraits. Photos without structure are ignored.
        progress: Whether to show a progress bar.

    Raises:
        ConfigurationError: There are fewer than two splits.
        ImageError: A photo is missing. A photo that cannot be decoded has no near-duplicates.
    """
    if len(parts) < 2:
        raise ConfigurationError("`leakage(...)` compares splits: pass at least two.")
    people = _shared([list(part.profiles) for part in parts])
    groups = _shared(
        [[pair.group for pair in part.pairs if pair.group is not None] for part in parts]
    )
    owners = _owners_by_photo(parts, progress)
    return Leakage(
        tuple(f"{person!r} is in {_names(where)}" for person, where in people),
        tuple(f"the group {group!r} is in {_names(where)}" for group, where in groups),
        tuple(_identical(owners)),
        tuple(_nearly_identical(owners, near_duplicate_bits, progress)),
    )


def _shared(lists: Sequence[Iterable[Hashable]]) -> list[tuple[Hashable, list[int]]]:
    """Values that are in several lists, with the positions of these lists."""
    where: dict[Hashable, list[int]] = defaultdict(list)
    for part, names in enumerate(lists):
        for name in dict.fromkeys(names):
            where[name].append(part)
    return [(name, positions) for name, positions in where.items() if len(positions) > 1]


def _owners_by_photo(parts: Sequence[Pairs], progress: bool) -> list[_Owners]:
    """Owners of each distinct photo, in order of first appearance."""
    photos = [
        _Photo(part, person.id, image)
        for part, pairs in enumerate(parts)
        for person in pairs.people
        for image in person.images
    ]
    digests = map_in_threads(
        image_digest, [photo.image for photo in photos], "Reading photos", shown=progress
    )
    owners: dict[str, dict[int, dict[str, _Photo]]] = defaultdict(lambda: defaultdict(dict))
    for digest, photo in zip(digests, photos, strict=True):
        owners[digest][photo.part].setdefault(photo.person, photo)
    return list(owners.values())


def _identical(photos: Sequence[_Owners]) -> Iterator[str]:
    for owners in photos:
        for first, second in combinations(owners.values(), 2):
            yield from _sentence(first, second, "the same photo")


def _nearly_identical(photos: Sequence[_Owners], bits: int, progress: bool) -> Iterator[str]:
    if bits < 0:
        return
    samples = [_sample(owners) for owners in photos]
    with grouped_notices():
        fingerprints = map_in_threads(_fingerprint, samples, "Comparing photos", shown=progress)
    for i, j, differing in _similar(fingerprints, bits):
        description = f"nearly the same photo ({differing} of 64 bits differ)"
        for first, second in product(photos[i], photos[j]):
            if first != second:
                yield from _sentence(photos[i][first], photos[j][second], description)


def _sample(owners: _Owners) -> ImageSource:
    """The first copy of a photo."""
    return next(iter(next(iter(owners.values())).values())).image


def _sentence(
    first: Mapping[str, _Photo], second: Mapping[str, _Photo], description: str
) -> Iterator[str]:
    """One sentence about a photo in two splits.

    None if the photo belongs to a single person, who is already listed as shared.

    Args:
        first: Owners of the photo in one split, by id.
        second: Owners of the photo in the other split, by id.
        description: What the owners have in common.
    """
    # Two owners per split suffice to find two different people
    for photos in product(islice(first.values(), 2), islice(second.values(), 2)):
        earlier, later = sorted(photos, key=lambda photo: photo.part)
        if earlier.person != later.person:
            others = len(first.keys() | second.keys()) - 2
            suffix = f", like {others} other{'s' if others > 1 else ''}" if others else ""
            yield f"{earlier} and {later} have {description}{suffix}"
            return


def _fingerprint(image: ImageSource) -> _Fingerprint | None:
    """Fingerprint of a photo; None if it cannot be decoded or has no structure."""
    try:
        small = load_image(image, longest_side_px=_HASH_SIDE_PX)
    except ImageError:
        return None
    gray = small.convert("L")
    if np.asarray(gray.resize((32, 32), Image.Resampling.BILINEAR)).std() < _MIN_CONTRAST:
        return None
    pixels = np.asarray(small.resize((8, 8), Image.Resampling.BOX), np.float32).reshape(-1, 3)
    contrast = float(np.abs(pixels - pixels.mean(0)).mean())
    tolerance = min(_MAX_COLOR_DIFFERENCE, _MAX_COLOR_SHARE * contrast)
    return _Fingerprint(int(str(imagehash.phash(gray)), 16), pixels.ravel(), tolerance)


def _similar(
    fingerprints: Sequence[_Fingerprint | None], bits: int
) -> Iterator[tuple[int, int, int]]:
    """Positions of similar photos, and the number of differing bits of their hashes."""
    usable = [
        (index, fingerprint)
        for index, fingerprint in enumerate(fingerprints)
        if fingerprint is not None
    ]
    hashes = np.array([fingerprint.hash for _, fingerprint in usable], np.uint64)
    for row, (i, first) in enumerate(usable):
        differing = np.bitwise_count(hashes[row + 1 :] ^ hashes[row])
        for offset in np.flatnonzero(differing <= bits):
            j, second = usable[row + 1 + offset]
            difference = np.abs(second.colors - first.colors).mean()
            if difference <= min(first.tolerance, second.tolerance):
                yield i, j, int(differing[offset])


def _names(parts: Sequence[int]) -> str:
    return " and ".join(f"split {part + 1}" for part in parts)

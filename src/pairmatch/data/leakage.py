"""Finds what two splits share.

People, groups, photos, and photos that only look different to a computer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, islice, product
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.progress import track

from pairmatch.core.errors import ConfigurationError, DataError, ImageError
from pairmatch.data.pairs import Pairs
from pairmatch.io.images import ImageSource, image_digest, load_image

_HASH_SIDE_PX = 256
_SHOWN = 5
_FLAT = 4.0  # grey levels; below this spread a photo has no structure that a perceptual hash could tell apart
# Mean difference of 8 × 8 thumbnails. Encoding the same photo again changes it by 1 or 2 levels of
# 255, and by less
# than 0.16 of the photo's own contrast, which is what tells small objects on a white ground apart.
_COLOUR_LEVELS = 6.0
_COLOUR_SHARE = 0.2


class _Photo(NamedTuple):
    """A photo of a person of a split."""

    part: int
    person: str
    image: ImageSource

    def __str__(self) -> str:
        file = f" ({self.image})" if isinstance(self.image, str | Path) else ""
        return f"{self.person!r}{file} of split {self.part + 1}"


class _Print(NamedTuple):
    """What stays of a photo when it is encoded again."""

    mark: int  # perceptual hash, 64 bits
    colours: npt.NDArray[np.float32]  # [192], an 8 × 8 thumbnail
    tolerance: float  # difference of `colours` up to which photos count as the same


@dataclass(frozen=True, slots=True)
class Leakage:
    """What splits share; true where they share anything. `print` shows it.

    Each entry is a sentence that names the splits (`split 1` is the first one given), the people
    and the photos.

    Attributes:
        people: The same id in two splits.
        groups: The same group in two splits.
        photos: The very same photo (equal bytes, or equal pixels of PIL images) of people in two
            splits; one entry for each photo and two splits, however many people have it.
        near_duplicates: Photos of people in two splits with nearly equal perceptual hashes and
            colours.
    """

    people: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    photos: tuple[str, ...] = ()
    near_duplicates: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.people or self.groups or self.photos or self.near_duplicates)

    def summary(self) -> str:
        """One sentence of counts, which names nobody."""
        found = [f"{len(sentences)} {name}" for name, sentences in self._kinds() if sentences]
        return f"The splits share {', '.join(found) or 'no people, groups or photos'}."

    def _kinds(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return (
            ("people", self.people),
            ("groups", self.groups),
            ("identical photos", self.photos),
            ("nearly identical photos", self.near_duplicates),
        )

    def __str__(self) -> str:
        lines = [self.summary()]
        for _, found in self._kinds():
            lines += [f"  - {sentence}" for sentence in found[:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f"  - … and {len(found) - _SHOWN} more")
        return "\n".join(lines)

    def raise_if_any(self) -> None:
        """Raises DataError with everything that was found, if anything was."""
        if self:
            found = [*self.people, *self.groups, *self.photos, *self.near_duplicates]
            raise DataError("The splits are not independent:", found)


def leakage(*parts: Pairs, near_duplicate_bits: int = 4, progress: bool = False) -> Leakage:
    """Checks splits, yours or ours, for what would let a model look up test people in the training pairs.

    Args:
        parts: Two or more splits.
        near_duplicate_bits: Photos whose 64-bit perceptual hashes (pHash; Zauner 2010) differ by at
            most this many bits, and whose colours agree, count as nearly identical; −1 leaves this
            out. The hash sees layout alone, in which portraits resemble one another, hence the
            colours. Photos without structure are left out.
        progress: Shows a progress bar.

    Raises:
        ConfigurationError: Fewer than two splits.
        ImageError: A photo that is not there; one that cannot be decoded only has no
            near-duplicates.
    """
    if len(parts) < 2:
        raise ConfigurationError("`leakage(...)` compares splits: give it at least two.")
    people = _shared([list(part.profiles) for part in parts])
    groups = _shared(
        [[pair.group for pair in part.pairs if pair.group is not None] for part in parts]
    )
    photos = [
        _Photo(part, person.id, image)
        for part, pairs in enumerate(parts)
        for person in pairs.people
        for image in person.images
    ]
    owners: dict[str, dict[int, dict[str, _Photo]]] = defaultdict(
        lambda: defaultdict(dict)
    )  # by digest, split and id
    samples: dict[str, ImageSource] = {}
    prints: list[_Print | None] = []
    with ThreadPoolExecutor() as pool:
        read = pool.map(image_digest, [photo.image for photo in photos])
        digests = track(read, "Reading photos", len(photos), disable=not progress, transient=True)
        for digest, photo in zip(digests, photos, strict=True):
            owners[digest][photo.part].setdefault(photo.person, photo)
            samples.setdefault(digest, photo.image)
        if near_duplicate_bits >= 0:
            made = pool.map(_print, samples.values())
            prints += track(
                made, "Comparing photos", len(samples), disable=not progress, transient=True
            )
    distinct = list(owners.values())
    same = [
        sentence
        for owner in distinct
        for one, other in combinations(owner, 2)
        for sentence in _sentence(owner[one], owner[other], "the same photo")
    ]
    near = [
        sentence
        for i, j, bits in _close(prints, near_duplicate_bits)
        for one, other in product(distinct[i], distinct[j])
        if one != other
        for sentence in _sentence(
            distinct[i][one],
            distinct[j][other],
            f"nearly the same photo ({bits} of 64 bits differ)",
        )
    ]
    return Leakage(
        tuple(f"{person!r} stands in {_names(where)}" for person, where in people),
        tuple(f"the group {group!r} stands in {_names(where)}" for group, where in groups),
        tuple(same),
        tuple(near),
    )


def _shared(lists: Sequence[Iterable[Hashable]]) -> list[tuple[Hashable, list[int]]]:
    where: dict[Hashable, list[int]] = defaultdict(list)
    for part, names in enumerate(lists):
        for name in dict.fromkeys(names):
            where[name].append(part)
    return [(name, found) for name, found in where.items() if len(found) > 1]


def _sentence(ones: Mapping[str, _Photo], others: Mapping[str, _Photo], what: str) -> Iterator[str]:
    """One sentence on a photo of two splits, or none where it is all one person, who is named as shared already."""
    for one, other in product(islice(ones.values(), 2), islice(others.values(), 2)):
        if one.person != other.person:
            first, second = sorted((one, other), key=lambda photo: photo.part)
            more = len(ones.keys() | others.keys()) - 2
            crowd = ", as has 1 other" if more == 1 else f", as have {more} others"
            yield f"{first} and {second} have {what}{crowd if more else ''}"
            return


def _print(image: ImageSource) -> _Print | None:
    """What to compare a photo by; None where it cannot be decoded or has no structure."""
    try:
        small = load_image(image, longest_side_px=_HASH_SIDE_PX)
    except ImageError:
        return None
    grey = small.convert("L")
    if np.asarray(grey.resize((32, 32), Image.Resampling.BILINEAR)).std() < _FLAT:
        return None
    pixels = np.asarray(small.resize((8, 8), Image.Resampling.BOX), np.float32).reshape(-1, 3)
    contrast = float(np.abs(pixels - pixels.mean(0)).mean())
    tolerance = min(_COLOUR_LEVELS, _COLOUR_SHARE * contrast)
    return _Print(int(str(imagehash.phash(grey)), 16), pixels.ravel(), tolerance)


def _close(prints: Sequence[_Print | None], bits: int) -> Iterator[tuple[int, int, int]]:
    """Positions of photos whose hashes differ by at most `bits` bits and whose colours agree, and those bits."""
    known = [(index, found) for index, found in enumerate(prints) if found is not None]
    marks = np.array([found.mark for _, found in known], np.uint64)
    for row, (index, found) in enumerate(known):
        differing = np.bitwise_count(marks[row + 1 :] ^ marks[row])
        for other in np.flatnonzero(differing <= bits) + row + 1:
            difference = np.abs(known[other][1].colours - found.colours).mean()
            if difference <= min(found.tolerance, known[other][1].tolerance):
                yield index, known[other][0], int(differing[other - row - 1])


def _names(parts: Sequence[int]) -> str:
    return " and ".join(f"split {part + 1}" for part in parts)

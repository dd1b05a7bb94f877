"""Finds what two splits share: people, groups, photos, and photos that only look different to a computer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.progress import track

from pairmatch.data.pairs import Pairs
from pairmatch.errors import ConfigurationError, DataError, ImageError
from pairmatch.images import ImageSource, image_digest, load_image

_HASH_SIDE_PX = 256
_SHOWN = 5
_FLAT = 4.0  # grey levels; below this spread a photo has no structure that a perceptual hash could tell apart
_COLOUR_LEVELS = 6.0  # mean difference of 8 × 8 thumbnails, of 255; encoding the same photo again changes it by 1 or 2


@dataclass(frozen=True, slots=True)
class Leakage:
    """What splits share; true where they share anything. `print` shows it.

    Each entry is a sentence that names the splits (`split 1` is the first one given), the people and the photos.

    Attributes:
        people: The same id in two splits.
        groups: The same group in two splits.
        photos: The very same photo (equal bytes, or equal pixels of PIL images) of people in two splits.
        near_duplicates: Photos of people in two splits with nearly equal perceptual hashes and colours.
    """

    people: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    photos: tuple[str, ...] = ()
    near_duplicates: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.people or self.groups or self.photos or self.near_duplicates)

    def __str__(self) -> str:
        if not self:
            return "The splits share no people, groups or photos."
        kinds = (
            ("people", self.people),
            ("groups", self.groups),
            ("identical photos", self.photos),
            ("nearly identical photos", self.near_duplicates),
        )
        lines = [f"The splits share {', '.join(f'{len(found)} {name}' for name, found in kinds if found)}:"]
        for _, found in kinds:
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
        near_duplicate_bits: Photos whose 64-bit perceptual hashes (pHash; Zauner 2010) differ by at most this many
            bits, and whose colours agree, count as nearly identical; −1 leaves this out. The hash sees layout alone,
            in which portraits resemble one another, hence the colours. Photos without structure are left out.
        progress: Shows a progress bar.

    Raises:
        ConfigurationError: Fewer than two splits.
    """
    if len(parts) < 2:
        raise ConfigurationError("`leakage(...)` compares splits: give it at least two.")
    people = _shared([list(part.profiles) for part in parts])
    groups = _shared([[pair.group for pair in part.pairs if pair.group is not None] for part in parts])
    photos = [[(profile.id, image) for profile in part.people for image in profile.images] for part in parts]
    everything = [(part, person, image) for part, found in enumerate(photos) for person, image in found]
    with ThreadPoolExecutor() as pool:
        wanted = near_duplicate_bits >= 0
        read = pool.map(lambda entry: _prints(entry[2], wanted), everything)
        prints = list(track(read, "Comparing photos", len(everything), disable=not progress, transient=True))
    shared_people = {person for person, _ in people}
    identical: dict[str, list[int]] = defaultdict(list)
    for index, (digest, _, _) in enumerate(prints):
        identical[digest].append(index)
    same = [
        f"{_who(everything[i])} and {_who(everything[j])} have the same photo"
        for indices in identical.values()
        for i, j in combinations(indices, 2)
        if _across(everything[i], everything[j], shared_people)
    ]
    near = [
        f"{_who(everything[i])} and {_who(everything[j])} have nearly the same photo ({bits} of 64 bits differ)"
        for i, j, bits in _close(prints, near_duplicate_bits)
        if prints[i][0] != prints[j][0] and _across(everything[i], everything[j], shared_people)
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


def _across(one: tuple[int, str, ImageSource], other: tuple[int, str, ImageSource], shared: set[Hashable]) -> bool:
    """Whether two photos belong to different splits, and not to one person who is named as shared already."""
    return one[0] != other[0] and not (one[1] == other[1] and one[1] in shared)


def _prints(image: ImageSource, wanted: bool) -> tuple[str, int | None, npt.NDArray[np.float32] | None]:
    """Content digest; perceptual hash and [192] colours where the photo has structure."""
    digest = image_digest(image)
    if not wanted:
        return digest, None, None
    try:
        small = load_image(image, longest_side_px=_HASH_SIDE_PX)
    except ImageError:
        return digest, None, None
    grey = small.convert("L")
    if np.asarray(grey.resize((32, 32), Image.Resampling.BILINEAR)).std() < _FLAT:
        return digest, None, None
    colours = np.asarray(small.resize((8, 8), Image.Resampling.BOX), np.float32).ravel()
    return digest, int(str(imagehash.phash(grey)), 16), colours


def _close(
    prints: Sequence[tuple[str, int | None, npt.NDArray[np.float32] | None]], bits: int
) -> Iterator[tuple[int, int, int]]:
    """Pairs of photos whose hashes differ by at most `bits` bits and whose colours agree, compared in blocks."""
    index = [i for i, (_, mark, _) in enumerate(prints) if mark is not None]
    values = np.array([prints[i][1] for i in index], np.uint64)
    for start in range(0, len(values), 1024):
        block = values[start : start + 1024]
        differing = np.bitwise_count(block[:, None] ^ values[None, start:])
        for row, column in np.argwhere(differing <= bits):
            i, j = index[start + row], index[start + column]
            if i < j and np.abs(prints[i][2] - prints[j][2]).mean() <= _COLOUR_LEVELS:
                yield i, j, int(differing[row, column])


def _who(entry: tuple[int, str, ImageSource]) -> str:
    part, person, image = entry
    file = f" ({image})" if isinstance(image, str | Path) else ""
    return f"{person!r}{file} of split {part + 1}"


def _names(parts: Sequence[int]) -> str:
    return " and ".join(f"split {part + 1}" for part in parts)

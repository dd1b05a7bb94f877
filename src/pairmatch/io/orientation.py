"""Which way up a photo is: the orientation tag of EXIF, TIFF and XMP, even in damaged ones.

Pillow's reader stops at the first fault; this one needs nothing but the one tag.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from PIL import Image

_FILTER_LOCK = Lock()
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Bytes per value of TIFF's types 1 to 13, and 16 to 18 of BigTIFF
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TYPE_BYTES |= {16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
_FRACTIONS = {5: "II", 10: "ii", 11: "f", 12: "d"}
# Description, make, model, software, date, artist, copyright
_TEXT_TAGS = frozenset({270, 271, 272, 305, 306, 315, 33432})


@dataclass(frozen=True, slots=True)
class Entry:
    """One tag of a TIFF directory.

    Attributes:
        tag: Number of the tag.
        type: Number of its type; may be unknown.
        value: Its bytes; None if they lie outside the file or the type is unknown.
        raw: Bytes of the entry itself.
    """

    tag: int
    type: int
    value: bytes | None
    raw: bytes


@dataclass(frozen=True, slots=True)
class Directory:
    """The first directory of a TIFF file or of EXIF data.

    Attributes:
        order: Byte order for `struct`, `<` or `>`.
        big: Whether the file is a BigTIFF.
        start: Position of the directory.
        entries: The entries that are there.
        is_complete: Whether all entries are inside the data.
    """

    order: str
    big: bool
    start: int
    entries: tuple[Entry, ...]
    is_complete: bool

    def integer(self, tag: int) -> int | None:
        """First value of a tag of an integer type; None if there is none."""
        for entry in self.entries:
            if entry.tag == tag and entry.value and entry.type in _INTEGERS:
                number = struct.unpack_from(self.order + _INTEGERS[entry.type], entry.value)[0]
                return int(number)
        return None

    def whole_fraction(self, tag: int) -> int | None:
        """First value of a tag of a fractional type, if it is a whole number."""
        for entry in self.entries:
            if entry.tag == tag and entry.value and entry.type in _FRACTIONS:
                value = struct.unpack_from(self.order + _FRACTIONS[entry.type], entry.value)
                numerator, denominator = (*value, 1)[:2]
                is_whole = denominator != 0 and numerator % denominator == 0
                return int(numerator / denominator) if is_whole else None
        return None


def read_directory(data: bytes) -> Directory | None:
    """The first directory of TIFF data; None if there is no TIFF header or no directory."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return None
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    start = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    counts = "Q" if big else "H"
    first = start + struct.calcsize(counts)
    if first > len(data):
        return None
    count = struct.unpack_from(order + counts, data, start)[0]
    width = 20 if big else 12
    there = min(count, (len(data) - first) // width)
    entries = tuple(_entries(data, order, big, first, there))
    return Directory(order, big, start, entries, is_complete=there == count)


def _entries(data: bytes, order: str, big: bool, first: int, count: int) -> Iterator[Entry]:
    layout = struct.Struct(order + ("HHQ8s" if big else "HHI4s"))
    for position in range(first, first + count * layout.size, layout.size):
        raw = data[position : position + layout.size]
        tag, kind, number, value = layout.unpack(raw)
        size = _TYPE_BYTES.get(kind, 0) * number
        if size > len(value):
            start = struct.unpack(order + ("Q" if big else "I"), value)[0]
            value = data[start : start + size] if start + size <= len(data) else None
        else:
            value = value[:size] if kind in _TYPE_BYTES else None
        yield Entry(tag, kind, value, raw)


def exif_orientation(exif: bytes) -> tuple[int | None, bool]:
    """Orientation, 1 to 8 or None, and whether the EXIF data is damaged somewhere.

    Args:
        exif: EXIF data, with or without its `Exif` header.
    """
    directory = read_directory(exif.removeprefix(b"Exif\0\0"))
    if directory is None:
        return None, True
    return tiff_orientation(directory), is_damaged(directory)


def is_damaged(directory: Directory, *, ignored: frozenset[int] = frozenset()) -> bool:
    """Whether tags are cut off or of a type that they cannot have.

    Args:
        directory: Directory of a TIFF file or of EXIF data.
        ignored: Tags that are not checked.
    """
    return not directory.is_complete or any(
        entry.value is None
        or (entry.tag in _TEXT_TAGS and entry.type not in (1, 2, 7))
        or (entry.tag == _ORIENTATION and not (entry.value and entry.type in _INTEGERS))
        for entry in directory.entries
        if entry.tag not in ignored
    )


def xmp_orientation(xmp: bytes) -> int | None:
    """Orientation by XMP, 1 to 8; None if it states none."""
    match = re.search(rb"tiff:Orientation(?:\s*=\s*[\"']|>)\s*([1-8])", xmp)
    return int(match[1]) if match else None


def tiff_orientation(directory: Directory) -> int | None:
    """Orientation of a TIFF file, 1 to 8; None if it states none."""
    orientation = directory.integer(_ORIENTATION)
    if orientation is None:
        orientation = directory.whole_fraction(_ORIENTATION)  # of writers that mistake its type
    return orientation if orientation in range(1, 9) else None


def swaps_sides(orientation: int | None) -> bool:
    """Whether the upright photo is as wide as the stored one is high."""
    return orientation in (5, 6, 7, 8)


def turned(image: Image.Image, orientation: int | None) -> Image.Image:
    """The photo upright; the same object if it already is."""
    turn = _TURNS.get(orientation or 1)
    return image if turn is None else image.transpose(turn)


def pil_orientation(image: Image.Image) -> int | None:
    """Orientation of a PIL image, 1 to 8; None if it states none."""
    try:
        with without_warnings():
            orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged EXIF data: Pillow raises whatever its parser meets
        exif, xmp = image.info.get("exif"), image.info.get("xmp")
        orientation = exif_orientation(exif)[0] if isinstance(exif, bytes) else None
        if orientation is None and isinstance(xmp, bytes):
            orientation = xmp_orientation(xmp)
    return next((turn for turn in range(1, 9) if turn == orientation), None)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silences Pillow, in one thread at a time: Python's warning filters belong to the process."""
    with _FILTER_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""Photos of the explorer: where they are, and small copies without side information."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from pairmatch.core.errors import ImageError
from pairmatch.core.text import spelled
from pairmatch.data import read_profiles
from pairmatch.io.images import ImageSource, image_bytes
from pairmatch.serving.photos import PhotoDecoder

LONGEST_SIDE_PX = 360


def photos_by_id(source: Path | None) -> dict[str, ImageSource]:
    """The first photo of each person.

    Args:
        source: Folder of photos named by id, or a profiles file; None for no photos.

    Raises:
        DataError: The folder holds no photos, or the file cannot be read.
    """
    if source is None:
        return {}
    people = read_profiles(source, check_images=False)
    return {person.id: person.images[0] for person in people if person.images}


def small_photo(photos: Mapping[str, ImageSource], person: str, decoder: PhotoDecoder) -> bytes:
    """A small JPEG of a person's photo, made of nothing but its pixels.

    Raises:
        ImageError: There is no photo, or it cannot be decoded.
        BusyError: All decoders are busy.
    """
    form = spelled(person, photos)
    if form is None:
        raise ImageError("There is no photo of this person.")
    (image,) = decoder.decode([image_bytes(photos[form])], longest_side_px=LONGEST_SIDE_PX)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()

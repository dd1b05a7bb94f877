"""Photos: decoded upright and in sRGB; errors name the file and the reason."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from PIL import Image, UnidentifiedImageError

from pairmatch.core.errors import ConfigurationError, ImageError, MissingExtraError
from pairmatch.core.text import printable
from pairmatch.io.budget import Budget
from pairmatch.io.colors import changes_colors, conversion, flat, has_unsigned_numbers
from pairmatch.io.files import digest_file, read_file
from pairmatch.io.orientation import pil_orientation, swaps_sides, turned, without_warnings
from pairmatch.io.photo_formats import decoded_formats, photo_format, unread_format_message
from pairmatch.io.photo_notices import note_damage
from pairmatch.io.remote import is_remote, read_remote
from pairmatch.io.side_information import SideInformation, separate

ImageSource = str | Path | bytes | Image.Image

#: Photos with more pixels are rejected: a small file can decompress to gigabytes.
MAX_PIXELS = 100_000_000
#: Larger files are not read.
MAX_FILE_BYTES = 200_000_000
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


# A photo takes up to three copies of four bytes per pixel while it is decoded
_BYTES_PER_PIXEL = 12
_BUDGET = Budget(1_200_000_000)
# Pillow's pixels come in blocks. glibc gives blocks above 32 MB back to the system at once; smaller
# ones it keeps for every thread that ever decoded a photo.
Image.core.set_block_size(64 * 2**20)
# Files above this size are read one at a time
_LARGE_FILE_BYTES = 16_000_000
_LARGE_FILES = Lock()


def image_bytes(source: ImageSource) -> bytes:
    """Encoded bytes of a photo; a PIL image is encoded as an upright PNG.

    Raises:
        ImageError: The file cannot be read or is empty.
    """
    if isinstance(source, Image.Image):
        buffer = io.BytesIO()
        with _named(source):
            upright = _upright(source)
            if upright.mode not in _PNG_MODES:
                side = SideInformation(profile=_profile(source))
                upright = _finished(flat(upright), side, None)
            upright.save(buffer, "PNG")
        return buffer.getvalue()
    if isinstance(source, bytes):
        content = source
    else:
        with _readable(source):
            content = (
                read_remote(source, most_bytes=MAX_FILE_BYTES)
                if isinstance(source, str) and is_remote(source)
                else read_file(Path(source), most_bytes=MAX_FILE_BYTES)
            )
    if not content:
        raise ImageError(f"{_name(source)}: the file is empty.")
    if len(content) > MAX_FILE_BYTES:
        raise ImageError(f"{_name(source)}: more than {MAX_FILE_BYTES:,} bytes; shrink it first.")
    return content


def image_digest(source: ImageSource) -> str:
    """SHA-256 (hex) of a photo's content.

    The content is the encoded bytes, or the mode, size, palette and pixels of a PIL image.

    Raises:
        ImageError: The file cannot be read or is empty.
    """
    if isinstance(source, Image.Image):
        with _named(source):
            upright = _upright(source)
            palette = upright.getpalette() if upright.mode == "P" else None
            transparency = upright.info.get("transparency")
            header = f"{upright.mode} {upright.size} {palette} {transparency}".encode()
            return hashlib.sha256(header + b"\0" + upright.tobytes()).hexdigest()
    if isinstance(source, bytes) or is_remote(source):
        return hashlib.sha256(image_bytes(source)).hexdigest()
    with _readable(source):
        digest = digest_file(Path(source), most_bytes=MAX_FILE_BYTES)
    if digest == hashlib.sha256(b"").hexdigest():
        raise ImageError(f"{_name(source)}: the file is empty.")
    return digest


def pixels_digest(source: ImageSource) -> str:
    """SHA-256 (hex) of what `load_image` reads: the key of what is derived from pixels.

    It is `image_digest`, except for photos whose pixels an earlier version decoded differently:
    those with a color profile other than sRGB, numbers beyond 8 and 16 bits, and MPO files.

    Raises:
        ImageError: The file cannot be read or is empty.
    """
    if isinstance(source, Image.Image):
        profile = _profile(source)
        marks = [profile] if profile and changes_colors(profile) else []
        marks += [b"numbers"] if source.mode in ("I", "F") else []
        digest = image_digest(source)
    else:
        with _reading(source):
            content = image_bytes(source)
            digest = hashlib.sha256(content).hexdigest()
            marks = [b"pixels 2"] if _is_decoded_anew(content) else []
    return hashlib.sha256(b"\0".join([digest.encode(), *marks])).hexdigest() if marks else digest


def _is_decoded_anew(content: bytes) -> bool:
    form = photo_format(content)
    _, side = separate(content, form)
    if side.is_mpo or changes_colors(side.profile):
        return True
    if form not in ("TIFF", "PPM", "AVIF", "JPEG2000", "HEIF"):
        return False
    try:
        image, side = _open(content)
    except ImageError:
        return False
    return image.mode in ("I", "F") or changes_colors(side.profile)


def image_size(source: ImageSource) -> tuple[int, int]:
    """(width, height) in pixels of the upright photo, read from its header.

    Raises:
        ImageError: The file cannot be read or is not a photo.
    """
    with _named(source):
        if isinstance(source, Image.Image):
            width, height = source.size
            # Pillow already reports the size of an upright TIFF
            orientation = None if source.format == "TIFF" else pil_orientation(source)
        else:
            image, side = _open(source)
            width, height = image.size
            orientation = side.orientation
    return (height, width) if swaps_sides(orientation) else (width, height)


def load_image(source: ImageSource, *, longest_side_px: int | None = None) -> Image.Image:
    """Decodes a photo to 8-bit sRGB: upright (EXIF orientation), transparency on white.

    Colors are converted from the photo's ICC profile, if it has one. Damaged side information
    (EXIF, profile, texts) is ignored with a warning.

    Args:
        source: A path, the URL of a file in cloud storage (`s3://bucket/anna.jpg`), encoded bytes
            or a PIL image.
        longest_side_px: Size of the longest side in pixels, at least 1; larger photos are shrunk to
            it and keep their aspect ratio, smaller ones are not enlarged. JPEG files are then
            decoded at a reduced size, which is several times faster for phone photos.

    Raises:
        ConfigurationError: `longest_side_px` is below 1.
        ImageError: The file cannot be read, is not a photo, is truncated, or has more than
            `MAX_PIXELS` pixels.
    """
    if longest_side_px is not None and longest_side_px < 1:
        raise ConfigurationError(
            f"`load_image(longest_side_px=...)` must be at least 1, got {longest_side_px}."
        )
    if isinstance(source, Image.Image):
        with _named(source):
            side = SideInformation(profile=_profile(source))
            photo = _finished(flat(_upright(source)), side, longest_side_px)
    else:
        with _named(source), _reading(source):
            image, side = _open(source)
            photo = _decoded(image, side, longest_side_px)
    if side.problems:
        note_damage(_name(source), side.problems, is_file=isinstance(source, str | Path))
    return photo


def check_image(source: ImageSource) -> str | None:
    """Decodes a photo; returns the problem, or None if there is none."""
    try:
        load_image(source)
    except ImageError as error:
        return str(error)
    return None


@contextmanager
def _readable(source: str | Path) -> Iterator[None]:
    """Turns the errors of reading a file into an ImageError that names the photo."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{_name(source)}: {getattr(error, 'strerror', None) or error}."
        ) from error


@contextmanager
def _reading(source: str | Path | bytes) -> Iterator[None]:
    """Lets large files take turns."""
    try:
        is_large = not isinstance(source, bytes) and Path(source).stat().st_size > _LARGE_FILE_BYTES
    except (OSError, ValueError):
        is_large = False  # reading it says why
    if not is_large:
        yield
        return
    with _LARGE_FILES:
        yield


@contextmanager
def _named(source: ImageSource) -> Iterator[None]:
    """Turns every error of a decoder into an ImageError that names the photo."""
    try:
        yield
    except (ImageError, MissingExtraError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{_name(source)}: {error}") from error
    except Exception as error:  # each format raises its own: OSError, SyntaxError, ValueError, …
        raise ImageError(
            f"{_name(source)}: the photo is truncated or damaged ({error})."
        ) from error


def _open(source: str | Path | bytes) -> tuple[Image.Image, SideInformation]:
    """The photo, not yet decoded, and its side information."""
    whole = image_bytes(source)
    content, side = separate(whole, photo_format(whole))
    if side.size is not None:
        _check_size(source, side.size)
    try:
        # Pillow warns above its limit and raises above twice that; MAX_PIXELS is checked here
        with without_warnings():
            try:
                image = Image.open(io.BytesIO(content), formats=decoded_formats())
            except UnidentifiedImageError:
                if content is whole:
                    raise
                image = Image.open(io.BytesIO(whole), formats=decoded_formats())
    except UnidentifiedImageError as error:
        raise ImageError(f"{_name(source)}: {unread_format_message(whole)}.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{_name(source)}: more than {MAX_PIXELS:,} pixels; shrink it first."
        ) from error
    _check_size(source, image.size)
    _complete(side, image)
    return image, side


def _check_size(source: ImageSource, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"{_name(source)}: {size[0]} × {size[1]} pixels, more than {MAX_PIXELS:,}; "
            "shrink it first."
        )


def _complete(side: SideInformation, image: Image.Image) -> None:
    """Takes side information from formats in which the decoder reads it."""
    if image.format != "TIFF":
        if isinstance(exif := image.info.get("exif"), bytes):
            side.read_exif(exif)
        if isinstance(xmp := image.info.get("xmp"), bytes):
            side.read_xmp(xmp)
    side.profile = side.profile or _profile(image)


def _decoded(image: Image.Image, side: SideInformation, longest_side_px: int | None) -> Image.Image:
    full = image.size
    if longest_side_px is not None and image.format == "JPEG":
        # Decodes at 1/2, 1/4 or 1/8, but at no less than twice the requested size, so that the
        # resampling filter determines the quality
        scale = 2 * longest_side_px / max(full)
        image.draft("RGB", (int(image.width * scale) + 1, int(image.height * scale) + 1))
    pixels = max(image.width * image.height, side.size[0] * side.size[1] if side.size else 0)
    with _BUDGET.hold(pixels * _BYTES_PER_PIXEL), image:
        is_unsigned = has_unsigned_numbers(image)
        image.load()
        return _finished(flat(image, unsigned=is_unsigned), side, longest_side_px, full)


def _finished(
    image: Image.Image,
    side: SideInformation,
    longest_side_px: int | None,
    full: tuple[int, int] | None = None,
) -> Image.Image:
    """Shrinks, converts and turns a flat image; what comes out shares nothing with it."""
    upright = turned(image, side.orientation)
    if full and swaps_sides(side.orientation):
        full = full[::-1]
    convert, profile_is_usable = conversion(image.mode, side.profile)
    if not profile_is_usable:
        side.add_problem("color profile")
    if convert is None:
        photo = _shrunk(upright.convert("RGB"), longest_side_px, full)
    else:
        photo = convert(_shrunk(upright, longest_side_px, full))
    photo.info = {}
    return photo


def _shrunk(
    image: Image.Image, longest_side_px: int | None, full: tuple[int, int] | None
) -> Image.Image:
    """Shrinks to a size computed from the full one, because reduced decoding rounds sizes up."""
    if longest_side_px is None or max(image.size) <= longest_side_px:
        return image
    width, height = full or image.size
    scale = longest_side_px / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def _upright(image: Image.Image) -> Image.Image:
    """A PIL image, decoded and upright."""
    if image.format == "EPS":
        raise ImageError(
            f"{_name(image)}: PostScript is not decoded, because Pillow starts another program "
            "for it; convert it to JPEG first."
        )
    image.load()  # Pillow turns a TIFF here, and forgets its orientation
    return turned(image, pil_orientation(image))


def _profile(image: Image.Image) -> bytes | None:
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) else None


def _name(source: ImageSource) -> str:
    if isinstance(source, bytes):
        return f"a photo of {len(source)} bytes"
    return "a PIL image" if isinstance(source, Image.Image) else printable(str(source))

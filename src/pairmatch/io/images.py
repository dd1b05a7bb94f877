"""Photos: decoded upright and in RGB; errors name the file and the reason."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pairmatch.core.errors import ConfigurationError, ImageError
from pairmatch.io.files import digest_file, read_file
from pairmatch.io.photo_formats import decoded_formats, unread_format_message

ImageSource = str | Path | bytes | Image.Image

#: Photos with more pixels are rejected: a small file can decompress to gigabytes.
MAX_PIXELS = 100_000_000
#: Larger files are not read.
MAX_FILE_BYTES = 200_000_000
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
# Python's warning filters belong to the process, and photos are checked in threads
_FILTER_LOCK = Lock()


def image_bytes(source: ImageSource) -> bytes:
    """Encoded bytes of a photo; a PIL image is encoded as an upright PNG.

    Raises:
        ImageError: The file cannot be read or is empty.
    """
    if isinstance(source, Image.Image):
        buffer = io.BytesIO()
        with _named(source):
            upright = _upright(source)
            (upright if upright.mode in _PNG_MODES else _rgb(upright)).save(buffer, "PNG")
        return buffer.getvalue()
    if isinstance(source, bytes):
        content = source
    else:
        with _readable(source):
            content = read_file(Path(source), most_bytes=MAX_FILE_BYTES)
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
    if isinstance(source, bytes):
        return hashlib.sha256(image_bytes(source)).hexdigest()
    with _readable(source):
        digest = digest_file(Path(source), most_bytes=MAX_FILE_BYTES)
    if digest == hashlib.sha256(b"").hexdigest():
        raise ImageError(f"{_name(source)}: the file is empty.")
    return digest


def image_size(source: ImageSource) -> tuple[int, int]:
    """(width, height) in pixels of the upright photo, read from its header.

    Raises:
        ImageError: The file cannot be read or is not a photo.
    """
    with _named(source):
        image = source if isinstance(source, Image.Image) else _open(source)
        width, height = image.size
        # Pillow already reports the size of an upright TIFF
        is_rotated = image.format != "TIFF" and image.getexif().get(0x0112) in (5, 6, 7, 8)
    return (height, width) if is_rotated else (width, height)


def load_image(source: ImageSource, *, longest_side_px: int | None = None) -> Image.Image:
    """Decodes a photo to 8-bit RGB: upright (EXIF orientation), transparency on white.

    Args:
        source: A path, encoded bytes or a PIL image.
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
    with _named(source):
        if isinstance(source, Image.Image):
            return _shrunk(_rgb(_upright(source)), longest_side_px)
        with _open(source) as image:
            full = None
            if longest_side_px is not None and image.format == "JPEG":
                # Decodes at 1/2, 1/4 or 1/8, but at no less than twice the requested size, so that
                # the resampling filter below determines the quality
                full = image.size
                scale = 2 * longest_side_px / max(full)
                image.draft("RGB", (int(image.width * scale) + 1, int(image.height * scale) + 1))
            image.load()
            upright = ImageOps.exif_transpose(image)
            if full and upright.size != image.size:
                full = full[::-1]
            return _shrunk(_rgb(upright), longest_side_px, full)


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
        raise ImageError(f"{source}: {getattr(error, 'strerror', None) or error}.") from error


@contextmanager
def _named(source: ImageSource) -> Iterator[None]:
    """Turns every error of a decoder into an ImageError that names the photo."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{_name(source)}: {error}") from error
    except Exception as error:  # each format raises its own: OSError, SyntaxError, ValueError, …
        raise ImageError(
            f"{_name(source)}: the photo is truncated or damaged ({error})."
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    if image.format == "EPS":
        raise ImageError(
            f"{_name(image)}: PostScript is not decoded, because Pillow starts another program "
            "for it; convert it to JPEG first."
        )
    return ImageOps.exif_transpose(image)


def _open(source: str | Path | bytes) -> Image.Image:
    content = image_bytes(source)
    try:
        with _FILTER_LOCK, warnings.catch_warnings():
            # PIL warns above its limit and raises above twice that; MAX_PIXELS is checked below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=decoded_formats())
    except UnidentifiedImageError as error:
        raise ImageError(f"{_name(source)}: {unread_format_message(content)}.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{_name(source)}: more than {MAX_PIXELS:,} pixels; shrink it first."
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"{_name(source)}: {image.width} × {image.height} pixels, more than {MAX_PIXELS:,}; "
            "shrink it first."
        )
    return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        values = np.asarray(image).astype(np.float32) / 257
        return _from_levels(values)
    if image.mode in ("I", "F"):
        values = np.asarray(image).astype(np.float32)
        # PIL opens some 16-bit PNG and TIFF files as 32-bit integers
        maximum = 255.0 if values.max(initial=0) <= 255 else 65535.0
        return _from_levels(np.clip(values / maximum, 0, 1) * 255)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_levels(values: npt.NDArray[np.floating]) -> Image.Image:
    """RGB image of gray levels in 0 … 255, rounded."""
    return Image.fromarray((values + 0.5).astype(np.uint8)).convert("RGB")


def _shrunk(
    image: Image.Image, longest_side_px: int | None, full: tuple[int, int] | None = None
) -> Image.Image:
    """Shrinks to a size computed from the full one, because reduced decoding rounds sizes up."""
    if longest_side_px is None or max(image.size) <= longest_side_px:
        return image
    width, height = full or image.size
    scale = longest_side_px / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def _name(source: ImageSource) -> str:
    if isinstance(source, bytes):
        return f"a photo of {len(source)} bytes"
    return "a PIL image" if isinstance(source, Image.Image) else str(source)

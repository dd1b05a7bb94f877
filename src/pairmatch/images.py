"""Reads photos as people see them: upright, in RGB, whole; and says what is wrong with those that cannot be read."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pairmatch.errors import ImageError

ImageSource = str | Path | bytes | Image.Image

#: Photos of more pixels are refused: a small file can unpack to gigabytes.
MAX_PIXELS = 100_000_000
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})


def image_bytes(source: ImageSource) -> bytes:
    """The encoded bytes of a photo; a PIL image is encoded as PNG.

    Raises:
        ImageError: The file cannot be read or is empty.
    """
    if isinstance(source, Image.Image):
        buffer = io.BytesIO()
        source.save(buffer, "PNG")
        return buffer.getvalue()
    if isinstance(source, bytes):
        content = source
    else:
        try:
            content = Path(source).read_bytes()
        except OSError as error:
            raise ImageError(f"{source}: {error.strerror or error}.") from error
    if not content:
        raise ImageError(f"{_name(source)}: the file is empty.")
    return content


def image_digest(source: ImageSource) -> str:
    """SHA-256 (hex) of a photo's content: its encoded bytes, or a PIL image's mode, size, palette and pixels.

    Raises:
        ImageError: The file cannot be read or is empty.
    """
    if isinstance(source, Image.Image):
        upright = ImageOps.exif_transpose(source)
        palette = upright.getpalette() if upright.mode == "P" else None
        head = f"{upright.mode} {upright.size} {palette} {upright.info.get('transparency')}".encode()
        return hashlib.sha256(head + b"\0" + upright.tobytes()).hexdigest()
    return hashlib.sha256(image_bytes(source)).hexdigest()


def image_size(source: ImageSource) -> tuple[int, int]:
    """(width, height) in pixels of the upright photo, from its header alone.

    Raises:
        ImageError: The file cannot be read or is no photo.
    """
    if isinstance(source, Image.Image):
        image, turned = source, source.getexif().get(0x0112, 1) >= 5
        width, height = image.size
    else:
        with _open(source) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) >= 5
    return (height, width) if turned else (width, height)


def load_image(source: ImageSource, *, longest_side_px: int | None = None) -> Image.Image:
    """A photo as people see it: EXIF orientation applied, RGB, transparency on white, 16 bits scaled to 8.

    Args:
        source: A path, encoded bytes or a PIL image.
        longest_side_px: Shrinks (never enlarges) so that the longest side has this many pixels, aspect kept; JPEG files
            are then decoded at reduced size, which is several times faster for phone photos.

    Raises:
        ImageError: The file cannot be read, is no photo, is truncated, or has more than `MAX_PIXELS` pixels.
    """
    if isinstance(source, Image.Image):
        return _shrunk(_rgb(ImageOps.exif_transpose(source)), longest_side_px)
    with _open(source) as image:
        try:
            if longest_side_px is not None and image.format == "JPEG":
                # Decodes at 1/2, 1/4 or 1/8, never below twice the size that is wanted, so the filter below decides
                scale = 2 * longest_side_px / max(image.size)
                image.draft("RGB", (int(image.width * scale) + 1, int(image.height * scale) + 1))
            image.load()
            upright = ImageOps.exif_transpose(image)
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise ImageError(f"{_name(source)}: the photo is truncated or damaged ({error}).") from error
        except Image.DecompressionBombError as error:
            raise ImageError(f"{_name(source)}: {error}") from error
        return _shrunk(_rgb(upright), longest_side_px)


def check_image(source: ImageSource) -> str | None:
    """What is wrong with a photo, after decoding it fully; None where nothing is."""
    try:
        load_image(source)
    except ImageError as error:
        return str(error)
    return None


def _open(source: str | Path | bytes) -> Image.Image:
    content = image_bytes(source)
    try:
        with warnings.catch_warnings():
            # PIL only warns between its limit and twice that; ours is checked below and is one number
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:
        raise ImageError(f"{_name(source)}: not a photo in a format that Pillow reads.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{_name(source)}: more than {MAX_PIXELS:,} pixels; shrink it first.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{_name(source)}: the photo is damaged ({error}).") from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"{_name(source)}: {image.width} × {image.height} pixels, more than {MAX_PIXELS:,}; shrink it first."
        )
    return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        return Image.fromarray((np.asarray(image).astype(np.float32) / 257 + 0.5).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        values = np.asarray(image).astype(np.float32)
        top = 255.0 if values.max(initial=0) <= 255 else 65535.0  # PIL opens 16-bit PNG and TIFF as 32-bit integers too
        return Image.fromarray((np.clip(values / top, 0, 1) * 255 + 0.5).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _shrunk(image: Image.Image, longest_side_px: int | None) -> Image.Image:
    if longest_side_px is None or max(image.size) <= longest_side_px:
        return image
    scale = longest_side_px / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def _name(source: ImageSource) -> str:
    if isinstance(source, bytes):
        return f"a photo of {len(source)} bytes"
    return "a PIL image" if isinstance(source, Image.Image) else str(source)

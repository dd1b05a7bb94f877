"""Pixels of every number format and color profile as 8-bit sRGB."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

# Profiles whose colors differ from sRGB by no more levels are taken for sRGB
_SRGB_LEVELS = 2
# The mode in which a profile's color space is given to the transform
_PROFILE_MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
# What ImageCms raises for damaged profiles
_PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError)
# Photos of fractions are HDR if 99 % of their levels are below this one
_HDR_LEVEL = 8.0
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


def flat(image: Image.Image, *, unsigned: bool = False) -> Image.Image:
    """The photo with 8 bits per channel and no transparency: mode L, RGB or CMYK.

    Transparent parts become white. Floating-point and integer levels are scaled as `levels` says.

    Args:
        image: A decoded image of any mode.
        unsigned: Whether 32-bit integers are unsigned; Pillow holds them as signed ones.
    """
    mode = image.mode
    if mode.startswith("I;16"):
        return Image.fromarray(_rounded(np.asarray(image).astype(np.float32) / 257))
    if mode in ("I", "F"):
        values = np.asarray(image)
        return Image.fromarray(levels(values.view(np.uint32) if unsigned else values))
    if mode in _ALPHA_MODES or "transparency" in image.info:
        layer = (image.convert("LA") if mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        composed = Image.alpha_composite(white, layer)
        is_gray = mode in ("L", "LA", "La", "1")
        return composed.getchannel("R") if is_gray else composed.convert("RGB")
    if mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def has_unsigned_numbers(image: Image.Image) -> bool:
    """Whether an image of mode I comes from a TIFF file of unsigned numbers."""
    tags = getattr(image, "tag_v2", None)
    if image.mode != "I" or tags is None:
        return False
    return tuple(tags.get(339, (1,))) == (1,)


def levels(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Gray levels 0 to 255 of numbers whose range the file does not state.

    The range follows from the largest number: 1, 255, 65,535, or else the largest number itself.
    Floating-point photos with highlights above 1 (HDR), whose numbers are fractions and nearly all
    small, have the range 0 to 1, and the highlights are white. Negative numbers and NaN are black,
    infinity is white.

    Args:
        values: Integers or floating-point numbers of any shape.
    """
    numbers = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=np.inf, neginf=0.0)
    finite = numbers[np.isfinite(numbers)]
    largest = float(finite.max(initial=0.0))
    if values.dtype.kind == "f" and largest > 0 and _are_fractions(finite, largest):
        white = 1.0
    else:
        white = next((limit for limit in (255.0, 65535.0) if largest <= limit), largest)
    return _rounded(np.clip(numbers / white, 0, 1) * 255)


def _are_fractions(finite: npt.NDArray[np.float32], largest: float) -> bool:
    if largest <= 1:
        return True
    return bool(np.quantile(finite, 0.99) <= _HDR_LEVEL) and bool(np.any(finite % 1))


def _rounded(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    return (values + 0.5).astype(np.uint8)


def conversion(
    mode: str, profile: bytes | None
) -> tuple[Callable[[Image.Image], Image.Image] | None, bool]:
    """What converts images of a mode from their profile to sRGB, and whether the profile is usable.

    Colors are converted with relative colorimetric intent and black point compensation: colors
    that sRGB has keep their exact value, as in browsers and photo editors. The converter returns
    mode RGB; it is None if colors stay, as with sRGB profiles and without one.

    Args:
        mode: L, RGB or CMYK.
        profile: ICC profile.
    """
    if not profile:
        return None, True
    expected = _PROFILE_MODES.get(profile[16:20])
    if expected is None or (mode != expected and (expected, mode) != ("RGB", "L")):
        return None, False
    try:
        convert = _conversion(profile, expected)
    except _PROFILE_ERRORS:
        return None, False
    if convert is None or mode == expected:
        return convert, True
    return lambda image: convert(image.convert("RGB")), True


def changes_colors(profile: bytes | None) -> bool:
    """Whether converting from this profile changes any color noticeably."""
    if not profile or (mode := _PROFILE_MODES.get(profile[16:20])) is None:
        return False
    try:
        return _conversion(profile, mode) is not None
    except _PROFILE_ERRORS:
        return False


@lru_cache(maxsize=64)
def _conversion(profile: bytes, mode: str) -> Callable[[Image.Image], Image.Image] | None:
    """Converts images of a mode to sRGB, in any thread; None if the profile is sRGB.

    Raises:
        PyCMSError: (or others) The profile is damaged.
    """
    # Without a cache of the last pixel, a transform has no state that threads could share
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=flags | ImageCms.Flags.NOOPTIMIZE if mode == "L" else flags,
    )
    if mode == "CMYK":
        return transform.apply
    samples = _samples(mode)
    after = transform.apply(samples)
    change = np.asarray(after).astype(int) - np.asarray(samples.convert("RGB"))
    if np.abs(change).max() <= _SRGB_LEVELS:
        return None
    if mode == "RGB":
        return transform.apply
    table = list(after.getchannel("G").tobytes())
    return lambda image: image.point(table).convert("RGB")


def _samples(mode: str) -> Image.Image:
    """Colors of a whole mode: every gray level, or 16 steps of each channel."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.linspace(0, 255, 16).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(64, 64, 3))

"""Which files are photos: formats by the first bytes of a file, never by its name."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from pairmatch.core.errors import ImageError
from pairmatch.core.text import printable
from pairmatch.io.files import read_header

#: Raster formats that are decoded, by Pillow's name. All others are refused before a decoder runs:
#: Pillow hands PostScript, for example, to Ghostscript, another program.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
_NAMES = {"WEBP": "WebP", "JPEG2000": "JPEG 2000"}
_HEADER_BYTES = 512
# What a file is, by its first bytes; the first match counts
_SIGNATURES = tuple(
    (name, re.compile(pattern, re.DOTALL))
    for name, pattern in (
        ("JPEG", rb"\xff\xd8\xff"),
        ("PNG", rb"\x89PNG\r\n\x1a\n"),
        ("WEBP", rb"RIFF.{4}WEBP"),
        ("GIF", rb"GIF8[79]a"),
        ("BMP", rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
        ("TIFF", rb"II[*+]\0|MM\0[*+]"),
        ("AVIF", rb".{4}ftyp(avi[fs]|.{4}.{4}(.{4}){0,8}avi[fs])"),
        ("JPEG2000", rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"),
        ("PPM", rb"P[1-6f]\s+(#[^\n]*\n\s*)*\d"),
        ("HEIC", rb".{4}ftyp(hei[cfmsx]|hev[cmsx]|mif1|msf1)"),
        ("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
        ("camera raw file (CR3)", rb".{4}ftypcrx"),
        ("camera raw file (RAF)", rb"FUJIFILMCCD-RAW"),
        ("PostScript (EPS)", rb"%!PS|\xc5\xd0\xd3\xc6"),
        ("PDF", rb"%PDF-"),
        ("SVG", rb"\s*(<\?xml.{0,400})?<svg"),
        ("Photoshop document (PSD)", rb"8BPS"),
        ("Windows metafile (WMF)", rb"\xd7\xcd\xc6\x9a\0\0"),
        ("Windows metafile (EMF)", rb"\x01\0\0\0.{36} EMF"),
        ("icon (ICO)", rb"\0\0[\x01\x02]\0.\0"),
        ("icon (ICNS)", rb"icns"),
        ("FITS image", rb"SIMPLE  ="),
        ("OpenEXR image", rb"\x76\x2f\x31\x01"),
        ("DirectDraw surface (DDS)", rb"DDS "),
        ("QOI image", rb"qoif"),
        ("video", rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI "),
        ("HTML", rb"\s*<(!doctype html|html)|\s*<(!DOCTYPE html|HTML)"),
        ("an archive", rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!"),
    )
)


def photo_format(source: str | Path | bytes) -> str | None:
    """Pillow's name of a photo's format, by its content; None if pairmatch does not read it.

    Reads the first bytes only, so a damaged photo has a format too. HEIC counts once an opener for
    it is registered (`pillow_heif.register_heif_opener()`).

    Args:
        source: A path, or the bytes of a file.

    Raises:
        ImageError: The file cannot be read, or is not a regular file.
    """
    name = content_format(source)
    if name == "HEIC":
        return "HEIF" if "HEIF" in Image.OPEN else None
    return name if name in FORMATS else None


def content_format(source: str | Path | bytes) -> str | None:
    """What a file is, whether pairmatch reads it or not: `JPEG`, `HEIC`, `PDF`, `HTML`, …

    None if the content is none of the known kinds.

    Args:
        source: A path, or the bytes of a file.

    Raises:
        ImageError: The file cannot be read, or is not a regular file.
    """
    if isinstance(source, bytes):
        header = source[:_HEADER_BYTES]
    else:
        try:
            header = read_header(Path(source), _HEADER_BYTES)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ImageError(f"{printable(str(source))}: {reason}.") from error
    return next((name for name, pattern in _SIGNATURES if pattern.match(header)), None)


def decoded_formats() -> tuple[str, ...]:
    """The formats that `Image.open` may try on this machine: `FORMATS`, and HEIF if registered."""
    Image.init()
    return tuple(name for name in (*FORMATS, "HEIF") if name in Image.OPEN)


def unread_format_message(content: bytes) -> str:
    """Why these bytes are not decoded, and what to do; ends a sentence."""
    name = content_format(content)
    if name in FORMATS:
        return (
            f"the {_NAMES.get(name, name)} data is truncated or damaged"
            if name in Image.OPEN
            else f"this version of Pillow does not read {_NAMES.get(name, name)}: upgrade it"
        )
    message = "not a photo in a format that pairmatch reads"
    if name == "HEIC":
        return (
            f"{message}; the content looks like HEIC: convert it to JPEG, or install pillow-heif "
            "and call `pillow_heif.register_heif_opener()` first"
        )
    return f"{message}; the content looks like {name}: convert it to JPEG" if name else message

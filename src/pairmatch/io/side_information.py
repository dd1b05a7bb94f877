"""Separates the pixels of a photo file from what is stored beside them.

EXIF data, color profiles, XMP and texts come from cameras and editors of every kind and are often
damaged. Decoders that meet them refuse the photo, so they are given the pixels alone.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from pairmatch.io.orientation import (
    exif_orientation,
    is_damaged,
    read_directory,
    tiff_orientation,
    xmp_orientation,
)

_MOST_BYTES = 16_000_000  # of one decompressed text or profile
_XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
_PROFILE_HEADER = b"ICC_PROFILE\0"
_MARKER = re.compile(rb"\xff[^\x00\xff]")
# Tags that describe the pixels of a TIFF file: size, number format, compression, strips, tiles, …
_PIXEL_TAGS = frozenset(
    {254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320}
    | {322, 323, 324, 325, 332, 338, 339, 347, 50674, 0xBC01}
    | set(range(512, 522))
    | set(range(529, 533))
)


@dataclass(slots=True)
class SideInformation:
    """What a photo file holds beside its pixels.

    Attributes:
        orientation: How the stored photo is turned, 1 to 8 as in EXIF; None if not stated.
        profile: ICC profile of the colors.
        problems: What is damaged: `EXIF data`, `color profile`, `text`, …
        size: (width, height) in pixels, for formats whose decoder allocates the photo when it is
            opened.
        is_mpo: Whether a JPEG file says that it holds several photos.
    """

    orientation: int | None = None
    profile: bytes | None = None
    problems: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None
    is_mpo: bool = False

    def read_exif(self, exif: bytes) -> None:
        """Takes the orientation from EXIF data."""
        orientation, is_damaged = exif_orientation(exif)
        self.orientation = self.orientation or orientation
        if is_damaged:
            self.add_problem("EXIF data")

    def read_xmp(self, xmp: bytes) -> None:
        """Takes the orientation from XMP, if EXIF states none; call it after `read_exif`."""
        self.orientation = self.orientation or xmp_orientation(xmp)
        if not re.match(rb"(\xef\xbb\xbf|[\s\0])*<", xmp):
            self.add_problem("XMP data")

    def add_problem(self, what: str) -> None:
        """Notes damage, once per kind."""
        if what not in self.problems:
            self.problems.append(what)


def separate(content: bytes, form: str | None) -> tuple[bytes, SideInformation]:
    """The file without side information, and what it held.

    Files whose structure cannot be followed, and formats without troublesome side information,
    are returned whole.

    Args:
        content: Bytes of the file.
        form: Format, as `photo_format` names it.
    """
    side = SideInformation()
    walk = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "TIFF": _tiff, "GIF": _gif}
    walk |= {"AVIF": _avif, "JPEG2000": _jpeg2000}
    if form not in walk:
        return content, side
    try:
        return walk[form](content, side), side
    except (struct.error, IndexError):  # the file ends inside its structure
        return content, side


def _jpeg(content: bytes, side: SideInformation) -> bytes:
    """Keeps the JFIF and Adobe segments, which state how colors are encoded, and no other APPn."""
    kept = [content[:2]]
    exif = b""
    xmp = b""
    profile: dict[int, bytes] = {}
    position = 2
    while True:
        start = _MARKER.search(content, position)  # after padding and bytes of no segment
        if start is None:
            raise IndexError
        position = start.start()
        marker = content[position + 1]
        if marker in (0xDA, 0xD9):  # the compressed pixels, or the end
            kept.append(content[position:])
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            position += 2
            continue
        end = position + 2 + struct.unpack_from(">H", content, position + 2)[0]
        if end < position + 4 or end > len(content):
            raise IndexError
        body = content[position + 4 : end]
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            exif += body[6:]
        elif marker == 0xE1 and body.startswith(_XMP_HEADER):
            xmp = xmp or body.removeprefix(_XMP_HEADER)
        elif marker == 0xE2 and body.startswith(_PROFILE_HEADER) and len(body) > 14:
            profile[body[12]] = body[14:]
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            side.is_mpo = True
        elif _describes_pixels(marker, body):
            kept.append(content[position:end])
        position = end
    if exif:
        side.read_exif(exif)
    if xmp:
        side.read_xmp(xmp)
    if profile:
        side.profile = b"".join(profile[number] for number in sorted(profile))
    return b"".join(kept)


def _describes_pixels(marker: int, body: bytes) -> bool:
    if (marker, body[:5]) in ((0xE0, b"JFIF\0"), (0xEE, b"Adobe")):
        return len(body) >= 12
    return not 0xE0 <= marker <= 0xEF and marker != 0xFE


def _png(content: bytes, side: SideInformation) -> bytes:
    """Keeps the critical chunks and valid transparency; of an animation, the still image."""
    color_type = content[25]
    kept: list[bytes | memoryview] = [content[:8]]
    texts: list[tuple[bytes, bytes]] = []
    exif = b""
    for kind, body, chunk in _png_chunks(content):
        if kind == b"tRNS" and not _is_valid_transparency(color_type, body, chunk):
            side.add_problem("transparency")
        elif kind == b"PLTE" and color_type != 3:
            continue  # a suggestion for displays of few colors
        elif kind == b"tRNS" or not kind[0] & 0x20:
            kept.append(chunk)
        elif kind == b"eXIf":
            exif = exif or body
        elif kind == b"iCCP":
            side.profile = _inflated(body.partition(b"\0")[2][1:])
            if side.profile is None:
                side.add_problem("color profile")
        elif kind in (b"iTXt", b"zTXt", b"tEXt"):
            texts.append((kind, body))
    if exif:
        side.read_exif(exif)
    for kind, body in texts:
        _png_text(kind, body, side)
    return b"".join(kept)


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes, memoryview]]:
    """Type, content, and all bytes of each chunk; the last one may be cut off."""
    view = memoryview(content)
    position = 8
    while position + 8 <= len(content):
        length = struct.unpack_from(">I", content, position)[0]
        kind = content[position + 4 : position + 8]
        end = position + 12 + length
        body = b"" if kind == b"IDAT" else content[position + 8 : position + 8 + length]
        yield kind, body, view[position:end]
        position = end


def _is_valid_transparency(color_type: int, body: bytes, chunk: memoryview) -> bool:
    """Whether a tRNS chunk has the length for its color type, and the checksum of its content."""
    is_long_enough = {0: len(body) >= 2, 2: len(body) >= 6, 3: 0 < len(body) <= 256}
    checksum = zlib.crc32(b"tRNS" + body).to_bytes(4, "big")
    return is_long_enough.get(color_type, False) and chunk[-4:] == checksum


def _png_text(kind: bytes, body: bytes, side: SideInformation) -> None:
    """Reads XMP, and EXIF as ImageMagick stores it; other texts are not looked at."""
    keyword, _, value = body.partition(b"\0")
    if keyword == b"XML:com.adobe.xmp" and kind == b"iTXt":
        is_compressed = value[:1] == b"\1"
        text: bytes | None = value[2:].split(b"\0", 2)[-1]
        text = _inflated(text) if is_compressed and text is not None else text
        if text is None:
            side.add_problem("XMP data")
        else:
            side.read_xmp(text)
    elif keyword in (b"Raw profile type exif", b"Raw profile type APP1") and kind != b"iTXt":
        text = _inflated(value[1:]) if kind == b"zTXt" else value
        try:
            side.read_exif(bytes.fromhex(b"".join((text or b"").split(b"\n")[3:]).decode()))
        except ValueError:
            side.add_problem("EXIF data")


def _webp(content: bytes, side: SideInformation) -> bytes:
    """Keeps the image and animation chunks."""
    kept = []
    exif = b""
    xmp = b""
    position = 12
    while position + 8 <= len(content):
        kind = content[position : position + 4]
        length = struct.unpack_from("<I", content, position + 4)[0]
        end = position + 8 + length + length % 2
        body = content[position + 8 : position + 8 + length]
        if kind == b"EXIF":
            exif = exif or body
        elif kind == b"XMP ":
            xmp = xmp or body
        elif kind == b"ICCP":
            side.profile = body
        elif kind == b"VP8X" and length >= 10:
            width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
            side.size = width, height
            # Flags of the chunks that are left out: profile, EXIF, XMP
            kept.append(content[position : position + 8] + bytes([body[0] & ~0x2C]) + body[1:])
        elif kind in (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"VP8X"):
            side.size = side.size or _webp_size(kind, body)
            kept.append(content[position:end])
        position = end
    if exif:
        side.read_exif(exif)
    if xmp:
        side.read_xmp(xmp)
    chunks = b"".join(kept)
    # A file that is cut off keeps its stated size, so that the decoder notices
    stated = struct.unpack_from("<I", content, 4)[0]
    missing = max(0, stated + 8 - len(content))
    return b"RIFF" + struct.pack("<I", (len(chunks) + 4 + missing) & 0xFFFFFFFF) + b"WEBP" + chunks


def _webp_size(kind: bytes, body: bytes) -> tuple[int, int] | None:
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", body, 1)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _tiff(content: bytes, side: SideInformation) -> bytes:
    """Rewrites the first directory to the tags that describe pixels; further pages are left out."""
    directory = read_directory(content)
    if directory is None or not directory.is_complete:
        return content
    side.orientation = tiff_orientation(directory)
    side.size = (directory.integer(256) or 0, directory.integer(257) or 0)
    tile = (directory.integer(322) or 0, directory.integer(323) or 0)
    side.size = max(side.size, tile, key=lambda size: size[0] * size[1])
    kept = [entry for entry in directory.entries if entry.tag in _PIXEL_TAGS]
    for entry in directory.entries:
        if entry.tag == 34675:
            side.profile = entry.value
        elif entry.tag == 700 and entry.value is not None:
            side.read_xmp(entry.value)
    if is_damaged(directory, ignored=_PIXEL_TAGS):
        side.add_problem("EXIF data")
    number, offset = ("Q", "Q") if directory.big else ("H", "I")
    rewritten = struct.pack(directory.order + number, len(kept))
    rewritten += b"".join(entry.raw for entry in kept)
    rewritten += struct.pack(directory.order + offset, 0)
    start = directory.start
    return content[:start] + rewritten + content[start + len(rewritten) :]


def _gif(content: bytes, side: SideInformation) -> bytes:
    """Keeps, of the extensions before the first photo, its transparency."""
    position = 13 + (3 << (content[10] & 7) + 1 if content[10] & 0x80 else 0)
    kept = [content[:position]]
    while content[position] == 0x21:  # an extension: label, then blocks up to an empty one
        start = position
        position += 2
        blocks = []
        while length := content[position]:
            blocks.append(content[position + 1 : position + 1 + length])
            position += 1 + length
        position += 1
        is_control = content[start + 1] == 0xF9  # with the transparency of the photo
        if is_control and blocks and len(blocks[0]) >= 4:
            kept.append(content[start:position])
        elif is_control:
            side.add_problem("transparency")
        elif blocks[:1] == [b"ICCRGBG1012"]:
            side.profile = b"".join(blocks[1:])
    kept.append(content[position:])
    return b"".join(kept)


def _jpeg2000(content: bytes, side: SideInformation) -> bytes:
    """Takes the profile; renames boxes of resolution and damaged ones of color."""
    start = content.find(b"jp2h", 0, 4096)
    if start < 4:
        return content
    end = start - 4 + struct.unpack_from(">I", content, start - 4)[0]
    position = start + 4
    renamed = bytearray(content)
    while position + 8 <= end:
        length, kind = struct.unpack_from(">I4s", content, position)
        body = content[position + 8 : position + length]
        if kind == b"colr" and body[:1] == b"\2":
            side.profile = side.profile or body[3:]
        if kind == b"res " or (kind == b"colr" and len(body) < 7):
            renamed[position + 4 : position + 8] = b"skip"
        position += max(length, 8)
    return bytes(renamed)


def _avif(content: bytes, side: SideInformation) -> bytes:
    """Renames the EXIF and XMP items, so that the decoder passes over them.

    The orientation of AVIF is a property of the image, which Pillow reads; EXIF's has no effect.
    """
    start = content.find(b"meta", 0, 4096)
    if start < 4:
        return content
    end = start - 4 + struct.unpack_from(">I", content, start - 4)[0]
    meta = re.sub(
        rb"(infe(?:\x02.{3}.{2}|\x03.{3}.{4}).{2})(?:Exif|mime)",
        rb"\1skip",
        content[start:end],
        flags=re.DOTALL,
    )
    return content[:start] + meta + content[end:]


def _inflated(data: bytes) -> bytes | None:
    """Decompressed data; None if it is damaged or larger than the limit."""
    stream = zlib.decompressobj()
    try:
        result = stream.decompress(data, _MOST_BYTES)
    except zlib.error:
        return None
    return result if stream.eof else None

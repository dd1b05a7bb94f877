"""Photos of all formats: mutated bytes, side information and sizes."""

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms, PngImagePlugin

from .mutations import TEXTS, mutate_bytes
from .people import crowd, fitted, pairs_of, photo_bytes
from .subject import Case, Subject

_FORMATS = ("jpeg", "png", "webp", "gif", "tiff", "bmp", "avif")
_SUFFIXES = {"jpeg": ".jpg", "tiff": ".tif"}
_MODES = ("RGB", "L", "RGBA", "P", "CMYK", "1", "I;16", "F", "LA", "YCbCr")
# What Pillow raises for a mode or side information that a format does not have
_UNSUPPORTED = (OSError, ValueError, LookupError, TypeError, SyntaxError, SystemError, struct.error)
_OTHERS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    b"%PDF-1.7\n",
    b"P6 99999 99999 255\n",
    b"\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x01\x00\x20\x00" + bytes(40),
)


class Photos(Subject):
    """Photos that are opened, checked, described and encoded for upload."""

    name = "images"
    weight = 22

    def prepare(self, corpus: Path) -> None:
        people = crowd(24, corpus / "photos")
        fitted(pairs_of(people), corpus / "store.sqlite").save(corpus / "matcher")

    def write(self, case: Case) -> None:
        rng = case.rng
        kind = rng.choice(_FORMATS)
        content = _encoded(rng, kind)
        act = rng.randrange(8)
        if act < 4:
            content = mutate_bytes(rng, content)
        elif act == 4:
            content = mutate_bytes(rng, content[:200]) + content[200:]
        elif act == 5:
            content = _with_size(rng, kind, content)
        elif act == 6 and rng.random() < 0.2:
            content = rng.choice(_OTHERS)
        if rng.random() < 0.05:
            kind = rng.choice(_FORMATS)  # another format than its name says
        (case.input / f"photo{_SUFFIXES.get(kind, '.' + kind)}").write_bytes(content)

    def use(self, case: Case) -> None:
        import numpy as np

        from pairmatch.backbones.descriptor import DescriptorBackbone
        from pairmatch.core.types import Item
        from pairmatch.data import read_profiles
        from pairmatch.io.images import check_image, image_digest
        from pairmatch.metadata.openai_request import photo_content

        path = next(case.input.iterdir())
        if case.rng.random() < 0.05:
            options: list[Any] = ["--store", case.output / "store.sqlite", "--quiet"]
            gallery = case.corpus / "photos"
            matcher = case.corpus / "matcher"
            case.command("recommend", matcher, "--query", path, "--gallery", gallery, *options)
        problem = check_image(path)
        case.attempt(lambda: read_profiles(case.input))
        case.attempt(lambda: image_digest(path))
        sent = case.attempt(lambda: photo_content(path, longest_side_px=64, detail="low"))
        if sent is not None:
            case.expect(b"FUZZ-SECRET" not in str(sent).encode(), "side information was sent")
        described = case.attempt(lambda: DescriptorBackbone().prepare([Item(images=(path,))]))
        case.expect((problem is None) == (described is not None), f"check_image said {problem!r}")
        if described is not None:
            case.expect(bool(np.isfinite(described.numpy()).all()), "a descriptor is not finite")


def _encoded(rng: random.Random, kind: str) -> bytes:
    """A valid photo with EXIF, a color profile, texts or several frames."""
    size = rng.choice(((16, 16), (40, 30), (1, 1), (1, 700), (300, 200)))
    image = Image.open(io.BytesIO(photo_bytes(rng.randrange(50), size)))
    mode = rng.choice(_MODES)
    options: dict[str, Any] = {}
    if rng.random() < 0.5:
        exif = Image.Exif()
        exif[0x0112] = rng.choice((1, 3, 6, 8, 0, 99))
        exif[0x010E] = rng.choice(("FUZZ-SECRET", "x" * 5000))
        exif[0x8825] = {1: "N", 2: (52.0, 30.0, 0.0)}
        options["exif"] = exif.tobytes()
        if rng.random() < 0.6:
            options["exif"] = mutate_bytes(rng, options["exif"], start=6)[:60_000]
    if rng.random() < 0.3:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        options["icc_profile"] = mutate_bytes(rng, profile) if rng.random() < 0.6 else profile
    if kind == "png" and rng.random() < 0.4:
        info = PngImagePlugin.PngInfo()
        info.add_text("Comment", "FUZZ-SECRET" * rng.choice((1, 200_000)), zip=rng.random() < 0.5)
        info.add_itxt("XML:com.adobe.xmp", rng.choice(TEXTS).encode("utf-8", "ignore").decode())
        options["pnginfo"] = info
    if kind in ("gif", "tiff", "webp", "png") and rng.random() < 0.2:
        options |= {"save_all": True, "append_images": [image.copy(), image.rotate(90)]}
    for attempt in (mode, "RGB"):
        for chosen in (options, {}):
            buffer = io.BytesIO()
            try:
                _converted(image, attempt).save(buffer, kind, **chosen)
            except _UNSUPPORTED:
                continue
            return buffer.getvalue()
    raise AssertionError(kind)


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if mode in ("I;16", "F"):
        return image.convert("I").convert(mode)
    return image.convert(mode)


def _with_size(rng: random.Random, kind: str, content: bytes) -> bytes:
    """The photo with another size in its header."""
    width, height = rng.choice(((2**31 - 1, 1), (65_535, 65_535), (0, 0), (50_000, 2_000), (9, 9)))
    data = bytearray(content)
    if kind == "png":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "gif":
        data[6:10] = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
    elif kind == "bmp":
        data[18:26] = struct.pack("<II", width, height)
    elif kind == "jpeg":
        at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        if at > 0:
            data[at + 5 : at + 9] = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    else:
        for size in (struct.pack("<H", 16), struct.pack("<H", 40), struct.pack("<H", 300)):
            at = data.find(size)
            if at > 0:
                data[at : at + 2] = struct.pack("<H", width & 0xFFFF)
    return bytes(data)

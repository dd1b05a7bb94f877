"""Damaged EXIF, profiles and texts: the pixels are read, upright where that can be known."""

import io
import logging
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, features

from pairmatch.core.errors import ImageError
from pairmatch.io.images import check_image, image_size, load_image
from pairmatch.io.photo_notices import grouped_notices
from pairmatch.io.side_information import separate

FORMS = [
    form
    for form in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
    if form != "AVIF" or features.check("avif")
]
OPTIONS = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}


def picture():
    pixels = np.random.default_rng(0).integers(0, 255, (3, 5, 3), np.uint8)
    return Image.fromarray(pixels).resize((40, 24), Image.Resampling.NEAREST)


def encoded(form, **options):
    buffer = io.BytesIO()
    picture().save(buffer, form, **OPTIONS.get(form, {}), **options)
    return buffer.getvalue()


def directory(*entries, count=None):
    """TIFF data with one directory; entries are (tag, type, count, four bytes)."""
    body = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count or len(entries)) + body + bytes(4)


ORIENTATION = (0x0112, 3, 1, struct.pack("<H", 6))
EXIF = {
    # name: (EXIF data, whether the orientation 6 can be read)
    "ASCII typed RATIONAL": (
        directory((0x010F, 5, 1, b"\x26\0\0\0"), ORIENTATION) + struct.pack("<II", 7, 1),
        True,
    ),
    "ASCII typed RATIONAL outside the data": (
        directory((0x010F, 5, 4, b"Cam\0"), ORIENTATION),
        True,
    ),
    "cut off after the orientation": (directory(ORIENTATION, count=9)[:22], True),
    "a value outside the data": (directory(ORIENTATION, (0x010F, 2, 900, b"\xff\0\0\0")), True),
    "an unknown type": (directory((0x010F, 99, 1, b"abcd"), ORIENTATION), True),
    "a loop of directories": (directory(ORIENTATION, (0x8769, 4, 1, b"\x08\0\0\0"))[:-4], True),
    "orientation as text": (directory((0x0112, 2, 4, b"six\0")), False),
    "no directory": (b"II*\0\xff\xff\xff\x7f" + bytes(20), False),
    "orientation typed RATIONAL": (
        directory((0x0112, 5, 1, b"\x1a\0\0\0")) + struct.pack("<II", 6, 1),
        True,
    ),
    "orientation typed FLOAT": (directory((0x0112, 11, 1, struct.pack("<f", 6))), True),
    "orientation divided by 0": (
        directory((0x0112, 10, 1, b"\x1a\0\0\0")) + struct.pack("<ii", 6, 0),
        False,
    ),
    "garbage": (b"\x93garbage\xff\xd8\xff" * 9, False),
    "nothing": (b"\0", False),
}


def png_chunk(kind, body, crc=None):
    crc = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def with_png_chunk(*chunks):
    content = encoded("PNG")
    return content[:33] + b"".join(chunks) + content[33:]  # after the signature and IHDR


def with_jpeg_segment(*segments):
    content = encoded("JPEG")
    parts = [marker + struct.pack(">H", len(body) + 2) + body for marker, body in segments]
    return content[:2] + b"".join(parts) + content[2:]


def with_webp_chunk(kind, body, flag):
    """Adds a chunk to a file in the extended format."""
    content = encoded("WEBP", exif=b"Exif\0\0" + directory((0x0112, 3, 1, b"\1\0\0\0")))
    end = content.index(b"EXIF")
    kept = content[20:end] if content[12:16] == b"VP8X" else pytest.fail("not extended")
    header = bytes([flag]) + kept[1:]
    chunk = kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    rest = b"WEBPVP8X" + struct.pack("<I", 10) + header + chunk
    return b"RIFF" + struct.pack("<I", len(rest)) + rest


def with_exif(form, exif):
    """A photo with EXIF data as it is, which Pillow would not write."""
    if form == "JPEG":
        return with_jpeg_segment((b"\xff\xe1", b"Exif\0\0" + exif))
    if form == "PNG":
        return with_png_chunk(png_chunk(b"eXIf", exif))
    if form == "WEBP":
        return with_webp_chunk(b"EXIF", exif, 0x08)
    valid = Image.Exif()
    valid[0x010E] = "x" * 300
    content = encoded("AVIF", exif=valid)
    end = content.index(b"x" * 300) + 300
    start = max(content.rfind(b"II*\0", 0, end), content.rfind(b"MM\0*", 0, end))
    return content[:start] + exif.ljust(end - start, b"\xff") + content[end:]


def expected(form, orientation):
    image = Image.open(io.BytesIO(encoded(form))).convert("RGB")
    return image.transpose(Image.Transpose.ROTATE_270) if orientation == 6 else image


def assert_read(content, form, orientation, caplog):
    """The pixels are those of the undamaged photo; the damage is told once."""
    caplog.clear()
    photo = load_image(content)
    assert np.array_equal(np.asarray(photo), np.asarray(expected(form, orientation)))
    assert image_size(content) == photo.size
    assert check_image(content) is None
    assert load_image(content, longest_side_px=12).size == (
        (7, 12) if orientation == 6 else (12, 7)
    )
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("name", EXIF)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", *(["AVIF"] if "AVIF" in FORMS else [])])
def test_damaged_exif(form, name, caplog):
    exif, has_orientation = EXIF[name]
    turned = 6 if has_orientation and form != "AVIF" else None  # AVIF: a property, not EXIF
    messages = assert_read(with_exif(form, exif), form, turned, caplog)
    if form != "AVIF" and name != "a loop of directories":
        assert "1 photo has damaged side information" in messages[0]
        assert "(EXIF data)" in messages[0]


def test_valid_side_information_is_not_reported(caplog):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Camera"
    exif[0x011A] = 72.0
    exif[0x9C9B] = b"t\0i\0t\0l\0e\0\0\0"
    for form in FORMS:
        assert load_image(encoded(form, exif=exif)).size == (24, 40)
    assert not caplog.records


@pytest.mark.parametrize(
    "chunk",
    {
        "a long compressed text": png_chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(3_000_000))),
        "a long text": png_chunk(
            b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<" + bytes(20_000_000))
        ),
        "many texts": b"".join(
            png_chunk(b"zTXt", b"c%d\0\0" % i + zlib.compress(bytes(1_000_000))) for i in range(70)
        ),
        "a wrong checksum": png_chunk(b"tEXt", b"a\0b", crc=1),
        "an unknown compression": png_chunk(b"zTXt", b"c\0\x09abc"),
        "no keyword": png_chunk(b"tEXt", b"") + png_chunk(b"iTXt", b"\0"),
        "a broken stream": png_chunk(b"zTXt", b"c\0\0notzlib") + png_chunk(b"iCCP", b"p\0\0no"),
        "a short gamma": png_chunk(b"gAMA", b"")
        + png_chunk(b"pHYs", b"\1")
        + png_chunk(b"tIME", b""),
        "a private chunk": png_chunk(b"prVt", b"\xff" * 99, crc=7),
        "a broken animation": png_chunk(b"acTL", b"\0") + png_chunk(b"fcTL", b"\0\0\0\1"),
    }.items(),
    ids=lambda item: item[0],
)
def test_png_chunks_do_not_decide(chunk, caplog):
    assert_read(with_png_chunk(chunk[1]), "PNG", None, caplog)


@pytest.mark.parametrize(
    ("kind", "body", "crc"),
    [
        (b"tRNS", b"", None),
        (b"tRNS", b"\0", None),
        (b"tRNS", bytes(6), 1),
        (b"PLTE", bytes(4), 1),  # a suggestion, in a photo that has no palette
    ],
)
def test_png_chunks_that_a_photo_needs_not(kind, body, crc, caplog):
    content = with_png_chunk(png_chunk(kind, body, crc))
    warnings = assert_read(content, "PNG", None, caplog)
    assert [("transparency" in line) for line in warnings] == [True] * len(warnings)
    assert bool(warnings) is (kind == b"tRNS")


def with_gif_extension(extension):
    content = encoded("GIF")
    start = 13 + 3 * 2 ** ((content[10] & 7) + 1)  # after the header and the palette
    return content[:start] + extension + content[start:]


@pytest.mark.parametrize(
    "extension",
    [
        b"\xff\0",  # an application without a name
        b"\xf9\0",
        b"\xf9\x01\x01\0",
        b"\xff\x0bNETSCAPE2.0\x01\x01\0",
        b"\xff\x0bXMP DataXMP\x05hello\0",
        b"\xff\x0bICCRGBG1012\x05hello\0",
        b"\xfe" + (b"\xff" + b"x" * 255) * 5000 + b"\0",
        b"\x77\x03abc\0",
    ],
)
def test_gif_extensions_do_not_decide(extension, caplog):
    assert_read(with_gif_extension(b"\x21" + extension), "GIF", None, caplog)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="needs JPEG 2000")
@pytest.mark.parametrize(
    "box",
    [
        (b"res ", b""),
        (b"res ", b"\0\0\0\x0aresc\0\0"),
        (b"colr", b""),
        (b"colr", b"\2\0\0garbage"),
        (b"xml ", b"\xff"),
    ],
)
def test_jpeg_2000_boxes_do_not_decide(box, caplog):
    content = encoded("JPEG2000")
    start = content.index(b"jp2h") - 4
    length = struct.unpack_from(">I", content, start)[0]
    added = struct.pack(">I", len(box[1]) + 8) + b"".join(box)
    header = struct.pack(">I", length + len(added)) + content[start + 4 : start + length] + added
    damaged = content[:start] + header + content[start + length :]
    assert_read(damaged, "JPEG2000", None, caplog)


def test_exif_as_imagemagick_writes_it(caplog):
    exif = b"Exif\0\0" + directory(ORIENTATION)
    text = b"\nexif\n%8d\n%s\n" % (len(exif), exif.hex().encode())
    for kind, body in ((b"zTXt", b"\0" + zlib.compress(text)), (b"tEXt", text)):
        content = with_png_chunk(png_chunk(kind, b"Raw profile type exif\0" + body))
        assert assert_read(content, "PNG", 6, caplog) == []
    broken = with_png_chunk(png_chunk(b"tEXt", b"Raw profile type exif\0\n\n\nzz"))
    assert "EXIF data" in assert_read(broken, "PNG", None, caplog)[0]


XMP = b'<x:xmpmeta xmlns:tiff="t"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def test_orientation_by_xmp_where_exif_has_none(caplog):
    segment = (b"\xff\xe1", b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    assert assert_read(with_jpeg_segment(segment), "JPEG", 6, caplog) == []
    broken = (b"\xff\xe1", b"Exif\0\0garbage")
    assert assert_read(with_jpeg_segment(broken, segment), "JPEG", 6, caplog)
    png = with_png_chunk(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP))
    assert assert_read(png, "PNG", 6, caplog) == []
    assert assert_read(with_webp_chunk(b"XMP ", XMP, 0x04), "WEBP", 6, caplog) == []
    first = (b"\xff\xe1", b"Exif\0\0" + directory((0x0112, 3, 1, struct.pack("<H", 1))))
    assert assert_read(with_jpeg_segment(first, segment), "JPEG", None, caplog) == []


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("xmp", [b"\xff\xfe\0\0", b"not xml", b"\0" * 50])
def test_broken_xmp(form, xmp, caplog):
    content = {
        "JPEG": lambda: with_jpeg_segment((b"\xff\xe1", b"http://ns.adobe.com/xap/1.0/\0" + xmp)),
        "PNG": lambda: with_png_chunk(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)),
        "WEBP": lambda: with_webp_chunk(b"XMP ", xmp, 0x04),
    }[form]()
    assert "(XMP data)" in assert_read(content, form, None, caplog)[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "profile",
    [b"x", b"\0" * 128, b"\0" * 16 + b"RGB " + b"\xff" * 400, b"\0" * 16 + b"CMYK" + bytes(200)],
)
def test_broken_profiles(form, profile, caplog):
    messages = assert_read(encoded(form, icc_profile=profile), form, None, caplog)
    assert "(color profile)" in messages[0]


def test_profiles_above_pillows_limit_are_read(caplog):
    profile = b"\0" * 16 + b"RGB " + np.random.default_rng(0).bytes(3_000_000)
    assert_read(
        with_png_chunk(png_chunk(b"iCCP", b"p\0\0" + zlib.compress(profile))), "PNG", None, caplog
    )


@pytest.mark.parametrize(
    "segments",
    [
        [(b"\xff\xe0", b"JFIF\0\1\2\xff\xff\xff\0\0\0\0")],  # an undefined unit, density 0
        [(b"\xff\xe0", b"JFIF\0\1\2\1\0\0\0\0\0\0")],
        [(b"\xff\xe0", b"JFIF\0")],
        [(b"\xff\xe2", b"MPF\0garbage")],
        [(b"\xff\xe2", b"MPF\0" + directory((0xB001, 4, 1, b"\2\0\0\0"), (0xB002, 7, 9, b"zzzz")))],
        [(b"\xff\xed", b"Photoshop 3.0\0" + b"8BIM\x03\xed\xff")],
        [(b"\xff\xe2", b"ICC_PROFILE\0\5\2abc")],
        [(b"\xff\xfe", b"")],
        [(b"\xff\xef", b"\xff" * 60_000)] * 9,
    ],
)
def test_jpeg_segments_do_not_decide(segments, caplog):
    assert_read(with_jpeg_segment(*segments), "JPEG", None, caplog)


def test_mpo_files_are_read_as_their_first_photo():
    buffer = io.BytesIO()
    other = picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture().save(buffer, "MPO", save_all=True, append_images=[other], quality=100, subsampling=0)
    photo = load_image(buffer.getvalue())
    assert np.abs(np.asarray(photo).astype(int) - np.asarray(picture())).max() < 12
    assert image_size(buffer.getvalue()) == (40, 24)


def damaged_tiff(*entries):
    """Adds tags to a TIFF file: the directory is written again behind the pixels."""
    content = encoded("TIFF")
    start = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, start)[0]
    raw = [content[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    raw += [struct.pack("<HHI4s", *entry) for entry in entries]
    raw.sort(key=lambda entry: struct.unpack_from("<H", entry))
    table = struct.pack("<H", len(raw)) + b"".join(raw) + bytes(4)
    return content[:4] + struct.pack("<I", len(content)) + content[8:] + table


@pytest.mark.parametrize(
    "entries",
    [
        [(0x010F, 5, 4, b"Cam\0")],
        [(0x011A, 2, 4, b"abc\0"), (0x011B, 2, 4, b"abc\0")],  # resolutions as text
        [(0x8769, 4, 1, b"\xff\xff\xff\x7f")],  # EXIF outside the file
        [(0x8769, 4, 1, b"\4\0\0\0"), (0x8825, 2, 4, b"gps\0")],
        [(700, 1, 4, b"\xff\xff\xff\xff"), (33723, 4, 900, b"\0\0\0\x7f")],
        [(34675, 7, 3, b"icc\0")],
        [(65000, 99, 7, b"abcd")],
    ],
)
@pytest.mark.parametrize("orientation", [None, 6])
def test_tiff_tags_that_do_not_describe_pixels(entries, orientation, caplog):
    tags = [*entries, ORIENTATION] if orientation else entries
    assert_read(damaged_tiff(*tags), "TIFF", orientation, caplog)


def test_only_the_first_page_of_a_tiff_is_looked_at():
    buffer = io.BytesIO()
    picture().save(buffer, "TIFF", save_all=True, append_images=[Image.new("L", (9, 9))])
    content = buffer.getvalue()
    assert load_image(content).tobytes() == picture().tobytes()
    assert load_image(content[: content.rindex(b"\x09\0")] + b"\xff" * 40).size == (40, 24)


def test_truncated_pixels_are_still_refused():
    for form in FORMS:
        content = encoded(form)
        assert "damaged" in check_image(content[: len(content) - 30])
        if form in ("JPEG", "PNG"):
            broken = with_exif(form, b"garbage")
            assert "damaged" in check_image(broken[: len(broken) - 30])


@pytest.mark.parametrize("form", FORMS)
def test_pixels_are_separated_from_everything_else(form):
    secret = b"Anna Example, 12 Example Street"
    exif = Image.Exif()
    exif[0x010E] = secret.decode()
    content = encoded(form, exif=exif)
    assert secret in content
    pixels, side = separate(content, form)
    opened = Image.open(io.BytesIO(pixels))
    assert np.array_equal(np.asarray(opened.convert("RGB")), np.asarray(expected(form, None)))
    assert secret not in str(opened.info).encode()
    assert side.problems == []
    assert load_image(content).info == {}


def test_many_photos_are_reported_in_one_warning(tmp_path, caplog):
    for i in range(30):
        (tmp_path / f"{i}.jpg").write_bytes(with_exif("JPEG", EXIF["garbage"][0]))
    files = sorted(tmp_path.iterdir())
    with grouped_notices(), ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(check_image, files * 2))
        assert not caplog.records
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "30 photos have damaged side information" in record.getMessage()
    assert "and 25 others" in record.getMessage()
    with grouped_notices():
        check_image(files[0])
    assert len(caplog.records) == 1  # each file is told once


def test_names_in_the_warning_cannot_deceive_a_terminal(tmp_path, caplog):
    path = tmp_path / "a\x1b[2J.jpg"
    path.write_bytes(with_exif("JPEG", EXIF["garbage"][0]))
    load_image(path)
    assert "\\x1b[2J" in caplog.records[0].getMessage()
    for content in (b"", b"text", None):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        assert "\x1b" not in check_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.*")  # Pillow's own, when it opens them
def test_lazily_opened_pil_images_with_damaged_exif():
    image = Image.open(io.BytesIO(with_exif("JPEG", EXIF["ASCII typed RATIONAL"][0])))
    assert load_image(image).size == image_size(image) == (24, 40)
    for name in EXIF:
        image = Image.open(io.BytesIO(with_exif("PNG", EXIF[name][0])))
        try:
            assert load_image(image).size in ((24, 40), (40, 24))
        except ImageError:
            pytest.fail(name)

"""Color profiles and number formats: expected colors from the definitions of the color spaces."""

import io
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from pairmatch.io import colors
from pairmatch.io.colors import levels
from pairmatch.io.images import image_bytes, image_digest, load_image, pixels_digest

WHITE = (0.9642, 1.0, 0.8249)
# Colorants of Display P3, adapted to D50, as in Apple's profile
P3_PRIMARIES = (
    (0.51512, 0.2412, -0.00105),
    (0.29198, 0.69225, 0.04189),
    (0.1571, 0.06657, 0.78407),
)
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def fixed(*numbers):
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def curve(*parameters):
    kind = {1: 0, 5: 3}[len(parameters)]
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + fixed(*parameters)


def profile(space, tags, connection=b"XYZ "):
    """An ICC profile of version 4, written by the specification ICC.1:2010."""
    text = (
        b"mluc\0\0\0\0" + struct.pack(">II", 1, 12) + b"enUS" + struct.pack(">II", 2, 28) + b"\0x"
    )
    tags = [
        (b"desc", text),
        (b"cprt", text),
        (b"wtpt", b"XYZ \0\0\0\0" + fixed(*WHITE)),
        *tags,
    ]
    table = struct.pack(">I", len(tags))
    body = b""
    for name, data in tags:
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    header = struct.pack(">I4sI", 128 + len(table) + len(body), b"", 0x04200000)
    header += kind + space + connection + struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp"
    header += bytes(28) + fixed(*WHITE)
    return header.ljust(128, b"\0") + table + body


def rgb_profile(primaries, parameters):
    names = zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)
    colorants = [(name, b"XYZ \0\0\0\0" + fixed(*xyz)) for name, xyz in names]
    curves = [(name, curve(*parameters)) for name in (b"rTRC", b"gTRC", b"bTRC")]
    return profile(b"RGB ", colorants + curves)


def gray_profile(gamma):
    return profile(b"GRAY", [(b"kTRC", curve(gamma))])


def cmyk_profile():
    """A table of two points per ink: each ink is black, so lightness is 100 without ink, else 0."""
    grid = b"".join(
        (b"\xff\x80\x80" if (c, m, y, k) == (0, 0, 0, 0) else b"\0\x80\x80")
        for c in (0, 1)
        for m in (0, 1)
        for y in (0, 1)
        for k in (0, 1)
    )
    ramp = bytes(range(256))
    identity = fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + grid + ramp * 3
    return profile(b"CMYK", [(b"A2B0", table), (b"A2B1", table)], b"Lab ")


P3 = rgb_profile(P3_PRIMARIES, SRGB_CURVE)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def p3_as_srgb(pixels):
    """Display P3 in sRGB: through linear light, with the matrix of CSS Color 4."""
    matrix = np.array(
        [
            [1.2249401, -0.2249402, 0],
            [-0.0420569, 1.0420571, 0],
            [-0.0196376, -0.0786507, 1.0982884],
        ]
    )
    value = np.asarray(pixels, float) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ matrix.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return encoded * 255


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def palette_of_colors():
    steps = np.linspace(0, 255, 8).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(16, 32, 3))


FORMS = [
    ("PNG", {}),
    ("TIFF", {}),
    ("WEBP", {"lossless": True}),
    ("JPEG", {"quality": 100, "subsampling": 0}),
    *([("AVIF", {"quality": 100, "subsampling": "4:4:4"})] if features.check("avif") else []),
]


@pytest.mark.parametrize(("form", "options"), FORMS)
def test_display_p3_becomes_srgb(form, options):
    image = palette_of_colors()
    content = encoded(image, form, icc_profile=P3, **options)
    raw = Image.open(io.BytesIO(content)).convert("RGB")
    expected = p3_as_srgb(np.asarray(raw))
    photo = np.asarray(load_image(content)).astype(float)
    assert np.abs(photo - expected).max() < 3
    assert np.abs(photo - expected).mean() < 0.6
    assert np.abs(np.asarray(raw) - expected).max() > 40  # without conversion
    assert load_image(content).info == {}


def with_profile_in_gif(image):
    content = encoded(image.quantize(64), "GIF")
    start = 13 + 3 * 2 ** ((content[10] & 7) + 1)
    pieces = [P3[i : i + 255] for i in range(0, len(P3), 255)]
    blocks = b"".join(bytes([len(piece)]) + piece for piece in pieces)
    return content[:start] + b"\x21\xff\x0bICCRGBG1012" + blocks + b"\0" + content[start:]


def with_profile_in_jpeg_2000(image):
    content = encoded(image, "JPEG2000")
    start, color = content.index(b"jp2h") - 4, content.index(b"colr") - 4
    length, end = (struct.unpack_from(">I", content, place)[0] for place in (start, color))
    box = struct.pack(">I", 11 + len(P3)) + b"colr\2\0\0" + P3
    header = struct.pack(">I", length - end + len(box)) + content[start + 4 : color] + box
    return content[:start] + header + content[color + end :]


@pytest.mark.parametrize("add", [with_profile_in_gif, with_profile_in_jpeg_2000])
def test_profiles_that_pillow_does_not_read(add):
    content = add(palette_of_colors())
    raw = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.abs(np.asarray(load_image(content)) - p3_as_srgb(raw)).max() < 3
    assert pixels_digest(content) != image_digest(content)


def test_known_colors_of_display_p3():
    for stored, shown in (
        ((255, 255, 255), (255, 255, 255)),
        ((0, 0, 0), (0, 0, 0)),
        ((128, 128, 128), (128, 128, 128)),
        ((234, 51, 35), (255, 0, 0)),  # the red of sRGB in Display P3
        ((117, 251, 76), (0, 255, 0)),
        ((0, 0, 245), (0, 0, 255)),
    ):
        photo = load_image(encoded(Image.new("RGB", (2, 2), stored), icc_profile=P3))
        assert np.abs(np.array(photo.getpixel((0, 0))) - shown).max() <= 6, stored


def test_profiles_of_srgb_change_nothing():
    image = palette_of_colors()
    linear_primaries = (
        (0.43607, 0.22249, 0.01392),
        (0.38515, 0.71687, 0.09708),
        (0.14307, 0.06061, 0.7141),
    )
    for srgb in (SRGB, rgb_profile(linear_primaries, SRGB_CURVE)):
        assert load_image(encoded(image, icc_profile=srgb)).tobytes() == image.tobytes()
        assert not colors.changes_colors(srgb)
    assert colors.changes_colors(P3)
    assert colors.changes_colors(rgb_profile(linear_primaries, (1.0,)))


def test_gray_profiles():
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    value = np.arange(256) / 255
    for gamma in (1.0, 1.8, 2.6):
        linear = value**gamma
        expected = np.where(
            linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055
        )
        profile_bytes = gray_profile(gamma)
        for form, mode in (("PNG", "L"), ("TIFF", "L"), ("PNG", "LA"), ("PNG", "I;16")):
            image = (
                ramp.convert(mode)
                if mode != "I;16"
                else Image.fromarray(np.arange(256, dtype=np.uint16)[None] * 257)
            )
            photo = np.asarray(load_image(encoded(image, form, icc_profile=profile_bytes)))
            assert np.abs(photo[0, :, 1] - expected * 255).max() < 2, (gamma, form, mode)


def test_gray_photos_with_an_rgb_profile():
    photo = load_image(encoded(Image.new("L", (2, 2), 100), "JPEG", icc_profile=P3))
    assert photo.getpixel((0, 0)) == (100, 100, 100)  # Display P3 and sRGB share their gray


def test_alpha_and_palettes_are_converted_too():
    red = (234, 51, 35)
    clear = Image.new("RGBA", (4, 2), (*red, 0))
    clear.paste((*red, 255), (0, 0, 2, 2))
    for image in (clear, Image.new("RGB", (4, 2), red).quantize(4)):
        photo = load_image(encoded(image, icc_profile=P3))
        assert np.abs(np.array(photo.getpixel((0, 0))) - (255, 0, 0)).max() <= 6
    assert load_image(encoded(clear, icc_profile=P3)).getpixel((3, 0)) == (255, 255, 255)


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_profiles(form):
    image = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    image.paste((255, 0, 0, 0), (0, 0, 4, 8))  # cyan, which is black ink in this profile
    content = encoded(image, form, icc_profile=cmyk_profile())
    photo = load_image(content)
    assert max(photo.getpixel((1, 4))) < 12
    assert min(photo.getpixel((6, 4))) > 243
    plain = load_image(encoded(image, form))
    assert plain.getpixel((1, 4))[2] > 200  # without a profile, cyan is cyan


def test_profiles_of_another_color_space_are_ignored(caplog):
    for image, wrong in (
        (Image.new("RGB", (4, 4), (1, 2, 3)), cmyk_profile()),
        (Image.new("RGB", (4, 4), (1, 2, 3)), gray_profile(2.2)),
        (Image.new("L", (4, 4), 7), cmyk_profile()),
    ):
        caplog.clear()
        photo = load_image(encoded(image, "PNG", icc_profile=wrong))
        assert photo.tobytes() == image.convert("RGB").tobytes()
        assert "(color profile)" in caplog.records[0].getMessage()


def test_reduced_decoding_and_conversion():
    image = palette_of_colors().resize((1600, 800), Image.Resampling.BICUBIC)
    content = encoded(image, "JPEG", quality=95, icc_profile=P3)
    small = load_image(content, longest_side_px=200)
    full = load_image(content).resize((200, 100), Image.Resampling.BICUBIC)
    assert small.size == (200, 100)
    assert np.abs(np.asarray(small).astype(int) - np.asarray(full)).mean() < 1.5


def test_threads_share_transforms():
    contents = [
        encoded(palette_of_colors().rotate(90 * i), icc_profile=P3 if i % 2 else gray_profile(1.0))
        for i in range(4)
    ]
    expected = [load_image(content).tobytes() for content in contents]
    colors._conversion.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: load_image(contents[i % 4]).tobytes(), range(200)))
    assert all(result == expected[i % 4] for i, result in enumerate(results))


def test_pil_images_with_a_profile():
    image = palette_of_colors()
    tagged = image.copy()
    tagged.info["icc_profile"] = P3
    same = image.copy()
    same.info["icc_profile"] = SRGB
    expected = p3_as_srgb(np.asarray(image))
    assert np.abs(np.asarray(load_image(tagged)) - expected).max() < 3
    assert np.abs(np.asarray(load_image(image_bytes(tagged))) - expected).max() < 3
    assert tagged.info["icc_profile"] == P3  # the caller's image is not touched
    assert load_image(same).tobytes() == load_image(image).tobytes()
    assert pixels_digest(image) == pixels_digest(same) == image_digest(image)
    assert pixels_digest(tagged) != pixels_digest(image)


def test_only_photos_that_are_decoded_differently_have_another_digest(tmp_path):
    image = palette_of_colors()
    floats = Image.fromarray(np.zeros((2, 2), np.float32))
    mpo = encoded(image, "MPO", save_all=True, append_images=[image])
    ordinary = [encoded(image, form, **options) for form, options in FORMS]
    ordinary += [encoded(image, icc_profile=SRGB), encoded(image.convert("CMYK"), "TIFF"), b"text"]
    for content in ordinary:
        assert pixels_digest(content) == image_digest(content)
    changed = [encoded(image, form, icc_profile=P3, **options) for form, options in FORMS]
    changed += [encoded(floats, "TIFF"), mpo]
    for content in changed:
        assert pixels_digest(content) != image_digest(content)
        (tmp_path / "photo").write_bytes(content)
        assert pixels_digest(tmp_path / "photo") == pixels_digest(content)


# --- levels


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.25, 0.5, 1.0], [0, 64, 128, 255]),
        ([0, 0.1, 0.2, 0.4], [0, 26, 51, 102]),
        ([0.0, 64.0, 128.0, 255.0], [0, 64, 128, 255]),
        ([0.0, 64.5, 128.0, 200.0], [0, 65, 128, 200]),
        ([0.0, 257.0, 32896.0, 65535.0], [0, 1, 128, 255]),
        ([0.5] * 300 + [7.5, 40.0], [128] * 300 + [255, 255]),  # HDR
        ([0.0, 5e8, 1e9], [0, 128, 255]),
        ([-1.0, 0.0, 0.5, 1.0], [0, 0, 128, 255]),
        ([-300.0, 0.0, 100.0, 200.0], [0, 0, 100, 200]),
        ([np.nan, 0.0, 0.5, 1.0], [0, 0, 128, 255]),
        ([np.inf, -np.inf, 0.5, 1.0], [255, 0, 128, 255]),
        ([np.inf, np.nan, 128.0, 255.0], [255, 0, 128, 255]),
        ([np.nan] * 3, [0, 0, 0]),
        ([np.inf] * 3, [255, 255, 255]),
        ([-5.0, -1.0], [0, 0]),
        ([0.0] * 4, [0] * 4),
        ([3.4e38, 0.0, 1.7e38], [255, 0, 128]),
    ],
)
@pytest.mark.parametrize("compression", [None, "tiff_deflate"])
def test_floating_point_tiff(values, expected, compression):
    array = np.array([values], np.float32)
    content = encoded(Image.fromarray(array), "TIFF", compression=compression)
    assert np.asarray(load_image(content))[0, :, 1].tolist() == expected
    assert np.asarray(load_image(Image.fromarray(array)))[0, :, 0].tolist() == expected


def test_integer_tiff():
    for values, expected in (
        ([0, 128, 255], [0, 128, 255]),
        ([0, 1, 1], [0, 1, 1]),
        ([0, 32896, 65535], [0, 128, 255]),
        ([0, 1_000_000, 2_000_000], [0, 128, 255]),
        ([-7, 0, 2**31 - 1], [0, 0, 255]),
    ):
        array = np.array([values], np.int32)
        content = encoded(Image.fromarray(array), "TIFF")
        assert np.asarray(load_image(content))[0, :, 0].tolist() == expected


def tiff(array, bits, sample_format, photometric=1):
    """An uncompressed little-endian TIFF of any number format."""
    height, width = array.shape[:2]
    channels = array.shape[2] if array.ndim == 3 else 1
    data = array.tobytes()
    after = 8 + len(data)
    numbers = struct.pack("<3H", *[bits] * 3) + struct.pack("<3H", *[sample_format] * 3)
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, bits if channels == 1 else after),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, 8),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
        (339, 3, channels, sample_format if channels == 1 else after + 6),
    ]
    table = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", after + 12) + data + numbers + table + bytes(4)


def test_unsigned_32_bit_tiff():
    array = np.array([[0, 2**31, 2**32 - 1]], np.uint32)
    photo = load_image(tiff(array, 32, 1))
    assert np.asarray(photo)[0, :, 0].tolist() == [0, 128, 255]


def test_16_bit_color_tiff():
    array = np.array([[[0, 257, 65535], [32896, 25700, 514]]], np.uint16)
    photo = load_image(tiff(array, 16, 1, photometric=2))
    assert np.abs(np.asarray(photo).astype(int) - [[0, 1, 255], [128, 100, 2]]).max() <= 1


def test_levels_keep_their_shape():
    assert levels(np.zeros((2, 3), np.float32)).shape == (2, 3)
    assert levels(np.zeros((0, 3), np.float32)).shape == (0, 3)

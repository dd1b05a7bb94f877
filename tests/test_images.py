"""Decoding photos, and errors for photos that cannot be read."""

import io
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from pairmatch.core.errors import ConfigurationError, ImageError
from pairmatch.io import images
from pairmatch.io.budget import Budget
from pairmatch.io.images import check_image, image_bytes, image_digest, image_size, load_image


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def corners(width=40, height=20):
    """Draws a white photo with a red top left corner."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, tmp_path):
    # The photo is stored rotated, so that the orientation tag makes it upright
    back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = corners() if back is None else corners().transpose(back)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.jpg"
    stored.save(path, quality=95, subsampling=0, exif=exif)
    for longest in (None, 20):
        upright = np.asarray(load_image(path, longest_side_px=longest)).astype(int)
        height, width = upright.shape[:2]
        assert (width, height) == ((40, 20) if longest is None else (20, 10))
        assert upright[2, 2, 1] < 60
        assert upright[-3, -3, 1] > 200
        assert upright[2, -3, 1] > 200
    assert image_size(path) == (40, 20)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8, 9])
def test_size_from_the_header_is_the_size_of_the_photo(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation  # 9 is undefined; Pillow rotates TIFF itself
    photo = encoded(corners(), form, exif=exif)
    assert (
        image_size(photo)
        == load_image(photo).size
        == ((20, 40) if 5 <= orientation <= 8 else (40, 20))
    )
    assert image_size(Image.open(io.BytesIO(photo))) == image_size(photo)


def test_an_orientation_that_is_not_a_number_is_ignored():
    tag = b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0six\0\0\0\0\0"  # tag 274 as text
    photo = encoded(corners(), "JPEG")
    segment = b"Exif\0\0" + tag
    photo = photo[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + photo[2:]
    assert Image.open(io.BytesIO(photo)).getexif()[0x0112] == "six"
    assert image_size(photo) == load_image(photo).size == (40, 20)


def test_cmyk_palette_alpha_and_16_bits():
    red = Image.new("RGB", (8, 8), (200, 30, 40))
    cmyk = load_image(encoded(red.convert("CMYK"), "JPEG", quality=100))
    assert cmyk.mode == "RGB"
    assert np.abs(np.asarray(cmyk).astype(int) - (200, 30, 40)).max() < 12
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert np.all(np.asarray(load_image(encoded(clear))) == 255)  # transparent black is white
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert np.all(np.abs(np.asarray(load_image(encoded(half))).astype(int) - 127) <= 1)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30] + [0] * 762)
    assert np.all(np.asarray(load_image(encoded(palette))) == (10, 200, 30))
    assert np.all(np.asarray(load_image(encoded(palette, transparency=1))) == 255)
    ramp = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert np.asarray(load_image(encoded(Image.fromarray(ramp))))[0, :, 0].tolist() == [
        0,
        1,
        128,
        255,
    ]


def test_transparency_is_rendered_on_white():
    for mode in ("LA", "PA", "RGBa", "La"):
        assert load_image(Image.new(mode, (3, 3))).getpixel((1, 1)) == (255, 255, 255)
    assert load_image(encoded(Image.new("1", (3, 3), 0), transparency=0)).getpixel((0, 0)) == (
        255,
        255,
        255,
    )
    assert load_image(encoded(Image.new("L", (3, 3), 7), transparency=7)).getpixel((0, 0)) == (
        255,
        255,
        255,
    )
    assert load_image(
        encoded(Image.new("RGB", (3, 3), (1, 2, 3)), transparency=(1, 2, 3))
    ).getpixel((0, 0)) == (
        255,
        255,
        255,
    )
    assert load_image(encoded(Image.new("P", (3, 3)), "GIF", transparency=0)).getpixel((0, 0)) == (
        255,
        255,
        255,
    )
    quarter = load_image(encoded(Image.new("RGBA", (3, 3), (255, 0, 0, 64)))).getpixel((0, 0))
    assert quarter == (255, 191, 191)  # 255 · (1 − 64/255)


def test_gray_levels_are_scaled_by_their_range():
    shades = np.array([[0, 128, 255]])
    for array in (
        shades.astype(np.int32),
        shades.astype(np.float32),
        shades.astype(np.int32) * 257,
    ):
        assert np.asarray(load_image(Image.fromarray(array)))[0, :, 0].tolist() == [0, 128, 255]
    big_endian = Image.frombytes("I;16B", (3, 1), (shades * 257).astype(">u2").tobytes())
    assert np.asarray(load_image(encoded(big_endian, "TIFF")))[0, :, 0].tolist() == [0, 128, 255]


def test_longest_side_is_exact_and_never_enlarges():
    photo = encoded(Image.new("RGB", (1000, 400)), "JPEG")
    assert load_image(photo, longest_side_px=300).size == (300, 120)
    assert load_image(photo, longest_side_px=3000).size == (1000, 400)
    assert load_image(Image.new("L", (10, 30)), longest_side_px=15).size == (5, 15)
    with pytest.raises(
        ConfigurationError, match=r"longest_side_px=\.\.\.\)` must be at least 1, got 0"
    ):
        load_image(photo, longest_side_px=0)


@pytest.mark.parametrize(
    "size", [(999, 333), (1500, 1001), (1001, 1500), (803, 801), (1600, 1599), (640, 8)]
)
def test_reduced_decoding_has_the_size_of_full_decoding(size):
    # JPEG is decoded at 1/2, 1/4 or 1/8, rounded up; the target depends on the full size
    blank = Image.new("RGB", size)
    turned = Image.Exif()
    turned[0x0112] = 6
    for longest in (10, 100, 128, 224, 333):
        expected = load_image(encoded(blank, "BMP"), longest_side_px=longest).size
        assert load_image(encoded(blank, "JPEG"), longest_side_px=longest).size == expected
        assert (
            load_image(encoded(blank, "JPEG", exif=turned), longest_side_px=longest).size
            == expected[::-1]
        )


def test_reduced_decoding_is_close_to_full_decoding():
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize(
        (1600, 1200), Image.Resampling.BICUBIC
    )
    photo = encoded(smooth, "JPEG", quality=92)
    fast = np.asarray(load_image(photo, longest_side_px=200)).astype(int)
    full = np.asarray(
        Image.open(io.BytesIO(photo)).convert("RGB").resize((200, 150), Image.Resampling.BICUBIC)
    ).astype(int)
    assert np.abs(fast - full).mean() < 1


def test_digest_depends_on_the_content():
    image = corners()
    changed = image.copy()
    changed.putpixel((0, 0), (254, 0, 0))
    assert image_digest(image) == image_digest(image.copy()) != image_digest(changed)
    assert image_digest(encoded(image)) != image_digest(encoded(changed))
    assert image_digest(b"x" * 10) == image_digest(b"x" * 10)
    assert load_image(image_bytes(image)).tobytes() == image.tobytes()
    rotated = image.copy()
    rotated.getexif()[0x0112] = 3
    assert image_digest(rotated) != image_digest(image)


@pytest.mark.parametrize(
    "mode",
    [
        "1",
        "L",
        "LA",
        "P",
        "PA",
        "RGB",
        "RGBA",
        "RGBa",
        "RGBX",
        "CMYK",
        "YCbCr",
        "LAB",
        "HSV",
        "I",
        "F",
        "I;16",
    ],
)
def test_bytes_of_pil_images_of_every_mode_show_the_same_photo(mode):
    image = Image.new(mode, (5, 3))
    assert np.array_equal(np.asarray(load_image(image_bytes(image))), np.asarray(load_image(image)))


def test_bytes_of_a_pil_image_are_upright():
    image = corners()
    image.getexif()[0x0112] = 6
    assert (
        load_image(image_bytes(image)).size
        == load_image(image).size
        == image_size(image)
        == (20, 40)
    )
    assert load_image(image_bytes(image)).tobytes() == load_image(image).tobytes()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL.*")
def test_every_decoder_error_names_the_photo(form):
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    rng = np.random.default_rng(0)
    whole = encoded(Image.fromarray(rng.integers(0, 255, (20, 40, 3), np.uint8)), form)
    assert check_image(whole) is None
    broken = [whole[:end] for end in np.linspace(1, len(whole) - 1, 60).astype(int)]
    for _ in range(100):
        content = bytearray(whole)
        content[rng.integers(len(whole))] ^= 0xFF
        broken.append(bytes(content))
    reported = [check_image(content) for content in broken]  # does not raise
    assert any(reported[:60])
    for content in broken:
        with suppress(ImageError):  # other errors fail the test
            image_size(content)
    for content, problem in zip(broken, reported, strict=True):
        assert problem is None or problem.startswith(f"a photo of {len(content)} bytes: ")


def test_truncated_pil_images_are_reported():
    content = encoded(Image.effect_noise((64, 64), 50), "JPEG")[:900]
    for read in (load_image, image_bytes, image_digest):
        with pytest.raises(ImageError, match="a PIL image: the photo is truncated or damaged"):
            read(Image.open(io.BytesIO(content)))


def test_memory_errors_are_not_reported_as_damaged_photos(monkeypatch):
    def exhausted(self):
        raise MemoryError

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", exhausted)
    with pytest.raises(MemoryError):
        load_image(encoded(corners()))


def test_unreadable_photos_are_named(tmp_path):
    cases = {
        "missing.jpg": (None, "No such file"),
        "empty.jpg": (b"", "the file is empty"),
        "text.jpg": (b"hello, I am not a photo", "not a photo in a format"),
        "cut.jpg": (
            encoded(Image.effect_noise((64, 64), 50), "JPEG")[:900],
            "truncated or damaged",
        ),
        "cut.png": (encoded(Image.effect_noise((64, 64), 50))[:900], "truncated or damaged"),
    }
    for name, (content, reason) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=rf"{name}: .*{reason}"):
            load_image(tmp_path / name)
        assert name in check_image(tmp_path / name)
    with pytest.raises(ImageError, match="a photo of 23 bytes: not a photo"):
        load_image(cases["text.jpg"][0])
    with pytest.raises(ImageError, match=r"folder"):
        load_image(tmp_path / "folder")
    with pytest.raises(ImageError, match="null byte"):
        load_image("a\0.jpg")
    for read in (image_bytes, image_digest, image_size, load_image):
        with pytest.raises(ImageError, match="a photo of 0 bytes: the file is empty"):
            read(b"")
    assert check_image(corners()) is None


def test_decompression_bombs_are_rejected(monkeypatch, tmp_path):
    monkeypatch.setattr(images, "MAX_PIXELS", 500)
    path = tmp_path / "bomb.png"
    corners(40, 20).save(path)
    with pytest.raises(
        ImageError, match=r"bomb.png: 40 × 20 pixels, more than 500; shrink it first"
    ):
        load_image(path)
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 100
    )  # Pillow's limit, which larger files exceed first
    with pytest.raises(ImageError, match="more than 500 pixels; shrink it first"):
        load_image(path)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG"])
def test_pixels_are_counted_before_decoding(form, monkeypatch):
    photo = encoded(Image.new("L", (3000, 2000)), form)
    monkeypatch.setattr(images, "MAX_PIXELS", 5_000_000)
    decoded = []
    monkeypatch.setattr(Image.Image, "load", lambda self: decoded.append(self))
    with pytest.raises(ImageError, match="3000 × 2000 pixels, more than 5,000,000"):
        load_image(photo)
    if form == "WEBP":  # its decoder allocates the photo when it is opened
        assert not decoded


def test_tiles_larger_than_the_photo_are_counted():
    content = encoded(Image.new("L", (32, 32)), "TIFF", compression="tiff_deflate")
    start = int.from_bytes(content[4:8], "little")
    count = int.from_bytes(content[start : start + 2], "little")
    entries = content[start + 2 : start + 2 + 12 * count]
    tiles = b"".join(
        tag.to_bytes(2, "little") + b"\x04\0\x01\0\0\0" + (40_000).to_bytes(4, "little")
        for tag in (322, 323)
    )
    table = (count + 2).to_bytes(2, "little") + entries + tiles + bytes(4)
    bomb = content[:4] + len(content).to_bytes(4, "little") + content[8:] + table
    with pytest.raises(ImageError, match="40000 × 40000 pixels, more than 100,000,000"):
        load_image(bomb)


def test_photos_under_way_share_a_budget(monkeypatch):
    photo = encoded(Image.new("RGB", (100, 100)), "TIFF", compression="tiff_deflate")
    monkeypatch.setattr(images, "_BUDGET", Budget(2 * 100 * 100 * 12))
    lock = Lock()
    under_way = [0, 0]
    finish = images._finished

    def watched(*arguments):
        with lock:
            under_way[0] += 1
            under_way[1] = max(under_way)
        result = finish(*arguments)
        with lock:
            under_way[0] -= 1
        return result

    monkeypatch.setattr(images, "_finished", watched)
    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(check_image, [photo] * 100))
        assert under_way[1] <= 2
        # A photo that exceeds the budget is decoded alone
        large = encoded(Image.new("RGB", (300, 300)), "PNG")
        assert not any(pool.map(check_image, [photo, large] * 20))


def test_one_photo_of_an_animation_is_decoded():
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "blue", "green")]
    for form in ("GIF", "PNG", "WEBP", "TIFF"):
        photo = encoded(frames[0], form, save_all=True, append_images=frames[1:])
        assert load_image(photo).size == image_size(photo) == (20, 10)
        assert np.abs(np.asarray(load_image(photo)).astype(int) - (255, 0, 0)).max() < 4


@pytest.mark.parametrize("size", [(100_000, 1), (1, 100_000), (1, 1), (65_500, 2)])
def test_photos_of_extreme_shapes(size):
    for form in ("PNG", "JPEG", "TIFF"):
        if form != "JPEG" or max(size) < 65_501:
            photo = encoded(Image.new("RGB", size, (9, 99, 200)), form)
            longest = max(size)
            for side in (1, 7, 224):
                small = load_image(photo, longest_side_px=side)
                assert max(small.size) == min(side, longest)
                assert min(small.size) >= 1
            assert image_size(photo) == load_image(photo).size == size


def test_the_limit_of_pillow_is_not_used(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # Pillow would warn above this limit
    assert load_image(encoded(corners(40, 20))).size == (40, 20)
    assert image_size(encoded(corners(40, 20))) == (40, 20)

    def bomb(self):
        raise Image.DecompressionBombError("a frame of many pixels")

    monkeypatch.setattr(
        PngImagePlugin.PngImageFile, "load", bomb
    )  # like icons, whose size is known only after decoding
    with pytest.raises(ImageError, match=r"a photo of .* bytes: a frame of many pixels"):
        load_image(encoded(corners(40, 20)))


def test_threads_do_not_change_the_warning_filters(monkeypatch):
    # Filters are global: without a lock, threads would restore each other's filters
    photo = encoded(corners(2, 2))
    before = list(warnings.filters)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert not any(pool.map(check_image, [photo] * 2000))
    finally:
        sys.setswitchinterval(interval)
    assert warnings.filters == before

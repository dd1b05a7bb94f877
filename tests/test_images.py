"""Photos as people see them, and every kind of photo that cannot be read."""

import io

import numpy as np
import pytest
from PIL import Image

from pairmatch import images
from pairmatch.errors import ImageError
from pairmatch.images import check_image, image_bytes, image_digest, image_size, load_image


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def corners(width=40, height=20):
    """Red at the top left, white elsewhere."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, tmp_path):
    # Store the photo turned so that the orientation tag turns it back upright
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


def test_cmyk_palette_alpha_and_16_bits():
    red = Image.new("RGB", (8, 8), (200, 30, 40))
    cmyk = load_image(encoded(red.convert("CMYK"), "JPEG", quality=100))
    assert cmyk.mode == "RGB"
    assert np.abs(np.asarray(cmyk).astype(int) - (200, 30, 40)).max() < 12
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert np.all(np.asarray(load_image(encoded(clear))) == 255)  # transparent black shows white
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert np.all(np.abs(np.asarray(load_image(encoded(half))).astype(int) - 127) <= 1)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30] + [0] * 762)
    assert np.all(np.asarray(load_image(encoded(palette))) == (10, 200, 30))
    assert np.all(np.asarray(load_image(encoded(palette, transparency=1))) == 255)
    ramp = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert np.asarray(load_image(encoded(Image.fromarray(ramp))))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_longest_side_is_exact_and_never_enlarges():
    photo = encoded(Image.new("RGB", (1000, 400)), "JPEG")
    assert load_image(photo, longest_side_px=300).size == (300, 120)
    assert load_image(photo, longest_side_px=3000).size == (1000, 400)
    assert load_image(Image.new("L", (10, 30)), longest_side_px=15).size == (5, 15)


def test_reduced_decoding_gives_nearly_the_full_decoding():
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize((1600, 1200), Image.Resampling.BICUBIC)
    photo = encoded(smooth, "JPEG", quality=92)
    fast = np.asarray(load_image(photo, longest_side_px=200)).astype(int)
    full = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB").resize((200, 150), Image.Resampling.BICUBIC)).astype(
        int
    )
    assert np.abs(fast - full).mean() < 1


def test_digest_is_content():
    one = corners()
    other = one.copy()
    other.putpixel((0, 0), (254, 0, 0))
    assert image_digest(one) == image_digest(one.copy()) != image_digest(other)
    assert image_digest(encoded(one)) != image_digest(encoded(other))
    assert image_digest(b"x" * 10) == image_digest(b"x" * 10)
    assert load_image(image_bytes(one)).tobytes() == one.tobytes()
    turned = one.copy()
    turned.getexif()[0x0112] = 3
    assert image_digest(turned) != image_digest(one)


def test_what_cannot_be_read_is_named(tmp_path):
    cases = {
        "missing.jpg": (None, "No such file"),
        "empty.jpg": (b"", "the file is empty"),
        "text.jpg": (b"hello, I am no photo at all", "not a photo in a format"),
        "cut.jpg": (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:900], "truncated or damaged"),
        "cut.png": (encoded(Image.effect_noise((64, 64), 50))[:900], "truncated or damaged"),
    }
    for name, (content, reason) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=rf"{name}: .*{reason}"):
            load_image(tmp_path / name)
        assert name in check_image(tmp_path / name)
    with pytest.raises(ImageError, match="a photo of 27 bytes: not a photo"):
        load_image(cases["text.jpg"][0])
    with pytest.raises(ImageError, match=r"folder"):
        load_image(tmp_path / "folder")
    assert check_image(corners()) is None


def test_decompression_bombs_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(images, "MAX_PIXELS", 500)
    path = tmp_path / "bomb.png"
    corners(40, 20).save(path)
    with pytest.raises(ImageError, match=r"bomb.png: 40 × 20 pixels, more than 500; shrink it first"):
        load_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own limit, met first by far larger files
    with pytest.raises(ImageError, match="more than 500 pixels; shrink it first"):
        load_image(path)

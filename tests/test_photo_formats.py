"""Formats by content: which files are decoded, and that no file starts a program."""

import io
import os
import subprocess
import tempfile

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, features

from pairmatch.core.errors import ImageError
from pairmatch.io import images
from pairmatch.io.images import check_image, image_bytes, image_digest, image_size, load_image
from pairmatch.io.photo_formats import content_format, decoded_formats, photo_format


def encoded(form, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.new(mode, (20, 10), 40).save(buffer, form, **options)
    return buffer.getvalue()


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
METAFILE = b"\xd7\xcd\xc6\x9a\0\0\0\0\0\0\x09\0\x09\0\x60\0\0\0\0\0\0\0\x01\0\x09\0\0\x03" + bytes(
    99
)
REFUSED = {
    "PostScript (EPS)": POSTSCRIPT,
    "PDF": b"%PDF-1.7\n1 0 obj\n",
    "Windows metafile (WMF)": METAFILE,
    "Windows metafile (EMF)": b"\x01\0\0\0" + bytes(36) + b" EMF" + bytes(64),
    "FITS image": b"SIMPLE  =                    T" + bytes(3000),
    "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "Photoshop document (PSD)": b"8BPS\0\x01" + bytes(20),
    "video": b"\0\0\0\x18ftypisom\0\0\0\0isommp42",
    "HTML": b"<!DOCTYPE html><html>404</html>",
    "an archive": b"PK\x03\x04" + bytes(30),
    "JPEG XL": b"\xff\x0a" + bytes(30),
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("suffix", ["jpg", "png", "eps"])
def test_files_that_are_no_photos_are_refused_by_content(name, suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(REFUSED[name])
    assert photo_format(path) is None
    assert content_format(path) == content_format(REFUSED[name]) == name
    for read in (load_image, image_size):
        with pytest.raises(ImageError, match=r"not a photo in a format that pairmatch reads") as e:
            read(path)
        assert f"looks like {name}" in str(e.value)
    assert check_image(REFUSED[name]).startswith("a photo of ")


def test_heic_names_the_two_ways_out():
    with pytest.raises(ImageError, match="convert it to JPEG, or install pillow-heif"):
        load_image(REFUSED["HEIC"])


def test_a_registered_heic_opener_is_used(monkeypatch):
    def factory(file, filename=None):
        return Image.open(io.BytesIO(encoded("PNG")))

    monkeypatch.setitem(Image.OPEN, "HEIF", (factory, lambda prefix: b"ftypheic" in prefix))
    assert load_image(REFUSED["HEIC"]).size == (20, 10)
    assert photo_format(REFUSED["HEIC"]) == "HEIF"


@pytest.mark.parametrize("content", [POSTSCRIPT, b"\xc5\xd0\xd3\xc6" + bytes(26) + POSTSCRIPT])
def test_no_photo_starts_a_program(content, tmp_path, monkeypatch):
    started = []
    (tmp_path / "x.jpg").write_bytes(content)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: started.append(a))
    for read in (load_image, image_size, image_bytes, image_digest):
        for source in (tmp_path / "x.jpg", str(tmp_path / "x.jpg"), content):
            try:
                read(source)
            except ImageError:
                assert read in (load_image, image_size)
    # An image that the caller opened is decoded only when it is used
    for lazy in (Image.open(io.BytesIO(content)),) if content[:1] == b"%" else ():
        for read in (load_image, image_bytes, image_digest):
            with pytest.raises(ImageError, match="PostScript is not decoded"):
                read(lazy)
    assert not started
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("form", decoded_formats())
def test_photos_are_recognized_by_content_whatever_their_name(form, tmp_path):
    if not features.check(
        {"AVIF": "avif", "WEBP": "webp", "JPEG2000": "jpg_2000"}.get(form, "pil")
    ):
        pytest.skip(f"this Pillow writes no {form}")
    path = tmp_path / "photo.txt"
    path.write_bytes(encoded(form))
    assert photo_format(path) == photo_format(str(path)) == photo_format(encoded(form)) == form
    assert load_image(path).size == image_size(path) == (20, 10)
    assert photo_format(encoded(form)[:64]) == form  # damaged, but a photo


def test_variants_of_formats_are_recognized():
    assert photo_format(encoded("TIFF", big_tiff=True)) == "TIFF"
    assert photo_format(encoded("PPM", "L")) == photo_format(encoded("PPM", "1")) == "PPM"
    assert photo_format(b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiaf") == "AVIF"
    assert content_format(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic") == "HEIC"
    for text in (b"", b"B", b"BMW for sale", b"P1 is my seat", b"II*", b"GIF89", b"id,image,text"):
        assert photo_format(text) is None


def test_damaged_photos_are_not_called_other_files():
    with pytest.raises(ImageError, match="the PNG data is truncated or damaged"):
        load_image(encoded("PNG")[:12])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_devices_and_huge_files_are_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(40_000_000_000)
    for name, reason in (
        ("pipe.jpg", "not a regular file"),
        ("link.jpg", "not a regular file"),
        ("folder.jpg", "Is a directory"),
        ("sparse.jpg", "the file has 40,000,000,000 bytes, more than 200,000,000"),
    ):
        for read in (load_image, image_size, image_bytes, image_digest):
            with pytest.raises(ImageError, match=rf"{name}: {reason}"):
                read(tmp_path / name)
    for name in ("pipe.jpg", "link.jpg", "folder.jpg"):
        with pytest.raises(ImageError, match=name):
            photo_format(tmp_path / name)
    assert photo_format(tmp_path / "sparse.jpg") is None
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 10)
    with pytest.raises(ImageError, match="a photo of 11 bytes: more than 10 bytes"):
        load_image(bytes(11))


def test_digests_of_files_and_bytes_agree(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(np.random.default_rng(0).bytes(300_000))
    assert image_digest(path) == image_digest(path.read_bytes())

"""Folders of photos: what is a photo, what is skipped, and that what is skipped is said."""

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from pairmatch import Pairs
from pairmatch.core.errors import DataError
from pairmatch.data import read_profiles


def photo(name="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 90, 10)).save(buffer, name)
    return buffer.getvalue()


def fill(folder, *names, content=None):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo() if content is None else content)


def ids(folder, **options):
    return [profile.id for profile in read_profiles(folder, **options)]


JUNK = [
    ".ipynb_checkpoints/a.jpg",
    ".thumbnails/normal/a.png",
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
    "__MACOSX/._a.jpg",
    "._a.jpg",
    ".hidden.jpg",
    ".Trash-1000/files/a.jpg",
    "$RECYCLE.BIN/a.jpg",
    "System Volume Information/a.jpg",
    "#recycle/a.jpg",
    "lost+found/a.jpg",
    "sub/@eaDir/a.jpg",
    "sub/a.jpg~",
    "Thumbs.db",
    "desktop.ini",
    "Thumbnails/a.jpg",
    "a.jpg.tmp",
    "b.jpg.crdownload",
    "sub/a.jpg.part",
]


@pytest.mark.parametrize("name", JUNK)
def test_hidden_and_system_files_are_skipped(name, tmp_path, caplog):
    fill(tmp_path, "a.jpg", "b/a.jpg", name)
    assert ids(tmp_path) == ["a", "b/a"]
    assert caplog.messages[0].startswith(
        f"{tmp_path}: skipped 1 hidden, system or unfinished files and folders, such as "
    )


def test_a_folder_inside_a_hidden_one_can_be_read(tmp_path):
    fill(tmp_path, ".cache/photos/a.jpg")
    assert ids(tmp_path / ".cache" / "photos") == ["a"]


def test_photos_are_recognized_by_content(tmp_path, caplog):
    fill(tmp_path, "a.jfif", "b", "c.smith", "d.JPG", "e.jpg.bak")
    fill(tmp_path, "f.jp2", content=photo("JPEG2000"))
    fill(tmp_path, "g.unknown", content=photo("WEBP"))
    fill(tmp_path, "h.ppm", content=photo("PPM"))
    fill(tmp_path, "notes.txt", content=b"P1 30 years old")
    fill(tmp_path, "people.csv", content=b"id,image\n")
    fill(tmp_path, "logo.eps", content=b"%!PS-Adobe-3.0 EPSF-3.0\n")
    assert ids(tmp_path) == ["a", "b", "c.smith", "d", "e.jpg.bak", "f", "g.unknown", "h.ppm"]
    assert caplog.messages == [
        f"{tmp_path}: skipped 3 files that are not photos, such as 'logo.eps'."
    ]


@pytest.mark.parametrize("check_images", [True, False])
@pytest.mark.parametrize("name", ["a.heic", "IMG_1", "b.HEIF", "c.jpg"])
def test_photos_that_cannot_be_read_are_reported(name, check_images, tmp_path):
    fill(tmp_path, "anna.jpg")
    fill(tmp_path, name, content=b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50))
    with pytest.raises(DataError, match=f"{name}: not a photo in a format .* looks like HEIC"):
        read_profiles(tmp_path, check_images=check_images)


def test_a_damaged_photo_is_reported(tmp_path):
    fill(tmp_path, "a.heic", content=b"nothing")
    fill(tmp_path, "b.jpg")
    with pytest.raises(DataError, match=r"a\.heic: not a photo in a format that pairmatch reads"):
        read_profiles(tmp_path)


def test_an_empty_folder_says_what_was_skipped(tmp_path):
    fill(tmp_path, ".hidden/a.jpg", "@eaDir/b.jpg")
    with pytest.raises(
        DataError, match=r"no photos .*; skipped 2 hidden, system or unfinished files"
    ):
        read_profiles(tmp_path)


def test_file_names_that_are_not_utf_8_are_refused(tmp_path):
    fill(tmp_path, "a.jpg")
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(photo())
    with pytest.raises(DataError) as caught:
        read_profiles(tmp_path)
    assert caught.value.problems == (
        f"{tmp_path}/caf\\udce9.jpg: the file name is not UTF-8, so it cannot be an id; rename it.",
    )


def test_ids_are_in_one_normal_form(tmp_path):
    fill(tmp_path, "Jose\u0301.jpg")
    assert ids(tmp_path) == ["José"]
    fill(tmp_path, "José.jpg")
    with pytest.raises(DataError, match="differs from that of another photo only in its Unicode"):
        read_profiles(tmp_path)


def test_a_link_to_nowhere_matters_only_if_it_claims_to_be_a_photo(tmp_path, caplog):
    fill(tmp_path, "a.jpg")
    (tmp_path / "notes.txt").symlink_to("gone.txt")
    assert ids(tmp_path) == ["a"]
    assert "1 files that are not photos, such as 'notes.txt'" in caplog.text
    (tmp_path / "b.jpg").symlink_to("gone.jpg")
    with pytest.raises(DataError, match=r"b\.jpg: the link leads nowhere"):
        ids(tmp_path)


def test_links_to_folders_are_followed_on_request(tmp_path, caplog):
    fill(tmp_path, "photos/a.jpg", "elsewhere/b.jpg")
    photos = tmp_path / "photos"
    (photos / "more").symlink_to(tmp_path / "elsewhere")
    (photos / "loop").symlink_to(photos)
    (photos / "c.jpg").symlink_to(tmp_path / "elsewhere" / "b.jpg")
    assert ids(photos) == ["a", "c"]
    assert caplog.messages == [
        f"{photos}: skipped 2 linked folders (follow_links=True, --follow-links, reads them), such "
        "as 'loop'."
    ]
    assert ids(photos, follow_links=True) == ["a", "c", "more/b"]
    for name in ("z", "b", "again"):  # several links to one folder: the first name counts
        (photos / name).symlink_to(tmp_path / "elsewhere")
    assert ids(photos, follow_links=True) == ["a", "again/b", "c"]
    (photos / "d.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match=r"d\.jpg: the link leads nowhere"):
        read_profiles(photos)


def test_the_working_folder_is_named_in_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(f"{name}.png")
    Path("pairs.csv").write_text("id_a,image_a,id_b,image_b\na,a.png,b,b.png\nc,gone.png,d,b.png\n")
    with pytest.raises(DataError, match=r"'gone\.png' does not exist in the working folder\."):
        Pairs.read("pairs.csv", images=".")

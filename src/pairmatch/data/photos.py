"""Photos in tables: resolving their paths and checking their content."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.progress import map_in_threads
from pairmatch.core.text import has_surrogates
from pairmatch.io.images import check_image
from pairmatch.io.photo_notices import grouped_notices
from pairmatch.io.remote import (
    SCHEMES,
    is_web_address,
    joined_url,
    remote_url,
    web_address,
)


@dataclass(frozen=True, slots=True)
class PhotoOptions:
    """How photos are found and checked.

    Attributes:
        folder: Image folder, or its URL: paths are relative to it and must not leave it.
        follow_links: Whether links may lead out of the image folder.
        check_images: Whether to decode every photo, to make sure that it can be read.
        progress: Whether to show a progress bar.
    """

    folder: Path | str
    follow_links: bool = False
    check_images: bool = True
    progress: bool = False


def image_folder(images: str | Path) -> Path | str:
    """The image folder that a user names: a path, or the URL of a folder in cloud storage.

    Raises:
        ConfigurationError: It is a web address.
    """
    if is_web_address(images):
        raise ConfigurationError(
            f"`images` (--images) {web_address(images)!r} is a web address, whose photos may "
            f"change: copy the photos to a folder or to cloud storage ({', '.join(SCHEMES)})."
        )
    return remote_url(images) or Path(images)


PhotoCell = object  # paths separated by `;` (a number is a name, too), or a tuple of paths


def normalize_photo_cell(cell: PhotoCell) -> tuple[str, ...]:
    """Every path of a cell in its shortest spelling: `./anna.jpg` is `anna.jpg`."""
    names = (remote_url(name) or str(PurePath(name)) for name in _photo_names(cell))
    return tuple(unicodedata.normalize("NFC", name) for name in names)


@dataclass(frozen=True, slots=True)
class NamedPhoto:
    """A photo that a cell names.

    Attributes:
        name: Path in the cell.
        path: Path to the file, or its URL.
        problem: Why it cannot be used; blank if it is a file inside the image folder.
    """

    name: str
    path: Path | str
    problem: str = ""


def find_photos(cell: PhotoCell, options: PhotoOptions) -> list[NamedPhoto]:
    """The photos that a cell names, with the problems of those that cannot be used."""
    photos = []
    for name in _photo_names(cell):
        if has_surrogates(name):  # the table reports it
            continue
        if is_web_address(name):
            photos.append(NamedPhoto(name, name, _web_address(name)))
            continue
        if isinstance(options.folder, str):
            photos.append(_remote_photo(name, options.folder))
            continue
        path = _existing(options.folder, name)
        problem = _photo_problem(name, path, options.folder, follow_links=options.follow_links)
        photos.append(NamedPhoto(name, path, problem))
    return photos


def _remote_photo(name: str, folder: str) -> NamedPhoto:
    """A photo in cloud storage; whether it is there is seen when it is read."""
    url = joined_url(folder, name)
    if url is None:
        return NamedPhoto(name, name, f"{name!r} leaves the image folder {folder}.")
    return NamedPhoto(name, url)


def wrong_folder(
    photos: Sequence[NamedPhoto], options: PhotoOptions, table_folder: Path
) -> str | None:
    """The one problem of photos none of which exists: the image folder; None if it is right.

    Args:
        photos: All photos that a table names.
        options: How they were found.
        table_folder: Folder of the table.
    """
    if isinstance(options.folder, str):
        return None
    missing = [photo for photo in photos if photo.problem == _missing(photo.name, options.folder)]
    if len(missing) < max(2, len(photos)):
        return None
    first = missing[0].name
    hint = f" The first is {first!r}."
    inner = Path(*PurePath(first).parts[1:])
    if (table_folder / first).is_file():
        hint += f" It is in {table_folder}: leave `images` (--images) out."
    elif inner.parts and (options.folder / inner).is_file():
        hint += f" {str(inner)!r} is there: `images` (--images) must be the folder above."
    else:
        hint += " Name the folder that paths are relative to with `images` (--images)."
    return f"none of the {len(photos):,} photos exists in {options.folder}.{hint}"


def _photo_names(cell: PhotoCell) -> list[str]:
    parts = cell if isinstance(cell, tuple) else str(cell).split(";")
    return [name for name in (part.strip() for part in parts) if name]


def _existing(folder: Path, name: str) -> Path:
    """Path to a photo; its name on the disk may have another Unicode normal form."""
    path = folder / name
    if name.isascii() or os.path.lexists(path):
        return path
    found = folder
    for part in PurePath(name).parts:
        spellings = [part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD"))]
        found = next(
            (found / spelling for spelling in spellings if os.path.lexists(found / spelling)),
            found / part,
        )
    return found if os.path.lexists(found) else path


def _photo_problem(name: str, path: Path, folder: Path, *, follow_links: bool) -> str:
    """Why a path cannot be used; blank if it names a file inside the image folder."""
    if remote_url(name) is not None and not path.exists():
        return (
            f"{name!r} is a URL, and the image folder is {folder}: name the URL of the folder with "
            "`images` (--images)."
        )
    try:
        if Path(name).is_absolute() or PurePath(os.path.normpath(name)).parts[:1] == ("..",):
            return f"{name!r} leaves the image folder {folder}."
        if not follow_links and not path.resolve().is_relative_to(folder.resolve()):
            return (
                f"{name!r} leaves the image folder {folder} through a link. Allow links with "
                "follow_links=True (--follow-links)."
            )
        if path.is_file():
            return ""
        if path.is_dir():
            return f"{name!r} is a folder in {folder}."
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL byte, a loop of links
        reason = getattr(error, "strerror", None) or error
        return f"{name[:60]!r} cannot be opened ({reason})."
    return _missing(name, folder)


def _web_address(name: str) -> str:
    return (
        f"{name!r} is a web address: pairmatch reads photos from disk or cloud storage and does "
        "not download web addresses. Download the photo, and write its path."
    )


def _missing(name: str, folder: Path) -> str:
    shown = "the working folder" if str(folder) == "." else str(folder)
    return f"{name!r} does not exist in {shown}."


def broken_photos(files: Sequence[Path | str], *, progress: bool) -> dict[Path | str, str]:
    """Decodes photos; returns the problem of each one that cannot be read."""
    with grouped_notices():
        problems = map_in_threads(check_image, files, "Checking photos", shown=progress)
    return {
        file: problem for file, problem in zip(files, problems, strict=True) if problem is not None
    }

"""Folders of photos, one per person: what is a photo, and what is skipped."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pairmatch.core.errors import DataError, ImageError
from pairmatch.core.text import has_surrogates, printable
from pairmatch.core.types import Profile
from pairmatch.data.photos import PhotoOptions, broken_photos
from pairmatch.io.images import SUFFIXES, check_image
from pairmatch.io.photo_formats import content_format, photo_format

_log = logging.getLogger(__name__)
#: What systems, file servers and programs leave in folders, besides names that start with a dot.
_SYSTEM_NAMES = frozenset(
    {
        *("__macosx", "__pycache__", "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini"),
        *("network trash folder", "temporary items", "_vti_cnf"),
        *("thumbnails", "_thumbnails", "thumbs", "_thumbs"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000"),
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "@__thumb", "#recycle", "#snapshot"),
    }
)
#: Of downloads and copies that were not finished.
_UNFINISHED_SUFFIXES = (".tmp", ".part", ".partial", ".filepart", ".crdownload", ".download")
_PHOTO_SUFFIXES = SUFFIXES | {
    *(".jfif", ".jpe", ".pjpeg", ".pjp", ".jp2", ".j2k", ".jpx", ".jpf", ".apng", ".dib"),
    *(".heic", ".heif", ".hif", ".jxl"),
}
_ANYMAP_SUFFIXES = frozenset((".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ""))
_UNREAD_PHOTOS = ("HEIC", "JPEG XL", "camera raw file (CR3)", "camera raw file (RAF)")
_HIDDEN = "hidden, system or unfinished files and folders"
_LINKS = "linked folders (follow_links=True, --follow-links, reads them)"
_OTHERS = "files that are not photos"


@dataclass(slots=True)
class _Contents:
    """Files of a folder and its subfolders.

    Attributes:
        photos: Files that are photos, or claim to be.
        skipped: Names of skipped files and folders, by reason.
        problems: Messages about files and folders that cannot be used.
    """

    photos: list[Path] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def skip(self, reason: str, name: str) -> None:
        self.skipped.setdefault(reason, []).append(name)

    def summary(self) -> str:
        """What was skipped: `3 files that are not photos, such as 'notes.txt'`."""
        return "; ".join(
            f"{len(names):,} {reason}, such as {min(names)!r}"
            for reason, names in self.skipped.items()
        )


def read_photo_folder(options: PhotoOptions) -> list[Profile]:
    """One profile per photo of a folder and its subfolders, in the order of their paths.

    Photos are recognized by their content. The id is the path without its extension, or with it if
    another photo has the same one. Hidden and system files are skipped, and so are files that are
    not photos; what is skipped is logged.

    Raises:
        DataError: The folder holds no photos, or some cannot be read.
    """
    folder = Path(options.folder)
    contents = _list(folder, options.follow_links)
    skipped = contents.summary()
    if skipped:
        _log.warning("%s: skipped %s.", printable(str(folder)), skipped)
    if not contents.photos and not contents.problems:
        formats = ", ".join(sorted(SUFFIXES))
        suffix = f"; skipped {skipped}" if skipped else ""
        raise DataError(f"{folder}: the folder holds no photos ({formats}){suffix}.")
    files = sorted(contents.photos)
    problems = [*contents.problems, *_name_problems(folder, files)]
    if options.check_images:
        problems += broken_photos(files, progress=options.progress).values()
    if problems:
        raise DataError(f"{folder}: {len(problems)} photos cannot be read:", problems)
    return [
        Profile(person, (file,)) for person, file in zip(_ids(folder, files), files, strict=True)
    ]


def _list(folder: Path, follow_links: bool) -> _Contents:
    contents = _Contents()
    visited = {folder.resolve()}

    def report(error: OSError) -> None:
        contents.problems.append(f"{error.filename}: the folder cannot be read ({error.strerror}).")

    for root, folders, files in os.walk(folder, followlinks=follow_links, onerror=report):
        place = Path(root)
        for name in sorted(folders):
            path = place / name
            if _is_system_name(name):
                contents.skip(_HIDDEN, path.relative_to(folder).as_posix())
                folders.remove(name)
            elif path.is_symlink():
                if follow_links and path.resolve() not in visited:
                    visited.add(path.resolve())
                    continue
                if not follow_links:
                    contents.skip(_LINKS, path.relative_to(folder).as_posix())
                folders.remove(name)
        for name in files:
            _add(contents, folder, place / name)
    return contents


def _add(contents: _Contents, folder: Path, file: Path) -> None:
    """Adds a file to the photos, or to what was skipped."""
    name = file.relative_to(folder).as_posix()
    if _is_system_name(file.name):
        contents.skip(_HIDDEN, name)
        return
    if not file.exists() and file.suffix.lower() in _PHOTO_SUFFIXES:
        contents.problems.append(f"{file}: the link leads nowhere.")
        return
    if not file.is_file():
        contents.skip(_OTHERS, name)
        return
    try:
        kind = content_format(file)
    except ImageError as error:
        contents.problems.append(str(error))
        return
    suffix = file.suffix.lower()
    if kind in _UNREAD_PHOTOS and photo_format(file) is None:
        contents.problems.append(check_image(file) or f"{file}: {kind} is not read.")
    elif suffix in _PHOTO_SUFFIXES:
        contents.photos.append(file)
    elif kind == "PPM" and suffix not in _ANYMAP_SUFFIXES:  # a text may start with P1, too
        contents.skip(_OTHERS, name)
    elif photo_format(file):
        contents.photos.append(file)
    else:
        contents.skip(_OTHERS, name)


def _is_system_name(name: str) -> bool:
    # ~$a.jpg and a.jpg~ are what editors leave
    is_marked = name.startswith((".", "~$")) or name.endswith("~")
    lower = name.lower()
    return is_marked or lower in _SYSTEM_NAMES or lower.endswith(_UNFINISHED_SUFFIXES)


def _ids(folder: Path, files: Sequence[Path]) -> list[str]:
    names = [unicodedata.normalize("NFC", file.relative_to(folder).as_posix()) for file in files]
    stems = [
        name[: -len(file.suffix)] if file.suffix.lower() in _PHOTO_SUFFIXES else name
        for name, file in zip(names, files, strict=True)
    ]
    counts = Counter([*stems, *names])
    return [stem if counts[stem] == 1 else name for stem, name in zip(stems, names, strict=True)]


def _name_problems(folder: Path, files: Sequence[Path]) -> list[str]:
    """Problems of the names that become ids."""
    problems = [
        f"{printable(str(file))}: the file name is not UTF-8, so it cannot be an id; rename it."
        for file in files
        if has_surrogates(str(file.relative_to(folder)))
    ]
    first: dict[str, Path] = {}
    for person, file in zip(_ids(folder, files), files, strict=True):
        if first.setdefault(person, file) != file:
            problems.append(
                f"{file}: the name differs from that of another photo only in its Unicode normal "
                "form, so both have the same id; rename one."
            )
    return problems

"""Photos in tables: resolving their paths and checking their content."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from pairmatch.core.progress import map_in_threads
from pairmatch.core.text import has_surrogates
from pairmatch.io.images import check_image
from pairmatch.io.photo_notices import grouped_notices
from pairmatch.io.tables import Table


@dataclass(frozen=True, slots=True)
class PhotoOptions:
    """How photos are found and checked.

    Attributes:
        folder: Image folder: paths are relative to it and must not leave it.
        follow_links: Whether links may lead out of the image folder.
        check_images: Whether to decode every photo, to make sure that it can be read.
        progress: Whether to show a progress bar.
    """

    folder: Path
    follow_links: bool = False
    check_images: bool = True
    progress: bool = False


def normalize_photo_cell(cell: str) -> str:
    """Cell with every path in its shortest spelling: `./anna.jpg` is `anna.jpg`."""
    names = (str(PurePath(name)) for name in _photo_names(cell))
    return unicodedata.normalize("NFC", ";".join(names))


def resolve_photos(
    table: Table, row: int, column: str, cell: str, options: PhotoOptions
) -> tuple[Path, ...]:
    """Paths to the photos that a cell names; each one that cannot be used is recorded as a problem.

    Args:
        table: Table that the cell is part of.
        row: Position of its row.
        column: Name of its column.
        cell: One or more paths, separated by `;`.
        options: How photos are found.
    """
    paths = []
    for name in _photo_names(cell):
        if has_surrogates(name):
            continue  # the table reports it
        path = _existing(options.folder, name)
        problem = _photo_problem(name, path, options, table.path.parent)
        if problem is None:
            paths.append(path)
        else:
            table.problem(row, column, problem)
    return tuple(paths)


def _photo_names(cell: str) -> list[str]:
    return [name for name in (part.strip() for part in cell.split(";")) if name]


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


def _photo_problem(name: str, path: Path, options: PhotoOptions, table_folder: Path) -> str | None:
    """Why a path cannot be used; None if it names a file inside the image folder."""
    folder = options.folder
    try:
        if Path(name).is_absolute() or PurePath(os.path.normpath(name)).parts[:1] == ("..",):
            return f"{name!r} leaves the image folder {folder}."
        if not options.follow_links and not path.resolve().is_relative_to(folder.resolve()):
            return (
                f"{name!r} leaves the image folder {folder} through a link. Allow links with "
                "follow_links=True (--follow-links)."
            )
        if path.is_file():
            return None
        if path.is_dir():
            return f"{name!r} is a folder in {folder}."
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL byte, a loop of links
        reason = getattr(error, "strerror", None) or error
        return f"{name[:60]!r} cannot be opened ({reason})."
    hint = ""
    if (table_folder / name).is_file():
        hint = f", but in {table_folder}: leave `images` (--images) out"
    return f"{name!r} does not exist in {folder}{hint}."


def broken_photos(files: Sequence[Path], *, progress: bool) -> dict[Path, str]:
    """Decodes photos; returns the problem of each one that cannot be read."""
    with grouped_notices():
        problems = map_in_threads(check_image, files, "Checking photos", shown=progress)
    return {
        file: problem for file, problem in zip(files, problems, strict=True) if problem is not None
    }

"""Photos in tables and folders: resolving their paths and checking their content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from pairmatch.core.errors import DataError
from pairmatch.core.progress import map_in_threads
from pairmatch.core.types import Profile
from pairmatch.io.images import SUFFIXES, check_image
from pairmatch.io.tables import Table


def normalize_photo_cell(cell: str) -> str:
    """Cell with every path in its shortest spelling: `./anna.jpg` is `anna.jpg`."""
    return ";".join(str(PurePath(name)) for name in _photo_names(cell))


def resolve_photos(
    table: Table, row: int, column: str, cell: str, folder: Path
) -> tuple[Path, ...]:
    """Paths to the photos that a cell names; each one that cannot be used is recorded as a problem.

    Args:
        table: Table that the cell is part of.
        row: Position of its row.
        column: Name of its column.
        cell: One or more paths, separated by `;`.
        folder: Image folder: paths are relative to it and must not leave it.
    """
    paths = []
    for name in _photo_names(cell):
        problem = _photo_problem(name, folder, table.path.parent)
        if problem is None:
            paths.append(folder / name)
        else:
            table.problem(row, column, problem)
    return tuple(paths)


def _photo_names(cell: str) -> list[str]:
    return [name for name in (part.strip() for part in cell.split(";")) if name]


def _photo_problem(name: str, folder: Path, table_folder: Path) -> str | None:
    """Why a path cannot be used; None if it names a file inside the image folder."""
    target = folder / name
    try:
        is_absolute = Path(name).is_absolute()
        if is_absolute or not target.resolve().is_relative_to(folder.resolve()):
            return f"{name!r} leaves the image folder {folder}."
        if target.is_file():
            return None
        if target.is_dir():
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
    problems = map_in_threads(check_image, files, "Checking photos", shown=progress)
    return {
        file: problem for file, problem in zip(files, problems, strict=True) if problem is not None
    }


def read_photo_folder(folder: Path, *, check_images: bool, progress: bool) -> list[Profile]:
    """One profile per photo of a folder and its subfolders, in the order of their paths.

    The id is the path without its extension, or with it if another photo has the same one.

    Raises:
        DataError: The folder holds no photos, or some cannot be read.
    """
    files = sorted(
        file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()
    )
    if not files:
        raise DataError(f"{folder}: the folder holds no photos ({', '.join(sorted(SUFFIXES))}).")
    stems = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    names = [file.relative_to(folder).as_posix() for file in files]
    counts = Counter([*stems, *names])
    ids = [stem if counts[stem] == 1 else name for stem, name in zip(stems, names, strict=True)]
    problems = broken_photos(files, progress=progress) if check_images else {}
    if problems:
        raise DataError(
            f"{folder}: {len(problems)} photos cannot be read:", list(problems.values())
        )
    return [Profile(person, (file,)) for person, file in zip(ids, files, strict=True)]

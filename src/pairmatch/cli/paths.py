"""Options for files and folders that a command writes; they are checked before work starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.text import printable


def folder_to_write(kind: str) -> Callable[[Path | None], Path | None]:
    """A check that a folder is new, empty, or of a kind; see `check_output_folder`."""

    def check(path: Path | None) -> Path | None:
        from pairmatch.io.outputs import check_output_folder

        if path is not None:
            check_output_folder(path, kind, is_earlier=partial(_is_earlier, kind))
        return path

    return check


@contextmanager
def claimed_folder(folder: Path, kind: str) -> Iterator[None]:
    """Marks a folder for the block, in which the first files of a command are written.

    If the block fails before that, the folder is left as it was.
    """
    from pairmatch.io.outputs import MARKER, claim_folder

    existed = folder.exists()
    claim_folder(folder, kind, is_earlier=partial(_is_earlier, kind))
    try:
        yield
    except BaseException:
        if not existed and [item.name for item in folder.iterdir()] == [MARKER]:
            (folder / MARKER).unlink()
            folder.rmdir()
        raise


def _is_earlier(kind: str, folder: Path) -> bool:
    """Whether an earlier version wrote a folder, which has no mark then."""
    from pairmatch.experiments.sweep_folder import is_earlier_sweep
    from pairmatch.gallery.folder import is_earlier_gallery
    from pairmatch.gallery.slates import is_earlier_slates
    from pairmatch.matcher.files import is_earlier_matcher

    checks = {
        "gallery": is_earlier_gallery,
        "slates": is_earlier_slates,
        "sweep": is_earlier_sweep,
        "matcher": is_earlier_matcher,
    }
    return checks[kind](folder)


def file_to_write(path: Path | None) -> Path | None:
    """A check that a file can be written in a folder that exists."""
    from pairmatch.io.outputs import check_output_file

    if path is not None:
        check_output_file(path)
        if not path.absolute().parent.is_dir():
            named = printable(str(path))
            raise ConfigurationError(f"{named} cannot be written: its folder does not exist.")
    return path


def _store_to_write(path: Path | None) -> Path | None:
    """A check that the store, or the default store, exists or can be created; creates nothing."""
    from pairmatch.io.outputs import check_output_file
    from pairmatch.io.store import store_path

    file = store_path(path)
    if not file.is_file():  # one on a read-only disk can be read
        check_output_file(file)
    return path


Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="Folder for the matcher and the report.",
        callback=folder_to_write("matcher"),
    ),
]
StorePath = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="File that keeps features and metadata.",
        show_default="~/.cache/pairmatch/store.sqlite",
        callback=_store_to_write,
    ),
]
ExistingStorePath = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="File that keeps features and metadata.",
        show_default="~/.cache/pairmatch/store.sqlite",
    ),
]
JSONFile = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="File to write the evaluation to, as JSON.",
        callback=file_to_write,
    ),
]

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

# How the JSON form of an evaluation starts
_FIGURES = rb'\{\s*"(queries|act|plan)":'
_SKIPPED = rb"file,location,column,id,reason\r?\n"
_TABLES = {
    ".csv": rb"(\xef\xbb\xbf)?learner,R@",
    ".md": rb"\| \| R@",
    ".tex": rb"% Needs \\usepackage\{booktabs\}",
}
# Who made a figure, as `save_figure` writes it
_DRAWN = {
    ".pdf": rb"(?s)%PDF-.*/Creator \(pairmatch ",
    ".svg": rb"(?s)<\?xml.*<dc:title>pairmatch ",
}
_MOST_DRAWN = 50_000_000  # bytes of a figure that are searched
_REPORT = ("report.html", "report.json", "run.yaml", "skipped.csv")


def folder_to_write(kind: str) -> Callable[[Path | None], Path | None]:
    """A check that a folder is new, empty, or of a kind; see `check_output_folder`."""

    def check(path: Path | None) -> Path | None:
        from pairmatch.io.files import expand_user
        from pairmatch.io.outputs import check_output_folder

        if path is None:
            return None
        folder = expand_user(path)  # shells leave the ~ of --output=~/couples
        check_output_folder(folder, kind, is_earlier=partial(_is_earlier, kind))
        return folder

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
    """A check that a file can be written."""
    from pairmatch.io.files import expand_user
    from pairmatch.io.outputs import check_output_file

    if path is None:
        return None
    file = expand_user(path)
    check_output_file(file)
    return file


def _figures_to_write(path: Path | None) -> Path | None:
    """A check that a JSON file of an evaluation can be written, and replaces nothing else."""
    from pairmatch.io.outputs import check_replaced_file

    file = file_to_write(path)
    if file is not None:
        check_replaced_file(file, _FIGURES, "figures of an evaluation")
    return file


def _history_to_write(path: Path | None) -> Path | None:
    """A check that a row can be appended to a table of figures."""
    from pairmatch.io.files import read_header
    from pairmatch.report.history import check_history

    file = file_to_write(path)
    if file is not None and file.exists():
        check_history(read_header(file, 4096), file)
    return file


def list_to_write(path: Path | None) -> Path | None:
    """A check that a list of skipped rows can be written, and replaces nothing else."""
    from pairmatch.io.outputs import check_replaced_file

    file = file_to_write(path)
    if file is not None:
        check_replaced_file(file, _SKIPPED, "a list of skipped rows")
    return file


def check_place(
    file: Path | None, option: str, *, output: Path | None = None, store: Path | None = None
) -> None:
    """Checks where a file is written, once all options are known.

    Args:
        file: Path to the file.
        option: Option that named it, for messages.
        output: Folder that the command writes; it may not exist yet.
        store: Store that the command names.

    Raises:
        ConfigurationError: The folder of the file does not exist and is not created, or the file
            would take the place of another one that the command writes.
    """
    from pairmatch.io.store import store_path
    from pairmatch.matcher.files import FILES, OPTIONAL

    if file is None:
        return
    place = file.resolve()
    named = f"{option} {printable(str(file))}"
    folder = None if output is None else output.resolve()
    taken = {store_path(store).resolve()}
    if folder is not None:
        taken |= {folder, *(folder / name for name in (*FILES, *OPTIONAL, *_REPORT))}
    if place in taken:
        raise ConfigurationError(
            f"{named} cannot be written: the command writes something else there. Name another "
            "file."
        )
    if place.parent != folder and not place.parent.is_dir():
        raise ConfigurationError(f"{named} cannot be written: its folder does not exist.")


def _store_to_write(path: Path | None) -> Path | None:
    """A check that the store, or the default store, exists or can be created; creates nothing."""
    from pairmatch.io.outputs import check_output_file
    from pairmatch.io.store import check_store, store_path

    file = store_path(path)
    if file.is_file():  # one on a read-only disk can be read
        check_store(file)
    else:
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
OutputExceptPlan = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Folder for the matcher and the report; required, except with --plan.",
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
        callback=_figures_to_write,
    ),
]


def _table_to_write(paths: list[Path] | None) -> list[Path]:
    """A check that tables for print can be written, and replace nothing else."""
    from pairmatch.io.outputs import check_replaced_file
    from pairmatch.report.summary_table import check_table_file

    files = _checked(paths, check_table_file)
    for file in files:
        check_replaced_file(file, _TABLES[file.suffix], "a table of figures")
    return files


def _figure_to_write(paths: list[Path] | None) -> list[Path]:
    """A check that figures can be written, and replace nothing else."""
    from pairmatch.io.outputs import check_replaced_file
    from pairmatch.report.figures import check_figure_file

    files = _checked(paths, check_figure_file)
    for file in files:
        check_replaced_file(file, _DRAWN[file.suffix], "a figure of pairmatch", most=_MOST_DRAWN)
    return files


def _checked(paths: list[Path] | None, check: Callable[[Path], None]) -> list[Path]:
    """Files that can be written, whose names a check accepts."""
    files = [file for path in paths or () if (file := file_to_write(path))]
    for file in files:
        check(file)
    return files


TableFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--table",
        metavar="FILE",
        help="Table for print to write: .csv, .md or .tex (booktabs); repeatable.",
        callback=_table_to_write,
    ),
]
FigureFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--figure",
        metavar="FILE",
        help="Figure of Recall@K to write: .pdf or .svg; repeatable.",
        callback=_figure_to_write,
    ),
]
HistoryFile = Annotated[
    Path | None,
    typer.Option(
        "--history",
        metavar="FILE",
        help="CSV file to append the figures of this run to, as one row with its time.",
        callback=_history_to_write,
    ),
]

"""The tables that commands read: their options, declared once, and what was left out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from pairmatch.cli.options import Images, show_progress
from pairmatch.cli.output import echo
from pairmatch.cli.paths import check_place, list_to_write
from pairmatch.core.text import counted

if TYPE_CHECKING:
    from pairmatch.data import Pairs
    from pairmatch.data.options import TableOptions
    from pairmatch.data.reading import ProfileList
    from pairmatch.data.skipping import Skipped
    from pairmatch.gallery import Exclusions

KeepWords = Annotated[
    list[str] | None,
    typer.Option(
        "--keep-word",
        metavar="WORD",
        help="Word that is a value although it usually stands for a missing one, such as NA; "
        "repeatable.",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="SOURCE=NAME",
        help="Column to read under another name, such as user_id=id; repeatable.",
    ),
]
PoolRule = Annotated[
    str | None,
    typer.Option(
        "--pools",
        metavar="RULE",
        help="Rule that says who could have met, such as 'region = query.region': ranks are "
        "computed inside these pools. A column pool of PAIRS needs no rule.",
    ),
]
_FollowLinks = Annotated[
    bool,
    typer.Option("--follow-links", help="Allow links that lead out of the folder of the photos."),
]
_TextColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--text-column",
        metavar="NAME",
        help="Attribute that is text even if its cells look like numbers; repeatable.",
    ),
]
_OnBadRow = Annotated[
    Literal["stop", "skip"],
    typer.Option(
        "--on-bad-row",
        help="skip: go on without rows and people that cannot be read, and without their pairs.",
    ),
]
_MostSkipped = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="Share of people or pairs above which --on-bad-row skip stops too."
    ),
]
_SkippedFile = Annotated[
    Path | None,
    typer.Option(
        "--skipped",
        metavar="FILE",
        help="CSV file to list in what --on-bad-row skip left out; by default, fit and sweep write "
        "skipped.csv into their folder.",
        show_default=False,
        callback=list_to_write,
    ),
]


class Tables:
    """Reads the tables of a command, and lists what was left out.

    The parameters of `__init__`, but for `quiet`, are the options of every command that
    [`reads_tables`][pairmatch.cli.tables.reads_tables].
    """

    def __init__(
        self,
        *,
        images: Images = None,
        follow_links: _FollowLinks = False,
        keep_words: KeepWords = None,
        columns: Columns = None,
        text_columns: _TextColumns = None,
        on_bad_row: _OnBadRow = "stop",
        most_skipped: _MostSkipped = 0.05,
        skipped: _SkippedFile = None,
        quiet: bool = False,
    ) -> None:
        if skipped is not None and on_bad_row != "skip":
            raise typer.BadParameter("--skipped needs --on-bad-row skip.")
        self.options: TableOptions = {
            "images": images,
            "follow_links": follow_links,
            "keep_words": keep_words or (),
            "columns": parse_columns(columns),
            "text_columns": text_columns or (),
            "on_bad_row": on_bad_row,
            "most_skipped": most_skipped,
            "progress": show_progress(quiet),
        }
        #: The pairs that were read.
        self.read: list[Pairs] = []
        self._file = skipped
        self._skipped: dict[Skipped, None] = {}
        self._elsewhere: Collection[str] = ()  # columns that other files had

    def pairs(
        self, path: Path, *, profiles: Path | None, sides: int, pools: str | None = None
    ) -> Pairs:
        """Reads a pairs file; `pools` is a rule that says who could have met."""
        from pairmatch.data import Pairs

        pairs = Pairs.read(
            path, profiles=profiles, sides=cast(Literal[1, 2], sides), **self.options
        )
        self.read.append(pairs)
        self._keep(pairs.skipped)
        return pairs if pools is None else pairs.pooled(pools)

    def profiles(self, path: Path, *, text_attributes: Sequence[str] = ()) -> ProfileList:
        """Reads a profiles file or a folder of photos.

        Args:
            path: Path to it.
            text_attributes: Further attributes that are text.
        """
        from pairmatch.data.reading import is_photo_folder, read_people

        options = self.options
        if text_attributes and not is_photo_folder(path):
            options = {**options, "text_columns": [*options["text_columns"], *text_attributes]}
        profiles = read_people(path, options, elsewhere=self._elsewhere)
        self._keep(profiles.skipped)
        return profiles

    def exclusions(self, path: Path, *, symmetric: bool) -> Exclusions:
        """Reads a file of exclusions."""
        from pairmatch.gallery import Exclusions

        columns = self.options["columns"] or {}
        self._elsewhere = columns
        return Exclusions.read(
            path, symmetric=symmetric, keep_words=self.options["keep_words"], columns=columns
        )

    def reject_options(self, place: str) -> None:
        """Rejects options about tables where none is read.

        Raises:
            ConfigurationError: Names the options.
        """
        from pairmatch.data.options import reject_table_options

        reject_table_options(self.options, place, except_for=("keep_words", "columns"))

    def list_skipped(self, folder: Path) -> None:
        """Writes the list into the folder of a command, unless it has a file of its own."""
        from pairmatch.data.skipping import FILE

        if self._file is None:
            self._write(folder / FILE)

    def _keep(self, skipped: Sequence[Skipped]) -> None:
        self._skipped |= dict.fromkeys(skipped)
        if self._file is not None:
            self._write(self._file)

    def _write(self, path: Path) -> None:
        from pairmatch.data.skipping import write_skipped

        if not self._skipped:
            path.unlink(missing_ok=True)  # of an earlier run
            return
        write_skipped(path, self._skipped)
        count = len(self._skipped)
        echo(f"{counted(count, 'problem')} of rows that were left out: listed in {path}.", err=True)


def reads_tables(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options about tables, in the place of its parameter `inputs`.

    typer makes options from the signature of a function, so that they would otherwise be repeated
    in each command.
    """
    options = inspect.signature(Tables, eval_str=True).parameters
    names = [name for name in options if name != "quiet"]
    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name == "inputs":
            parameters += [
                options[name].replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
                for name in names
            ]
        else:
            parameters.append(parameter)

    @wraps(command)
    def run(**arguments: Any) -> None:
        given = {name: arguments.pop(name) for name in names}
        check_place(
            given["skipped"],
            "--skipped",
            output=arguments.get("output"),
            store=arguments.get("store"),
        )
        command(inputs=Tables(**given, quiet=arguments["quiet"]), **arguments)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def parse_columns(texts: Sequence[str] | None) -> Mapping[str, str]:
    """Parses `--column`: `["user_id=id"]` becomes `{"user_id": "id"}`.

    Raises:
        BadParameter: A column is not SOURCE=NAME, or is given twice.
    """
    renamed: dict[str, str] = {}
    for text in texts or ():
        source, equals, name = text.rpartition("=")
        if not (equals and source.strip() and name.strip()):
            raise typer.BadParameter(
                f"--column needs SOURCE=NAME, such as user_id=id; got {text!r}."
            )
        if renamed.setdefault(source, name) != name:
            raise typer.BadParameter(
                f"--column reads {source!r} both as {renamed[source]!r} and as {name!r}."
            )
    return renamed

"""How a run file and a command line become the options of a command, and are kept for a record."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from pairmatch.cli.output import echo
from pairmatch.cli.run_file import Entry, RunFile, option_key, read_run_file
from pairmatch.core.errors import ConfigurationError, DataError, PairmatchError, suggestion
from pairmatch.core.text import printable

_ON = {"true", "yes", "on"}
_OFF = {"false", "no", "off"}
_RUN: ContextVar[Run] = ContextVar("run")


@dataclass(frozen=True, slots=True)
class Run:
    """What a command was told.

    Attributes:
        command: Words of the command.
        options: Text, or texts, of every option that was given, by its key in a run file.
        file: The run file that was read, if one was.
        overridden: Keys of the file that the command line overrides.
    """

    command: str
    options: Mapping[str, str | list[str]]
    file: RunFile | None = None
    overridden: tuple[str, ...] = ()


def current_run() -> Run:
    """The run of the command that is running."""
    return _RUN.get()


@functools.cache
def config_option() -> Any:
    """The option `--config`, which every command has."""
    app = typer.Typer(add_completion=False)

    @app.command()
    def _command(
        config: Annotated[
            Path | None,
            typer.Option(
                "--config",
                metavar="FILE",
                help="Run file (YAML) with options for this command; those of the command line "
                "override it.",
                show_default=False,
                expose_value=False,
            ),
        ] = None,
    ) -> None:
        del config

    command: Any = typer.main.get_command(app)
    return next(param for param in command.params if param.name == "config")


def with_run_file(command: Any, ctx: Any, args: list[str]) -> list[str]:
    """The command line with the options of the run file that it names with `--config`.

    It is the current run from then on.

    Raises:
        DataError: Lists all problems of the file, those of its values included.
        ConfigurationError: The file is for another command.
    """
    name = " ".join(_names(ctx))
    given = given_of(command, ctx, args)
    if given.get("config") is None or given.get("help") or ctx.resilient_parsing:
        _RUN.set(run_of(command, name, given))
        return args
    file = read_run_file(Path(given["config"]))
    entries = entries_of(file, command, name)
    check_entries(file, command, ctx, entries, given)
    file.fail()
    args, run = merged(command, ctx, args, file, entries)
    if run.overridden:
        path = printable(str(file.path))
        echo(f"The command line overrides {', '.join(run.overridden)} of {path}.", err=True)
    _RUN.set(run)
    return args


def merged(
    command: Any, ctx: Any, args: list[str], file: RunFile, entries: Mapping[str, Entry]
) -> tuple[list[str], Run]:
    """The command line with the entries of a run file, and what it then says."""
    given = given_of(command, ctx, args)
    overridden = tuple(entry.key for param, entry in entries.items() if param in given)
    options, arguments = words_of(command, entries, given)
    if arguments and "--" not in args:
        arguments = ["--", *arguments]
    words = [*options, *args, *arguments]
    run = run_of(
        command, file.command or "", given_of(command, ctx, words), file=file, overridden=overridden
    )
    return words, run


def _names(ctx: Any) -> list[str]:
    """Words of the command of a context, without the program's name."""
    if ctx.parent is None or ctx.parent.parent is None:
        return [ctx.info_name]
    return [*_names(ctx.parent), ctx.info_name]


def given_of(command: Any, ctx: Any, args: list[str]) -> dict[str, Any]:
    """What a command line says, by parameter, as it is written."""
    values, _, _ = command.make_parser(ctx).parse_args(args=list(args))
    return {name: value for name, value in values.items() if value not in (None, (), [])}


def entries_of(file: RunFile, command: Any, name: str) -> dict[str, Entry]:
    """The entries of a file by the parameter of a command that they are for.

    What is wrong with keys, and a file for another command, is added to the problems of the file.

    Args:
        file: The file.
        command: The command.
        name: Its words.
    """
    if file.command is not None and file.command != name:
        raise ConfigurationError(
            f"{printable(str(file.path))} is for the command {printable(file.command)!r}, and this "
            f"is {name!r}: run `pairmatch {printable(file.command)} --config …`."
        )
    keys = dict(_keys(command))
    found: dict[str, Entry] = {}
    for entry in file.entries:
        param = keys.get(option_key(entry.key))
        where = f"line {entry.line}: "
        if param is None:
            hint = suggestion(option_key(entry.key), keys)
            see = f" `pairmatch {name} --help` lists all options." if not hint else ""
            file.problems.append(f"{where}there is no option {printable(entry.key)!r}.{hint}{see}")
        elif param.name in found:
            file.problems.append(
                f"{where}{printable(entry.key)} is the same option as "
                f"{printable(found[param.name].key)} on line {found[param.name].line}"
            )
        elif entry.is_list and not _is_repeated(param):
            file.problems.append(f"{where}{printable(entry.key)} takes one value, not a list")
        else:
            found[param.name] = entry
    return found


def _keys(command: Any) -> Iterator[tuple[str, Any]]:
    """Keys of run files, with the parameter of the command."""
    for param in command.params:
        if param.name == "config":
            continue
        names = [*param.opts, *param.secondary_opts]
        names = names if param.param_type_name == "option" else [param.name]
        yield from ((option_key(name), param) for name in names)


def key_of(param: Any) -> str:
    """The key of a parameter in run files: its longest name on the command line."""
    is_option = param.param_type_name == "option"
    return option_key(max(param.opts, key=len) if is_option else param.name)


def _is_repeated(param: Any) -> bool:
    return bool(getattr(param, "multiple", False) or param.nargs != 1)


def _is_flag(param: Any) -> bool:
    return bool(getattr(param, "is_flag", False))


def check_entries(
    file: RunFile, command: Any, ctx: Any, entries: Mapping[str, Entry], given: Iterable[str]
) -> None:
    """Adds every value that a command does not take, and what is missing, to the problems."""
    for param in command.params:
        if param.name in given:
            continue
        entry = entries.get(param.name)
        if entry is None:
            if param.required:
                file.problems.append(f"{key_of(param)} is missing: add a line `{key_of(param)}: …`")
            continue
        problem = _problem(param, ctx, entry)
        if problem:
            file.problems.append(f"line {entry.line}: {printable(entry.key)}: {problem}")


def check_values(command: Any, ctx: Any, run: Run) -> None:
    """Checks the form of the values of a run, and nothing that depends on this machine.

    Raises:
        DataError: Lists every value that the command does not take.
    """
    problems = []
    for param in command.params:
        value = run.options.get(key_of(param))
        if value is None:
            continue
        values = (value,) if isinstance(value, str) else tuple(value)
        form = copy.copy(param)
        form.callback = None  # those of paths look at the disk
        problem = _problem(form, ctx, Entry(key_of(param), values, len(values) > 1, 0))
        if problem:
            problems.append(f"{key_of(param)}: {problem}")
    if problems:
        raise DataError(f"`pairmatch {run.command}` does not take these options:", problems)


def _problem(param: Any, ctx: Any, entry: Entry) -> str | None:
    """Why a parameter does not take an entry."""
    values = list(map(_expanded, entry.values))
    if _is_flag(param):
        is_known = values[0].lower() in _ON | _OFF
        return None if is_known else f"{values[0]!r} is neither true nor false"
    try:
        param.process_value(ctx, values if _is_repeated(param) else values[0])
    except Exception as error:
        if not isinstance(error, PairmatchError) and not hasattr(error, "format_message"):
            raise  # neither an error of the library, nor one of usage
        words = getattr(error, "message", None) or str(error)
        return str(words).removeprefix("Value error, ")
    return None


def words_of(
    command: Any, entries: Mapping[str, Entry], given: Iterable[str]
) -> tuple[list[str], list[str]]:
    """Words of the command line for entries: those of options, and those of arguments.

    Args:
        command: The command.
        entries: Entries by parameter.
        given: Parameters that the command line gives itself, which are left out.
    """
    options: list[str] = []
    arguments: list[str] = []
    for param in command.params:
        entry = None if param.name in given else entries.get(param.name)
        if entry is None:
            continue
        values = [_expanded(value) for value in entry.values]
        if param.param_type_name == "argument":
            arguments += values
        elif _is_flag(param):
            options += _flag_words(param, entry)
        else:
            name = max(param.opts, key=len)
            for value in values:
                options += [f"{name}={value}"] if name.startswith("--") else [name, value]
    return options, arguments


def _flag_words(param: Any, entry: Entry) -> list[str]:
    is_on = entry.values[0].lower() in _ON
    is_negative = option_key(entry.key) in map(option_key, param.secondary_opts)
    names = param.opts if is_on != is_negative else param.secondary_opts
    return [max(names, key=len)] if names else []


def _expanded(value: str) -> str:
    """A path whose `~` is the home folder, as a shell reads it."""
    return str(Path(value).expanduser()) if value.startswith("~/") else value


def run_of(command: Any, name: str, given: Mapping[str, Any], **more: Any) -> Run:
    """The run of a command whose parser returned values of options, as they were written."""
    options: dict[str, str | list[str]] = {}
    for param in command.params:
        value = given.get(param.name)
        if param.name == "config" or value is None:
            continue
        if isinstance(value, list | tuple):
            options[key_of(param)] = [str(item) for item in value]
        elif isinstance(value, bool):
            options[key_of(param)] = "true" if value else "false"
        else:
            options[key_of(param)] = str(value)
    return Run(name, options, **more)

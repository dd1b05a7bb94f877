"""A run file for the options of a command: `config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pairmatch.cli.application import app
from pairmatch.cli.help import Command
from pairmatch.cli.run_file import read_run_file, write_run
from pairmatch.cli.run_options import check_values, entries_of, given_of, merged, run_of
from pairmatch.core.errors import ConfigurationError, unknown_name


class _Words(Command):
    """A command whose words belong to another one: it takes no run file of its own."""

    has_run_file = False


@app.command(
    cls=_Words,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example: pairmatch config fit pairs.csv --backbone clip --output couples",
)
def config(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND", help="A command with its options.", show_default=False),
    ],
) -> None:
    """Prints a run file (YAML) for a command: save it, and give it to the command with --config.

    Options are checked; paths are not, so that the file can be written for another machine.
    """
    root: Any = ctx.find_root()
    command, context, args = _command_of(root, words)
    name = " ".join(words[: len(words) - len(args)])
    given = given_of(command, context, args)
    if given.get("config") is None:
        run = run_of(command, name, given)
    else:
        file = read_run_file(Path(given["config"]))
        entries = entries_of(file, command, name)
        file.fail()
        _, run = merged(command, context, args, file, entries)
    check_values(command, context, run)
    typer.echo(write_run(run.command, run.options), nl=False)


def _command_of(root: Any, words: list[str]) -> tuple[Any, Any, list[str]]:
    """The command that words begin with, its context, and the words that follow.

    Raises:
        ConfigurationError: There is no such command.
    """
    command: Any = root.command
    context = root
    rest = list(words)
    while hasattr(command, "commands"):
        known = [name for name, one in command.commands.items() if not isinstance(one, _Words)]
        name = rest.pop(0) if rest else ""
        if name not in known:
            raise ConfigurationError(unknown_name("command", name, known))
        command = command.commands[name]
        context = type(root)(command, info_name=name, parent=context)
    return command, context, rest

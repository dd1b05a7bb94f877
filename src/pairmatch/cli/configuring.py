"""A run file for the options of a command: `config`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pairmatch.cli.application import app
from pairmatch.cli.help import Command
from pairmatch.cli.output import echo
from pairmatch.cli.run_file import read_run_file, write_run
from pairmatch.cli.run_options import Run, check_values, entries_of, given_of, merged, run_of
from pairmatch.core import registry
from pairmatch.core.errors import ConfigurationError, unknown_name
from pairmatch.core.text import printable

_KINDS = {
    "backbone": "backbones",
    "pooler": "poolers",
    "metadata": "metadata",
    "head": "heads",
    "loss": "losses",
    "learner": "learners",
}
_WORDS = ("auto", "none")  # that stand for no part


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

    Options are checked; paths are not, so that the file can be written for another machine. Parts
    that this machine lacks are named in a warning.
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
    for problem in _unknown_parts(run):
        echo(f"WARNING: {printable(problem)}", err=True)
    typer.echo(write_run(run.command, run.options), nl=False)


def _unknown_parts(run: Run) -> Iterator[str]:
    """A sentence for each part that is not installed; the machine of the run may have it."""
    for part, kind in _KINDS.items():
        given = run.options.get(part, [])
        names = given.split(",") if isinstance(given, str) else given
        for name in (words.split()[0] for words in names if words.split()):
            if name not in _WORDS and not registry.is_installed(kind, name):
                known = [plugin.name for plugin in registry.plugins(kind)]
                sentence = unknown_name(part, name, known)
                yield sentence.replace(f"{name!r}", f"{name!r} on this machine", 1)


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

"""The help of the commands, on a terminal of 80 columns."""

import shlex
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from pairmatch import __version__
from pairmatch.cli import app
from pairmatch.cli.help import SUBJECTS, wrapped_command


def every_command(group=None, path=()):
    """Words and command of every command and group, the whole program first."""
    group = typer.main.get_command(app) if group is None else group
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from every_command(command, (*path, name))


COMMANDS = dict(every_command())


def printed(*words, width=80):
    result = CliRunner().invoke(app, words, env={"COLUMNS": str(width)}, terminal_width=width)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("width", [60, 80, 200])
def test_help_fits_and_names_every_option_whole(path, width):
    text = printed(*path, "-h", width=width)
    assert text == printed(*path, "--help", width=width)
    words = set(text.replace(",", " ").split())
    for option in COMMANDS[path].params:
        if option.param_type_name == "option":
            assert {*option.opts, *option.secondary_opts} <= words
    if width <= 80:
        assert max(map(len, text.splitlines())) <= width
    sentences = text.partition("\n\n")[2]  # the usage has [ARGS]...
    assert "..." not in sentences.replace("]...", "")
    assert "<" not in text.replace("<=", "")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_example_of_a_command_is_one_that_the_command_takes(path):
    text = printed(*path, "--help")
    example = text.partition("Example:\n")[2].replace("\\\n", " ")
    program, *words = shlex.split(example)
    assert program == "pairmatch"
    assert words[: len(path)] == list(path)
    group = typer.main.get_command(app)
    while words and getattr(group, "commands", None):
        group = group.commands[words.pop(0)]
    if path == ("config",):  # its words are those of another command
        group = COMMANDS[(words[0],)]
    known = {name for option in group.params for name in (*option.opts, *option.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= known
    required = [part for part in group.params if part.required]
    for part in required:
        if part.param_type_name == "option":
            assert set(part.opts) & set(words)


def test_every_option_of_a_subject_exists():
    names = {part.name for command in COMMANDS.values() for part in command.params}
    subjects = [name for names in SUBJECTS.values() for name in names]
    assert set(subjects) <= {*names, "help"}
    assert len(set(subjects)) == len(subjects)


def test_version():
    assert printed("--version") == f"pairmatch {__version__}\n"
    command = [sys.executable, "-X", "importtime", "-m", "pairmatch", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "torch" not in result.stderr


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        ("pairmatch demo", ["pairmatch demo"]),
        ("pairmatch fit --output couples", ["pairmatch fit \\", "  --output couples"]),
        ('a --where "age >= 25"', ["a --where \\", '  "age >= 25"']),
        ("a 'b \"c\"'", ["a 'b \"c\"'"]),
        ("a '$b'", ["a '$b'"]),
    ],
)
def test_a_long_example_continues_with_backslashes(command, lines):
    assert wrapped_command(command, 20) == lines
    assert shlex.split(" ".join(lines).replace("\\ ", "")) == shlex.split(command)

"""The help of the commands, on a terminal of 80 columns."""

import csv
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pairmatch import __version__
from pairmatch.cli import app
from pairmatch.cli.help import SUBJECTS, wrapped_command
from pairmatch.experiments.demo import draw_people


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


#: Models that have to be downloaded, and addresses that only some machines have.
ELSEWHERE = {"--backbone clip": "--backbone descriptor"}
NEEDS_A_SERVER = {
    ("serve",),
    ("export",),
    ("finetune",),
}  # or a model; they have tests of their own


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """A folder with the files that the examples name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PAIRMATCH_STORE", raising=False)
    draw_people(tmp_path, pairs=40, size_px=32)
    (tmp_path / "images").rename(tmp_path / "photos")
    Path("pairs.csv").write_text(Path("pairs.csv").read_text().replace("images/", ""))
    header, *rows = csv.reader(Path("pairs.csv").read_text().splitlines())
    at = {name: header.index(name) for name in header}
    people = [
        [
            row[at[f"id_{side}"]],
            f"photos/{row[at[f'image_{side}']]}",
            *(row[at[f"{name}_{side}"]] for name in ("text", "age", "region")),
        ]
        for side in "ab"
        for row in rows
    ]
    fields = ["id", "image", "text", "age", "region"]
    side_b = people[len(rows) :]
    extra = [[name, *side_b[at][1:]] for at, name in enumerate(("anna-17", "ben-4"))]
    tables = {
        "candidates.csv": [fields, *side_b, *extra],
        "newcomers.csv": [fields, ["new", *side_b[0][1:]]],
        "people.csv": [fields, *people],
        "profiles.csv": [fields, *people],
        "new.csv": [["id_a", "id_b"], *([row[at["id_a"]], row[at["id_b"]]] for row in rows[20:])],
        "log.csv": [["id_a", "id_b"], *([row[at["id_a"]], row[at["id_b"]]] for row in rows[:20])],
        "other-pairs.csv": [
            header,
            *(
                [f"photos/{cell}" if cell.endswith(".jpg") else cell for cell in row]
                for row in rows
            ),
        ],
    }
    for name, lines in tables.items():
        with Path(name).open("w", newline="") as file:
            csv.writer(file).writerows(lines)
    shutil.copy(Path("photos", rows[0][at["image_a"]]), "me.jpg")
    return tmp_path


@pytest.mark.slow
def test_printed_examples_run_as_they_are_printed(scratch):
    def run(line):
        for model, other in ELSEWHERE.items():
            line = line.replace(model, other)
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"

    examples = {
        path: printed(*path, "-h").partition("Example:\n")[2].replace("\\\n", " ")
        for path in COMMANDS
        if path not in NEEDS_A_SERVER
    }
    first = [("fit",), ("gallery", "build")]
    for path in first:
        run(examples.pop(path))
    run("pairmatch gallery build couples candidates.csv --output gallery-b")
    run("pairmatch gallery build couples people.csv --side a --output gallery-a")
    run(examples.pop(("slates",)))
    for name in ("features", "node-1", "node-2"):
        embed = f"pairmatch embed people.csv --matcher couples --output {name}.npz"
        run(f"{embed} --store {name}.sqlite")
    run(examples.pop(("forget",)))  # before the people of the example leave the gallery
    for line in examples.values():
        run(line)
    assert {"sweep", "vectors.parquet", "figures.json", "all.sqlite"} <= {
        item.name for item in scratch.iterdir()
    }

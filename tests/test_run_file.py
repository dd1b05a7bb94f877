"""Run files: `--config`, `pairmatch config`, and the run that a saved matcher records."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from pairmatch import Pairs
from pairmatch.cli import app
from pairmatch.cli.recording import Recorder
from pairmatch.cli.run_file import RESERVED, read_run_file, write_run
from pairmatch.cli.run_options import _RUN, Run, key_of, option_key
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.experiments.demo import draw_people


def run(line, code=0):
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == code, result.output
    return result.output


def every_command(group=None, path=()):
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, (*path, name))
        elif command.has_run_file:
            yield " ".join((*path, name)), command


COMMANDS = dict(every_command())


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text, name="run.yaml"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    return write


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_a_run_file_and_its_keys_are_unambiguous(name):
    params = [param for param in COMMANDS[name].params if param.name != "config"]
    assert len(params) == len(COMMANDS[name].params) - 1
    keys = [
        option_key(word)
        for param in params
        for word in (
            (*param.opts, *param.secondary_opts)
            if param.param_type_name == "option"
            else (param.name,)
        )
    ]
    assert len(set(keys)) == len(keys)
    assert not {*keys} & {*RESERVED, "config"}
    assert {key_of(param) for param in params} <= set(keys)


def test_all_problems_are_listed_in_the_order_of_lines(write):
    write(
        "command: fit\nseed: x\nsed: 3\nno-seen: yes\nseen: true\nfollow_links: maybe\n"
        "most-skipped: 7\nimages: [a, b]\nsplit-by: who\nloss:\nprompt: {a: b}\n"
        "head: !!python/x y\nhead: mlp\ndevice: tpu\n"
    )
    output = run("fit --config run.yaml", 2)
    lines = [line.strip(" -") for line in output.splitlines()]
    assert lines[0] == "Error: run.yaml cannot be used:"
    starts = [
        "line 2: seed: Input should be a valid integer",
        "line 3: there is no option 'sed'. Did you mean 'seed'?",
        "line 5: seen is the same option as no-seen on line 4",
        "line 6: follow_links: 'maybe' is neither true nor false",
        "line 7: most-skipped: ",
        "line 8: images takes one value, not a list",
        "line 9: split-by: 'who' is not one of 'component', 'people'",
        "line 10: loss has no value",
        "line 11: prompt is nested",
        "line 12: head has the tag tag:yaml.org,2002:python/x",
        "line 13: head stands on line 12 already",
        "line 14: device: The device 'tpu' cannot be used",
        "pairs is missing: add a line `pairs: …`",
    ]
    assert len(lines) - 1 == len(starts)
    for line, start in zip(lines[1:], starts, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it holds no lines `option: value`"),
        ("- fit\n", "it holds no lines `option: value`"),
        ("command: fit\n---\ncommand: fit\n", "expected a single document"),
        ("command: [fit\n", "while parsing a flow sequence"),
        ("command: &a [*a]\n", "command is nested"),
        ("a: " + "[" * 900, "nested too deeply"),
        (b"command: fit\nprompt: \xff\n", "invalid start byte"),
        ("seed: 3\n", "command is missing: add a line such as `command: fit`"),
        ("command: fit\n? [a]\n: b\n", "a key must be the name of an option"),
        ("command: evaluate\n", "is for the command 'evaluate', and this is 'fit'"),
        ("command: fit\nhead: " + "x" * 1_000_000, "more than 1,000,000"),
    ],
)
def test_what_is_no_run_file_is_refused(write, text, message):
    write(text)
    assert message in run("fit --config run.yaml", 2)


def test_a_missing_file_is_named():
    assert "missing.yaml: No such file" in run("plugins --config missing.yaml", 2)


def test_options_of_the_command_line_win_and_this_is_said(write):
    write("command: gallery info\ngallery: one\njson: true\n")
    output = run("gallery info two --config run.yaml", 2)
    assert "The command line overrides gallery of run.yaml." in output
    assert "two" in output.splitlines()[-1]
    assert "one" in run("gallery info --config run.yaml", 2)


def test_values_are_words_of_a_command_line(write):
    """Texts that YAML takes for booleans, dates and numbers; dashes; short names; lists."""
    write(
        "command: recommend\nmatcher: ~/couples\n--gallery: photos\nk: 007\nid: 2026-10-01\n"
        "attribute: [smoker=no, a=1e3]\nkeep_word: [NO, -x]\nwhere:\n  - age >= 25\n"
    )
    words = yaml.safe_load(run("config recommend --config run.yaml --mutual"))
    assert words == {
        "command": "recommend",
        "matcher": str(Path.home() / "couples"),
        "gallery": "photos",
        "keep-word": ["NO", "-x"],
        "attribute": ["smoker=no", "a=1e3"],
        "id": "2026-10-01",
        "k": "007",
        "where": ["age >= 25"],
        "mutual": True,
    }


def test_arguments_that_follow_those_of_the_command_line(write):
    write("command: gallery remove\ngallery: folder\nids: [anna, -ben]\n")
    words = yaml.safe_load(run("config gallery remove --config run.yaml"))
    assert words == {"command": "gallery remove", "gallery": "folder", "ids": ["anna", "-ben"]}
    words = yaml.safe_load(run("config gallery remove --config run.yaml other"))
    assert words["gallery"] == "other"
    assert words["ids"] == ["anna", "-ben"]


HARD = [
    "",
    " x ",
    "a: b",
    "- a",
    "#",
    "null",
    "~",
    "yes",
    "0x10",
    "1_000",
    "\t\x1b",
    "é\n\n",
    "'\"",
]


def test_texts_survive_a_run_file(write):
    write(write_run("recommend", {"attribute": HARD, "text": "a\nb", "k": "5"}))
    assert run("config recommend --config run.yaml") == (
        run("config recommend --config run.yaml --quiet").replace("quiet: true\n", "")
    )
    entries = {entry.key: entry for entry in read_run_file(Path("run.yaml")).entries}
    assert list(entries["attribute"].values) == HARD
    assert entries["text"].values == ("a\nb",)


@pytest.mark.parametrize(
    "address", ["postgresql://me:secret@host/people", "host=db password=secret", "http://a:b@c"]
)
def test_passwords_are_refused(address):
    with pytest.raises(ConfigurationError, match="--to holds a password") as caught:
        write_run("export", {"to": address})
    assert "secret" not in str(caught.value)


def test_config_checks_the_options():
    output = run("config fit pairs.csv --seed x --most-skipped 7", 2)
    assert "`pairmatch fit` does not take these options:" in output
    assert "seed: Input should be a valid integer" in output
    assert "most-skipped: " in output
    output = run("config fit pairs.csv --backbone clp --head mlp --metadata none --output x")
    assert "WARNING: Unknown backbone 'clp' on this machine. Did you mean 'clip'?" in output
    assert "head" not in output.split("command: fit")[0]
    assert "backbone: [clp]" in output  # another machine may have it
    assert "WARNING" not in run("config sweep pairs.csv --pooler 'mean layer=14' --head mlp,linear")
    assert "WARNING: Unknown head 'mpl'" in run("config sweep pairs.csv --head linear,mpl")
    assert "Unknown command 'fits'. Did you mean 'fit'?" in run("config fits", 2)
    assert "Unknown command ''" in run("config gallery", 2)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with drawn people and a matcher that a run file was written for."""
    folder = tmp_path_factory.mktemp("runs")
    draw_people(folder / "people", pairs=30, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(folder))
        options = "--backbone descriptor --set training.epochs=2 --no-compare --no-learning-curve"
        text = run(
            f"config fit {folder}/people/pairs.csv {options} --quiet --seed 5 --output couples"
        )
        (folder / "run.yaml").write_text(text)
        run("fit --config run.yaml")
    return folder


def test_a_run_is_repeated_word_for_word(fitted, monkeypatch):
    monkeypatch.chdir(fitted)
    monkeypatch.setenv("HOME", str(fitted))
    text = (fitted / "couples" / "run.yaml").read_text()
    recorded = yaml.safe_load(text)
    assert recorded["pairs"] == "~/people/pairs.csv"  # not where the folder of a person is
    assert recorded["seed"] == recorded["recorded"]["seed"] == 5
    assert str(fitted) not in text
    weights = (fitted / "couples" / "head.safetensors").read_bytes()
    output = run("fit --config couples/run.yaml --output again")
    assert "The command line overrides output of couples/run.yaml." in output
    assert "The head is bit for bit the recorded one." in output
    assert "Since the run was recorded" not in output
    assert (fitted / "again" / "head.safetensors").read_bytes() == weights
    again = yaml.safe_load((fitted / "again" / "run.yaml").read_text())
    assert again == {**recorded, "output": "again"}


def test_changed_data_and_versions_are_said(fitted, monkeypatch, tmp_path):
    monkeypatch.chdir(fitted)
    text = (fitted / "couples" / "run.yaml").read_text()
    changed = tmp_path / "run.yaml"
    changed.write_text(text.replace("threads: 1", "threads: 7").replace("torch: ", "torch: 0"))
    run_of_file = Run("fit", {}, read_run_file(changed))
    pairs = Pairs.read("people/pairs.csv")
    said = []
    monkeypatch.setattr("pairmatch.cli.recording.echo", lambda text, **_: said.append(text))
    token = _RUN.set(run_of_file)
    try:
        Recorder(5, [pairs, pairs])
        assert said[0] == "Since the run was recorded, the data changed (pairs, people, photos)."
        assert said[1].startswith("Since the run was recorded, torch changed from 0")
        assert "the number of threads changed from 7 to 1" in said[-1]
        changed.write_text(text.replace("threads: 1", "threads: many"))
        _RUN.set(Run("fit", {}, read_run_file(changed)))
        with pytest.raises(DataError, match=r"recorded\.threads: Input should be a valid integer"):
            Recorder(5, [pairs])
    finally:
        _RUN.reset(token)


def test_a_sweep_is_repeated_from_its_run_file(fitted, monkeypatch):
    monkeypatch.chdir(fitted)
    options = "--backbone descriptor --baseline frozen --learner ridge --repeats 1 --folds 2"
    options = options.replace("--learner ridge ", "--set training.epochs=1 ")
    run(f"sweep people/pairs.csv {options} --seed 3 --quiet --output swept")
    written = yaml.safe_load(Path("swept/run.yaml").read_text())
    assert written["command"] == "sweep"
    assert written["recorded"]["seed"] == 3
    assert "head" not in written["recorded"]
    output = run("sweep --config swept/run.yaml --output swept-again")
    assert "Since the run was recorded" not in output
    queries = [Path(folder, "queries.csv").read_text() for folder in ("swept", "swept-again")]
    assert queries[0] == queries[1]
    again = yaml.safe_load(Path("swept-again/run.yaml").read_text())
    assert again == {**written, "output": "swept-again"}


def test_help_reads_no_yaml():
    command = [sys.executable, "-X", "importtime", "-m", "pairmatch", "fit", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "--config FILE" in result.stdout
    assert " yaml" not in result.stderr
    assert "torch" not in result.stderr

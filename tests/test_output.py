"""Output of commands: any encoding, closed pipes, full disks, hostile texts, interruptions."""

import errno
import io
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import warnings

import pytest
import typer
from typer.testing import CliRunner

from pairmatch.cli import app
from pairmatch.cli.application import _describe
from pairmatch.cli.output import SafeStream, echo, echo_json, safe_output

FIT = "--backbone descriptor --metadata none --set training.epochs=1 --no-learning-curve"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with drawn people, a matcher and a gallery."""
    folder = tmp_path_factory.mktemp("made")
    os.environ.pop("PYTHONIOENCODING", None)
    for line in (
        f"demo --pairs 20 --output {folder / 'demo'} --quiet",
        f"gallery build {folder / 'demo'} {folder / 'demo' / 'people' / 'candidates.csv'} "
        f"--output {folder / 'gallery'} --store {folder / 'demo' / 'store.sqlite'} --quiet",
    ):
        result = CliRunner().invoke(app, shlex.split(line))
        assert result.exit_code == 0, result.output
    return folder


class Streams:
    """Standard output and standard error of one run, with an encoding."""

    def __init__(self, encoding):
        self.raw = (io.BytesIO(), io.BytesIO())
        self.streams = [
            io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline="\n")
            for raw in self.raw
        ]
        self.encoding = encoding

    @property
    def text(self):
        return "".join(raw.getvalue().decode(self.encoding) for raw in self.raw)


def run(line, monkeypatch, streams, code=0):
    """Runs a command with replaced streams."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        with pytest.raises(SystemExit) as end:
            app(shlex.split(line))
    assert end.value.code == code


def commands(folder):
    """One call of every command, with its exit code."""
    people = folder / "demo" / "people"
    store = f"--store {folder / 'demo' / 'store.sqlite'} --quiet"
    pairs = people / "pairs.csv"
    photo = people / "images" / "a0000.jpg"
    return {
        "help": ("--help", 0),
        "command help": ("fit --help", 0),
        "usage": ("fit --→", 2),
        "error": ("evaluate →… x.csv", 2),
        "doctor": ("doctor", 0),
        "plugins": ("plugins", 0),
        "fit": (f"fit {pairs} -o {folder / 'new'} {FIT} {store}", 0),
        "evaluate": (f"evaluate {folder / 'demo'} {pairs} {store}", 0),
        "recommend": (
            f"recommend {folder / 'demo'} --query {photo} --gallery {folder / 'gallery'} {store}",
            0,
        ),
        "sweep": (
            f"sweep {pairs} --backbone descriptor --metadata none --plan --set training.epochs=1 "
            f"--note → {store}",
            0,
        ),
        "slates": (f"slates {folder / 'gallery'} -k 2 -o {folder / 'slates'}", 0),
        "info": (f"gallery info {folder / 'gallery'}", 0),
        "annotate": (
            f"annotate {pairs} --metadata measured --export {folder / 'metadata.csv'} {store}",
            0,
        ),
    }


@pytest.mark.parametrize("encoding", ["cp1252", "cp949", "ascii"])
def test_every_command_prints_in_every_encoding(made, monkeypatch, encoding):
    for name, (line, code) in commands(made).items():
        streams = Streams(encoding)
        run(line, monkeypatch, streams.streams, code)
        assert streams.text.strip(), name
        assert "Traceback" not in streams.text
        if name == "evaluate" and encoding != "cp949":  # cp949 has the arrow
            assert "a -> b" in streams.text
        if name == "fit":
            assert (made / "new" / "report.html").exists()
            shutil.rmtree(made / "new")


class FailingStream(io.StringIO):
    """A stream whose writes fail, as those to a closed pipe or a full disk do."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, text):
        raise OSError(self.number, os.strerror(self.number))


def test_every_command_ends_with_a_closed_pipe(made, monkeypatch):
    for name, (line, code) in commands(made).items():
        run(line, monkeypatch, [FailingStream(errno.EPIPE), FailingStream(errno.EPIPE)], code)
        if name == "fit":
            assert (made / "new" / "report.html").exists()
            shutil.rmtree(made / "new")


@pytest.mark.parametrize("name", ["help", "doctor", "fit"])
def test_output_that_a_reader_misses_is_an_error(made, monkeypatch, name):
    errors = io.StringIO()
    run(commands(made)[name][0], monkeypatch, [FailingStream(errno.ENOSPC), errors], 2)
    assert "could not be printed: No space left on device." in errors.getvalue()
    if name == "fit":
        assert (made / "new" / "report.html").exists()
        shutil.rmtree(made / "new")


def test_closed_standard_streams_are_no_error(made, monkeypatch):
    for line, code in commands(made).values():
        run(line, monkeypatch, [None, None], code)
    shutil.rmtree(made / "new")


def command(line, folder, **options):
    """A process of the command, in a folder."""
    return subprocess.run(
        ["/bin/sh", "-c", f"{shlex.quote(sys.executable)} -m pairmatch {line}"],
        cwd=folder,
        timeout=120,
        check=False,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1252", "OMP_NUM_THREADS": "1"},
        **options,
    )


def test_a_process_saves_its_results_whatever_happens_to_its_output(made):
    pairs = made / "demo" / "people" / "pairs.csv"
    done = command(f"fit {pairs} {FIT} --store store.sqlite --output one > log", made)
    assert done.returncode == 0, done.stderr
    assert b"a -> b" in (made / "log").read_bytes()
    assert (made / "one" / "report.html").exists()
    # All standard streams closed: the files that are opened must not get their numbers
    store = made / "demo" / "store.sqlite"
    line = f"annotate {pairs} --metadata measured --store {store} --export closed.csv"
    assert command(f"{line} >&- 2>&- <&-", made).returncode == 0
    assert (made / "closed.csv").exists()
    done = command("plugins > /dev/full", made)
    assert done.returncode == 2
    assert b"No space left on device" in done.stderr
    assert b"Exception ignored" not in done.stderr
    done = command("plugins | head -c 1", made)
    assert done.stderr == b""


def test_characters_that_an_encoding_lacks_have_a_fallback():
    raw = io.BytesIO()
    stream = SafeStream(io.TextIOWrapper(raw, encoding="latin-1"))
    stream.write("é → ✓ 김 \udcff\n")
    stream.flush()
    assert raw.getvalue() == b"\xe9 -> + \\uae40 \\udcff\n"


def test_json_is_never_changed_by_an_encoding(monkeypatch):
    value = {"id": "a→b\x9b\u202e\n"}
    for encoding in ("utf-8", "cp1252", "ascii", "cp949"):
        streams = Streams(encoding)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams.streams[0])
            with safe_output():
                echo_json(value)
        assert json.loads(streams.text) == value
        assert not set(streams.text) & {"\x9b", "\u202e"}
    with monkeypatch.context() as patch:
        streams = Streams("utf-8")
        patch.setattr(sys, "stdout", streams.streams[0])
        with safe_output():
            echo_json({"id": "Zoë"})
    assert streams.text == '{"id": "Zoë"}\n'


def test_warnings_and_log_messages_are_escaped_lines(monkeypatch):
    streams = Streams("utf-8")
    before = warnings.formatwarning
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", streams.streams[1])
        with safe_output():
            shown = warnings.formatwarning("the file \x1b[31mred", UserWarning, "x.py", 1)
            logging.getLogger("pairmatch").warning("server: %s", "\x1b]0;x\x07")
    assert shown == "WARNING: the file \\x1b[31mred\n"
    assert streams.text == "WARNING: server: \\x1b]0;x\\x07\n"
    assert warnings.formatwarning is before


def test_a_message_that_its_library_writes_itself_is_written_once(monkeypatch):
    streams = Streams("utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", streams.streams[1])
        library = logging.getLogger("a_library")
        handler = logging.StreamHandler(sys.stderr)
        library.addHandler(handler)
        try:
            with safe_output():
                logging.getLogger("a_library.part").warning("retrying")
                logging.getLogger("another_library").warning("slow")
        finally:
            library.removeHandler(handler)
    assert streams.text == "retrying\nWARNING: slow\n"


def test_log_messages_list_problems_in_indented_lines(monkeypatch):
    streams = Streams("utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", streams.streams[1])
        with safe_output():
            logging.getLogger("pairmatch").warning("left out 2:\n  - one\n  - two\nERROR: forged")
    assert streams.text == "WARNING: left out 2:\n  - one\n  - two\\x0aERROR: forged\n"


def test_messages_have_the_width_of_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    echo("Error: one two three four five")
    assert capsys.readouterr().out == "Error: one two three\nfour five\n"
    monkeypatch.delenv("COLUMNS")  # a pipe
    echo("Error: one two three four five")
    assert capsys.readouterr().out == "Error: one two three four five\n"


def test_messages_are_one_line_unless_they_say_otherwise(capsys):
    echo("a\nError: no\x1b[m")
    echo("a\nb\x1b[m", lines=True)
    assert capsys.readouterr().out == "a\\x0aError: no\\x1b[m\na\nb\\x1b[m\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), "/x/y: No space left"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files: raise the limit"),
        (PermissionError(errno.EACCES, "Permission denied", "a\nb"), r"a\x0ab: Permission denied"),
        (OSError(errno.EROFS, "Read-only file system", b"/r\xff"), r"/r\udcff: Read-only file"),
        (OSError(errno.EIO, "Input/output error", 3), "Input/output error."),
    ],
)
def test_errors_of_the_system_name_the_path_and_the_fix(error, message):
    assert _describe(error).startswith(message)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 2, "Error: /x: No space left"),
        (MemoryError("Unable to allocate 745 GiB"), 2, "not enough memory (Unable to allocate"),
        (KeyboardInterrupt(), 130, "Interrupted. Everything that is already in the store"),
        (typer.BadParameter("bad\x1b[2J"), 2, r"bad\x1b[2J"),
    ],
)
def test_how_a_command_ends(monkeypatch, error, code, words):
    def fail():
        raise error

    monkeypatch.setattr("pairmatch.core.registry.plugins", fail)
    result = CliRunner().invoke(app, ["plugins"])
    assert result.exit_code == code
    assert words in result.output
    assert "\x1b[2J" not in result.output


def test_a_network_error_without_a_number_is_no_error_of_the_system(monkeypatch):
    def fail():
        raise ConnectionError("a bug")

    monkeypatch.setattr("pairmatch.core.registry.plugins", fail)
    result = CliRunner().invoke(app, ["plugins"])
    assert result.exit_code == 1
    assert isinstance(result.exception, ConnectionError)


def test_ctrl_c_ends_a_process_whose_threads_wait(tmp_path):
    code = (
        "import os, signal, sys, threading, time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "import pairmatch.core.registry as registry\n"
        "pool = ThreadPoolExecutor()\n"
        "def wait():\n"
        "    pool.submit(time.sleep, 600)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(600)\n"
        "registry.plugins = wait\n"
        "sys.argv = ['pairmatch', 'plugins']\n"
        "from pairmatch.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.startswith("Interrupted.")


#: Texts that move the cursor, retitle a window, forge a line, reverse text, or are markup of rich.
HOSTILE = [
    "\x1b[2J\x1b[H",
    "\x1b]0;owned\x07",
    "x\nSaved the matcher in /etc.",
    "x\r\x9b31mred",
    "gpj\u202eexe",
    "[red]x[/red]",
    "stray\udcff",
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_ids_and_paths_are_escaped_wherever_they_are_printed(made, tmp_path, hostile):
    folder = tmp_path / hostile.replace("/", "-")
    folder.mkdir()
    people = made / "demo" / "people" / "images"
    for number in range(3):
        shutil.copy(people / f"b000{number}.jpg", folder / f"{number}.jpg")
    common = ["--store", str(made / "demo" / "store.sqlite"), "--quiet"]
    matcher = str(made / "demo")
    photo = ["--query", str(people / "a0000.jpg")]
    calls = [
        (["recommend", matcher, *photo, "--gallery", str(folder), *common], 0),
        (["recommend", matcher, *photo, "--gallery", str(folder / "gone"), *common], 2),
        (["evaluate", str(folder), "x.csv"], 2),
        (["fit", str(folder / "gone.csv"), "-o", str(tmp_path / "new")], 2),
        (["forget", hostile, *common[:2]], 2),
        (["doctor", "--store", str(folder / "s.sqlite")], 0),
        (["gallery", "info", str(folder)], 2),
        (["fit", "x.csv", "-o", str(folder)], 2),
        ([f"--{hostile}"], 2),
        ([hostile], 2),
        (["recommend", matcher, *photo, "--gallery", matcher, "--where", hostile, *common], 2),
        (["recommend", matcher, *photo, "--gallery", matcher, "--attribute", hostile, *common], 2),
        (["evaluate", matcher, "x.csv", "--set", hostile, *common], 2),
        (["fit", "x.csv", "-o", str(tmp_path / "new"), "--backbone", hostile], 2),
        (["fit", "x.csv", "-o", str(tmp_path / "new"), "--device", hostile], 2),
    ]
    for arguments, code in calls:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == code, (arguments, result.output, result.exception)
        text = result.output
        assert not set(text) & set("\x1b\x07\x9b\r\u202e\udcff"), ascii(text)
        assert not [line for line in text.splitlines() if line.startswith("Saved the matcher")]
        if hostile == "[red]x[/red]" and arguments[0] in ("doctor", "forget", "gallery"):
            assert "[red]x[" in text  # markup is printed as it is


@pytest.mark.parametrize("option", ["--pairs", "--seed"])
def test_numbers_beyond_any_use_are_refused_at_once(option, tmp_path):
    result = CliRunner().invoke(app, ["demo", "-o", str(tmp_path / "demo"), option, str(10**30)])
    assert result.exit_code == 2, result.output
    assert not (tmp_path / "demo").exists()

"""What a command writes is checked before it starts; what it only reads is never created."""

import os
import resource
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from typer.testing import CliRunner

from pairmatch import Matcher, Profile
from pairmatch.cli import app
from pairmatch.core.devices import resolve_device
from pairmatch.core.errors import ConfigurationError
from pairmatch.gallery import Gallery, forget
from pairmatch.io.files import expand_user, write_file
from pairmatch.io.outputs import MARKER
from pairmatch.io.store import Store, store_path
from pairmatch.report import write_report


def run(line, code=2):
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def entries(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def foreign(tmp_path):
    """A folder with files of somebody else, among them a FIFO."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    (folder / "training.arrow").write_bytes(b"mine")
    os.mkfifo(tmp_path / "pipe.csv")
    return folder


# The pairs, matchers and galleries are missing: only a check before any reading gives these errors.
WRITERS = [
    ("demo --output {}", "folder"),
    ("fit no.csv --output {}", "folder"),
    ("sweep no.csv --output {}", "folder"),
    ("slates no --output {}", "folder"),
    ("gallery build no no.csv --output {}", "folder"),
    ("fit no.csv -o new --json {}", "file"),
    ("evaluate no no.csv --json {}", "file"),
    ("annotate no.csv --export {}", "file"),
    ("fit no.csv -o new --store {}", "store"),
    ("evaluate no no.csv --store {}", "store"),
    ("recommend no --query no.jpg --gallery no --store {}", "store"),
    ("sweep no.csv --store {}", "store"),
    ("annotate no.csv --store {}", "store"),
    ("gallery build no no.csv --output new --store {}", "store"),
    ("gallery add no no no.csv --store {}", "store"),
]


@pytest.mark.parametrize(("line", "kind"), WRITERS)
def test_outputs_are_checked_before_anything_is_read(foreign, tmp_path, monkeypatch, line, kind):
    monkeypatch.chdir(tmp_path)
    before = entries(tmp_path)
    places = {
        "project/README.md/deep/x.csv": "not a folder",
        "pipe.csv/x.csv": "not a folder",
        "/proc/nowhere/x.csv": "no file can be created in /proc",
        f"{'x' * 300}.csv": "File name too long",
    }
    if kind == "folder":
        places |= {
            "project": "holds files that pairmatch did not write (README.md, training.arrow)"
        }
        places |= {"project/README.md": "is a file, and a folder is needed"}
    else:
        places |= {"pipe.csv": "not a regular file"}
    if kind == "file" and "--export" not in line:
        places |= {"project": "is a folder"}
    if kind == "file":
        places |= {"gone/x.csv": "its folder does not exist"}
    if kind == "store":
        places |= {"~nouser/x.sqlite": "there is no such user"}
    for place, words in places.items():
        text = run(line.format(place))
        assert words in text, (place, text)
        assert place[:100] in text
    assert entries(tmp_path) == before


@pytest.mark.parametrize("name", ["m.txt", "m", "m.parquet"])
def test_the_format_of_an_export_is_checked_before_anything_is_read(tmp_path, name):
    assert "exported as .csv or .jsonl" in run(f"annotate no.csv --export {tmp_path / name}")


@pytest.mark.parametrize(
    ("line", "place", "content", "words"),
    [
        ("evaluate no no.csv --json {}", "pairs.csv", "id_a,id_b\n", "figures of an evaluation"),
        ("evaluate no no.csv --json {}", "package.json", '{"name": 1}', "figures of an evaluation"),
        ("fit no.csv -o new --json {}", "README.md", "mine", "figures of an evaluation"),
        ("annotate no.csv --export {}", "people.csv", "id,image,text\n", "exported metadata"),
        (
            "annotate no.csv --export {}",
            "p.jsonl",
            '{"id": "a", "image": "b"}',
            "exported metadata",
        ),
        ("fit no.csv -o new --store {}", "pairs.csv", "id_a,id_b\n", "file is not a database"),
        ("annotate no.csv --store {}", "notes", "mine", "file is not a database"),
        ("recommend no --query q --gallery g --store {}", "a.db", "mine", "is not a database"),
    ],
)
def test_a_file_of_somebody_else_is_not_replaced(
    tmp_path, monkeypatch, line, place, content, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / place).write_text(content)
    assert words in run(line.format(place))
    assert entries(tmp_path) == [place]
    assert (tmp_path / place).read_text() == content


@pytest.mark.parametrize(
    ("line", "content"),
    [
        ("evaluate no no.csv --json {}.json", '{\n  "queries": 9,'),
        ("evaluate no no.csv --json {}.json", ""),
        ("annotate no.csv --metadata measured --export {}.csv", "id,photo,generator,x\n"),
        ("annotate no.csv --metadata measured --export {}.jsonl", '{"id": "a", "photo": "b"}'),
    ],
)
def test_an_earlier_output_is_replaced(tmp_path, monkeypatch, line, content):
    monkeypatch.chdir(tmp_path)
    Store("s.sqlite").close()
    suffix = line.rpartition("{}")[2]
    (tmp_path / f"mine{suffix}").write_text(content)
    text = run(f"{line.format('mine')} --store s.sqlite")
    assert "no.csv" in text or "no holds no saved matcher" in text  # the check has passed
    assert "something else" not in text


@pytest.mark.parametrize(
    "places",
    [
        "-o new --json new",
        "-o new --json new/matcher.json",
        "-o new --json ./new/../new/report.json",
        "-o new --json s.sqlite --store s.sqlite",
    ],
)
def test_two_outputs_in_one_place_are_refused_before_anything_is_read(
    tmp_path, monkeypatch, places
):
    monkeypatch.chdir(tmp_path)
    assert "the command writes something else there" in run(f"fit no.csv {places}")
    assert entries(tmp_path) == []


def test_figures_may_be_in_the_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no.csv: No such file" in run(
        "fit no.csv --backbone descriptor -o new --json new/f.json"
    )


def test_home_folders_of_outputs_are_expanded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    run("demo --pairs 20 --output=~/couples --quiet", code=0)
    assert (tmp_path / "home" / "couples" / "matcher.json").is_file()
    assert "there is no such user" in run("fit no.csv -o ~nouser/x")
    assert "there is no such user" in run("evaluate no no.csv --json ~nouser/x.json")
    assert not (tmp_path / "~").exists()
    assert not (tmp_path / "~nouser").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pkg.html", "pkg.json holds something else than figures of a report"),
        ("folder", "is a folder"),
        ("pkg.json/x.html", "is not a folder"),
        ("/proc/nowhere.html", "no file can be created"),
    ],
)
def test_a_report_replaces_nothing_of_somebody_else(tmp_path, name, words):
    (tmp_path / "pkg.json").write_text('{"name": "mine"}')
    (tmp_path / "folder").mkdir()
    before = entries(tmp_path)
    with pytest.raises(ConfigurationError, match=words):
        write_report(tmp_path / name, None)  # refused before the report is looked at
    assert entries(tmp_path) == before
    assert (tmp_path / "pkg.json").read_text() == '{"name": "mine"}'


def test_a_folder_of_another_kind_is_refused(tmp_path):
    (tmp_path / MARKER).write_text('{"kind": "gallery"}')
    text = run(f"fit no.csv --output {tmp_path}")
    assert "holds a gallery of pairmatch, not a matcher" in text


def test_a_failed_command_leaves_no_folder(tmp_path):
    run(f"fit {tmp_path / 'no.csv'} --backbone descriptor --output {tmp_path / 'm'}")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("device", ["cuda:7", "cuda:99", "tpu", "banana", "meta", "cpu:x", ""])
def test_a_device_that_does_not_compute_is_an_error_at_once(device):
    with pytest.raises(ConfigurationError, match=r"cannot be used.*one of this machine: cpu"):
        resolve_device(device)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Matcher(backbone="descriptor", metadata=None, device=device)


def test_devices_that_compute_are_accepted():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize(
    "line",
    [
        "fit no.csv -o new",
        "evaluate no no.csv",
        "recommend no --query no.jpg --gallery no",
        "sweep no.csv",
        "gallery build no no.csv --output new",
        "gallery add no no no.csv",
    ],
)
def test_every_command_checks_its_device_before_it_reads(line):
    assert "The device 'banana' cannot be used" in run(f"{line} --device banana")


@pytest.mark.parametrize("name", ["typo.sqlite", "typo", "deep/typo.sqlite"])
def test_reading_commands_create_no_store(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "pairs.csv").write_text("id_a,image_a,text_a,id_b,image_b,text_b\na,,hi,b,,ho\n")
    text = run(f"forget anna --store {name}")
    assert f"The store {store_path(name)} does not exist: name another one" in text
    run(f"doctor --store {name}", code=0)
    text = run(f"annotate pairs.csv --metadata measured --export m.csv --store {name}")
    assert "does not exist" in text
    text = run(f"annotate pairs.csv --metadata measured --dry-run --store {name}", code=0)
    assert text == "0 photos to submit, 0 already answered.\n"
    assert entries(tmp_path) == ["a.png", "pairs.csv"]
    with pytest.raises(OSError, match="does not exist"):
        Store(name, create=False)


def test_the_default_store_is_not_created_by_forget(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "does not exist" in run("forget anna")
    assert entries(tmp_path) == []


@pytest.fixture
def places(tmp_path, hash_backbone):
    """A store with anna and ben, and a gallery with ben and cleo."""
    people = [Profile(name, text=f"text of {name}") for name in ("anna", "ben", "cleo")]
    with Store(tmp_path / "s.sqlite") as store:
        store.link([("anna", "1"), ("ben", "2")])
        store.put_corrections({"dora": {"hobby": "chess"}})
    gallery = Gallery.of(people[1:], torch.eye(2, 8).numpy())
    gallery.save(tmp_path / "gallery")
    return tmp_path


@pytest.mark.parametrize(
    ("ids", "unknown"),
    [
        (["anna"], []),
        (["dora", "cleo"], []),
        (["nobody"], ["nobody"]),
        (["ben", "ANNA", "nobody", "anna", "nobody"], ["ANNA", "nobody"]),
    ],
)
def test_ids_that_are_nowhere_are_named_after_all_others_are_erased(places, ids, unknown):
    names = " ".join(ids)
    code = 2 if unknown else 0
    text = run(f"forget {names} --store {places / 's.sqlite'} --gallery {places / 'gallery'}", code)
    expected = f"Found nowhere: {', '.join(map(repr, unknown))}."
    assert (expected in text) == bool(unknown)
    with Store(places / "s.sqlite") as store:
        assert store.known(ids) == set()
    opened = Gallery.open(places / "gallery")
    assert not [name for name in ids if name in opened]
    # A second call finds none of them
    with Store(places / "s.sqlite") as store:
        erased = forget(ids, store=store, galleries=[places / "gallery"])
    assert erased.unknown == tuple(dict.fromkeys(ids))


def test_only_named_galleries_need_no_store(places, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(places / "cache"))
    run(f"forget cleo --gallery {places / 'gallery'}", code=0)
    assert not (places / "cache").exists()
    assert "holds no gallery" in run(f"forget ben --gallery {places / 'typo'}")


def test_home_folders_that_do_not_exist_are_an_error(monkeypatch, tmp_path):
    with pytest.raises(ConfigurationError, match="~nouser/x: there is no such user"):
        expand_user("~nouser/x")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_user("~/x") == tmp_path / "x"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store_path() == tmp_path / ".cache" / "pairmatch" / "store.sqlite"


@pytest.mark.parametrize("name", ["a\0b.sqlite", "a\ud800.sqlite"])
def test_names_that_no_file_can_have_are_an_error(name):
    with pytest.raises(ConfigurationError, match="no file can have this name"):
        Store(name)


@contextmanager
def small_files(limit):
    """No file may grow beyond a number of bytes, as on a full disk; writing fails with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["a.json", "x" * 250, "é" * 122])
def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path, name):
    path = tmp_path / name
    write_file(path, b"old")
    with small_files(1000), pytest.raises(OSError, match="File too large") as caught:
        write_file(path, bytes(2000))
    assert caught.value.filename == str(path)
    with pytest.raises(OSError, match="No such file") as caught:
        write_file(tmp_path / "gone" / name, b"")
    assert caught.value.filename == str(tmp_path / "gone" / name)
    assert entries(tmp_path) == [name]
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_a_message_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("demo --pairs 20 --output demo --quiet", code=0)
    before = entries(tmp_path)
    pairs = "demo/people/pairs.csv"
    fit = f"fit {pairs} --backbone descriptor --metadata none --set training.epochs=1 -o new"
    with small_files(50_000):  # the log of the store is small, the head is not
        text = run(f"{fit} --store demo/store.sqlite --quiet")
    assert "File too large: raise the limit" in text
    assert "Test pairs of people" in text  # the evaluation is printed all the same
    assert entries(tmp_path) == before
    with Store("demo/store.sqlite", create=False) as store:
        assert store.counts()["features"] == 40


def test_a_deleted_current_folder_is_a_message(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    for line in ("doctor", "gallery info g", "fit p.csv -o out", "forget a --store s.sqlite"):
        assert "The current folder cannot be used" in run(line)


def test_a_user_without_a_home_folder_is_told_what_to_name(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # no user of this machine
    for line in ("forget a", "evaluate no no.csv", "annotate no.csv"):
        assert "name a store with `store=` (--store), or set HOME" in run(line)
    assert "name a store" in run("doctor", code=0)


def test_places_without_permission_are_named(tmp_path):
    prefix = []
    if os.getuid() == 0:  # the superuser may read everything, unless the capability is dropped
        prefix = [shutil.which("setpriv"), "--bounding-set=-dac_override,-dac_read_search"]
        if prefix[0] is None:
            pytest.skip("needs setpriv, or another user than root")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    for arguments in (
        ["gallery", "info", str(closed / "g")],
        ["fit", "p.csv", "-o", str(closed / "m")],
    ):
        done = subprocess.run(
            [*prefix, sys.executable, "-m", "pairmatch", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("Error: ")
        assert str(closed) in done.stderr
        assert "Permission denied" in done.stderr


@pytest.mark.parametrize("content", [None, b"", b"no photo"])
def test_the_query_photo_is_read_before_anything_else(tmp_path, content):
    photo = tmp_path / "q.jpg"
    if content is not None:
        photo.write_bytes(content)
    text = run(f"recommend no --query {photo} --gallery no")
    assert "The photo of the query person cannot be read:" in text
    assert str(photo) in text

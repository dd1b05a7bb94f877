"""Replacing several files of a folder: all or none, whatever happens in between."""

import os
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from pairmatch.io.files import write_file
from pairmatch.io.replacing import (
    NEXT,
    current_file,
    remove_leftovers,
    replace_file,
    replace_files,
)

OLD = {"a.bin": b"old a", "b.json": b"old b"}
NEW = {"a.bin": b"new a" * 1000, "b.json": b"new b"}


def current(folder):
    return {name: current_file(folder, name).read_bytes() for name in OLD}


def test_files_are_replaced_and_others_kept(tmp_path):
    (tmp_path / "report.html").write_text("of somebody else")
    replace_files(tmp_path, OLD)
    replace_files(tmp_path, NEW, private=["a.bin"])
    assert current(tmp_path) == NEW
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.bin", "b.json", "report.html"]
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "b.json").stat().st_mode) & 0o400


# Ends the process at the n-th file operation, as a SIGKILL does: nothing is cleaned up
KILLS = """
import os, sys
from pathlib import Path
from pairmatch.io.replacing import current_file, replace_files

folder = Path(sys.argv[1])
old = {"a.bin": b"old a", "b.json": b"old b"}
new = {"a.bin": b"new a" * 1000, "b.json": b"new b"}
names = {"a.bin", "b.json", "notes.txt"}
(folder / "notes.txt").write_text("mine")
kept = 0
point = 0
while True:
    replace_files(folder, old)
    assert {item.name for item in folder.iterdir()} == names, "leftovers"
    child = os.fork()
    if child == 0:
        left = point
        def hook(event, _):
            global left
            if event.startswith(("open", "os.", "shutil.")) and event != "os.listdir":
                if not left:
                    os._exit(9)
                left -= 1
        sys.addaudithook(hook)
        replace_files(folder, new)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    state = {name: current_file(folder, name).read_bytes() for name in old}
    assert state in (old, new), (point, state)
    assert (folder / "notes.txt").read_text() == "mine"
    kept += state == old
    if status == 0:
        assert state == new
        print(point, kept)
        break
    point += 1
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_file_operation_leaves_all_old_or_all_new_files(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    points, kept = map(int, run.stdout.split())
    assert points > 10
    assert 5 < kept < points  # kills before and after the moment at which the new files count


def test_a_failure_leaves_the_old_files(tmp_path, monkeypatch):
    replace_files(tmp_path, OLD)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_files(tmp_path, NEW)
    monkeypatch.undo()
    assert current(tmp_path) == OLD
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.bin", "b.json"]


def test_files_that_count_are_moved_by_the_next_run(tmp_path):
    replace_files(tmp_path, OLD)
    (tmp_path / NEXT).mkdir()
    (tmp_path / NEXT / "b.json").write_bytes(NEW["b.json"])  # a.bin was moved before the kill
    (tmp_path / "a.bin").write_bytes(NEW["a.bin"])
    assert current(tmp_path) == NEW
    remove_leftovers(tmp_path, OLD)
    assert not (tmp_path / NEXT).exists()
    assert current(tmp_path) == NEW


def test_only_leftovers_of_ours_are_removed(tmp_path):
    write_file(tmp_path / "a.bin", b"content")
    others = [
        ".a.bin.swp",
        ".other.bin.abcdefgh",
        "a.bin.abcdefgh",
        ".pairmatch-news",
        ".a.bin.ABCDEFGH",
    ]
    for name in others:
        (tmp_path / name).write_text("of somebody else")
    (tmp_path / ".a.bin.abcd_fg1").write_text("of a killed run")
    (tmp_path / ".pairmatch-new-x1").mkdir()
    (tmp_path / ".pairmatch-new-x1" / "a.bin").write_text("of a killed run")
    remove_leftovers(tmp_path, ["a.bin"])
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted([*others, "a.bin"])


def test_files_in_work_are_not_removed(tmp_path):
    code = (
        "import sys; from pathlib import Path; from pairmatch.io import replacing\n"
        "replacing.remove_leftovers(Path(sys.argv[1]), ['a.bin'])"
    )

    def remove_in_another_process(path):
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
        return real(path)

    real = os.fsync
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", remove_in_another_process)
        replace_files(tmp_path, {"a.bin": b"content"})
    assert (tmp_path / "a.bin").read_bytes() == b"content"


@pytest.mark.parametrize("name", ["export.csv", ".pairmatch", "a-00000.parquet", "with space.json"])
def test_a_file_is_written_without_what_killed_writes_of_it_left(tmp_path, name):
    killed = """
import os, sys
from pathlib import Path
from pairmatch.io import files

Path.replace = lambda *_: os._exit(9)
files.write_file(Path(sys.argv[1]), b"half")
"""
    target = tmp_path / name
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", killed, target]).returncode == 9
    others = ["other.a1b2c3d4", f".other-{name}.a1b2c3d4", f".{name}.A1B2"]
    for other in others:
        (tmp_path / other).write_text("of somebody else")
    assert len(list(tmp_path.iterdir())) == 5
    replace_file(target, b"whole", private=True)
    assert target.read_bytes() == b"whole"
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted([name, *others])


def test_a_cleaning_that_comes_before_the_lock_costs_nothing(tmp_path, monkeypatch):
    """Between its creation and its lock, a temporary file looks like one that was left behind."""
    for name in ("mkstemp", "mkdtemp"):
        create, calls = getattr(tempfile, name), []

        def cleaned(*args, create=create, calls=calls, **options):
            created = create(*args, **options)
            calls.append(created)
            if len(calls) < 3:
                remove_leftovers(tmp_path, ["x.json"])
            return created

        monkeypatch.setattr(tempfile, name, cleaned)
        replace_files(tmp_path, {"x.json": name.encode()})
        write_file(tmp_path / "x.json", name.encode())
        assert len(calls) >= 3
        assert (tmp_path / "x.json").read_bytes() == name.encode()
        assert [item.name for item in tmp_path.iterdir()] == ["x.json"]
        monkeypatch.undo()


@pytest.mark.parametrize("together", [False, True])
def test_threads_write_the_same_file(tmp_path, together):
    def work(number):
        for _ in range(40):
            if together:
                replace_files(tmp_path, {"x": b"%d" % number, "y": b"%d" % number})
            else:
                replace_file(tmp_path / "x", b"%d" % number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert (tmp_path / "x").read_bytes() in (b"0", b"1", b"2", b"3")
    assert {item.name for item in tmp_path.iterdir()} <= {"x", "y"}

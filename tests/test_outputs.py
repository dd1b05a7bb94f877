"""Folders of outputs carry a mark; places that hold anything else are refused unchanged."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from pairmatch.core.errors import ConfigurationError
from pairmatch.io.outputs import (
    MARKER,
    check_output_file,
    check_output_folder,
    claim_folder,
    folder_kind,
    foreign_names,
)
from pairmatch.io.store import Store


def test_folders_are_created_marked_and_claimed_again(tmp_path):
    folder = tmp_path / "new" / "matcher"
    check_output_folder(folder, "matcher")
    assert not folder.parent.exists()
    claim_folder(folder, "matcher")
    assert folder_kind(folder) == "matcher"
    (folder / "README.md").write_text("a card")
    claim_folder(folder, "matcher")
    with pytest.raises(ConfigurationError, match="holds a matcher of pairmatch, not a sweep"):
        claim_folder(folder, "sweep")


@pytest.mark.parametrize("url", ["s3://bucket/m", "https://example.org/m", "gs://bucket"])
def test_a_url_is_refused_instead_of_becoming_a_folder(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for check in (check_output_file, lambda path: check_output_folder(path, "matcher")):
        with pytest.raises(ConfigurationError, match="is a URL, and files are written to a disk"):
            check(Path(url))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["README.md", "history.csv", "training.arrow", ".x.arrow.part", ".git", "matcher.json"]
)
def test_folders_of_others_are_refused_unchanged(name, tmp_path):
    (tmp_path / name).write_text("mine")
    for check in (check_output_folder, claim_folder):
        with pytest.raises(ConfigurationError, match=f"did not write .*{name}.*name a new or"):
            check(tmp_path, "matcher")
    assert [item.name for item in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_many_foreign_names_are_counted_and_printable(tmp_path):
    for name in ("a", "b\x1b[31m", "c", "d", "e"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigurationError, match=r"\(a, b\\x1b\[31m, c and 2 more\)"):
        check_output_folder(tmp_path, "sweep")


def test_what_systems_and_killed_runs_leave_is_not_foreign(tmp_path):
    for name in (".DS_Store", "Thumbs.db", "..pairmatch.ab12_xyz"):
        (tmp_path / name).touch()
    (tmp_path / ".pairmatch-new-abc").mkdir()
    with Store(tmp_path / "store.sqlite") as store:
        store.put_features({"k": np.ones(2, np.float32)})
        assert (tmp_path / "store.sqlite-wal").exists()
        assert foreign_names(tmp_path) == []
    claim_folder(tmp_path, "matcher")
    (tmp_path / "app.sqlite").write_bytes(b"SQLite format 3\0" + bytes(200))
    assert foreign_names(tmp_path) == ["app.sqlite"]


@pytest.mark.parametrize("mark", ["", "{", "[]", '{"kind": 3}', "[" * 900])
def test_marks_that_we_did_not_write_do_not_count(mark, tmp_path):
    (tmp_path / MARKER).write_text(mark)
    (tmp_path / "data.csv").touch()
    assert folder_kind(tmp_path) is None
    with pytest.raises(ConfigurationError, match=r"did not write \(data.csv\)"):
        claim_folder(tmp_path, "matcher")


def test_places_that_cannot_hold_the_output_are_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "file", "is a file, and a folder is needed"),
        (tmp_path / "file" / "below", "is not a folder"),
        (tmp_path / "link", "is a link to nothing"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            check_output_folder(path, "matcher")
    for path, words in (
        (tmp_path, "is a folder: name a file"),
        (tmp_path / "pipe", "is not a regular file"),
        (tmp_path / "file" / "below.json", "is not a folder"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            check_output_file(path)
    check_output_file(tmp_path / "new.json")
    assert not (tmp_path / "new.json").exists()


def test_earlier_folders_are_accepted_by_their_content(tmp_path):
    (tmp_path / "matcher.json").write_text(json.dumps({"format": 1}))
    claim_folder(tmp_path, "matcher", is_earlier=lambda folder: (folder / "matcher.json").exists())
    assert folder_kind(tmp_path) == "matcher"

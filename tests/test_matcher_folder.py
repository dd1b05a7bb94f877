"""Saved matchers: all files or none, nothing of others replaced, and damaged files refused."""

import copy
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save

from pairmatch import Matcher, Pair, Pairs, Profile, TrainingConfig
from pairmatch.core.errors import ConfigurationError, PairmatchError, SavedMatcherError
from pairmatch.matcher.files import is_earlier_matcher
from pairmatch.matcher.folder import _csv, _history, read_folder, write_folder

ARCHIVE = Path(__file__).parent / "files" / "before_folders.zip"
FILES = ["README.md", "head.safetensors", "history.csv", "matcher.json"]


def new_matcher(tmp_path, **options):
    return Matcher(
        **{
            "backbone": "descriptor",
            "metadata": None,
            "head": ("mlp", {"width": 8, "hidden": 8}),
            "training": TrainingConfig(epochs=2, batch_size=8),
            "store": tmp_path / "store.sqlite",
            **options,
        }
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A saved matcher of twelve pairs of random photos."""
    base = tmp_path_factory.mktemp("template")
    rng = np.random.default_rng(0)
    profiles = []
    for name in [f"{side}{i}" for i in range(12) for side in "ab"]:
        pixels = rng.integers(0, 255, (10, 12, 3), np.uint8)
        Image.fromarray(pixels).save(base / f"{name}.png")
        profiles.append(Profile(name, (base / f"{name}.png",)))
    pairs = Pairs.of(profiles, [Pair(f"a{i}", f"b{i}") for i in range(12)])
    return new_matcher(base).fit(pairs).save(base / "saved")


@pytest.fixture
def folder(template, tmp_path):
    return Path(shutil.copytree(template, tmp_path / "saved"))


@pytest.fixture
def fitted(template, tmp_path):
    return Matcher.load(template, store=tmp_path / "store.sqlite")


def contents(folder):
    return {item.name: item.read_bytes() for item in folder.iterdir() if item.is_file()}


@pytest.mark.parametrize(
    "files",
    [
        ["README.md"],
        ["history.csv", "README.md"],
        ["head.safetensors"],
        ["matcher.json"],  # of somebody else
        ["pyproject.toml", "matcher.json"],
        [".env"],
    ],
)
def test_projects_of_others_are_not_overwritten(files, fitted, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    for name in files:
        (project / name).write_text('{"format": 2}')
    before = contents(project)
    with pytest.raises(ConfigurationError, match="holds files that pairmatch did not write"):
        fitted.save(project)
    assert contents(project) == before


def test_a_matcher_is_replaced_and_other_files_are_kept(fitted, folder):
    (folder / "report.html").write_text("the report")
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)
    fitted.notes.append("another save")
    fitted.save(folder)
    after = contents(folder)
    assert after["report.html"] == b"the report"
    assert after["notes.txt"] == b"mine"
    assert sorted(after) == sorted(before)
    assert b"another save" in after["matcher.json"]


def test_matchers_of_earlier_versions_are_replaced_unless_other_files_are_there(fitted, tmp_path):
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    earlier = tmp_path / "recipe"
    (earlier / "setup.py").write_text("mine")
    assert not is_earlier_matcher(earlier)
    with pytest.raises(ConfigurationError, match="did not write"):
        fitted.save(earlier)
    (earlier / "setup.py").unlink()
    (earlier / "report.html").write_text("its report")
    fitted.save(earlier)
    assert Matcher.load(earlier).data["pairs"] == 12
    assert (earlier / ".pairmatch").exists()
    assert (earlier / "report.html").read_text() == "its report"


def test_the_store_may_be_in_the_folder(tmp_path, small_pairs):
    target = tmp_path / "all"
    fitted = new_matcher(tmp_path, store=target / "store.sqlite").fit(small_pairs(6))
    fitted.save(target)
    assert Matcher.load(target, store=target / "store.sqlite").sides == 2


def test_nothing_is_written_if_the_card_fails(fitted, folder, monkeypatch):
    before = contents(folder)

    def fail(_):
        raise RuntimeError("no card")

    monkeypatch.setattr("pairmatch.matcher.folder.model_card", fail)
    with pytest.raises(RuntimeError, match="no card"):
        fitted.save(folder)
    assert contents(folder) == before


def test_a_full_disk_leaves_the_old_matcher(fitted, folder, monkeypatch):
    before = contents(folder)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        ConfigurationError,
        match=r"No space left on device: name another folder\. The previous files",
    ):
        fitted.save(folder)
    assert contents(folder) == before


# Ends the process at the n-th file operation, as a SIGKILL does: nothing is cleaned up
KILLS = """
import json, os, sys
from pathlib import Path
import torch
from pairmatch.core.errors import ConfigurationError
from pairmatch.matcher.folder import read_folder, write_folder

torch.set_num_threads(1)
folder = Path(sys.argv[1])
record, weights, history = read_folder(folder)
record.pop("format"); record.pop("head_sha256")
versions = {
    "old": (record | {"notes": ["old"]}, weights, history),
    "new": (record | {"notes": ["new"]}, {k: v + 1 for k, v in weights.items()}, []),
}
write_folder(folder, *versions["old"])
seen = []
point = 0
while True:
    write_folder(folder, *versions["old"])
    names = sorted(item.name for item in folder.iterdir())
    assert len(names) == 5, names
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
        write_folder(folder, *versions["new"])
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    loaded, tensors, rows = read_folder(folder)
    name, = loaded["notes"]
    assert all(torch.equal(tensors[k], v) for k, v in versions[name][1].items())
    assert len(rows) == len(versions[name][2])
    seen.append(name)
    if status == 0:
        break
    point += 1
print(json.dumps(seen))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_file_operation_leaves_a_whole_matcher(folder):
    run = subprocess.run(
        [sys.executable, "-c", KILLS, str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout)
    assert seen == sorted(seen, key=["old", "new"].index)
    assert seen.count("old") > 10
    assert seen.count("new") > 5


def change(folder, **changes):
    """Writes values into the record, by path of keys such as `parts__head__name`."""
    path = folder / "matcher.json"
    record = json.loads(path.read_text())
    for key, value in changes.items():
        *parents, last = (int(step) if step.isdigit() else step for step in key.split("__"))
        target = record
        for step in parents:
            target = target[step]
        target[last] = value
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format": True}, "has no format version"),
        ({"format": 10**400}, "has format 1"),
        ({"dim": -1}, "dim: Input should be greater"),
        ({"dim": 10**12}, "dim: Input should be less"),
        ({"dim": "8"}, "dim: Input should be a valid integer"),
        ({"seed": -1}, "seed: Input should be greater"),
        ({"seed": 2**70}, "seed: Input should be less"),
        ({"sides": 3}, "sides: Input should be 1 or 2"),
        ({"notes": [1]}, "notes.0: Input should be a valid string"),
        ({"notes": ["\ud83d"]}, "lone surrogates"),
        ({"weights": [float("nan")]}, "some numbers are not finite"),
        ({"weights": [-1.0]}, "weights.0: Input should be greater than 0"),
        ({"fingerprints": [{}, {}]}, "2 fingerprints for 1 backbones"),
        ({"parts__poolers": []}, "parts.poolers: List should have at least 1"),
        ({"parts__backbones": []}, "parts.backbones: List should have at least 1"),
        ({"parts__head": None}, "parts.head: Input should be"),
        ({"parts__head__options": []}, "parts.head.options: Input should be a valid dict"),
        ({"parts__learner__uses": [{}]}, "parts.learner.uses.0.kind: Field required"),
        ({"data": {"pairs": "x"}}, "data.people: Field required"),
        ({"metrics": {"both": 1}}, "metrics.queries: Field required"),
        ({"store_dtype": "pickle"}, "store_dtype: Input should be 'float32' or 'float16'"),
        ({"head_sha256": "\x1b[31m"}, "head_sha256: String should match"),
        ({"training_people": {"salt": "", "size": 9, "bits": "AA=="}}, "not the size"),
        ({"training_people": {"salt": "", "size": 0, "bits": ""}}, "training_people.size"),
    ],
)
def test_damaged_records_are_refused(changes, problem, folder):
    change(folder, **changes)
    with pytest.raises(SavedMatcherError) as caught:
        Matcher.load(folder)
    assert problem in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_all_problems_are_listed_at_once(folder):
    change(folder, dim=0, seed="x", parts__head__name=3, notes=None)
    with pytest.raises(SavedMatcherError) as caught:
        Matcher.load(folder)
    for name in ("dim:", "seed:", "parts.head.name:", "notes:"):
        assert f"  - {name}" in str(caught.value)


def test_size_depth_and_kind_of_files_are_limited(folder, tmp_path):
    path = folder / "matcher.json"
    path.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(SavedMatcherError, match="not valid JSON: nested"):
        Matcher.load(folder)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SavedMatcherError, match="holds no saved matcher"):
        Matcher.load(folder)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(40_000_000_000)  # sparse
    with pytest.raises(SavedMatcherError, match="the file has 40,000,000,000 bytes, more than"):
        Matcher.load(folder)


def with_weights(folder, weights):
    """Writes other weights, with the digest that belongs to them."""
    content = save(weights)
    (folder / "head.safetensors").write_bytes(content)
    change(folder, head_sha256=hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda w: w.popitem(), "is missing"),
        (lambda w: w.update(extra=torch.ones(1)), "extra is not a tensor of this head"),
        (lambda w: w["layers.1.bias"].fill_(float("nan")), "not finite"),
        (lambda w: w["layers.1.bias"].fill_(float("inf")), "not finite"),
        (lambda w: w.update({k: v[None] for k, v in w.items()}), "has shape"),
        (lambda w: w.update({k: v.long() for k, v in w.items()}), "has the type torch.int64"),
    ],
)
def test_weights_that_do_not_fit_the_head_are_refused(damage, problem, folder):
    weights = load((folder / "head.safetensors").read_bytes())
    damage(weights)
    with_weights(folder, weights)
    with pytest.raises(SavedMatcherError, match=problem):
        Matcher.load(folder)


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x10\0\0\0\0\0\0\0{" + b"x" * 40])
def test_damaged_safetensors_are_refused(content, folder):
    (folder / "head.safetensors").write_bytes(content)
    change(folder, head_sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(SavedMatcherError, match=r"head.safetensors is damaged"):
        Matcher.load(folder)


def test_a_huge_head_needs_no_memory_to_be_refused(folder):
    change(folder, parts__head__options__width=10**8, parts__head__options__hidden=10**8)
    with pytest.raises(SavedMatcherError, match=r"has shape .* instead of"):
        Matcher.load(folder)


def test_weights_that_are_not_finite_are_not_saved(fitted, tmp_path):
    with torch.no_grad():
        next(fitted.head.parameters()).fill_(float("nan"))
    with pytest.raises(ConfigurationError, match=r"not finite\. The training diverged"):
        fitted.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "history",
    [b"epoch\n1e400\n", b"epoch\nnan\n", b"epoch\n\0\n", b"\xff\xfe", b"a,b\n1,2,3\n", b"a\n'\n"],
)
def test_damaged_histories_are_refused(history, folder):
    (folder / "history.csv").write_bytes(history)
    with pytest.raises(SavedMatcherError, match=r"history.csv is damaged"):
        Matcher.load(folder)


VALUES = [None, True, 0, -1, 10**30, 1.5, "", "x" * 300, [], {}, [[]], {"a": {}}, "../x", "\0"]


def mutated(value, rng):
    """A JSON value with one part replaced, removed or added."""
    value = copy.deepcopy(value)
    target = value
    while True:
        keys = list(target) if isinstance(target, dict) else range(len(target))
        key = rng.choice(list(keys))
        if isinstance(target[key], dict | list) and target[key] and rng.random() < 0.8:
            target = target[key]
            continue
        if rng.random() < 0.3:
            del target[key]
        else:
            target[key] = rng.choice(VALUES)
        return value


def test_mutated_matchers_end_in_our_errors_or_load(folder, tmp_path, small_pairs):
    rng = random.Random(0)
    people = small_pairs(2).people
    original = contents(folder)
    record = json.loads(original["matcher.json"])
    refused = 0
    for number in range(150):
        copied = tmp_path / f"copy{number % 2}"
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(folder, copied)
        if number % 3:
            (copied / "matcher.json").write_text(json.dumps(mutated(record, rng)))
        else:
            name = rng.choice(FILES)
            content = bytearray(original[name])
            for _ in range(rng.choice([1, 4])):
                content[rng.randrange(len(content))] = rng.randrange(256)
            (copied / name).write_bytes(content[: rng.choice([None, len(content) // 2])])
        try:
            loaded = Matcher.load(copied, store=tmp_path / "store.sqlite")
            loaded.embed(people)
            loaded.summary()
            loaded.save(tmp_path / "again")
        except PairmatchError:
            refused += 1
    assert 50 < refused < 150


def test_evaluating_on_training_people_warns_after_load(tmp_path, small_pairs, caplog):
    pairs = small_pairs(60)
    train, _, test = pairs.split(0.6, 0.0, seed=0)
    fitted = new_matcher(tmp_path).fit(train)
    folder = fitted.save(tmp_path / "saved")
    loaded = Matcher.load(folder, store=tmp_path / "store.sqlite")
    assert not any("took part" in note for note in loaded.evaluate(test).notes)
    note = loaded.evaluate(train, resamples=0).notes[-1]
    people = len(train.people)
    assert note.startswith(f"About {people} of {people} people took part in training")
    assert "took part in training" in caplog.text
    again = Matcher.load(loaded.save(tmp_path / "again"), store=tmp_path / "store.sqlite")
    assert "took part" in again.evaluate(train, resamples=0).notes[-1]
    mixed = again.evaluate(pairs, resamples=0).notes[-1]
    assert abs(int(mixed.split()[1]) - people) < 0.3 * people


def test_the_card_names_only_metadata_in_effect(tmp_path, small_pairs, hash_backbone):
    unread = new_matcher(tmp_path, metadata="gpt-5-nano").fit(small_pairs(6))
    saved = unread.save(tmp_path / "unread")
    assert "gpt-5-nano" not in (saved / "README.md").read_text()
    # The matcher itself is loaded as it was
    assert json.loads((saved / "matcher.json").read_bytes())["parts"]["metadata"]


def test_the_summary_names_no_generator_that_described_no_photo(tmp_path, hash_backbone, photo):
    for images, metadata in (((), "none: measured"), ((photo("p.png"),), "measured")):
        people = [
            Profile(f"{side}{i}", images, text=f"{side}{i}") for i in range(4) for side in "ab"
        ]
        pairs = Pairs.of(people, [Pair(f"a{i}", f"b{i}") for i in range(4)])
        matcher = new_matcher(tmp_path, backbone=hash_backbone, metadata="measured").fit(pairs)
        assert matcher.data["described"] == (8 if images else 0)
        assert matcher.summary()["Metadata"].startswith(metadata)


def test_cards_of_text_readers_name_their_generator(template, tmp_path):
    record, weights, history = read_folder(template)
    generator = {"name": "openai", "options": {}, "distribution": "pairmatch", "version": "1"}
    for described, is_named in ((0, False), (3, True), (None, True)):
        data = {"pairs": 6, "people": 12}
        if described is not None:
            data["described"] = described
        parts = record["parts"] | {"metadata": generator}
        target = tmp_path / f"{described}"
        write_folder(target, {**record, "parts": parts, "data": data}, weights, history)
        assert ("openai" in (target / "README.md").read_text()) == is_named


def test_learners_without_epochs_leave_a_history_with_a_header(tmp_path):
    file = tmp_path / "history.csv"
    file.write_bytes(_csv([]))
    assert file.read_text() == "epoch\n"
    assert _history(file.read_bytes(), file) == []

"""A matcher with a fine-tuned backbone: saved, loaded, served, judged; and the command."""

import csv
import dataclasses
import html
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from test_finetuning import text_pairs
from test_hub import Hub
from typer.testing import CliRunner

from pairmatch import Callback, Matcher, PairedFeatures, Pairs
from pairmatch.cli import app
from pairmatch.core.errors import BackboneError, ConfigurationError, SavedMatcherError
from pairmatch.core.interfaces import FittedHead
from pairmatch.core.pools import Pools
from pairmatch.finetuning.config import FinetuneConfig
from pairmatch.io.store import Store
from pairmatch.learning.heads import build_head
from pairmatch.matcher.finetuning import TuningVerdict, tuning_tables
from pairmatch.tracking import run_parameters

pytest.importorskip("peft")
QUICK = FinetuneConfig(
    epochs=2, batch_size=8, micro_batch=None, rank=4, learning_rate=5e-3, dropout=0.0
)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_models.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def spec(bert):
    return ("hf-text", {"model": str(bert), "dtype": "float32", "device": "cpu"})


@pytest.fixture(scope="module")
def tuned(spec, tmp_path_factory):
    """A matcher that was fine-tuned, saved with its store, and the pairs."""
    folder = tmp_path_factory.mktemp("tuned")
    train, validation = text_pairs(16), text_pairs(6, start=16)
    matcher = Matcher(backbone=spec, learner="whitened", store=folder / "store", device="cpu")
    frozen = matcher.backbones[0]
    matcher.finetune(train, validation, QUICK)
    assert matcher.backbones[0] is not frozen
    matcher.save(folder / "matcher")
    return matcher, folder, validation


def test_a_saved_matcher_brings_its_adapter(tuned, tmp_path):
    matcher, folder, people = tuned
    names = sorted(file.name for file in (folder / "matcher").iterdir() if file.name[0] != ".")
    assert names == [
        "README.md",
        "adapter.safetensors",
        "head.safetensors",
        "history.csv",
        "matcher.json",
    ]
    loaded = Matcher.load(folder / "matcher", store=tmp_path / "other", device="cpu")
    assert loaded.backbones[0].adapter == matcher.backbones[0].adapter
    assert loaded.pipeline.fingerprints() == matcher.pipeline.fingerprints()
    expected = matcher.embed(people.people)
    assert np.allclose(loaded.embed(people.people), expected, atol=1e-5)
    assert any("validation MRR" in note for note in loaded.notes)
    record = json.loads((folder / "matcher" / "matcher.json").read_text())
    (entry,) = record["parts"]["backbones"]
    assert entry["adapter"]["rank"] == 4
    assert "adapter" not in entry["options"]
    parameters = run_parameters(loaded, {"test": people})
    assert parameters["backbone.adapter.digest"] == loaded.backbones[0].adapter.digest
    assert parameters["backbone.adapter.rank"] == 4
    card = (folder / "matcher" / "README.md").read_text()
    assert "fine-tuned: rank 4" in card
    assert "fine-tuned" in " ".join(loaded.notes)
    # Saved again, it is the same; without an adapter, the file goes
    loaded.save(folder / "again")
    assert (folder / "again" / "adapter.safetensors").read_bytes() == (
        folder / "matcher" / "adapter.safetensors"
    ).read_bytes()


def test_a_backbone_named_at_loading_keeps_the_adapter(tuned, spec, tmp_path):
    matcher, folder, _ = tuned
    other = Matcher.load(folder / "matcher", backbone=spec, store=tmp_path / "s", device="cpu")
    assert other.backbones[0].adapter == matcher.backbones[0].adapter


def test_another_base_is_refused_at_loading(tuned, spec, tmp_path):
    _, folder, people = tuned
    wrong = tiny_models.bert(tmp_path / "wrong", seed=5)
    backbone = ("hf-text", {**spec[1], "model": str(wrong)})
    other = Matcher.load(folder / "matcher", backbone=backbone, store=tmp_path / "s", device="cpu")
    with pytest.raises(BackboneError, match="another base model"):
        other.embed(people.people)


def test_damaged_adapters_of_a_matcher_are_refused(tuned, tmp_path):
    matcher, _, _ = tuned
    folder = matcher.save(tmp_path / "damaged")
    (folder / "adapter.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(SavedMatcherError, match=r"adapter\.safetensors is damaged"):
        Matcher.load(folder)
    (folder / "adapter.safetensors").unlink()
    with pytest.raises(SavedMatcherError, match="is missing"):
        Matcher.load(folder)


def test_a_matcher_without_adapter_leaves_no_adapter_behind(tuned, spec, tmp_path):
    matcher, _, _ = tuned
    folder = matcher.save(tmp_path / "matcher")
    frozen = Matcher(backbone=spec, learner="whitened", store=tmp_path / "store", device="cpu")
    frozen.fit(text_pairs(8))
    frozen.save(folder)
    assert not (folder / "adapter.safetensors").exists()
    assert Matcher.load(folder).backbones[0].adapter is None


def test_features_of_frozen_and_tuned_backbones_are_kept_apart_and_forgotten(tuned, spec, tmp_path):
    matcher, folder, people = tuned
    store = Store(tmp_path / "store")
    frozen = Matcher(backbone=spec, store=store, device="cpu")
    loaded = Matcher.load(folder / "matcher", store=store, device="cpu")
    for _ in range(2):
        h, tuned_h = frozen.features(people.people), loaded.features(people.people)
        assert not np.allclose(h, tuned_h, atol=1e-3)
    assert np.allclose(tuned_h, matcher.features(people.people), atol=1e-5)
    person = people.people[0]
    forgotten = store.forget([person.id])
    assert forgotten.features == 2  # one of each backbone


def test_galleries_of_frozen_and_tuned_backbones_are_kept_apart(tuned, spec, tmp_path):
    """Even with a head that has no weights of its own, which is the same for both."""
    _, folder, pairs = tuned
    store = folder / "store"
    frozen, matcher = (
        Matcher(backbone=spec, learner="frozen", store=store, device="cpu") for _ in range(2)
    )
    frozen.fit(pairs)
    matcher.finetune(text_pairs(6), None, QUICK)
    asking, *candidates = pairs.people
    galleries = [part.gallery(candidates) for part in (frozen, matcher)]
    for part, own, other in ((frozen, *galleries), (matcher, *galleries[::-1])):
        assert len(part.recommend(asking, own, 3)) == 3
        with pytest.raises(ConfigurationError, match="another head or other backbones"):
            part.recommend(asking, other, 3)
        with pytest.raises(ConfigurationError, match="another head or other backbones"):
            part.add_to(other, candidates)
    # Saved, moved and loaded, it is the same matcher
    matcher.save(tmp_path / "matcher").rename(tmp_path / "moved")
    loaded = Matcher.load(tmp_path / "moved", store=store, device="cpu")
    first, again = (
        [candidate.profile.id for candidate in part.recommend(asking, galleries[1], 5)]
        for part in (matcher, loaded)
    )
    assert first == again


def test_an_evaluation_says_what_its_frozen_features_are(tuned, tmp_path):
    _, folder, pairs = tuned
    loaded = Matcher.load(folder / "matcher", store=tmp_path / "store", device="cpu")
    notes = loaded.evaluate(pairs).notes
    assert any("features of the fine-tuned backbones" in note for note in notes)
    card = (loaded.save(tmp_path / "again") / "README.md").read_text()
    assert "| features of the fine-tuned backbones |" in card


def test_a_tuned_matcher_is_not_tuned_on_top(tuned, tmp_path):
    _, folder, _ = tuned
    loaded = Matcher.load(folder / "matcher", store=tmp_path / "store", device="cpu")
    with pytest.raises(ConfigurationError, match="has an adapter already"):
        loaded.finetune(text_pairs(6))


class Phases(Callback):
    """Epochs by phase."""

    def __init__(self):
        self.epochs = {}

    def on_phase(self, name):
        self.epochs[name] = []

    def on_epoch(self, row, epochs):
        self.epochs[list(self.epochs)[-1]].append(row["epoch"])


def test_callbacks_are_told_which_part_of_the_work_reports(spec, tmp_path):
    """Two backbones are tuned, a third cannot be, and then a learner trains in epochs."""
    seen = Phases()
    matcher = Matcher(
        backbone=[spec, ("hf-text", {**spec[1], "max_tokens": 64}), "attributes"],
        store=tmp_path / "store",
        training={"epochs": 3},
        metadata=None,
        device="cpu",
        callbacks=[seen],
    )
    people = [
        dataclasses.replace(person, attributes={"age": row})
        for row, person in enumerate(text_pairs(8).people)
    ]
    matcher.finetune(Pairs.of(people, text_pairs(8).pairs), None, QUICK)
    assert seen.epochs == {
        "finetune hf-text": [1, 2],
        "finetune hf-text 2": [1, 2],
        "fit": [1, 2, 3],
    }
    adapters = [getattr(part, "adapter", None) for part in matcher.backbones]
    assert [adapter is None for adapter in adapters] == [False, False, True]


def test_a_tuned_matcher_travels_through_the_hub(tuned, tmp_path, monkeypatch):
    matcher, _, people = tuned
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    base = matcher.backbones[0].model
    with Hub() as hub:
        matcher.push_to_hub("me/couples", token="t", endpoint=hub.url)
        assert base.encode() not in b"".join(hub.files.values())  # a folder of this machine
        loaded = Matcher.from_pretrained(
            "me/couples",
            endpoint=hub.url,
            backbone=("hf-text", {"model": base, "dtype": "float32"}),
            store=tmp_path / "store",
            device="cpu",
        )
    assert loaded.backbones[0].adapter == matcher.backbones[0].adapter
    assert np.allclose(loaded.embed(people.people), matcher.embed(people.people), atol=1e-5)


def test_a_matcher_without_a_network_names_the_backbones_that_have_one(tmp_path):
    matcher = Matcher(backbone="descriptor", store=tmp_path / "store")
    with pytest.raises(ConfigurationError, match="Use 'hf-vision'"):
        matcher.finetune(text_pairs(4))


def test_a_failed_fit_leaves_the_frozen_backbone(spec, tmp_path, monkeypatch):
    matcher = Matcher(backbone=spec, learner="whitened", store=tmp_path / "store", device="cpu")
    frozen = matcher.backbones

    def fail(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(matcher.learner, "fit", fail)
    with pytest.raises(KeyboardInterrupt):
        matcher.finetune(text_pairs(6), None, QUICK)
    assert matcher.backbones == frozen


# --- the verdict


def planted(n, noise, seed=0):
    """Features of pairs whose partners are equal but for noise."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, 24)).astype(np.float32)
    return a, (a + noise * rng.normal(size=a.shape)).astype(np.float32)


@pytest.mark.parametrize(("noises", "better"), [((0.2, 3.0), True), ((3.0, 0.2), False)])
def test_the_verdict_follows_the_features_that_tell_more(noises, better):
    sizes = (60, 40)
    tuned, frozen = (
        [PairedFeatures.of(*planted(n, noise, seed)) for seed, n in enumerate(sizes)]
        for noise in noises
    )
    tables = [tuning_tables(frozen, tuned, FittedHead(build_head("identity", dim=24)))] * 2
    verdict = TuningVerdict.of(tables)
    assert verdict.is_better is better
    gain = verdict.tuned["reciprocal_rank"].mean() - verdict.frozen["reciprocal_rank"].mean()
    assert verdict.comparison.difference == pytest.approx(gain)
    # Two folds are twice as many independent people
    assert verdict.comparison.clusters == 2 * TuningVerdict.of(tables[:1]).comparison.clusters
    words = "Serve the fine-tuned matcher" if better else "not shown to be better"
    assert words in str(verdict)
    assert json.loads(json.dumps(verdict.to_dict()))["is_better"] is better


def test_folds_of_any_size_have_a_verdict():
    """Galleries of 4 and 6 people have no usual K in common but 1."""
    tables = []
    for size in (4, 6):
        parts = [PairedFeatures.of(*planted(n, 0.5, n)) for n in (30, size)]
        tables.append(tuning_tables(parts, parts, FittedHead(build_head("identity", dim=24))))
    verdict = TuningVerdict.of(tables)
    assert verdict.tuned.ks == (1,)
    assert len(verdict.tuned) == 2 * (4 + 6)
    assert "R@1 " in str(verdict)


def test_recall_in_pools_is_that_of_the_pool():
    parts = []
    for n in (30, 12):
        rows = [(row, row) for row in range(n)]
        pools = Pools.of(rows, [str(row % (n // 3)) for row in range(n)])
        parts.append(PairedFeatures.of(*planted(n, 0.5, n), pools=pools))
    tuned, _ = tuning_tables(parts, parts, FittedHead(build_head("identity", dim=24)))
    assert set(tuned["candidates"]) == {3}
    assert tuned.ks == (1,)  # not 5 and 10 of the 12 people


# --- the command


def write_csv(path, pairs):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id_a", "text_a", "id_b", "text_b"])
        for pair in pairs.pairs:
            texts = [pairs.profiles[person].text for person in (pair.a, pair.b)]
            writer.writerow([pair.a, texts[0], pair.b, texts[1]])
    return path


def command(folder, bert, *words):
    return [
        "finetune",
        str(write_csv(folder / "pairs.csv", text_pairs(40))),
        *("--output", str(folder / "tuned"), "--store", str(folder / "store")),
        *("--backbone", "hf-text", "--set", f"hf-text.model={bert}"),
        *("--learner", "whitened", "--preset", "paper", "--device", "cpu"),
        *("--epochs", "1", "--rank", "2", "--set", 'finetune.targets=["query"]'),
        *words,
    ]


def test_the_command_tunes_saves_and_judges(bert, tmp_path):
    figures = tmp_path / "figures.json"
    words = ["--json", str(figures), "--reranker", "pairwise"]
    result = CliRunner().invoke(app, command(tmp_path, bert, *words))
    assert result.exit_code == 0, result.output
    assert "Advice against it: 28 training pairs are few" in result.output
    assert result.output.count("training pairs are few") == 1
    assert "best on frozen features" in result.output
    assert not (tmp_path / "tuned" / "checkpoints").exists()
    record = json.loads((tmp_path / "tuned" / "matcher.json").read_text())
    targets = record["parts"]["backbones"][0]["adapter"]["targets"]
    assert {name.rpartition(".")[2] for name in targets} == {"query"}
    assert record["parts"]["reranker"]["name"] == "pairwise"
    assert record["reranking"]["queries"] == 2 * 28
    written = json.loads(figures.read_text())
    assert written["finetuning"]["comparison"]["queries"] == written["queries"]
    assert (tmp_path / "tuned" / "run.yaml").exists()
    # Report and model card have the verdict, with its interval
    report = json.loads((tmp_path / "tuned" / "report.json").read_text())
    assert report["sections"][0]["data"] == written["finetuning"]
    assert record["notes"][-2] in result.output
    assert " ".join(record["notes"][-2:]) == report["verdict"]
    page = html.unescape((tmp_path / "tuned" / "report.html").read_text())
    card = (tmp_path / "tuned" / "README.md").read_text()
    for note in record["notes"][-2:]:
        assert note in page
        assert f"Note: {note}" in card


@pytest.mark.slow
def test_the_command_judges_by_folds(bert, tmp_path):
    figures = tmp_path / "figures.json"
    words = command(tmp_path, bert, "--folds", "3", "--json", str(figures))
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert json.loads(figures.read_text())["finetuning"]["comparison"]["queries"] == 80


def test_the_command_plans_and_writes_no_matcher(bert, tmp_path):
    figures = tmp_path / "plan.json"
    words = command(tmp_path, bert, "--plan", "--folds", "3", "--json", str(figures))
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    output = " ".join(result.output.split())
    assert "28 matches of 56 people, 1 epoch of 1 step," in output
    assert "tuned 4 times (3 folds)" in output
    assert not (tmp_path / "tuned").exists()
    plan = json.loads(figures.read_text())["plan"]
    (tuning,) = plan["finetuning"]
    frozen = sum(part["seconds"] for part in plan["passes"])
    once = tuning["seconds"] + 80 * tuning["person_seconds"]
    assert plan["seconds"] == pytest.approx(frozen + 4 * once)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--backbone", "descriptor"), "cannot be fine-tuned"),
        (("--set", 'finetune.targets=["q_proj"]'), "`targets` takes"),
        (("--head", "mpl"), "Did you mean 'mlp'"),
        (("--set", "head.width=3"), "needs --head"),
        (("--set", "hf-text.dtype=float16"), "use dtype='bfloat16'"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_the_work(bert, tmp_path, words, message):
    given = command(tmp_path, bert, *words)
    if words[0] == "--backbone":
        where = given.index("--backbone")
        del given[where : where + 4]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "tuned").exists()
    assert not (tmp_path / "store").exists()  # no feature was extracted


def test_the_command_refuses_unknown_options(bert, tmp_path):
    words = command(tmp_path, bert, "--set", "finetune.rang=3")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "Did you mean 'rank'" in result.output


def test_folds_are_refused_before_the_work(bert, tmp_path):
    for words, message in (
        (("--folds", "3", "--split-by", "people"), "--folds tests every pair"),
        (("--folds", "3", "--test", str(tmp_path / "test.csv")), "--folds tests every pair"),
        (("--folds", "41"), "41"),
    ):
        result = CliRunner().invoke(app, command(tmp_path, bert, *words))
        assert result.exit_code == 2, result.output
        assert message in result.output
        assert not (tmp_path / "tuned").exists()


# --- other processes

SCRIPT = """
import json, os, sys
import torch
from test_finetuning import text_pairs
from pairmatch.backbones.hf_text import HFTextBackbone
from pairmatch.finetuning.config import FinetuneConfig
from pairmatch.finetuning.finetuner import Finetuner
from pairmatch.finetuning.ranks import Ranks

torch.set_num_threads(1)
ranks = Ranks()
model, output, folder, epochs = sys.argv[1:]
config = FinetuneConfig(
    epochs=int(epochs), batch_size=8, micro_batch=3, rank=4, learning_rate=5e-3, dropout=0.1,
    checkpoint_steps=1,
)
backbone = HFTextBackbone(model=model, dtype="float32", device="cpu")
result = Finetuner(backbone, head=("mlp", {"width": 8, "dropout": 0.1}), config=config).fit(
    text_pairs(20), text_pairs(6, start=20), checkpoints=folder or None
)
result.adapter.write(output + os.environ.get("RANK", ""))
with open(output + os.environ.get("RANK", "") + ".json", "w") as file:
    json.dump(list(result.history), file)
with open(output + os.environ.get("RANK", "") + ".ranks", "w") as file:
    json.dump([ranks.index, ranks.count, ranks.agree([1, 2]), ranks.agree([ranks.index])], file)
"""


def start(*words, **environment):
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, words)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(process, seconds=240):
    try:
        errors = process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        errors = process.communicate()[1]
    assert process.returncode == 0, errors.decode()[-3000:]


def adapters_and_history(path):
    from pairmatch.io.adapters import Adapter

    return Adapter.read(path), json.loads(Path(f"{path}.json").read_text())


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_loss_curve(bert, tmp_path):
    finish(start(bert, tmp_path / "whole", "", 6))
    folder = tmp_path / "checkpoint"
    killed = start(bert, tmp_path / "resumed", folder, 6)
    try:
        deadline = time.monotonic() + 240
        while not _has_steps(folder, 7):
            assert killed.poll() is None, killed.stderr.read().decode()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "resumed.json").exists()
    finish(start(bert, tmp_path / "resumed", folder, 6))
    whole, resumed = (adapters_and_history(tmp_path / name) for name in ("whole", "resumed"))
    assert resumed[1] == whole[1]
    assert resumed[0] == whole[0]


def _has_steps(folder, count):
    from pairmatch.io.replacing import current_file

    try:
        record = json.loads(current_file(folder, "checkpoint.json").read_text())
    except (OSError, ValueError):
        return False
    position = record["position"]
    return 3 * (position["epoch"] - 1) + position["step"] >= count  # 20 pairs are 3 batches


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(bert, tmp_path):
    pytest.importorskip("accelerate")
    finish(start(bert, tmp_path / "one", "", 3))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {  # as `torchrun` sets them
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    ranks = [
        start(bert, tmp_path / "two", "", 3, RANK=str(rank), LOCAL_RANK=str(rank), **common)
        for rank in (0, 1)
    ]
    try:
        for process in ranks:
            finish(process)
    finally:
        for process in ranks:
            process.kill()
    one = adapters_and_history(tmp_path / "one")
    pair = [adapters_and_history(tmp_path / f"two{rank}") for rank in (0, 1)]
    for index in (0, 1):  # they did share the work, rather than do it twice
        joined = json.loads((tmp_path / f"two{index}.ranks").read_text())
        assert joined == [index, 2, True, False]
    assert pair[0][0] == pair[1][0]  # both took the same steps, bit for bit
    for name, value in one[0].weights.items():
        assert torch.allclose(pair[0][0].weights[name], value, rtol=1e-3, atol=1e-4), name
    for row, other in zip(one[1], pair[0][1], strict=True):
        assert row == pytest.approx(other, abs=1e-4)

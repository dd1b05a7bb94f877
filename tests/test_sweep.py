"""Sweeps: one shared extraction, no repeated work, and the tables of the paper."""

import re

import numpy as np
import pytest
import tiny_qwen3_vl
from PIL import Image

import pairmatch.experiments.sweep as sweeping
from pairmatch import Matcher, Pair, Pairs, Profile, TrainingConfig
from pairmatch.backbones.descriptor import DescriptorBackbone
from pairmatch.backbones.qwen3_vl import Qwen3VLBackbone
from pairmatch.core.errors import ConfigurationError
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.experiments.paper import PRINTED, paper_tables
from pairmatch.experiments.sweep import grid, plan, sweep
from pairmatch.metadata.measured import MeasuredMetadata

BASE = {"backbone": "descriptor", "metadata": None, "training": {"epochs": 2, "batch_size": 16}}


def same_tables(first, second):
    """Whether two cross-validations have equal values everywhere."""
    return first.learners == second.learners and all(
        np.array_equal(values, second.table(learner)[name])
        for learner in first.learners
        for name, values in first.table(learner).columns.items()
    )


@pytest.fixture
def counted(monkeypatch):
    """Counts the people that pass through the descriptor."""
    seen = []
    forward = DescriptorBackbone.forward

    def counting(self, batch):
        states = forward(self, batch)
        seen.append(len(states.pooled))
        return states

    monkeypatch.setattr(DescriptorBackbone, "forward", counting)
    return seen


def test_a_grid_lists_and_labels_every_combination():
    found = grid(
        {"head": "mlp"},
        {"head.width": [8, 16], "loss": ["infonce", ("triplet", {})], "training.epochs": [2]},
    )
    assert [one.label for one in found] == [
        "head.width 8, loss infonce, training.epochs 2",
        "head.width 8, loss triplet, training.epochs 2",
        "head.width 16, loss infonce, training.epochs 2",
        "head.width 16, loss triplet, training.epochs 2",
    ]
    assert found[-1].arguments == {
        "head": ("mlp", {"width": 16}),
        "loss": ("triplet", {}),
        "training": {"epochs": 2},
    }
    assert grid({}, {})[0].label == "recipe"
    assert grid({}, {"head": ["linear"], "head.width": [4]})[0].arguments["head"] == (
        "linear",
        {"width": 4},
    )
    with pytest.raises(ConfigurationError, match=r"head\.width have no values"):
        grid({}, {"head.width": []})
    with pytest.raises(ConfigurationError, match=r"`pooler\.layer` needs `pooler` to be named"):
        grid({}, {"pooler.layer": [1]})


@pytest.fixture
def written(tmp_path_factory):
    """A backbone that reads text: a tiny Qwen3-VL."""
    folder = tiny_qwen3_vl.write(tmp_path_factory.mktemp("tiny"))
    return {
        "backbone": ("qwen3-vl-2b", {"model": str(folder)}),
        "head": "linear",
        "training": {"epochs": 1},
    }


def test_leaving_attributes_out_reuses_stored_metadata(small_pairs, tmp_path, monkeypatch, written):
    measured = []
    generate = MeasuredMetadata.generate

    def counting(self, profiles, *args, **options):
        measured.extend(profiles)
        return generate(self, profiles, *args, **options)

    monkeypatch.setattr(MeasuredMetadata, "generate", counting)
    pairs = small_pairs(6)
    combinations = grid(
        {**written, "metadata": "measured"}, {"without": [None, "framing", ("colours", "exposure")]}
    )
    labels = ["with every attribute", "without framing", "without colours, exposure"]
    assert [one.label for one in combinations] == labels
    assert [one.arguments.get("prompt", "").splitlines()[-1] for one in combinations] == [
        "Photo: {metadata}",
        "Photo: {metadata:-framing}",
        "Photo: {metadata:-colours,exposure}",
    ]
    shared = {"store": tmp_path / "store.sqlite", "device": "cpu"}
    found = sweep(pairs, combinations, repeats=1, folds=2, ks=(2,), baselines=(), **shared)
    assert found.learners == tuple(labels)
    assert len(measured) == 12  # each photo once, for all three
    again = sweep(pairs, combinations, repeats=1, folds=2, ks=(2,), baselines=(), **shared)
    assert len(measured) == 12
    assert same_tables(found, again)
    with pytest.raises(ConfigurationError, match="to leave out 'caption'"):
        sweep(
            pairs,
            grid(combinations[0].arguments, {"without": ["caption"]}),
            repeats=1,
            folds=2,
            **shared,
        )


def test_all_combinations_share_one_extraction(small_pairs, tmp_path, counted):
    pairs = small_pairs(25)
    combinations = grid(BASE, {"head.width": [4, 8], "loss.temperature": [0.1, 0.2]})
    shared = {"store": tmp_path / "store.sqlite"}
    found = sweep(pairs, combinations, repeats=1, folds=3, ks=(5,), baselines=("frozen",), **shared)
    assert sum(counted) == 50
    assert found.learners == (*(one.label for one in combinations), "frozen")
    # A line of the sweep is that combination's own cross-validation
    matcher = Matcher(
        backbone="descriptor",
        metadata=None,
        head=("mlp", {"width": 8}),
        loss=("infonce", {"temperature": 0.1}),
        training=TrainingConfig(epochs=2, batch_size=16),
        **shared,
    )
    alone = cross_validate(
        matcher.paired_features(pairs), {"one": matcher.learner}, repeats=1, folds=3, ks=(5,)
    )
    ours = found.table("head.width 8, loss.temperature 0.1")
    for name, column in alone.table("one").columns.items():
        np.testing.assert_array_equal(ours[name], column)
    assert sum(counted) == 50


def test_an_interrupted_sweep_resumes(small_pairs, tmp_path, monkeypatch):
    pairs = small_pairs(20)
    arguments = {"repeats": 1, "folds": 2, "ks": (3,), "baselines": ("frozen", "centred")}
    arguments |= {"store": tmp_path / "store.sqlite", "output": tmp_path / "out"}
    combinations = grid(BASE, {"head.width": [4, 8]})
    measured, done = sweeping.measure_learner, []

    def failing(*given, **named):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return measured(*given, **named)

    monkeypatch.setattr(sweeping, "measure_learner", failing)
    with pytest.raises(KeyboardInterrupt):
        sweep(pairs, combinations, **arguments)
    monkeypatch.setattr(
        sweeping,
        "measure_learner",
        lambda *given, **named: done.append(1) or measured(*given, **named),
    )
    whole = sweep(pairs, combinations, **arguments)
    assert len(done) == 4
    again = sweep(pairs, combinations, **arguments)
    assert len(done) == 4
    assert same_tables(whole, again)
    sweep(pairs, combinations, **{**arguments, "seed": 1})
    assert len(done) == 8  # other splits are other lines
    kept = sorted((tmp_path / "out" / "lines").iterdir())
    kept[0].write_bytes(b"damaged")
    sweep(pairs, combinations, **arguments)
    assert len(done) in (8, 9)


def test_each_set_of_features_has_its_own_baselines(small_pairs, tmp_path):
    combinations = grid(BASE, {"backbone.size_px": [56, 112]})
    found = sweep(
        small_pairs(16),
        combinations,
        repeats=1,
        folds=2,
        ks=(3,),
        baselines=("frozen",),
        store=tmp_path / "s.sqlite",
    )
    assert found.learners == (
        "backbone.size_px 56",
        "backbone.size_px 112",
        "frozen (backbone.size_px 56)",
        "frozen (backbone.size_px 112)",
    )
    first, second = (found.table(name)["rank"] for name in found.learners[2:])
    assert not np.array_equal(first, second)


def test_the_plan_lists_all_rows_and_runs_a_small_sample(small_pairs, tmp_path, counted):
    pairs = small_pairs(20)
    found = plan(
        pairs, grid(BASE, {"head.width": [4, 8]}), repeats=2, folds=3, store=tmp_path / "s.sqlite"
    )
    assert found.to_extract == 40
    assert found.fits == 8 * 6
    assert found.seconds > 0
    assert sum(counted) == 5
    text = str(found)
    assert re.search(r"8 rows, 1 extraction of 40 people:\n  head.width 4\n", text)
    assert "40 inputs to extract, 48 fits; about" in text
    again = plan(pairs, grid(BASE, {}), baselines=(), store=tmp_path / "s.sqlite")
    assert again.to_extract == 35


def test_all_invalid_combinations_are_reported_together(small_pairs, tmp_path):
    combinations = grid(BASE, {"head.width": [4, -1], "loss": ["infonce", "infonse"]})
    with pytest.raises(ConfigurationError) as caught:
        sweep(small_pairs(8), combinations, store=tmp_path / "s.sqlite")
    for expected in (
        "3 combinations cannot be built",
        "head.width -1",
        "infonse",
        "`MLPHead(width=...)` must be positive",
    ):
        assert expected in str(caught.value)
    with pytest.raises(ConfigurationError, match="at least one combination"):
        sweep(small_pairs(8), [], store=tmp_path / "s.sqlite")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)

    def person(name):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / f"{name}.png")
        return Profile(name, (folder / f"{name}.png",), text=f"I am {name}")

    profiles = [person(f"{side}{i}") for i in range(80) for side in "ab"]
    return Pairs.of(profiles, [Pair(f"a{i}", f"b{i}") for i in range(80)])


def test_the_papers_tables_on_token_states(people, tmp_path, monkeypatch):
    checkpoint = tiny_qwen3_vl.write(tmp_path / "tiny")
    seen = []
    forward = Qwen3VLBackbone.forward

    def counting(self, batch):
        seen.append(len(batch["input_ids"]))
        return forward(self, batch)

    monkeypatch.setattr(Qwen3VLBackbone, "forward", counting)
    options = {
        "model": str(checkpoint),
        "min_pixels": 1024,
        "max_pixels": 1024,
        "dtype": "float32",
        "device": "cpu",
    }
    base = {"backbone": ("qwen3-vl-2b", options), "metadata": None, "training": {"epochs": 1}}
    found = paper_tables(
        people, base, repeats=2, store=tmp_path / "s.sqlite", note="Random weights."
    )
    assert (
        sum(seen) == 160 + 1
    )  # everybody once, and one blank picture that tells what the backbone gives
    text = str(found)
    assert text.startswith("Random weights.")
    for table, lines in PRINTED.items():
        assert table in text
        for printed in lines.values():
            assert re.search(r"paper\s+" + r"\s+".join(f"{value:.1f}" for value in printed), text)
    assert "2 splits of 70 / 15 / 15 by person, 12 to 12 candidates" in text
    rows = {(table, name): ours for table, name, ours, _ in found.rows()}
    assert rows[("Table 1", "Random")].recall[5] == pytest.approx(5 / 12)
    by_pooling = [rows[("Table 2: frozen, by pooling", name)].mrr for name in ("EOS token", "Mean")]
    assert by_pooling[0] != by_pooling[1]
    assert by_pooling[1] == rows[("Table 1", "Qwen3-VL, frozen, mean pooling")].mrr


def test_metadata_poolers_and_layers_can_be_compared(people, tmp_path, monkeypatch):
    checkpoint = tiny_qwen3_vl.write(tmp_path / "tiny")
    seen = []
    prepare = Qwen3VLBackbone.prepare
    monkeypatch.setattr(
        Qwen3VLBackbone, "prepare", lambda self, items: seen.extend(items) or prepare(self, items)
    )
    options = {
        "model": str(checkpoint),
        "min_pixels": 1024,
        "max_pixels": 1024,
        "dtype": "float32",
        "device": "cpu",
    }
    base = {"backbone": ("qwen3-vl-2b", options), "head": "identity"}
    axes = {"metadata": [None, "measured"], "pooler": ["eos", ("mean", {"layer": 1}), "mean"]}
    pairs = people.subset(range(12))
    found = sweep(
        pairs,
        grid(base, axes),
        repeats=1,
        folds=2,
        ks=(3,),
        baselines=(),
        store=tmp_path / "s.sqlite",
    )
    assert len(seen) == 24 * 2  # one pass per prompt gives all poolers
    ranks = {found.table(learner)["reciprocal_rank"].tobytes() for learner in found.learners}
    assert len(ranks) == 6
    assert [item.text for item in seen if "sharpness" in item.text]


def test_the_papers_tables_without_token_states(people, tmp_path):
    found = paper_tables(
        people, {**BASE, "training": {"epochs": 1}}, repeats=1, store=tmp_path / "s.sqlite"
    )
    text = str(found)
    assert "Table 2: does not apply. The pooler 'eos' needs token states" in text
    assert "Table 1\n" in text
    assert "Table 3: trained" in text
    assert "descriptor, frozen" in text
    with pytest.raises(ConfigurationError, match="one backbone, got 2"):
        paper_tables(
            people, {**BASE, "backbone": ["descriptor", "clip"]}, store=tmp_path / "s.sqlite"
        )


def test_the_command_compares_prompts_without_attributes(small_pairs, tmp_path):
    from typer.testing import CliRunner

    from pairmatch.cli import app

    pairs = small_pairs(6)
    rows = [
        f"{a},{pairs.profiles[a].images[0]},{b},{pairs.profiles[b].images[0]}"
        for a, b in zip(pairs.ids_a, pairs.ids_b, strict=True)
    ]
    folder = pairs.profiles["a0"].images[0].parent
    text = "id_a,image_a,id_b,image_b\n" + "\n".join(rows) + "\n"
    (folder / "pairs.csv").write_text(text.replace(f"{folder}/", ""))

    def command(*more):
        line = [
            "sweep",
            folder / "pairs.csv",
            "--backbone",
            "descriptor",
            "--store",
            tmp_path / "s",
            "--plan",
            "--quiet",
        ]
        result = CliRunner().invoke(
            app, [str(part) for part in (*line, "--repeats", 1, "--folds", 2, *more)]
        )
        return result.exit_code, result.output

    code, output = command("--metadata", "measured", "--leave-out", "each", "--baseline", "none")
    assert code == 0, output
    expected = [
        "with every attribute",
        *(f"without {name}" for name in MeasuredMetadata.schema.model_fields),
    ]
    assert re.findall(r"^  (.*)$", output, re.MULTILINE) == expected
    code, output = command("--metadata", "measured", "--leave-out", "framin,colours")
    assert (code, "Did you mean 'framing'?" in output) == (2, True)
    for metadata in ("none", "none,measured"):
        code, output = command("--metadata", metadata, "--leave-out", "each")
        assert (code, "attributes of one metadata generator" in output) == (2, True)

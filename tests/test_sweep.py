"""Sweeps: a shared extraction, reused results, and the tables of the paper."""

import json
import re

import numpy as np
import pytest
import tiny_qwen3_vl
from PIL import Image

import pairmatch.experiments.sweep as sweeping
from pairmatch import Matcher, Pair, Pairs, Profile, TrainingConfig
from pairmatch.backbones.descriptor import DescriptorBackbone
from pairmatch.backbones.qwen3_vl import Qwen3VLBackbone
from pairmatch.core import registry
from pairmatch.core.errors import ConfigurationError
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.experiments.paper import PRINTED, paper_tables
from pairmatch.experiments.rows import describe_learner
from pairmatch.experiments.sweep import Combination, grid, plan, sweep
from pairmatch.learning.heads import LinearHead
from pairmatch.learning.losses import InfoNCELoss
from pairmatch.metadata.measured import MeasuredMetadata

BASE = {"backbone": "descriptor", "metadata": None, "training": {"epochs": 2, "batch_size": 16}}


def same_tables(first, second):
    """Whether two cross-validations have equal values in all columns."""
    return first.learners == second.learners and all(
        np.array_equal(values, second.table(learner)[name])
        for learner in first.learners
        for name, values in first.table(learner).columns.items()
    )


@pytest.fixture
def counted(monkeypatch):
    """Lists the batch sizes of the descriptor."""
    seen = []
    forward = DescriptorBackbone.forward

    def counting(self, batch):
        states = forward(self, batch)
        seen.append(len(states.pooled))
        return states

    monkeypatch.setattr(DescriptorBackbone, "forward", counting)
    return seen


def test_a_grid_lists_and_labels_all_combinations():
    combinations = grid(
        {"head": "mlp"},
        {"head.width": [8, 16], "loss": ["infonce", ("triplet", {})], "training.epochs": [2]},
    )
    assert [combination.label for combination in combinations] == [
        "head.width 8, loss infonce, training.epochs 2",
        "head.width 8, loss triplet, training.epochs 2",
        "head.width 16, loss infonce, training.epochs 2",
        "head.width 16, loss triplet, training.epochs 2",
    ]
    assert combinations[-1].arguments == {
        "head": ("mlp", {"width": 16}),
        "loss": ("triplet", {}),
        "training": {"epochs": 2},
    }
    assert grid({}, {})[0].label == "recipe"
    assert grid({}, {"head": ["linear"], "head.width": [4]})[0].arguments["head"] == (
        "linear",
        {"width": 4},
    )
    hyperparameters = {"training": TrainingConfig(epochs=3, patience=2)}
    training = grid(hyperparameters, {"training.epochs": [7]})[0].arguments["training"]
    assert TrainingConfig(**training) == TrainingConfig(epochs=7, patience=2)
    with pytest.raises(ConfigurationError, match=r"head\.width have no values"):
        grid({}, {"head.width": []})
    with pytest.raises(ConfigurationError, match=r"`pooler\.layer` needs `pooler` to be named"):
        grid({}, {"pooler.layer": [1]})


@pytest.fixture
def text_arguments(tmp_path_factory):
    """Arguments for a tiny Qwen3-VL, a backbone that reads text."""
    folder = tiny_qwen3_vl.write(tmp_path_factory.mktemp("tiny"))
    return {
        "backbone": ("qwen3-vl-2b", {"model": str(folder)}),
        "head": "linear",
        "training": {"epochs": 1},
    }


def test_omitting_attributes_reuses_stored_metadata(
    small_pairs, tmp_path, monkeypatch, text_arguments
):
    measured = []
    generate = MeasuredMetadata.generate

    def counting(self, profiles, *args, **options):
        measured.extend(profiles)
        return generate(self, profiles, *args, **options)

    monkeypatch.setattr(MeasuredMetadata, "generate", counting)
    pairs = small_pairs(6)
    combinations = grid(
        {**text_arguments, "metadata": "measured"},
        {"without": [None, "framing", ("colours", "exposure")]},
    )
    labels = ["with every attribute", "without framing", "without colours, exposure"]
    assert [combination.label for combination in combinations] == labels
    assert [
        combination.arguments.get("prompt", "").splitlines()[-1] for combination in combinations
    ] == [
        "Photo: {metadata}",
        "Photo: {metadata:-framing}",
        "Photo: {metadata:-colours,exposure}",
    ]
    shared = {"store": tmp_path / "store.sqlite", "device": "cpu"}
    result = sweep(pairs, combinations, repeats=1, folds=2, ks=(2,), baselines=(), **shared)
    assert result.learners == tuple(labels)
    assert len(measured) == 12  # each photo is measured once for all combinations
    again = sweep(pairs, combinations, repeats=1, folds=2, ks=(2,), baselines=(), **shared)
    assert len(measured) == 12
    assert same_tables(result, again)
    with pytest.raises(ConfigurationError, match="to leave out 'caption'"):
        sweep(
            pairs,
            grid(combinations[0].arguments, {"without": ["caption"]}),
            repeats=1,
            folds=2,
            **shared,
        )


def test_all_combinations_share_an_extraction(small_pairs, tmp_path, counted):
    pairs = small_pairs(25)
    combinations = grid(BASE, {"head.width": [4, 8], "loss.temperature": [0.1, 0.2]})
    shared = {"store": tmp_path / "store.sqlite"}
    result = sweep(
        pairs, combinations, repeats=1, folds=3, ks=(5,), baselines=("frozen",), **shared
    )
    assert sum(counted) == 50
    assert result.learners == (*(combination.label for combination in combinations), "frozen")
    # A row of the sweep equals the cross-validation of its combination
    matcher = Matcher(
        backbone="descriptor",
        metadata=None,
        head=("mlp", {"width": 8}),
        loss=("infonce", {"temperature": 0.1}),
        training=TrainingConfig(epochs=2, batch_size=16),
        **shared,
    )
    expected = cross_validate(
        matcher.paired_features(pairs), {"single": matcher.learner}, repeats=1, folds=3, ks=(5,)
    )
    ours = result.table("head.width 8, loss.temperature 0.1")
    for name, column in expected.table("single").columns.items():
        np.testing.assert_array_equal(ours[name], column)
    assert sum(counted) == 50


def test_an_interrupted_sweep_resumes(small_pairs, tmp_path, monkeypatch):
    pairs = small_pairs(20)
    arguments = {"repeats": 1, "folds": 2, "ks": (3,), "baselines": ("frozen", "centred")}
    arguments |= {"store": tmp_path / "store.sqlite", "output": tmp_path / "out"}
    combinations = grid(BASE, {"head.width": [4, 8]})
    measure = sweeping.measure_learner
    calls = []

    def failing(*args, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return measure(*args, **options)

    monkeypatch.setattr(sweeping, "measure_learner", failing)
    with pytest.raises(KeyboardInterrupt):
        sweep(pairs, combinations, **arguments)
    monkeypatch.setattr(
        sweeping,
        "measure_learner",
        lambda *args, **options: calls.append(1) or measure(*args, **options),
    )
    resumed = sweep(pairs, combinations, **arguments)
    assert len(calls) == 4
    again = sweep(pairs, combinations, **arguments)
    assert len(calls) == 4
    assert same_tables(resumed, again)
    sweep(pairs, combinations, **{**arguments, "seed": 1})
    assert len(calls) == 8  # other splits are measured separately
    for file in (tmp_path / "out" / "lines").iterdir():
        file.write_bytes(b"damaged")
    repaired = sweep(pairs, combinations, **arguments)
    assert len(calls) == 12
    assert same_tables(repaired, resumed)
    sweep(pairs, combinations, **arguments)
    assert len(calls) == 12


def test_rows_are_stored_under_all_options_of_their_learner():
    contrastive = {
        "head": ("mlp", {"width": 8}),
        "loss": "infonce",
        "training": {"epochs": 2},
        "validation": 0.2,
    }
    changes = {
        "head": ("mlp", {"width": 9}),
        "loss": ("infonce", {"temperature": 0.3}),
        "training": {"epochs": 2, "learning_rate": 0.1},
        "validation": 0.3,
    }
    learners = [registry.create("learners", ("contrastive", contrastive))]
    learners += [
        registry.create("learners", ("contrastive", {**contrastive, option: value}))
        for option, value in changes.items()
    ]
    instances = {"head": LinearHead(dim=8, width=4), "loss": InfoNCELoss(temperature=0.3)}
    learners.append(registry.create("learners", ("contrastive", instances)))
    learners.append(registry.create("learners", ("metric", {"strength": np.float64(0.1)})))
    described = [json.dumps(describe_learner(learner)) for learner in learners]
    assert len(set(described)) == len(learners)
    assert '"temperature": 0.3' in described[-2]
    on_gpu = registry.create("learners", ("contrastive", {**contrastive, "device": "cuda"}))
    assert describe_learner(on_gpu) == describe_learner(learners[0])
    learners[0].validation = object()
    with pytest.raises(ConfigurationError, match="run the sweep without `output`"):
        describe_learner(learners[0])


def test_learners_and_their_options_can_be_compared(small_pairs, tmp_path):
    base = {"backbone": "descriptor", "metadata": None}
    arguments = {"repeats": 1, "folds": 2, "ks": (3,), "baselines": ()}
    arguments |= {"store": tmp_path / "s.sqlite", "output": tmp_path / "out"}
    pairs = small_pairs(16)
    axis = {"learner": ["frozen", "metric", ("metric", {"strength": 0.3})]}
    result = sweep(pairs, grid(base, axis), **arguments)
    assert result.learners == (
        "learner frozen",
        "learner metric",
        "learner metric (strength=0.3)",
    )
    by_option = sweep(
        pairs, grid({**base, "learner": "metric"}, {"learner.strength": [0.3]}), **arguments
    )
    for name, column in result.table("learner metric (strength=0.3)").columns.items():
        np.testing.assert_array_equal(by_option.table("learner.strength 0.3")[name], column)
    assert grid(BASE, {"learner.validation": [0.2]})[0].arguments["learner"] == (
        "contrastive",
        {"validation": 0.2},
    )
    with pytest.raises(ConfigurationError) as caught:
        sweep(pairs, grid(BASE, {"learner": ["contrastive", "metric"]}), **arguments)
    assert "1 combination cannot be built:\n  learner metric: " in str(caught.value)
    assert "'metric' does not use training" in str(caught.value)


def test_each_feature_set_has_baselines(small_pairs, tmp_path):
    combinations = grid(BASE, {"backbone.size_px": [56, 112]})
    result = sweep(
        small_pairs(16),
        combinations,
        repeats=1,
        folds=2,
        ks=(3,),
        baselines=("frozen",),
        store=tmp_path / "s.sqlite",
    )
    assert result.learners == (
        "backbone.size_px 56",
        "backbone.size_px 112",
        "frozen (backbone.size_px 56)",
        "frozen (backbone.size_px 112)",
    )
    first, second = (result.table(name)["rank"] for name in result.learners[2:])
    assert not np.array_equal(first, second)


def test_the_plan_lists_all_rows_and_runs_a_small_sample(small_pairs, tmp_path, counted):
    pairs = small_pairs(20)
    sweep_plan = plan(
        pairs, grid(BASE, {"head.width": [4, 8]}), repeats=2, folds=3, store=tmp_path / "s.sqlite"
    )
    assert sweep_plan.to_extract == 40
    assert sweep_plan.fits == 9 * 6
    assert sweep_plan.seconds > 0
    assert sum(counted) == 10
    text = str(sweep_plan)
    assert re.search(r"9 rows, 1 extraction of 40 people:\n  head.width 4\n", text)
    assert "40 inputs to extract, 54 fits; about" in text
    smaller_plan = plan(pairs, grid(BASE, {}), baselines=(), store=tmp_path / "s.sqlite")
    assert smaller_plan.to_extract == 30
    assert "40 distinct inputs, 10 in the store, 30 new" in str(smaller_plan)


def test_the_plan_lists_the_rows_of_the_sweep(small_pairs, tmp_path):
    pairs = small_pairs(12)
    combinations = grid(BASE, {"backbone.size_px": [56, 112], "head.width": [4, 8]})
    arguments = {"repeats": 1, "folds": 2, "baselines": ("frozen", "centred")}
    arguments["store"] = tmp_path / "s.sqlite"
    sweep_plan = plan(pairs, combinations, **arguments)
    assert sweep_plan.extractions == 2
    assert sweep_plan.fits == (4 + 2 * 2) * 2
    assert sweep_plan.labels == sweep(pairs, combinations, **arguments).learners


def test_the_plan_uploads_no_photos(small_pairs, tmp_path, monkeypatch, text_arguments):
    def generate(self, *args, **options):
        raise AssertionError("A photo was sent.")

    monkeypatch.setattr(MeasuredMetadata, "generate", generate)
    monkeypatch.setattr(MeasuredMetadata, "sends_photos", True)
    pairs = small_pairs(6)
    shared = {"store": tmp_path / "s.sqlite", "device": "cpu", "allow_upload": True}
    shared |= {"repeats": 1, "folds": 2, "baselines": ()}
    base = {"training": {"epochs": 1}, "head": "linear"}
    backbones = [text_arguments["backbone"], ["descriptor", text_arguments["backbone"]]]
    axes = {"metadata": [None, "measured"], "backbone": backbones}
    sweep_plan = plan(pairs, grid(base, axes), **shared)
    # Qwen3-VL once with and once without metadata, the descriptor once
    assert sweep_plan.extractions == 3
    assert sweep_plan.to_extract == 12 + 12 + 12
    assert sweep_plan.work.metadata[0].estimate.photos == 12
    assert "12 photos to submit" in str(sweep_plan)
    # A backbone that reads no text needs no metadata
    without_text = plan(pairs, grid({**BASE, "metadata": "measured"}, {}), **shared)
    assert (without_text.extractions, without_text.to_extract) == (1, 12 - 10)  # of the trial
    assert without_text.seconds > 0


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


def test_invalid_layers_are_configuration_errors(small_pairs, tmp_path):
    combinations = grid({**BASE, "pooler": "mean"}, {"pooler.layer": [1, "last"]})
    with pytest.raises(ConfigurationError, match=r"needs layer (1|last)"):
        sweep(small_pairs(8), combinations, store=tmp_path / "s.sqlite")


def test_all_rows_test_the_same_queries_with_join_identical(tmp_path, text_arguments):
    """Two people share a photo: identical for the descriptor, not for a backbone that reads."""
    rng = np.random.default_rng(0)
    photos = {
        f"{side}{i}": rng.integers(0, 255, (32, 32, 3), np.uint8)
        for i in range(12)
        for side in "ab"
    }
    photos["a5"] = photos["a0"]
    for name, photo in photos.items():
        Image.fromarray(photo).save(tmp_path / f"{name}.png")
    profiles = [Profile(name, (tmp_path / f"{name}.png",), text=f"I am {name}") for name in photos]
    pairs = Pairs.of(profiles, [Pair(f"a{i}", f"b{i}") for i in range(12)])
    combinations = [
        Combination(label, {"backbone": backbone, "metadata": None, "head": "identity"})
        for label, backbone in (("text", text_arguments["backbone"]), ("photo", "descriptor"))
    ]
    options = {"repeats": 2, "folds": 3, "ks": (2,), "baselines": (), "join_identical": True}
    options |= {"store": tmp_path / "s.sqlite", "device": "cpu"}
    result = sweep(pairs, combinations, **options)
    tables = [result.table(label) for label in ("text", "photo", "chance")]
    assert len(tables[0]) == 2 * 24
    for name in ("query", "direction", "component", "candidates", "repeat", "fold"):
        np.testing.assert_array_equal(tables[0][name], tables[1][name])
        np.testing.assert_array_equal(tables[0][name], tables[2][name])
    folds = tables[0].columns
    is_joined = np.isin(folds["query"], (0, 5))
    for repeat in range(2):
        assert len(set(folds["fold"][is_joined & (folds["repeat"] == repeat)])) == 1
    assert result.compare("text", "photo").queries == 24


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)

    def person(name):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / f"{name}.png")
        return Profile(name, (folder / f"{name}.png",), text=f"I am {name}")

    profiles = [person(f"{side}{i}") for i in range(80) for side in "ab"]
    return Pairs.of(profiles, [Pair(f"a{i}", f"b{i}") for i in range(80)])


def test_the_tables_of_the_paper_with_token_states(people, tmp_path, monkeypatch):
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
    result = paper_tables(
        people, base, repeats=2, store=tmp_path / "s.sqlite", note="Random weights."
    )
    # Each person once, and a blank photo that reveals which outputs the backbone returns
    assert sum(seen) == 160 + 1
    text = str(result)
    assert text.startswith("Random weights.")
    for table, lines in PRINTED.items():
        assert table in text
        for printed in lines.values():
            assert re.search(r"paper\s+" + r"\s+".join(f"{value:.1f}" for value in printed), text)
    assert "2 splits of 70 / 15 / 15 by person, 12 to 12 candidates" in text
    rows = {(table, name): ours for table, name, ours, _ in result.rows()}
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
    result = sweep(
        pairs,
        grid(base, axes),
        repeats=1,
        folds=2,
        ks=(3,),
        baselines=(),
        store=tmp_path / "s.sqlite",
    )
    assert len(seen) == 24 * 2  # a single pass per prompt for all poolers
    ranks = {result.table(learner)["reciprocal_rank"].tobytes() for learner in result.learners}
    assert len(ranks) == 6
    assert [item.text for item in seen if "sharpness" in item.text]


def test_the_tables_of_the_paper_without_token_states(people, tmp_path):
    result = paper_tables(
        people, {**BASE, "training": {"epochs": 1}}, repeats=1, store=tmp_path / "s.sqlite"
    )
    text = str(result)
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
        arguments = [
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
            app, [str(part) for part in (*arguments, "--repeats", 1, "--folds", 2, *more)]
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


def test_a_combination_cannot_have_the_name_of_a_baseline(small_pairs, tmp_path):
    frozen = [Combination("frozen", BASE)]
    with pytest.raises(ConfigurationError, match="'frozen' names both"):
        sweep(small_pairs(8), frozen, folds=2, repeats=1, store=tmp_path / "s.sqlite")

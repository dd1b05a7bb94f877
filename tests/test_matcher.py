"""The matcher: fitting, evaluation, recommendation, saving and loading."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HashBackbone, shared

from pairmatch import Evaluator, Gallery, Matcher, Pair, Pairs, Profile, Trainer, TrainingConfig
from pairmatch.core import registry
from pairmatch.core.errors import (
    ConfigurationError,
    NotFittedError,
    PairmatchError,
    PartError,
    SavedMatcherError,
)
from pairmatch.learning.baselines import Frozen
from pairmatch.learning.heads import IdentityHead, MLPHead
from pairmatch.matcher.card import model_card
from pairmatch.matcher.records import named_record, without_folders
from pairmatch.metadata.measured import MeasuredMetadata
from pairmatch.metadata.openai import GPT5NanoMetadata

FAST = TrainingConfig(epochs=2, batch_size=8)


def matcher(tmp_path, **options):
    defaults = {"backbone": "descriptor", "metadata": None, "store": tmp_path / "store.sqlite"}
    if "learner" not in options:
        defaults["training"] = FAST
    return Matcher(**{**defaults, **options})


def test_fit_and_evaluate_match_the_trainer_and_evaluator(tmp_path, small_pairs):
    pairs = small_pairs(40)
    train, validation, test = pairs.split(seed=0)
    fitted = matcher(tmp_path).fit(train, validation)
    expected = Trainer(config=FAST).fit(
        fitted.paired_features(train), fitted.paired_features(validation)
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            expected.head.state_dict().values(), fitted.head.state_dict().values(), strict=True
        )
    )
    evaluation = fitted.evaluate(test)
    h_a, h_b = (
        fitted.features([test.profiles[i] for i in ids]) for ids in (test.ids_a, test.ids_b)
    )
    e_a, e_b = expected.head.embed(h_a, "a"), expected.head.embed(h_b, "b")
    reference = Evaluator().evaluate_arrays(e_a, e_b, frozen_a=h_a, frozen_b=h_b)
    assert evaluation.to_dict() == reference.to_dict()


def test_a_second_fit_does_not_run_the_backbone(tmp_path, small_pairs):
    pairs = small_pairs(12)
    backbone = HashBackbone()
    first = matcher(tmp_path, backbone=backbone).fit(pairs)
    seen = backbone.seen
    second = matcher(tmp_path, backbone=backbone, loss="sigmoid").fit(pairs)
    assert backbone.seen == seen == 24
    assert not torch.equal(
        first.head.state_dict()["layers.0.weight"], second.head.state_dict()["layers.0.weight"]
    )


def test_recommendations_are_ranked_by_the_inner_product_of_embeddings(tmp_path, small_pairs):
    pairs = small_pairs(12)
    fitted = matcher(tmp_path).fit(pairs)
    people = list(pairs.people)
    e = fitted.embed(people)
    assert e.dtype == np.float32
    assert e.shape == (24, 512)
    assert np.allclose(np.linalg.norm(e, axis=1), 1, atol=1e-5)
    gallery = fitted.gallery(people)
    recommendations = fitted.recommend(people[3], gallery, k=5)
    scores = {
        p.id: float(e[3] @ vector)
        for p, vector in zip(people, e, strict=True)
        if p.id != people[3].id
    }
    best = sorted(scores, key=lambda i: -scores[i])[:5]
    assert [candidate.profile.id for candidate in recommendations] == best
    assert [candidate.rank for candidate in recommendations] == [1, 2, 3, 4, 5]
    assert recommendations[0].score == pytest.approx(scores[best[0]], abs=1e-5)
    assert [r.profile.id for r in fitted.recommend(people[3], people, k=5)] == best
    assert len(fitted.recommend(people[3], gallery, k=100)) == 23  # the query person is excluded
    with pytest.raises(ConfigurationError, match="occur more than once: a0"):
        fitted.gallery([people[0], people[0]])
    with pytest.raises(ConfigurationError, match="at least 1, got 0"):
        fitted.recommend(people[0], gallery, k=0)


def test_the_summary_describes_the_metadata(tmp_path, hash_backbone):
    options = {"store": tmp_path / "s.sqlite"}
    nobody = "none: no generator sees the photos"
    images_only = Matcher(backbone="descriptor", metadata="gpt-5-nano", **options)
    assert images_only.summary()["Metadata"] == "none: no backbone here reads text"
    with_text = Matcher(backbone=hash_backbone, metadata="gpt-5-nano", **options)
    assert with_text.summary()["Metadata"].startswith("gpt-5-nano")
    assert "<class" not in with_text.summary()["Metadata"]
    assert Matcher(backbone=hash_backbone, metadata=None).summary()["Metadata"] == nobody
    assert Matcher(backbone=hash_backbone, **options).summary()["Metadata"] == nobody


@pytest.mark.parametrize(
    ("backbone", "asked"),
    [
        ("qwen3-vl-2b", True),
        (["hf-text", "qwen3-vl-2b"], True),
        ("hf-text", False),
        ("descriptor", False),
        ([("clip", {"text": True, "random_weights": True}), "hf-text"], False),
        ("qwen3-vl-embedding-2b", False),
    ],
)
def test_only_the_recipes_backbone_asks_the_recipes_generator(backbone, asked):
    assert isinstance(Matcher(backbone=backbone).metadata, GPT5NanoMetadata) is asked
    named = Matcher(backbone=backbone, metadata="measured").metadata
    assert isinstance(named, MeasuredMetadata)
    assert Matcher(backbone=backbone, metadata="none").metadata is None


def test_the_frozen_baseline_needs_no_fit(tmp_path, small_pairs):
    pairs = small_pairs(12)
    frozen = matcher(tmp_path, head="identity")
    evaluation = frozen.evaluate(pairs)
    assert evaluation.frozen is None
    assert np.allclose(
        frozen.embed(pairs.people[:2]) * np.sqrt(3), frozen.features(pairs.people[:2]), atol=1e-5
    )
    assert len(frozen.recommend(pairs.people[0], pairs.people, k=3)) == 3
    unfitted = matcher(tmp_path)
    for call in (
        lambda: unfitted.embed(pairs.people),
        lambda: unfitted.evaluate(pairs),
        lambda: unfitted.save(tmp_path / "m"),
    ):
        with pytest.raises(NotFittedError):
            call()


def test_a_loaded_matcher_equals_the_saved_one(tmp_path, small_pairs):
    pairs = small_pairs(30)
    train, validation, test = pairs.split(seed=0)
    fitted = matcher(
        tmp_path,
        backbone=["descriptor", ("descriptor", {"size_px": 56})],
        weights=[1.0, 0.5],
        head=("mlp", {"width": 16, "shared": False}),
        loss=("infonce", {"temperature": 0.1, "directions": "both"}),
        prompt="{text}",
        prompt_attributes=["age"],
        store_dtype="float16",
    ).fit(train, validation)
    evaluation = fitted.evaluate(test)
    folder = fitted.save(tmp_path / "saved")
    assert sorted(file.name for file in folder.iterdir()) == [
        ".pairmatch",
        "README.md",
        "head.safetensors",
        "history.csv",
        "matcher.json",
    ]
    loaded = Matcher.load(folder, store=tmp_path / "other.sqlite")
    for side in "ab":
        assert np.array_equal(
            loaded.embed(test.people, side=side), fitted.embed(test.people, side=side)
        )
    assert loaded.metrics == json.loads(json.dumps(evaluation.to_dict()))
    assert loaded.history == fitted.history
    assert loaded.pipeline.weights == [1.0, 0.5]
    assert loaded.pipeline.prompt == "{text}"
    assert loaded.pipeline.prompt_attributes == ("age",)
    assert loaded.evaluate(test).to_dict() == evaluation.to_dict()
    copy = loaded.save(tmp_path / "copy")
    assert json.loads((copy / "matcher.json").read_text()) == json.loads(
        (folder / "matcher.json").read_text()
    )
    record = (folder / "matcher.json").read_text() + (folder / "README.md").read_text()
    assert not any(
        profile.id in record.split('"') or profile.text in record for profile in pairs.people
    )
    assert "pairmatch.heads" not in record  # registered names, never import paths
    assert "| head | mlp | width=16" in (folder / "README.md").read_text()


def test_instances_are_saved_by_their_registered_names(tmp_path, small_pairs):
    from pairmatch.backbones.descriptor import DescriptorBackbone
    from pairmatch.learning.losses import InfoNCELoss

    pairs = small_pairs(10)
    fitted = matcher(
        tmp_path, backbone=DescriptorBackbone(size_px=56), loss=InfoNCELoss(temperature=0.5)
    ).fit(pairs)
    record = json.loads((fitted.save(tmp_path / "saved") / "matcher.json").read_text())
    assert record["parts"]["backbones"][0]["options"] == {"size_px": 56}
    loss, options = record["parts"]["learner"]["options"]["loss"]
    assert loss == "infonce"
    assert options["temperature"] == 0.5
    assert record["parts"]["learner"]["distribution"] == "pairmatch"
    unregistered = matcher(tmp_path, backbone=HashBackbone()).fit(pairs)
    with pytest.raises(
        PartError, match=r"declare it as an entry point of the group pairmatch\.backbones"
    ):
        unregistered.save(tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.fixture
def folder(tmp_path, small_pairs):
    return matcher(tmp_path).fit(small_pairs(10)).save(tmp_path / "saved")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: (f / "matcher.json").unlink(), "holds no saved matcher"),
        (lambda f: (f / "matcher.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "matcher.json").write_text("[]"), "has no format version"),
        (
            lambda f: (f / "matcher.json").write_text('{"format": 99}'),
            "has format 99, this pairmatch reads formats 1 to 3",
        ),
        (lambda f: (f / "head.safetensors").unlink(), "head.safetensors cannot be read"),
        (
            lambda f: (f / "head.safetensors").write_bytes(b"\x80\x04pickle"),
            "does not belong to matcher.json",
        ),
    ],
)
def test_damaged_folders_are_errors(folder, damage, reason):
    damage(folder)
    with pytest.raises(SavedMatcherError, match=reason):
        Matcher.load(folder)


def test_loading_executes_nothing_from_the_folder(folder, tmp_path):
    record = json.loads((folder / "matcher.json").read_text())
    attack = ["os:system", {"command": f"touch {tmp_path / 'ran'}"}]
    record["parts"]["learner"]["options"]["loss"] = attack
    (folder / "matcher.json").write_text(json.dumps(record))
    with pytest.raises(PartError, match="Unknown loss 'os:system'"):
        Matcher.load(folder)
    assert not (tmp_path / "ran").exists()
    record["parts"]["learner"] = "contrastive"
    (folder / "matcher.json").write_text(json.dumps(record))
    with pytest.raises(SavedMatcherError, match="was not written by `save`"):
        Matcher.load(folder)


def test_a_missing_plugin_is_named(example_plugin, tmp_path, small_pairs, monkeypatch):
    fitted = matcher(tmp_path, backbone="mean-color", loss="cosine-gap").fit(small_pairs(10))
    folder = fitted.save(tmp_path / "saved")
    assert Matcher.load(folder).learner.loss == "cosine-gap"
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(example_plugin)])
    with pytest.raises(
        PartError,
        match=r"Unknown backbone 'mean-color'.*came from pairmatch-example 1.2.3: install it",
    ):
        Matcher.load(folder)


def test_another_backbone_causes_a_warning(folder, small_pairs, caplog, tmp_path):
    people = small_pairs(3).people
    Matcher.load(folder, store=tmp_path / "s.sqlite").embed(people)
    assert "was trained on features of another" not in caplog.text
    changed = Matcher.load(
        folder, backbone=("descriptor", {"size_px": 56}), store=tmp_path / "s.sqlite"
    )
    with caplog.at_level(logging.WARNING):
        changed.embed(people)
    assert "size_px: 112 then, 56 now" in caplog.text


def test_one_sided_pairs_and_rejections(tmp_path, photo):
    people = [Profile(f"p{i}", (photo(f"{i}.png", seed=i),)) for i in range(20)]
    pairs = Pairs.of(
        people,
        [Pair(f"p{i}", f"p{(i + 1) % 20}") for i in range(0, 20)] + [Pair("p0", "p7", "rejected")],
        sides=1,
    )
    fitted = matcher(tmp_path).fit(pairs)
    evaluation = fitted.evaluate(pairs, ks=[3])
    assert evaluation.a_to_b is None
    assert evaluation.candidates == (19,)
    with pytest.raises(ConfigurationError, match="trained on pairs with sides=1, got 2"):
        fitted.evaluate(Pairs.of(people, [Pair("p0", "p1")]))


def test_arguments_are_checked_in_the_constructor(tmp_path):
    for options, error, reason in (
        ({"backbone": "descriptr"}, PartError, "Did you mean 'descriptor'"),
        ({"head": "mpl"}, PartError, "Did you mean 'mlp'"),
        ({"backbone": []}, ConfigurationError, "at least one"),
        ({"pooler": ["native", "native"]}, ConfigurationError, "same pooler twice"),
        (
            {"backbone": ["descriptor", "attributes"], "pooler": ["native", "mean", "eos"]},
            ConfigurationError,
            "one per backbone: 2, got 3",
        ),
        ({"weights": [1, 2]}, ConfigurationError, r"one positive number per backbone \(1\)"),
        ({"loss": 3}, PartError, "must implement `pairmatch.ContrastiveLoss`"),
        ({"head": 3}, PartError, "must implement `pairmatch.ProjectionHead`"),
    ):
        with pytest.raises(error, match=reason):
            matcher(tmp_path, **options)
    pooled = matcher(tmp_path, pooler="mean")
    with pytest.raises(ConfigurationError, match="use pooler='native'"):
        pooled.poolers[0].pool(pooled.backbones[0].forward(torch.ones(1, 3)))


def test_importing_the_package_does_not_import_torch():
    code = (
        "import sys, pairmatch, pairmatch.cli\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules, 'heavy import'\n"
        "assert set(pairmatch.__all__) <= set(dir(pairmatch))\n"
        "assert all(getattr(pairmatch, name) is not None for name in pairmatch.__all__)\n"
        "assert 'torch' in sys.modules\n"
        "try:\n    pairmatch.nothing\nexcept AttributeError as e:\n    print(e)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == "module 'pairmatch' has no attribute 'nothing'"


def test_every_error_is_also_a_standard_error():
    from pairmatch.core import errors

    for name, error in vars(errors).items():
        if (
            isinstance(error, type)
            and issubclass(error, PairmatchError)
            and error is not PairmatchError
        ):
            assert len(error.__mro__) > 4, name


@pytest.mark.parametrize("backbone", ["descriptor", "onnx", "both"])
def test_real_photos_are_evaluated(backbone, tmp_path):
    onnx = ("onnx", {"path": str(shared("mobilenet_v1.onnx")), "output": "emb"})
    parts = {"descriptor": ["descriptor"], "onnx": [onnx], "both": ["descriptor", onnx]}[backbone]
    pairs = Pairs.read(shared("furniture/pairs.csv"), check_images=False)
    pairs = pairs.subset(range(0, len(pairs.pairs), 4))
    train, validation, test = pairs.split(seed=0)
    fitted = Matcher(backbone=parts, store=tmp_path / "s.sqlite", training=FAST).fit(
        train, validation
    )
    evaluation = fitted.evaluate(test)
    assert evaluation.queries == len(test.ids_a) + len(test.ids_b)
    assert (
        0
        < evaluation.both.mrr_interval[0]
        < evaluation.both.mrr
        < evaluation.both.mrr_interval[1]
        < 1
    )


def test_the_preset_robust_is_best(tmp_path):
    with pytest.warns(FutureWarning, match="'robust' is replaced by 'best'"):
        fitted = Matcher.preset("robust", backbone="descriptor", store=tmp_path / "store.sqlite")
    assert type(fitted.learner).__name__ == "Best"
    with pytest.warns(FutureWarning, match="without the options of 'robust'"):
        assert type(matcher(tmp_path, learner=("robust", {"folds": 3})).learner).__name__ == "Best"


def test_metric_recommends_with_the_evaluated_embeddings(tmp_path, small_pairs):
    pairs = small_pairs(24)
    fitted = matcher(tmp_path, learner="metric").fit(pairs)
    assert type(fitted.head).__name__ == "MetricHead"
    evaluation = fitted.evaluate(small_pairs(10), resamples=0)
    assert "frozen" in evaluation.to_dict()
    folder = fitted.save(tmp_path / "saved")
    loaded = Matcher.load(folder, store=tmp_path / "store.sqlite")
    people = list(pairs.people)
    assert np.array_equal(loaded.embed(people), fitted.embed(people))
    assert type(loaded.learner).__name__ == "PairMetric"
    assert loaded.learner.strength == fitted.learner.strength
    card = (folder / "README.md").read_text()
    assert "| learner | metric |" in card
    assert "Training:" not in card
    # Scores are the inner products of the evaluated embeddings
    recommendations = loaded.recommend(people[0], people[1:], k=3)
    e_a, e_b = loaded.embed(people, side="a"), loaded.embed(people, side="b")
    expected = np.sort(e_b[1:] @ e_a[0])[::-1][:3]
    assert np.allclose([candidate.score for candidate in recommendations], expected, atol=1e-6)


def test_a_metric_of_high_rank_can_be_loaded(tmp_path, small_pairs):
    pairs = small_pairs(150)  # the rank exceeds the width of the head that the constructor checks
    fitted = matcher(tmp_path, learner=("metric", {"strength": 0.1})).fit(pairs)
    assert fitted.head.rank > 240
    loaded = Matcher.load(fitted.save(tmp_path / "saved"), store=tmp_path / "store.sqlite")
    assert np.array_equal(loaded.embed(pairs.people[:9]), fitted.embed(pairs.people[:9]))
    assert loaded.summary()["Head"] == fitted.summary()["Head"]


def test_learners_without_epochs_ignore_validation_pairs(tmp_path, small_pairs):
    pairs = small_pairs(30)
    train, validation, _ = pairs.split(seed=0)
    with_validation = matcher(tmp_path, learner="metric").fit(train, validation)
    without_validation = matcher(tmp_path, learner="metric").fit(train)
    all_pairs = matcher(tmp_path, learner="metric").fit(pairs)
    assert all(
        torch.equal(value, without_validation.head.state_dict()[name])
        for name, value in with_validation.head.state_dict().items()
    )
    assert with_validation.notes == without_validation.notes
    # Training on more people changes the mean
    assert not torch.equal(with_validation.head.mean, all_pairs.head.mean)


@pytest.mark.parametrize(
    "learner",
    [
        ("contrastive", {"training": {"epochs": 1}}),
        ("tuned", {"trials": 1, "folds": 2, "training": {"epochs": 1}}),
        "metric",
        "frozen",
        "centred",
        "whitened",
        "cca",
        "ridge",
        "popularity",
        ("best", {"recipe": False}),
        ("best", {"recipe": False, "folds": 2, "width": 6}),
    ],
)
@pytest.mark.parametrize("sides", [1, 2])
def test_every_learner_can_be_saved_loaded_and_used_for_recommendation(
    learner, sides, tmp_path, small_pairs
):
    pairs = small_pairs(24, sides=sides)
    small = ("descriptor", {"size_px": 56})
    fitted = matcher(tmp_path, backbone=small, learner=learner).fit(pairs)
    evaluation = fitted.evaluate(pairs, resamples=0)
    loaded = Matcher.load(fitted.save(tmp_path / "saved"), store=tmp_path / "store.sqlite")
    assert type(loaded.learner) is type(fitted.learner)
    assert registry.describe("learners", loaded.learner)[1].keys() == (
        registry.describe("learners", fitted.learner)[1].keys()
    )
    reloaded = loaded.evaluate(pairs, resamples=0)
    assert reloaded.both == evaluation.both
    assert reloaded.frozen.both == evaluation.frozen.both
    people = [pairs.profiles[person] for person in pairs.ids_b]
    gallery = loaded.gallery(people)
    gallery.save(tmp_path / "gallery")
    query = pairs.profiles[pairs.ids_a[0]]
    ranked = loaded.recommend(query, Gallery.open(tmp_path / "gallery"), k=3)
    scores = loaded.embed([query], side="a") @ loaded.embed(people, side="b").T
    allowed = [row for row, person in enumerate(people) if person.id != query.id]
    expected = np.sort(scores[0, allowed])[::-1][:3]
    assert np.allclose([candidate.score for candidate in ranked], expected, atol=1e-6)
    refitted = loaded.fit(pairs)
    assert np.array_equal(refitted.embed(people, side="b"), fitted.embed(people, side="b"))


def test_conflicting_learner_arguments_are_errors(tmp_path):
    for options, message in (
        ({"learner": "cca", "head": "linear"}, r"'cca' does not use head \(command line: --head\)"),
        ({"learner": "metric", "loss": "sigmoid"}, "The learner 'metric' does not use loss "),
        (
            {"learner": ("ridge", {"strength": 0.1}), "training": FAST, "head": "mlp"},
            "The learner 'ridge' does not use head, training ",
        ),
        ({"learner": Frozen(), "head": "mlp"}, "The learner 'Frozen' does not use head "),
        (
            {"learner": ("contrastive", {"head": "mlp"}), "head": "linear"},
            "head of the learner 'contrastive' is given twice",
        ),
    ):
        with pytest.raises(ConfigurationError, match=message):
            matcher(tmp_path, **options)
    with pytest.raises(ConfigurationError, match="does not use head"):
        Matcher.preset("best", backbone="descriptor", head="linear")
    combined = matcher(tmp_path, learner=("contrastive", {"validation": 0.0}), head="linear")
    assert (combined.learner.head, combined.learner.validation) == ("linear", 0.0)


def test_unknown_presets_and_unfitted_learners_are_errors(tmp_path, small_pairs):
    with pytest.raises(ConfigurationError, match=r"Unknown preset 'robus'\. Did you mean 'robust'"):
        Matcher.preset("robus")
    with pytest.raises(NotFittedError):
        matcher(tmp_path, learner="metric").embed(small_pairs(4).people)
    frozen = matcher(tmp_path, learner="frozen")
    assert frozen.evaluate(small_pairs(4), resamples=0).frozen is None


def test_the_seed_is_taken_from_the_argument_or_the_training_config(tmp_path, small_pairs):
    assert matcher(tmp_path, training=TrainingConfig(seed=5)).seed == 5
    assert matcher(tmp_path, training=TrainingConfig(seed=5), seed=7).seed == 7
    assert matcher(tmp_path, learner="metric", seed=3).seed == 3
    heads = [
        matcher(tmp_path, training={"epochs": 1}, seed=seed).fit(small_pairs(6)).head
        for seed in (0, 0, 1)
    ]
    weights = [head.state_dict()["layers.0.weight"] for head in heads]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_best_on_a_small_one_sided_set_warns(tmp_path, small_pairs, caplog):
    with caplog.at_level(logging.WARNING, "pairmatch"):
        fitted = matcher(tmp_path, learner="best").fit(small_pairs(12, sides=1))
    assert "Too few pairs to learn from" in caplog.text
    assert "Too few pairs to learn from" in fitted.notes[0]
    assert fitted.evaluate(small_pairs(6, sides=1), resamples=0).queries == 12


def test_training_hyperparameters_supply_the_seed_in_every_form(tmp_path):
    assert matcher(tmp_path, training={"seed": 7}).seed == 7
    assert matcher(tmp_path, learner=("contrastive", {"training": {"seed": 8}})).seed == 8
    assert matcher(tmp_path, learner=("tuned", {"training": {"seed": 9}})).seed == 9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"training": 5}, "takes a `TrainingConfig` or its fields, got 5"),
        ({"learner": ("contrastive", {"training": 3})}, "or its fields, got 3"),
        ({"learner": ("tuned", {"training": {"epoch": 1}})}, "epoch"),
        ({"learner": ("tuned", {"head": "mlpx"})}, "Did you mean 'mlp'"),
        ({"learner": ("tuned", {"space": {"head.width": 3}})}, "takes a list of values, a range"),
    ],
)
def test_invalid_learner_options_fail_before_extraction(tmp_path, options, words):
    with pytest.raises(PairmatchError, match=words):
        matcher(tmp_path, **options)


def test_a_head_instance_of_another_width_is_refused(tmp_path, small_pairs):
    for head in (MLPHead(dim=10, width=8), IdentityHead(dim=10)):
        with pytest.raises(ConfigurationError, match=r"takes features of width 10, but these have"):
            matcher(tmp_path, head=head).fit(small_pairs(6))


def test_a_tuned_learner_keeps_its_ranges_when_saved(tmp_path, small_pairs):
    options = {"space": {"loss.temperature": (0.03, 0.5), "head.width": [4, 8]}, "trials": 1}
    options |= {"folds": 2, "training": {"epochs": 1}}
    small = ("descriptor", {"size_px": 56})
    fitted = matcher(tmp_path, backbone=small, learner=("tuned", options)).fit(small_pairs(8))
    loaded = Matcher.load(fitted.save(tmp_path / "saved"), store=tmp_path / "s.sqlite")
    assert loaded.learner.space == fitted.learner.space
    assert loaded.learner.space["loss.temperature"] == {"low": 0.03, "high": 0.5}


def test_paths_inside_parts_are_saved_as_text_and_shared_without_folders():
    options = {"head": ("plug", {"weights": Path("/home/alice/w.pt"), "device": "cuda"})}
    record = named_record("learners", "contrastive", options)
    assert record["options"]["head"] == ["plug", {"weights": "/home/alice/w.pt"}]
    whole = {"parts": {"learner": record, "backbones": [], "metadata": None}}
    shared_record = without_folders(whole)["parts"]["learner"]
    assert shared_record["options"]["head"] == ["plug", {"weights": "w.pt"}]
    parts = {"backbones": [], "poolers": [], "metadata": None, "learner": record, "head": None}
    card = model_card({"pairmatch": "1", "created": "2026-01-01", "parts": parts})
    assert "weights=w.pt" in card
    assert "alice" not in card


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "history.csv").write_text("epoch,train_loss\n1,abc\n"),
        lambda f: (f / "history.csv").write_bytes(b"epoch\n\xff\n"),
        lambda f: (f / "history.csv").write_text("epoch\n1,2,3\n"),
        *(
            lambda f, name=name, value=value: rewrite(f, name, value)
            for name, value in (
                ("fingerprints", "zz"),
                ("fingerprints", ["zz"]),
                ("seed", "1"),
                ("sides", "2"),
                ("notes", 3),
                ("metrics", []),
                ("parts", None),
            )
        ),
    ],
)
def test_damaged_values_are_refused(folder, damage):
    damage(folder)
    with pytest.raises(SavedMatcherError, match=r"is damaged|was not written by `save`"):
        Matcher.load(folder)


def rewrite(folder, name, value):
    record = json.loads((folder / "matcher.json").read_text())
    (folder / "matcher.json").write_text(json.dumps({**record, name: value}))


def test_a_failed_refit_keeps_the_fingerprints_of_the_head(tmp_path, small_pairs):
    fitted = matcher(tmp_path).fit(small_pairs(6))
    before = fitted.pipeline.trained_on
    with pytest.raises(ConfigurationError):
        fitted.fit(small_pairs(1))
    assert fitted.pipeline.trained_on == before

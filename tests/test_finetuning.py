"""Fine-tuning with LoRA: real classes of transformers with tiny random weights, and real peft."""

import json
import sys

import numpy as np
import pytest
import tiny_models
import tiny_qwen3_vl
import torch
from PIL import Image

from pairmatch import ContrastiveLoss, Pair, Pairs, Profile
from pairmatch.backbones.clip import CLIPBackbone
from pairmatch.backbones.hf_text import HFTextBackbone
from pairmatch.backbones.hf_vision import HFVisionBackbone
from pairmatch.backbones.qwen3_vl import Qwen3VLBackbone
from pairmatch.core import registry
from pairmatch.core.callbacks import Callback
from pairmatch.core.errors import (
    BackboneError,
    ConfigurationError,
    MissingExtraError,
    PartError,
)
from pairmatch.evaluation.query_table import embed_sides, rank_queries
from pairmatch.features.extractor import FeatureStore
from pairmatch.features.poolers import MeanPooler
from pairmatch.finetuning.caching import take_gradients
from pairmatch.finetuning.config import FinetuneConfig, rate_factor
from pairmatch.finetuning.finetuner import FEWEST_PAIRS, Finetuner
from pairmatch.finetuning.lora import LoRALayers, with_adapter
from pairmatch.finetuning.people import with_features
from pairmatch.finetuning.planning import plan_tuning
from pairmatch.finetuning.run import Run
from pairmatch.io.adapters import RECORD, WEIGHTS, Adapter
from pairmatch.learning.losses import InfoNCELoss
from pairmatch.learning.negatives import mine_negatives

pytest.importorskip("peft")
FAST = {"epochs": 3, "batch_size": 8, "micro_batch": 3, "rank": 4, "alpha": 8.0, "dropout": 0.1}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_models.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def text_backbone(bert):
    return HFTextBackbone(model=str(bert), dtype="float32", device="cpu")


def text_pairs(n, sides=2, start=0, seed=0):
    """People with texts of different lengths; partners share a random word."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcdefghij"), 6)) for _ in range(start + n)]
    people = [
        Profile(f"{side}{i}", text=f"{word} {'xyz'[i % 3] * (i % 5)} {side}")
        for i, word in list(enumerate(words))[start:]
        for side in "ab"
    ]
    return Pairs.of(people, [Pair(f"a{i}", f"b{i}") for i in range(start, start + n)], sides=sides)


def features_of(backbone, pairs, pooler="mean"):
    pooler = registry.create("poolers", pooler)
    items = [_item(backbone, profile) for profile in pairs.people]
    with torch.inference_mode():
        return pooler.pool(backbone.forward(backbone.prepare(items))).float().numpy()


def _item(backbone, profile):
    from pairmatch.features.inputs import build_items

    return build_items([profile], backbone, None, ())[0]


# --- gradient caching


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("micro_batch", [1, 3, 100, None])
def test_gradients_with_caching_are_those_without(text_backbone, micro_batch, sides):
    """BatchNorm in the head, dropout in head, backbone and LoRA; the oracle is plain autograd."""
    pairs = text_pairs(7, sides)
    config = FinetuneConfig(**{**FAST, "micro_batch": micro_batch})
    head = ("mlp", {"width": 16, "dropout": 0.2})
    run = Run(Finetuner(text_backbone, head=head, config=config), pairs, None, None)
    try:
        with torch.no_grad():  # with B at zero, the gradient of A would be zero
            for name, weight in run.layers.matrices().items():
                if name.endswith("lora_B"):
                    weight.normal_(0, 0.2)
        ((rows_a, rows_b, positives, unknown),) = run._epoch_batches(1)
        rows = run._rows(rows_a, rows_b)
        decoder = run._decoder(run.people)
        weights = {**run.layers.matrices(), **dict(run.head.named_parameters())}

        def objective(h):
            z_a, z_b = run.head(h[: len(rows_a)], h[len(rows_a) :])
            e = [torch.nn.functional.normalize(z, dim=1) for z in (z_a, z_b)]
            return run.loss(*e, positives, unknown)

        def gradients(compute):
            run.head.load_state_dict(start)
            for weight in weights.values():
                weight.grad = None
            loss = compute()
            return loss, {
                name: weight.grad.clone()
                for name, weight in weights.items()
                if weight.grad is not None
            }

        def plain():
            (parts,) = decoder.batches([rows])
            h = torch.zeros(len(rows), run.passes.width)
            for part in parts:
                computed = run.passes.features(part.prepared(), 5, part.number)
                h = h.index_copy(0, part.rows, computed)
            run.passes.set_seed(5, 2**31)
            loss = objective(h)
            loss.backward()
            return float(loss.detach())

        def cached():
            (parts,) = decoder.batches([rows])
            trained = list(run.layers.matrices().values())
            return take_gradients(
                run.passes,
                parts,
                objective,
                trained,
                people=len(rows),
                step=5,
                ranks=run.ranks,
                caching=micro_batch is not None,
            )

        start = {name: value.clone() for name, value in run.head.state_dict().items()}
        run.head.train()
        with run.layers.training():
            expected_loss, expected = gradients(plain)
            running = run.head.state_dict()
            loss, result = gradients(cached)
        assert loss == pytest.approx(expected_loss, abs=1e-6)
        assert result.keys() == expected.keys()
        assert any(name.endswith("lora_A") for name in result)
        for name, grad in expected.items():
            assert torch.allclose(result[name], grad, rtol=1e-5, atol=1e-5), name
        assert max(float(grad.abs().max()) for grad in expected.values()) > 1e-3
        # The statistics of BatchNorm are updated once, with the whole batch
        for name, value in run.head.state_dict().items():
            assert torch.allclose(value.float(), running[name].float(), atol=1e-6), name
        assert int(run.head.layers[1].num_batches_tracked) == 1
    finally:
        run.close()


@pytest.mark.parametrize(("micro_batch", "passes"), [(3, 2), (100, 1), (None, 1)])
def test_a_second_pass_is_made_only_where_graphs_are_not_kept(text_backbone, micro_batch, passes):
    config = FinetuneConfig(**{**FAST, "epochs": 1, "micro_batch": micro_batch})
    people = 0

    class Counted(MeanPooler):
        def pool(self, states):
            nonlocal people
            people += len(states.mask)
            return super().pool(states)

    Finetuner(text_backbone, pooler=Counted(), config=config).fit(text_pairs(8))
    assert people == 1 + 16 * passes  # one tells the width


def test_dropout_is_on_in_the_gradient_test(text_backbone):
    """Without it, the test above would not show that both passes drop the same."""
    run = Run(Finetuner(text_backbone, config=FinetuneConfig(**FAST)), text_pairs(4), None, None)
    try:
        prepared = text_backbone.prepare(list(run.people.items))
        with torch.no_grad(), run.layers.training():
            first, again, other = (run.passes.features(prepared, 1, n) for n in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.allclose(first, other, atol=1e-3)
    finally:
        run.close()


def test_gradient_checkpointing_and_micro_batches_do_not_change_the_result(text_backbone):
    pairs = text_pairs(12)
    quiet = {**FAST, "epochs": 2, "dropout": 0.0}
    for module in text_backbone.network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    results = [
        Finetuner(text_backbone, config=FinetuneConfig(**{**quiet, **change})).fit(pairs)
        for change in (
            {"micro_batch": None},
            {"micro_batch": 2},
            {"micro_batch": None, "gradient_checkpointing": True},
        )
    ]
    curves = [[row["train_loss"] for row in result.history] for result in results]
    assert np.allclose(curves[0], curves[1], atol=1e-5)
    assert np.allclose(curves[0], curves[2], atol=1e-5)
    assert not np.isclose(curves[0][0], curves[0][1], atol=1e-4)  # it does learn


# --- whole runs


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """16 couples whose photos have nothing in common."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(16):
        for side in "ab":
            small = Image.fromarray(rng.integers(0, 255, (4, 4, 3), np.uint8))
            small.resize((64, 64), Image.Resampling.NEAREST).save(folder / f"{side}{i}.png")
    people = [Profile(f"{s}{i}", (folder / f"{s}{i}.png",)) for i in range(16) for s in "ab"]
    return Pairs.of(people, [Pair(f"a{i}", f"b{i}") for i in range(16)])


def tiny_backbone(kind, folder):
    options = {"dtype": "float32", "device": "cpu"}
    if kind == "qwen3-vl":
        return Qwen3VLBackbone(model=tiny_qwen3_vl.write(folder), max_pixels=64 * 64 + 1, **options)
    write = {"clip": tiny_models.clip, "siglip": tiny_models.siglip}[kind]
    return HFVisionBackbone(model=str(write(folder)), **options)


@pytest.mark.parametrize(
    "kind", ["clip", "siglip", pytest.param("qwen3-vl", marks=pytest.mark.slow)]
)
def test_lora_overfits_16_pairs(kind, photos, tmp_path):
    backbone = tiny_backbone(kind, tmp_path / kind)
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    config = FinetuneConfig(
        epochs=60,
        batch_size=16,
        micro_batch=None,
        learning_rate=5e-3,
        weight_decay=0.0,
        warmup=0.05,
        clip=5.0,
        dropout=0.0,
        rank=16,
        alpha=64.0,
    )
    result = Finetuner(backbone, head="identity", config=config).fit(photos)
    after = backbone.network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(weight.requires_grad for weight in backbone.network.parameters())

    pooler = backbone.default_pooler
    frozen, tuned = (
        rank_queries(data, *embed_sides(data), (1,)).table["recall_at_1"].mean()
        for data in (
            with_features(photos, in_order(photos, features_of(part, photos, pooler)))
            for part in (backbone, result.backbone)
        )
    )
    assert tuned == 1.0
    assert frozen < 0.5


def in_order(pairs, features):
    """Features of `pairs.people`, as those of side a, then of side b."""
    rows = {profile.id: row for row, profile in enumerate(pairs.people)}
    return features[[rows[person] for person in (*pairs.ids_a, *pairs.ids_b)]]


class Seen(Callback):
    """Keeps what it is called with."""

    def __init__(self):
        self.rows = []
        self.ends = 0

    def on_epoch(self, row, epochs):
        self.rows.append(dict(row))

    def on_end(self):
        self.ends += 1


def test_the_best_epoch_is_kept(text_backbone):
    """The adapter, loaded again and merged, gives the validation MRR of the best epoch."""
    train, validation = text_pairs(16), text_pairs(8, start=16)
    config = FinetuneConfig(**{**FAST, "epochs": 6, "learning_rate": 5e-3, "patience": 2})
    seen = Seen()
    result = Finetuner(
        text_backbone, head=("mlp", {"width": 8}), config=config, callbacks=[seen]
    ).fit(train, validation)
    mrrs = [row["validation_mrr"] for row in result.history]
    assert result.best_epoch == int(np.argmax(mrrs)) + 1
    assert result.validation_mrr == max(mrrs)
    assert len(mrrs) <= result.best_epoch + 2
    assert (seen.rows, seen.ends) == (list(result.history), 1)
    data = with_features(validation, in_order(validation, features_of(result.backbone, validation)))
    ranked = rank_queries(data, *embed_sides(data, result.head), (1,))
    assert ranked.table["reciprocal_rank"].mean() == pytest.approx(result.validation_mrr, abs=1e-6)
    frozen = with_features(validation, in_order(validation, features_of(text_backbone, validation)))
    expected = rank_queries(frozen, *embed_sides(frozen), (1,)).table["reciprocal_rank"].mean()
    assert result.validation_frozen_mrr == pytest.approx(expected, abs=1e-6)


def test_equal_seeds_give_equal_adapters(text_backbone):
    pairs = text_pairs(10, sides=1)
    state = torch.random.get_rng_state()
    first, again, other = (
        Finetuner(text_backbone, config=FinetuneConfig(**FAST, seed=seed)).fit(pairs)
        for seed in (3, 3, 4)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.adapter == again.adapter
    assert first.adapter != other.adapter
    assert first.history == again.history


def test_without_validation_matches_all_epochs_are_run(text_backbone):
    train = text_pairs(6)
    rejected = Pairs.of(train.people, [Pair("a0", "b1", outcome="rejected")])
    for validation in (train.subset([]), rejected):
        config = FinetuneConfig(**{**FAST, "patience": 1})
        result = Finetuner(text_backbone, config=config).fit(train, validation)
        assert len(result.history) == result.best_epoch == FAST["epochs"]
        assert result.validation_mrr is result.validation_frozen_mrr is None


def test_pairs_without_any_negative_are_refused(text_backbone):
    people = [*text_pairs(4).people]
    shared = Pairs.of(people, [Pair("a0", f"b{i}") for i in range(4)])
    with pytest.raises(ConfigurationError, match="all pairs share a person"):
        Finetuner(text_backbone, config=FinetuneConfig(**FAST)).fit(shared)


def test_hard_negatives_are_mined_from_the_frozen_features(text_backbone, tmp_path):
    pairs = text_pairs(12)
    config = FinetuneConfig(**FAST, hard_negatives=2, hard_negatives_skip=1)
    frozen = with_features(pairs, in_order(pairs, features_of(text_backbone, pairs)))
    expected = mine_negatives(frozen, 2, skip=1)
    first = Run(Finetuner(text_backbone, config=config), pairs, None, tmp_path)
    first.train()
    first.close()
    # A run that resumes mines from the frozen features too, not from those of the checkpoint
    for folder in (None, tmp_path):
        run = Run(Finetuner(text_backbone, config=config), pairs, None, folder)
        run.close()
        assert run.position.is_done is (folder is not None)
        for mined, rows in (
            (run.batches.negatives_of_a, expected[0]),
            (run.batches.negatives_of_b, expected[1][:, ::-1]),
        ):
            assert {(a, b) for a in mined for b in mined[a]} == {tuple(row) for row in rows}


def test_a_plan_counts_and_measures_and_changes_nothing(text_backbone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, validation = text_pairs(12), text_pairs(3, start=12)
    config = FinetuneConfig(**{**FAST, "epochs": 7})
    tuner = Finetuner(text_backbone, config=config)
    state = torch.random.get_rng_state()
    before = features_of(text_backbone, train)
    plan = plan_tuning(tuner, train, validation, name="hf-text")
    assert (plan.matches, plan.people, plan.held_out, plan.epochs) == (12, 24, 6, 7)
    assert plan.steps == 2  # 12 pairs are 2 batches of 8 at most
    assert 0 < plan.person_seconds < plan.step_seconds < 10
    expected = 7 * 2 * plan.step_seconds + 8 * 6 * plan.person_seconds
    assert plan.seconds == pytest.approx(expected)
    assert "12 matches of 24 people, up to 7 epochs of 2 steps" in str(plan)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(features_of(text_backbone, train), before)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    absent = HFTextBackbone(model="nobody/absent", device="cpu")
    unknown = plan_tuning(Finetuner(absent, config=config), train, None, name="hf-text")
    assert unknown.seconds is None
    assert "weights are not on this machine" in str(unknown)


def test_learning_rates_rise_and_fall():
    rates = [rate_factor(i / 100, 0.1, 1 / 100) for i in range(100)]
    assert np.allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[55] == pytest.approx(0.5)  # half of the cosine
    assert np.all(np.diff(rates[10:]) < 0)
    assert rates[-1] < 0.001


def test_few_pairs_are_advised_against(text_backbone):
    result = Finetuner(text_backbone, config=FinetuneConfig(**{**FAST, "epochs": 1})).fit(
        text_pairs(4)
    )
    assert f"below {FEWEST_PAIRS:,}" in result.notes[0]


# --- adapters


@pytest.fixture
def adapter(text_backbone):
    """An adapter of every layer, with large corrections."""
    layers = LoRALayers(text_backbone.network, FinetuneConfig(rank=4, alpha=6.0))
    with torch.no_grad():
        for number, weight in enumerate(layers.matrices().values()):
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
            weight.mul_(0.2)
    result = layers.adapter(text_backbone.fingerprint())
    layers.remove()
    return result


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_merged_and_unmerged_adapters_give_equal_vectors(bert, adapter, dtype, tolerance):
    pairs = text_pairs(5)
    backbone = HFTextBackbone(model=str(bert), dtype=dtype, device="cpu")
    frozen = features_of(backbone, pairs)
    layers = LoRALayers(backbone.network, FinetuneConfig(rank=4, alpha=6.0))
    layers.restore({name: adapter.weights[name] for name in layers.matrices()})
    backbone.network.eval()
    unmerged = features_of(backbone, pairs)
    layers.remove()
    merged = features_of(with_adapter(backbone, adapter), pairs)
    scale = np.abs(unmerged).max()
    assert np.abs(merged - unmerged).max() / scale < tolerance
    assert np.abs(frozen - unmerged).max() / scale > 0.1
    assert np.array_equal(features_of(backbone, pairs), frozen)


def test_checkpoints_are_kept_in_the_home_folder(text_backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    config = FinetuneConfig(**{**FAST, "epochs": 1})
    Finetuner(text_backbone, config=config).fit(text_pairs(4), checkpoints="~/kept")
    assert (tmp_path / "home" / "kept" / "checkpoint.json").exists()
    assert not (tmp_path / "~").exists()


def test_small_steps_change_the_adapter_of_a_backbone_in_bfloat16(bert):
    """Each step of AdamW changes a weight by about the learning rate; bfloat16 would round it."""
    backbone = HFTextBackbone(model=str(bert), dtype="bfloat16", device="cpu")
    config = FinetuneConfig(epochs=1, batch_size=4, learning_rate=1e-5, dropout=0.0, warmup=0.0)
    start = LoRALayers(backbone.network, config)
    before = start.snapshot()
    start.remove()
    after = Finetuner(backbone, config=config).fit(text_pairs(12)).adapter.weights
    name = "encoder.layer.0.attention.self.value.lora_A"
    changed = (after[name] - before[name]).abs()
    assert (changed > 0).float().mean() > 0.99
    assert changed.max() < 3 * 1.1e-5
    assert backbone.network.dtype == torch.bfloat16


def test_adapters_are_written_and_read(text_backbone, adapter, tmp_path):
    folder = adapter.write(tmp_path / "adapter")
    assert sorted(file.name for file in folder.iterdir()) == [RECORD, WEIGHTS]
    loaded = Adapter.read(folder)
    assert loaded == adapter
    assert loaded.targets == adapter.targets
    named = HFTextBackbone(model=text_backbone.model, device="cpu", adapter=str(folder))
    assert named.fingerprint() == with_adapter(text_backbone, adapter).fingerprint() | {
        "dtype": named.fingerprint()["dtype"]
    }


def test_an_adapter_of_another_base_is_refused(adapter, tmp_path):
    other = tiny_models.bert(tmp_path / "other", seed=1)
    with pytest.raises(BackboneError, match=r"another base model than .*other.*has other weights"):
        _ = HFTextBackbone(model=str(other), device="cpu", adapter=adapter).network
    vision = tiny_models.clip(tmp_path / "clip")
    with pytest.raises(BackboneError, match=r"has no linear layer encoder\.layer\.0"):
        _ = HFVisionBackbone(model=str(vision), device="cpu", adapter=adapter).network


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_adapter_fits_its_base_in_every_number_format(bert, adapter, dtype):
    backbone = HFTextBackbone(model=str(bert), device="cpu", dtype=dtype, adapter=adapter)
    assert backbone.network.dtype == getattr(torch, dtype)


def test_damaged_adapters_are_refused(adapter, tmp_path):
    folder = adapter.write(tmp_path / "adapter")
    with pytest.raises(BackboneError, match="holds no adapter"):
        Adapter.read(tmp_path)
    record = json.loads((folder / RECORD).read_text())
    damages = {
        "rank has no valid value": {**record, "rank": "4"},
        "at rank 5": {**record, "rank": 5},
        "is missing": {**record, "targets": [*record["targets"], "more"]},
        "is no part of it": {**record, "targets": record["targets"][1:]},
        "files were changed": {**record, "alpha": 7.0},
        "upgrade pairmatch": {**record, "format": 2},
    }
    for message, changed in damages.items():
        (folder / RECORD).write_text(json.dumps(changed))
        with pytest.raises(BackboneError, match=message):
            Adapter.read(folder)
    (folder / RECORD).write_text(json.dumps(record))
    (folder / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(BackboneError, match="damaged"):
        Adapter.read(folder)


def test_the_store_never_mixes_adapters(text_backbone, adapter, tmp_path):
    pairs = text_pairs(3)
    smaller = Adapter(adapter.weights, adapter.rank, adapter.alpha / 2, adapter.base)
    store = FeatureStore(tmp_path / "store.sqlite")
    backbones = [text_backbone, *(with_adapter(text_backbone, one) for one in (adapter, smaller))]
    pooler = registry.create("poolers", "mean")
    for _ in range(2):  # the second time, all are in the store
        for backbone in backbones:
            (stored,) = store.extract(pairs.people, backbone, [pooler])
            assert np.allclose(stored, features_of(backbone, pairs), atol=1e-5)
    plans = [store.plan(pairs.people, backbone, [pooler]) for backbone in backbones]
    keys = [key for plan in plans for person in plan.keys for key in person]
    assert len(set(keys)) == len(keys) == 18


def test_the_key_of_a_frozen_backbone_has_no_adapter(text_backbone):
    assert "adapter" not in text_backbone.fingerprint()


# --- checkpoints


class Interrupted(ContrastiveLoss):
    """InfoNCE that stops the run at one of its calls."""

    def __init__(self, at=0):
        super().__init__()
        self.inner = InfoNCELoss(temperature=0.1, learn_temperature=True)
        self.at = at
        self.calls = 0

    def loss(self, e_a, e_b, positives, unknown):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return self.inner.loss(e_a, e_b, positives, unknown)


@pytest.mark.parametrize("at", [2, 4, 6])
def test_an_interrupted_run_resumes_to_the_same_result(text_backbone, tmp_path, at):
    train, validation = text_pairs(16), text_pairs(6, start=16)
    config = FinetuneConfig(**FAST, learning_rate=5e-3, checkpoint_steps=1)
    head = ("mlp", {"width": 8, "dropout": 0.1})

    def fit(at, folder, seen=()):
        loss = Interrupted(at)
        tuner = Finetuner(text_backbone, head=head, loss=loss, config=config, callbacks=seen)
        return tuner.fit(train, validation, checkpoints=folder)

    whole = fit(0, None)
    with pytest.raises(KeyboardInterrupt):
        fit(at, tmp_path / "checkpoint")
    seen = Seen()
    resumed = fit(0, tmp_path / "checkpoint", [seen])
    assert resumed.history == whole.history
    assert seen.rows == list(whole.history)  # the epochs before the interruption, too
    assert resumed.adapter == whole.adapter
    assert resumed.best_epoch == whole.best_epoch
    for name, value in whole.head.state_dict().items():
        assert torch.equal(resumed.head.state_dict()[name], value)
    # A finished run returns its result at once
    assert fit(1, tmp_path / "checkpoint").adapter == whole.adapter


def test_a_checkpoint_of_another_run_is_refused(text_backbone, tmp_path):
    pairs = text_pairs(8)
    config = FinetuneConfig(**{**FAST, "epochs": 1})
    Finetuner(text_backbone, config=config).fit(pairs, checkpoints=tmp_path / "run")
    other = FinetuneConfig(**{**FAST, "epochs": 1, "rank": 2})
    with pytest.raises(ConfigurationError, match=r"another run .*config\.rank"):
        Finetuner(text_backbone, config=other).fit(pairs, checkpoints=tmp_path / "run")
    with pytest.raises(ConfigurationError, match="differs in data"):
        Finetuner(text_backbone, config=config).fit(text_pairs(9), checkpoints=tmp_path / "run")


# --- refusals


def test_what_cannot_be_tuned_is_refused(text_backbone, adapter, bert):
    with pytest.raises(ConfigurationError, match="Use 'hf-vision'"):
        Finetuner(CLIPBackbone(random_weights=True, device="cpu"))
    with pytest.raises(ConfigurationError, match="has an adapter already"):
        Finetuner(with_adapter(text_backbone, adapter))
    with pytest.raises(ConfigurationError, match="float16"):
        Finetuner(HFTextBackbone(model=str(bert), device="cpu", dtype="float16"))
    with pytest.raises(PartError, match="Did you mean 'mlp'"):
        Finetuner(text_backbone, head="mpl")
    with pytest.raises(ConfigurationError, match="margn"):
        Finetuner(text_backbone, loss=("triplet", {"margn": 1}))
    with pytest.raises(ConfigurationError, match="at least 2 matched pairs"):
        Finetuner(text_backbone).fit(text_pairs(1))
    with pytest.raises(ConfigurationError, match=r"`targets` takes .*query"):
        Finetuner(text_backbone, config=FinetuneConfig(targets=("q_proj",))).fit(text_pairs(4))
    with pytest.raises(ConfigurationError, match="equal `sides`"):
        Finetuner(text_backbone).fit(text_pairs(4), text_pairs(4, sides=1))


def test_a_failed_run_leaves_the_network_as_it_was(text_backbone):
    names = [name for name, _ in text_backbone.network.named_parameters()]
    with pytest.raises(ConfigurationError):
        Finetuner(text_backbone, head=("mlp", {"width": -1})).fit(text_pairs(4))
    with pytest.raises(KeyboardInterrupt):
        Finetuner(text_backbone, loss=Interrupted(1)).fit(text_pairs(4))
    assert [name for name, _ in text_backbone.network.named_parameters()] == names
    assert not any(module.training for module in text_backbone.network.modules())


def test_targets_are_chosen_by_name(text_backbone):
    config = FinetuneConfig(**{**FAST, "epochs": 1, "targets": ("query", "value")})
    result = Finetuner(text_backbone, config=config).fit(text_pairs(6))
    assert {name.rpartition(".")[2] for name in result.adapter.targets} == {"query", "value"}


def test_a_pooler_that_is_not_used_is_not_adapted(text_backbone):
    result = Finetuner(text_backbone, config=FinetuneConfig(**FAST)).fit(text_pairs(6))
    assert any(name == "pooler.dense" for name, _ in text_backbone.network.named_modules())
    assert not any("pooler" in name for name in result.adapter.targets)


def test_all_wrong_hyperparameters_are_named():
    with pytest.raises(ConfigurationError, match=r"epochs must .*rank must .*dropout must"):
        FinetuneConfig(epochs=0, rank=1.5, dropout=1.0)
    assert FinetuneConfig(targets=["query"]).targets == ("query",)


def test_without_peft_the_extra_is_named(text_backbone, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"pairmatch\[finetune\]"):
        Finetuner(text_backbone).fit(text_pairs(4))

"""LoRA in many kinds of encoders: real classes of transformers with tiny random weights."""

import logging

import numpy as np
import pytest
import tiny_models
import tiny_qwen3_vl
import torch
from PIL import Image
from test_finetuning import features_of, in_order

from pairmatch import Pair, Pairs, Profile
from pairmatch.backbones.hf_text import HFTextBackbone
from pairmatch.backbones.hf_vision import HFVisionBackbone
from pairmatch.backbones.qwen3_vl import Qwen3VLBackbone
from pairmatch.core.errors import BackboneError, ConfigurationError, DataError
from pairmatch.evaluation.query_table import embed_sides, rank_queries
from pairmatch.finetuning.caching import take_gradients
from pairmatch.finetuning.config import FinetuneConfig
from pairmatch.finetuning.finetuner import Finetuner
from pairmatch.finetuning.lora import LoRALayers
from pairmatch.finetuning.people import with_features
from pairmatch.finetuning.run import Run

pytest.importorskip("peft")
CPU = {"dtype": "float32", "device": "cpu"}
VISION = ["vit", "deit", "dinov2", "dinov2-registers", "dinov3", "beit", "swin", "siglip", "clip"]
TEXT = ["roberta", "xlm-roberta", "distilbert", "deberta-v2", "t5", "modernbert", "qwen3", "bert"]
# No gradient checkpointing in transformers
PLAIN = ["convnext", "mpnet", "albert"]


def kinds(*quick, slow):
    """Parameters: some kinds in the quick tests, and the others in the slow ones."""
    others = [kind for kind in slow if kind not in quick]
    return [*quick, *(pytest.param(kind, marks=pytest.mark.slow) for kind in others)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """8 couples whose photos and texts have nothing in common."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    people = []
    for i in range(8):
        for side in "ab":
            small = Image.fromarray(rng.integers(0, 255, (4, 4, 3), np.uint8))
            small.resize((32, 32), Image.Resampling.NEAREST).save(folder / f"{side}{i}.png")
            text = " ".join("".join(rng.choice(list("abcdefghij"), 4)) for _ in range(1 + i % 3))
            people.append(Profile(f"{side}{i}", (folder / f"{side}{i}.png",), text))
    return Pairs.of(people, [Pair(f"a{i}", f"b{i}") for i in range(8)])


def backbone_of(kind, folder):
    if kind in tiny_models.VISION:
        return HFVisionBackbone(model=str(tiny_models.vision(folder, kind)), **CPU)
    if kind == "qwen3-vl":
        return Qwen3VLBackbone(model=tiny_qwen3_vl.write(folder), max_pixels=64 * 64 + 1, **CPU)
    if kind in ("siglip", "clip"):
        return HFVisionBackbone(model=str(getattr(tiny_models, kind)(folder)), **CPU)
    write = tiny_models.bert if kind == "bert" else lambda place: tiny_models.text(place, kind)
    return HFTextBackbone(model=str(write(folder)), **CPU)


def without_dropout(network):
    """Dropout and the jitter of positions off, so that passes of other sizes can be compared."""
    for module in network.modules():
        for name in ("p", "drop_prob", "dropout", "attention_dropout", "dropout_prob"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
        config = getattr(module, "config", None)
        if hasattr(config, "pos_embed_rescale"):
            config.pos_embed_rescale = None


def gradients(backbone, pairs, **options):
    """Gradients of every matrix, and bytes that autograd kept, without those of weights."""
    config = FinetuneConfig(batch_size=8, rank=4, dropout=0.0, bfloat16=False, **options)
    run = Run(Finetuner(backbone, head="identity", config=config), pairs, None, None)
    try:
        without_dropout(run.layers.network)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():  # with B at zero, the gradient of A would be zero
            for weight in run.layers.matrices().values():
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
        ((rows_a, rows_b, positives, unknown),) = run._epoch_batches(1)
        (parts,) = run._decoder(run.people).batches([run._rows(rows_a, rows_b)])
        kept = {weight.untyped_storage().data_ptr() for weight in run.layers.network.parameters()}
        alive = []

        def pack(value):
            storage = value.untyped_storage()
            if storage.data_ptr() not in kept:
                kept.add(storage.data_ptr())
                alive.append(storage)  # so that its address is not used again
            return value

        def objective(features):
            e = torch.nn.functional.normalize(features, dim=1)
            return run.loss(e[: len(rows_a)], e[len(rows_a) :], positives, unknown)

        matrices = run.layers.matrices()
        with (
            run.layers.training(),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value),
        ):
            take_gradients(
                run.passes,
                parts,
                objective,
                list(matrices.values()),
                people=len(rows_a) + len(rows_b),
                step=1,
                ranks=run.ranks,
                caching=config.micro_batch is not None,
            )
        grads = {name: weight.grad for name, weight in matrices.items() if weight.grad is not None}
        return grads, sum(storage.nbytes() for storage in alive)
    finally:
        run.close()


@pytest.mark.parametrize(
    "kind", kinds("vit", "siglip", "bert", "t5", "qwen3", slow=[*VISION, *TEXT, "qwen3-vl"])
)
def test_gradient_checkpointing_gives_equal_gradients_in_less_memory(kind, pairs, tmp_path, caplog):
    """With gradient caching, too; the oracle is a pass that keeps everything."""
    backbone = backbone_of(kind, tmp_path / kind)
    caplog.set_level(logging.WARNING)
    expected, kept = gradients(backbone, pairs, micro_batch=None)
    assert max(float(grad.abs().max()) for grad in expected.values()) > 1e-4
    for micro_batch in (None, 5):
        grads, bytes_kept = gradients(
            backbone, pairs, micro_batch=micro_batch, gradient_checkpointing=True
        )
        assert grads.keys() == expected.keys()
        for name, grad in expected.items():
            largest = float(grad.abs().max())
            assert torch.allclose(grads[name], grad, rtol=1e-5, atol=1e-5 * max(1, largest)), name
        assert bytes_kept < kept / 2
    assert not [record.getMessage() for record in caplog.records if "grad" in record.getMessage()]


@pytest.mark.parametrize("kind", PLAIN)
def test_a_network_without_gradient_checkpointing_says_so(kind, pairs, tmp_path):
    backbone = backbone_of(kind, tmp_path / kind)
    config = FinetuneConfig(batch_size=8, epochs=1, gradient_checkpointing=True)
    with pytest.raises(ConfigurationError, match="no gradient checkpointing: omit"):
        Finetuner(backbone, config=config).fit(pairs)
    assert not any(weight.requires_grad for weight in backbone.network.parameters())


@pytest.mark.parametrize(
    "kind", kinds("dinov2", "convnext", "roberta", slow=[*VISION, *TEXT, *PLAIN])
)
def test_lora_overfits_and_merges_in_every_kind_of_encoder(kind, pairs, tmp_path):
    backbone = backbone_of(kind, tmp_path / kind)
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    without_dropout(backbone.network)
    config = FinetuneConfig(
        epochs=80,
        batch_size=8,
        micro_batch=None,
        learning_rate=5e-3,
        weight_decay=0.0,
        clip=5.0,
        dropout=0.0,
        alpha=16.0,
    )
    loss = ("infonce", {"temperature": 0.1, "directions": "both"})
    result = Finetuner(backbone, head="identity", loss=loss, config=config).fit(pairs)
    after = backbone.network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())

    pooler = backbone.default_pooler
    merged = features_of(result.backbone, pairs, pooler)
    data = with_features(pairs, in_order(pairs, merged))
    assert rank_queries(data, *embed_sides(data), (1,)).table["recall_at_1"].mean() == 1.0

    layers = LoRALayers(backbone.network, config)
    weights = result.adapter.weights
    layers.restore(
        {name: weights.get(name, torch.zeros_like(a)) for name, a in layers.matrices().items()}
    )
    backbone.network.eval()
    unmerged = features_of(backbone, pairs, pooler)
    layers.remove()
    assert np.abs(merged - unmerged).max() / np.abs(unmerged).max() < 1e-5

    folder = result.adapter.write(tmp_path / "adapter")
    loaded = type(backbone)(model=backbone.model, adapter=folder, **CPU)
    assert np.array_equal(features_of(loaded, pairs, pooler), merged)


@pytest.mark.parametrize(("kind", "name"), [("resnet", "ResNetModel"), ("gpt2", "GPT2Model")])
def test_a_network_without_linear_layers_is_refused(kind, name, pairs, tmp_path):
    with pytest.raises(ConfigurationError, match=f"{name} has no linear layer.*choose another"):
        Finetuner(backbone_of(kind, tmp_path / kind)).fit(pairs)


@pytest.mark.parametrize("first", [True, False])
def test_all_people_with_damaged_photos_are_named(first, pairs, tmp_path):
    damaged = {"a0" if first else "a7", "b5"}
    people = []
    for person in pairs.people:
        (photo,) = person.images
        content = photo.read_bytes()
        path = tmp_path / photo.name
        path.write_bytes(content[: len(content) // 2] if person.id in damaged else content)
        people.append(Profile(person.id, (path,)))
    broken = Pairs.of(people, pairs.pairs)
    backbone = backbone_of("vit", tmp_path / "vit")
    with pytest.raises(DataError, match="Photos of 2 of 16 people cannot be read") as error:
        Finetuner(backbone, config=FinetuneConfig(batch_size=4, micro_batch=2)).fit(broken)
    assert {line.split(":")[0] for line in error.value.problems} == damaged
    assert not any("lora" in name for name, _ in backbone.network.named_modules())


def test_networks_that_drop_random_patches_are_refused(pairs, tmp_path):
    backbone = backbone_of("vit-mae", tmp_path / "vit-mae")
    with pytest.raises(BackboneError, match="masked autoencoder, which reads a random quarter"):
        Finetuner(backbone).fit(pairs)

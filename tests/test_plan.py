"""The price before the start: counts, rates, metadata, and no network."""

import json
import socket

import pytest
import tiny_qwen3_vl
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from pairmatch import Matcher, Profile
from pairmatch.backbones.qwen3_vl import Qwen3VLBackbone
from pairmatch.backbones.qwen3_vl_operations import Qwen3VLShape
from pairmatch.cli import app
from pairmatch.core.errors import BackboneError, ConfigurationError
from pairmatch.core.types import Item, Usage
from pairmatch.features.rates import accelerator_rate
from pairmatch.matcher.work import BackbonePass, MetadataWork, WorkPlan
from pairmatch.metadata import Estimate


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache of models, and a network that fails the test."""

    def connect(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def counting(backbone, operations):
    """A backbone that knows its number of operations."""
    backbone.operations = lambda item: operations
    return backbone


def matcher(backbone, tmp_path, **options):
    return Matcher(
        backbone=backbone, metadata=options.pop("metadata", None), store=tmp_path / "s", **options
    )


def test_a_trial_counts_extracts_and_keeps_ten_photos(hash_backbone, small_pairs, tmp_path):
    pairs = small_pairs(10)
    twin = Profile("twin", pairs.people[0].images, text=pairs.people[0].text)
    people = [*pairs.people, twin]
    made = matcher(hash_backbone, tmp_path)
    work = made.plan(people)
    assert (work.people, work.new) == (21, 20)
    (first,) = work.passes
    assert (first.inputs, first.new, first.tried) == (20, 20, 10)
    assert hash_backbone.seen == 10
    again = made.plan(pairs)
    assert (again.passes[0].inputs, again.new) == (20, 10)
    made.features(people)
    done = made.plan(people)
    assert (done.new, done.seconds, done.usd) == (0, 0.0, 0.0)
    assert "20 distinct inputs, 20 in the store, 0 new" in str(done)
    assert hash_backbone.seen == 20


def test_time_and_price_of_an_accelerator_follow_from_the_operations(
    hash_backbone, small_pairs, tmp_path
):
    made = matcher(counting(hash_backbone, 9.89e14), tmp_path)
    work = made.plan(small_pairs(10), gpus=4, usd_per_hour=3.6, accelerator="h100")
    # 20 inputs, each 1 s at the peak of an H100, and so 2.5 s at 40 % of it
    assert work.seconds == pytest.approx(20 * 2.5 / 4)
    assert work.usd == pytest.approx(20 * 2.5 * 0.001)
    assert hash_backbone.seen == 0
    assert "989,000 GFLOP per input, at 40% of the 989 TFLOP/s of one H100" in str(work)
    assert "about 12 s on 4 devices at $3.60 an hour each, about $0.05." in str(work)
    number = made.plan(small_pairs(10), accelerator="98.9")
    assert number.seconds == pytest.approx(20 * 25)


def test_invalid_prices_and_accelerators_are_errors(hash_backbone, small_pairs, tmp_path):
    made, pairs = matcher(hash_backbone, tmp_path), small_pairs(2)
    for options in (
        {"gpus": 0},
        {"usd_per_hour": -1.0},
        {"usd_per_hour": float("nan")},
        {"accelerator": "H1000"},
        {"accelerator": "-3"},
        {"accelerator": "nan"},
    ):
        with pytest.raises(ConfigurationError):
            made.plan(pairs, **options)
    with pytest.raises(ConfigurationError, match=r"Did you mean 'H100'.*peak in TFLOP/s"):
        accelerator_rate("H1000")


def test_the_recipe_is_planned_without_weights_metadata_or_network(
    no_network, small_pairs, tmp_path
):
    made = Matcher(store=tmp_path / "s", device="cpu")
    work = made.plan(small_pairs(4), usd_per_hour=2.0)
    assert work.metadata[0].estimate.photos == 8
    assert work.metadata[0].estimate.usage.usd > 0
    assert (work.passes[0].new, work.passes[0].tried) == (8, 0)
    assert work.seconds > 0
    assert work.usd == pytest.approx(work.metadata[0].estimate.usage.usd + 2 * work.seconds / 3600)
    assert "the weights are not on this machine" in str(work)
    assert made.store.counts()["features"] == made.store.counts()["metadata"] == 0


@pytest.mark.parametrize(
    "backbone",
    ["clip", ("hf-vision", {"model": "some/encoder"}), ("hf-text", {"model": "some/encoder"})],
)
def test_other_hub_models_are_planned_without_weights_or_network(
    backbone, no_network, small_pairs, tmp_path, caplog
):
    work = matcher(backbone, tmp_path).plan(small_pairs(3))
    assert (work.new, work.passes[0].tried) == (6, 0)
    if backbone == "clip":
        # 4.41 billion products and sums for a photo of ViT-B/32 (Radford et al. 2021, open_clip)
        assert "9 GFLOP per input" in str(work)
    else:
        assert work.seconds is None
        assert work.usd is None
        assert "the time is unknown" in str(work)
    assert not caplog.records


def test_a_folder_that_does_not_exist_is_an_error(no_network, small_pairs, tmp_path):
    made = matcher(("qwen3-vl-2b", {"model": "./nowhere"}), tmp_path)
    with pytest.raises(BackboneError, match="does not exist"):
        made.plan(small_pairs(2))


def test_people_whose_metadata_are_still_to_be_generated_count_as_new(
    hash_backbone, small_pairs, tmp_path
):
    pairs = small_pairs(6)
    matcher(hash_backbone, tmp_path).features(pairs.people)  # all stored, without metadata
    made = matcher(hash_backbone, tmp_path, metadata="measured")
    before = made.store.counts()
    work = made.plan(pairs)
    assert (work.new, work.passes[0].tried) == (12, 0)
    assert work.metadata[0].estimate.photos == 12
    assert work.metadata[0].seconds > 0
    assert "12 people without metadata yet count as new" in str(work)
    assert made.store.counts() == before
    made.annotate(pairs.people[:4])
    work = made.plan(pairs)
    assert work.metadata[0].estimate.photos == 8
    assert work.new == 12
    made.features(pairs.people)
    assert made.plan(pairs).new == 0


def test_passes_that_several_matchers_share_count_once(hash_backbone, small_pairs, tmp_path):
    made = Matcher(backbone=[hash_backbone, "descriptor"], metadata=None, store=tmp_path / "s")
    work = made.plan(small_pairs(3))
    assert [part.new for part in work.passes] == [6, 6]
    assert work.seconds == sum(part.seconds for part in work.passes)


def test_totals_of_a_server_and_of_unknown_prices():
    unknown = Estimate(5, 0, "host", Usage(10, 0, 1, None))
    server = MetadataWork("openai", unknown, None)
    assert WorkPlan(5, (server,), ()).usd is None
    assert WorkPlan(5, (server,), ()).seconds == 0
    work = WorkPlan(5, (server,), (BackbonePass("clip", 5, 5, 0, 3600.0, ""),), 2, 1.5)
    assert work.usd is None
    assert work.seconds == 1800
    priced = MetadataWork("openai", Estimate(5, 0, "host", Usage(10, 0, 1, 0.25)), None)
    total = WorkPlan(5, (priced,), work.passes, 2, 1.5)
    assert total.usd == pytest.approx(0.25 + 1.5)
    assert total.to_dict()["usd"] == total.usd
    json.dumps(total.to_dict())
    assert str(WorkPlan(5, (priced,), ())).endswith("In total: about $0.25.")


def test_operations_of_qwen3_vl_are_those_that_torch_counts(tmp_path, photo):
    folder = tiny_qwen3_vl.write(tmp_path / "tiny")
    backbone = Qwen3VLBackbone(
        model=folder, device="cpu", attention="eager", dtype="float32", max_pixels=128 * 128
    )
    item = Item((photo("one.png", size=(160, 96)),), "I cook, read and climb; two dogs")
    prepared = backbone.prepare([item])
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        backbone.forward(prepared)
    tokens = prepared["input_ids"].shape[1]
    shape = Qwen3VLShape.of(backbone._config)
    image_tokens = int(prepared["image_grid_thw"].prod()) // 4
    ours = shape.image_operations(image_tokens) + shape.text_operations(tokens)
    assert ours == pytest.approx(counted.get_total_flops(), rel=0.02)
    assert backbone.operations(item) == pytest.approx(counted.get_total_flops(), rel=0.3)


def test_operations_of_the_2b_model_are_the_published_ones():
    # Counted by torch on the real model, 124 text tokens: docs/backbones.md
    for image_tokens, image, text in ((64, 175, 538), (196, 576, 925), (576, 2037, 2085)):
        shape = Qwen3VLShape()
        assert shape.image_operations(image_tokens) / 1e9 == pytest.approx(image, rel=0.01)
        assert shape.text_operations(image_tokens + 124) / 1e9 == pytest.approx(text, rel=0.01)


@pytest.fixture
def table(small_pairs, tmp_path):
    pairs = small_pairs(6)
    rows = [f"a{i},{i}a.png,b{i},{i}b.png" for i in range(6)]
    for i in range(6):
        for side in "ab":
            person = pairs.profiles[f"{side}{i}"]
            (tmp_path / f"{i}{side}.png").write_bytes(person.images[0].read_bytes())
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(["id_a,image_a,id_b,image_b", *rows]) + "\n")
    return path


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_commands_print_plans_and_write_nothing_else(table, tmp_path, no_network):
    people = tmp_path / "people.csv"
    people.write_text("id,image\n" + "".join(f"p{i},{i}a.png\n" for i in range(6)))
    common = ["--plan", "--store", tmp_path / "store.sqlite", "--backbone", "descriptor"]
    plan = tmp_path / "plan.json"
    for _ in range(2):  # an earlier plan is replaced
        output = run("fit", table, *common, "--metadata", "none", "--json", plan)
    assert "12 people.\ndescriptor: 12 distinct inputs" in output
    assert json.loads(plan.read_text())["plan"]["people"] == 12
    output = run("embed", people, *common, "--usd-per-hour", "2", "--gpus", "3")
    assert "6 people.\ndescriptor: 6 distinct inputs" in output
    assert "on 3 devices at $2.00 an hour each" in output
    store = tmp_path / "other.sqlite"
    output = run("annotate", table, "--plan", "--metadata", "measured", "--store", store)
    assert "measured: 12 photos to submit, 0 already answered, about " in output
    assert not store.exists()


def test_options_of_a_plan_belong_to_a_plan(table, tmp_path):
    output = run("annotate", table, "--plan", "--metadata", "none", code=2)
    assert "annotate needs a generator" in output
    output = run("annotate", table, "--gpus", "2", code=2)
    assert "--gpus: only for a plan" in output
    output = run("fit", table, "--output", tmp_path / "out", "--gpus", "2", code=2)
    assert "add --plan" in output
    assert "--output is needed" in run("fit", table, code=2)
    assert "--output is needed" in run("embed", table, code=2)
    assert "accelerator" in run("fit", table, "--plan", "--accelerator", "H1", code=2)

"""Backbones against reference code: tiny random checkpoints, ONNX files, descriptors."""

import hashlib
import json
import os
import shutil
import struct

import numpy as np
import pytest
import safetensors
import torch
from conftest import shared
from PIL import Image

from pairmatch import Pairs
from pairmatch.backbones.clip import CLIPBackbone
from pairmatch.backbones.descriptor import DescriptorBackbone
from pairmatch.backbones.hf_text import HFTextBackbone
from pairmatch.backbones.hf_vision import HFVisionBackbone
from pairmatch.backbones.onnx import ONNXBackbone
from pairmatch.backbones.onnx_data import external_files
from pairmatch.backbones.qwen3_vl import Qwen3VLBackbone
from pairmatch.core import registry
from pairmatch.core.devices import resolve_device, resolve_dtype
from pairmatch.core.errors import BackboneError, ConfigurationError
from pairmatch.core.types import Item
from pairmatch.features.poolers import ImageMeanPooler, MeanPooler, NativePooler
from pairmatch.io.checkpoints import load_or_explain, weights_digest
from pairmatch.io.images import load_image
from pairmatch.testing import check_backbone


def picture(seed=0, size=(80, 60)):
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 9, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def vectors(backbone, items, pooler=None):
    with torch.inference_mode():
        return (pooler or NativePooler()).pool(backbone.forward(backbone.prepare(items))).numpy()


# --- descriptor


def test_descriptor_separates_shape_color_and_texture():
    backbone = DescriptorBackbone()
    check_backbone(backbone)
    red, dark, blue = (Image.new("RGB", (60, 60), c) for c in ("#c02020", "#b81e1e", "#2030c0"))
    stripes = Image.fromarray(
        np.tile(np.repeat([[0], [255]], 6, 0), (10, 120)).astype(np.uint8).T
    ).convert("RGB")
    near, far, turned = (
        np.linalg.norm(vectors(backbone, [Item((a,)), Item((b,))]).T @ [1, -1])
        for a, b in (
            (red, dark),
            (red, blue),
            (stripes, stripes.transpose(Image.Transpose.ROTATE_90)),
        )
    )
    assert near < far
    assert turned > 0.5
    h = vectors(backbone, [Item((stripes,))])
    assert h.shape == (1, backbone.dim) == (1, 1756)
    assert np.linalg.norm(h) == pytest.approx(np.sqrt(3), abs=1e-3)  # three blocks with unit norm
    assert np.allclose(
        vectors(backbone, [Item((red, blue))]),
        vectors(backbone, [Item((red,)), Item((blue,))]).mean(0),
    )


def test_descriptor_options_change_the_fingerprint():
    assert DescriptorBackbone(size_px=56).fingerprint() != DescriptorBackbone().fingerprint()
    with pytest.raises(ConfigurationError, match="multiple of 7 and at least 56, got 100"):
        DescriptorBackbone(size_px=100)


# --- onnx


@pytest.fixture
def encoder(tmp_path):
    """Writes an ONNX model that returns the mean color of a photo and its double."""

    def make(name="encoder.onnx", batch="n", gain=2.0, layout="nchw"):
        onnx = pytest.importorskip("onnx")
        from onnx import TensorProto, helper

        shape = [batch, 3, 16, 16] if layout == "nchw" else [batch, 16, 16, 3]
        axes = [2, 3] if layout == "nchw" else [1, 2]
        pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)
        outputs = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, 3])
            for n in ("mean", "gained")
        ]
        nodes = [
            helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=axes, keepdims=0),
            helper.make_node("Mul", ["mean", "gain"], ["gained"]),
        ]
        gains = helper.make_tensor("gain", TensorProto.FLOAT, [1], [gain])
        graph = helper.make_graph(nodes, "colors", [pixels], outputs, [gains])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    pytest.importorskip("onnxruntime")
    return make


def test_onnx_runs_on_scaled_pixels(encoder):
    backbone = ONNXBackbone(path=encoder(), size_px=16, mean=[10, 20, 30], scale=[2, 4, 8])
    check_backbone(backbone)
    assert backbone.dim == 3
    photo = Image.new("RGB", (40, 20), (50, 60, 70))
    expected = (np.array([50, 60, 70]) - [10, 20, 30]) / [2, 4, 8]
    assert np.allclose(vectors(backbone, [Item((photo,))]), expected, atol=1e-5)
    gained = ONNXBackbone(
        path=encoder(), size_px=16, mean=[10, 20, 30], scale=[2, 4, 8], output="gained"
    )
    assert np.allclose(vectors(gained, [Item((photo,))]), 2 * expected, atol=1e-5)
    white = Image.new("RGB", (40, 20), "white")
    assert np.allclose(
        vectors(backbone, [Item((photo, white))]),
        (expected + (255 - np.array([10, 20, 30])) / [2, 4, 8]) / 2,
    )


def test_onnx_resize_modes(encoder):
    left = Image.new("RGB", (40, 20), "black")
    left.paste("white", (0, 0, 10, 20))
    share = {
        mode: vectors(
            ONNXBackbone(path=encoder(), size_px=16, mean=0, scale=255, resize=mode),
            [Item((left,))],
        )[0, 0]
        for mode in ("squash", "crop", "pad")
    }
    assert share["squash"] == pytest.approx(0.25, abs=0.02)
    assert share["crop"] == pytest.approx(0, abs=0.03)
    assert share["pad"] == pytest.approx(0.125, abs=0.02)


def test_onnx_fixed_batches_and_channels_last(encoder):
    items = [Item((picture(i),)) for i in range(3)]
    free = ONNXBackbone(path=encoder(), size_px=16)
    fixed = ONNXBackbone(path=encoder("fixed.onnx", batch=1), size_px=16)
    last = ONNXBackbone(path=encoder("last.onnx", layout="nhwc"), size_px=16, layout="nhwc")
    assert np.allclose(vectors(free, items), vectors(fixed, items), atol=1e-6)
    assert np.allclose(vectors(free, items), vectors(last, items), atol=1e-5)
    with pytest.raises(
        BackboneError, match="has a fixed batch size of 4: export it with a dynamic"
    ):
        vectors(ONNXBackbone(path=encoder("four.onnx", batch=4), size_px=16), items)


def test_onnx_fingerprint_follows_the_file_content(encoder):
    reference = ONNXBackbone(path=encoder(), size_px=16).fingerprint()
    moved = ONNXBackbone(path=encoder("copy.onnx"), size_px=16).fingerprint()
    changed = ONNXBackbone(path=encoder("changed.onnx", gain=3.0), size_px=16).fingerprint()
    assert reference == moved
    assert reference != changed
    assert reference != ONNXBackbone(path=encoder(), size_px=20).fingerprint()


def test_onnx_errors(encoder, tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    items = [Item((picture(),))]
    for options, reason in (
        (
            {"path": tmp_path / "gone.onnx"},
            r"gone.onnx cannot be read: No such file.*--set backbone.path=FILE",
        ),
        ({"path": tmp_path / "text.onnx"}, "is not a model that onnxruntime can run"),
        ({"path": encoder(), "output": "maen"}, "Unknown output 'maen'. Did you mean 'mean'"),
        ({"path": encoder(), "size_px": 17}, r"cannot run on \[1, 3, 17, 17\]"),
    ):
        with pytest.raises(BackboneError, match=reason):
            vectors(ONNXBackbone(**{"size_px": 16, **options}), items)
    with pytest.raises(ConfigurationError) as caught:
        ONNXBackbone(path="x", size_px=0, mean=[1, 2], resize="stretch", layout="chw", scale=0)
    for expected in (
        "size_px must be positive",
        "mean must be one number or three",
        "resize must be",
        "layout must be",
        "scale must not be 0",
    ):
        assert expected in str(caught.value)


@pytest.fixture
def split_encoder(encoder, tmp_path):
    """Writes an ONNX model whose weights lie in a second file."""

    def make(folder="split", gain=2.0, location="weights/gain.bin"):
        import onnx
        from onnx import external_data_helper

        model = onnx.load(encoder(f"{folder}.onnx", gain=gain))
        (tensor,) = model.graph.initializer
        tensor.raw_data = np.array([gain], np.float32).tobytes()
        tensor.ClearField("float_data")
        external_data_helper.set_external_data(tensor, location)
        content = tensor.raw_data
        tensor.ClearField("raw_data")
        path = tmp_path / folder / "model.onnx"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(model.SerializeToString())
        if not location.startswith(("/", "..")):
            (path.parent / location).parent.mkdir(exist_ok=True)
            (path.parent / location).write_bytes(content)
        return path

    return make


def gained(path):
    return ONNXBackbone(path=path, size_px=16, mean=0, scale=1, output="gained")


def test_onnx_weights_in_another_file(split_encoder, encoder, tmp_path, monkeypatch):
    items = [Item((Image.new("RGB", (20, 20), (10, 20, 30)),))]
    path = split_encoder()
    elsewhere = split_encoder("elsewhere", gain=9.0)
    monkeypatch.chdir(elsewhere.parent)  # weights of the same name lie in the current folder
    assert np.allclose(vectors(gained(path), items), [[20, 40, 60]], atol=1e-4)
    before = gained(path).fingerprint()
    assert before == gained(split_encoder("copy")).fingerprint()
    (path.parent / "weights" / "gain.bin").write_bytes(np.array([3.0], np.float32).tobytes())
    assert np.allclose(vectors(gained(path), items), [[30, 60, 90]], atol=1e-4)
    assert gained(path).fingerprint() != before
    # A model in one file keeps its key
    whole = encoder()
    assert gained(whole).fingerprint()["sha256"] == hashlib.sha256(whole.read_bytes()).hexdigest()


def test_onnx_weights_in_subgraphs_are_found():
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, external_data_helper, helper

    def tensor(name):
        result = helper.make_tensor(name, TensorProto.FLOAT, [1], bytes(4), raw=True)
        external_data_helper.set_external_data(result, f"{name}.bin")
        result.ClearField("raw_data")
        return result

    inner = helper.make_graph([], "inner", [], [], [tensor("inner")])
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
        helper.make_node("Constant", [], ["z"], value=tensor("constant")),
    ]
    graph = helper.make_graph(nodes, "outer", [], [], [tensor("outer"), tensor("outer")])
    function = helper.make_function("d", "f", [], [], [nodes[1]], [helper.make_opsetid("", 13)])
    model = helper.make_model(graph, functions=[function])
    content = model.SerializeToString()
    assert external_files(content) == ["constant.bin", "inner.bin", "outer.bin"]
    for damaged in (content[:-3], b"\xff" * 30, b"no model", content[: len(content) // 2]):
        with pytest.raises(ValueError, match=r"cut off|not an ONNX file"):
            external_files(damaged)
    assert onnx.load_from_string(content).graph.name == "outer"


@pytest.mark.parametrize("location", ["/etc/hostname", "../weights.bin", "a/../../weights.bin"])
def test_onnx_weights_must_lie_in_the_folder(split_encoder, tmp_path, location):
    (tmp_path / "weights.bin").write_bytes(bytes(4))
    if location.startswith("a/"):
        path = split_encoder(location="gain.bin")
        path.write_bytes(path.read_bytes().replace(b"gain.bin", b"../g.bin"))
        (tmp_path / "g.bin").write_bytes(bytes(4))
    else:
        path = split_encoder(location=location)
    with pytest.raises(BackboneError, match="is not a file in the model's folder"):
        gained(path).fingerprint()
    with pytest.raises(BackboneError, match="is not a file in the model's folder"):
        vectors(gained(path), [Item((picture(),))])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_no_model_waits_for_a_named_pipe(split_encoder, bert, dinov2, tmp_path):
    items = [Item((picture(),), "text")]
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BackboneError, match="pipe cannot be read: not a regular file"):
        vectors(gained(tmp_path / "pipe"), items)
    split = split_encoder()
    (split.parent / "weights" / "gain.bin").unlink()
    os.mkfifo(split.parent / "weights" / "gain.bin")
    with pytest.raises(BackboneError, match="is not a file in the model's folder"):
        gained(split).fingerprint()
    with pytest.raises(BackboneError, match="is not a regular file"):
        CLIPBackbone(model="ViT-S-32-alt", pretrained=str(tmp_path / "pipe")).prepare(items)
    for kind, source in ((HFTextBackbone, bert), (HFVisionBackbone, dinov2)):
        for name in ("config.json", "model.safetensors"):
            folder = shutil.copytree(source, tmp_path / f"{kind.__name__}-{name}")
            (folder / name).unlink()
            os.mkfifo(folder / name)
            with pytest.raises(BackboneError, match=rf"{name} is not a regular file"):
                vectors(kind(model=str(folder), device="cpu"), items)


def test_onnx_reproduces_the_stored_features():
    pytest.importorskip("onnxruntime")
    pairs = Pairs.read(shared("furniture/pairs.csv"), check_images=False)
    stored = np.load(shared("furniture/features.npz"))
    row = {name: index for index, name in enumerate(stored["id_a"])}
    ids = pairs.ids_a[:12]
    backbone = ONNXBackbone(path=shared("mobilenet_v1.onnx"), output="emb")
    h = vectors(backbone, [Item(pairs.profiles[name].images) for name in ids])
    expected = stored["a"][[row[name] for name in ids]]
    cosine = (h * expected).sum(1) / np.linalg.norm(h, axis=1) / np.linalg.norm(expected, axis=1)
    assert (
        cosine.min() > 0.99
    )  # the stored features are of photos before they were shrunk to 320 pixels


# --- open_clip


def test_clip_image_tokens_and_embeddings():
    import open_clip

    backbone = CLIPBackbone(
        model="ViT-S-32-alt", random_weights=True, dtype="float32", device="cpu"
    )
    check_backbone(backbone)
    model, preprocess = backbone._loaded
    photo = picture(5, (100, 90))
    states = backbone.forward(backbone.prepare([Item((photo,))]))
    model.visual.output_tokens = False
    with torch.inference_mode():
        expected = model.encode_image(preprocess(photo)[None], normalize=True)
    assert torch.allclose(states.pooled, expected, atol=1e-5)
    assert states.states.shape[1] == 49  # 224 / 32 squared
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training
    assert open_clip.get_model_config("ViT-S-32-alt")["embed_dim"] == backbone.dim


def test_clip_concatenates_photo_and_text_embeddings():
    backbone = CLIPBackbone(
        model="ViT-S-32-alt", random_weights=True, text=True, dtype="float32", device="cpu"
    )
    photo = picture(1)
    h = vectors(
        backbone,
        [
            Item((photo,), "a red coat"),
            Item((photo,)),
            Item((), "a red coat"),
            Item((photo,), "x " * 200),
        ],
    )
    width = backbone.dim // 2
    assert np.allclose(h[0, :width], h[1, :width], atol=1e-5)
    assert np.allclose(h[0, width:], h[2, width:], atol=1e-5)
    assert not h[1, width:].any()
    assert not h[2, :width].any()
    assert np.allclose(np.linalg.norm(h[0].reshape(2, -1), axis=1), 1, atol=1e-5)
    assert backbone.truncated == 1
    plain = CLIPBackbone(model="ViT-S-32-alt", random_weights=True, dtype="float32", device="cpu")
    assert plain.fingerprint() != backbone.fingerprint()
    assert not plain.reads_text


@pytest.mark.parametrize(
    "hostile", ["<end_of_text>", "<END_OF_TEXT>", "&lt;end_of_text&gt;", "<start_of_text>"]
)
def test_special_tokens_in_a_bio_are_plain_text_to_clip(hostile):
    import open_clip

    backbone = CLIPBackbone(
        model="ViT-S-32-alt", random_weights=True, text=True, dtype="float32", device="cpu"
    )
    tokens = backbone.prepare([Item((), f"a red coat {hostile} and two dogs")])[2][0].tolist()
    raw = open_clip.get_tokenizer("ViT-S-32-alt")(f"a {hostile}")[0].tolist()
    special = (raw[0], max(raw))  # start and end tokens
    # The tokenizer alone parses the text as a special token
    assert sum(raw.count(token) for token in special) == 3
    assert [tokens.count(token) for token in special] == [1, 1]
    assert tokens.index(special[1]) > 8  # after the word "dogs"


def test_clip_without_weights_names_the_fix(tmp_path):
    with pytest.raises(ConfigurationError, match="open_clip has no model 'ViT-X'"):
        CLIPBackbone(model="ViT-X")
    backbone = CLIPBackbone(
        model="ViT-S-32-alt", pretrained=str(tmp_path / "none.pt"), device="cpu"
    )
    with pytest.raises(
        BackboneError, match=r"none.pt does not exist. Name the checkpoint with pretrained="
    ):
        backbone.prepare([Item((picture(),))])
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(BackboneError, match=r"bad.pt cannot be loaded"):
        CLIPBackbone(
            model="ViT-S-32-alt", pretrained=str(tmp_path / "bad.pt"), device="cpu"
        ).prepare([Item((picture(),))])


# --- transformers: image encoders and a text encoder


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dinov2")
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(0)
    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = SiglipConfig(
        text_config={**small, "vocab_size": 64},
        vision_config={**small, "image_size": 32, "patch_size": 16},
    )
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_hf_vision_dinov2(dinov2):
    from transformers import AutoImageProcessor, AutoModel

    backbone = HFVisionBackbone(model=str(dinov2), dtype="float32", device="cpu")
    check_backbone(backbone)
    photo = picture(2)
    states = backbone.forward(backbone.prepare([Item((photo,))]))
    pixels = AutoImageProcessor.from_pretrained(dinov2)(images=photo, return_tensors="pt")
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(dinov2).eval()(**pixels)
    assert torch.allclose(states.states, expected.last_hidden_state, atol=1e-5)
    assert torch.allclose(states.pooled, expected.pooler_output, atol=1e-5)
    # The class token is not a patch
    assert states.image_mask.tolist() == [[False, True, True, True, True]]
    patches = ImageMeanPooler().pool(states)
    assert torch.allclose(patches, expected.last_hidden_state[:, 1:].mean(1), atol=1e-5)


def test_hf_vision_takes_the_image_tower_of_siglip(siglip):
    from transformers import AutoImageProcessor, AutoModel

    backbone = HFVisionBackbone(model=str(siglip), dtype="float32", device="cpu")
    check_backbone(backbone)
    photo = picture(3)
    pixels = AutoImageProcessor.from_pretrained(siglip)(images=photo, return_tensors="pt")
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(siglip).eval().vision_model(**pixels).pooler_output
    assert np.allclose(vectors(backbone, [Item((photo,))]), expected, atol=1e-5)


def test_hf_vision_ignores_padding_of_native_aspect_ratios(tmp_path):
    """SigLIP 2 NaFlex: the number of patches depends on the aspect ratio and is padded."""
    from transformers import (
        AutoImageProcessor,
        AutoModel,
        Siglip2Config,
        Siglip2ImageProcessor,
        Siglip2Model,
    )

    torch.manual_seed(0)
    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = {**small, "vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = Siglip2Config(
        text_config=text, vision_config={**small, "patch_size": 16, "num_patches": 16}
    )
    Siglip2Model(config).save_pretrained(tmp_path)
    Siglip2ImageProcessor(patch_size=16, max_num_patches=10).save_pretrained(tmp_path)
    backbone = HFVisionBackbone(model=str(tmp_path), dtype="float32", device="cpu")
    check_backbone(backbone)
    photo = picture(4, (96, 96))
    inputs = AutoImageProcessor.from_pretrained(tmp_path)(images=photo, return_tensors="pt")
    real = inputs["pixel_attention_mask"][0].bool()
    assert 0 < real.sum() < len(real)
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(tmp_path).eval().vision_model(**inputs)
        states = backbone.forward(backbone.prepare([Item((photo,))]))
    assert torch.equal(states.mask[0], real)
    assert torch.allclose(states.pooled, expected.pooler_output, atol=1e-5)
    assert torch.allclose(
        ImageMeanPooler().pool(states)[0], expected.last_hidden_state[0, real].mean(0), atol=1e-5
    )


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz,.",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(words))
    BertTokenizerFast(vocab=str(vocabulary)).save_pretrained(folder)
    torch.manual_seed(0)
    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    BertModel(BertConfig(vocab_size=len(words), **small)).save_pretrained(folder)
    return folder


def test_loading_draws_no_bar_in_files_and_pipes(bert, capfd):
    from transformers.utils import logging as bars

    assert bars.is_progress_bar_enabled()
    backbone = HFTextBackbone(model=str(bert), device="cpu")
    assert len(vectors(backbone, [Item((), "hi")], registry.create("poolers", "mean"))) == 1
    assert "Loading weights" not in capfd.readouterr().err
    assert bars.is_progress_bar_enabled()


def test_hf_text_reads_the_prompt(bert):
    from transformers import AutoModel, AutoTokenizer

    backbone = HFTextBackbone(model=str(bert), dtype="float32", device="cpu", max_tokens=40)
    assert (backbone.reads_images, backbone.reads_text, backbone.default_pooler) == (
        False,
        True,
        "mean",
    )
    check_backbone(backbone)
    assert backbone.truncated > 0
    tokens = AutoTokenizer.from_pretrained(bert)(["two dogs"], return_tensors="pt")
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(bert).eval()(**tokens).last_hidden_state.mean(1)
    h = vectors(
        backbone,
        [Item((), "two dogs"), Item((), "a longer text about dogs")],
        registry.create("poolers", "mean"),
    )
    assert np.allclose(h[:1], expected, atol=1e-5)


def test_special_tokens_in_a_bio_are_plain_text_to_a_sentence_encoder(bert):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bert)
    ids = HFTextBackbone(model=str(bert), device="cpu").prepare(
        [Item((), "i cook [SEP] [CLS] and read")]
    )["input_ids"]
    # By default, the tokenizer parses them as special tokens
    assert tokenizer("i cook [SEP]")["input_ids"].count(tokenizer.sep_token_id) == 2
    tokens = ids[0].tolist()
    assert (tokens.count(tokenizer.sep_token_id), tokens.count(tokenizer.cls_token_id)) == (1, 1)


# --- limits of text checkpoints: tiny random ones, written by transformers

LONG = "abc " * 200


def text_checkpoint(folder, kind, bert):
    """Writes a model of two layers and 64 positions with the tokenizer of `bert`."""
    import transformers as t

    tokenizer = t.AutoTokenizer.from_pretrained(bert)
    size = {"vocab_size": len(tokenizer), "num_hidden_layers": 2, "num_attention_heads": 2}
    small = {**size, "hidden_size": 32, "intermediate_size": 64, "pad_token_id": 0}
    t5 = {"vocab_size": len(tokenizer), "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2}
    bart = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 32, "vocab_size": len(tokenizer)}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "decoder_start_token_id": 2}
    vision = {**small, "image_size": 32, "patch_size": 16}
    models = {
        "bert": lambda: t.BertModel(t.BertConfig(**small, max_position_embeddings=64)),
        "roberta": lambda: t.RobertaModel(t.RobertaConfig(**small, max_position_embeddings=65)),
        "mpnet": lambda: t.MPNetModel(
            t.MPNetConfig(**{**small, "pad_token_id": 1}, max_position_embeddings=66)
        ),
        "distilbert": lambda: t.DistilBertModel(
            t.DistilBertConfig(
                vocab_size=len(tokenizer),
                dim=32,
                hidden_dim=64,
                n_layers=2,
                n_heads=2,
                max_position_embeddings=64,
            )
        ),
        "gpt2": lambda: t.GPT2Model(
            t.GPT2Config(
                vocab_size=len(tokenizer),
                n_embd=32,
                n_layer=2,
                n_head=2,
                n_positions=64,
                bos_token_id=2,
                eos_token_id=3,
            )
        ),
        "bart": lambda: t.BartModel(
            t.BartConfig(
                **bart,
                **heads,
                **ends,
                encoder_ffn_dim=32,
                decoder_ffn_dim=32,
                max_position_embeddings=64,
                forced_eos_token_id=3,
            )
        ),
        "t5": lambda: t.T5Model(t.T5Config(**t5, num_heads=2)),
        "t5-encoder": lambda: t.T5EncoderModel(t.T5Config(**t5, num_heads=2)),
        "xlnet": lambda: t.XLNetModel(
            t.XLNetConfig(vocab_size=len(tokenizer), d_model=32, n_layer=2, n_head=2, d_inner=64)
        ),
        "clip": lambda: t.CLIPModel(
            t.CLIPConfig(text_config={**small, **ends}, vision_config=vision)
        ),
        "dinov2": lambda: t.Dinov2Model(
            t.Dinov2Config(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=28,
                patch_size=14,
            )
        ),
    }
    torch.manual_seed(0)
    models[kind]().save_pretrained(folder)
    if kind == "gpt2":
        tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        ("bert", 64),
        ("roberta", 64),  # 65 positions, counted from the padding id 0 on
        ("mpnet", 64),  # 66 positions, counted from the padding id 1 on
        ("distilbert", 64),
        ("gpt2", 64),
        ("bart", 64),
        ("t5", 100),  # relative positions: the user's own limit
        ("t5-encoder", 100),
        ("xlnet", 100),
    ],
)
def test_texts_are_cut_to_what_a_checkpoint_reads(kind, limit, bert, tmp_path):
    folder = text_checkpoint(tmp_path, kind, bert)
    backbone = HFTextBackbone(model=str(folder), max_tokens=100, dtype="float32", device="cpu")
    items = [Item((), LONG), Item((), "two dogs"), Item((), "a b")]
    batch = backbone.prepare(items)
    with torch.inference_mode():
        states = backbone.forward(batch)
        alone = backbone.forward(backbone.prepare(items[1:2]))
    assert states.states.shape == (3, limit, backbone.dim)
    assert torch.isfinite(states.states[states.mask]).all()
    assert backbone.truncated == 1
    real = states.mask[1].sum()
    assert torch.allclose(states.states[1, :real], alone.states[0], atol=1e-5)
    assert backbone.length(items[0]) <= limit
    stated = HFTextBackbone(model=str(folder), max_tokens=limit, dtype="float32", device="cpu")
    assert stated.fingerprint() == backbone.fingerprint()  # they read the same


def test_the_tokens_of_an_encoder_are_those_of_transformers(bert, tmp_path):
    from transformers import AutoTokenizer, T5EncoderModel

    folder = text_checkpoint(tmp_path, "t5", bert)
    backbone = HFTextBackbone(model=str(folder), dtype="float32", device="cpu")
    tokens = AutoTokenizer.from_pretrained(folder)(["two dogs"], return_tensors="pt")
    with torch.inference_mode():
        expected = T5EncoderModel.from_pretrained(folder).eval()(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        )
        states = backbone.forward(backbone.prepare([Item((), "two dogs")]))
    assert torch.allclose(states.states, expected.last_hidden_state, atol=1e-5)


def test_limits_of_the_tokenizer_and_of_sentence_transformers(bert, tmp_path):
    from transformers import AutoTokenizer

    def limit(folder, **options):
        return HFTextBackbone(model=str(folder), device="cpu", **options)._limit

    assert AutoTokenizer.from_pretrained(bert).model_max_length > 1e29  # states no limit
    assert limit(bert) == 256
    assert limit(bert, max_tokens=600) == 512  # BERT's positions
    folder = shutil.copytree(bert, tmp_path / "copy")
    tokenizer = AutoTokenizer.from_pretrained(bert)
    tokenizer.model_max_length = 40
    tokenizer.save_pretrained(folder)
    assert limit(folder) == 40
    settings = folder / "sentence_bert_config.json"
    settings.write_text('{"max_seq_length": 30, "do_lower_case": false}')
    assert limit(folder) == 30
    for damaged in ("no json", "[1]", '{"max_seq_length": "x"}', "[" * 100_000):
        settings.write_text(damaged)
        assert limit(folder) == 40


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("clip", "is a 'clip' checkpoint, which reads photos or sound.*'clip' with text=True"),
        ("dinov2", "is a 'dinov2' checkpoint, which does not read text.*Use 'hf-vision'"),
    ],
)
def test_checkpoints_that_are_no_text_encoders(kind, reason, bert, tmp_path):
    folder = text_checkpoint(tmp_path, kind, bert)
    backbone = HFTextBackbone(model=str(folder), device="cpu")
    with pytest.raises(BackboneError, match=reason):
        vectors(backbone, [Item((), "text")])


def test_a_folder_without_a_tokenizer(bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "copy")
    for file in folder.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    with pytest.raises(BackboneError, match=r"holds no tokenizer|cannot be loaded"):
        vectors(HFTextBackbone(model=str(folder), device="cpu"), [Item((), "text")])


def test_a_tokenizer_of_another_model(bert, tmp_path):
    from transformers import BertConfig, BertModel

    folder = shutil.copytree(bert, tmp_path / "copy")
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    BertModel(BertConfig(vocab_size=6, num_attention_heads=2, **small)).save_pretrained(folder)
    with pytest.raises(BackboneError, match="a 'bert' checkpoint, cannot read token ids"):
        vectors(HFTextBackbone(model=str(folder), device="cpu"), [Item((), "dogs")])


def test_missing_weights_are_not_random_numbers(bert, dinov2, tmp_path):
    from safetensors.torch import load_file, save_file

    def without(source, part):
        folder = shutil.copytree(source, tmp_path / f"{source.name}-{part}")
        weights = load_file(folder / "model.safetensors")
        kept = {name: value for name, value in weights.items() if part not in name}
        assert len(kept) < len(weights)
        save_file(kept, folder / "model.safetensors", {"format": "pt"})
        return str(folder)

    with pytest.raises(BackboneError, match=r"lacks 16 weights of its BertModel \(encoder.layer.1"):
        vectors(HFTextBackbone(model=without(bert, "layer.1."), device="cpu"), [Item((), "a")])
    with pytest.raises(BackboneError, match="weights of its Dinov2Model"):
        vectors(
            HFVisionBackbone(model=without(dinov2, "layer.1."), device="cpu"), [Item((picture(),))]
        )
    h = HFTextBackbone(model=without(bert, "pooler"), dtype="float32", device="cpu")
    whole = HFTextBackbone(model=str(bert), dtype="float32", device="cpu")
    mean = registry.create("poolers", "mean")
    assert np.allclose(vectors(h, [Item((), "a")], mean), vectors(whole, [Item((), "a")], mean))


def test_an_image_encoder_without_weights_of_its_pooler(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    config = ViTConfig(num_attention_heads=2, image_size=32, patch_size=16, **small)
    ViTForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    items = [Item((picture(),))]
    first, second = (
        vectors(HFVisionBackbone(model=str(tmp_path), dtype="float32", device="cpu"), items)
        for _ in range(2)
    )
    assert np.allclose(first, second)  # random weights would differ between loads


@pytest.mark.parametrize(
    "name", ["model.safetensors", "vocab.spm", "tokenizer.json", "sentence_bert_config.json"]
)
def test_every_file_that_a_text_encoder_reads_is_part_of_its_key(bert, tmp_path, name):
    folder = shutil.copytree(bert, tmp_path / "copy")
    before = HFTextBackbone(model=str(bert), device="cpu").fingerprint()
    assert HFTextBackbone(model=str(folder), device="cpu").fingerprint() == before
    file = folder / name
    file.write_bytes((file.read_bytes() if file.exists() else b"{}") + b" ")
    assert weights_digest(folder) != weights_digest(bert)


@pytest.mark.parametrize(
    "config",
    [
        '{"model_type": "bert", "hidden_size": "wide"}',
        '{"model_type": "bert", "hidden_size": -4}',
        '{"model_type": "resnet"}',
        '{"model_type": 7}',
        "[]",
        "[" * 50_000,
        "\xff",
    ],
)
def test_hostile_configurations_are_backbone_errors(config, tmp_path):
    (tmp_path / "config.json").write_text(config, encoding="latin-1")
    for backbone in (
        HFTextBackbone(model=str(tmp_path), device="cpu"),
        HFVisionBackbone(model=str(tmp_path), device="cpu"),
        Qwen3VLBackbone(model=tmp_path, device="cpu"),
    ):
        with pytest.raises(BackboneError):
            vectors(backbone, [Item((picture(),), "text")])


def test_code_in_a_checkpoint_never_runs(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"model_type": "evil", '
        '"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}'
    )
    (tmp_path / "evil.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\n"
    )
    for backbone in (
        Qwen3VLBackbone(model=tmp_path, device="cpu"),
        HFVisionBackbone(model=tmp_path, device="cpu"),
        HFTextBackbone(model=tmp_path, device="cpu"),
    ):
        with pytest.raises(
            BackboneError, match="cannot be loaded"
        ):  # without asking to trust remote code
            backbone.fingerprint(), backbone.dim
    assert not (tmp_path / "ran").exists()


def test_errors_for_folders_that_cannot_be_loaded(dinov2, bert, tmp_path):
    broken = shutil.copytree(dinov2, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    items = [Item((picture(),))]
    for folder, reason in (
        (broken, "cannot be loaded"),
        (tmp_path / "nowhere", "does not exist. Name the checkpoint with model="),
        (tmp_path, "cannot be loaded .*config, processor and weights"),
        (bert, "cannot be loaded|does not read images"),
    ):
        with pytest.raises(BackboneError, match=reason):
            vectors(HFVisionBackbone(model=str(folder), device="cpu"), items)


def test_the_download_error_names_the_offline_alternatives():
    def no_network():
        raise OSError("We couldn't connect to the hub")

    with pytest.raises(BackboneError) as caught:
        load_or_explain(no_network, model="some/model", option="model")
    for expected in (
        "could not be downloaded",
        "model= (command line: --set backbone.model=FOLDER)",
        "'descriptor' or 'onnx'",
    ):
        assert expected in str(caught.value)

    def no_memory():
        raise MemoryError

    with pytest.raises(BackboneError, match="too little memory for some/model"):
        load_or_explain(no_memory, model="some/model", option="model")


def test_the_digest_covers_every_file_of_a_folder(dinov2, tmp_path):
    copy = shutil.copytree(dinov2, tmp_path / "copy")
    assert weights_digest(copy) == weights_digest(dinov2)
    config = copy / "preprocessor_config.json"
    config.write_text(config.read_text() + " ")
    assert weights_digest(copy) != weights_digest(dinov2)
    original, changed = (
        HFVisionBackbone(model=str(f), dtype="float32", device="cpu").fingerprint()
        for f in (dinov2, copy)
    )
    assert original["weights"] != changed["weights"]
    half = HFVisionBackbone(model=str(dinov2), dtype="bfloat16", device="cpu")
    assert half.fingerprint() != original


def replace_weights(folder, *, keep_time=False):
    """Writes other weights of the same size."""
    file = next(folder.glob("*.safetensors"))
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[-4:] = struct.pack("<f", 3.0)
    content[-2000:-1996] = struct.pack("<f", 2.0)
    file.write_bytes(content)
    if keep_time:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_changed_weights_with_an_old_time_have_another_key(bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "copy")
    before = weights_digest(folder)
    replace_weights(folder, keep_time=True)
    assert weights_digest(folder) != before


def test_a_backbone_in_memory_keeps_the_key_of_what_it_loaded(bert, dinov2, tmp_path):
    photo = Image.new("RGB", (30, 30), "red")
    for kind, source in ((HFTextBackbone, bert), (HFVisionBackbone, dinov2)):
        folder = shutil.copytree(source, tmp_path / source.name)
        item = Item((photo,) if kind is HFVisionBackbone else (), "two dogs")
        backbone = kind(model=str(folder), device="cpu")
        before = backbone.fingerprint(), vectors(backbone, [item], MeanPooler())
        replace_weights(folder)
        assert backbone.fingerprint() == before[0]
        assert np.array_equal(vectors(backbone, [item], MeanPooler()), before[1])
        assert kind(model=str(folder), device="cpu").fingerprint() != before[0]


def test_weights_that_change_before_they_are_loaded(bert, split_encoder, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "copy")
    backbone = HFTextBackbone(model=str(folder), device="cpu")
    backbone.fingerprint()
    replace_weights(folder)
    with pytest.raises(BackboneError, match="changed after they were first read"):
        vectors(backbone, [Item((), "two dogs")])
    path = split_encoder()
    model = gained(path)
    model.fingerprint()
    (path.parent / "weights" / "gain.bin").write_bytes(np.array([3.0], np.float32).tobytes())
    with pytest.raises(BackboneError, match="changed after they were first read"):
        vectors(model, [Item((Image.new("RGB", (20, 20)),))])


@pytest.mark.parametrize("place", ["../elsewhere/", "inside/"])
def test_weights_that_an_index_names_are_part_of_the_key(place, bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "copy")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "inside").symlink_to(elsewhere)
    weights = folder / "model.safetensors"
    with safetensors.safe_open(weights, "pt") as file:
        names = dict.fromkeys(file.keys(), f"{place}part.safetensors")
    weights.rename(elsewhere / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": names})
    )
    if place == "../elsewhere/":
        with pytest.raises(BackboneError, match="names weights outside the folder"):
            vectors(HFTextBackbone(model=str(folder), device="cpu"), [Item((), "two dogs")])
        return
    before = HFTextBackbone(model=str(folder), device="cpu")
    assert np.isfinite(vectors(before, [Item((), "two dogs")], MeanPooler())).all()
    replace_weights(elsewhere)
    assert HFTextBackbone(model=str(folder), device="cpu").fingerprint() != before.fingerprint()


def test_links_in_a_circle_do_not_keep_a_digest_from_ending(bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "copy")
    (folder / "again").symlink_to(folder)
    assert weights_digest(folder) == weights_digest(bert)


@pytest.mark.parametrize("model", ["local-dir:/models/clip", "hf-hub:timm/ViT-B-16-SigLIP"])
def test_clip_takes_architectures_whose_weights_are_part_of_the_key(model):
    with pytest.raises(ConfigurationError, match=r"open_clip has no model.*pretrained=PATH"):
        CLIPBackbone(model=model)


def test_devices_and_number_formats():
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(ConfigurationError, match="The device 'quantum' cannot be used"):
        resolve_device("quantum")
    assert resolve_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
    with pytest.raises(ConfigurationError, match="got 'int3'"):
        resolve_dtype("int3", torch.device("cpu"))


def test_photos_are_rotated_upright(encoder, tmp_path):
    stored = picture(1).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "turned.png", exif=exif)
    backbone = ONNXBackbone(path=encoder(), size_px=16)
    upright = load_image(tmp_path / "turned.png")
    assert np.allclose(
        vectors(backbone, [Item((tmp_path / "turned.png",))]), vectors(backbone, [Item((upright,))])
    )


# --- operations


def counted_by_torch(backbone, item):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    prepared = backbone.prepare([item])
    plain = sdpa_kernel(SDPBackend.MATH)  # the counter does not know the fused kernel of CPUs
    with plain, FlopCounterMode(display=False) as counter, torch.inference_mode():
        backbone.forward(prepared)
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", ["dinov2", "siglip"])
def test_operations_of_image_encoders_are_those_that_torch_counts(kind, request):
    folder = request.getfixturevalue(kind)
    backbone = HFVisionBackbone(model=str(folder), dtype="float32", device="cpu")
    one = backbone.operations(Item((picture(),)))
    assert one == pytest.approx(counted_by_torch(backbone, Item((picture(),))), rel=0.02)
    assert backbone.operations(Item((picture(), picture(1)))) == 2 * one


@pytest.mark.parametrize("kind", ["bert", "distilbert", "bart", "t5", "gpt2"])
def test_operations_of_text_encoders_are_those_that_torch_counts(kind, bert, tmp_path):
    folder = text_checkpoint(tmp_path, kind, bert) or tmp_path
    backbone = HFTextBackbone(model=str(folder), dtype="float32", device="cpu", max_tokens=40)
    item = Item((), "xq " * 70)  # each word is two tokens, and a text is cut off at 40
    assert backbone.prepare([item])["input_ids"].shape[1] == 40
    ours = backbone.operations(item)
    assert ours == pytest.approx(counted_by_torch(backbone, item), rel=0.02)
    assert backbone.operations(Item((), "xq")) < ours / 5


def test_operations_need_no_weights_and_no_tokenizer(bert, tmp_path):
    (tmp_path / "config.json").write_bytes((bert / "config.json").read_bytes())
    backbone = HFTextBackbone(model=str(tmp_path), device="cpu")
    assert backbone.operations(Item((), "two dogs")) > 0

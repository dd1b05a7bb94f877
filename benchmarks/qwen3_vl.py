"""The Qwen3-VL backbone beside the script that a user would write: python benchmarks/qwen3_vl.py

The true 2B configuration with random weights (what is computed does not depend on them), on this machine's CPU or GPU.
The naive script: one photo at a time, `AutoModelForImageTextToText` with its language-model head, all hidden states,
every setting at its default. Each runs in a process of its own, for its peak memory.

1. Equal pixels and number format: photos that both see at the same size.
2. Each at its own defaults, on photos of 0.3 to 12 megapixels. Sizes above `--measure-up-to` are not run by the naive
   script but computed from its counted operations at its own measured rate, and marked so.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
MEGAPIXELS = {"0.3": (640, 480), "1": (1152, 864), "3": (2048, 1536), "12": (4032, 3024)}
TEXT = "I cook, read and climb; two dogs, a red coat and 12 books. " * 6
TEXT_TOKENS = 124
CAP = 448 * 448 + 1


def operations(image_tokens, logits):
    """Multiplications and additions of one pass, in units of 1e9: vision, text and the language-model head."""
    patches, width, inner = 4 * image_tokens, 1024, 4096
    vision = 24 * (patches * (8 * width**2 + 4 * width * inner) + 4 * patches**2 * width)
    tokens, width, inner, keys = image_tokens + TEXT_TOKENS, 2048, 6144, 1024
    block = 2 * width * (2 * width + 2 * keys) + 6 * width * inner
    text = 28 * (tokens * block + 4 * tokens**2 * width)
    head = 2 * tokens * width * 151_936 if logits else 0
    return (vision + text + head) / 1e9


def seen(size, cap):
    """Image tokens of a photo under a cap on pixels."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    height, width = smart_resize(size[1], size[0], 32, 4096, cap)
    return height * width // 1024


def write_checkpoint(folder):
    """The true 2B configuration with random bfloat16 weights and a small tokenizer, as `save_pretrained` writes it."""
    import tiny_qwen3_vl
    from transformers import AutoConfig, Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tiny_qwen3_vl.write(folder)
    tiny = AutoConfig.from_pretrained(folder)
    text = {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262_144,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5e6,
            "mrope_interleaved": True,
            "mrope_section": [24, 20, 20],
        },
    }
    vision = {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "out_hidden_size": 2048,
        "patch_size": 16,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [5, 11, 17],
    }
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=tiny.image_token_id,
        video_token_id=tiny.video_token_id,
        vision_start_token_id=tiny.vision_start_token_id,
        vision_end_token_id=tiny.vision_end_token_id,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config)
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0) if "norm" in name and "weight" in name else parameter.normal_(0, 0.02)
    model.tie_weights()
    model.save_pretrained(folder)


def photos(folder, names):
    rng = np.random.default_rng(0)
    paths = []
    for index, name in enumerate(names):
        size = MEGAPIXELS.get(name, (448, 448))
        small = Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8))
        path = folder / f"{index}-{name}.jpg"
        small.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(path)
    return paths


def naive(folder, paths):
    """Yields the seconds of each photo."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16).eval()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    for path in paths:
        start = time.perf_counter()
        content = [{"type": "image"}, {"type": "text", "text": TEXT}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
        batch = processor(images=[Image.open(path)], text=[text], return_tensors="pt").to(model.device)
        with torch.no_grad():
            out = model(**batch, output_hidden_states=True)
            out.hidden_states[-1].mean(1).float().cpu()
        yield time.perf_counter() - start


def ours(folder, paths):
    """Yields the seconds of each photo, through the feature store."""
    from pairmatch import FeatureStore, Profile
    from pairmatch.backbones.qwen3_vl import Qwen3VLBackbone
    from pairmatch.poolers import MeanPooler

    backbone = Qwen3VLBackbone(model=folder, dtype="bfloat16")
    backbone._network.train(False)  # loads, as the naive script has loaded before its clock starts
    with tempfile.TemporaryDirectory() as store:
        features = FeatureStore(Path(store) / "s.sqlite")
        features.embed([Profile("warm", text="x")], backbone, [MeanPooler()])  # reads the digest of the weights once
        for path in paths:
            start = time.perf_counter()
            features.embed([Profile(path.name, (path,), TEXT)], backbone, [MeanPooler()], prompt="{text}")
            yield time.perf_counter() - start


def worker(name, folder, paths):
    took = list({"naive": naive, "ours": ours}[name](folder, paths))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps({"seconds": took, "peak_gib": peak}))


def run(name, folder, paths):
    command = [sys.executable, __file__, "--worker", name, "--folder", str(folder), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure-up-to", type=float, default=1.0, help="megapixels that the naive script runs")
    parser.add_argument("--photos", type=int, default=5, help="of the comparison at equal pixels")
    parser.add_argument("--worker", choices=["naive", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where the checkpoint is, or is written (4 GB)")
    parser.add_argument("paths", nargs="*", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.folder, options.paths)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "checkpoint"
        if not (folder / "config.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_checkpoint(folder)
        device = (
            torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
        )
        print(f"{device}, torch {torch.__version__}, true 2B configuration, random weights, bfloat16\n")

        equal = photos(Path(temporary), ["448²"] * (options.photos + 1))
        results = {name: run(name, folder, equal) for name in ("naive", "ours")}
        for result in results.values():
            result["median"] = float(np.median(result["seconds"][1:]))  # the first warms up
        print("1. Equal pixels (448²) and number format")
        for name, result in results.items():
            count = operations(196, name == "naive")
            print(
                f"   {name}: {result['median']:.2f} s per photo, {count:,.0f} GFLOP, peak {result['peak_gib']:.1f} GiB"
            )
        print(f"   ratio {results['naive']['median'] / results['ours']['median']:.2f}\n")

        measured = [name for name in MEGAPIXELS if float(name) <= options.measure_up_to]
        everything = photos(Path(temporary), ["448²", *MEGAPIXELS])
        slow = run(
            "naive", folder, [everything[0], *(everything[1 + list(MEGAPIXELS).index(name)] for name in measured)]
        )
        fast = run("ours", folder, everything)
        print("2. Each at its own defaults")
        rate = None
        totals = np.zeros(2)
        for index, (name, size) in enumerate(MEGAPIXELS.items(), 1):
            theirs, own = operations(seen(size, 16_777_216), True), operations(seen(size, CAP), False)
            if name in measured:
                seconds, how = slow["seconds"][index], "measured"
                rate = theirs / seconds
            else:
                seconds, how = theirs / rate, "computed from its operations"
            totals += seconds, fast["seconds"][index]
            print(
                f"   {name} megapixels: naive {seconds:,.1f} s ({how}), {theirs:,.0f} GFLOP; ours "
                f"{fast['seconds'][index]:.2f} s, {own:,.0f} GFLOP; ratio {seconds / fast['seconds'][index]:.1f}"
            )
        print(f"   all four: ratio {totals[0] / totals[1]:.1f}")
        peaks = f"naive {slow['peak_gib']:.1f} GiB at {measured[-1]} megapixels, ours {fast['peak_gib']:.1f} GiB"
        print(f"   peak memory: {peaks}")


if __name__ == "__main__":
    main()

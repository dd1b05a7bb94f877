"""The Qwen3-VL backbone beside the script that a user would write: python benchmarks/qwen3_vl.py

The true 2B configuration with random weights (what is computed does not depend on them), on this
machine's CPU or GPU. The naive script: one photo at a time, `AutoModelForImageTextToText` with its
language-model head, all hidden states, every setting at its default. Each runs in a process of its
own, for its peak memory.

1. Equal pixels and number format: photos that both see at the same size.
2. Each at its own defaults, on photos of 0.3 to 12 megapixels. Sizes above `--measure-up-to` are
   not run by the naive script but computed from its counted operations at its own measured rate,
   and marked so.
"""

import argparse
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
    """Multiplications and additions of one pass, in units of 1e9, without the small mergers after the vision blocks."""
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
            parameter.fill_(1.0) if "norm" in name and "weight" in name else parameter.normal_(
                0, 0.02
            )
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


def naive(folder):
    """The script that a user would write: a function of one photo."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16).eval()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")

    def embed(path):
        content = [{"type": "image"}, {"type": "text", "text": TEXT}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
        batch = processor(images=[Image.open(path)], text=[text], return_tensors="pt").to(
            model.device
        )
        with torch.no_grad():
            out = model(**batch, output_hidden_states=True)
            return out.hidden_states[-1].mean(1).float().cpu()

    return embed


def ours(folder):
    """The backbone through the feature store: a function of one photo."""
    from pairmatch import FeatureStore, Profile
    from pairmatch.backbones.qwen3_vl import Qwen3VLBackbone
    from pairmatch.features.poolers import MeanPooler

    backbone = Qwen3VLBackbone(model=folder, dtype="bfloat16")
    features = FeatureStore(Path(tempfile.mkdtemp()) / "store.sqlite")

    def embed(path):
        features.embed(
            [Profile(path.name, (path,), TEXT)], backbone, [MeanPooler()], prompt="{text}"
        )

    features.embed([Profile("first", text="loads the model")], backbone, [MeanPooler()])
    return embed


def work(name, folder):
    """Takes paths on standard input, answers with seconds; ends with its peak memory in GiB."""
    embed = {"naive": naive, "ours": ours}[name](folder)
    for line in sys.stdin:
        start = time.perf_counter()
        embed(Path(line.strip()))
        print(time.perf_counter() - start, flush=True)
    on_gpu = torch.cuda.is_available()
    print(
        torch.cuda.max_memory_allocated() / 2**30
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )


class Worker:
    """A process of its own that embeds photos when it is asked to."""

    def __init__(self, name, folder):
        command = [sys.executable, __file__, "--worker", name, "--folder", str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def seconds(self, path):
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def peak(self):
        out, _ = self.process.communicate()
        return float(out)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--measure-up-to", type=float, default=1.0, help="megapixels that the naive script runs"
    )
    parser.add_argument("--photos", type=int, default=5, help="of the comparison at equal pixels")
    parser.add_argument("--worker", choices=["naive", "ours"], help=argparse.SUPPRESS)
    parser.add_argument(
        "--folder", type=Path, help="where a checkpoint is, or the 2B one is written (4 GB)"
    )
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "checkpoint"
        if not (folder / "config.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_checkpoint(folder)
        device = (
            torch.cuda.get_device_name()
            if torch.cuda.is_available()
            else f"CPU, {torch.get_num_threads()} threads"
        )
        what = (
            "true 2B configuration, random weights"
            if options.folder is None
            else f"checkpoint {folder.name}"
        )
        print(
            f"{device}, torch {torch.__version__}, {what}, bfloat16; operations are those of the 2B configuration\n"
        )

        equal = photos(Path(temporary), ["448²"] * (options.photos + 1))
        workers = {name: Worker(name, folder) for name in ("naive", "ours")}
        for worker in workers.values():
            worker.seconds(equal[0])  # loads and warms up
        took = np.array(
            [[workers[name].seconds(path) for name in workers] for path in equal[1:]]
        )  # in turns
        print(f"1. Equal pixels (448²) and number format, {len(took)} photos in turns")
        for name, column in zip(workers, took.T, strict=True):
            count = operations(196, name == "naive")
            print(
                f"   {name}: fastest {column.min():.2f} s, median {np.median(column):.2f} s, {count:,.0f} GFLOP a photo"
            )
        fastest = took.min(0)
        print(
            f"   ratio {fastest[0] / fastest[1]:.2f} of the fastest, {np.median(took[:, 0] / took[:, 1]):.2f} by turns"
        )
        print(
            "   peak memory: "
            + ", ".join(f"{name} {worker.peak():.1f} GiB" for name, worker in workers.items())
            + "\n"
        )

        workers = {name: Worker(name, folder) for name in ("naive", "ours")}
        warm, *everything = photos(Path(temporary), ["448²", *MEGAPIXELS])
        for worker in workers.values():
            worker.seconds(warm)
        print("2. Each at its own defaults")
        totals, rate = np.zeros(2), 0.0
        for (name, size), path in zip(MEGAPIXELS.items(), everything, strict=True):
            theirs, own = (
                operations(seen(size, 16_777_216), True),
                operations(seen(size, CAP), False),
            )
            fast = workers["ours"].seconds(path)
            if float(name) <= options.measure_up_to:
                slow, how = workers["naive"].seconds(path), "measured"
                rate = theirs / slow
            else:
                slow, how = theirs / rate, "computed from its operations"
            totals += slow, fast
            print(
                f"   {name} megapixels: naive {slow:,.1f} s ({how}), {theirs:,.0f} GFLOP; ours {fast:.2f} s, "
                f"{own:,.0f} GFLOP; ratio {slow / fast:.1f}"
            )
        print(f"   all four: ratio {totals[0] / totals[1]:.1f}")
        print(
            "   peak memory: "
            + ", ".join(f"{name} {worker.peak():.1f} GiB" for name, worker in workers.items())
        )


if __name__ == "__main__":
    main()

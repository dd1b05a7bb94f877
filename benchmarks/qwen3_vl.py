"""Compares the Qwen3-VL backbone with a naive script: python benchmarks/qwen3_vl.py

Uses the 2B configuration with random weights (the amount of computation does not depend on them) on
this machine's CPU or GPU. The naive script is what a user would write: one photo at a time through
`AutoModelForImageTextToText` with its language-model head and all hidden states, every setting at
its default. Each runs in its own process, so that peak memory can be measured.

1. Equal pixels and number format: both read photos at the same size.
2. Each at its own defaults, on photos of 0.3 to 12 megapixels. Above `--measure-up-to`, the time of
   the naive script is not measured but computed from its number of operations at its own measured
   rate, and marked as computed.
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
    """Multiplications and additions of one pass, in units of 1e9.

    Leaves out the small mergers after the vision blocks.
    """
    patches = 4 * image_tokens
    width = 1024
    inner = 4096
    vision = 24 * (patches * (8 * width**2 + 4 * width * inner) + 4 * patches**2 * width)
    tokens = image_tokens + TEXT_TOKENS
    width = 2048
    inner = 6144
    keys = 1024
    block = 2 * width * (2 * width + 2 * keys) + 6 * width * inner
    text = 28 * (tokens * block + 4 * tokens**2 * width)
    head = 2 * tokens * width * 151_936 if logits else 0
    return (vision + text + head) / 1e9


def image_token_count(size, cap):
    """Number of image tokens of a photo with a cap on pixels."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    height, width = smart_resize(size[1], size[0], 32, 4096, cap)
    return height * width // 1024


def write_checkpoint(folder):
    """Writes the 2B configuration with random bfloat16 weights and a small tokenizer."""
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
            if "norm" in name and "weight" in name:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0, 0.02)
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
    """The naive script, as a function of one photo."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16).eval()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")

    def extract(path):
        content = [{"type": "image"}, {"type": "text", "text": TEXT}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
        batch = processor(images=[Image.open(path)], text=[text], return_tensors="pt").to(
            model.device
        )
        with torch.no_grad():
            output = model(**batch, output_hidden_states=True)
            return output.hidden_states[-1].mean(1).float().cpu()

    return extract


def ours(folder):
    """The backbone through the feature store, as a function of one photo."""
    from pairmatch import FeatureStore, Profile
    from pairmatch.backbones.qwen3_vl import Qwen3VLBackbone
    from pairmatch.features.poolers import MeanPooler

    backbone = Qwen3VLBackbone(model=folder, dtype="bfloat16")
    store = FeatureStore(Path(tempfile.mkdtemp()) / "store.sqlite")

    def extract(path):
        store.extract(
            [Profile(path.name, (path,), TEXT)], backbone, [MeanPooler()], prompt="{text}"
        )

    store.extract([Profile("first", text="loads the model")], backbone, [MeanPooler()])
    return extract


def work(name, folder):
    """Reads paths from stdin, prints seconds for each, and finally its peak memory in GiB."""
    extract = {"naive": naive, "ours": ours}[name](folder)
    for line in sys.stdin:
        start = time.perf_counter()
        extract(Path(line.strip()))
        print(time.perf_counter() - start, flush=True)
    on_gpu = torch.cuda.is_available()
    print(
        torch.cuda.max_memory_allocated() / 2**30
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )


class Worker:
    """A subprocess that extracts features of one photo at a time."""

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
        output, _ = self.process.communicate()
        return float(output)


def print_peaks(workers):
    peaks = ", ".join(f"{name} {worker.peak():.1f} GiB" for name, worker in workers.items())
    print(f"   peak memory: {peaks}\n")


def start_workers(folder, photo):
    """Both workers, after a first photo that loads the model and warms up."""
    workers = {name: Worker(name, folder) for name in ("naive", "ours")}
    for worker in workers.values():
        worker.seconds(photo)
    return workers


def compare_equal_pixels(folder, temporary, count):
    """Part 1: both on photos of 448 × 448 pixels, in turns."""
    first, *rest = photos(temporary, ["448²"] * (count + 1))
    workers = start_workers(folder, first)
    seconds = np.array([[workers[name].seconds(path) for name in workers] for path in rest])
    print(f"1. Equal pixels (448²) and number format, {len(seconds)} photos in turns")
    for name, column in zip(workers, seconds.T, strict=True):
        gflop = operations(196, name == "naive")
        print(
            f"   {name}: fastest {column.min():.2f} s, median {np.median(column):.2f} s, "
            f"{gflop:,.0f} GFLOP per photo"
        )
    fastest = seconds.min(0)
    by_turns = np.median(seconds[:, 0] / seconds[:, 1])
    print(f"   ratio {fastest[0] / fastest[1]:.2f} of the fastest, {by_turns:.2f} by turns")
    print_peaks(workers)


def compare_defaults(folder, temporary, measure_up_to):
    """Part 2: each at its own defaults, on photos of several sizes."""
    first, *rest = photos(temporary, ["448²", *MEGAPIXELS])
    workers = start_workers(folder, first)
    print("2. Each at its own defaults")
    totals = np.zeros(2)
    rate = 0.0
    for (name, size), path in zip(MEGAPIXELS.items(), rest, strict=True):
        naive_gflop = operations(image_token_count(size, 16_777_216), True)
        our_gflop = operations(image_token_count(size, CAP), False)
        our_seconds = workers["ours"].seconds(path)
        if float(name) <= measure_up_to:
            naive_seconds = workers["naive"].seconds(path)
            source = "measured"
            rate = naive_gflop / naive_seconds
        else:
            naive_seconds = naive_gflop / rate
            source = "computed from its operations"
        totals += naive_seconds, our_seconds
        print(
            f"   {name} megapixels: naive {naive_seconds:,.1f} s ({source}), "
            f"{naive_gflop:,.0f} GFLOP; ours {our_seconds:.2f} s, {our_gflop:,.0f} GFLOP; "
            f"ratio {naive_seconds / our_seconds:.1f}"
        )
    print(f"   all four: ratio {totals[0] / totals[1]:.1f}")
    print_peaks(workers)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--measure-up-to",
        type=float,
        default=1.0,
        help="largest photos, in megapixels, to run the naive script on",
    )
    parser.add_argument(
        "--photos", type=int, default=5, help="number of photos in the comparison at equal pixels"
    )
    parser.add_argument("--worker", choices=["naive", "ours"], help=argparse.SUPPRESS)
    parser.add_argument(
        "--folder",
        type=Path,
        help="folder of a checkpoint; if it has none, the 2B checkpoint is written there (4 GB)",
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
        checkpoint = (
            "2B configuration with random weights"
            if options.folder is None
            else f"checkpoint {folder.name}"
        )
        print(
            f"{device}, torch {torch.__version__}, {checkpoint}, bfloat16; "
            "operations are those of the 2B configuration\n"
        )
        compare_equal_pixels(folder, Path(temporary), options.photos)
        compare_defaults(folder, Path(temporary), options.measure_up_to)


if __name__ == "__main__":
    main()

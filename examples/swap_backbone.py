"""Compares backbones on the same pairs: python examples/swap_backbone.py [PAIRS] [--onnx FILE]

Without arguments it draws people and compares three backbones that need no download: classical
descriptors, the same at half the size, and both combined. Pass an ONNX encoder to include it. To
compare other backbones, add them to `backbones`: "clip", ("hf-vision", {"model":
"facebook/dinov2-small"}), "qwen3-vl-2b" …
"""

import argparse
import tempfile
from pathlib import Path

from pairmatch import Matcher, Pairs
from pairmatch.experiments.demo import draw_people


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="?", type=Path, help="pairs file; default: synthetic people")
    parser.add_argument("--onnx", help="image encoder as an ONNX file")
    parser.add_argument("--output", help="name of the encoder's output; default: the first")
    options = parser.parse_args()

    half_size = ("descriptor", {"size_px": 56})
    backbones = {
        "descriptor": "descriptor",
        "half size": half_size,
        "both combined": ["descriptor", half_size],
    }
    if options.onnx:
        backbones["onnx"] = ("onnx", {"path": options.onnx, "output": options.output})

    with tempfile.TemporaryDirectory() as folder:
        pairs = Pairs.read(options.pairs or draw_people(Path(folder) / "people", pairs=60))
        train, validation, test = pairs.split(0.70, 0.15, seed=0)
        for name, backbone in backbones.items():
            # One shared store: each photo goes through each backbone once, even if two are combined
            matcher = Matcher(backbone=backbone, metadata=None, store=Path(folder) / "store.sqlite")
            matcher.fit(train, validation)
            print(f"\n{name}\n{matcher.evaluate(test)}")
            matcher.store.close()


if __name__ == "__main__":
    main()

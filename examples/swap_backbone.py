"""Another backbone, the same pairs, everything else as it was: python examples/swap_backbone.py [PAIRS] [--onnx FILE]

Without arguments it draws people and compares three backbones that need no download: classical
descriptors, the same at half the size, and both joined. Name an ONNX encoder to see it stand beside
them, and any other backbone in `backbones` in the same way: "clip", ("hf-vision", {"model":
"facebook/dinov2-small"}), "qwen3-vl-2b" …
"""

import argparse
import tempfile
from pathlib import Path

from pairmatch import Matcher, Pairs
from pairmatch.experiments.demo import draw_people


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "pairs", nargs="?", type=Path, help="pairs file; people are drawn without one"
    )
    parser.add_argument("--onnx", help="image encoder as an ONNX file")
    parser.add_argument("--output", help="name of the encoder's output; its first by default")
    given = parser.parse_args()

    half = ("descriptor", {"size_px": 56})
    backbones = {
        "descriptor": "descriptor",
        "half the size": half,
        "both joined": ["descriptor", half],
    }
    if given.onnx:
        backbones["onnx"] = ("onnx", {"path": given.onnx, "output": given.output})

    with tempfile.TemporaryDirectory() as folder:
        pairs = Pairs.read(given.pairs or draw_people(Path(folder) / "people", pairs=60))
        train, validation, test = pairs.split(0.70, 0.15, seed=0)
        for name, backbone in backbones.items():
            # One store for all: each photo goes through each backbone once, also when two of them
            # are joined
            matcher = Matcher(backbone=backbone, metadata=None, store=Path(folder) / "store.sqlite")
            matcher.fit(train, validation)
            print(f"\n{name}\n{matcher.evaluate(test)}")
            matcher.store.close()


if __name__ == "__main__":
    main()

"""Furniture instead of people: python examples/furniture.py [PAIRS] [--onnx FILE --output NAME]

PAIRS is an ordinary pairs file: id_a, image_a, id_b, image_b, and `group` if several pairs share a
room, so that no room is on both sides of a split. Without it, the script draws rooms: an armchair
and a lamp with complementary colors, in front of uninformative walls.

Every pair is tested once per repeat, next to simple baselines: with little data, a trained head has
to prove that it is worth training.
"""

import argparse
import colorsys
import csv
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pairmatch import Matcher, Pairs, TrainingConfig

SIZE_PX = 64


def draw_rooms(folder: Path, *, rooms: int = 80, seed: int = 0) -> Path:
    """Draws an armchair and a lamp for each room, and returns the path to their pairs file."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "pairs.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["id_a", "image_a", "id_b", "image_b", "group"])
        for room in range(rooms):
            hue = rng.random()
            chair = f"chair{room:03d}"
            lamp = f"lamp{room:03d}"
            _armchair(hue, rng).save(folder / f"{chair}.png")
            _lamp((hue + 0.5 + rng.normal(0, 0.03)) % 1, rng).save(folder / f"{lamp}.png")
            rows.writerow([chair, f"{chair}.png", lamp, f"{lamp}.png", f"room{room}"])
    return folder / "pairs.csv"


def _color(hue: float, saturation: float = 0.7, value: float = 0.8) -> tuple[int, ...]:
    return tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value))


def _wall(rng: np.random.Generator) -> Image.Image:
    return Image.new("RGB", (SIZE_PX, SIZE_PX), _color(rng.random(), 0.15, rng.uniform(0.8, 1)))


def _armchair(hue: float, rng: np.random.Generator) -> Image.Image:
    image = _wall(rng)
    draw = ImageDraw.Draw(image)
    x = int(rng.integers(-4, 5))
    y = int(rng.integers(-4, 5))
    draw.rounded_rectangle((16 + x, 12 + y, 48 + x, 44 + y), 6, fill=_color(hue))
    draw.rounded_rectangle((10 + x, 34 + y, 54 + x, 52 + y), 6, fill=_color(hue, value=0.65))
    return image


def _lamp(hue: float, rng: np.random.Generator) -> Image.Image:
    image = _wall(rng)
    draw = ImageDraw.Draw(image)
    x = int(rng.integers(-4, 5))
    y = int(rng.integers(-4, 5))
    draw.rectangle((30 + x, 30 + y, 34 + x, 56 + y), fill=(70, 70, 70))
    draw.polygon(
        [(22 + x, 8 + y), (42 + x, 8 + y), (52 + x, 32 + y), (12 + x, 32 + y)], fill=_color(hue)
    )
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="?", type=Path, help="pairs file; default: drawn rooms")
    parser.add_argument("--images", type=Path, help="folder of the photos; default: the file's own")
    parser.add_argument("--onnx", help="image encoder as an ONNX file; default: descriptors")
    parser.add_argument("--output", help="name of the encoder's output; default: the first")
    parser.add_argument("--store", type=Path, help="feature store; default: a temporary file")
    options = parser.parse_args()
    backbone = "descriptor"
    if options.onnx:
        backbone = ("onnx", {"path": options.onnx, "output": options.output})
    with tempfile.TemporaryDirectory() as folder:
        pairs = Pairs.read(
            options.pairs or draw_rooms(Path(folder) / "rooms"), images=options.images
        )
        matcher = Matcher(
            backbone=backbone,
            metadata=None,
            # The two sides are different kinds of items: one head for each
            head=("linear", {"width": 64, "shared": False}),
            loss=("infonce", {"directions": "both"}),
            training=TrainingConfig(learning_rate=1e-3),
            store=options.store or Path(folder) / "store.sqlite",
        )
        result = matcher.cross_validate(pairs, ["frozen", "centred", "ridge"], repeats=1)
        print(result)
        for comparison in result.comparisons("frozen"):
            print(comparison)
        matcher.store.close()


if __name__ == "__main__":
    main()

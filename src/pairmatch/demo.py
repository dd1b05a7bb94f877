"""Draws the demo's people: small portraits with a planted taste, so that the whole job runs without any data."""

from __future__ import annotations

import colorsys
import csv
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pairmatch.saved import write_file

_SCALE = 3  # drawn larger and shrunk, for smooth edges
_SKINS = ("#f6d7c3", "#edbf9d", "#d29b73", "#a86f4c", "#7d4e34", "#573422")
_HAIRS = ("#201a17", "#4a2f20", "#7a4b27", "#b98345", "#d9b56c", "#8d8a86", "#8c3b1f")
_REGIONS = ("north", "south", "east", "west")
_WORDS = {
    "warm": ("I cook for friends", "sun, markets and long breakfasts", "dancing till late"),
    "cool": ("I read on trains", "cold lakes before breakfast", "quiet cafés and old films"),
    "plain": ("weekends in the garden", "I fix bicycles", "long walks with the dog"),
}


@dataclass(frozen=True, slots=True)
class _Looks:
    """What decides how a person is drawn; hues in degrees."""

    clothes: float
    backdrop: float
    pattern: str
    hair: str
    glasses: bool


def draw_people(folder: str | Path, *, pairs: int = 400, seed: int = 0, size_px: int = 128) -> Path:
    """Draws pairs of people into a folder and writes their pairs file.

    The planted taste: someone in clothes of one colour goes with someone before a backdrop of the colour that lies a
    third further on the colour circle, and striped clothes go with plain ones. Partners therefore do not look alike,
    and cosine similarity of frozen features hardly sees them, but who goes with whom can be learned. One pair in ten
    follows no taste at all.

    Args:
        folder: Gets `pairs.csv`, `candidates.csv` (the profiles of side b) and `images/`.
        pairs: Number of pairs, at least 2.
        seed: Equal seeds draw equal people.
        size_px: Side of the square portraits.

    Returns:
        The path of `pairs.csv`.
    """
    target = Path(folder)
    (target / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    jobs = []
    for index in range(pairs):
        row: dict[str, object] = {}
        for side, looks in zip("ab", _couple(rng), strict=True):
            name = f"images/{side}{index:04d}.jpg"
            mood = "warm" if np.cos(np.radians(looks.clothes - 30)) > 0.5 else "cool"
            words = _WORDS[mood if rng.random() < 0.7 else "plain"]
            row |= {
                f"id_{side}": f"{side}{index:04d}",
                f"image_{side}": name,
                f"text_{side}": words[int(rng.integers(len(words)))],
                f"age_{side}": int(rng.integers(20, 60)),
                f"region_{side}": _REGIONS[int(rng.integers(4))],
            }
            jobs.append((target / name, looks, int(rng.integers(2**32)), size_px))
        rows.append(row)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda job: write_file(job[0], _portrait(*job[1:])), jobs))
    candidates = [{key[:-2]: value for key, value in row.items() if key.endswith("_b")} for row in rows]
    for name, table in (("candidates.csv", candidates), ("pairs.csv", rows)):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        write_file(target / name, text.getvalue().encode())
    return target / "pairs.csv"


def _couple(rng: np.random.Generator) -> tuple[_Looks, _Looks]:
    clothes, backdrop = rng.uniform(0, 360, 2)
    pattern = str(rng.choice(["plain", "stripes"]))
    a = _Looks(clothes, backdrop, pattern, str(rng.choice(_HAIRS)), bool(rng.random() < 0.3))
    if rng.random() < 0.1:
        clothes, backdrop = rng.uniform(0, 360, 2)
        pattern = str(rng.choice(["plain", "stripes"]))
    b = _Looks(
        (backdrop + 120 + rng.normal(0, 12)) % 360,
        (clothes + 120 + rng.normal(0, 12)) % 360,
        "plain" if pattern == "stripes" else "stripes",
        str(rng.choice(_HAIRS)),
        bool(rng.random() < 0.3),
    )
    return a, b


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _portrait(looks: _Looks, seed: int, size_px: int) -> bytes:
    """JPEG bytes of one portrait."""
    rng = np.random.default_rng(seed)
    side = size_px * _SCALE
    unit = side / 100

    def box(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        return tuple(v * unit for v in (x - width / 2, y - height / 2, x + width / 2, y + height / 2))  # type: ignore[return-value]

    top = np.array(_colour(looks.backdrop, 0.35 + 0.1 * rng.random(), 0.95))
    low = np.array(_colour(looks.backdrop + rng.normal(0, 8), 0.55, 0.72))
    ramp = np.linspace(0, 1, side)[:, None, None]
    image = Image.fromarray(np.broadcast_to(top * (1 - ramp) + low * ramp, (side, side, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    x, y = 50 + rng.normal(0, 3), 44 + rng.normal(0, 2)
    skin = str(rng.choice(_SKINS))
    shade = tuple(int(c * 0.86) for c in Image.new("RGB", (1, 1), skin).getpixel((0, 0)))  # type: ignore[union-attr]
    wide, high = 30 + rng.normal(0, 2), 38 + rng.normal(0, 2)
    long_hair, beard = rng.random() < 0.45, rng.random() < 0.25
    if long_hair:
        draw.rounded_rectangle(box(x, y + 8, wide + 13, high + 22), 16 * unit, fill=looks.hair)
    shirt = _colour(looks.clothes, 0.7, 0.78 + 0.1 * rng.random())
    draw.rounded_rectangle(box(x, 102, 74 + rng.normal(0, 4), 56), 22 * unit, fill=shirt)
    if looks.pattern == "stripes":
        bright = _colour(looks.clothes, 0.2, 0.97)
        mask = Image.new("L", image.size)
        ImageDraw.Draw(mask).rounded_rectangle(box(x, 102, 72, 54), 22 * unit, fill=255)
        stripes = Image.new("L", image.size)
        pen = ImageDraw.Draw(stripes)
        for line in range(0, 120, 8):
            pen.rectangle((line * unit, 72 * unit, (line + 3.2) * unit, side), fill=255)
        image.paste(bright, mask=Image.fromarray(np.minimum(np.asarray(mask), np.asarray(stripes))))
        draw = ImageDraw.Draw(image)
    draw.rounded_rectangle(box(x, y + high * 0.55, 13, 22), 5 * unit, fill=shade)
    draw.ellipse(box(x - wide / 2, y + 2, 6, 9), fill=skin)
    draw.ellipse(box(x + wide / 2, y + 2, 6, 9), fill=skin)
    draw.ellipse(box(x, y, wide, high), fill=skin)
    if beard:
        draw.chord(box(x, y + 1, wide, high + 1), 20, 160, fill=looks.hair)
    draw.chord(box(x, y - 3, wide + 5, high + 3), 183 + rng.normal(0, 4), 357 + rng.normal(0, 4), fill=looks.hair)
    for eye in (-7, 7):
        draw.ellipse(box(x + eye, y + 1, 5, 3.4), fill="white")
        draw.ellipse(box(x + eye + rng.normal(0, 0.3), y + 1, 2.6, 2.6), fill="#2b2320")
        draw.arc(box(x + eye, y - 3, 7, 4), 200, 340, fill=looks.hair, width=round(1.1 * unit))
    if looks.glasses:
        for eye in (-7, 7):
            draw.ellipse(box(x + eye, y + 1, 11, 10), outline="#22262c", width=round(1.1 * unit))
        draw.line((*[(x - 1.6) * unit, (y + 1) * unit], (x + 1.6) * unit, (y + 1) * unit), fill="#22262c", width=3)
    draw.line((x * unit, (y + 3) * unit, (x - 1.4) * unit, (y + 8) * unit), fill=shade, width=round(1.1 * unit))
    smile = rng.uniform(3, 8)
    draw.chord(box(x, y + 11, 11, smile), 0, 180, fill="#a2423f" if not beard else "#c06a63")
    small = image.resize((size_px, size_px), Image.Resampling.BOX)
    if rng.random() < 0.3:
        small = small.filter(ImageFilter.GaussianBlur(0.7))
    light = rng.uniform(0.85, 1.12)
    noise = rng.normal(0, rng.uniform(1, 5), (size_px, size_px, 1))
    pixels = np.clip(np.asarray(small) * light + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()

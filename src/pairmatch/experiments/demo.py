"""Draws the people of the demo: small portraits with a planted taste, so that it needs no data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.progress import map_in_threads
from pairmatch.experiments.portraits import Looks, draw_portrait
from pairmatch.io.files import write_file
from pairmatch.io.spreadsheets import csv_bytes

_PARTNER_HUE = 120.0  # degrees from a person's clothes to their partner's backdrop
_HUE_NOISE = 22.0  # standard deviation, degrees
_NO_TASTE = 0.2  # share of pairs that follow no taste
_LIKE_PATTERN = 0.65  # share of partners who match stripes on purpose; others match by chance
_REGIONS = ("north", "south", "east", "west")
_TEXTS = {
    "warm": ("I cook for friends", "sun, markets and long breakfasts", "dancing till late"),
    "cool": ("I read on trains", "cold lakes before breakfast", "quiet cafés and old films"),
    "plain": ("weekends in the garden", "I fix bicycles", "long walks with the dog"),
}


def draw_people(folder: str | Path, *, pairs: int = 400, seed: int = 0, size_px: int = 160) -> Path:
    """Draws pairs of people into a folder and writes their pairs file.

    The planted taste: people in clothes of one color go with people in front of a backdrop whose
    color lies a third further along the color circle, and the reverse; people in stripes go
    slightly more often with people in stripes. Partners therefore hardly look similar: cosine
    similarity of frozen features captures little of the taste, but it can be learned. Some pairs
    follow no taste.

    Args:
        folder: Folder that receives `pairs.csv`, `candidates.csv` (the profiles of side b) and
            `images/`.
        pairs: Number of pairs, at least 1.
        seed: Seed for everything random; equal seeds write equal files.
        size_px: Side of the square portraits, at least 16.

    Returns:
        Path to `pairs.csv`.

    Raises:
        ConfigurationError: `pairs` or `size_px` is out of range.
    """
    if pairs < 1 or size_px < 16:
        raise ConfigurationError(
            "`draw_people(...)`: pairs must be at least 1 and size_px at least 16, got "
            f"{pairs} and {size_px}."
        )
    target = Path(folder)
    (target / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    portraits: list[tuple[Path, Looks, int]] = []
    for index in range(pairs):
        row: dict[str, Any] = {}
        for side, looks in zip("ab", _draw_couple(rng), strict=True):
            row |= _profile(side, index, looks, rng)
            path = target / row[f"image_{side}"]
            portraits.append((path, looks, int(rng.integers(2**32))))
        rows.append(row)

    def write_portrait(path: Path, looks: Looks, portrait_seed: int) -> None:
        write_file(path, draw_portrait(looks, portrait_seed, size_px))

    map_in_threads(lambda job: write_portrait(*job), portraits)
    candidates = [
        {key[:-2]: value for key, value in row.items() if key.endswith("_b")} for row in rows
    ]
    for name, table in (("candidates.csv", candidates), ("pairs.csv", rows)):
        write_file(target / name, csv_bytes(list(table[0]), table))
    return target / "pairs.csv"


def _draw_couple(rng: np.random.Generator) -> tuple[Looks, Looks]:
    """The looks of two partners."""
    clothes, backdrop = rng.uniform(0, 360, 2)
    stripes = bool(rng.random() < 0.5)
    a = Looks(clothes, backdrop, stripes)
    if rng.random() < _NO_TASTE:
        clothes, backdrop = rng.uniform(0, 360, 2)
    # One rule read from either side: backdrop = partner's clothes + 120°, so clothes = partner's
    # backdrop − 120°.
    b = Looks(
        (backdrop - _PARTNER_HUE + rng.normal(0, _HUE_NOISE)) % 360,
        (clothes + _PARTNER_HUE + rng.normal(0, _HUE_NOISE)) % 360,
        stripes if rng.random() < _LIKE_PATTERN else bool(rng.random() < 0.5),
    )
    return a, b


def _profile(side: str, index: int, looks: Looks, rng: np.random.Generator) -> dict[str, Any]:
    """The columns of one person in the pairs file."""
    name = f"{side}{index:04d}"
    mood = "warm" if np.cos(np.radians(looks.clothes - 60)) > 0 else "cool"
    texts = _TEXTS[mood if rng.random() < 0.7 else "plain"]
    return {
        f"id_{side}": name,
        f"image_{side}": f"images/{name}.jpg",
        f"text_{side}": texts[int(rng.integers(len(texts)))],
        f"age_{side}": int(rng.integers(20, 60)),
        f"region_{side}": _REGIONS[int(rng.integers(4))],
    }

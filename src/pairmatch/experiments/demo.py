"""Draws the demo's people.

Small portraits with a planted taste, so that the whole job runs without any data.
"""

from __future__ import annotations

import csv
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter
from skimage.color import lab2rgb

from pairmatch.core.errors import ConfigurationError
from pairmatch.io.files import write_file

_SCALE = 3  # drawn larger and shrunk, for smooth edges
_PARTNER_HUE = 120.0  # degrees from someone's clothes to their partner's backdrop
_HUE_NOISE = 22.0  # standard deviation, degrees
_NO_TASTE = 0.2  # share of pairs that follow no taste
_LIKE_PATTERN = (
    0.65  # share of partners who wear like patterns on purpose; half of the others do so by chance
)
_SKINS = ("#f6d7c3", "#edbf9d", "#d8a27c", "#b47b55", "#8a583b", "#5f3a28")
_HAIRS = ("#231c19", "#4a2f20", "#7a4b27", "#b98345", "#dcb974", "#9a9791", "#8c3b1f")
_STYLES = ("short", "long", "bun", "curls")
_INK = "#2a2422"
_REGIONS = ("north", "south", "east", "west")
_WORDS = {
    "warm": ("I cook for friends", "sun, markets and long breakfasts", "dancing till late"),
    "cool": ("I read on trains", "cold lakes before breakfast", "quiet cafés and old films"),
    "plain": ("weekends in the garden", "I fix bicycles", "long walks with the dog"),
}
_RGB = tuple[int, int, int]
_Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Looks:
    """What the taste is about; hues in degrees of the CIE Lab colour circle."""

    clothes: float
    backdrop: float
    stripes: bool


def draw_people(folder: str | Path, *, pairs: int = 400, seed: int = 0, size_px: int = 160) -> Path:
    """Draws pairs of people into a folder and writes their pairs file.

    The planted taste: someone in clothes of one colour goes with someone before a backdrop of the
    colour that lies a third further on the colour circle, and the other way round; and people in
    stripes go a little more often with people in stripes. Partners therefore hardly look alike,
    cosine similarity of frozen features sees little, but who goes with whom can be learned. Some
    pairs follow no taste at all.

    Args:
        folder: Gets `pairs.csv`, `candidates.csv` (the profiles of side b) and `images/`.
        pairs: Number of pairs, at least 1.
        seed: Equal seeds draw equal people.
        size_px: Side of the square portraits, at least 16.

    Returns:
        The path of `pairs.csv`.

    Raises:
        ConfigurationError: A number out of range.
    """
    if pairs < 1 or size_px < 16:
        raise ConfigurationError(
            f"`draw_people(...)`: pairs must be at least 1 and size_px at least 16, got {pairs} and {size_px}."
        )
    target = Path(folder)
    (target / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    jobs = []
    for index in range(pairs):
        row: dict[str, object] = {}
        for side, looks in zip("ab", _couple(rng), strict=True):
            name = f"images/{side}{index:04d}.jpg"
            mood = "warm" if np.cos(np.radians(looks.clothes - 60)) > 0 else "cool"
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
    candidates = [
        {key[:-2]: value for key, value in row.items() if key.endswith("_b")} for row in rows
    ]
    for name, table in (("candidates.csv", candidates), ("pairs.csv", rows)):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        write_file(target / name, text.getvalue().encode())
    return target / "pairs.csv"


def _couple(rng: np.random.Generator) -> tuple[_Looks, _Looks]:
    clothes, backdrop = rng.uniform(0, 360, 2)
    stripes = bool(rng.random() < 0.5)
    a = _Looks(clothes, backdrop, stripes)
    if rng.random() < _NO_TASTE:
        clothes, backdrop = rng.uniform(0, 360, 2)
    # The same rule read from either side: backdrop = partner's clothes + 120°, clothes = partner's
    # backdrop − 120°
    return a, _Looks(
        (backdrop - _PARTNER_HUE + rng.normal(0, _HUE_NOISE)) % 360,
        (clothes + _PARTNER_HUE + rng.normal(0, _HUE_NOISE)) % 360,
        stripes if rng.random() < _LIKE_PATTERN else bool(rng.random() < 0.5),
    )


def _colour(hue: float, lightness: float, chroma: float) -> _RGB:
    """A colour of CIE Lab by its polar coordinates."""
    angle = np.radians(hue)
    red, green, blue = lab2rgb([[[lightness, chroma * np.cos(angle), chroma * np.sin(angle)]]])[
        0, 0
    ]
    return round(255 * red), round(255 * green), round(255 * blue)


def _mixed(one: str | _RGB, other: str | _RGB, share: float) -> _RGB:
    """Colour `one` with a share of `other` in it."""
    ends = [
        np.array(ImageColor.getrgb(ink) if isinstance(ink, str) else ink) for ink in (one, other)
    ]
    red, green, blue = (ends[0] * (1 - share) + ends[1] * share).round().astype(int).tolist()
    return red, green, blue


def _curve(*points: tuple[float, float], steps: int = 24) -> _Points:
    """[steps, 2] points on the Bézier curve (quadratic or cubic) of 3 or 4 control points."""
    t = np.linspace(0, 1, steps)[:, None]
    control = [np.array(point, dtype=float) for point in points]
    while len(control) > 1:
        control = [(1 - t) * start + t * end for start, end in pairwise(control)]
    return control[0]


class _Pen:
    """Draws on a transparent layer in units of a hundredth of the picture's side."""

    def __init__(self, side_px: int) -> None:
        self.unit = side_px / 100
        self.layer = Image.new(
            "RGBA", (side_px, round(1.1 * side_px))
        )  # taller, so that a tilt leaves no gap below
        self.draw = ImageDraw.Draw(self.layer)

    def box(self, x: float, y: float, width: float, height: float) -> list[float]:
        return [
            v * self.unit for v in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        ]

    def oval(self, x: float, y: float, width: float, height: float, fill: str | _RGB) -> None:
        self.draw.ellipse(self.box(x, y, width, height), fill=fill)

    def shape(self, *outline: _Points, fill: str | _RGB) -> None:
        self.draw.polygon(
            [tuple(point) for point in np.concatenate(outline) * self.unit], fill=fill
        )

    def stroke(self, points: _Points, width: float, fill: str | _RGB) -> None:
        pixels = max(1, round(width * self.unit))
        self.draw.line(
            [tuple(point) for point in points * self.unit], fill=fill, width=pixels, joint="curve"
        )


@dataclass(frozen=True, slots=True)
class _Face:
    """Where the face is, in hundredths of the picture's side, and its colours."""

    x: float
    y: float
    width: float
    height: float
    skin: str
    hair: str

    def outline(
        self, first_degrees: float, last_degrees: float, grow: float = 0.0, steps: int = 40
    ) -> _Points:
        """[steps, 2] points on the outline, clockwise from the right-hand side.

        The jaw is narrower than the brow.
        """
        angle = np.radians(np.linspace(first_degrees, last_degrees, steps))
        down = np.clip(np.sin(angle), 0, 1)
        x = np.cos(angle) * (self.width / 2 + grow) * (1 - 0.16 * down**2)
        return np.column_stack([self.x + x, self.y + np.sin(angle) * (self.height / 2 + grow)])


def _portrait(looks: _Looks, seed: int, size_px: int) -> bytes:
    """JPEG bytes of one portrait."""
    rng = np.random.default_rng(seed)
    side_px = size_px * _SCALE
    pen = _Pen(side_px)
    face = _Face(
        x=50 + rng.normal(0, 2),
        y=43 + rng.normal(0, 2),
        width=31 + rng.normal(0, 1.6),
        height=40 + rng.normal(0, 1.8),
        skin=str(rng.choice(_SKINS)),
        hair=str(rng.choice(_HAIRS)),
    )
    style = str(rng.choice(_STYLES))
    _draw_hair_behind(pen, face, style)
    _draw_clothes(pen, face, looks, rng)
    _draw_head(pen, face)
    if style != "long" and rng.random() < 0.4:
        _draw_beard(pen, face)
    _draw_features(pen, face, rng)
    _draw_fringe(pen, face, style, rng)
    if rng.random() < 0.35:
        _draw_glasses(pen, face, rng)
    person = pen.layer.reduce(_SCALE).rotate(
        rng.normal(0, 2.5), Image.Resampling.BICUBIC, center=(size_px / 2, size_px)
    )
    if rng.random() < 0.5:
        person = person.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = _backdrop(looks.backdrop, side_px, rng).reduce(_SCALE)
    image.paste(person, mask=person)
    return _photograph(image, rng)


def _backdrop(hue: float, side_px: int, rng: np.random.Generator) -> Image.Image:
    """A wall lit from above, at times with soft spots of light."""
    top, low = (np.array(_colour(hue + rng.normal(0, 6), *tone)) for tone in ((84, 27), (64, 40)))
    ramp = np.linspace(0, 1, side_px)[:, None, None]
    wall = Image.fromarray(
        np.broadcast_to(top * (1 - ramp) + low * ramp, (side_px, side_px, 3)).astype(np.uint8)
    )
    if rng.random() < 0.5:
        draw = ImageDraw.Draw(wall, "RGBA")
        for x, y, radius in rng.uniform((0, 0, 4), (100, 80, 12), (7, 3)) * side_px / 100:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 255, 255, 34))
    return wall


def _draw_hair_behind(pen: _Pen, face: _Face, style: str) -> None:
    x, y, half = face.x, face.y, face.width / 2
    dark = _mixed(face.hair, _INK, 0.25)
    if style == "long":
        left = _curve((x - half - 5, y - 6), (x - half - 9, y + 20), (x - half - 3, y + 36))
        right = _curve((x + half + 3, y + 36), (x + half + 9, y + 20), (x + half + 5, y - 6))
        pen.shape(face.outline(-180, 0, 5), right[::-1], left[::-1], fill=dark)
    elif style == "bun":
        pen.oval(x, y - face.height / 2 - 6, 15, 13, dark)


def _draw_clothes(pen: _Pen, face: _Face, looks: _Looks, rng: np.random.Generator) -> None:
    cloth = _colour(looks.clothes, 56 + rng.normal(0, 3), 52)
    wide, top = 35 + rng.normal(0, 2), face.y + face.height / 2 + 8
    left = _curve((face.x - wide - 5, 110), (face.x - wide, top + 8), (face.x - 8, top))
    right = _curve((face.x + 8, top), (face.x + wide, top + 8), (face.x + wide + 5, 110))
    pen.shape(left, right, fill=cloth)
    if looks.stripes:
        whole = Image.new("L", pen.layer.size)
        ImageDraw.Draw(whole).polygon(
            [tuple(p) for p in np.concatenate([left, right]) * pen.unit], fill=255
        )
        bands = Image.new("L", pen.layer.size)
        draw = ImageDraw.Draw(bands)
        for place in np.arange(rng.uniform(0, 8), 104, 8):
            draw.rectangle(
                (place * pen.unit, 0, (place + 3.4) * pen.unit, pen.layer.height), fill=255
            )
        pen.layer.paste(_colour(looks.clothes, 90, 14), mask=ImageChops.darker(whole, bands))
        pen.draw = ImageDraw.Draw(pen.layer)
    neck = _mixed(face.skin, _INK, 0.16)
    throat = _curve((face.x + 8, top - 0.5), (face.x, top + 13), (face.x - 8, top - 0.5))
    pen.shape(np.array([[face.x - 6, face.y], [face.x + 6, face.y]]), throat, fill=neck)
    pen.stroke(throat, 1.4, _mixed(cloth, _INK, 0.3))


def _draw_head(pen: _Pen, face: _Face) -> None:
    for ear in (-1, 1):
        pen.oval(
            face.x + ear * (face.width / 2 - 0.4),
            face.y + 2.5,
            5.5,
            8.5,
            _mixed(face.skin, _INK, 0.07),
        )
    pen.shape(face.outline(0, 360), fill=face.skin)
    for cheek in (-1, 1):
        pen.oval(face.x + cheek * 9.4, face.y + 6.5, 6.4, 4.4, _mixed(face.skin, "#d2473f", 0.2))


def _draw_beard(pen: _Pen, face: _Face) -> None:
    x, y, half = face.x, face.y, face.width / 2
    jaw = face.outline(4, 176, 0.5)
    left = _curve((x - half, y + 3), (x - half + 3, y + 10), (x - 5.5, y + 8.6), steps=16)
    right = _curve((x + 5.5, y + 8.6), (x + half - 3, y + 10), (x + half, y + 3), steps=16)
    pen.shape(jaw, left, right, fill=_mixed(face.hair, _INK, 0.12))


def _draw_features(pen: _Pen, face: _Face, rng: np.random.Generator) -> None:
    x, y = face.x, face.y
    shade = _mixed(face.skin, _INK, 0.25)
    look, lift = rng.normal(0, 0.5), rng.normal(0, 0.6)
    for eye in (-7.2, 7.2):
        pen.oval(x + eye + look, y + 1, 3.4, 4.2, _INK)
        pen.oval(x + eye + look + 0.7, y + 0.2, 1.2, 1.2, "white")
        brow = _curve((x + eye - 3.6, y - 4.2), (x + eye, y - 6.6 - lift), (x + eye + 3.6, y - 4.2))
        pen.stroke(brow, 1.3, _mixed(face.hair, _INK, 0.35))
    pen.stroke(_curve((x - 0.4, y + 2), (x + 3, y + 7.4), (x - 1.6, y + 6.8)), 1.1, shade)
    wide, smile = rng.uniform(4, 6), rng.uniform(1.5, 6)
    left, right = (x - wide, y + 11), (x + wide, y + 11)
    if smile > 3.5:
        pen.shape(
            _curve(left, (x, y + 10.6), right),
            _curve(right, (x, y + 11 + 2 * smile), left),
            fill="#8e2f35",
        )
        pen.shape(
            _curve(left, (x, y + 10.6), right),
            _curve(right, (x, y + 11 + 0.8 * smile), left),
            fill="#fbf6f0",
        )
    else:
        pen.stroke(_curve(left, (x, y + 11 + 2 * smile), right), 1.5, "#a0413f")


def _draw_fringe(pen: _Pen, face: _Face, style: str, rng: np.random.Generator) -> None:
    """Hair over the forehead: from temple to temple over the top, and back along the hairline."""
    x, y, half = face.x, face.y, face.width / 2
    part, height = rng.uniform(-9, 9), rng.uniform(-17, -9)
    crown = face.outline(-176, -4, 2.6)
    line = [
        (x + half - 0.4, y - 3),
        (x + half - 3, y + height),
        (x + part + 6, y + height - 4),
        (x + part, y - 14),
    ]
    back = [
        (x + part, y - 14),
        (x + part - 6, y + height - 2),
        (x - half + 3, y + height),
        (x - half + 0.4, y - 3),
    ]
    pen.shape(crown, _curve(*line), _curve(*back), fill=face.hair)
    if style == "curls":
        for cx, cy in face.outline(-190, 10, 3.0, steps=13):
            width, height = rng.uniform(8.5, 11.5, 2)
            pen.oval(cx, cy, width, height, face.hair)


def _draw_glasses(pen: _Pen, face: _Face, rng: np.random.Generator) -> None:
    frame = str(rng.choice([_INK, "#6b3f24", "#8c2f3a", "#2f4f7a"]))
    round_ones = rng.random() < 0.6
    x, y, width = face.x, face.y, round(1.2 * pen.unit)
    for eye in (-7.2, 7.2):
        if round_ones:
            pen.draw.ellipse(pen.box(x + eye, y + 1.2, 11.4, 10.4), outline=frame, width=width)
        else:
            pen.draw.rounded_rectangle(
                pen.box(x + eye, y + 1.2, 11.4, 8.4), 2.2 * pen.unit, outline=frame, width=width
            )
    pen.stroke(np.array([[x - 1.6, y + 0.6], [x, y - 0.8], [x + 1.6, y + 0.6]]), 1.2, frame)
    for ear in (-1, 1):
        pen.stroke(np.array([[x + ear * 12.7, y + 0.4], [x + ear * 15, y - 0.4]]), 1.2, frame)


def _photograph(image: Image.Image, rng: np.random.Generator) -> bytes:
    """What a camera adds: light, noise, at times a soft focus."""
    if rng.random() < 0.25:
        image = image.filter(ImageFilter.GaussianBlur(image.width / 220))
    light = rng.uniform(0.86, 1.1) * (1 + rng.normal(0, 0.02, 3))
    noise = rng.normal(0, rng.uniform(0.5, 3.5), (image.height, image.width, 1))
    pixels = np.clip(np.asarray(image) * light + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()

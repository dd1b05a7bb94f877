"""Draws portraits: clothes and backdrop follow the given looks, everything else is random."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter
from skimage.color import lab2rgb

_SCALE = 3  # portraits are drawn larger and reduced, for smooth edges
_SKINS = ("#f6d7c3", "#edbf9d", "#d8a27c", "#b47b55", "#8a583b", "#5f3a28")
_HAIRS = ("#231c19", "#4a2f20", "#7a4b27", "#b98345", "#dcb974", "#9a9791", "#8c3b1f")
_STYLES = ("short", "long", "bun", "curls")
_INK = "#2a2422"
_RGB = tuple[int, int, int]
_Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Looks:
    """What the planted taste depends on; hues are in degrees of the color circle of CIE Lab."""

    clothes: float
    backdrop: float
    stripes: bool


def draw_portrait(looks: Looks, seed: int, size_px: int) -> bytes:
    """Draws a portrait as JPEG bytes.

    Args:
        looks: Clothes and backdrop.
        seed: Seed for everything else; equal seeds draw equal portraits.
        size_px: Side of the square portrait.
    """
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


def _color(hue: float, lightness: float, chroma: float) -> _RGB:
    """RGB of a CIE Lab color given in polar coordinates, hue in degrees."""
    angle = np.radians(hue)
    lab = [lightness, chroma * np.cos(angle), chroma * np.sin(angle)]
    red, green, blue = lab2rgb([[lab]])[0, 0]
    return round(255 * red), round(255 * green), round(255 * blue)


def _blend(base: str | _RGB, tint: str | _RGB, share: float) -> _RGB:
    """Mixes a share of `tint` into `base`."""
    ends = [
        np.array(ImageColor.getrgb(ink) if isinstance(ink, str) else ink) for ink in (base, tint)
    ]
    red, green, blue = (ends[0] * (1 - share) + ends[1] * share).round().astype(int).tolist()
    return red, green, blue


def _curve(*points: tuple[float, float], steps: int = 24) -> _Points:
    """Points on the Bézier curve of 3 or 4 control points, [steps, 2]."""
    t = np.linspace(0, 1, steps)[:, None]
    control = [np.array(point, dtype=float) for point in points]
    while len(control) > 1:
        control = [(1 - t) * start + t * end for start, end in pairwise(control)]
    return control[0]


class _Pen:
    """Draws on a transparent layer; coordinates are hundredths of the portrait's side."""

    def __init__(self, side_px: int) -> None:
        self.unit = side_px / 100
        # Taller than the portrait, so that a tilt leaves no gap at the bottom.
        self.layer = Image.new("RGBA", (side_px, round(1.1 * side_px)))
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
    """Position and size of the face, in hundredths of the portrait's side, and its colors."""

    x: float
    y: float
    width: float
    height: float
    skin: str
    hair: str

    def outline(
        self, first_degrees: float, last_degrees: float, grow: float = 0.0, steps: int = 40
    ) -> _Points:
        """Points on the outline, [steps, 2], clockwise from the right.

        The jaw is narrower than the brow.
        """
        angle = np.radians(np.linspace(first_degrees, last_degrees, steps))
        down = np.clip(np.sin(angle), 0, 1)
        x = np.cos(angle) * (self.width / 2 + grow) * (1 - 0.16 * down**2)
        return np.column_stack([self.x + x, self.y + np.sin(angle) * (self.height / 2 + grow)])


def _backdrop(hue: float, side_px: int, rng: np.random.Generator) -> Image.Image:
    """A wall lit from above, sometimes with soft spots of light."""
    top = np.array(_color(hue + rng.normal(0, 6), 84, 27))
    bottom = np.array(_color(hue + rng.normal(0, 6), 64, 40))
    ramp = np.linspace(0, 1, side_px)[:, None, None]
    pixels = np.broadcast_to(top * (1 - ramp) + bottom * ramp, (side_px, side_px, 3))
    wall = Image.fromarray(pixels.astype(np.uint8))
    if rng.random() < 0.5:
        draw = ImageDraw.Draw(wall, "RGBA")
        for x, y, radius in rng.uniform((0, 0, 4), (100, 80, 12), (7, 3)) * side_px / 100:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 255, 255, 34))
    return wall


def _draw_hair_behind(pen: _Pen, face: _Face, style: str) -> None:
    x, y = face.x, face.y
    half = face.width / 2
    dark = _blend(face.hair, _INK, 0.25)
    if style == "long":
        left = _curve((x - half - 5, y - 6), (x - half - 9, y + 20), (x - half - 3, y + 36))
        right = _curve((x + half + 3, y + 36), (x + half + 9, y + 20), (x + half + 5, y - 6))
        pen.shape(face.outline(-180, 0, 5), right[::-1], left[::-1], fill=dark)
    elif style == "bun":
        pen.oval(x, y - face.height / 2 - 6, 15, 13, dark)


def _draw_clothes(pen: _Pen, face: _Face, looks: Looks, rng: np.random.Generator) -> None:
    cloth = _color(looks.clothes, 56 + rng.normal(0, 3), 52)
    half = 35 + rng.normal(0, 2)
    top = face.y + face.height / 2 + 8
    left = _curve((face.x - half - 5, 110), (face.x - half, top + 8), (face.x - 8, top))
    right = _curve((face.x + 8, top), (face.x + half, top + 8), (face.x + half + 5, 110))
    pen.shape(left, right, fill=cloth)
    if looks.stripes:
        _draw_stripes(pen, np.concatenate([left, right]), _color(looks.clothes, 90, 14), rng)
    neck = _blend(face.skin, _INK, 0.16)
    throat = _curve((face.x + 8, top - 0.5), (face.x, top + 13), (face.x - 8, top - 0.5))
    pen.shape(np.array([[face.x - 6, face.y], [face.x + 6, face.y]]), throat, fill=neck)
    pen.stroke(throat, 1.4, _blend(cloth, _INK, 0.3))


def _draw_stripes(pen: _Pen, outline: _Points, fill: _RGB, rng: np.random.Generator) -> None:
    """Vertical stripes inside an outline."""
    inside = Image.new("L", pen.layer.size)
    ImageDraw.Draw(inside).polygon([tuple(point) for point in outline * pen.unit], fill=255)
    bands = Image.new("L", pen.layer.size)
    draw = ImageDraw.Draw(bands)
    for x in np.arange(rng.uniform(0, 8), 104, 8):
        draw.rectangle((x * pen.unit, 0, (x + 3.4) * pen.unit, pen.layer.height), fill=255)
    pen.layer.paste(fill, mask=ImageChops.darker(inside, bands))
    pen.draw = ImageDraw.Draw(pen.layer)


def _draw_head(pen: _Pen, face: _Face) -> None:
    ear_skin = _blend(face.skin, _INK, 0.07)
    for ear in (-1, 1):
        pen.oval(face.x + ear * (face.width / 2 - 0.4), face.y + 2.5, 5.5, 8.5, ear_skin)
    pen.shape(face.outline(0, 360), fill=face.skin)
    for cheek in (-1, 1):
        pen.oval(face.x + cheek * 9.4, face.y + 6.5, 6.4, 4.4, _blend(face.skin, "#d2473f", 0.2))


def _draw_beard(pen: _Pen, face: _Face) -> None:
    x, y = face.x, face.y
    half = face.width / 2
    jaw = face.outline(4, 176, 0.5)
    left = _curve((x - half, y + 3), (x - half + 3, y + 10), (x - 5.5, y + 8.6), steps=16)
    right = _curve((x + 5.5, y + 8.6), (x + half - 3, y + 10), (x + half, y + 3), steps=16)
    pen.shape(jaw, left, right, fill=_blend(face.hair, _INK, 0.12))


def _draw_features(pen: _Pen, face: _Face, rng: np.random.Generator) -> None:
    x, y = face.x, face.y
    shade = _blend(face.skin, _INK, 0.25)
    gaze = rng.normal(0, 0.5)
    lift = rng.normal(0, 0.6)
    for eye in (-7.2, 7.2):
        pen.oval(x + eye + gaze, y + 1, 3.4, 4.2, _INK)
        pen.oval(x + eye + gaze + 0.7, y + 0.2, 1.2, 1.2, "white")
        brow = _curve((x + eye - 3.6, y - 4.2), (x + eye, y - 6.6 - lift), (x + eye + 3.6, y - 4.2))
        pen.stroke(brow, 1.3, _blend(face.hair, _INK, 0.35))
    pen.stroke(_curve((x - 0.4, y + 2), (x + 3, y + 7.4), (x - 1.6, y + 6.8)), 1.1, shade)
    half_mouth = rng.uniform(4, 6)
    smile = rng.uniform(1.5, 6)
    left = (x - half_mouth, y + 11)
    right = (x + half_mouth, y + 11)
    if smile > 3.5:
        lip = _curve(left, (x, y + 10.6), right)
        pen.shape(lip, _curve(right, (x, y + 11 + 2 * smile), left), fill="#8e2f35")
        pen.shape(lip, _curve(right, (x, y + 11 + 0.8 * smile), left), fill="#fbf6f0")
    else:
        pen.stroke(_curve(left, (x, y + 11 + 2 * smile), right), 1.5, "#a0413f")


def _draw_fringe(pen: _Pen, face: _Face, style: str, rng: np.random.Generator) -> None:
    """Hair above the forehead: over the crown, and back along the hairline."""
    x, y = face.x, face.y
    half = face.width / 2
    part = rng.uniform(-9, 9)
    height = rng.uniform(-17, -9)
    crown = face.outline(-176, -4, 2.6)
    right = [
        (x + half - 0.4, y - 3),
        (x + half - 3, y + height),
        (x + part + 6, y + height - 4),
        (x + part, y - 14),
    ]
    left = [
        (x + part, y - 14),
        (x + part - 6, y + height - 2),
        (x - half + 3, y + height),
        (x - half + 0.4, y - 3),
    ]
    pen.shape(crown, _curve(*right), _curve(*left), fill=face.hair)
    if style == "curls":
        for cx, cy in face.outline(-190, 10, 3.0, steps=13):
            width, height = rng.uniform(8.5, 11.5, 2)
            pen.oval(cx, cy, width, height, face.hair)


def _draw_glasses(pen: _Pen, face: _Face, rng: np.random.Generator) -> None:
    frame = str(rng.choice([_INK, "#6b3f24", "#8c2f3a", "#2f4f7a"]))
    is_round = rng.random() < 0.6
    x, y = face.x, face.y
    width = round(1.2 * pen.unit)
    for eye in (-7.2, 7.2):
        if is_round:
            pen.draw.ellipse(pen.box(x + eye, y + 1.2, 11.4, 10.4), outline=frame, width=width)
        else:
            pen.draw.rounded_rectangle(
                pen.box(x + eye, y + 1.2, 11.4, 8.4), 2.2 * pen.unit, outline=frame, width=width
            )
    pen.stroke(np.array([[x - 1.6, y + 0.6], [x, y - 0.8], [x + 1.6, y + 0.6]]), 1.2, frame)
    for ear in (-1, 1):
        pen.stroke(np.array([[x + ear * 12.7, y + 0.4], [x + ear * 15, y - 0.4]]), 1.2, frame)


def _photograph(image: Image.Image, rng: np.random.Generator) -> bytes:
    """Adds what a camera adds: exposure, noise and sometimes a soft focus."""
    if rng.random() < 0.25:
        image = image.filter(ImageFilter.GaussianBlur(image.width / 220))
    light = rng.uniform(0.86, 1.1) * (1 + rng.normal(0, 0.02, 3))
    noise = rng.normal(0, rng.uniform(0.5, 3.5), (image.height, image.width, 1))
    pixels = np.clip(np.asarray(image) * light + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()

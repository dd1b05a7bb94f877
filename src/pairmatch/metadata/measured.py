"""Metadata measured by formulas: no model, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from skimage.color import rgb2hsv
from skimage.filters import laplace

from pairmatch.core.errors import ImageError
from pairmatch.core.interfaces import MetadataGenerator, OnOutcome
from pairmatch.core.types import Profile, Refusal, Usage
from pairmatch.io.images import image_size, load_image
from pairmatch.metadata.schema import Level

_SIDE_PX = 384  # a fixed size, because sharpness depends on it
_HUES = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
_HUE_CENTERS = np.array([0, 30, 58, 120, 180, 225, 275, 325]) / 360


class Measured(BaseModel):
    """Attributes that formulas can measure in a photo."""

    model_config = ConfigDict(extra="forbid")

    # Any change of names or descriptions makes all stored outcomes useless
    sharpness: Level = Field(description="Variance of the Laplacian of lightness, at 384 pixels.")
    exposure: str = Field(
        description="dark, even or bright, by mean lightness, and flat or contrasty by its spread."
    )
    resolution: Level = Field(
        description="By the shorter side: under 480 pixels, under 1,080, or more."
    )
    framing: str = Field(description="portrait, square or landscape, by the sides alone.")
    colours: str = Field(description="The commonest hues of saturated pixels, or black and white.")


class MeasuredMetadata(MetadataGenerator):
    """Measures sharpness, exposure, resolution, framing and colors of the first photo.

    Choose it for metadata without a model, a network or a cost. It fills its own schema, because
    none of the recipe's eight attributes can be measured without judgment.
    """

    schema = Measured

    def generate(
        self,
        profiles: Sequence[Profile],
        on_outcome: OnOutcome | None = None,
        *,
        max_usd: float | None = None,
    ) -> list[BaseModel | Refusal]:
        """Measures the first photo of every profile."""
        outcomes: list[BaseModel | Refusal] = []
        for index, profile in enumerate(profiles):
            try:
                outcome: BaseModel | Refusal = _measure(profile)
            except ImageError as error:
                outcome = Refusal("unreadable", str(error))
            outcomes.append(outcome)
            if on_outcome is not None and on_outcome(index, outcome, Usage()):
                outcomes += [Refusal("stopped")] * (len(profiles) - len(outcomes))
                break
        return outcomes

    def fingerprint(self) -> Mapping[str, Any]:
        """Versions of the formulas and of the libraries."""
        return {
            "generator": "measured",
            "format": 1,
            "scikit-image": version("scikit-image"),
            "pillow": version("pillow"),
        }


def _measure(profile: Profile) -> Measured:
    source = profile.images[0]
    width, height = image_size(source)
    pixels = np.asarray(load_image(source, longest_side_px=_SIDE_PX), np.float64) / 255
    gray = pixels @ [0.299, 0.587, 0.114]
    edges = float(laplace(gray).var())
    sharpness: Level = "low" if edges < 5e-4 else "medium" if edges < 5e-3 else "high"
    lightness = float(gray.mean())
    spread = float(gray.std())
    tone = "dark" if lightness < 0.3 else "bright" if lightness > 0.7 else "even"
    contrast = "flat" if spread < 0.12 else "contrasty" if spread > 0.28 else ""
    shorter_side = min(width, height)
    aspect = width / height
    return Measured(
        sharpness=sharpness,
        exposure=", ".join(filter(None, (tone, contrast))),
        resolution="low" if shorter_side < 480 else "medium" if shorter_side < 1080 else "high",
        framing="portrait" if aspect < 0.9 else "landscape" if aspect > 1.1 else "square",
        colours=_colors(pixels),
    )


def _colors(pixels: np.ndarray) -> str:
    """Up to three hues, each of more than a tenth of the saturated pixels, most frequent first."""
    hue, saturation, value = rgb2hsv(pixels).reshape(-1, 3).T
    is_saturated = (saturation > 0.25) & (value > 0.15)
    if is_saturated.mean() < 0.03:
        return "black and white"
    distance = np.abs(hue[is_saturated][:, None] - _HUE_CENTERS[None, :])
    nearest = np.argmin(np.minimum(distance, 1 - distance), axis=1)
    shares = np.bincount(nearest, minlength=len(_HUES)) / is_saturated.sum()
    return ", ".join(_HUES[index] for index in np.argsort(-shares)[:3] if shares[index] > 0.1)

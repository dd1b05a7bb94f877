"""Metadata that is measured, not judged: no model, no network."""

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

_SIDE_PX = 384  # sharpness depends on the size that it is measured at
_HUES = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
_HUE_CENTRES = np.array([0, 30, 58, 120, 180, 225, 275, 325]) / 360


class Measured(BaseModel):
    """What formulas can say about a photo."""

    model_config = ConfigDict(extra="forbid")

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
    """Sharpness, exposure, resolution, framing and colours of the first photo. Everything else is left unsaid.

    It fills a schema of its own: of the recipe's eight attributes none can be measured without a
    judgement.
    """

    schema = Measured

    def generate(
        self,
        profiles: Sequence[Profile],
        on_outcome: OnOutcome | None = None,
        *,
        max_usd: float | None = None,
    ) -> list[BaseModel | Refusal]:
        """Measures every profile's first photo."""
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
        """Version of the formulas and of the libraries."""
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
    grey = pixels @ [0.299, 0.587, 0.114]
    edges = float(laplace(grey).var())
    sharpness: Level = "low" if edges < 5e-4 else "medium" if edges < 5e-3 else "high"
    light, spread = float(grey.mean()), float(grey.std())
    tone = "dark" if light < 0.3 else "bright" if light > 0.7 else "even"
    contrast = "flat" if spread < 0.12 else "contrasty" if spread > 0.28 else ""
    short = min(width, height)
    aspect = width / height
    return Measured(
        sharpness=sharpness,
        exposure=", ".join(filter(None, (tone, contrast))),
        resolution="low" if short < 480 else "medium" if short < 1080 else "high",
        framing="portrait" if aspect < 0.9 else "landscape" if aspect > 1.1 else "square",
        colours=_colours(pixels),
    )


def _colours(pixels: np.ndarray) -> str:
    hue, saturation, value = rgb2hsv(pixels).reshape(-1, 3).T
    coloured = (saturation > 0.25) & (value > 0.15)
    if coloured.mean() < 0.03:
        return "black and white"
    distance = np.abs(hue[coloured][:, None] - _HUE_CENTRES[None, :])
    nearest = np.argmin(np.minimum(distance, 1 - distance), axis=1)
    shares = np.bincount(nearest, minlength=len(_HUES)) / coloured.sum()
    return ", ".join(_HUES[index] for index in np.argsort(-shares)[:3] if shares[index] > 0.1)

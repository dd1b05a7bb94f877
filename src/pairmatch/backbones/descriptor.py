"""Classical image descriptors of shape, color and texture, without a model or a download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from skimage.color import rgb2lab
from skimage.feature import hog, local_binary_pattern
from torch import Tensor

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import Backbone
from pairmatch.core.types import Item, TokenStates
from pairmatch.io.images import load_image

_CELLS = 7  # HOG cells per side
_ORIENTATIONS = 9
_LIGHTNESS_BINS = 8
_COLOR_BINS = 8
# Range of a* and b*; the most saturated sRGB colors lie slightly outside and fall into outer bins
_COLOR_RANGE = 80.0
_LBP_RADII = (1, 2)
_REGIONS = 5  # the whole photo and its four quarters


class DescriptorBackbone(Backbone):
    """HOG, Lab color histograms and local binary patterns. Choose it if downloads are impossible.

    The descriptor captures outlines, colors and textures and their positions, but nothing about
    people, clothes or meaning, so expect far less than from a pre-trained model. Each of the three
    blocks is scaled to unit length so that none dominates. A person's photos are averaged.

    Sources: HOG, Dalal and Triggs 2005; uniform LBP, Ojala et al. 2002; square roots of
    histograms, Arandjelović and Zisserman 2012.

    Args:
        size_px: Side in pixels of the square to which photos are scaled: a multiple of 7, at
            least 56.

    Raises:
        ConfigurationError: `size_px` is invalid.
    """

    default_pooler: ClassVar[str] = "native"

    def __init__(self, *, size_px: int = 112) -> None:
        if size_px < 56 or size_px % _CELLS:
            raise ConfigurationError(
                f"`DescriptorBackbone(size_px=...)` must be a multiple of {_CELLS} and at least "
                f"56, got {size_px}."
            )
        self.size_px = size_px

    @property
    def dim(self) -> int:
        """Width P of the descriptor: 1,756."""
        shape = (_CELLS - 1) ** 2 * 4 * _ORIENTATIONS
        return shape + _REGIONS * (_LIGHTNESS_BINS + _COLOR_BINS**2 + 10 * len(_LBP_RADII))

    def prepare(self, items: Sequence[Item]) -> Tensor:
        """Descriptors averaged over each person's photos: [B, P] float32."""
        rows = [np.mean([self._describe(image) for image in item.images], axis=0) for item in items]
        return torch.from_numpy(np.stack(rows).astype(np.float32))

    def forward(self, batch: Tensor) -> TokenStates:
        """The descriptors as pooled output; there are no token states."""
        return TokenStates(pooled=batch)

    def fingerprint(self) -> Mapping[str, Any]:
        """Size and library versions."""
        return {
            "backbone": "descriptor",
            "format": 1,
            "size_px": self.size_px,
            "scikit-image": version("scikit-image"),
            "pillow": version("pillow"),
        }

    def _describe(self, source: Any) -> npt.NDArray[np.float64]:
        photo = load_image(source, longest_side_px=4 * self.size_px)
        pixels = np.asarray(photo.resize((self.size_px, self.size_px), Image.Resampling.BICUBIC))
        lab = rgb2lab(pixels)
        cell = self.size_px // _CELLS
        shape = hog(
            lab[..., 0],
            orientations=_ORIENTATIONS,
            pixels_per_cell=(cell, cell),
            cells_per_block=(2, 2),
        )
        half = self.size_px // 2
        lightness = np.clip(lab[..., 0] / 100 * _LIGHTNESS_BINS, 0, _LIGHTNESS_BINS - 1).astype(int)
        chroma = (lab[..., 1:] / _COLOR_RANGE + 1) / 2 * _COLOR_BINS
        chroma = np.clip(chroma, 0, _COLOR_BINS - 1).astype(int)
        color = chroma[..., 0] * _COLOR_BINS + chroma[..., 1]
        gray = np.clip(lab[..., 0] * 2.55, 0, 255).astype(np.uint8)
        codes = [
            local_binary_pattern(gray, 8, radius, "uniform").astype(int) for radius in _LBP_RADII
        ]
        whole = slice(None)
        regions = [
            (whole, whole),
            *(
                (y, x)
                for y in (slice(half), slice(half, None))
                for x in (slice(half), slice(half, None))
            ),
        ]
        colors = []
        textures = []
        for region in regions:
            colors += [
                _histogram(lightness[region], _LIGHTNESS_BINS),
                _histogram(color[region], _COLOR_BINS**2),
            ]
            textures += [_histogram(code[region], 10) for code in codes]
        return np.concatenate(
            [_unit(shape), _unit(np.concatenate(colors)), _unit(np.concatenate(textures))]
        )


def _histogram(values: npt.NDArray[np.integer], bins: int) -> npt.NDArray[np.float64]:
    """Square roots of relative frequencies: Euclidean distance is then Hellinger distance."""
    return np.sqrt(np.bincount(values.ravel(), minlength=bins) / values.size)


def _unit(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values / max(float(np.linalg.norm(values)), 1e-12)

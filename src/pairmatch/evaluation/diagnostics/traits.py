"""Simple traits of photos and people, as numbers.

What a ranking may lean on instead of compatibility.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.progress import track
from skimage.color import rgb2lab
from skimage.filters import laplace

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.types import Profile
from pairmatch.io.images import image_size, load_image

_SIDE_PX = 256
_BORDER = 0.08  # share of the sides that counts as background
_MOST_VALUES = 20


def photo_traits(
    profiles: Sequence[Profile], *, progress: bool = False
) -> dict[str, npt.NDArray[np.float64]]:
    """Traits of everybody's first photo, measured without any model; people without a photo get the mean.

    Args:
        profiles: N people.
        progress: Shows a progress bar.

    Returns:
        `photo quality` [N, 4]: log variance of the Laplacian (sharpness), mean and spread of
        lightness, log of the shorter side in pixels. `background colour` [N, 3]: mean CIELAB colour
        of the outer 8 % of the photo. `framing` [N, 1]: log of width over height.

    Raises:
        ImageError: A photo that cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        found = list(
            track(
                pool.map(_photo, profiles),
                "Measuring photos",
                len(profiles),
                disable=not progress,
                transient=True,
            )
        )
    rows = np.array([row if row is not None else np.full(8, np.nan) for row in found]).reshape(
        -1, 8
    )
    rows = _filled(rows)
    return {"photo quality": rows[:, :4], "background colour": rows[:, 4:7], "framing": rows[:, 7:]}


def _photo(profile: Profile) -> npt.NDArray[np.float64] | None:
    if not profile.images:
        return None
    width, height = image_size(profile.images[0])
    pixels = np.asarray(load_image(profile.images[0], longest_side_px=_SIDE_PX), np.float64) / 255
    lab = rgb2lab(pixels)
    light = lab[..., 0] / 100
    top, left = (max(1, round(_BORDER * side)) for side in light.shape)
    inside = np.zeros(light.shape, bool)
    inside[top:-top, left:-left] = True
    return np.array(
        [
            np.log(laplace(light).var() + 1e-6),
            light.mean(),
            light.std(),
            np.log(min(width, height)),
            *lab[~inside].mean(0),
            np.log(width / height),
        ]
    )


def attribute_traits(
    profiles: Sequence[Profile], names: Sequence[str] | None = None
) -> dict[str, npt.NDArray[np.float64]]:
    """Attributes and metadata fields as numbers: a number as it is, words as one column per value.

    Args:
        profiles: N people; what is not known counts as the mean.
        names: Which; by default every number, and whatever has at most 20 different values.

    Returns:
        [N, p] by name; an attribute that is the same for everybody is left out.

    Raises:
        ConfigurationError: A name that nobody has.
    """
    known = [_facts(profile) for profile in profiles]
    everything = list(dict.fromkeys(name for facts in known for name in facts))
    missing = [name for name in names or () if name not in everything]
    if missing:
        raise ConfigurationError(
            f"Nobody has the attribute {', '.join(map(repr, missing))}; there are {everything}."
        )
    traits = {}
    for name in everything if names is None else names:
        values = [facts.get(name) for facts in known]
        said = {value for value in values if value is not None}
        if len(said) < 2:
            continue
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in said):
            numbers = np.array([np.nan if value is None else float(value) for value in values])[
                :, None
            ]
            traits[name] = _filled(numbers)
        elif names is not None or len(said) <= _MOST_VALUES:
            order = sorted(map(str, said))
            traits[name] = np.array(
                [[str(value) == one for one in order] for value in values], np.float64
            )
    return traits


def _facts(profile: Profile) -> Mapping[str, Any]:
    metadata = {} if profile.metadata is None else dict(profile.metadata)
    facts = {**metadata, **profile.attributes}
    return {
        name: value for name, value in facts.items() if isinstance(value, str | int | float | bool)
    }


def _filled(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Missing values as the mean of their column."""
    missing = np.isnan(rows)
    means = np.where(
        missing.all(0), 0, np.where(missing, 0, rows).sum(0) / np.maximum((~missing).sum(0), 1)
    )
    return np.where(missing, means, rows)

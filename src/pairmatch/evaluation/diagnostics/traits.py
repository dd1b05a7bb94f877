"""Simple numeric traits of photos and people, which a ranking may use instead of compatibility."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.color import rgb2lab
from skimage.filters import laplace

from pairmatch.core.errors import ConfigurationError
from pairmatch.core.progress import map_in_threads
from pairmatch.core.types import Profile
from pairmatch.io.images import image_size, load_image

_SIDE_PX = 256
_BORDER = 0.08  # share of each side that counts as background
_MAX_CATEGORIES = 20
_PHOTO_COLUMNS = 8

Doubles = npt.NDArray[np.float64]


def photo_traits(profiles: Sequence[Profile], *, progress: bool = False) -> dict[str, Doubles]:
    """Measures traits of each person's first photo, without a model.

    People without a photo get the mean of the others.

    Args:
        profiles: N people.
        progress: Whether to show a progress bar.

    Returns:
        `photo quality` [N, 4]: log variance of the Laplacian (sharpness), mean and standard
        deviation of lightness, log of the shorter side in pixels. `background color` [N, 3]: mean
        CIELAB color of the outer 8 % of the photo. `framing` [N, 1]: log of width over height.

    Raises:
        ImageError: A photo that cannot be read.
    """
    measured = map_in_threads(_measure_photo, profiles, "Measuring photos", shown=progress)
    unknown = np.full(_PHOTO_COLUMNS, np.nan)
    rows = np.array([unknown if row is None else row for row in measured])
    rows = _fill_missing(rows.reshape(-1, _PHOTO_COLUMNS))
    return {"photo quality": rows[:, :4], "background color": rows[:, 4:7], "framing": rows[:, 7:]}


def _measure_photo(profile: Profile) -> Doubles | None:
    """[8] traits of a person's first photo; None without a photo."""
    if not profile.images:
        return None
    width, height = image_size(profile.images[0])
    pixels = np.asarray(load_image(profile.images[0], longest_side_px=_SIDE_PX), np.float64) / 255
    lab = rgb2lab(pixels)
    lightness = lab[..., 0] / 100
    top, left = (max(1, round(_BORDER * side)) for side in lightness.shape)
    is_inner = np.zeros(lightness.shape, bool)
    is_inner[top:-top, left:-left] = True
    return np.array(
        [
            np.log(laplace(lightness).var() + 1e-6),
            lightness.mean(),
            lightness.std(),
            np.log(min(width, height)),
            *lab[~is_inner].mean(0),
            np.log(width / height),
        ]
    )


def attribute_traits(
    profiles: Sequence[Profile], names: Sequence[str] | None = None
) -> dict[str, Doubles]:
    """Attributes and metadata fields as numbers.

    A number stays a number; categories become one indicator column per value.

    Args:
        profiles: N people. An unknown number counts as the mean, an unknown category as none.
        names: Attributes to use; by default all numbers, and all attributes with at most 20
            distinct values.

    Returns:
        [N, p] by name. Attributes with fewer than two distinct values are left out.

    Raises:
        ConfigurationError: A name that no profile has.
    """
    facts = [_facts(profile) for profile in profiles]
    available = list(dict.fromkeys(name for row in facts for name in row))
    missing = [name for name in names or () if name not in available]
    if missing:
        raise ConfigurationError(
            f"No profile has the attribute {', '.join(map(repr, missing))}. Known: "
            f"{', '.join(available) or 'none'}."
        )
    traits = {}
    for name in available if names is None else names:
        values = [row.get(name) for row in facts]
        distinct = {value for value in values if value is not None}
        if len(distinct) < 2:
            continue
        if all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in distinct
        ):
            numbers = [np.nan if value is None else float(value) for value in values]
            traits[name] = _fill_missing(np.array(numbers)[:, None])
        elif names is not None or len(distinct) <= _MAX_CATEGORIES:
            categories = sorted(map(str, distinct))
            indicators = [[str(value) == category for category in categories] for value in values]
            traits[name] = np.array(indicators, np.float64)
    return traits


def _facts(profile: Profile) -> Mapping[str, Any]:
    """Metadata and attributes with scalar values; attributes take precedence."""
    metadata = {} if profile.metadata is None else dict(profile.metadata)
    return {
        name: value
        for name, value in {**metadata, **profile.attributes}.items()
        if isinstance(value, str | int | float | bool)
    }


def _fill_missing(rows: Doubles) -> Doubles:
    """Replaces NaN by the mean of its column, or by 0 if the whole column is missing."""
    missing = np.isnan(rows)
    present = np.maximum((~missing).sum(0), 1)
    means = np.where(missing, 0, rows).sum(0) / present
    return np.where(missing, means, rows)

"""Settings of a simulated log, and its people: traits, and what photos and texts show of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Ints, Vectors
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.progress import map_in_threads
from pairmatch.core.types import Side
from pairmatch.experiments.portraits import Looks, draw_portrait
from pairmatch.io.files import write_file

Doubles = npt.NDArray[np.float64]

_NULL_WORDS = ("NULL", "NA", "N/A", "None", "\\N", "nan", "")
_REGIONS = ("north", "south", "east", "west")
_LIFESTYLES = ("homebody", "calm", "balanced", "active", "always out")
_MUSIC = ("classical", "jazz", "folk", "pop", "techno")
_PHRASES = (
    ("I like quiet evenings.", "I like good company.", "I like loud parties."),
    ("Lakes and forests calm me.", "Weekends can be anything.", "The city never bores me."),
    ("I plan everything.", "I plan a little.", "I never plan."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What a simulated log is like. The defaults draw a small one in well under a second.

    Attributes:
        people_a: Number of people on side a, at least 2.
        people_b: Number of people on side b, at least 2.
        outcomes: Number of rows of the log, each a different pair of people.
        days: Length of the log.
        lifetime_days: Number of days for which a person is active after joining. People join every
            day, so that the number of active people is about constant.
        regions: Number of regions; people only meet people of their own region.
        traits: Number of latent traits of a person.
        taste: Standard deviation of the part of a like's log-odds that is unique to the two people.
        likeness: How far people want someone like themselves, in [0, 1]: correlation of a person's
            traits with those they want.
        attraction: Standard deviation of the part that all candidates' viewers share.
        choosiness: Standard deviation of the part that all of a viewer's decisions share.
        exposure: Standard deviation of the logarithm of how often a person is shown. Attractive
            people are shown more often, as feeds do.
        yes_share: Share of the viewers' decisions that are yes, in (0, 1).
        answer_share: Share of the likes that the other side answers.
        taste_drift: Angle in degrees by which tastes turn over the whole log; 90 is another taste.
        people_drift: Change of the mean of each trait between the first and the last people who
            join, in standard deviations.
        feature_width: Width of the features in which traits can be seen.
        noise: Noise of features, attributes and texts, in standard deviations of a trait.
        null_share: Share of attribute cells that are missing, written as words such as `NULL`.
    """

    people_a: int = 600
    people_b: int = 600
    outcomes: int = 8_000
    days: int = 90
    lifetime_days: int = 30
    regions: int = 3
    traits: int = 6
    taste: float = 2.0
    likeness: float = 0.6
    attraction: float = 0.7
    choosiness: float = 0.7
    exposure: float = 1.0
    yes_share: float = 0.4
    answer_share: float = 0.8
    taste_drift: float = 0.0
    people_drift: float = 0.0
    feature_width: int = 16
    noise: float = 0.3
    null_share: float = 0.03

    def __post_init__(self) -> None:
        """Raises ConfigurationError that names every value out of range."""
        least = {"people_a": 2, "people_b": 2}
        counts = ("outcomes", "days", "lifetime_days", "regions", "traits", "feature_width")
        least |= dict.fromkeys(counts, 1)
        problems = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in least:
                if value < least[field.name]:
                    problems.append(f"{field.name} must be at least {least[field.name]}: {value}")
            elif field.name == "yes_share":
                if not 0 < value < 1:
                    problems.append(f"yes_share must be in (0, 1): {value}")
            elif field.name.endswith("_share") or field.name == "likeness":
                if not 0 <= value <= 1:
                    problems.append(f"{field.name} must be in [0, 1]: {value}")
            elif not np.isfinite(value) or (value < 0 and not field.name.endswith("_drift")):
                problems.append(f"{field.name} must be a number of at least 0: {value}")
        if problems:
            raise ConfigurationError(f"`LogSettings(...)`: {'; '.join(problems)}.")


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """People of one side. N people with T traits.

    Attributes:
        ids: Ids, N of them.
        traits: [N, T] float64, standard normal unless people drift.
        popularity: [N] float64, standard normal: how attractive a person is to everyone.
        mildness: [N] float64, standard normal: how readily a person says yes.
        activity: [N] float64 above 0: how often a person opens the app.
        joined: [N] float64 days since the start of the log, below 0 for people who were there.
        region: [N] int64 number of the region.
        region_names: Names of all regions.
        visible: [N, T] float64 noisy traits, scaled to a standard deviation of 1, which texts,
            attributes and photos show.
        features: [N, D] float32 features in which traits can be seen.
    """

    ids: tuple[str, ...]
    traits: Doubles
    popularity: Doubles
    mildness: Doubles
    activity: Doubles
    joined: Doubles
    region: Ints
    region_names: tuple[str, ...]
    visible: Doubles
    features: Vectors

    def __len__(self) -> int:
        """Number of people."""
        return len(self.ids)


def draw_people(
    rng: np.random.Generator, side: Side, count: int, settings: LogSettings, mixing: Doubles
) -> People:
    """Draws the people of one side, in the order in which they join.

    Args:
        rng: Source of everything random.
        side: Side.
        count: Number of people N.
        settings: What the log is like.
        mixing: [T, D] features that each trait adds.
    """
    joined = np.sort(rng.uniform(-settings.lifetime_days, settings.days, count))
    progress = (joined + settings.lifetime_days) / (settings.days + settings.lifetime_days)
    traits = rng.normal(size=(count, settings.traits))
    traits += settings.people_drift * progress[:, None]
    scale = np.sqrt(1 + settings.noise**2)
    features = traits @ mixing
    features += settings.noise * rng.normal(size=features.shape)
    digits = len(str(count - 1))
    names = [*_REGIONS, *(f"region {number}" for number in range(4, settings.regions))]
    return People(
        ids=tuple(f"{side}{row:0{digits}d}" for row in range(count)),
        traits=traits,
        popularity=rng.normal(size=count),
        mildness=rng.normal(size=count),
        activity=np.exp(rng.normal(size=count)),
        joined=joined,
        region=rng.integers(settings.regions, size=count),
        region_names=tuple(names[: settings.regions]),
        visible=(traits + settings.noise * rng.normal(size=traits.shape)) / scale,
        features=features.astype(np.float32),
    )


def person_columns(
    people: People,
    null_share: float,
    *,
    seed: Sequence[int],
    words: bool,
    portraits: tuple[Path, int] | None,
) -> dict[str, list[Any]]:
    """The columns of a profiles table.

    Args:
        people: N people.
        null_share: Share of attribute cells that are missing.
        seed: Seed for missing cells and for the portraits.
        words: Whether missing cells are words such as `NULL`; otherwise they are None.
        portraits: Folder for `images/` and side of the portraits in pixels; None for no photos.
    """
    rng = np.random.default_rng(seed)
    traits = people.visible[:, np.arange(8) % people.visible.shape[1]]
    levels = np.clip(np.floor((traits + 1.5) / 0.6), 0, 4).astype(int)  # five, about equal
    tones = np.clip(np.floor(traits / 0.9 + 1.5), 0, 2).astype(int)
    attributes: dict[str, list[Any]] = {
        "age": np.clip(np.round(34 + 8 * traits[:, 0]), 18, 90).astype(int).tolist(),
        "height_cm": np.clip(np.round(172 + 9 * traits[:, 1]), 140, 215).astype(int).tolist(),
        "lifestyle": [_LIFESTYLES[level] for level in levels[:, 2]],
        "music": [_MUSIC[level] for level in levels[:, 3]],
        "children": (traits[:, 4] > 0.5).tolist(),
    }
    for cells in attributes.values():
        chosen = rng.integers(len(_NULL_WORDS), size=len(people)).tolist()
        for row in np.flatnonzero(rng.random(len(people)) < null_share).tolist():
            cells[row] = _NULL_WORDS[chosen[row]] if words else None
    columns: dict[str, list[Any]] = {"id": list(people.ids)}
    if portraits is not None:
        columns["image"] = _draw_portraits(people, rng, *portraits)
    columns["text"] = [
        " ".join(_PHRASES[number][tone] for number, tone in enumerate(row))
        for row in tones[:, [5, 0, 2]].tolist()
    ]
    regions = [people.region_names[region] for region in people.region.tolist()]
    return columns | attributes | {"region": regions}


def _draw_portraits(
    people: People, rng: np.random.Generator, folder: Path, size_px: int
) -> list[str]:
    """Draws everyone: two pairs of traits are the colors of clothes and backdrop."""
    (folder / "images").mkdir(exist_ok=True)
    traits = people.visible[:, np.arange(5) % people.visible.shape[1]]
    hues = np.degrees(np.arctan2(traits[:, [1, 3]], traits[:, [0, 2]])) % 360
    names = [f"images/{person}.jpg" for person in people.ids]
    seeds = rng.integers(2**32, size=len(people)).tolist()
    jobs = zip(names, hues.tolist(), (traits[:, 4] > 0).tolist(), seeds, strict=True)

    def draw(job: tuple[str, list[float], bool, int]) -> None:
        name, (clothes, backdrop), stripes, seed = job
        portrait = draw_portrait(Looks(clothes, backdrop, stripes), seed, size_px)
        write_file(folder / name, portrait)

    map_in_threads(draw, list(jobs))
    return names

"""Simulates the log of a dating app, with the truth behind it: who likes whom, and how likely.

Use it to see what a method can recover from a log: the tastes of both sides, popularity and the
feed that decided who was shown are known, and so is the best possible ranking.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit

from pairmatch.core.arrays import Ints
from pairmatch.core.types import Pair, Profile, Side
from pairmatch.data import Pairs
from pairmatch.experiments.simulated_feed import shown_pairs
from pairmatch.experiments.simulated_people import (
    LogSettings,
    People,
    draw_people,
    person_columns,
)
from pairmatch.io.files import write_file
from pairmatch.io.spreadsheets import csv_bytes

Doubles = npt.NDArray[np.float64]

_START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_PROFILES = "profiles"
_LOG = "log"


@dataclass(frozen=True, eq=False)
class SimulatedLog:
    """A log and the truth behind it. N and M people, E rows in the order of time.

    Attributes:
        settings: What the log was drawn with.
        seed: Seed of the log.
        people_a: People of side a, with their traits and what can be seen of them.
        people_b: People of side b.
        pairs: [E, 2] int64 row of the person of each side.
        day: [E] float64 days since the start of the log.
        a_likes: [E] int8: 1 the person of side a said yes, 0 no, −1 they did not answer.
        b_likes: [E] int8 the same for side b.
        first: [E] int8: 0 if the person of side a saw the other first, 1 if that of side b did.
        tastes: [2, 2, T, T] by side: the matrix that maps traits to what is wanted, at the start
            and a quarter turn later.
        offset: [2] part of the log-odds that all decisions of a side share.
    """

    settings: LogSettings
    seed: int
    people_a: People
    people_b: People
    pairs: Ints
    day: Doubles
    a_likes: npt.NDArray[np.int8]
    b_likes: npt.NDArray[np.int8]
    first: npt.NDArray[np.int8]
    tastes: Doubles
    offset: Doubles

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.pairs)

    def __repr__(self) -> str:
        return (
            f"SimulatedLog({len(self):,} rows, {len(self.matches):,} matches, "
            f"{len(self.people_a):,} + {len(self.people_b):,} people, {self.settings.days} days)"
        )

    @cached_property
    def matches(self) -> Ints:
        """[number of matches, 2] int64 rows of people who both said yes."""
        return self.pairs[(self.a_likes == 1) & (self.b_likes == 1)]

    @cached_property
    def rejected(self) -> Ints:
        """[number of rejections, 2] int64 rows of people one of whom said no."""
        return self.pairs[(self.a_likes == 0) | (self.b_likes == 0)]

    @cached_property
    def times(self) -> list[datetime.datetime]:
        """Time of each row, in UTC, to the second."""
        seconds = np.floor(self.day * 86_400).astype(np.int64).tolist()
        return [_START + datetime.timedelta(seconds=second) for second in seconds]

    @property
    def start(self) -> datetime.datetime:
        """Time at which the log starts."""
        return _START

    def at_day(self, day: float) -> datetime.datetime:
        """The time `day` days after the start, to split by."""
        return _START + datetime.timedelta(days=day)

    def as_pairs(self) -> Pairs:
        """The people and pairs, as `Pairs.read` reads them from the Parquet files of `write`."""
        profiles = []
        for number in (0, 1):
            columns = self._people_columns(number, words=False)
            for row in _rows(columns):
                person, text = row.pop("id"), row.pop("text")
                known = {name: value for name, value in row.items() if value is not None}
                profiles.append(Profile(person, text=text, attributes=known))
        said = {1: True, 0: False, -1: None}
        pools = self._pools()
        pairs = [
            Pair(
                self.people_a.ids[a],
                self.people_b.ids[b],
                a_likes=said[a_likes],
                b_likes=said[b_likes],
                time=time,
                pool=pool,
            )
            for (a, b), a_likes, b_likes, time, pool in zip(
                self.pairs.tolist(),
                self.a_likes.tolist(),
                self.b_likes.tolist(),
                self.times,
                pools,
                strict=True,
            )
        ]
        return Pairs.of(profiles, pairs)

    def rows_of(self, pairs: Pairs) -> Ints:
        """[P, 2] int64 rows of the people of each match of some of these pairs."""
        rows = {
            person: row
            for side in (self.people_a, self.people_b)
            for row, person in enumerate(side.ids)
        }
        return np.array(
            [(rows[pair.a], rows[pair.b]) for pair in pairs.pairs if pair.outcome == "match"],
            np.int64,
        ).reshape(-1, 2)

    def like_probability(
        self, side: Side, a: npt.ArrayLike, b: npt.ArrayLike, day: npt.ArrayLike
    ) -> Doubles:
        """True probability that a person says yes to another who is shown to them.

        Args:
            side: Side of the person who decides.
            a: Rows of people of side a, of any shape.
            b: Rows of people of side b; broadcast with `a`.
            day: Days since the start of the log; broadcast with `a`.

        Returns:
            float64 probabilities of the broadcast shape.
        """
        odds = _log_odds(
            self.tastes, self.people_a, self.people_b, self.settings, side, (a, b, day)
        )
        return expit(odds + self.offset["ab".index(side)])

    def match_probability(self, a: npt.ArrayLike, b: npt.ArrayLike, day: npt.ArrayLike) -> Doubles:
        """True probability that two people who see each other both say yes."""
        return self.like_probability("a", a, b, day) * self.like_probability("b", a, b, day)

    def best_mrr(self, matches: Ints, day: float) -> float:
        """MRR of the best possible ranking, by the true probability of the match.

        All people who are in `matches` and in the query person's region are candidates; the mean is
        over the people of both sides.

        Args:
            matches: [P, 2] int64 rows of people who match, at least one.
            day: Day for which the probabilities hold.
        """
        rows = [np.unique(side) for side in matches.T]
        scores = self.match_probability(rows[0][:, None], rows[1][None, :], day)
        elsewhere = self.people_a.region[rows[0], None] != self.people_b.region[rows[1]]
        scores[elsewhere] = -np.inf
        partner = np.zeros(scores.shape, bool)
        partner[tuple(np.searchsorted(*both) for both in zip(rows, matches.T, strict=True))] = True
        ranks = []
        for score, mask in ((scores, partner), (scores.T, partner.T)):
            best = np.where(mask, score, -np.inf).max(1, keepdims=True)
            ranks.append(1 + (score > best).sum(1))
        return float((1 / np.concatenate(ranks)).mean())

    def write(
        self,
        folder: str | Path,
        *,
        format: Literal["csv", "parquet"] = "csv",
        photos: bool = False,
        size_px: int = 96,
    ) -> tuple[Path, Path]:
        """Writes what a warehouse would export: a table of people, and one of what they did.

        `profiles` has the columns `id`, `text`, `age`, `height_cm`, `lifestyle`, `music`,
        `children`, `region`, and `image` if photos are drawn. `log` has the columns `id_a`, `id_b`,
        `a_likes`, `b_likes`, `time` and `pool` (the region).

        Args:
            folder: Folder that receives the tables, and `images/`.
            format: `csv`, or `parquet` with declared types.
            photos: Whether to draw a portrait of each person, whose colors follow their traits.
            size_px: Side of the square portraits, at least 16.

        Returns:
            Paths to the log and to the profiles.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        portraits = (target, size_px) if photos else None
        first, second = (
            self._people_columns(number, words=format == "csv", portraits=portraits)
            for number in (0, 1)
        )
        profiles = {name: first[name] + second[name] for name in first}
        paths = (target / f"{_LOG}.{format}", target / f"{_PROFILES}.{format}")
        for path, table in zip(paths, (self._columns(format), profiles), strict=True):
            write_file(path, _table_bytes(table, format))
        return paths

    def _people_columns(
        self, number: int, *, words: bool, portraits: tuple[Path, int] | None = None
    ) -> dict[str, list[Any]]:
        return person_columns(
            (self.people_a, self.people_b)[number],
            self.settings.null_share,
            seed=[self.seed, 10 + number],
            words=words,
            portraits=portraits,
        )

    def _pools(self) -> list[str]:
        names = self.people_a.region_names
        return [names[region] for region in self.people_a.region[self.pairs[:, 0]].tolist()]

    def _columns(self, format: str) -> dict[str, list[Any]]:
        a, b = self.pairs.T.tolist()
        said: list[Any] = ["no", "yes", ""] if format == "csv" else [False, True, None]
        return {
            "id_a": [self.people_a.ids[row] for row in a],
            "id_b": [self.people_b.ids[row] for row in b],
            "a_likes": [said[like] for like in self.a_likes.tolist()],
            "b_likes": [said[like] for like in self.b_likes.tolist()],
            "time": [time.isoformat() for time in self.times] if format == "csv" else self.times,
            "pool": self._pools(),
        }


def simulate_log(settings: LogSettings | None = None, *, seed: int = 0) -> SimulatedLog:
    """Draws an app's log of likes, with tastes, popularity and a feed.

    A person of side a with the traits x (standard normal) says yes to a person of side b with the
    traits y with the log-odds c + s xᵀQy / √T + attraction + choosiness, and the reverse with a
    taste of their own. Q is partly the identity (people want others like themselves) and partly a
    random rotation, and turns with time if tastes drift. The feed shows people
    of the viewer's region who are active, popular ones more often. A viewer's yes is answered by
    the other side, or stays open; after a no, the other side is not asked.

    Args:
        settings: What the log is like; None for the defaults.
        seed: Seed for everything random; equal seeds draw equal logs.

    Raises:
        ConfigurationError: There are too few people in each region for so many outcomes.
    """
    chosen = LogSettings() if settings is None else settings
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(chosen.traits, chosen.feature_width)) / np.sqrt(chosen.traits)
    a = draw_people(rng, "a", chosen.people_a, chosen, mixing)
    b = draw_people(rng, "b", chosen.people_b, chosen, mixing)
    tastes = np.stack([[_orthogonal(rng, chosen.traits) for _ in range(2)] for _ in range(2)])
    alike = chosen.likeness * np.eye(chosen.traits)
    tastes[:, 0] = alike + np.sqrt(1 - chosen.likeness**2) * tastes[:, 0]
    pairs, day, first = shown_pairs(rng, a, b, chosen)
    shown = (pairs[:, 0], pairs[:, 1], day)
    log_odds = np.stack([_log_odds(tastes, a, b, chosen, side, shown) for side in ("a", "b")])
    offset = np.array(
        [_offset(values[first == side], chosen.yes_share) for side, values in enumerate(log_odds)]
    )
    likes = (rng.random(log_odds.shape) < expit(log_odds + offset[:, None])).astype(np.int8)
    rows = np.arange(len(pairs))
    unanswered = (likes[first, rows] == 0) | (rng.random(len(pairs)) >= chosen.answer_share)
    likes[1 - first[unanswered], rows[unanswered]] = -1
    return SimulatedLog(
        chosen, seed, a, b, pairs, day, likes[0], likes[1], first.astype(np.int8), tastes, offset
    )


def _orthogonal(rng: np.random.Generator, size: int) -> Doubles:
    q, r = np.linalg.qr(rng.normal(size=(size, size)))
    return q * np.sign(np.diag(r))


def _log_odds(
    tastes: Doubles,
    people_a: People,
    people_b: People,
    settings: LogSettings,
    side: Side,
    shown: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike],
) -> Doubles:
    """Log-odds of a yes, without the part that all decisions share."""
    a, b, day = np.broadcast_arrays(*shown)
    viewers, candidates = (people_a, people_b) if side == "a" else (people_b, people_a)
    viewer, candidate = (a, b) if side == "a" else (b, a)
    angle = np.radians(settings.taste_drift) * day / settings.days
    wanted = [(viewers.traits @ taste)[viewer] for taste in tastes["ab".index(side)]]
    seen = candidates.traits[candidate]
    start, later = (np.einsum("...t,...t->...", wish, seen) for wish in wanted)
    unique = (np.cos(angle) * start + np.sin(angle) * later) / np.sqrt(settings.traits)
    return (
        settings.taste * unique
        + settings.attraction * candidates.popularity[candidate]
        + settings.choosiness * viewers.mildness[viewer]
    )


def _offset(log_odds: Doubles, share: float) -> float:
    """The number that makes a share of the decisions a yes."""
    if not len(log_odds):
        return float(logit(share))
    reach = float(np.abs(log_odds).max()) + 50
    return float(brentq(lambda offset: expit(log_odds + offset).mean() - share, -reach, reach))


def _table_bytes(columns: dict[str, list[Any]], format: str) -> bytes:
    if format == "csv":
        return csv_bytes(list(columns), _rows(columns))
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def _rows(columns: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for cells in zip(*columns.values(), strict=True):
        yield dict(zip(columns, cells, strict=True))

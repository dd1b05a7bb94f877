"""What else to ask of a ranking: more pairs, hubs, calibrated probabilities, slices of people, and shortcuts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.special import expit, logit

from pairmatch import registry
from pairmatch.config import PartSpec
from pairmatch.crossvalidation import CrossValidation, Split, cross_validation_splits, frame, measure, progress_bar
from pairmatch.errors import ConfigurationError
from pairmatch.intervals import Metrics, expanded_tail, summaries
from pairmatch.metrics import Floats, Ints, QueryMetrics, unit_rows
from pairmatch.paired import PairedFeatures

SMALL_SLICE = 30
_CHUNK_ROWS = 1024


# Learning curve


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Metrics by number of training pairs, on the same test people throughout; `print` says what more would give.

    Attributes:
        pairs: [S] mean number of training pairs (with those that early stopping looks at), rising.
        metrics: One per size.
        slope: MRR gained by each doubling of the pairs: a straight line in log₂ pairs through all sizes.
        slope_interval: (low, high) of it, over people.
        confidence: Of intervals.
    """

    pairs: tuple[float, ...]
    metrics: tuple[Metrics, ...]
    slope: float
    slope_interval: tuple[float, float]
    confidence: float

    def gain(self, more: int) -> tuple[float, float, float]:
        """MRR that so many more pairs would give, if the line goes on: (expected, low, high)."""
        doublings = float(np.log2((self.pairs[-1] + more) / self.pairs[-1]))
        low, high = self.slope_interval
        return self.slope * doublings, low * doublings, high * doublings

    def __str__(self) -> str:
        now, more = self.metrics[-1].mrr, 200
        expected, low, high = self.gain(more)
        return (
            f"With {self.pairs[-1]:.0f} training pairs MRR is {now:.3f}. {more} more would change it by {expected:+.3f} "
            f"({100 * self.confidence:g} % interval {low:+.3f} to {high:+.3f}), if it goes on as from "
            f"{self.pairs[0]:.0f} to {self.pairs[-1]:.0f} pairs."
        )


def learning_curve(
    data: PairedFeatures,
    method: PartSpec = "trained",
    *,
    shares: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    repeats: int = 2,
    folds: int = 5,
    ks: Sequence[int] = (10,),
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool = False,
) -> LearningCurve:
    """Trains on growing shares of the training pairs and tests on the same people each time.

    Args:
        data: Features and pairs.
        method: What is trained.
        shares: Of the training components, in (0, 1], at least two.
        repeats: Of cross-validation.
        folds: Of cross-validation.
        ks: K of Recall@K, where the galleries are large enough.
        confidence: Of intervals.
        seed: Of everything drawn.
        progress: Shows a progress bar.

    Raises:
        ConfigurationError: Shares out of range.
    """
    sizes = sorted(set(shares))
    if len(sizes) < 2 or sizes[0] <= 0 or sizes[-1] > 1:
        raise ConfigurationError(f"`shares` must be at least two different numbers in (0, 1], got {list(shares)}.")
    splits = cross_validation_splits(data, repeats=repeats, folds=folds, seed=seed)
    smallest = min(
        min(len(t.a), len(t.a if t.b is None else t.b)) for t in (data.of_components(s.test) for s in splits)
    )
    cuts = tuple(k for k in sorted(set(ks)) if k < smallest) or (1,)
    columns, _ = frame(data, splits, cuts)
    built = registry.create("methods", method)
    values, counts = [], []
    with progress_bar(progress) as bar:
        task = bar.add_task("Learning curve", total=len(sizes) * len(splits))
        for share in sizes:
            smaller = [_share_of(data, split, share, seed) for split in splits]
            counts.append(float(np.mean([np.isin(data.components, split.train).sum() for split in smaller])))
            values.append(measure(data, built, smaller, cuts, seed=seed, on_split=lambda: bar.advance(task)))
    tail = (1 - confidence) / 2
    labels = columns["component"]
    metrics = tuple(summaries([_rows(v, columns["query"])], [labels], cuts, 1000, tail, seed)[0] for v in values)
    # Slope of each cluster's mean over log2 pairs, so that people are resampled as wholes
    x = np.log2(counts)
    weights = (x - x.mean()) / np.square(x - x.mean()).sum()
    per_query = np.tensordot(weights, np.stack([v[:, -2] for v in values]), 1)
    _, label, size = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.bincount(label, per_query)
    found = stats.bootstrap(
        (sums, size.astype(float)),
        lambda s, n, axis=-1: s.sum(axis) / n.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=2000,
        batch=500,
        confidence_level=1 - 2 * expanded_tail(tail, len(size)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    interval = (float(found.low), float(found.high))
    return LearningCurve(tuple(counts), metrics, float(sums.sum() / size.sum()), interval, confidence)


def _share_of(data: PairedFeatures, split: Split, share: float, seed: int) -> Split:
    """A split with a share of its training components, nested: a smaller share is part of a larger one."""
    order = np.random.default_rng([seed, split.repeat, split.fold]).permutation(split.train)
    return Split(split.repeat, split.fold, order[: max(2, round(share * len(order)))], split.test)


def _rows(values: npt.NDArray[np.float64], queries: Ints) -> QueryMetrics:
    blank = np.zeros(len(queries))
    return QueryMetrics(queries, values[:, :-2], values[:, -2], values[:, -1], values[:, :-2], blank, blank)


# Hubness


@dataclass(frozen=True, slots=True)
class Hubness:
    """How evenly recommendations fall on candidates of one direction.

    Attributes:
        k: Length of the lists.
        skewness: Of how often each candidate is among somebody's first k (Radovanović et al. 2010); 0 is even.
        never: Share of candidates who are in nobody's list.
        gini: Of exposure, 0 (all alike) to 1.
        counts: [candidates] int64, lists that each candidate is in.
    """

    k: int
    skewness: float
    never: float
    gini: float
    counts: Ints

    def __str__(self) -> str:
        return (
            f"{100 * self.never:.0f} % of candidates are in nobody's first {self.k}; exposure Gini {self.gini:.2f}, "
            f"skewness {self.skewness:.1f}"
        )


def hubness(queries: Floats, candidates: Floats, *, k: int = 10, same: bool = False) -> Hubness:
    """Counts how often each candidate is among a query's first k.

    Args:
        queries: [N, K] unit length.
        candidates: [M, K] unit length.
        k: Length of the lists, below M.
        same: Queries are the candidates, row by row: nobody is recommended to themself.

    Raises:
        ConfigurationError: A k that is not below the number of candidates.
    """
    if not 1 <= k < len(candidates):
        raise ConfigurationError(f"`hubness(k=...)` must be from 1 to below {len(candidates)} candidates, got {k}.")
    counts = np.zeros(len(candidates), np.int64)
    for start in range(0, len(queries), _CHUNK_ROWS):
        scores = queries[start : start + _CHUNK_ROWS] @ candidates.T
        if same:
            own = np.arange(len(scores))
            scores[own, start + own] = -np.inf
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        counts += np.bincount(best.ravel(), minlength=len(candidates))
    skewness = float(stats.skew(counts)) if np.ptp(counts) else 0.0
    return Hubness(k, skewness, float((counts == 0).mean()), gini(counts), counts)


def gini(values: Floats | Ints) -> float:
    """Gini coefficient of values that are not negative: 0 where all are alike, towards 1 where one has everything."""
    ordered = np.sort(np.asarray(values, np.float64))
    total = ordered.sum()
    if total <= 0:
        return 0.0
    ranks = np.arange(1, len(ordered) + 1)
    return float((2 * ranks - len(ordered) - 1) @ ordered / (len(ordered) * total))


# Calibration


@dataclass(frozen=True, slots=True)
class Calibration:
    """From a score to the probability of a match, fitted on people whom training never saw.

    The probability is that of a match with a candidate drawn from a gallery of the size that it was fitted on; for
    another size, prior odds are shifted.

    Attributes:
        kind: `platt` or `isotonic`.
        base_rate: Share of matches among the scores it was fitted on.
        x: Platt: slope and intercept. Isotonic: scores, rising.
        y: Isotonic: probabilities at `x`. Platt: empty.
    """

    kind: Literal["platt", "isotonic"]
    base_rate: float
    x: tuple[float, ...]
    y: tuple[float, ...] = ()

    def probability(self, scores: Floats | Sequence[float], *, base_rate: float | None = None) -> Floats:
        """[…] float64 in [0, 1]: the chance of a match at each score.

        Args:
            scores: Cosines.
            base_rate: Share of matches among the pairs at hand, where it differs from that of the fit.
        """
        values = np.asarray(scores, np.float64)
        if self.kind == "platt":
            log_odds = self.x[0] * values + self.x[1]
        else:
            with np.errstate(divide="ignore"):
                log_odds = logit(np.interp(values, self.x, self.y))
        if base_rate is not None:
            log_odds = log_odds + logit(base_rate) - logit(self.base_rate)
        return expit(log_odds)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `Calibration(**values)` after JSON gives the same."""
        return {"kind": self.kind, "base_rate": self.base_rate, "x": list(self.x), "y": list(self.y)}


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well probabilities agree with what happened, on pairs that neither training nor calibration saw.

    Attributes:
        predicted: [bins] mean probability of each bin; bins hold equally many pairs of equal standing.
        observed: [bins] share of matches.
        counts: [bins] pairs.
        expected_calibration_error: Mean distance of the two, weighted by pairs (Naeini et al. 2015).
        brier_score: Mean squared error of the probabilities.
    """

    predicted: npt.NDArray[np.float64]
    observed: npt.NDArray[np.float64]
    counts: Ints
    expected_calibration_error: float
    brier_score: float


def calibrate(
    scores: Floats, is_match: npt.NDArray[np.bool_], *, kind: Literal["platt", "isotonic"] = "platt"
) -> Calibration:
    """Fits Platt scaling (Platt 1999) or isotonic regression (Zadrozny and Elkan 2002) by scikit-learn.

    Args:
        scores: [n] of pairs, matches and others, of held-out people.
        is_match: [n] bool.
        kind: `platt` for few matches, `isotonic` from about a thousand.

    Raises:
        ConfigurationError: No match, or nothing but matches.
    """
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    values, truth = np.asarray(scores, np.float64).ravel(), np.asarray(is_match, bool).ravel()
    if len(values) != len(truth) or truth.all() or not truth.any():
        raise ConfigurationError("`calibrate` needs scores of matches and of others, one truth each.")
    rate = float(truth.mean())
    if kind == "platt":
        scale = max(float(values.std()), 1e-9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            fitted = LogisticRegression(C=1e6).fit((values / scale)[:, None], truth)
        return Calibration("platt", rate, (float(fitted.coef_[0, 0]) / scale, float(fitted.intercept_[0])))
    if kind != "isotonic":
        raise ConfigurationError(f"`calibrate(kind=...)` is 'platt' or 'isotonic', got {kind!r}.")
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(values, truth)
    x, y = curve.X_thresholds_, curve.y_thresholds_
    return Calibration("isotonic", rate, tuple(map(float, x)), tuple(map(float, y)))


def reliability(probabilities: Floats, is_match: npt.NDArray[np.bool_], *, bins: int = 10) -> Reliability:
    """Compares probabilities with outcomes in bins of equally many pairs.

    Args:
        probabilities: [n] in [0, 1].
        is_match: [n] bool.
        bins: Most bins.
    """
    predicted, truth = np.asarray(probabilities, np.float64).ravel(), np.asarray(is_match, bool).ravel()
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    means = np.array([predicted[part].mean() for part in parts])
    shares = np.array([truth[part].mean() for part in parts])
    counts = np.array([len(part) for part in parts])
    error = float(np.average(np.abs(means - shares), weights=counts))
    return Reliability(means, shares, counts, error, float(np.square(predicted - truth).mean()))


def pair_scores(
    e_a: Floats, e_b: Floats | None, matches: Ints, rejected: Ints | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Scores of all pairs of a set and which are matches: what calibration is fitted on. [pairs] each.

    Args:
        e_a: [N, K] unit length.
        e_b: [M, K]; None for one-sided sets, where every pair of people counts once.
        matches: [P, 2] rows.
        rejected: Not used to fit: a known refusal is a pair like any other.
    """
    del rejected
    other = e_a if e_b is None else e_b
    scores = e_a @ other.T
    truth = np.zeros(scores.shape, bool)
    truth[matches[:, 0], matches[:, 1]] = True
    if e_b is None:
        truth |= truth.T
        above = np.triu_indices(len(e_a), 1)
        return scores[above], truth[above]
    return scores.ravel(), truth.ravel()


# Slices


@dataclass(frozen=True, slots=True)
class Slice:
    """Metrics of the people who share a value; `small` where they are too few to say much."""

    attribute: str
    value: str
    metrics: Metrics
    small: bool


def slices(
    result: CrossValidation,
    method: str,
    attribute: str,
    values_a: Sequence[Any],
    values_b: Sequence[Any] | None = None,
    *,
    bins: int = 4,
    resamples: int = 1000,
) -> list[Slice]:
    """Metrics by a value of the person who asks, with intervals.

    Args:
        result: Of cross-validation.
        method: One of its methods.
        attribute: Name, for the table.
        values_a: One per row of side a; None where it is not known.
        values_b: One per row of side b; the same as `values_a` in one-sided sets.
        bins: Numbers with more different values than this are cut at their quantiles.
        resamples: Of intervals.

    Raises:
        ConfigurationError: Values that do not reach as far as the rows of the people.
    """
    index = result.methods.index(method) if method in result.methods else None
    if index is None:
        raise ConfigurationError(f"{method!r} is not among {', '.join(result.methods)}.")
    sides = (list(values_a), list(values_a if values_b is None else values_b))
    queries, directions = result.columns["query"], result.columns["direction"]
    for direction, known in enumerate(sides):
        if len(known) <= queries[directions == direction].max(initial=-1):
            raise ConfigurationError(f"The values of {attribute!r} must be one per person of side {'ab'[direction]}.")
    own = [sides[d][q] for d, q in zip(directions.tolist(), queries.tolist(), strict=True)]
    names = _labels(own, bins)
    found = []
    for name in sorted({n for n in names if n is not None}, key=_natural):
        rows = np.array([n == name for n in names])
        people = len(np.unique(queries[rows] * 2 + directions[rows]))
        measured = _rows(result.values[index][rows], queries[rows])
        tail = (1 - result.confidence) / 2
        line = summaries([measured], [result.columns["component"][rows]], result.ks, resamples, tail, result.seed)[0]
        found.append(Slice(attribute, name, line, people < SMALL_SLICE))
    return found


def _labels(values: Sequence[Any], bins: int) -> list[str | None]:
    known = [v for v in values if v is not None and v == v]
    numeric = bool(known) and all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in known)
    if not numeric or len(set(known)) <= bins:
        return [None if v is None or v != v else str(v) for v in values]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)))
    names = [f"{low:g} to {high:g}" for low, high in zip(edges[:-1], edges[1:], strict=True)]
    return [
        None if v is None or v != v else names[min(int(np.searchsorted(edges, v, side="right")) - 1, len(names) - 1)]
        for v in values
    ]


def _natural(name: str) -> tuple[int, float, str]:
    head = name.split(" to ")[0]
    try:
        return 0, float(head), name
    except ValueError:
        return 1, 0.0, name


# Shortcuts


@dataclass(frozen=True, slots=True)
class Shortcut:
    """What a simple trait of photos or people explains of a ranking.

    Attributes:
        name: Of the trait.
        alone: Metrics of ranking by this trait alone (a ridge map learned on it).
        explained: Share of what the scores say about who goes with whom that products of the trait's values explain,
            beyond what as many random numbers would; 0 to 1.
    """

    name: str
    alone: Metrics
    explained: float


def explained_share(scores: Floats, trait_a: Floats, trait_b: Floats) -> float:
    """Share of the interaction in a score matrix that is bilinear in a trait, corrected for the trait's width.

    Rows and columns of the scores are centred first: what is left is who goes with whom, popularity aside. The
    correction is that of adjusted R².

    Args:
        scores: [N, M].
        trait_a: [N, p].
        trait_b: [M, p].
    """
    inner = np.asarray(scores, np.float64)
    inner = inner - inner.mean(0, keepdims=True) - inner.mean(1, keepdims=True) + inner.mean()
    total = np.square(inner).sum()
    if total <= 0:
        return 0.0
    left, right = _orthonormal(trait_a), _orthonormal(trait_b)
    share = np.square(left.T @ inner @ right).sum() / total
    freedom = (inner.shape[0] - 1) * (inner.shape[1] - 1)
    chance = left.shape[1] * right.shape[1] / freedom
    return float(np.clip((share - chance) / max(1 - chance, 1e-12), 0, 1))


def _orthonormal(trait: Floats) -> npt.NDArray[np.float64]:
    values = np.asarray(trait, np.float64)
    values = values - values.mean(0)
    u, singular, _ = np.linalg.svd(values, full_matrices=False)
    return u[:, singular > max(singular.max(initial=0), 1e-300) * 1e-9]


def shortcuts(
    data: PairedFeatures,
    traits: Mapping[str, tuple[Floats, Floats | None]],
    method: PartSpec = "trained",
    *,
    repeats: int = 2,
    folds: int = 5,
    seed: int = 0,
    progress: bool = False,
) -> list[Shortcut]:
    """How much of a method's ranking of unseen people simple traits explain, alone and as a share of its scores.

    Args:
        data: Features and pairs.
        traits: By name, values [N, p] of side a and [M, p] of side b (None in one-sided sets), such as
            `pairmatch.traits.photo_traits` measures them.
        method: Whose scores are to be explained.
        repeats: Of cross-validation.
        folds: Of cross-validation.
        seed: Of splits and methods.
        progress: Shows a progress bar.
    """
    splits = cross_validation_splits(data, repeats=repeats, folds=folds, seed=seed)
    built = registry.create("methods", method)
    ks = (1,)
    sets = {
        name: PairedFeatures(
            _standardised(a),
            None if b is None else _standardised(b),
            data.matches,
            data.rejected,
            data.components,
            data.rejected_components,
        )
        for name, (a, b) in traits.items()
    }
    columns, _ = frame(data, splits, ks)
    shares: dict[str, list[float]] = {name: [] for name in sets}
    with progress_bar(progress) as bar:
        task = bar.add_task("Looking for shortcuts", total=len(splits) + len(sets))
        for split in splits:
            test = data.of_components(split.test)
            project = built.fit(data.of_components(split.train), seed=seed + split.repeat)
            scores = project(test.a, "a") @ project(test.a if test.b is None else test.b, "b").T
            for name, other in sets.items():
                trait = other.of_components(split.test)
                shares[name].append(explained_share(scores, trait.a, trait.a if trait.b is None else trait.b))
            bar.advance(task)
        found = []
        for name, other in sets.items():
            values = measure(other, registry.create("methods", ("ridge", {})), splits, ks, seed=seed)
            line = summaries([_rows(values, columns["query"])], [columns["component"]], ks, 1000, 0.025, seed)[0]
            found.append(Shortcut(name, line, float(np.mean(shares[name]))))
            bar.advance(task)
    return found


def _standardised(values: Floats) -> npt.NDArray[np.float32]:
    """Unit variance in each column, and a constant column, so that length is not lost to normalisation."""
    rows = np.asarray(values, np.float64)
    rows = (rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-9)
    return unit_rows(np.column_stack([rows, np.ones(len(rows))]))

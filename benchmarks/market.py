"""Benchmarks of balanced slates: synthetic markets, real pairs, scaling, and a docs figure.

    python benchmarks/market.py paper
    python benchmarks/market.py real furniture.npz [lookalikes.npz …]
    python benchmarks/market.py scale 10000 20000 40000
    python benchmarks/market.py figure docs/market.svg

The files of `real` hold the arrays a and b, [pairs, D] each, and optionally group, [pairs].

The paper is Tomita and Yokoyama, "Fair Reciprocal Recommendation in Matching Markets" (RecSys
2024). Markets are generated as in the authors' code: individual tastes, uniform in [0, 1], are
mixed with a popularity that falls linearly from 1 to 0, with weight λ.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np

from pairmatch.core.arrays import unit_rows
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.diagnostics import gini
from pairmatch.evaluation.splits import cross_validation_splits
from pairmatch.learning.baselines import Frozen, Whitened
from pairmatch.learning.contrastive import Contrastive
from pairmatch.market import balance, csls, inverted_softmax, outcome


def ranked(scores, k=None):
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def paper_market(n, m, weight, seed):
    rng = np.random.default_rng(seed)
    likes_a = (1 - weight) * rng.random((n, m)) + weight * np.linspace(1, 0, m)
    likes_b = (1 - weight) * rng.random((m, n)) + weight * np.linspace(1, 0, n)
    return likes_a, likes_b


def policies(likes_a, likes_b, temperature):
    """Returns the slates of both sides for each policy."""
    both = likes_a * likes_b.T
    balanced = balance(
        both, np.eye(both.shape[1]), temperature=temperature, tolerance=1e-3, max_iterations=5000
    )
    return {
        "naive": (ranked(likes_a), ranked(likes_b)),
        "product": (ranked(both), ranked(both.T)),
        "balanced": (ranked(both + balanced.bonus_b), ranked(both.T + balanced.bonus_a)),
    }


def paper(markets=10, temperature=0.05):
    print(f"{markets} markets each, temperature {temperature}")
    print("| N × M | v(r) | λ | policy | matches | Gini of exposure a / b | envy a / b |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for n, m in ((50, 50), (75, 50), (200, 200)):
        for kind in ("inverse", "log"):
            for weight in (0.2, 0.5, 0.8):
                results = {}
                for seed in range(markets):
                    p, q = paper_market(n, m, weight, seed)
                    for name, (slates_a, slates_b) in policies(p, q, temperature).items():
                        result = outcome(
                            slates_a,
                            slates_b,
                            lambda i, j, p=p, q=q: (p[i, j], q[j, i]),
                            examination_kind=kind,
                        )
                        values = (result.matches, *result.gini, *result.envy)
                        results.setdefault(name, []).append(values)
                examination = "1 / r" if kind == "inverse" else "1 / log2(r + 1)"
                for name, rows in results.items():
                    mean = np.mean(rows, axis=0)
                    print(
                        f"| {n} × {m} | {examination} | {weight} | {name} | {mean[0]:.1f} | "
                        f"{mean[1]:.3f} / {mean[2]:.3f} | {mean[3]:.2f} / {mean[4]:.2f} |",
                        flush=True,
                    )


def real(files, repeats=5, folds=5, ks=(5, 10, 20)):
    """Prints R@K of test pairs in both directions for each correction.

    The bank of CSLS and inverted softmax contains only the training queries.
    """
    for file in files:
        arrays = np.load(file)
        groups = arrays["group"].tolist() if "group" in arrays else None
        data = PairedFeatures.of(arrays["a"], arrays["b"], groups=groups)
        if groups is None and len(data) > 495:
            data = data.take(data.part(np.random.default_rng(0).permutation(len(data))[:495]))
        print(f"{file}: {len(data)} pairs, {repeats} × {folds} folds")
        for learner in (Frozen(), Whitened(), Contrastive()):
            hits = {}
            exposure = {}
            for repeat in range(repeats):
                splits = cross_validation_splits(data, repeats=1, folds=folds, seed=repeat)
                for number, split in enumerate(splits):
                    train = data.take(split.train)
                    test = data.take(split.test)
                    embed = learner.fit(train, seed=repeat).head.embed
                    for name, ranks, shown in corrected_ranks(embed, train, test):
                        values = [(ranks < k).mean(0) for k in ks] + [(1 / (ranks + 1)).mean(0)]
                        fold = (np.unique(test.components), test.components, np.stack(values, 1))
                        hits.setdefault(name, {})[repeat, number] = fold
                        exposure.setdefault(name, []).append(gini(shown))
            _print_real(type(learner).__name__, hits, exposure, ks)


def corrected_ranks(embed, train, test):
    """Yields the name, the ranks of the test pairs [2, pairs], and the exposure of side b."""
    a = embed(test.a, "a")
    b = embed(test.b, "b")
    bank_a = embed(train.a, "a")
    bank_b = embed(train.b, "b")
    balanced = balance(a, b, temperature=0.05, tolerance=1e-3, max_iterations=5000)
    corrections = {
        "plain": (0, 0),
        "CSLS": (csls(a, bank_b), csls(b, bank_a)),
        "inverted softmax": (inverted_softmax(a, bank_b), inverted_softmax(b, bank_a)),
        "balanced": (balanced.bonus_a, balanced.bonus_b),
    }
    scores = a @ b.T
    i, j = test.matches.T
    for name, (bonus_a, bonus_b) in corrections.items():
        forward = scores + bonus_b
        backward = scores.T + bonus_a
        ranks_b = (forward[i] > forward[i, j][:, None]).sum(1)
        ranks_a = (backward[j] > backward[j, i][:, None]).sum(1)
        shown = np.bincount(ranked(forward, 10).ravel(), minlength=len(b))
        yield name, np.stack([ranks_b, ranks_a]), shown


def _print_real(learner, hits, exposure, ks):
    """Prints means over pairs, with bootstrap intervals of the difference from plain.

    The bootstrap resamples groups of connected pairs.
    """
    means = {}
    for name, parts in hits.items():
        sums = {}
        counts = {}
        for _, components, values in parts.values():
            for component, row in zip(components.tolist(), values, strict=True):
                sums[component] = sums.get(component, 0) + row
                counts[component] = counts.get(component, 0) + 1
        order = sorted(sums)
        means[name] = np.array([sums[c] for c in order]), np.array([counts[c] for c in order])
    rng = np.random.default_rng(0)
    size = len(means["plain"][1])
    draws = rng.multinomial(size, np.full(size, 1 / size), 1000)
    plain = draws @ means["plain"][0] / (draws @ means["plain"][1])[:, None]
    for name, (totals, counts) in means.items():
        mean = totals.sum(0) / counts.sum()
        low, high = np.percentile(
            draws @ totals / (draws @ counts)[:, None] - plain, [2.5, 97.5], axis=0
        )
        cells = []
        for column in range(len(ks) + 1):
            is_recall = column < len(ks)
            unit = 100 if is_recall else 1
            digits = 1 if is_recall else 3
            value = unit * mean[column]
            lower = unit * low[column]
            upper = unit * high[column]
            between = "" if name == "plain" else f" ({lower:+.{digits}f} to {upper:+.{digits}f})"
            cells.append(f"{value:.{digits}f}{between}")
        print(
            f"| {learner} | {name} | {' | '.join(cells)} | {np.mean(exposure[name]):.2f} |",
            flush=True,
        )


def crowd(people, width, seed):
    """Returns unit vectors with a shared taste, so that some are close to all others."""
    rng = np.random.default_rng(seed)
    taste = np.random.default_rng(0).standard_normal(width, np.float32)
    rows = rng.standard_normal((people, width), np.float32)
    rows += 0.7 * taste * rng.random((people, 1), np.float32)
    return unit_rows(rows)


def scale(sizes, width=128, temperature=0.1):
    print(f"{width} dimensions, temperature {temperature}; seconds of wall clock and of CPU")
    for people in sizes:
        a, b = crowd(people, width, 1), crowd(people, width, 2)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall_start = time.perf_counter()
        cpu_start = time.process_time()
        balanced = balance(a, b, temperature=temperature)
        wall = time.perf_counter() - wall_start
        cpu = time.process_time() - cpu_start
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"| {people:,} × {people:,} | {wall:.1f} | {cpu:.1f} | {balanced.iterations} | "
            f"{balanced.error:.0e} | {(after - before) / 2**20:.2f} GiB |",
            flush=True,
        )


def figure(path):
    """Writes an SVG of how often each person is shown, by policy, most shown first."""
    people = 200
    shown = {}
    matches = {}
    for seed in range(10):
        p, q = paper_market(people, people, 0.5, seed)
        for name, (slates_a, slates_b) in policies(p, q, 0.05).items():
            counts = np.bincount(slates_a[:, :10].ravel(), minlength=people)
            shown.setdefault(name, []).append(np.sort(counts)[::-1])
            result = outcome(
                slates_a[:, :10], slates_b[:, :10], lambda i, j, p=p, q=q: (p[i, j], q[j, i])
            )
            matches.setdefault(name, []).append(result.matches)
    curves = {name: np.mean(rows, axis=0) for name, rows in shown.items()}
    means = {name: float(np.mean(values)) for name, values in matches.items()}
    Path(path).write_text(draw_exposure(curves, means), encoding="utf-8")
    print({name: round(value, 1) for name, value in means.items()})


def draw_exposure(curves, matches):
    """Returns the SVG of the exposure curves, [people] each, with the matches of each policy."""
    width, height = 720, 360
    left, right = 62, 24
    top, bottom = 46, 54
    people = len(next(iter(curves.values())))
    ceiling = 50 * np.ceil(max(curve.max() for curve in curves.values()) / 50)
    colors = {"naive": "#b3541e", "product": "#7a6f9b", "balanced": "#1f7a4d"}

    def x(rank):
        return left + rank / (people - 1) * (width - left - right)

    def y(value):
        return height - bottom - value / ceiling * (height - top - bottom)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif"',
        ' font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{left}" y="22" font-size="15" fill="#222">Number of slates that contain each '
        f"person (10 candidates each, {people} × {people} people)</text>",
    ]
    for value in np.arange(0, ceiling + 1, 50):
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
            'stroke="#ddd"/>'
        )
        parts.append(
            f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#555">'
            f"{value:.0f}</text>"
        )
    parts.append(
        f'<text x="{(left + width) / 2:.0f}" y="{height - 14}" text-anchor="middle" fill="#555">'
        "people, most shown first</text>"
    )
    for row, (name, curve) in enumerate(curves.items()):
        points = " ".join(f"{x(rank):.1f},{y(value):.1f}" for rank, value in enumerate(curve))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colors[name]}" stroke-width="3"/>'
        )
        parts.append(
            f'<text x="{width - 34}" y="{top + 22 + 22 * row}" text-anchor="end" '
            f'fill="{colors[name]}">{name}: {matches[name]:.1f} expected matches</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benchmark", choices=["paper", "real", "scale", "figure"])
    parser.add_argument("arguments", nargs="*")
    args = parser.parse_args()
    if args.benchmark == "paper":
        paper()
    elif args.benchmark == "real":
        real(args.arguments)
    elif args.benchmark == "scale":
        scale([int(size) for size in args.arguments])
    else:
        figure(args.arguments[0])


if __name__ == "__main__":
    main()

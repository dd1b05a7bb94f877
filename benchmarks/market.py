"""Balanced slates: the paper's synthetic markets, real pairs, how time and memory grow, and the figure of the docs.

    python benchmarks/market.py paper python benchmarks/market.py real furniture.npz [lookalikes.npz
    …]     files with a, b: [pairs, D] (and group) python benchmarks/market.py scale 10000 20000
    40000 python benchmarks/market.py figure docs/market.svg

The paper: Tomita and Yokoyama, "Fair Reciprocal Recommendation in Matching Markets" (RecSys 2024).
Its generator, as in the authors' code: own tastes uniform in [0, 1], mixed with a popularity that
falls evenly from 1 to 0, weight λ.
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
    """Slates of both sides by policy."""
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
                found = {}
                for seed in range(markets):
                    p, q = paper_market(n, m, weight, seed)
                    for name, (slates_a, slates_b) in policies(p, q, temperature).items():
                        one = outcome(
                            slates_a,
                            slates_b,
                            lambda i, j, p=p, q=q: (p[i, j], q[j, i]),
                            examination_kind=kind,
                        )
                        found.setdefault(name, []).append((one.matches, *one.gini, *one.envy))
                for name, rows in found.items():
                    mean = np.mean(rows, axis=0)
                    print(
                        f"| {n} × {m} | {'1 / r' if kind == 'inverse' else '1 / log2(r + 1)'} | {weight} | {name} | "
                        f"{mean[0]:.1f} | {mean[1]:.3f} / {mean[2]:.3f} | {mean[3]:.2f} / {mean[4]:.2f} |",
                        flush=True,
                    )


def real(files, repeats=5, folds=5, ks=(5, 10, 20)):
    """R@K of test pairs, both directions, by correction.

    The bank is training people's queries alone.
    """
    for file in files:
        loaded = np.load(file)
        groups = loaded["group"].tolist() if "group" in loaded else None
        data = PairedFeatures.of(loaded["a"], loaded["b"], groups=groups)
        if groups is None and len(data) > 495:
            data = data.of_components(np.random.default_rng(0).permutation(len(data))[:495])
        print(f"{file}: {len(data)} pairs, {repeats} × {folds} folds")
        for learner in (Frozen(), Whitened(), Contrastive()):
            hits, exposure = {}, {}
            for repeat in range(repeats):
                parts = data.folds(folds, seed=repeat)
                for number, labels in enumerate(parts):
                    rest = np.concatenate(
                        [part for other, part in enumerate(parts) if other != number]
                    )
                    train, test = data.of_components(rest), data.of_components(labels)
                    embed = learner.fit(train, seed=repeat).head.embed
                    a, b = embed(test.a, "a"), embed(test.b, "b")
                    bank_a, bank_b = embed(train.a, "a"), embed(train.b, "b")
                    balanced = balance(a, b, temperature=0.05, tolerance=1e-3, max_iterations=5000)
                    corrections = {
                        "plain": (0, 0),
                        "CSLS": (csls(a, bank_b), csls(b, bank_a)),
                        "inverted softmax": (
                            inverted_softmax(a, bank_b),
                            inverted_softmax(b, bank_a),
                        ),
                        "balanced": (balanced.bonus_a, balanced.bonus_b),
                    }
                    scores = a @ b.T
                    i, j = test.matches.T
                    for name, (bonus_a, bonus_b) in corrections.items():
                        ahead, back = scores + bonus_b, scores.T + bonus_a
                        ranks = np.stack(
                            [
                                (ahead[i] > ahead[i, j][:, None]).sum(1),
                                (back[j] > back[j, i][:, None]).sum(1),
                            ]
                        )
                        own = np.stack(
                            [(ranks < k).mean(0) for k in ks] + [(1 / (ranks + 1)).mean(0)], 1
                        )
                        hits.setdefault(name, {})[repeat, number] = (labels, test.components, own)
                        shown = np.bincount(ranked(ahead, 10).ravel(), minlength=len(b))
                        exposure.setdefault(name, []).append(gini(shown))
            _print_real(type(learner).__name__, hits, exposure, ks)


def _print_real(learner, hits, exposure, ks):
    """Means over pairs with intervals of the difference to plain, resampling groups of pairs."""
    means = {}
    for name, parts in hits.items():
        sums, counts = {}, {}
        for _, components, own in parts.values():
            for component, row in zip(components.tolist(), own, strict=True):
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
            value, lower, upper = mean[column], low[column], high[column]
            if column < len(ks):
                value, lower, upper = 100 * value, 100 * lower, 100 * upper
            digits = 1 if column < len(ks) else 3
            between = "" if name == "plain" else f" ({lower:+.{digits}f} to {upper:+.{digits}f})"
            cells.append(f"{value:.{digits}f}{between}")
        print(
            f"| {learner} | {name} | {' | '.join(cells)} | {np.mean(exposure[name]):.2f} |",
            flush=True,
        )


def crowd(people, width, seed):
    """Unit vectors with a common taste, so that some lie near to everybody."""
    rng = np.random.default_rng(seed)
    taste = np.random.default_rng(0).standard_normal(width, np.float32)
    rows = rng.standard_normal((people, width), np.float32)
    rows += 0.7 * taste * rng.random((people, 1), np.float32)
    return unit_rows(rows)


def scale(sizes, width=128, temperature=0.1):
    print(f"{width} wide, temperature {temperature}; seconds of wall clock and of CPU")
    for people in sizes:
        a, b = crowd(people, width, 1), crowd(people, width, 2)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu = time.perf_counter(), time.process_time()
        found = balance(a, b, temperature=temperature)
        print(
            f"| {people:,} × {people:,} | {time.perf_counter() - wall:.1f} | {time.process_time() - cpu:.1f} | "
            f"{found.iterations} | {found.error:.0e} | "
            f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20:.2f} GiB |",
            flush=True,
        )


def figure(path):
    """How often each person is seen, most seen first, by policy: a small SVG."""
    n, seeds = 200, 10
    seen = {}
    matches = {}
    for seed in range(seeds):
        p, q = paper_market(n, n, 0.5, seed)
        for name, (slates_a, slates_b) in policies(p, q, 0.05).items():
            looks = np.bincount(slates_a[:, :10].ravel(), minlength=n)
            seen.setdefault(name, []).append(np.sort(looks)[::-1])
            one = outcome(
                slates_a[:, :10], slates_b[:, :10], lambda i, j, p=p, q=q: (p[i, j], q[j, i])
            )
            matches.setdefault(name, []).append(one.matches)
    width, height, left, top, bottom = 720, 360, 62, 46, 54
    most = max(np.mean(rows, axis=0).max() for rows in seen.values())
    ceiling = 50 * np.ceil(most / 50)
    colours = {"naive": "#b3541e", "product": "#7a6f9b", "balanced": "#1f7a4d"}

    def x(rank):
        return left + rank / (n - 1) * (width - left - 24)

    def y(value):
        return height - bottom - value / ceiling * (height - top - bottom)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"',
        ' font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{left}" y="22" font-size="15" fill="#222">Slates that each person stands in (10 places each, '
        f"{n} × {n} people)</text>",
    ]
    for value in np.arange(0, ceiling + 1, 50):
        parts.append(
            f'<line x1="{left}" x2="{width - 24}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>'
        )
        parts.append(
            f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#555">{value:.0f}</text>'
        )
    parts.append(
        f'<text x="{(left + width) / 2:.0f}" y="{height - 14}" text-anchor="middle" fill="#555">people, most seen first'
        "</text>"
    )
    for row, (name, rows) in enumerate(seen.items()):
        mean = np.mean(rows, axis=0)
        points = " ".join(f"{x(rank):.1f},{y(value):.1f}" for rank, value in enumerate(mean))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colours[name]}" stroke-width="3"/>'
        )
        parts.append(
            f'<text x="{width - 34}" y="{top + 22 + 22 * row}" text-anchor="end" fill="{colours[name]}">{name}: '
            f"{np.mean(matches[name]):.1f} expected matches</text>"
        )
    Path(path).write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")
    print({name: round(float(np.mean(values)), 1) for name, values in matches.items()})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["paper", "real", "scale", "figure"])
    parser.add_argument("arguments", nargs="*")
    given = parser.parse_args()
    if given.what == "paper":
        paper()
    elif given.what == "real":
        real(given.arguments)
    elif given.what == "scale":
        scale([int(one) for one in given.arguments])
    else:
        figure(given.arguments[0])


if __name__ == "__main__":
    main()

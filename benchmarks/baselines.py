"""The recipe against `metric` and all simple baselines on real features.

    python benchmarks/baselines.py --data ../shared/data --repeats 10

Reads `furniture/features.npz` (a, b, group) and `lookalikes/features.npz` (a, b) from the folder,
and prints one table per set as Markdown: recall, MRR, and the difference of each learner to the
recipe with Holm's correction. Uses one thread; a repeat takes about 10 s of CPU per set.
"""

import argparse
import time
from pathlib import Path

import torch
from best import furniture, lookalikes

from pairmatch.core.display import decimal
from pairmatch.evaluation.crossvalidation import BASELINES, cross_validate

RECIPE = "trained"
KS = (5, 10, 20, 50)


def table(features, options):
    """Lines of the table of all learners in a cross-validation."""
    learners = {RECIPE: "contrastive", **{name: name for name in (*BASELINES, "metric")}}
    result = cross_validate(features, learners, repeats=options.repeats, seed=options.seed, ks=KS)
    tests = {test.name: test for test in result.comparisons(RECIPE)}
    columns = [*(f"R@{k}" for k in KS), "MRR", f"ΔMRR vs `{RECIPE}`"]
    lines = [f"| learner | {' | '.join(columns)} |", f"| {' | '.join(['---'] * 7)} |"]
    for name in ("chance", *learners):
        metrics = result.metrics(name, resamples=0 if name == "chance" else 1000)
        cells = [cell(metrics.recall[k], metrics.recall_interval.get(k), 1, 100) for k in KS]
        cells.append(cell(metrics.mrr, metrics.mrr_interval, 3, 1))
        cells.append(difference(tests[name]) if name in tests else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def cell(value, interval, digits, factor):
    """A value with its interval, if it has one."""
    value, *bounds = (f"{factor * each:.{digits}f}" for each in (value, *(interval or ())))
    return f"{value} ({'–'.join(bounds)})" if bounds else value


def difference(test):
    """The difference to the recipe, its interval, and the corrected p-value."""
    low, high = (decimal(bound) for bound in test.interval)
    return f"{decimal(test.difference, sign=True)} ({low} to {high}), p = {test.p_value:.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seed", type=int, default=2000, help="of folds and learners")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sets = {
        "Furniture from the same room": furniture(options.data),
        "Look-alikes": lookalikes(options.data, 0, 495),
    }
    for name, features in sets.items():
        start = time.process_time()
        lines = table(features, options)
        print(f"{name}: {len(features)} pairs ({time.process_time() - start:.0f} s of CPU)\n")
        print("\n".join(lines), end="\n\n", flush=True)


if __name__ == "__main__":
    main()

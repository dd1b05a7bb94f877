"""The learner `best` against all baselines and the recipe: python benchmarks/best.py [SET ...]

    python benchmarks/best.py --data ../shared/data --repeats 1 furniture demo rotation

Sets of features are read from a folder with `furniture/features.npz` (a, b, group) and
`lookalikes/features.npz` (a, b); the people of the demo and the simulated regimes need none.
Prints one table per set: R@10, MRR, and the difference to `best` with Holm's correction.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from pairmatch import Matcher, PairedFeatures, Pairs
from pairmatch.evaluation.crossvalidation import BASELINES, cross_validate
from pairmatch.experiments.demo import draw_people

LEARNERS = ("best", "contrastive", *BASELINES, "robust")
WIDTH = 64  # of simulated features
TASTES = 6  # hidden directions of simulated people


def furniture(data):
    """464 pairs of objects that stand in one room, by room."""
    arrays = np.load(data / "furniture/features.npz")
    return PairedFeatures.of(arrays["a"], arrays["b"], groups=arrays["group"].tolist())


def lookalikes(data, first, last):
    """Pairs of pictures that people judged to look alike, in a fixed random order."""
    arrays = np.load(data / "lookalikes/features.npz")
    rows = np.random.default_rng(0).permutation(len(arrays["a"]))[first:last]
    return PairedFeatures.of(*(arrays[side][rows].astype(np.float32) for side in "ab"))


def demo(data):
    """The people of `pairmatch demo`, with the features of the descriptor."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = Pairs.read(draw_people(folder, pairs=400, seed=0), images=folder)
        matcher = Matcher(backbone="descriptor", metadata=None, store=Path(folder) / "store.sqlite")
        return matcher.paired_features(pairs)


def simulated(pairs, *, noise, rotated=False, flipped=False, related=True, alone=True):
    """People with hidden tastes, shown by noisy features.

    Args:
        pairs: Number of people of each side.
        noise: Standard deviation of the features' noise.
        rotated: Whether side b shows a person's taste rotated.
        flipped: Whether partners agree in the size of each taste, and not in its sign.
        related: Whether partners have a taste in common at all.
        alone: Whether each person has one partner; otherwise matches fall on popular people of both
            sides, four times as many as people of a side.
    """
    rng = np.random.default_rng(0)
    looks = rng.standard_normal((TASTES, WIDTH)) / np.sqrt(TASTES)
    taste = rng.standard_normal((pairs, TASTES))
    partner = taste if related else rng.standard_normal((pairs, TASTES))
    if rotated:
        partner = partner @ np.linalg.qr(rng.standard_normal((TASTES, TASTES)))[0]
    if flipped:
        partner = partner * rng.choice([-1, 1], partner.shape)
    a, b = (z @ looks + noise * rng.standard_normal((pairs, WIDTH)) for z in (taste, partner))
    if alone:
        return PairedFeatures.of(a + 1, b - 1)
    chances = np.exp(taste[:, :1] + partner[:, 1]).ravel()
    cells = rng.choice(pairs**2, 4 * pairs, replace=False, p=chances / chances.sum())
    rows, matches = zip(
        *(np.unique(side, return_inverse=True) for side in divmod(cells, pairs)), strict=True
    )
    return PairedFeatures.of(a[rows[0]] + 1, b[rows[1]] - 1, matches=np.stack(matches, axis=1))


SETS = {
    "furniture": furniture,
    "lookalikes-150": lambda data: lookalikes(data, 0, 150),
    "lookalikes-495": lambda data: lookalikes(data, 0, 495),
    "lookalikes-other-750": lambda data: lookalikes(data, 749, 1499),
    "demo": demo,
    "alike": lambda data: simulated(400, noise=2),
    "rotation": lambda data: simulated(400, noise=2, rotated=True),
    "bands": lambda data: simulated(400, noise=0.3, flipped=True),
    "popularity": lambda data: simulated(400, noise=1, related=False, alone=False),
    "nothing": lambda data: simulated(400, noise=1, related=False),
    "alike-60": lambda data: simulated(60, noise=1.5),
    "rotation-60": lambda data: simulated(60, noise=1.5, rotated=True),
    "rotation-5000": lambda data: simulated(5000, noise=4, rotated=True),
}


def measure(name, data, repeats):
    """Prints the table of one set."""
    features = SETS[name](data)
    start = time.process_time()
    result = cross_validate(features, LEARNERS, repeats=repeats, ks=(10,), seed=1)
    seconds = time.process_time() - start
    print(
        f"{name}: {len(features)} pairs x {features.dim}, {repeats} x 5-fold, {seconds:.0f} s "
        "of CPU"
    )
    tests = {test.name: test for test in result.comparisons("best")}
    for learner in ("chance", *LEARNERS):
        metrics = result.metrics(learner, resamples=0)
        line = f"  {learner:12s} {100 * metrics.recall[10]:5.1f} {metrics.mrr:.3f}"
        if learner in tests:
            test = tests[learner]
            low, high = test.interval
            line += f"  {test.difference:+.3f} ({low:+.3f} to {high:+.3f}), p = {test.p_value:.3f}"
        print(line, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", default=list(SETS), help=", ".join(SETS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for chosen in arguments.sets:
        measure(chosen, arguments.data, arguments.repeats)

"""The learner `best` against all baselines and the recipe: python benchmarks/best.py [SET ...]

    python benchmarks/best.py --data ../shared/data --repeats 1 furniture demo rotation

Sets of features are read from a folder with `furniture/features.npz` (a, b, group),
`furniture/pairs.csv` (text_a, text_b), `lookalikes/features.npz` (a, b) and `speed_dating`; the
people of the demo and the simulated regimes need none. `furniture-text` needs the sentence encoder
that benchmarks/speed_dating.py explains. Every repeat of every set is written to `--output` when it
is finished, and a later run with the same seed continues there (`--repeats 0` only reports). Prints
one table per set: R@10, MRR, and each learner's difference to `best` with Holm's correction; then
the gains of `best` over the recipe and the best baseline.
"""

import argparse
import csv
import pickle
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from speed_dating import Dates, texts_of

from pairmatch import Matcher, PairedFeatures, Pairs
from pairmatch.core.arrays import unit_rows
from pairmatch.core.feature_blocks import FeatureBlock
from pairmatch.evaluation.crossvalidation import BASELINES, CrossValidation, cross_validate
from pairmatch.evaluation.query_table import QueryTable
from pairmatch.evaluation.splits import cross_validation_splits
from pairmatch.experiments.demo import draw_people

LEARNERS = ("best", "contrastive", *BASELINES)
WIDTH = 64  # of simulated features
TASTES = 6  # hidden directions of simulated people


def furniture(data):
    """464 pairs of objects that stand in one room, by room."""
    arrays = np.load(data / "furniture/features.npz")
    return PairedFeatures.of(arrays["a"], arrays["b"], groups=arrays["group"].tolist())


def furniture_with_text(data, encoder):
    """The same pairs with descriptions, encoded by a sentence encoder: [unit photo, unit text]."""
    photos = furniture(data)
    with (data / "furniture/pairs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sides = []
    for side, features in (("a", photos.a), ("b", photos.b)):
        texts = texts_of([row[f"text_{side}"] for row in rows], encoder)
        sides.append(np.concatenate([unit_rows(features), unit_rows(texts)], axis=1))
    width = sides[0].shape[1]
    split = (FeatureBlock("photo", 0, photos.dim), FeatureBlock("text", photos.dim, width))
    return photos.with_features(*sides, blocks=split)


def speed_dating(data):
    """Dates on which both said yes, by event, with the answers of questionnaires as features."""
    dates = Dates(data / "speed_dating")
    paired = dates.paired(dates.answers)
    features = dates.attributes(np.arange(len(dates.people))).astype(np.float32)
    return paired.with_features(
        *(features[side[:, 0].astype(int)] for side in (paired.a, paired.b))
    )


def lookalikes(data, first, last):
    """Pairs of pictures that people judged to look alike, in a fixed random order."""
    arrays = np.load(data / "lookalikes/features.npz")
    rows = np.random.default_rng(0).permutation(len(arrays["a"]))[first:last]
    return PairedFeatures.of(*(arrays[side][rows].astype(np.float32) for side in "ab"))


def demo():
    """The people of `pairmatch demo`, with the features of the descriptor."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = Pairs.read(draw_people(folder, pairs=400, seed=0), images=folder)
        matcher = Matcher(backbone="descriptor", metadata=None, store=Path(folder) / "store.sqlite")
        return matcher.paired_features(pairs)


def simulated(
    pairs, *, noise, rotated=False, flipped=False, related=True, alone=True, kinds=False, seed=0
):
    """People with hidden tastes, shown by noisy features.

    Args:
        pairs: Number of people of each side.
        noise: Standard deviation of the features' noise.
        rotated: Whether side b shows a person's taste rotated.
        flipped: Whether partners agree in the size of each taste, and not in its sign.
        related: Whether partners have a taste in common at all.
        alone: Whether each person has one partner; otherwise matches fall on popular people of both
            sides, four times as many as people of a side.
        kinds: Whether each side shows its taste in its own way, as people and jobs do.
        seed: Seed of the people.
    """
    rng = np.random.default_rng(seed)
    looks = rng.standard_normal((TASTES, WIDTH)) / np.sqrt(TASTES)
    taste = rng.standard_normal((pairs, TASTES))
    partner = taste if related else rng.standard_normal((pairs, TASTES))
    if rotated:
        partner = partner @ np.linalg.qr(rng.standard_normal((TASTES, TASTES)))[0]
    if flipped:
        partner = partner * rng.choice([-1, 1], partner.shape)
    if kinds:
        partner = partner @ rng.standard_normal((TASTES, TASTES)) / np.sqrt(TASTES)
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
    "furniture": lambda options: furniture(options.data),
    "furniture-text": lambda options: furniture_with_text(options.data, options.text_encoder),
    "lookalikes-150": lambda options: lookalikes(options.data, 0, 150),
    "lookalikes-495": lambda options: lookalikes(options.data, 0, 495),
    "lookalikes-other-750": lambda options: lookalikes(options.data, 749, 1499),
    "lookalikes-1499": lambda options: lookalikes(options.data, 0, 1499),
    "demo": lambda options: demo(),
    "speed-dating": lambda options: speed_dating(options.data),
    "alike": lambda options: simulated(400, noise=2),
    "rotation": lambda options: simulated(400, noise=2, rotated=True),
    "kinds": lambda options: simulated(400, noise=1, kinds=True),
    "bands": lambda options: simulated(400, noise=0.3, flipped=True),
    "bands-2000": lambda options: simulated(2000, noise=0.3, flipped=True),
    "popularity": lambda options: simulated(400, noise=1, related=False, alone=False),
    "nothing": lambda options: simulated(400, noise=1, related=False),
    "alike-60": lambda options: simulated(60, noise=1.5),
    "rotation-60": lambda options: simulated(60, noise=1.5, rotated=True),
    "rotation-5000": lambda options: simulated(5000, noise=4, rotated=True),
}
REAL = [name for name in SETS if name.startswith(("furniture", "lookalikes", "demo", "speed"))]
#: Sets on which no option of `best` was chosen.
UNTOUCHED = (
    "furniture-text",
    "lookalikes-other-750",
    "lookalikes-1499",
    "speed-dating",
    "kinds",
    "rotation-5000",
)


def run(name, repeat, options):
    """Tests all learners in one repeat of cross-validation; writes and returns the result."""
    file = options.output / f"{name}-{options.seed}-{repeat}.pickle"
    if file.exists():
        return
    features = SETS[name](options)
    by = "pool" if features.pools is not None else None
    splits = cross_validation_splits(
        features, repeats=repeat + 1, folds=5, by=by, seed=options.seed
    )
    splits = [split for split in splits if split.repeat == repeat]
    start = time.process_time()
    result = cross_validate(features, LEARNERS, splits=splits, ks=(10,), seed=options.seed)
    seconds = time.process_time() - start
    print(f"{name}, repeat {repeat}: {seconds:.0f} s of CPU", file=sys.stderr, flush=True)
    written = file.with_suffix(".part")
    written.write_bytes(pickle.dumps((len(features), features.dim, seconds, result)))
    written.rename(file)


def report(name, options):
    """Prints the table of one set; returns the relative gains over recipe and best baseline."""
    files = [options.output / f"{name}-{options.seed}-{repeat}.pickle" for repeat in range(100)]
    files = [file for file in files if file.exists()]
    repeats = [pickle.loads(file.read_bytes()) for file in files]
    if not repeats:
        return None
    size, dim, _, first = repeats[0]
    tables = {
        learner: QueryTable.concatenate([result.table(learner) for *_, result in repeats])
        for learner in ("chance", *first.learners)
    }
    result = CrossValidation(tables, tables.pop("chance"), seed=options.seed)
    seconds = np.mean([seconds for _, _, seconds, _ in repeats])
    untouched = ", no option was chosen on it" * (name in UNTOUCHED)
    print(
        f"{name}: {size} pairs x {dim}, {len(files)} x 5-fold, {seconds:.0f} s of CPU each"
        f"{untouched}"
    )
    tests = {test.name: test for test in result.comparisons("best")}
    mrr = {}
    for learner in ("chance", *LEARNERS):
        metrics = result.metrics(learner, resamples=0)
        mrr[learner] = metrics.mrr
        recall = f"{100 * metrics.recall[10]:5.1f}" if 10 in metrics.recall else "     "
        line = f"  {learner:12s} {recall} {metrics.mrr:.3f}"
        if learner in tests:
            test = tests[learner]
            low, high = test.interval
            line += f"  {test.difference:+.3f} ({low:+.3f} to {high:+.3f}), p = {test.p_value:.3f}"
            line += "  best is below" * (test.difference > 0 and test.p_value < 0.05)
        print(line.replace("-0", "\N{MINUS SIGN}0"), flush=True)
    others = mrr["contrastive"], max(mrr[baseline] for baseline in BASELINES)
    gains = [mrr["best"] / other - 1 for other in others]
    print(f"  best: {gains[0]:+.1%} over the recipe, {gains[1]:+.1%} over the best baseline")
    return gains


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", default=list(SETS), help=", ".join(SETS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--text-encoder", default="minilm", help="folder of the sentence encoder")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1, help="of folds and learners")
    parser.add_argument(
        "--output", type=Path, default=Path("best-results"), help="folder of finished repeats"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    for repeat in range(options.repeats):
        for name in options.sets:
            run(name, repeat, options)
    gains = {name: report(name, options) for name in options.sets}
    real = [gains[name] for name in options.sets if name in REAL and gains[name]]
    if real:
        recipe, baseline = np.mean(real, axis=0)
        print(
            f"{len(real)} real sets, mean: {recipe:+.1%} over the recipe, {baseline:+.1%} over the "
            "best baseline"
        )


if __name__ == "__main__":
    main()

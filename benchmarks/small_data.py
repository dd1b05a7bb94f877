"""Figures of the page Small data beside the table of benchmarks/best.py.

    python benchmarks/small_data.py pairs --data ../shared/data
    python benchmarks/small_data.py text --text-encoder minilm
    python benchmarks/small_data.py width
    python benchmarks/small_data.py logs
    python benchmarks/small_data.py cost

`pairs` tests learners on the same pairs by number of training pairs. `text` compares photos, texts
and both, `best` with and without weights for each block, and both again beside a block of noise.
`width` narrows the embeddings of `best` on one fold. `logs` compares `best` with baselines where
people stand in many pairs. `cost` prints seconds of CPU of a fit; run it on an idle machine. Sets
and the sentence encoder are those of benchmarks/best.py.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from best import furniture, furniture_with_text, lookalikes, simulated

from pairmatch import PairedFeatures
from pairmatch.core.feature_blocks import feature_blocks
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.evaluation.measuring import measure_head
from pairmatch.evaluation.splits import Split, cross_validation_splits
from pairmatch.experiments.simulated_people import LogSettings
from pairmatch.experiments.simulation import simulate_log
from pairmatch.learning.best import Best
from pairmatch.learning.contrastive import Contrastive

FASTER = ("best", {"recipe": False})


def pairs_needed(options):
    """R@10 and MRR on the same test pairs, by number of training pairs."""
    learners = {"recipe": "contrastive", "centred": "centred", "whitened": "whitened"}
    learners["best"] = "best"
    sets = (
        ("furniture", furniture(options.data), 5, (25, 50, 100, 200, 370)),
        ("look-alikes", lookalikes(options.data, 0, 1499), 15, (25, 50, 100, 200, 400, 800)),
    )
    for name, data, folds, sizes in sets:
        drawn = cross_validation_splits(data, repeats=options.repeats, folds=folds)
        splits = [split for split in drawn if split.fold == 0]
        print(f"{name}: {len(splits)} draws, {len(splits[0].test)} test pairs")
        for size in sizes:
            smaller = [_smaller(data, split, size) for split in splits]
            result = cross_validate(data, learners, splits=smaller, ks=(10,))
            cells = []
            for learner in learners:
                metrics = result.metrics(learner, resamples=0)
                cells.append(f"{100 * metrics.recall[10]:.1f} ({metrics.mrr:.3f})")
            print(f"| {size} | {' | '.join(cells)} |", flush=True)


def _smaller(data, split, size):
    """The split with about as many training pairs, in whole components."""
    components = np.unique(data.components[split.train.matches])
    order = np.random.default_rng(split.repeat).permutation(components)
    counts = np.array([(data.components == component).sum() for component in order])
    kept = order[: np.searchsorted(np.cumsum(counts), size) + 1]
    return Split(split.repeat, split.fold, data.part(kept), split.test)


def text(options):
    """Photos, texts and both, and what `best` gains by weights for each block."""
    blocks = furniture_with_text(options.data, options.text_encoder)
    joined = blocks.with_features(blocks.a, blocks.b)
    photo, words = (blocks.of_blocks([block]) for block in blocks.blocks)
    rng = np.random.default_rng(0)
    noisy = [
        np.hstack([side, rng.standard_normal((len(side), 256)) / 16])
        for side in (blocks.a, blocks.b)
    ]
    widths = [*(block.width for block in blocks.blocks), 256]
    named = feature_blocks(["photo", "text", "noise"], widths)
    sets = {"photo": photo, "text": words, "both": blocks, "both, joined": joined}
    sets["with noise"] = blocks.with_features(*noisy, blocks=named)
    sets["with noise, joined"] = blocks.with_features(*noisy)
    learners = {f"recipe: {name}": (name, "contrastive") for name in ("photo", "text", "both")}
    learners |= {f"best: {name}": (name, FASTER) for name in sets}
    learners |= {f"{name}: both": ("both", name) for name in ("whitened", "cca", "ridge")}
    result = cross_validate(sets, learners, repeats=options.repeats, ks=(10,))
    print(result)
    for first, second in (
        ("recipe: both", "recipe: photo"),
        ("best: both", "best: photo"),
        ("best: both", "best: text"),
        ("best: both", "best: both, joined"),
        ("best: with noise", "best: with noise, joined"),
    ):
        print(result.compare(first, second), flush=True)


def width(options):
    """Narrower embeddings of `best` on one fold."""
    sets = {
        "look-alikes": (lookalikes(options.data, 0, 495), (512, 256, 128, 64)),
        "rotated tastes": (simulated(400, noise=2, rotated=True), (64,)),
    }
    for name, (data, widths) in sets.items():
        split = cross_validation_splits(data, repeats=1)[0]
        for limit in (None, *widths):
            fitted = Best(width=limit).fit(data.take(split.train))
            mrr = measure_head(data, fitted.head, split, (10,)).metric("MRR").mean()
            print(f"{name}: {fitted.head.width} coordinates, MRR {mrr:.3f}", flush=True)
            print(*(f"  {note}" for note in fitted.notes), sep="\n", flush=True)


def logs(options):
    """`best` on simulated logs in which people stand in many pairs."""
    learners = {"best": FASTER, "likes": "likes", "ridge": "ridge", "whitened": "whitened"}
    for seed in range(options.repeats):
        log = simulate_log(LogSettings(people_a=300, people_b=300, outcomes=4000), seed=seed)
        pairs = log.as_pairs()
        vectors = dict(zip(log.people_a.ids, log.people_a.features, strict=True))
        vectors |= dict(zip(log.people_b.ids, log.people_b.features, strict=True))
        sides = (np.array([vectors[one] for one in ids]) for ids in (pairs.ids_a, pairs.ids_b))
        data = pairs.with_features(*sides)
        result = cross_validate(data, learners, repeats=1, folds=3, ks=(10,))
        print(f"{len(data)} matches", {k: round(v, 3) for k, v in result.mean_mrr().items()})
        print(result.compare("best", "ridge"), flush=True)


def cost(options):
    """Seconds of CPU of a fit of `best`."""
    real = lookalikes(options.data, 0, 1499)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(real), 5000)
    drawn = PairedFeatures.of(
        *(
            side[rows] + 0.3 * side.std(axis=0) * rng.standard_normal((5000, real.dim))
            for side in (real.a, real.b)
        )
    )
    matrix = np.cov(real.a.T)
    print(f"eigh of {len(matrix)}²: {_seconds(lambda: np.linalg.eigh(matrix)):.2f} s")
    for data in (lookalikes(options.data, 0, 495), real, drawn):
        for learner in (Contrastive(), Best(recipe=False), Best()):
            seconds = _seconds(lambda data=data, learner=learner: learner.fit(data))
            print(f"{len(data)} pairs x {data.dim}, {learner!r}: {seconds:.1f} s", flush=True)


def _seconds(call):
    start = time.process_time()
    call()
    return time.process_time() - start


WHAT = {"pairs": pairs_needed, "text": text, "width": width, "logs": logs, "cost": cost}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=list(WHAT))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--text-encoder", default="minilm", help="folder of the sentence encoder")
    parser.add_argument("--repeats", type=int, help="draws, repeats of folds or logs")
    options = parser.parse_args()
    options.repeats = options.repeats or {"text": 1}.get(options.what, 5)
    torch.set_num_threads(1)
    start = time.process_time()
    WHAT[options.what](options)
    print(f"{time.process_time() - start:.0f} s of CPU")


if __name__ == "__main__":
    main()

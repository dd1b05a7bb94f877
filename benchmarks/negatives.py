"""Hard negatives: how many are unknown matches, and whether training with them helps.

    python benchmarks/negatives.py unknown
    python benchmarks/negatives.py train furniture lookalikes --data ../shared/data

`unknown` draws people with hidden traits, of whom each would match a share of the other side, and
knows one match per person: it prints how many of the mined negatives are matches in truth, by rank.
`train` compares the learner `contrastive` with and without hard negatives, and with `best`, by
repeated cross-validation.
"""

import argparse
from pathlib import Path

import numpy as np
from best import furniture, lookalikes

from pairmatch import PairedFeatures
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.learning.negatives import mine_negatives

RANKS = (1, 5, 20, 50)


def planted(seed, *, people=600, share=0.02, noise=0.5, traits=8, width=64):
    """Features, one known match per person, and all matches [people, people] bool."""
    rng = np.random.default_rng(seed)
    hidden = [rng.normal(size=(people, traits)) for _ in range(2)]
    wish = np.linalg.qr(rng.normal(size=(traits, traits)))[0]
    liking = hidden[0] @ wish @ hidden[1].T
    liking += noise * liking.std() * rng.normal(size=liking.shape)
    matches = liking >= np.quantile(liking, 1 - share)
    sides = [side @ rng.normal(size=(traits, width)) for side in hidden]
    sides = [side + noise * side.std() * rng.normal(size=side.shape) for side in sides]
    rows = np.flatnonzero(matches.any(axis=1))
    known = np.array([(row, rng.choice(np.flatnonzero(matches[row]))) for row in rows])
    return PairedFeatures.of(*sides, matches=known), matches


def unknown(draws=20):
    """Share of the negatives at each rank that are unknown matches, beside a random person's."""
    print("noise  share  random  " + "  ".join(f"rank {rank}" for rank in RANKS))
    for noise in (0.25, 0.5, 1.0):
        for share in (0.005, 0.02, 0.1):
            rates = []
            for seed in range(draws):
                data, matches = planted(seed, share=share, noise=noise)
                row = []
                for rank in RANKS:
                    pairs = mine_negatives(data, 1, skip=rank - 1)[0]
                    row.append(matches[pairs[:, 0], pairs[:, 1]].mean())
                people = np.unique(data.matches[:, 0])
                others = (matches[people].sum(axis=1) - 1) / (matches.shape[1] - 1)
                rates.append([others.mean(), *row])
            mean = 100 * np.mean(rates, axis=0)
            print(f"{noise:5}  {share:5}  " + "  ".join(f"{value:5.1f} %" for value in mean))


def train(data, names, repeats, others):
    """MRR of each setting, with the difference to training without hard negatives."""
    sets = {
        "furniture": lambda: furniture(data),
        "lookalikes": lambda: lookalikes(data, 0, 495),
        "other-lookalikes": lambda: lookalikes(data, 495, 995),
    }
    mined = {
        f"hard {count} skip {skip}": {"hard_negatives": count, "hard_negatives_skip": skip}
        for count, skip in ((1, 0), (1, 20), (5, 20))
    }
    for name in names:
        learners = {
            "plain": "contrastive",
            **{label: ("contrastive", {"training": more}) for label, more in mined.items()},
            **{name: name for name in others},
        }
        result = cross_validate(sets[name](), learners, repeats=repeats)
        print(f"\n{name}")
        for label, mrr in result.mean_mrr().items():
            print(f"{label:16} {mrr:.4f}")
        for label in mined:
            for other in ("plain", *others):
                print(result.compare(label, other), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("unknown", "train"))
    parser.add_argument("sets", nargs="*", default=["furniture", "lookalikes"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--others", nargs="*", default=["best"], help="learners to compare with")
    arguments = parser.parse_args()
    if arguments.what == "unknown":
        unknown()
    else:
        train(arguments.data, arguments.sets, arguments.repeats, arguments.others)


if __name__ == "__main__":
    main()

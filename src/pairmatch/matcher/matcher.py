"""The facade: from pairs of people to a matcher that ranks candidates for anyone."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pairmatch.core import registry
from pairmatch.core.arrays import Vectors, check_count
from pairmatch.core.callbacks import Callback, Callbacks, ProgressBar
from pairmatch.core.config import PartSpec, TrainingConfig, parse_spec
from pairmatch.core.devices import resolve_device
from pairmatch.core.display import html_display
from pairmatch.core.errors import ConfigurationError, DataError, NotFittedError
from pairmatch.core.interfaces import (
    Backbone,
    FittedHead,
    Learner,
    MetadataGenerator,
    Pooler,
    ProjectionHead,
)
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.second_stage import SecondStage
from pairmatch.core.types import Profile, Side, Target
from pairmatch.data import Pairs
from pairmatch.evaluation.crossvalidation import COMPARED, CrossValidation, cross_validate
from pairmatch.evaluation.evaluation import Evaluation
from pairmatch.evaluation.evaluator import Evaluator
from pairmatch.evaluation.known import Known, left_out_note, without_known
from pairmatch.features.engines import ExtractionEngine
from pairmatch.features.extractor import ExtractionRequest, FeatureStore
from pairmatch.finetuning.config import FinetuneConfig
from pairmatch.gallery import Exclusions, Gallery, Recommendations, Slates, recommend_all
from pairmatch.io.store import Store
from pairmatch.learning.reranking import Reranked, RerankingGate, reranker_name
from pairmatch.matcher import hub, saving
from pairmatch.matcher.building import (
    build_backbones,
    build_metadata,
    build_reranker,
    check_weights,
)
from pairmatch.matcher.card import summary
from pairmatch.matcher.finetuning import adapters_of, tune_pipeline
from pairmatch.matcher.folder import read_folder, write_folder
from pairmatch.matcher.pipeline import FeaturePipeline
from pairmatch.matcher.planning import plan_work
from pairmatch.matcher.presets import preset_arguments
from pairmatch.matcher.probabilities import Probabilities, with_probabilities
from pairmatch.matcher.recommending import (
    check_gallery,
    embedding_digest,
    head_digest,
    hidden_ids,
    rank_candidates,
    rank_in_stages,
    shown_candidates,
    stage_notes,
)
from pairmatch.matcher.reference import Reference, auc_of
from pairmatch.matcher.training_people import TrainingPeople
from pairmatch.matcher.work import WorkPlan

_log = logging.getLogger(__name__)
_COMMAND_LINE = {"head": "--head", "loss": "--loss", "training": "--set training.…"}
_PROBE_DIM = 240  # arbitrary: only whether there is a head matters


class Matcher:
    """Learns from matched pairs who goes with whom, and ranks candidates for anyone.

    Without arguments it is the published recipe: GPT-5-nano metadata, frozen Qwen3-VL-2B, mean
    pooling, an MLP head of width 512, InfoNCE with τ = 0.2.

    Parts are given as a name, a name with options (`("clip", {"model": "ViT-L-14"})`) or an
    instance.

    Args:
        backbone: Frozen model; or a list of several, whose features are scaled to unit length,
            weighted and joined. Equal backbones run once, with all their poolers.
        pooler: One for all backbones, or a list with one per backbone, or several for one backbone;
            None uses each backbone's default.
        metadata: Generator of attributes from photos, for people who have no metadata yet, used if
            a backbone reads text; `"auto"` for the recipe's with the recipe's backbone, and none
            with others; None or `"none"` for none. Nothing is sent anywhere without `allow_upload`.
        head: Head that the learner `contrastive` trains; None for the recipe's. `"identity"` needs
            no training: the frozen baseline.
        loss: Loss of the learner `contrastive`; None for the recipe's.
        learner: How the head is learned. Every registered learner can be saved and served.
        reranker: Second stage, such as `pairwise`, which orders the best candidates of a person
            again. `fit` keeps it only if cross-validation among the training pairs supports it,
            and says so in `notes`; None or `"none"` for none.
        training: Training hyperparameters of the learner `contrastive`; None for the recipe's.
        seed: Seed for everything random; None uses that of `training`, or 0.
        weights: Weight of each backbone in the joined features, above 0; by default all 1. The
            learner `best` learns what each of them tells, whatever these weights are.
        prompt: Template of the text that backbones read; None for each backbone's own.
        prompt_attributes: Names of the profile attributes that go into the prompt.
        store: Where features and metadata are kept: a `Store`, a path, or None for the user's
            default.
        store_dtype: `float32`, or `float16` for half the space.
        device: Device of backbones and training; `auto` uses an accelerator if there is one.
        allow_upload: Whether a metadata generator may send photos to a remote host.
        max_usd: Cost in US dollars at which paid metadata stops cleanly; None for no limit.
        progress: Whether to show progress bars.
        callbacks: Receive the epochs of `fit`, if the learner trains in epochs, those of each part
            of `finetune`, and the metrics of `evaluate`; such as
            [`Tracker`][pairmatch.tracking.tracker.Tracker].
        engine: Where backbones run, such as `RayEngine()`; None for this process.

    Raises:
        PartError: A part is unknown, broken or of the wrong kind.
        ConfigurationError: An option is invalid; or head, loss or training is given for a learner
            other than `contrastive`.
    """

    def __init__(
        self,
        *,
        backbone: PartSpec = "qwen3-vl-2b",
        pooler: PartSpec = None,
        metadata: PartSpec = "auto",
        head: PartSpec = None,
        loss: PartSpec = None,
        learner: PartSpec = "contrastive",
        reranker: PartSpec = None,
        training: TrainingConfig | Mapping[str, Any] | None = None,
        seed: int | None = None,
        weights: Sequence[float] | None = None,
        prompt: str | None = None,
        prompt_attributes: Sequence[str] = (),
        store: Store | str | Path | None = None,
        store_dtype: str = "float32",
        device: str = "auto",
        allow_upload: bool = False,
        max_usd: float | None = None,
        progress: bool = False,
        callbacks: Sequence[Callback] = (),
        engine: ExtractionEngine | None = None,
    ) -> None:
        resolve_device(device)  # before anything is loaded
        backbones, poolers = build_backbones(backbone, pooler, device)
        settings = {"head": head, "loss": loss, "training": training}
        self.learner = _build_learner(learner, settings, device=device)
        self.reranker = build_reranker(reranker, device)
        self.pipeline = FeaturePipeline(
            backbones=backbones,
            poolers=poolers,
            metadata=build_metadata(metadata, backbones, device),
            weights=check_weights(weights, len(backbones)),
            prompt=prompt,
            prompt_attributes=tuple(prompt_attributes),
            store=store,
            store_dtype=store_dtype,
            allow_upload=allow_upload,
            max_usd=max_usd,
            progress=progress,
            engine=engine,
        )
        self.seed = _seed_of(self.learner) if seed is None else seed
        self.progress = progress
        self.callbacks = tuple(callbacks)
        self.head: ProjectionHead | None = None
        self.second: SecondStage | None = None
        self.reranking: RerankingGate | None = None
        self.sides: int | None = None
        self.history: list[Mapping[str, float]] = []
        self.notes: list[str] = []
        self.metrics: dict[str, Any] | None = None
        self.data: dict[str, int] | None = None
        self._seen: frozenset[str] = frozenset()  # people who took part in `fit`; never saved
        self._training_people: TrainingPeople | None = None  # of a matcher that was loaded
        self.reference: Reference | None = None
        self.probabilities: Probabilities | None = None

    @classmethod
    def preset(cls, name: str, **options: Any) -> Matcher:
        """Creates a matcher from a named preset.

        Args:
            name: `paper`, the published recipe (`Matcher()`); `best`, several learners joined by
                weights that cross-validation on the training pairs decides; `robust` is an earlier
                name of `best`.
            options: Arguments of the constructor.

        Raises:
            ConfigurationError: The preset is unknown.
        """
        return cls(**{**preset_arguments(name), **options})

    def __repr__(self) -> str:
        parts = [*self.backbones, self.metadata, self.learner]
        names = [type(part).__name__ for part in parts if part is not None]
        return f"Matcher({', '.join(names)}; {self._state()})"

    def _repr_html_(self) -> str:
        rows = [["Matcher", self._state()], *([*row] for row in self.summary().items())]
        return html_display(rows, [f"Note: {note}" for note in self.notes])

    def _state(self) -> str:
        if self.head is None:
            return "not fitted"
        return f"fitted on {self.data['pairs']} matches" if self.data else "fitted"

    @property
    def backbones(self) -> list[Backbone]:
        """The frozen models."""
        return self.pipeline.backbones

    @property
    def poolers(self) -> list[Pooler]:
        """One per backbone."""
        return self.pipeline.poolers

    @property
    def metadata(self) -> MetadataGenerator | None:
        """The metadata generator, if there is one."""
        return self.pipeline.metadata

    @property
    def store(self) -> Store:
        """The store, opened on first use."""
        return self.feature_store.store

    @property
    def feature_store(self) -> FeatureStore:
        """Runs backbones and keeps their features in `store`."""
        return self.pipeline.feature_store

    @property
    def fitted_head(self) -> ProjectionHead:
        """The fitted head, in evaluation mode.

        Raises:
            NotFittedError: The matcher is not fitted.
        """
        if self.head is None:
            raise NotFittedError("This matcher has no head before `fit`.")
        return self.head

    def annotate(self, profiles: Sequence[Profile]) -> list[Profile]:
        """Profiles with metadata, if there is a generator and a backbone that reads text.

        Raises:
            UploadError: Photos would leave this machine and `allow_upload` is false.
            GeneratorError: The generator cannot work.
        """
        return self.pipeline.annotate(profiles)

    def features(self, profiles: Sequence[Profile]) -> Vectors:
        """Frozen features of people, before the head: [N, D] float32, from the store if stored."""
        return self.pipeline.features(profiles)

    def extraction_requests(self, profiles: Sequence[Profile]) -> list[ExtractionRequest]:
        """What `features` would extract, one request per backbone, for `plan_extractions`."""
        return self.pipeline.requests(profiles)

    def plan(
        self,
        people: Pairs | Sequence[Profile],
        *,
        gpus: int = 1,
        usd_per_hour: float | None = None,
        accelerator: str | None = None,
    ) -> WorkPlan:
        """What `fit` or `embed` would do before it learns: time and price, before it starts.

        Needs no network, sends nothing, and generates no metadata. The time of each backbone is
        measured on ten photos that are new, whose features are kept in the store. Where weights
        are missing, or for an accelerator, it comes from the number of operations.

        Args:
            people: Pairs, or people.
            gpus: Number of devices that share the work.
            usd_per_hour: Price of one device, in US dollars per hour.
            accelerator: Accelerator to estimate for instead of this machine: `H100`, `A100`, `L4`,
                `T4`, or its peak in TFLOP/s.

        Raises:
            ConfigurationError: An argument is out of range.
            DataError: People with nothing to read or with missing photo files, or a photo of the
                trial cannot be decoded.
        """
        profiles = people.people if isinstance(people, Pairs) else people
        return plan_work(
            [self.pipeline],
            list(profiles),
            gpus=gpus,
            usd_per_hour=usd_per_hour,
            accelerator=accelerator,
        )

    def paired_features(self, pairs: Pairs, *, join_identical: bool = False) -> PairedFeatures:
        """Frozen features of people with the pairs among them.

        Trainers, learners, evaluators, cross-validation and diagnostics take them.

        Args:
            pairs: Pairs of people; those connected through people or groups stay together.
            join_identical: Whether people with identical features (the same photo under two ids)
                stay together too.
        """
        return self.pipeline.paired_features([pairs], join_identical=join_identical)[0]

    def fit(self, train: Pairs, validation: Pairs | None = None) -> Matcher:
        """Annotates and embeds people, each at most once, then learns the head.

        Args:
            train: At least 2 matched pairs.
            validation: Held-out pairs for early stopping and for the calibration of probabilities.
                Without them, the learner `contrastive` holds out a share of the training pairs,
                and recommendations have no probabilities.

        Returns:
            This matcher.

        Raises:
            ConfigurationError: Training and validation pairs have different `sides`.
            DataError: A part has no match.
        """
        if validation is not None and validation.sides != train.sides:
            raise ConfigurationError("Training and validation pairs must have equal `sides`.")
        if not len(train.matches):
            raise DataError(f"There is no match to learn from among {len(train.pairs)} pairs.")
        parts = [train]
        if validation and self.learner.uses_validation:
            parts.append(validation)
        previous = self.pipeline.trained_on, self.pipeline.backbones
        self.pipeline.trained_on = None
        try:
            self.pipeline.fit_backbones(train.people)
            features = self.pipeline.paired_features(parts)
            described = self.pipeline.last_described
            held_out = features[1:]
            if validation and not held_out:
                held_out = self.pipeline.paired_features([validation])
            fitted, gate = self._learn(features)
        except BaseException:
            # The earlier head stays, with the backbones that it was trained on
            self.pipeline.trained_on, self.pipeline.backbones = previous
            raise
        self.head = fitted.head.cpu().eval()
        self.second = fitted.second
        self.reranking = gate
        self.history = list(fitted.history)
        self.notes = list(fitted.notes)
        self.notes += _overlap_notes(*parts)
        for note in self.notes:
            _log.warning(note)
        self.sides = train.sides
        self.metrics = None
        self.data = {
            "pairs": len(train.matches),
            "people": len(train.people),
            "described": described,
        }
        self.pipeline.described = described
        self.pipeline.trained_on = list(self.pipeline.fingerprints())
        self._seen = frozenset(person for part in parts for person in part.profiles)
        self._training_people = None
        hidden = [name for one in self.backbones for name in getattr(one, "leave_out", ())]
        self.reference = Reference.of(train, features[0], self.head, leave_out=hidden)
        self.probabilities = Probabilities.of(held_out[0], self.head) if held_out else None
        return self

    def finetune(
        self,
        train: Pairs,
        validation: Pairs | None = None,
        config: FinetuneConfig | None = None,
        *,
        head: PartSpec = None,
        loss: PartSpec = None,
        checkpoints: str | Path | None = None,
    ) -> Matcher:
        """Fine-tunes the backbones with LoRA, replaces them, and then does what `fit` does.

        A backbone that cannot be tuned stays frozen, if another one can be. The head that a
        backbone is tuned with is not kept: the learner learns one from all the features. With
        fewer than a thousand pairs, `fit` is advised instead.

        In a run of several processes (`accelerate launch`), only the main one does what `fit` does.

        Args:
            train: At least 2 matched pairs.
            validation: Held-out pairs for early stopping, as in `fit`.
            config: Hyperparameters of the tuning.
            head: Head that the backbone is tuned with; None for that of `Finetuner`.
            loss: Loss that it is tuned with, likewise.
            checkpoints: Folder for checkpoints, from which an interrupted run resumes.

        Raises:
            ConfigurationError: No backbone can be fine-tuned, or one has an adapter already; or as
                in `Finetuner.fit`.
            DataError: A part has no match.
        """
        previous = self.pipeline.backbones
        tuned = tune_pipeline(
            self.pipeline,
            train,
            validation,
            config,
            head=head,
            loss=loss,
            checkpoints=checkpoints,
            callbacks=self.callbacks,
        )
        if not tuned.is_main:
            return self
        try:
            self.pipeline.backbones = tuned.backbones
            Callbacks(self.callbacks).on_phase("fit")
            self.fit(train, validation)
        except BaseException:
            self.pipeline.backbones = previous
            raise
        self.notes += tuned.notes
        return self

    def _learn(self, features: Sequence[PairedFeatures]) -> tuple[FittedHead, RerankingGate | None]:
        """Fits the learner, which reports its epochs, and the re-ranker if there is one."""
        stages = self.stages()
        if isinstance(stages, Reranked):
            stages.progress = self.progress
        bars = [ProgressBar()] if self.progress else []
        stages.callbacks = (*bars, *self.callbacks)
        try:
            fitted = stages.fit(*features, seed=self.seed)
        finally:
            stages.callbacks = ()
        return fitted, stages.gate if isinstance(stages, Reranked) else None

    def stages(self) -> Learner:
        """The learner that `fit` fits: with the re-ranker, if there is one, and its gate."""
        if self.reranker is None:
            return self.learner
        return Reranked(learner=self.learner, reranker=self.reranker)

    def evaluate(
        self,
        pairs: Pairs,
        *,
        known: Pairs | None = None,
        target: Target = "match",
        ks: Sequence[int] | None = None,
        resamples: int = 1000,
    ) -> Evaluation:
        """Recall@K and MRR on pairs, in both directions, with chance and frozen features.

        A note and a warning say how many people took part in `fit`; after `load`, about how many,
        if there are at least 10.

        Args:
            pairs: Held-out pairs; each side is the other's gallery.
            known: Pairs that were known at training time, if `pairs` holds some of their people.
                The figures are then those of new people, and `seen` of the result holds those of
                people in `known`; known matches (or a known yes, if that is the target) are neither
                candidates nor to be found.
            target: What is to be found: the `match`; or with `a_likes` or `b_likes`, everyone to
                whom a person of that side said yes.
            ks: K of Recall@K; by default the recipe's.
            resamples: Number of bootstrap resamples of the intervals; 0 for no intervals.

        Raises:
            NotFittedError: The learner needs pairs and `fit` was not called.
            DataError: All matches are known.
        """
        sides = {part.sides for part in (pairs, known) if part is not None}
        if self.sides is not None and sides != {self.sides}:
            raise ConfigurationError(
                f"This matcher was trained on pairs with sides={self.sides}, got "
                f"{', '.join(str(number) for number in sorted(sides))}."
            )
        notes, what_was_known = [], None
        second = self.second if target == "match" else None
        if known is not None:
            pairs, left_out = without_known(pairs, known, target)
            what_was_known = Known.of(pairs, known, target)
            if left_out:
                notes.append(left_out_note(left_out, target))
        data = self.paired_features(pairs)
        head = self._ready_head(data.dim)
        evaluation = Evaluator(ks=ks, resamples=resamples, seed=self.seed).evaluate(
            data,
            None if self.head is None else head,
            known=what_was_known,
            target=target,
            second=second,
        )
        notes += [*self._stage_notes(evaluation, second), *self._overlap(pairs, known)]
        evaluation = dataclasses.replace(evaluation, notes=(*evaluation.notes, *notes))
        self.metrics = evaluation.to_dict()
        with Callbacks(self.callbacks) as callbacks:
            callbacks.on_evaluation("test", evaluation.flat())
        if self.reference is not None and target == "match":
            auc, error = auc_of(evaluation)
            self.reference = dataclasses.replace(self.reference, auc=auc, auc_error=error)
        return evaluation

    def _stage_notes(self, evaluation: Evaluation, second: SecondStage | None) -> list[str]:
        """What the figures with and without the head, and the re-ranker, are figures of."""
        notes = stage_notes(self.second, second)
        if evaluation.frozen is None or not adapters_of(self.backbones):
            return notes
        return [
            "Frozen here are the features of the fine-tuned backbones, without a head.",
            *notes,
        ]

    def _overlap(self, pairs: Pairs, known: Pairs | None) -> list[str]:
        """A note, which is logged too, if people took part in training and are not known to."""
        given = frozenset() if known is None else known.profiles.keys()
        ids = [profile.id for profile in pairs.people if profile.id not in given]
        seen, about = sum(person in self._seen for person in ids), ""
        if self._training_people is not None:
            seen, about = self._training_people.count(ids), "About "
        if not seen:
            return []
        note = (
            f"{about}{seen} of {len(ids)} people took part in training: these figures say "
            "nothing about new people."
        )
        _log.warning(note)
        return [note]

    def cross_validate(
        self,
        pairs: Pairs,
        learners: Mapping[str, PartSpec] | Sequence[str] = COMPARED,
        *,
        repeats: int = 10,
        folds: int = 5,
        ks: Sequence[int] | None = None,
        join_identical: bool = False,
    ) -> CrossValidation:
        """Tests this matcher's learner, and others, on people not seen in training.

        With a re-ranker, `trained` is both stages, the second one where it passes in each fold.

        Every pair is tested once per repeat. People are embedded once; this matcher's own head is
        not changed. Before `fit`, backbones that learn (`attributes`) learn from all people here,
        without the pairs.

        Args:
            pairs: All available pairs; no split is needed.
            learners: Learners to compare with `trained`: names, or by label a name with options or
                an instance. `best` takes most of the time; the simple baselines alone are
                `pairmatch.evaluation.crossvalidation.BASELINES`.
            repeats: Number of repeats, each with new folds.
            folds: Number of folds per repeat.
            ks: K of Recall@K; by default the recipe's.
            join_identical: Whether people with identical features (the same photo under two ids)
                stay in one fold.
        """
        named = learners if isinstance(learners, Mapping) else {name: name for name in learners}
        pipeline = self.pipeline.ready(pairs.people)
        return cross_validate(
            pipeline.paired_features([pairs], join_identical=join_identical)[0],
            {"trained": self.stages(), **named},
            repeats=repeats,
            folds=folds,
            ks=ks,
            seed=self.seed,
            progress=self.progress,
        )

    def embed(self, profiles: Sequence[Profile], *, side: Side = "a") -> Vectors:
        """Embeddings of people: [N, K] float32, unit length.

        Args:
            profiles: N people.
            side: Side that they are on; matters if the head treats sides differently.

        Raises:
            NotFittedError: The learner needs pairs and `fit` was not called.
        """
        self._check_fitted()
        h = self.features(profiles)
        return self._ready_head(h.shape[1]).embed(h, side)

    def embedding_digest(self) -> str:
        """What embeddings were made by: two matchers with equal digests embed people equally.

        It is the SHA-256 (hex) of the weights of the head; with adapters, of both; and of a head
        without weights, that of the backbones, poolers and prompt.
        """
        return embedding_digest(self.head, self.pipeline, adapters_of(self.backbones))

    def gallery(self, profiles: Sequence[Profile], *, side: Side = "b") -> Gallery:
        """Embeds candidates once, to be ranked for many people.

        Args:
            profiles: N candidates with distinct ids.
            side: Side that the candidates are on.
        """
        people = list(profiles)
        embeddings = self.embed(people, side=side)
        return Gallery.of(people, embeddings, side=side, made_by=self.embedding_digest())

    def add_to(self, gallery: Gallery, profiles: Sequence[Profile]) -> None:
        """Embeds people and adds them to a gallery, replacing those with the same id.

        Raises:
            ConfigurationError: The gallery was embedded by another matcher.
        """
        check_gallery(gallery, self.embedding_digest())
        if gallery.made_by is None and not len(gallery):
            gallery.made_by = self.embedding_digest()
        people = list(profiles)
        gallery.add(people, self.embed(people, side=gallery.side))

    def recommend(
        self,
        profile: Profile,
        gallery: Gallery | Sequence[Profile],
        k: int = 20,
        *,
        where: str | Iterable[str] | None = None,
        mutual: bool = False,
        exclude: Exclusions | Iterable[str] = (),
    ) -> Recommendations:
        """The best candidates for a person, best first; the person is never a candidate.

        Args:
            profile: Query person, new people included; on the side opposite to the gallery.
            gallery: Candidates, or a gallery that was built once with `gallery(...)`.
            k: Maximum number of candidates, at least 1.
            where: Rule for candidates, such as `age between 25 and 35 and abs(age - query.age) <=
                5`, or several.
            mutual: Whether the rule must also hold with the roles swapped.
            exclude: Candidates that are not shown: ids, or `Exclusions`.

        Returns:
            A list; if it is empty, its `excluded_by` names the filter that removed the last
            candidate. Its `caveats` say why the probabilities may not hold. With a re-ranker, the
            best `top` candidates that the rule admits are in its order, and the others below them;
            `score` and `probability` stay those of the first stage.

        Raises:
            ConfigurationError: The rule is invalid, another matcher embedded the gallery, or
                `exclude` matches no candidate at all.
        """
        k = check_count("recommend(k=...)", k)
        hidden = hidden_ids(profile, exclude, gallery)
        if not isinstance(gallery, Gallery):
            shown, excluded_by = shown_candidates(
                gallery, profile, where=where, mutual=mutual, hidden=hidden
            )
            if not shown:
                return Recommendations([], 0, excluded_by)
            gallery = self.gallery(shown)
            where = None
            mutual = False
        check_gallery(gallery, self.embedding_digest())
        query = self.embed([profile], side="a" if gallery.side == "b" else "b")
        search = partial(
            rank_candidates, gallery, query, profile, where=where, mutual=mutual, hidden=hidden
        )
        ranking = rank_in_stages(search, gallery, query, profile, k, self.second)
        return with_probabilities(ranking, self.probabilities)

    def recommend_all(
        self,
        people_a: Gallery | Sequence[Profile],
        people_b: Gallery | Sequence[Profile],
        folder: str | Path,
        k: int = 20,
        **options: Any,
    ) -> Slates:
        """The best candidates of every person, in both directions, streamed to Parquet files.

        They are those of the first stage: a re-ranker does not read the pairs of a whole market,
        and a warning says so.

        Args:
            people_a: People of side a: profiles or a gallery.
            people_b: People of side b.
            folder: Output folder; an interrupted run resumes.
            k: Number of candidates per person.
            options: As [`recommend_all`][pairmatch.gallery.bulk.recommend_all] takes them:
                `where`, `mutual`, `exclude`, `bonus_a`, `bonus_b`.
        """
        a = people_a if isinstance(people_a, Gallery) else self.gallery(people_a, side="a")
        b = people_b if isinstance(people_b, Gallery) else self.gallery(people_b, side="b")
        if self.second is not None:
            _log.warning(
                "Slates are in the order of the first stage: the re-ranker %s orders only the "
                "candidates of one person at a time (`recommend`).",
                reranker_name(self.second.reranker),
            )
        return recommend_all(a, b, folder, k, **options)

    def summary(self) -> dict[str, str]:
        """Description of each part of this matcher, by name of the part."""
        return summary(self.pipeline, self.learner, self.head, self.second)

    def save(self, folder: str | Path) -> Path:
        """Writes the matcher as JSON and safetensors, with a model card.

        All files are replaced at once, or none if the save fails or is killed; other files in the
        folder are kept. It holds no photo, id, text or feature of any person. A head or loss that
        was given as an instance is recorded by name and options: after loading, the fitted head is
        the same, but another `fit` starts from new weights.

        Raises:
            NotFittedError: The matcher is not fitted.
            PartError: A part's class has no registered name, so it could not be loaded.
            ConfigurationError: The folder holds files that pairmatch did not write, or cannot be
                written; or an option cannot be written as JSON.
        """
        if self.head is None:
            raise NotFittedError("There is nothing to save before `fit`.")
        state = {name: getattr(self, name) for name in saving.STATE}
        table = self._training_people
        if table is None and self._seen:
            table = TrainingPeople.of(self._seen, head_digest(self.head) or "pairmatch")
        state["training_people"] = None if table is None else table.to_json()
        state["reference"] = None if self.reference is None else self.reference.to_json()
        chances = self.probabilities
        state["probabilities"] = None if chances is None else chances.to_json()
        gate, second = self.reranking, self.second
        state["reranking"] = None if gate is None else dataclasses.asdict(gate)
        parts = (self.pipeline, self.learner, self.head, self.reranker, second)
        record = saving.describe(*parts) | state
        target = Path(folder)
        adapters = adapters_of(self.backbones)
        learned = None if second is None else second.state()
        write_folder(target, record, self.head.state_dict(), self.history, adapters, learned)
        return target

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        token: str | None = None,
        endpoint: str | None = None,
    ) -> str:
        """Saves this matcher to the Hugging Face Hub, with its model card.

        The folder of `save` is uploaded. The head was learned from people: share it only to the
        extent that they agreed to.

        Args:
            repo_id: `owner/name`; created if it does not exist.
            private: Whether a new repository is private; existing ones are not changed.
            token: Access token; by default that of `hf auth login`.
            endpoint: URL of another hub.

        Returns:
            URL of the repository.

        Raises:
            NotFittedError: The matcher is not fitted.
            SavedMatcherError: The hub refused, or cannot be reached.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = self.save(folder)
            return hub.push(
                path,
                repo_id,
                private=private,
                token=token,
                endpoint=endpoint,
                message="A pairmatch matcher",
            )

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        endpoint: str | None = None,
        **options: Any,
    ) -> Matcher:
        """Loads a matcher from a folder or from the Hugging Face Hub, without running its code.

        Args:
            name: Folder, or `owner/name` on the hub.
            revision: Branch, tag or commit on the hub.
            token: Access token for a private repository; by default that of `hf auth login`.
            endpoint: URL of another hub.
            options: As `load` takes them.

        Raises:
            SavedMatcherError: Neither a folder nor a repository with this name holds a matcher, or
                the folder is damaged.
            PartError: A part's plugin is not installed; names the distribution that provided it.
        """
        folder = Path(name)
        if not folder.is_dir():
            folder = hub.fetch(str(name), revision=revision, token=token, endpoint=endpoint)
        return cls.load(folder, **options)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        backbone: PartSpec = None,
        metadata: PartSpec | Mapping[str, Any] = None,
        **options: Any,
    ) -> Matcher:
        """Loads a saved matcher. Nothing in the folder is executed.

        Parts come from installed distributions.

        Args:
            folder: Folder that `save` wrote.
            backbone: Replaces the saved backbones, for example if the weights are at another path;
                one of the same name keeps what it learned. It must return the same features; a
                warning says if its fingerprint differs.
            metadata: Options of the metadata generator that override the saved ones, or another
                generator. The address of a server (`base_url`) and the name of the variable that
                holds the key are never saved: name them here.
            options: `store`, `device`, `allow_upload`, `max_usd`, `progress`, `callbacks` and
                `engine`, as in the constructor.

        Raises:
            SavedMatcherError: The folder does not exist, a file is damaged, or the format is
                unknown.
            PartError: A part's plugin is not installed; names the distribution that provided it.
            ConfigurationError: An option is unknown.
        """
        saving.check_load_options(options)
        path = Path(folder)
        record, weights, history = read_folder(path)
        with saving.explained_errors(path, record):
            arguments = saving.constructor_arguments(record, metadata)
            if backbone is not None:
                arguments["backbone"] = saving.replaced_backbones(record, backbone)
            matcher = cls(**arguments, **options)
            matcher.head = saving.build_saved_head(record, weights)
            for name in saving.STATE:
                setattr(matcher, name, record[name])
            matcher.pipeline.trained_on = record["fingerprints"]
            matcher.pipeline.described = (matcher.data or {}).get("described")
            if record.get("training_people"):
                table = TrainingPeople.from_json(record["training_people"])
                matcher._training_people = table
            if record.get("reference"):
                matcher.reference = Reference.from_json(record["reference"])
            if record.get("probabilities"):
                matcher.probabilities = Probabilities.from_json(record["probabilities"])
            if record.get("reranking"):
                matcher.reranking = RerankingGate.of_record(record["reranking"])
            if matcher.reranker is not None and "reranker_state" in record:
                state = record["reranker_state"]
                matcher.second = saving.restored_second(matcher.reranker, state, matcher.head)
        matcher.history = list(history)
        return matcher

    def _check_fitted(self) -> None:
        dim = getattr(getattr(self.learner, "head", None), "dim", _PROBE_DIM)
        if self.head is None and self.learner.untrained_head(dim) is None:
            raise NotFittedError(
                "This matcher's head needs training: call `fit` first, or use head='identity'."
            )

    def _ready_head(self, dim: int) -> ProjectionHead:
        """The fitted head, or the one that serves before any fit."""
        head = self.head if self.head is not None else self.learner.untrained_head(dim)
        if head is None:
            self._check_fitted()
            raise NotFittedError("This matcher's head needs training: call `fit` first.")
        return head


def _overlap_notes(train: Pairs, validation: Pairs | None = None) -> list[str]:
    """What is wrong with early stopping on people who are trained on."""
    shared = 0 if validation is None else len(train.profiles.keys() & validation.profiles.keys())
    if not shared:
        return []
    return [f"{shared} people are in training and validation pairs: early stopping saw them."]


def _seed_of(learner: Learner) -> int:
    """The seed among a learner's training hyperparameters; 0 if it has none."""
    training = getattr(learner, "training", None)
    if isinstance(training, Mapping):
        return int(training.get("seed", 0))
    return int(getattr(training, "seed", 0))


def _build_learner(learner: PartSpec, settings: Mapping[str, Any], *, device: str) -> Learner:
    """The learner, with head, loss and training if it is the contrastive one."""
    named = {name: value for name, value in settings.items() if value is not None}
    parsed = parse_spec(learner)
    if parsed is not None and parsed[0] == "contrastive":
        twice = [name for name in named if name in parsed[1]]
        if twice:
            raise ConfigurationError(
                f"{', '.join(twice)} of the learner 'contrastive' is given twice: as an argument "
                "of `Matcher` and as an option of the learner."
            )
        learner = ("contrastive", {**parsed[1], **named})
    elif named:
        name = type(learner).__name__ if parsed is None else parsed[0]
        options = ", ".join(_COMMAND_LINE[setting] for setting in named)
        raise ConfigurationError(
            f"The learner {name!r} does not use {', '.join(named)} (command line: {options}): "
            "these arguments configure 'contrastive' given by name. Omit them, or give the options "
            "to the learner itself."
        )
    if isinstance(learner, Reranked):
        raise ConfigurationError(
            "A matcher takes both stages apart: `Matcher(learner=..., reranker=...)`."
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return registry.create("learners", learner, device=device)

"""The facade.

From pairs of people to a matcher that ranks candidates for anyone. Delegates; does no arithmetic.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pairmatch.core import registry
from pairmatch.core._version import __version__
from pairmatch.core.config import PartSpec, TrainingConfig, parse_spec
from pairmatch.core.errors import (
    ConfigurationError,
    NotFittedError,
    PartError,
    SavedMatcherError,
    unknown_name,
)
from pairmatch.core.interfaces import (
    Backbone,
    ContrastiveLoss,
    Learner,
    MetadataGenerator,
    Pooler,
    ProjectionHead,
)
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.types import Profile, Side
from pairmatch.data import Pairs
from pairmatch.evaluation.crossvalidation import BASELINES, CrossValidation, cross_validate
from pairmatch.evaluation.evaluator import Evaluation, Evaluator
from pairmatch.features.extractor import FeatureStore, join
from pairmatch.features.prompt import check_template
from pairmatch.gallery import (
    Exclusions,
    Gallery,
    Recommendation,
    Recommendations,
    Slates,
    eligible,
    recommend_all,
)
from pairmatch.io.store import Store
from pairmatch.learning.baselines import Contrastive, Frozen
from pairmatch.learning.heads import FittedHead, PerSideHead, build_head, describe_head, embed
from pairmatch.learning.trainer import Trainer, TrainingResult
from pairmatch.matcher import hub, saving
from pairmatch.metadata.annotate import annotate

_log = logging.getLogger(__name__)
PRESETS: Mapping[str, Mapping[str, Any]] = {"paper": {}, "robust": {"learner": "robust"}}
_TRIAL_DIM = 240  # a width with many divisors; the backbone's own is not known before it is loaded


class Matcher:
    """Learns from matched pairs who goes with whom, and ranks candidates for anyone.

    Without arguments it is the published recipe: GPT-5-nano metadata, frozen Qwen3-VL-2B, mean
    pooling, an MLP head of width 512, InfoNCE with τ = 0.2.

    Parts are given as a name, a name with options (`("clip", {"model": "ViT-L-14"})`) or an
    instance.

    Args:
        backbone: The frozen model; or a list of several, whose features are scaled to unit length,
            weighted and joined.
        pooler: One for all backbones, or a list with one per backbone; None takes each backbone's
            own default.
        metadata: Generator of attributes from photos, for people who have no metadata yet, used
            where a backbone reads text; None or `"none"` for none. Nothing is sent anywhere before
            `allow_upload`.
        head: The trained map. `"identity"` needs no training: the frozen baseline.
        loss: The contrastive loss.
        learner: Learns the head in another way than by training it with the loss, such as
            `"robust"`; head, loss and training are then not used.
        training: Numbers of the run; the recipe's by default.
        weights: One per backbone, above 0, for joining; by default all 1.
        prompt: Template of the text that backbones read; None for the package's own.
        prompt_attributes: Names of the profile attributes that go into the prompt.
        store: Where features and metadata are kept: a `Store`, a path, or None for the user's own.
        store_dtype: `float32`, or `float16` for half the space.
        device: Of backbones and training; `auto` takes an accelerator if there is one.
        allow_upload: Lets a metadata generator send photos to a remote host.
        max_usd: Stops paid metadata cleanly at this cost; None for no cap.
        progress: Shows progress bars.

    Raises:
        PartError: A part is unknown, broken or of the wrong kind.
        ConfigurationError: An option that cannot work.
    """

    def __init__(
        self,
        *,
        backbone: PartSpec = "qwen3-vl-2b",
        pooler: PartSpec = None,
        metadata: PartSpec = "gpt-5-nano",
        head: PartSpec = "mlp",
        loss: PartSpec = "infonce",
        learner: PartSpec = None,
        training: TrainingConfig | None = None,
        weights: Sequence[float] | None = None,
        prompt: str | None = None,
        prompt_attributes: Sequence[str] = (),
        store: Store | str | Path | None = None,
        store_dtype: str = "float32",
        device: str = "auto",
        allow_upload: bool = False,
        max_usd: float | None = None,
        progress: bool = False,
    ) -> None:
        specs = several(backbone)
        if device == "auto":
            self._trainer_device = "cuda" if torch.cuda.is_available() else "cpu"
        else:
            self._trainer_device = device
        self.backbones: list[Backbone] = [
            registry.create("backbones", spec, device=device) for spec in specs
        ]
        poolers = several(pooler) if pooler is not None else [None] * len(specs)
        if len(poolers) == 1:
            poolers = poolers * len(specs)
        if len(poolers) != len(specs):
            raise ConfigurationError(
                f"`pooler` needs one part, or one per backbone: {len(specs)}, got {len(poolers)}."
            )
        self.poolers: list[Pooler] = [
            registry.create("poolers", one.default_pooler if spec is None else spec)
            for one, spec in zip(self.backbones, poolers, strict=True)
        ]
        if weights is not None and (len(weights) != len(specs) or min(weights) <= 0):
            raise ConfigurationError(
                f"`weights` needs one positive number per backbone ({len(specs)}), got {weights}."
            )
        self.weights = None if weights is None else [float(weight) for weight in weights]
        self.metadata: MetadataGenerator | None = (
            None
            if metadata in (None, "none")
            else registry.create("metadata", metadata, device=device)
        )
        if isinstance(head, ProjectionHead):
            self._head_spec: PartSpec = head
        else:
            build_head(
                head, dim=_TRIAL_DIM
            )  # a wrong option is found now, not after everybody was embedded
            self._head_spec = head
        self.loss: ContrastiveLoss = registry.create("losses", loss)
        self._learner: Learner | None = (
            None if learner is None else registry.create("learners", learner)
        )
        self.training = training or TrainingConfig()
        self.prompt, self.prompt_attributes = prompt, tuple(prompt_attributes)
        self.device, self.progress = device, progress
        self.allow_upload, self.max_usd = allow_upload, max_usd
        self._store, self._store_dtype = store, store_dtype
        self._features: FeatureStore | None = None
        self.head: ProjectionHead | None = None
        self.sides: int | None = None
        self.history: list[dict[str, float]] = []
        self.notes: list[str] = []
        self.metrics: dict[str, Any] | None = None
        self._data: dict[str, int] | None = None
        self._trained_on: list[Mapping[str, Any]] | None = None
        self._seen: frozenset[str] = frozenset()  # who took part in `fit`; forgotten when saved
        self._warned = False

    @classmethod
    def preset(cls, name: str, **options: Any) -> Matcher:
        """A matcher with settings that belong together.

        Args:
            name: `paper`, the published recipe (`Matcher()`); or `robust`, which learns a metric in
                closed form, as much of it as cross-validation among the training pairs supports:
                for 20 to some thousand pairs.
            options: As the constructor takes them.

        Raises:
            ConfigurationError: An unknown preset.
        """
        if name not in PRESETS:
            raise ConfigurationError(unknown_name("preset", name, PRESETS))
        return cls(**{**PRESETS[name], **options})

    @property
    def store(self) -> Store:
        """The store, opened when it is first needed."""
        return self.feature_store.store

    @property
    def feature_store(self) -> FeatureStore:
        """Runs backbones and keeps their features in `store`."""
        if self._features is None:
            self._features = FeatureStore(
                self._store, dtype=self._store_dtype, progress=self.progress
            )
        return self._features

    def annotate(self, profiles: Sequence[Profile]) -> list[Profile]:
        """Profiles with metadata filled in, as far as there is a generator and a backbone that reads text.

        Raises:
            UploadError: Photos would leave this machine and `allow_upload` is false.
            GeneratorError: Nothing can be generated for anyone.
        """
        if self.metadata is None or not any(backbone.reads_text for backbone in self.backbones):
            return list(profiles)
        annotation = annotate(
            profiles,
            self.metadata,
            self.store,
            allow_upload=self.allow_upload,
            max_usd=self.max_usd,
            progress=self.progress,
        )
        if annotation.asked or annotation.refused:
            _log.log(logging.WARNING if annotation.refused else logging.INFO, "%s", annotation)
        return list(annotation.profiles)

    def features(self, profiles: Sequence[Profile]) -> npt.NDArray[np.float32]:
        """Frozen features of people, before the head.

        [N, D] float32, from the store as far as they are there.
        """
        self._check_backbones()
        annotated = self.annotate(profiles)
        if self.prompt is not None and annotated:
            check_template(self.prompt, annotated)
        parts = [
            self.feature_store.embed(
                annotated,
                backbone,
                [pooler],
                prompt=self.prompt,
                prompt_attributes=self.prompt_attributes,
            )[0]
            for backbone, pooler in zip(self.backbones, self.poolers, strict=True)
        ]
        return join(parts, self.weights)

    def fit(self, train: Pairs, validation: Pairs | None = None) -> Matcher:
        """Annotates and embeds everybody (each once ever), then trains the head.

        Args:
            train: At least 2 matched pairs.
            validation: Held-out pairs for early stopping; without them all epochs are run. A
                `learner` has no use for them.

        Returns:
            This matcher.
        """
        if validation is not None and validation.sides != train.sides:
            raise ConfigurationError("Training and validation pairs must have the same sides.")
        self._trained_on = None
        parts = (train,) if self._learner is not None or not validation else (train, validation)
        people = {profile.id: profile for part in parts for profile in part.people}
        if self._learner is not None:
            self._learn(self._learner, train)
        else:
            self._train(list(people.values()), *parts)
        self.sides = train.sides
        self.metrics = None
        self._seen = frozenset(people)
        both = train.profiles.keys() & parts[-1].profiles.keys() if len(parts) > 1 else ()
        if both:
            self.notes.append(
                f"{len(both)} people stand in training and validation pairs: early stopping saw them."
            )
            _log.warning(self.notes[-1])
        self._data = {"pairs": len(train.matches), "people": len(train.people)}
        self._trained_on = [dict(backbone.fingerprint()) for backbone in self.backbones]
        return self

    def _train(
        self, people: Sequence[Profile], train: Pairs, validation: Pairs | None = None
    ) -> None:
        """By contrast, with early stopping where there are validation pairs."""
        h = self.features(people)
        row = {profile.id: index for index, profile in enumerate(people)}
        train_a, train_b = self._rows(train, h, row)
        held_out: dict[str, Any] = {}
        if validation is not None:
            held_a, held_b = self._rows(validation, h, row)
            held_out = {
                "validation_a": held_a,
                "validation_b": held_b,
                "validation_matches": validation.matches,
            }
        trainer = Trainer(
            self._head_spec,
            self.loss,
            self.training,
            device=self._trainer_device,
            progress=self.progress,
        )
        result: TrainingResult = trainer.fit(
            train_a, train_b, matches=train.matches, rejected=train.rejected, **held_out
        )
        self.head = result.head.cpu()
        self.history, self.notes = list(result.history), list(result.notes)

    def _learn(self, learner: Learner, train: Pairs) -> None:
        """In the learner's own way."""
        found = learner.fit(self.paired_features(train), seed=self.training.seed)
        if not isinstance(found, FittedHead):
            raise ConfigurationError(
                f"The learner {type(learner).__name__} learns no head that a matcher could keep: its `fit` must return a "
                "`pairmatch.heads.FittedHead`. It can be compared with others by `cross_validate`."
            )
        self.head, self.history, self.notes = found.head.cpu(), [], list(found.notes)
        for note in found.notes:
            _log.warning(note)

    @staticmethod
    def _rows(
        pairs: Pairs, h: npt.NDArray[np.float32], row: Mapping[str, int]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        a = h[[row[person] for person in pairs.ids_a]]
        return a, None if pairs.sides == 1 else h[[row[person] for person in pairs.ids_b]]

    def evaluate(
        self, pairs: Pairs, *, ks: Sequence[int] | None = None, resamples: int = 1000
    ) -> Evaluation:
        """Recall@K and MRR on pairs, both ways, with intervals, beside chance and the frozen features.

        Where people took part in `fit`, a note and a warning say how many.

        Args:
            pairs: Held-out pairs; each side is the other's gallery.
            ks: K of Recall@K; the recipe's by default.
            resamples: Of the bootstrap; 0 leaves intervals out.
        """
        if self.sides is not None and pairs.sides != self.sides:
            raise ConfigurationError(
                f"This matcher was trained on pairs with sides={self.sides}, got {pairs.sides}."
            )
        profiles = list(pairs.people)
        row = {profile.id: index for index, profile in enumerate(profiles)}
        frozen_a, frozen_b = self._rows(pairs, self.features(profiles), row)
        head = self._ready_head(frozen_a.shape[1])
        evaluator = Evaluator(ks=ks, resamples=resamples, seed=self.training.seed)
        baseline = {"frozen_a": frozen_a, "frozen_b": frozen_b} if self.head is not None else {}
        e_b = None if frozen_b is None else embed(head, frozen_b, "b")
        evaluation = evaluator.evaluate(
            embed(head, frozen_a, "a"), e_b, matches=pairs.matches, **baseline
        )
        seen = sum(profile.id in self._seen for profile in profiles)
        if seen:
            note = f"{seen} of {len(profiles)} people took part in training: these figures say nothing of new people."
            _log.warning(note)
            evaluation = dataclasses.replace(evaluation, notes=(*evaluation.notes, note))
        self.metrics = evaluation.to_dict()
        return evaluation

    def paired_features(self, pairs: Pairs, *, join_identical: bool = False) -> PairedFeatures:
        """Frozen features of pairs' people with the pairs among them: what `cross_validate` and diagnostics take.

        Args:
            pairs: Pairs of people; those that are joined through people or groups stay together.
            join_identical: People with identical features (the same photo under two ids) stay
                together too.
        """
        profiles = list(pairs.people)
        row = {profile.id: index for index, profile in enumerate(profiles)}
        a, b = self._rows(pairs, self.features(profiles), row)
        is_match = [pair.outcome == "match" for pair in pairs.pairs]
        return PairedFeatures.of(
            a,
            b,
            matches=pairs.matches,
            rejected=pairs.rejected,
            groups=pairs.components()[is_match].tolist(),
            join_identical=join_identical,
        )

    def learner(self) -> Learner:
        """This matcher's head, loss and training as a learner that `cross_validate` trains anew for every fold."""
        if self._learner is not None:
            return self._learner
        if not self._trainable:
            return Frozen()
        return Contrastive(head=self._head_spec, loss=self.loss, training=self.training)

    def cross_validate(
        self,
        pairs: Pairs,
        learners: Mapping[str, PartSpec] | Sequence[str] = BASELINES,
        *,
        repeats: int = 10,
        folds: int = 5,
        ks: Sequence[int] | None = None,
        join_identical: bool = False,
    ) -> CrossValidation:
        """Tests this matcher's training on people it never saw, beside other learners, every pair once per repeat.

        Embeds everybody once; this matcher's own head is left as it is.

        Args:
            pairs: All the pairs there are; no split is needed.
            learners: What stands beside `trained`: names, or by label a name with options or an
                instance.
            repeats: Times that all folds are drawn anew.
            folds: Parts of each repeat.
            ks: K of Recall@K; the recipe's by default.
            join_identical: People with identical features (the same photo under two ids) stay in
                one fold.
        """
        others = learners if isinstance(learners, Mapping) else {name: name for name in learners}
        return cross_validate(
            self.paired_features(pairs, join_identical=join_identical),
            {"trained": self.learner(), **others},
            repeats=repeats,
            folds=folds,
            ks=ks,
            seed=self.training.seed,
            progress=self.progress,
        )

    def embed(self, profiles: Sequence[Profile], *, side: Side = "a") -> npt.NDArray[np.float32]:
        """Embeddings of people: [N, K] float32, unit length.

        Args:
            profiles: N people.
            side: Matters only to a matcher with one head per side.

        Raises:
            NotFittedError: The head needs training.
        """
        self._check_fitted()
        h = self.features(profiles)
        return embed(self._ready_head(h.shape[1]), h, side)

    def gallery(self, profiles: Sequence[Profile], *, side: Side = "b") -> Gallery:
        """Embeds candidates once, to be ranked for many people.

        Args:
            profiles: N candidates; ids must differ.
            side: Side that the candidates are on.
        """
        people = list(profiles)
        return Gallery.of(
            people, self.embed(people, side=side), side=side, made_by=self._head_digest()
        )

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
            profile: Anyone, new people included; stands on the side opposite to the gallery.
            gallery: Candidates, or a gallery that was built once with `gallery(...)`.
            k: Most candidates to return, at least 1.
            where: Rule for candidates, such as `age between 25 and 35 and abs(age - query.age) <=
                5`, or several.
            mutual: The rule must hold the other way round too, with the candidate as the one who
                asks.
            exclude: Who is not shown: ids, or `Exclusions`.

        Returns:
            A list; where it is empty, its `excluded_by` says what left nobody.

        Raises:
            ConfigurationError: A rule that cannot be used, or a gallery that another matcher
                embedded.
        """
        if k < 1:
            raise ConfigurationError(f"`recommend(k=...)` must be at least 1, got {k}.")
        hidden = {
            profile.id,
            *(exclude.of(profile.id) if isinstance(exclude, Exclusions) else exclude),
        }
        if isinstance(gallery, Gallery):
            pool = gallery
        else:  # nobody is embedded who could not be shown
            people, excluded_by = eligible(
                list(gallery), where, asking=profile.attributes, mutual=mutual
            )
            shown = [one for one in people if one.id not in hidden]
            if not shown:
                return Recommendations([], 0, excluded_by or "exclusions")
            pool, where, mutual = self.gallery(shown), None, False
        self._check_gallery(pool)
        query = self.embed([profile], side="a" if pool.side == "b" else "b")
        found = pool.search(
            query, k, where=where, asking=[profile.attributes], mutual=mutual, excluded=[hidden]
        )
        candidates = [
            Recommendation(rank, pool.profile(person), score)
            for rank, (person, score) in enumerate(found.of(0), 1)
        ]
        return Recommendations(candidates, int(found.eligible[0]), found.excluded_by[0])

    def add_to(self, gallery: Gallery, profiles: Sequence[Profile]) -> None:
        """Embeds people and adds them to a gallery; whoever is in it already is replaced.

        Raises:
            ConfigurationError: A gallery that another matcher embedded.
        """
        self._check_gallery(gallery)
        people = list(profiles)
        gallery.add(people, self.embed(people, side=gallery.side))

    def recommend_all(
        self,
        people_a: Gallery | Sequence[Profile],
        people_b: Gallery | Sequence[Profile],
        folder: str | Path,
        k: int = 20,
        **options: Any,
    ) -> Slates:
        """Everybody's best candidates on the other side, both ways, streamed to Parquet files.

        Args:
            people_a: Those of side a: profiles or a gallery.
            people_b: Those of side b.
            folder: A run that was killed goes on where it stopped.
            k: Candidates per person.
            options: As [`recommend_all`][pairmatch.gallery.bulk.recommend_all] takes them: `where`,
                `mutual`, `exclude`, `bonus_a`, `bonus_b`.
        """
        a = people_a if isinstance(people_a, Gallery) else self.gallery(people_a, side="a")
        b = people_b if isinstance(people_b, Gallery) else self.gallery(people_b, side="b")
        return recommend_all(a, b, folder, k, **options)

    def _check_gallery(self, gallery: Gallery) -> None:
        digest = self._head_digest()
        if gallery.made_by and digest and gallery.made_by != digest:
            raise ConfigurationError(
                "This gallery was embedded by a matcher with another head, so scores would mean nothing: build it "
                "again with this one."
            )

    def _head_digest(self) -> str | None:
        """Tells the embeddings of one head from those of another.

        None where the head has no weights.
        """
        state = {} if self.head is None else self.head.state_dict()
        if not state:
            return None
        digest = hashlib.sha256()
        for name, weight in sorted(state.items()):
            digest.update(name.encode() + weight.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def summary(self) -> dict[str, str]:
        """What this matcher is made of, in words, by name of the part."""

        def words(name: str, options: Mapping[str, Any]) -> str:
            shown = ", ".join(
                f"{key}={getattr(value, '__name__', value)}"
                for key, value in options.items()
                if value is not None
            )
            return f"{name} ({shown})" if shown else name

        def part(kind: str, value: Any) -> str:
            try:
                return words(*registry.describe(kind, value))
            except PartError:
                return type(value).__name__

        reads_text = any(backbone.reads_text for backbone in self.backbones)
        unread = "none" if self.metadata is None else "none: no backbone here reads text"
        parts = {
            "Backbone": " + ".join(part("backbones", backbone) for backbone in self.backbones),
            "Pooling": ", ".join(part("poolers", pooler) for pooler in self.poolers),
            "Metadata": part("metadata", self.metadata)
            if self.metadata is not None and reads_text
            else unread,
        }
        if self._learner is not None:
            parts["Learner"] = part("learners", self._learner)
        else:
            parts["Loss"] = part("losses", self.loss)
            parts["Training"] = ", ".join(
                f"{key} {value}" for key, value in dataclasses.asdict(self.training).items()
            )
        if self.head is not None:
            parts["Head"] = words(*describe_head(self.head))
        return parts

    def save(self, folder: str | Path) -> Path:
        """Writes the matcher as JSON and safetensors, with a model card; nothing of any person.

        Raises:
            NotFittedError: There is no trained head yet.
            PartError: A part's class is registered under no name, so that it could not be found
                again.
            ConfigurationError: An option that cannot be written as JSON.
        """
        if self.head is None:
            raise NotFittedError("There is nothing to save before `fit`.")
        head_name, head_options = describe_head(self.head)
        record = {
            "pairmatch": __version__,
            "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "sides": self.sides,
            "dim": self._dim,
            "parts": {
                "backbones": [
                    saving.part_record("backbones", backbone) for backbone in self.backbones
                ],
                "poolers": [saving.part_record("poolers", pooler) for pooler in self.poolers],
                "metadata": None
                if self.metadata is None
                else saving.part_record("metadata", self.metadata),
                "head": saving.named_record("heads", head_name, head_options),
                "loss": saving.part_record("losses", self.loss),
                "learner": None
                if self._learner is None
                else saving.part_record("learners", self._learner),
            },
            "fingerprints": self._trained_on,
            "weights": self.weights,
            "prompt": self.prompt,
            "prompt_attributes": list(self.prompt_attributes),
            "store_dtype": self._store_dtype,
            "training": dataclasses.asdict(self.training),
            "data": self._data,
            "notes": self.notes,
            "metrics": self.metrics,
        }
        target = Path(folder)
        saving.write(target, record, self.head.state_dict(), self.history)
        return target

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        token: str | None = None,
        endpoint: str | None = None,
    ) -> str:
        """Saves this matcher to the Hugging Face Hub, with its model card; nothing of any person.

        A head learned from people: share it only as far as they agreed to.

        Args:
            repo_id: `owner/name`; made where it does not exist.
            private: Only you can read it. Of a repository that exists already, nothing is changed.
            token: By default that of `hf auth login`.
            endpoint: Address of another hub.

        Returns:
            Address of the repository.

        Raises:
            NotFittedError: There is no trained head yet.
            SavedMatcherError: The hub refused, or cannot be reached.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            return hub.push(
                Path(folder),
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
        """Loads a matcher from a folder or from the Hugging Face Hub. Executes nothing of what it loads.

        Args:
            name: Folder, or `owner/name` on the hub.
            revision: Branch, tag or commit on the hub.
            token: For a private repository; by default that of `hf auth login`.
            endpoint: Address of another hub.
            options: As `load` takes them.

        Raises:
            SavedMatcherError: Nothing to load under that name, or a damaged folder.
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
        store: Store | str | Path | None = None,
        device: str = "auto",
        allow_upload: bool = False,
        max_usd: float | None = None,
        progress: bool = False,
    ) -> Matcher:
        """Loads a saved matcher. Executes nothing from the folder: parts come from installed distributions.

        Args:
            folder: As `save` wrote it.
            backbone: Takes the place of the saved backbones, for example where the weights lie at
                another path; it must give the same features, and a warning says so where its
                fingerprint differs.
            store: As in the constructor, like the arguments that follow.

        Raises:
            SavedMatcherError: No such folder, a damaged file, or another format.
            PartError: A part's plugin is not installed; names the distribution that provided it.
        """
        path = Path(folder)
        record, weights, history = saving.read(path)
        try:
            parts = record["parts"]
            own = [(entry["name"], dict(entry["options"])) for entry in parts["backbones"]]
            matcher = cls(
                backbone=own if backbone is None else backbone,
                pooler=[(entry["name"], dict(entry["options"])) for entry in parts["poolers"]],
                metadata=_spec(parts["metadata"]),
                head="identity",
                loss=_spec(parts["loss"]),
                learner=_spec(parts.get("learner")),
                training=TrainingConfig(**record["training"]),
                weights=record["weights"],
                prompt=record["prompt"],
                prompt_attributes=record["prompt_attributes"],
                store=store,
                store_dtype=record["store_dtype"],
                device=device,
                allow_upload=allow_upload,
                max_usd=max_usd,
                progress=progress,
            )
            matcher._head_spec = _spec(
                parts["head"]
            )  # its options were made for its own width, not for the trial's
            matcher.head = build_head(matcher._head_spec, dim=record["dim"]).eval()
            matcher.head.load_state_dict(weights)
            matcher.sides, matcher.metrics, matcher.notes = (
                record["sides"],
                record["metrics"],
                list(record["notes"]),
            )
            matcher._trained_on, matcher._data, matcher.history = (
                record["fingerprints"],
                record["data"],
                history,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise SavedMatcherError(
                f"{path / 'matcher.json'} is not as `save` writes it: {error!r}."
            ) from error
        except RuntimeError as error:  # load_state_dict: names or shapes
            raise SavedMatcherError(
                f"{path / 'head.safetensors'} does not fit its head: {error}"
            ) from error
        except PartError as error:
            raise PartError(f"{error} {saving.provider_hint(record)}".strip()) from error
        return matcher

    @property
    def fitted_head(self) -> ProjectionHead:
        """The trained head, in evaluation mode.

        Raises:
            NotFittedError: There is none yet.
        """
        if self.head is None:
            raise NotFittedError("This matcher has no head before `fit`.")
        return self.head

    @property
    def _dim(self) -> int:
        head = self.head.a if isinstance(self.head, PerSideHead) else self.head
        return int(head.dim)  # type: ignore[union-attr, arg-type]

    def _check_fitted(self) -> None:
        if self.head is None and self._trainable:
            raise NotFittedError(
                "This matcher's head needs training: call `fit` first, or use head='identity'."
            )

    @property
    def _trainable(self) -> bool:
        if self._learner is not None:
            return True
        if isinstance(self._head_spec, ProjectionHead):
            return self._head_spec.trainable
        head: type[ProjectionHead] = registry.load("heads", _name(self._head_spec))
        return head.trainable

    def _ready_head(self, dim: int) -> ProjectionHead:
        self._check_fitted()
        return self.head if self.head is not None else build_head(self._head_spec, dim=dim)

    def _check_backbones(self) -> None:
        """Warns, once, where the backbone at hand is not the one whose features the head was trained on."""
        trained = self._trained_on
        if trained is None or self._warned:
            return
        self._warned = True
        for then, backbone in zip(trained, self.backbones, strict=True):
            now = dict(backbone.fingerprint())
            differing = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
            if differing:
                changes = "; ".join(
                    f"{key}: {then.get(key)!r} then, {now.get(key)!r} now" for key in differing
                )
                _log.warning(
                    "The head was trained on features of another %s (%s): rankings may be off. Fit again, or use the "
                    "same weights and versions.",
                    type(backbone).__name__,
                    changes,
                )


def several(spec: PartSpec) -> list[PartSpec]:
    """One part as a list of one; a list of parts as it is. `("name", {options})` is one part."""
    if isinstance(spec, list) or (
        isinstance(spec, tuple) and not (len(spec) == 2 and isinstance(spec[1], Mapping))
    ):
        if not spec:
            raise ConfigurationError("A list of parts must name at least one.")
        return list(spec)
    return [spec]


def _name(spec: PartSpec) -> str:
    parsed = parse_spec(spec)
    if parsed is None:
        raise PartError(f"A head must implement `pairmatch.ProjectionHead`, got {spec!r}.")
    return parsed[0]


def _spec(entry: Mapping[str, Any] | None) -> PartSpec:
    return None if entry is None else (entry["name"], dict(entry["options"]))

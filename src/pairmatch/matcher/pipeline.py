"""From people to features: metadata, prompt, backbones, poolers and the store, combined."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pairmatch.core import registry
from pairmatch.core.arrays import Vectors
from pairmatch.core.candidates import People
from pairmatch.core.errors import PartError
from pairmatch.core.feature_blocks import feature_blocks
from pairmatch.core.interfaces import Backbone, MetadataGenerator, Pooler
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.core.types import Profile
from pairmatch.data import Pairs
from pairmatch.features.engines import ExtractionEngine
from pairmatch.features.extractor import ExtractionRequest, FeatureStore, join
from pairmatch.features.fresh import fresh_features
from pairmatch.features.inputs import fit_backbone
from pairmatch.features.prompt import check_template
from pairmatch.io.store import Store, content_key
from pairmatch.metadata.annotate import annotate

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class FeaturePipeline:
    """Annotates people and extracts their frozen features, each input once.

    Attributes:
        backbones: Frozen models.
        poolers: One per backbone.
        metadata: Generator of attributes, or None.
        weights: Weight of each backbone's features in the joined vector; None means all 1.
        prompt: Template of the text that backbones read; None for each backbone's own.
        prompt_attributes: Names of the profile attributes that go into the prompt.
        store: Store of features and metadata: a `Store`, a path, or None for the user's default.
        store_dtype: `float32` or `float16`.
        allow_upload: Whether a metadata generator may send photos to a remote host.
        max_usd: Cost limit of paid metadata; None for no limit.
        progress: Whether to show progress bars.
        engine: Where backbones run; None for this process.
        trained_on: Fingerprints of the backbones whose features the head was trained on.
        described: Number of training people whose metadata were generated; None if unknown.
    """

    backbones: list[Backbone]
    poolers: list[Pooler]
    metadata: MetadataGenerator | None
    weights: list[float] | None
    prompt: str | None
    prompt_attributes: tuple[str, ...]
    store: Store | str | Path | None
    store_dtype: str
    allow_upload: bool
    max_usd: float | None
    progress: bool
    engine: ExtractionEngine | None = None
    trained_on: list[Mapping[str, Any]] | None = None
    described: int | None = None
    last_described: int = 0  # by the latest `annotate`
    _feature_store: FeatureStore | None = field(default=None, repr=False)
    _compared: bool = False

    @property
    def feature_store(self) -> FeatureStore:
        """Runs backbones and keeps their features; opened on first use."""
        if self._feature_store is None:
            self._feature_store = FeatureStore(
                self.store,
                dtype=self.store_dtype,
                progress=self.progress,
                engine=self.engine,
            )
        return self._feature_store

    @property
    def reads_text(self) -> bool:
        """Whether any backbone reads text, and so metadata."""
        return any(backbone.reads_text for backbone in self.backbones)

    def annotate(self, profiles: Sequence[Profile]) -> list[Profile]:
        """Profiles with metadata, if there is a generator and a backbone that reads text."""
        self.last_described = 0
        if self.metadata is None or not self.reads_text:
            return list(profiles)
        annotation = annotate(
            profiles,
            self.metadata,
            self.feature_store.store,
            allow_upload=self.allow_upload,
            max_usd=self.max_usd,
            progress=self.progress,
        )
        if annotation.asked or annotation.refused:
            level = logging.WARNING if annotation.refused else logging.INFO
            _log.log(level, "%s", annotation)
        self.last_described = sum(
            before.metadata is None and after.metadata is not None
            for before, after in zip(profiles, annotation.profiles, strict=True)
        )
        return list(annotation.profiles)

    def fit_backbones(self, profiles: Sequence[Profile]) -> None:
        """Replaces each backbone that learns by one that has learned from these people."""
        if any(backbone.learned and backbone.reads_text for backbone in self.backbones):
            profiles = self.annotate(profiles)
        fitted = {
            id(backbone): fit_backbone(profiles, backbone, self.prompt, self.prompt_attributes)
            for backbone in self.backbones
        }
        self.backbones = [fitted[id(backbone)] for backbone in self.backbones]

    def ready(self, profiles: Sequence[Profile]) -> FeaturePipeline:
        """A pipeline whose backbones have all learned; this one if they have already.

        Args:
            profiles: People from whom the backbones of a copy learn otherwise.
        """
        learned = [getattr(part, name) for part in self.backbones for name in part.learned]
        if all(value is not None for value in learned):
            return self
        copy = replace(self, _feature_store=self.feature_store)
        copy.fit_backbones(profiles)
        return copy

    def requests(self, profiles: Sequence[Profile]) -> list[ExtractionRequest]:
        """What has to be extracted for people, one request per distinct backbone.

        Annotates them first.
        """
        annotated = self.annotate(profiles)
        if self.prompt is not None and annotated:
            check_template(self.prompt, annotated)
        return [
            ExtractionRequest(
                self.feature_store,
                annotated,
                backbone,
                poolers,
                self.prompt,
                self.prompt_attributes,
            )
            for backbone, poolers in self.distinct_backbones()
        ]

    def distinct_backbones(self) -> list[tuple[Backbone, list[Pooler]]]:
        """Each backbone once, with all its poolers."""
        return [
            (self.backbones[places[0]], [self.poolers[place] for place in places])
            for places in self._places()
        ]

    def features(self, profiles: Sequence[Profile]) -> Vectors:
        """[N, D] float32 features, from the store if they are stored."""
        return join(self._extract(profiles), self.weights)

    def fresh_features(self, profiles: Sequence[Profile]) -> Vectors:
        """[N, D] float32 features of a few people with metadata, without any store."""
        self._compare_backbones()
        parts = (
            fresh_features(
                profiles,
                backbone,
                poolers,
                prompt=self.prompt,
                prompt_attributes=self.prompt_attributes,
                dtype=self.store_dtype,
            )
            for backbone, poolers in self.distinct_backbones()
        )
        return join(self._in_order(parts), self.weights)

    def paired_features(
        self, parts: Sequence[Pairs], *, join_identical: bool = False
    ) -> list[PairedFeatures]:
        """Features of several sets of pairs, each person extracted once."""
        people = {profile.id: profile for part in parts for profile in part.people}
        extracted = self._extract(list(people.values()))
        blocks = feature_blocks(self._block_names(), [part.shape[1] for part in extracted])
        features = join(extracted, self.weights)
        rows = {person: row for row, person in enumerate(people)}
        paired = [_paired(part, features, rows, join_identical) for part in parts]
        return [replace(data, blocks=blocks) for data in paired]

    def fingerprints(self) -> list[dict[str, Any]]:
        """Fingerprint of each backbone."""
        return [dict(backbone.fingerprint()) for backbone in self.backbones]

    def digest(self) -> str:
        """`features`, and a digest of all that the features of a person depend on."""
        parts = {
            "backbones": self.fingerprints(),
            "poolers": [dict(pooler.fingerprint()) for pooler in self.poolers],
            "weights": self.weights,
            "prompt": [self.prompt, list(self.prompt_attributes)],
        }
        return f"features {content_key(parts)}"

    def _extract(self, profiles: Sequence[Profile]) -> list[Vectors]:
        """[N, D] float32 features of each backbone and pooler, unscaled."""
        self._compare_backbones()
        return self._in_order(request.plan().run() for request in self.requests(profiles))

    def _in_order(self, parts: Iterable[Sequence[Vectors]]) -> list[Vectors]:
        """Features in the order of `backbones`, from those of each distinct backbone."""
        features: dict[int, Vectors] = {}
        for places, part in zip(self._places(), parts, strict=True):
            features.update(zip(places, part, strict=True))
        return [features[place] for place in range(len(self.backbones))]

    def _places(self) -> list[list[int]]:
        """Positions of each distinct backbone in `backbones`: it runs once for all its poolers."""
        places: dict[int, list[int]] = {}
        for place, backbone in enumerate(self.backbones):
            places.setdefault(id(backbone), []).append(place)
        return list(places.values())

    def _block_names(self) -> list[str]:
        """`clip/native`, `qwen3-vl-2b/mean layer 14`: each backbone with its pooler."""
        names = []
        for backbone, pooler in zip(self.backbones, self.poolers, strict=True):
            layer = getattr(pooler, "layer", None)
            name = f"{part_name('backbones', backbone)}/{part_name('poolers', pooler)}"
            names.append(name if layer is None else f"{name} layer {layer}")
        return names

    def _compare_backbones(self) -> None:
        """Warns, once, if a backbone is not the one whose features the head was trained on."""
        if self.trained_on is None or self._compared:
            return
        self._compared = True
        for trained, backbone in zip(self.trained_on, self.backbones, strict=True):
            current = dict(backbone.fingerprint())
            differing = sorted(
                key for key in {*trained, *current} if trained.get(key) != current.get(key)
            )
            if differing:
                changes = "; ".join(
                    f"{key}: {trained.get(key)!r} then, {current.get(key)!r} now"
                    for key in differing
                )
                _log.warning(
                    "The head was trained on features of another %s (%s): rankings may be off. Fit "
                    "again, or use the same weights and versions.",
                    type(backbone).__name__,
                    changes,
                )


def part_name(kind: str, part: Backbone | Pooler | MetadataGenerator) -> str:
    """Registered name of a part; that of its class if it has none."""
    try:
        return registry.describe(kind, part)[0]
    except PartError:
        return type(part).__name__


def people_of(pairs: Pairs) -> People:
    """The people of both sides, in the order of their features."""
    return People(
        *(tuple(pairs.profiles[one] for one in ids) for ids in (pairs.ids_a, pairs.ids_b))
    )


def _paired(
    pairs: Pairs, features: Vectors, rows: Mapping[str, int], join_identical: bool
) -> PairedFeatures:
    data = pairs.with_features(
        features[[rows[person] for person in pairs.ids_a]],
        None if pairs.sides == 1 else features[[rows[person] for person in pairs.ids_b]],
        join_identical=join_identical,
    )
    return replace(data, people=people_of(pairs))

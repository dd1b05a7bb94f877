"""The feature store: each distinct input runs through a frozen backbone once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Floats, unit_rows
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import Backbone, Pooler
from pairmatch.core.types import Item, Profile
from pairmatch.features.engines import ExtractionEngine
from pairmatch.features.inputs import attribute_texts, build_items, digest_items, feature_keys
from pairmatch.features.plan import ExtractionPlan
from pairmatch.features.running import BackboneRunner
from pairmatch.io.store import Store, content_key


class FeatureStore:
    """Features of people by backbone and pooler, extracted once and then looked up by content.

    A feature's key digests the photo bytes, the rendered prompt and the fingerprints of backbone
    and pooler, so a change to any of them changes the key. Every batch is committed as soon as it
    is done, so an interrupted extraction resumes at the next batch.

    Args:
        store: The store or its path; None for the user's default store.
        dtype: Number format of the stored vectors: `float32`, or `float16` for half the space
            (cosines differ by about 1e-4).
        progress: Whether to show a progress bar.
        engine: Where backbones run, such as `RayEngine`; None for this process.
    """

    def __init__(
        self,
        store: Store | str | Path | None = None,
        *,
        dtype: str = "float32",
        progress: bool = False,
        engine: ExtractionEngine | None = None,
    ) -> None:
        if dtype not in ("float16", "float32"):
            raise ConfigurationError(
                f"`FeatureStore(dtype=...)` must be 'float32' or 'float16', got {dtype!r}."
            )
        self.store = store if isinstance(store, Store) else Store(store)
        self.dtype = dtype
        self.progress = progress
        self.engine = engine

    def extract(
        self,
        profiles: Sequence[Profile],
        backbone: Backbone,
        poolers: Sequence[Pooler],
        *,
        prompt: str | None = None,
        prompt_attributes: Sequence[str] = (),
    ) -> list[npt.NDArray[np.float32]]:
        """Features of people, one array per pooler, all from one pass of the backbone.

        Args:
            profiles: N people.
            backbone: Runs on the inputs that are not in the store.
            poolers: At least one.
            prompt: Template of the text that the backbone reads; None for the backbone's own.
            prompt_attributes: Names of the profile attributes that enter the prompt.

        Returns:
            One [N, D] float32 array per pooler, rows in the order of `profiles`.

        Raises:
            DataError: People with nothing to read or with missing photo files, before anything
                runs; photos that cannot be decoded, after all other features are in the store.
                Each error lists all of them.
            BackboneError: The backbone cannot run, or returns values that are not finite.
            ConfigurationError: `profiles` or `poolers` is empty.
        """
        plan = self.plan(
            profiles, backbone, poolers, prompt=prompt, prompt_attributes=prompt_attributes
        )
        return plan.run()

    def plan(
        self,
        profiles: Sequence[Profile],
        backbone: Backbone,
        poolers: Sequence[Pooler],
        *,
        prompt: str | None = None,
        prompt_attributes: Sequence[str] = (),
    ) -> ExtractionPlan:
        """What `extract` would do with the same arguments.

        Reads and hashes the inputs and looks them up in the store, but does not run the backbone.

        Raises:
            DataError: People with nothing to read or with missing photo files, all at once.
            ConfigurationError: `profiles` or `poolers` is empty.
        """
        items = build_items(profiles, backbone, prompt, prompt_attributes)
        return self._plan(profiles, items, backbone, poolers)

    def _plan(
        self,
        profiles: Sequence[Profile],
        items: Sequence[Item],
        backbone: Backbone,
        poolers: Sequence[Pooler],
    ) -> ExtractionPlan:
        if not profiles or not poolers:
            raise ConfigurationError(
                "Feature extraction needs at least one person and one pooler, got "
                f"{len(profiles)} and {len(poolers)}."
            )
        digests = digest_items(profiles, items, backbone)
        keys = feature_keys(digests, backbone, poolers, self.dtype)
        stored = self.store.has_features(list({key for person in keys for key in person}))
        first_rows: dict[tuple[str, ...], int] = {}
        for row, person_keys in enumerate(keys):
            first_rows.setdefault(person_keys, row)
        return ExtractionPlan(
            tuple(profiles),
            tuple(keys),
            _items=tuple(items),
            _missing=tuple(
                row for person_keys, row in first_rows.items() if not stored.issuperset(person_keys)
            ),
            _runner=BackboneRunner(
                self.store, backbone, tuple(poolers), self.dtype, self.progress, self.engine
            ),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ExtractionRequest:
    """The arguments of one `FeatureStore.plan`, for `plan_extractions`.

    Attributes:
        feature_store: Store that receives the features.
        profiles: N people.
        backbone: Runs on the inputs that are not in the store.
        poolers: At least one.
        prompt: Template of the text that the backbone reads; None for the backbone's own.
        prompt_attributes: Names of the profile attributes that enter the prompt.
    """

    feature_store: FeatureStore
    profiles: Sequence[Profile]
    backbone: Backbone
    poolers: Sequence[Pooler]
    prompt: str | None = None
    prompt_attributes: Sequence[str] = ()

    def plan(self) -> ExtractionPlan:
        """The plan of this request only; raises like `FeatureStore.plan`."""
        return self.feature_store.plan(
            self.profiles,
            self.backbone,
            self.poolers,
            prompt=self.prompt,
            prompt_attributes=self.prompt_attributes,
        )


def plan_extractions(requests: Iterable[ExtractionRequest]) -> list[ExtractionPlan]:
    """Plans for several requests, one for all that can share a pass of the backbone.

    Requests share a pass if their stores and vector formats, their backbones' fingerprints, and
    what the backbone reads for each person are equal; the plan then has the poolers of all of
    them. Prompts and metadata only count if the backbone reads text.

    Raises:
        DataError: People with nothing to read or with missing photo files.
        ConfigurationError: A request has no profiles or no poolers.
    """
    groups: dict[Hashable, tuple[ExtractionRequest, list[Item], dict[str, Pooler]]] = {}
    for request in requests:
        items = build_items(
            request.profiles, request.backbone, request.prompt, request.prompt_attributes
        )
        _, _, poolers = groups.setdefault(_sharing_key(request, items), (request, items, {}))
        for pooler in request.poolers:
            poolers.setdefault(content_key(dict(pooler.fingerprint())), pooler)
    return [
        request.feature_store._plan(
            request.profiles, items, request.backbone, tuple(poolers.values())
        )
        for request, items, poolers in groups.values()
    ]


def join(
    features: Sequence[Floats], weights: Sequence[float] | None = None
) -> npt.NDArray[np.float32]:
    """Concatenates the features of several backbones, each scaled to unit length and weighted.

    A single array is returned unscaled.

    Args:
        features: Arrays [N, D_i] of the same N people.
        weights: One positive weight per array; None for 1 each.

    Returns:
        [N, Σ D_i] float32.

    Raises:
        ConfigurationError: The number of weights is wrong, or a weight is not positive.
    """
    if weights is not None and (len(weights) != len(features) or min(weights) <= 0):
        raise ConfigurationError(
            f"`weights` needs one positive number per backbone ({len(features)}), got {weights}."
        )
    if len(features) == 1:
        return np.asarray(features[0], np.float32)
    if weights is None:
        weights = [1.0] * len(features)
    return np.concatenate(
        [unit_rows(h) * weight for h, weight in zip(features, weights, strict=True)], axis=1
    )


def _sharing_key(request: ExtractionRequest, items: Sequence[Item]) -> Hashable:
    """Equal for requests that one pass of the backbone can serve."""
    backbone = request.backbone
    return (
        request.feature_store.store.path,
        request.feature_store.dtype,
        content_key(dict(backbone.fingerprint())),
        tuple(getattr(backbone, "layers", ())),  # not in the fingerprint, but poolers need them
        tuple(profile.id for profile in request.profiles),
        tuple(
            (tuple(map(_image_identity, item.images)), item.text, tuple(attribute_texts(item)))
            for item in items
        ),
    )


def _image_identity(image: Any) -> Hashable:
    """Paths and bytes compare by value, image objects by identity: none is read here."""
    return image if isinstance(image, str | bytes | Path) else id(image)

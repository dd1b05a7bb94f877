"""The interfaces of the library, on one page.

Five parts of the pipeline (`Backbone`, `Pooler`, `MetadataGenerator`, `ProjectionHead`,
`ContrastiveLoss`); `Learner`, which turns features of matched pairs into a head; and `Reranker`,
an optional second stage.

Implementations are final: they implement the abstract methods and override nothing else. Each
stores its constructor arguments under their own names; a matcher that was built from instances is
saved by reading them back.
"""

from __future__ import annotations

import inspect
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, cat, nn

from pairmatch.core.arrays import Floats, Vectors
from pairmatch.core.candidates import CandidatePairs
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.types import Item, Profile, Refusal, Side, Target, TokenStates, Usage

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pairmatch.core.callbacks import Callback
    from pairmatch.core.paired_features import PairedFeatures
    from pairmatch.core.second_stage import SecondStage

#: Receives the index, outcome and cost of an answer; returning True asks to stop.
OnOutcome = Callable[[int, "BaseModel | Refusal", Usage], bool | None]


class _Shown:
    """Prints a part as its class with the options that differ from their defaults."""

    def __repr__(self) -> str:
        options = inspect.signature(type(self).__init__).parameters.values()
        values = [(one, getattr(self, one.name)) for one in options if hasattr(self, one.name)]
        shown = (
            f"{one.name}={reprlib.repr(value)}"
            for one, value in values
            if value is not one.default and repr(value) != repr(one.default)
        )
        return f"{type(self).__qualname__}({', '.join(shown)})"


class Backbone(_Shown, ABC):
    """A frozen model that reads a person's photos, text and attributes.

    Backbones are expensive: they run once per person, and their output is stored. `prepare` runs in
    worker threads, ahead of `forward`, which runs in one thread under `torch.inference_mode`.

    One that needs scales or a vocabulary of the training people declares `learned` and has `fit`.

    Attributes:
        reads_images: Whether photos reach `prepare`; if False, they are dropped and do not enter
            the cache key.
        reads_text: Whether the rendered prompt reaches `prepare`; if False, it is dropped and does
            not enter the cache key.
        reads_attributes: Whether attributes reach `prepare`; if False, they are dropped and do not
            enter the cache key. A backbone that reads them reads people without any, too.
        learned: Names of the constructor arguments that `fit` sets, each None before it; empty if
            nothing is learned. They hold JSON values, are part of the fingerprint, and are saved
            with the matcher, so they must reveal no person.
        default_pooler: Name of the pooler used if none is given.
        default_prompt: Template of the prompt used if none is given; None for the recipe's.
        default_metadata: Name of the metadata generator used if none is given, or None.
        max_batch_length: Largest padded length of a batch (longest `length` × number of items). It
            is halved after running out of memory.
        workers: Number of threads that call `prepare`; None means one per CPU, at most 8. A
            backbone that computes on the CPU sets 1, because its own threads need the cores.
        truncated: Number of people whose text was longer than the backbone reads, counted by
            `prepare`; reported as a warning.
    """

    reads_images: bool = True
    reads_text: bool = False
    reads_attributes: bool = False
    learned: ClassVar[tuple[str, ...]] = ()
    default_pooler: ClassVar[str] = "mean"
    default_prompt: ClassVar[str | None] = None
    default_metadata: ClassVar[str | None] = None
    max_batch_length: int = 32
    workers: int | None = None
    truncated: int = 0

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width of the default pooler's output.

        P of the pooled output for `native`, D of the token states otherwise.
        """

    @abstractmethod
    def prepare(self, items: Sequence[Item]) -> Any:
        """Decodes and tokenizes a batch on the CPU. Must be thread-safe.

        Args:
            items: B people; each has at least one photo or a text, unless the backbone reads
                attributes.

        Returns:
            The argument of `forward`.

        Raises:
            ImageError: A photo cannot be read.
        """

    @abstractmethod
    def forward(self, batch: Any) -> TokenStates:
        """Runs the model on a prepared batch, without gradients.

        Moves the batch to the device itself.
        """

    @abstractmethod
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything that can change the output: weights, revision, dtype, image size, versions.

        JSON values only. Two backbones with equal fingerprints must return equal vectors.
        """

    def fit(self, items: Sequence[Item]) -> Backbone:
        """A new backbone that has learned from training people; this one does not change.

        `Matcher.fit` calls it once, before any feature is extracted, if `learned` names arguments.
        It sees no pairs, so that it cannot learn who matches whom.

        Args:
            items: All training people.
        """
        return self

    def length(self, item: Item) -> int:
        """Estimated number of tokens of `item`, without decoding it.

        Items of similar length share a batch.
        """
        return 1


class Pooler(_Shown, ABC):
    """Reduces the token states of a sequence to one vector."""

    @abstractmethod
    def pool(self, states: TokenStates) -> Tensor:
        """Pools a batch.

        Args:
            states: Output of the backbone for B people.

        Returns:
            [B, D] (or [B, P]) floating point, not normalized.

        Raises:
            ConfigurationError: The backbone does not return what this pooler needs.
        """

    @abstractmethod
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything that can change the output; JSON values only."""


class MetadataGenerator(_Shown, ABC):
    """Writes attributes from photos, as text for the backbone.

    Attributes:
        sends_photos: Whether photos leave this machine; nothing is sent without the user's consent.
        schema: Pydantic model that the generator fills in.
    """

    sends_photos: ClassVar[bool] = False
    schema: type[BaseModel]

    @abstractmethod
    def generate(
        self,
        profiles: Sequence[Profile],
        on_outcome: OnOutcome | None = None,
        *,
        max_usd: float | None = None,
    ) -> list[BaseModel | Refusal]:
        """Generates metadata, one outcome per profile, in order.

        Args:
            profiles: People with at least one photo.
            on_outcome: Called in the calling thread with index, outcome and cost as each answer
                arrives, so that it can be stored. If it returns True, no further photo is started;
                the rest become `Refusal("stopped")`.
            max_usd: Cost limit of this call, in US dollars. No photo is started that could exceed
                it, counting the requests under way. Generators without cost ignore it.

        Raises:
            GeneratorError: The generator cannot work (no key, unknown model).
        """

    @abstractmethod
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything that can change the output: model, prompt, schema, image detail.

        JSON values only.
        """


class ProjectionHead(nn.Module, ABC):
    """A small map from features to the space in which partners are close.

    Constructors take `dim` (width D of the features) and options.

    Attributes:
        trainable: Whether the head has weights to train by gradient descent.
        treats_sides_alike: Whether `project` ignores `side`. Both sides of a training batch are
            then projected in one pass, so that BatchNorm sees all 2 B rows.
        width: Width K of the output.
    """

    trainable: ClassVar[bool] = True
    treats_sides_alike: ClassVar[bool] = False
    width: int

    @abstractmethod
    def project(self, h: Tensor, side: Side) -> Tensor:
        """Projects features.

        Args:
            h: [B, D] float32 features.
            side: Side of the pair that these people are on.

        Returns:
            [B, K] float32, not yet normalized.
        """

    def forward(self, h_a: Tensor, h_b: Tensor) -> tuple[Tensor, Tensor]:
        """Projects both sides of a training batch, in one pass if the head treats them equally."""
        if self.treats_sides_alike:
            z = self.project(cat([h_a, h_b]), "a")
            return z[: len(h_a)], z[len(h_a) :]
        return self.project(h_a, "a"), self.project(h_b, "b")

    def for_target(self, target: Target) -> ProjectionHead:
        """The head that scores a target: a match, or the yes of one side.

        A head with one score uses it for all targets.
        """
        return self

    def embed(self, features: Floats, side: Side, *, rows: int = 8192) -> Vectors:
        """Embeds features in evaluation mode, e = z / ‖z‖, on the head's device.

        Args:
            features: [N, D], any floating type.
            side: Side that these people are on.
            rows: Number of people per pass.

        Returns:
            [N, K] float32, unit length; a z of zeros stays zero.

        Raises:
            ConfigurationError: The width of the features differs from the head's `dim`.
        """
        dim = getattr(self, "dim", None)
        if dim is not None and np.shape(features)[1:] != (dim,):
            raise ConfigurationError(
                f"The head {type(self).__name__} takes features [people, {dim}], got shape "
                f"{list(np.shape(features))}."
            )
        weight = next(self.parameters(), None)
        device = torch.device("cpu") if weight is None else weight.device
        result = np.empty((len(features), self.width), np.float32)
        training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                for start in range(0, len(features), rows):
                    batch = np.array(features[start : start + rows], np.float32)
                    z = self.project(torch.from_numpy(batch).to(device), side)
                    tiny = float(np.finfo(np.float32).tiny)
                    e = nn.functional.normalize(z, dim=1, eps=tiny)
                    result[start : start + rows] = e.cpu().numpy()
        finally:
            self.train(training)
        return result


class ContrastiveLoss(nn.Module, ABC):
    """Pulls matches together and pushes the other pairs of a batch apart."""

    @abstractmethod
    def loss(self, e_a: Tensor, e_b: Tensor, positives: Tensor, unknown: Tensor) -> Tensor:
        """Loss of a batch: a scalar, float32.

        Args:
            e_a: [A, K] float32, unit length.
            e_b: [B, K] float32, unit length.
            positives: [A, B] bool, True at every known match, so that no match is ever a negative.
                A row or column without a match (a person whose partner was rejected) is a negative
                for others and not an anchor itself.
            unknown: [A, B] bool, True at open pairs, which are neither matches nor negatives.
        """

    def forward(
        self, e_a: Tensor, e_b: Tensor, positives: Tensor, unknown: Tensor | None = None
    ) -> Tensor:
        """Calls `loss`; by default, no pair is open."""
        open_pairs = torch.zeros_like(positives) if unknown is None else unknown
        return self.loss(e_a, e_b, positives, open_pairs)


@dataclass(frozen=True, slots=True, eq=False)
class FittedHead:
    """What a learner returns.

    Attributes:
        head: The head, in evaluation mode.
        history: One row per epoch, for learners that train in epochs: `epoch` from 1, `train_loss`,
            and `validation_mrr` if validation pairs were held out.
        notes: Caveats about the fit, for example that the head only memorizes.
        second: Orders the best candidates of the head again; None without a second stage.
    """

    head: ProjectionHead
    history: tuple[Mapping[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    second: SecondStage | None = None


class Learner(_Shown, ABC):
    """Learns from the features of matched pairs how to score any person against any other.

    Every learner can be compared by `cross_validate`, and saved and served by a `Matcher`.

    Attributes:
        uses_validation: Whether `fit` stops early on validation pairs; if False, a `Matcher` only
            calibrates probabilities on them.
        callbacks: Receive the epochs of `fit`, if the learner trains in epochs. A `Matcher` sets
            them while it fits.
    """

    uses_validation: ClassVar[bool] = False
    callbacks: Sequence[Callback] = ()

    @abstractmethod
    def fit(
        self, train: PairedFeatures, validation: PairedFeatures | None = None, *, seed: int = 0
    ) -> FittedHead:
        """Learns a head.

        Args:
            train: Features and matches, without any test people.
            validation: Held-out pairs for early stopping. Learners without epochs ignore them;
                learners that need some and get none hold them out from `train`.
            seed: Seed for everything random; equal seeds give equal heads.

        Returns:
            A head whose embeddings are compared by inner product: a person of one side as `"a"`
            with candidates of the other as `"b"`, or the reverse. In one-sided sets, query people
            are embedded as `"a"` and candidates as `"b"`.
        """

    def untrained_head(self, dim: int) -> ProjectionHead | None:
        """The head that serves before any fit; None if the learner needs pairs.

        Args:
            dim: Width D of the features.
        """
        return None


class Reranker(_Shown, ABC):
    """Orders the best candidates of a person again, reading both people of each pair.

    The first stage, the inner product of embeddings, ranks all candidates; a re-ranker may be slow,
    because it reads `top` of them. It keeps the rest below them, in their order.

    A re-ranker that learns has `fit`, and `state` and `with_state`, by which a matcher is saved;
    without them, it is a fixed model.

    Attributes:
        needs_profiles: Whether `score` reads the profiles of both people (photos, text, attributes)
            and not only their traits. Stored galleries hold embeddings and attributes only: such a
            re-ranker orders candidates that are given as profiles, or a gallery in memory.
        top: Number of candidates of each query that are ordered again.
    """

    needs_profiles: ClassVar[bool] = False
    top: int = 50

    @abstractmethod
    def score(self, pairs: CandidatePairs) -> Floats:
        """Scores pairs; of two candidates of a query, the one with the higher score is first.

        Args:
            pairs: P pairs of one or several query people.

        Returns:
            [P] finite; the score of a pair does not depend on other pairs.

        Raises:
            NotFittedError: The re-ranker learns and `fit` was not called.
        """

    def fit(self, train: Sequence[CandidatePairs], *, seed: int = 0) -> Reranker:
        """A new re-ranker that has learned from lists of candidates; this one does not change.

        Args:
            train: Candidates of people whom the first stage had not seen, with `is_partner`: one
                batch per direction and fold. Each query has a partner and another candidate.
            seed: Seed for everything random; equal seeds give equal scores.
        """
        return self

    def state(self) -> Mapping[str, Tensor]:
        """What `fit` has learned, as tensors on the CPU; empty if nothing is learned.

        It is saved with the matcher, so it must reveal no person.
        """
        return {}

    def with_state(self, state: Mapping[str, Tensor]) -> Reranker:
        """A new re-ranker that has learned what another one returned as `state`.

        Raises:
            ConfigurationError: Tensors are missing or have another shape.
        """
        return self

"""The interfaces of the library, on one page: five parts of the pipeline, and what evaluation compares them with.

Implementations are final: they implement the abstract methods and override nothing else. Each
stores its constructor arguments under their own names, which is how a matcher that was built from
instances is saved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor, cat, nn

from pairmatch.core.types import Item, Profile, Refusal, Side, TokenStates, Usage

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pairmatch.core.paired_features import PairedFeatures

#: Takes index, outcome and cost of an answer; True asks to stop.
OnOutcome = Callable[[int, "BaseModel | Refusal", Usage], bool | None]

#: From features [N, D] of people on a side to vectors [N, K] float32 of unit length; products
#: across sides are scores.
Projection = Callable[[npt.NDArray[np.floating], Side], npt.NDArray[np.float32]]


class Backbone(ABC):
    """A frozen model that reads a person's photos and text. The expensive part: run once per person, then cached.

    The engine calls `prepare` in worker threads, ahead of `forward`, which one thread calls under
    `torch.inference_mode`.

    Attributes:
        reads_images: Photos reach `prepare`; if False they are dropped and do not enter the cache
            key.
        reads_text: The rendered prompt reaches `prepare`; if False it is dropped and does not enter
            the cache key.
        default_pooler: Name of the pooler that serves where the user names none.
        max_batch_length: The engine fills a batch until its padded length (longest `length` ×
            items) reaches this; it halves it after running out of memory.
        workers: Threads that call `prepare`; None leaves it to the engine, which takes one per CPU,
            at most 8. A model that computes on the CPU sets 1: its own threads need the cores.
        truncated: People whose text was longer than the backbone reads, counted by `prepare`; the
            engine warns.
    """

    reads_images: bool = True
    reads_text: bool = False
    default_pooler: ClassVar[str] = "mean"
    max_batch_length: int = 32
    workers: int | None = None
    truncated: int = 0

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width of what the default pooler gives.

        P of the pooled output for `native`, else D of the token states.
        """

    @abstractmethod
    def prepare(self, items: Sequence[Item]) -> Any:
        """Decodes and tokenises one batch on the CPU. Must be safe to call from several threads.

        Args:
            items: B people; each has at least one photo or a text that this backbone reads.

        Returns:
            Whatever `forward` takes.

        Raises:
            ImageError: A photo that cannot be read.
        """

    @abstractmethod
    def forward(self, batch: Any) -> TokenStates:
        """Runs the model on a prepared batch.

        Moves it to the device itself. Never computes gradients.
        """

    @abstractmethod
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything that can change the output: model, weights or revision, dtype, image size, library versions.

        JSON values only. Two backbones with equal fingerprints must give equal vectors.
        """

    def length(self, item: Item) -> int:
        """Tokens that `item` takes, estimated without decoding it.

        People of like length share a batch.
        """
        return 1


class Pooler(ABC):
    """Turns the token states of a sequence into one vector."""

    @abstractmethod
    def pool(self, states: TokenStates) -> Tensor:
        """Pools a batch.

        Args:
            states: What the backbone gave for B people.

        Returns:
            [B, D] (or [B, P]) floating point, not normalised.

        Raises:
            ConfigurationError: The backbone does not give what this pooler needs.
        """

    @abstractmethod
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything that can change the output; JSON values only."""


class MetadataGenerator(ABC):
    """Writes attributes from people's photos, as text for the backbone.

    Attributes:
        sends_photos: Photos leave this machine; nothing is sent before the user has allowed it.
        schema: The pydantic model that it fills in.
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
        """Writes metadata, one outcome per profile, in order.

        Args:
            profiles: People with at least one photo.
            on_outcome: Is called in the calling thread with index, outcome and cost as each answer
                arrives, so that it can be kept. Where it returns True no further photo is begun:
                those are a `Refusal("stopped")`.
            max_usd: No photo is begun that could bring the cost of this call beyond it, with all
                those under way; what costs nothing ignores it.

        Raises:
            GeneratorError: Nothing can be generated for anyone (no key, unknown model).
        """

    @abstractmethod
    def fingerprint(self) -> Mapping[str, Any]:
        """Everything that can change the output.

        Model, prompt, schema, image detail; JSON values only.
        """


class ProjectionHead(nn.Module, ABC):
    """The small trained map g from features to the space where partners are close.

    A constructor takes `dim` (width D of the features) and options.

    Attributes:
        trainable: False for a head that needs no training, such as `identity`.
        treats_sides_alike: `project` ignores `side`; the trainer then passes both sides of a batch
            at once, so that BatchNorm sees all 2 B rows.
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
            side: Which side of the pair these people are on.

        Returns:
            [B, K] float32, not yet normalised.
        """

    def forward(self, h_a: Tensor, h_b: Tensor) -> tuple[Tensor, Tensor]:
        """Projects both sides of a training batch, in one pass where the head treats them alike."""
        if self.treats_sides_alike:
            z = self.project(cat([h_a, h_b]), "a")
            return z[: len(h_a)], z[len(h_a) :]
        return self.project(h_a, "a"), self.project(h_b, "b")


class ContrastiveLoss(nn.Module, ABC):
    """Pulls known matches together and pushes everybody else of the batch apart."""

    @abstractmethod
    def loss(self, e_a: Tensor, e_b: Tensor, positives: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            e_a: [A, K] float32, unit length.
            e_b: [B, K] float32, unit length.
            positives: [A, B] bool, True at every known match, so that no match is ever a negative.
                A row or column without a match (someone whose partner was rejected) is a negative
                to others and no anchor itself.

        Returns:
            Scalar float32.
        """

    def forward(self, e_a: Tensor, e_b: Tensor, positives: Tensor) -> Tensor:
        """Calls `loss`."""
        return self.loss(e_a, e_b, positives)


class Learner(ABC):
    """A way to score anyone against anyone, learned from training pairs: a line in the tables of cross-validation.

    The trained head is one, the baselines beside it are others.
    """

    @abstractmethod
    def fit(self, train: PairedFeatures, *, seed: int = 0) -> Projection:
        """Learns from training pairs alone; whatever has to be tuned or stopped early is held out from these.

        Args:
            train: Features and matches of people, none of whom is tested.
            seed: Equal seeds give equal results.

        Returns:
            A function from features [N, D] and their side to [N, K] float32 of unit length. A score
            is the product of someone's vector as side `a` and a candidate's as side `b`, or the
            other way round. In one-sided sets people ask as side `a` and stand as candidates as
            side `b`.
        """

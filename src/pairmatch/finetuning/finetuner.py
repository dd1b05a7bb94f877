"""Fine-tunes a backbone with LoRA, together with a head, on matched pairs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from pairmatch.core import registry
from pairmatch.core.callbacks import Callback
from pairmatch.core.config import PartSpec, parse_spec
from pairmatch.core.errors import BackboneError, ConfigurationError
from pairmatch.core.interfaces import Backbone, ContrastiveLoss, ProjectionHead
from pairmatch.data import Pairs
from pairmatch.features.engines import is_out_of_memory
from pairmatch.finetuning.checkpoints import KIND as CHECKPOINT
from pairmatch.finetuning.config import FinetuneConfig
from pairmatch.finetuning.lora import check_tunable, with_adapter
from pairmatch.finetuning.run import Run
from pairmatch.io.adapters import Adapter
from pairmatch.io.files import expand_user
from pairmatch.io.outputs import check_output_folder
from pairmatch.learning.heads import build_head

#: Number of training pairs below which fine-tuning is advised against. The authors of Augmented
#: SBERT (Thakur et al. 2021) call 1,000 to 3,000 labeled pairs few for tuning a sentence encoder,
#: and enlarge such sets first.
FEWEST_PAIRS = 1000
_PROBE_DIM = 1024  # arbitrary, wider than any default rank


@dataclass(frozen=True, slots=True, eq=False)
class FinetuneResult:
    """A fine-tuned backbone, and how it was trained.

    Attributes:
        backbone: A new backbone with the adapter; its features are never mixed with those of the
            frozen one.
        adapter: The adapter of the best epoch.
        head: The head that was trained with it, in evaluation mode, of the same epoch.
        loss: The loss, with the parameters that it learned.
        history: One row per epoch: `epoch` from 1, `train_loss`, and `validation_mrr` if there are
            validation pairs.
        best_epoch: Epoch whose weights were kept; the last one without validation pairs.
        validation_mrr: MRR at the best epoch; None without validation pairs.
        validation_frozen_mrr: MRR of the cosine of the frozen features on the same pairs.
        notes: Caveats, for example that there are few pairs.
    """

    backbone: Backbone
    adapter: Adapter
    head: ProjectionHead
    loss: ContrastiveLoss
    history: tuple[dict[str, float], ...]
    best_epoch: int
    validation_mrr: float | None
    validation_frozen_mrr: float | None
    notes: tuple[str, ...]


class Finetuner:
    """Trains LoRA adapters of a backbone together with a head, by AdamW with early stopping.

    Batches, positives, head and loss are those of `Trainer`; the features are not stored, because
    they change with every step. Choose it with a thousand pairs or more, and compare the result
    with learners on frozen features.

    It is not a learner: learners see features only, which are computed once.

    Args:
        backbone: `hf-vision`, `hf-text`, `qwen3-vl-2b` or `qwen3-vl-embedding-2b`, as name, name
            with options, or instance. Its own weights do not change.
        pooler: Name, name with options, or instance; None for the backbone's default.
        head: Name, name with options, or instance; an instance is copied.
        loss: Name, name with options, or instance; copied as well.
        config: Hyperparameters.
        prompt: Template of the text that the backbone reads; None for the backbone's own.
        prompt_attributes: Names of the profile attributes that go into the prompt.
        progress: Whether to show progress bars of the steps of each epoch.
        callbacks: Receive every epoch, and the end of the training; in a run of several processes,
            those of the main one.

    Raises:
        ConfigurationError: The backbone cannot be fine-tuned, or an option of a part is invalid.
        PartError: A part is unknown.
        MissingExtraError: peft is not installed.
    """

    def __init__(
        self,
        backbone: PartSpec,
        pooler: PartSpec = None,
        head: PartSpec = "residual",
        loss: PartSpec = ("infonce", {"temperature": 0.05, "directions": "both"}),
        config: FinetuneConfig | None = None,
        *,
        prompt: str | None = None,
        prompt_attributes: Sequence[str] = (),
        progress: bool = False,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.backbone: Backbone = registry.create("backbones", backbone)
        check_tunable(self.backbone)
        named = self.backbone.default_pooler if pooler is None else pooler
        self.pooler = registry.create("poolers", named)
        self.head = head
        self.loss = loss
        _check_parts(head, loss)
        self.config = config or FinetuneConfig()
        self.prompt = prompt
        self.prompt_attributes = tuple(prompt_attributes)
        self.progress = progress
        self.callbacks = tuple(callbacks)

    def fit(
        self,
        train: Pairs,
        validation: Pairs | None = None,
        *,
        checkpoints: str | Path | None = None,
    ) -> FinetuneResult:
        """Trains on matched pairs.

        In several processes (`accelerate launch`), all of them call it with the same arguments, and
        all return the same result.

        Args:
            train: At least 2 matches; no match and no open pair is ever a negative, and rejected
                pairs are extra negatives.
            validation: Pairs of other people for early stopping; without matches all epochs are
                run.
            checkpoints: Folder for a checkpoint after each epoch: a new one, or one that holds a
                checkpoint of the same run, which resumes there.

        Raises:
            ConfigurationError: There are fewer than 2 pairs, no batch has a negative, the parts
                differ in `sides`, the training diverges, the folder holds something else or cannot
                be written, or the checkpoint is of another run.
            MissingExtraError: peft is not installed.
            DataError: People with nothing to read, or with photos that cannot be read.
            BackboneError: The backbone cannot be loaded, or memory runs out.
        """
        if len(train) < 2:
            raise ConfigurationError(
                f"Fine-tuning needs at least 2 matched pairs, got {len(train)}: the other pairs of "
                "a batch are the negatives."
            )
        if validation is not None and validation.sides != train.sides:
            raise ConfigurationError("Training and validation pairs must have equal `sides`.")
        if validation is not None and not len(validation):
            validation = None
        folder = None if checkpoints is None else expand_user(checkpoints)
        if folder is not None:
            check_output_folder(folder, CHECKPOINT)  # before the model is loaded
        with self.guarded():
            return self._fit(train, validation, folder)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Keeps torch's random state in the block, and explains a lack of memory.

        Raises:
            BackboneError: Memory runs out.
        """
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            try:
                yield
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise BackboneError(
                    f"{type(self.backbone).__name__} ran out of memory: set a lower `micro_batch` "
                    f"(now {self.config.micro_batch}), or `gradient_checkpointing`."
                ) from error

    def _fit(self, train: Pairs, validation: Pairs | None, folder: Path | None) -> FinetuneResult:
        run = Run(self, train, validation, folder)
        try:
            run.train()
            adapter = run.layers.adapter(self.backbone.fingerprint())
        finally:
            run.close()
        if not adapter.targets:
            raise ConfigurationError(
                "Fine-tuning learned nothing, because no gradient reached the adapter: either all "
                "pairs share a person, so that no batch has a negative, or the features do not "
                "depend on the layers in `targets`."
            )
        position = run.position
        mrr = None if validation is None else position.best_mrr
        return FinetuneResult(
            backbone=with_adapter(self.backbone, adapter),
            adapter=adapter,
            head=copy.deepcopy(run.head).cpu().eval(),
            loss=copy.deepcopy(run.loss).cpu(),
            history=tuple(position.history),
            best_epoch=position.best_epoch,
            validation_mrr=mrr,
            validation_frozen_mrr=position.frozen_mrr,
            notes=tuple(_notes(len(train), mrr, position.frozen_mrr)),
        )


def _check_parts(head: PartSpec, loss: PartSpec) -> None:
    """Checks names and options of head and loss, before the backbone is loaded."""
    registry.create("losses", loss)
    if parse_spec(head) is not None:
        with torch.device("meta"):
            build_head(head, dim=_PROBE_DIM)


def few_pairs_note(pairs: int) -> str | None:
    """The advice against fine-tuning on few pairs; None if there are enough.

    Args:
        pairs: Number of training pairs.
    """
    if pairs >= FEWEST_PAIRS:
        return None
    return (
        f"{pairs:,} training pairs are few for fine-tuning: below {FEWEST_PAIRS:,}, it is advised "
        "to learn from frozen features, which takes seconds (fit --preset best)."
    )


def _notes(pairs: int, mrr: float | None, frozen: float | None) -> list[str]:
    notes = []
    few = few_pairs_note(pairs)
    if few is not None:
        notes.append(few)
    if mrr is not None and frozen is not None and mrr <= frozen:
        notes.append(
            f"Fine-tuning did not help: on validation pairs its MRR is {mrr:.3f}, and that of the "
            f"cosine of frozen features is {frozen:.3f}."
        )
    return notes

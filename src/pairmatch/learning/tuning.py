"""The learner `tuned`: chooses its own options by nested cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pairmatch.core.config import PartSpec
from pairmatch.core.errors import ConfigurationError, missing_extra
from pairmatch.core.interfaces import FittedHead, Learner
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.measuring import measure_learner
from pairmatch.evaluation.splits import cross_validation_splits
from pairmatch.learning.contrastive import Contrastive

#: By `part.option`: a list of values, or a range (low, high) that is searched on a logarithmic
#: scale.
SPACE: Mapping[str, Sequence[Any]] = {
    "head.width": [128, 256, 512],
    "head.dropout": [0.0, 0.3, 0.6],
    "loss.temperature": (0.03, 0.5),
    "training.learning_rate": (1e-5, 1e-2),
    "training.weight_decay": (1e-4, 1e-1),
}


class Tuned(Learner):
    """A contrastive head whose options are searched with Optuna (Akiba et al. 2019).

    The search sees only the training pairs, never test people. Choose it to see
    whether tuning helps on your pairs; each fit costs `trials` × `folds` fits.

    Args:
        head: Name, or name with options; options of the search space override them.
        loss: Name, or name with options; options of the search space override them.
        training: Fields of `TrainingConfig`.
        space: By `part.option`, a list of values, or a range (low, high) that is searched on a
            logarithmic scale; None for `SPACE`.
        trials: Number of settings to try, at least 1.
        folds: Number of folds of the inner cross-validation, at least 2.
        device: Device to train on.
    """

    uses_validation: ClassVar[bool] = True

    def __init__(
        self,
        *,
        head: PartSpec = "mlp",
        loss: PartSpec = "infonce",
        training: Mapping[str, Any] | None = None,
        space: Mapping[str, Any] | None = None,
        trials: int = 20,
        folds: int = 3,
        device: str = "cpu",
    ) -> None:
        if trials < 1 or folds < 2:
            raise ConfigurationError(
                f"`Tuned(...)`: trials must be at least 1 and folds at least 2, got {trials} and "
                f"{folds}."
            )
        self.head = head
        self.loss = loss
        self.training = training
        # As a mapping, a range survives JSON, which turns tuples into lists of values
        self.space = None if space is None else {name: _axis(v) for name, v in space.items()}
        self.trials = trials
        self.folds = folds
        self.device = device
        wrong = [
            name
            for name in self._space
            if name.partition(".")[0] not in ("head", "loss", "training")
        ]
        if wrong:
            raise ConfigurationError(
                "`Tuned(space=...)` takes head.OPTION, loss.OPTION and training.OPTION, got "
                f"{', '.join(wrong)}."
            )
        self._contrastive({})  # invalid heads, losses and hyperparameters fail now

    @property
    def _space(self) -> Mapping[str, Any]:
        return SPACE if self.space is None else self.space

    def fit(
        self, train: PairedFeatures, validation: PairedFeatures | None = None, *, seed: int = 0
    ) -> FittedHead:
        """Searches on the training part only, then trains on all of it with the best setting.

        Raises:
            MissingExtraError: Optuna is not installed.
        """
        learner = self._contrastive(self.search(train, seed=seed))
        learner.callbacks = self.callbacks
        return learner.fit(train, validation, seed=seed)

    def search(self, train: PairedFeatures, *, seed: int = 0) -> dict[str, Any]:
        """The setting with the best mean MRR in the inner cross-validation, by `part.option`."""
        try:
            import optuna
        except ImportError as error:
            raise missing_extra("The learner `tuned`", "optuna", "tune") from error
        splits = cross_validation_splits(train, repeats=1, folds=self.folds, seed=seed)

        def objective(trial: Any) -> float:
            chosen = {name: _suggest(trial, name, values) for name, values in self._space.items()}
            table = measure_learner(train, self._contrastive(chosen), splits, (1,), seed=seed)
            return float(table["reciprocal_rank"].mean())

        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            sampler = optuna.samplers.TPESampler(seed=seed)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.optimize(objective, n_trials=self.trials)
        finally:
            optuna.logging.set_verbosity(verbosity)
        return dict(study.best_params)

    def _contrastive(self, chosen: Mapping[str, Any]) -> Contrastive:
        options: dict[str, dict[str, Any]] = {"head": {}, "loss": {}, "training": {}}
        options["training"].update(self.training or {})
        for name, value in chosen.items():
            part, _, option = name.partition(".")
            options[part][option] = value
        return Contrastive(
            head=_with_options(self.head, options["head"]),
            loss=_with_options(self.loss, options["loss"]),
            training=options["training"],
            device=self.device,
        )


def _axis(values: Any) -> Any:
    """A list of values, or the bounds of a range by name.

    Raises:
        ConfigurationError: Neither.
    """
    if isinstance(values, tuple) and len(values) == 2:
        return {"low": values[0], "high": values[1]}
    is_range = isinstance(values, Mapping) and values.keys() == {"low", "high"}
    if is_range or (isinstance(values, list | tuple) and values):
        return values
    raise ConfigurationError(
        "`Tuned(space=...)` takes a list of values, a range (low, high) or {'low': …, 'high': …}, "
        f"got {values!r}."
    )


def _with_options(spec: PartSpec, options: Mapping[str, Any]) -> PartSpec:
    name, given = (spec, {}) if isinstance(spec, str) else spec
    return name, {**given, **options}


def _suggest(trial: Any, name: str, values: Any) -> Any:
    axis = _axis(values)
    if isinstance(axis, Mapping):
        return trial.suggest_float(name, axis["low"], axis["high"], log=True)
    return trial.suggest_categorical(name, list(values))

"""A trained head that chooses its own options by cross-validation inside the training part.

Tests stay clean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pairmatch.core.config import PartSpec
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import Learner, Projection
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.crossvalidation import cross_validation_splits, measure
from pairmatch.learning.baselines import Contrastive

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
    """A head whose options are searched with Optuna (Akiba et al. 2019), nested: the people tested never take part.

    Choose it to see whether tuning pays on your pairs; it costs `trials` × `folds` fits for each
    fit.

    Args:
        head: Name, or name with options; those of the space are overridden.
        loss: Likewise.
        training: Fields of `TrainingConfig`.
        space: By `part.option`, a list of values or a range (low, high), searched on a logarithmic
            scale.
        trials: Settings that are tried.
        folds: Of the inner cross-validation.
    """

    def __init__(
        self,
        *,
        head: PartSpec = "mlp",
        loss: PartSpec = "infonce",
        training: Mapping[str, Any] | None = None,
        space: Mapping[str, Sequence[Any]] | None = None,
        trials: int = 20,
        folds: int = 3,
    ) -> None:
        if trials < 1 or folds < 2:
            raise ConfigurationError(
                f"`Tuned(...)`: trials ≥ 1 and folds ≥ 2, got {trials} and {folds}."
            )
        self.head, self.loss, self.training = head, loss, training
        self.space, self.trials, self.folds = space, trials, folds
        wrong = [
            name
            for name in self._space
            if name.partition(".")[0] not in ("head", "loss", "training")
        ]
        if wrong:
            raise ConfigurationError(
                f"`Tuned(space=...)` takes head.OPTION, loss.OPTION and training.OPTION, got {', '.join(wrong)}."
            )

    @property
    def _space(self) -> Mapping[str, Sequence[Any]]:
        return SPACE if self.space is None else self.space

    def fit(self, train: PairedFeatures, *, seed: int = 0) -> Projection:
        """Searches on the training part alone, then trains on all of it with the best setting.

        Raises:
            ConfigurationError: Optuna is not installed.
        """
        return self._learner(self.search(train, seed=seed)).fit(train, seed=seed)

    def search(self, train: PairedFeatures, *, seed: int = 0) -> dict[str, Any]:
        """The setting with the best mean MRR in the inner cross-validation, by `part.option`."""
        try:
            import optuna
        except ImportError as error:
            raise ConfigurationError(
                'Tuning needs Optuna: pip install "pairmatch[tune]".'
            ) from error
        splits = cross_validation_splits(train, repeats=1, folds=self.folds, seed=seed)

        def objective(trial: Any) -> float:
            chosen = {name: _suggest(trial, name, values) for name, values in self._space.items()}
            return float(
                np.mean(measure(train, self._learner(chosen), splits, (1,), seed=seed)[:, -2])
            )

        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.create_study(
                direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed)
            )
            study.optimize(objective, n_trials=self.trials)
        finally:
            optuna.logging.set_verbosity(before)
        return dict(study.best_params)

    def _learner(self, chosen: Mapping[str, Any]) -> Contrastive:
        parts: dict[str, dict[str, Any]] = {
            "head": {},
            "loss": {},
            "training": dict(self.training or {}),
        }
        for name, value in chosen.items():
            part, _, option = name.partition(".")
            parts[part][option] = value
        return Contrastive(
            head=_with(self.head, parts["head"]),
            loss=_with(self.loss, parts["loss"]),
            training=parts["training"],
        )


def _with(spec: PartSpec, options: Mapping[str, Any]) -> PartSpec:
    name, known = (spec, {}) if isinstance(spec, str) else spec
    return name, {**known, **options}


def _suggest(trial: Any, name: str, values: Sequence[Any]) -> Any:
    if isinstance(values, tuple) and len(values) == 2:
        return trial.suggest_float(name, *values, log=True)
    return trial.suggest_categorical(name, list(values))

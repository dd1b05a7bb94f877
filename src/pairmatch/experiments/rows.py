"""Finished rows of a sweep on disk, so that an interrupted sweep resumes."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pairmatch.core import registry
from pairmatch.core._version import __version__
from pairmatch.core.config import TrainingConfig
from pairmatch.core.interfaces import ContrastiveLoss, Learner, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.query_table import QueryTable
from pairmatch.evaluation.splits import Split
from pairmatch.io.files import write_file
from pairmatch.io.store import content_key

_FORMAT = 2


class FinishedRows:
    """Tables of learners that were measured already, found by everything that determines them.

    Args:
        output: Folder of the sweep; None keeps nothing.
        splits: Splits of the sweep.
        chance: Table of a random order, whose rows a kept table must have.
        seed: Seed of the fits.
    """

    def __init__(
        self, output: str | Path | None, splits: Sequence[Split], chance: QueryTable, seed: int
    ) -> None:
        self.folder = None if output is None else Path(output) / "lines"
        self.chance = chance
        self.shared_key = {
            "format": _FORMAT,
            "version": __version__,
            "ks": list(chance.ks),
            "seed": seed,
            "splits": _digest_splits(splits),
        }

    def read(self, data: PairedFeatures, learner: Learner) -> QueryTable | None:
        """The table of an earlier run; None if there is none, or it is damaged."""
        file = self._file(data, learner)
        if file is None or not file.exists():
            return None
        try:
            with np.load(file, allow_pickle=False) as content:
                columns = {name: content[name] for name in self.chance.columns}
        except Exception:  # NumPy and zipfile raise many errors for damaged files
            return None
        table = QueryTable(self.chance.ks, columns)
        return table if table.same_queries(self.chance) else None

    def write(self, data: PairedFeatures, learner: Learner, table: QueryTable) -> None:
        """Keeps a table; one that is kept already is left alone."""
        file = self._file(data, learner)
        if file is None or self.read(data, learner) is not None:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **table.columns)  # type: ignore[arg-type]
        write_file(file, buffer.getvalue())

    def _file(self, data: PairedFeatures, learner: Learner) -> Path | None:
        if self.folder is None:
            return None
        features = digest_features(data)
        key = {**self.shared_key, "features": features, "learner": describe_learner(learner)}
        return self.folder / f"{content_key(key)}.npz"


def describe_learner(learner: Learner) -> dict[str, Any]:
    """Registered name and options of a learner as JSON values, with those of its parts."""
    name, options = registry.describe("learners", learner)
    kept = {key: value for key, value in options.items() if key not in ("device", "progress")}
    return json.loads(json.dumps({"name": name, "options": kept}, default=_plain, sort_keys=True))


def _plain(value: Any) -> Any:
    """Parts and hyperparameters inside a learner's options, as JSON values."""
    if isinstance(value, TrainingConfig):
        return asdict(value)
    interfaces = {"heads": ProjectionHead, "losses": ContrastiveLoss}
    kind = next(kind for kind, interface in interfaces.items() if isinstance(value, interface))
    return registry.describe(kind, value)


def digest_features(data: PairedFeatures) -> str:
    """SHA-256 (hex) of features, pairs and components."""
    digest = hashlib.sha256()
    for array in (data.a, data.b, data.matches, data.rejected, data.components):
        content = b"-"
        if array is not None:
            content = f"{array.shape}{array.dtype}".encode() + array.tobytes()
        digest.update(content)
    return digest.hexdigest()


def _digest_splits(splits: Sequence[Split]) -> str:
    digest = hashlib.sha256()
    for split in splits:
        parts = split.train.tobytes() + b"|" + split.test.tobytes()
        digest.update(f"{split.repeat} {split.fold} ".encode() + parts)
    return digest.hexdigest()

"""Finished rows of a sweep on disk, so that an interrupted sweep resumes."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from pairmatch.core import registry
from pairmatch.core._version import __version__
from pairmatch.core.config import TrainingConfig
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import ContrastiveLoss, Learner, ProjectionHead
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.query_table import QueryTable
from pairmatch.evaluation.splits import Split
from pairmatch.experiments.sweep_folder import ROWS
from pairmatch.io.replacing import replace_file
from pairmatch.io.store import content_key
from pairmatch.learning.reranking import Reranked

_FORMAT = 3
_INTERFACES = {"heads": ProjectionHead, "losses": ContrastiveLoss, "learners": Learner}


class FinishedRows:
    """Tables of finished rows, stored under a digest of everything that determines them.

    Args:
        output: Folder of the sweep; None to store nothing.
        splits: Splits of the sweep.
        chance: Table of a random order; a stored table must have its rows.
        seed: Seed of the fits.
    """

    def __init__(
        self, output: str | Path | None, splits: Sequence[Split], chance: QueryTable, seed: int
    ) -> None:
        self.folder = None if output is None else Path(output) / ROWS
        self.chance = chance
        self.shared_key = {
            "format": _FORMAT,
            "version": __version__,
            "ks": list(chance.ks),
            "seed": seed,
            "splits": _digest_splits(splits),
        }

    def read_or_measure(
        self, data: PairedFeatures, learner: Learner, measure: Callable[[], QueryTable]
    ) -> QueryTable:
        """The stored table of a learner; a missing or damaged one is measured and stored.

        What a re-ranker reads of profiles is not in the key: then the table is measured.
        """
        if self.folder is None or _reads_profiles(learner):
            return measure()
        key = {
            **self.shared_key,
            "features": digest_features(data),
            "learner": describe_learner(learner),
        }
        file = self.folder / f"{content_key(key)}.npz"
        table = self._read(file)
        if table is None:
            # As when it is read from the file
            table = replace(measure(), links=self.chance.links)
            self._write(file, table)
        return table

    def _read(self, file: Path) -> QueryTable | None:
        """The table in a file; None if the file is missing or damaged."""
        if not file.exists():
            return None
        try:
            with np.load(file, allow_pickle=False) as content:
                columns = {name: content[name] for name in self.chance.columns}
        except Exception:  # NumPy and zipfile raise many errors for damaged files
            return None
        table = QueryTable(self.chance.ks, columns, self.chance.links)
        return table if table.same_queries(self.chance) else None

    def _write(self, file: Path, table: QueryTable) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **table.columns)  # type: ignore[arg-type]
        replace_file(file, buffer.getvalue())


def describe_learner(learner: Learner) -> dict[str, Any]:
    """Registered name and options of a learner as JSON values, including those of its parts.

    Of a learner with a re-ranker, those of both.

    Raises:
        PartError: The learner, its re-ranker or a part of it has no registered name.
        ConfigurationError: An option cannot be written as JSON.
    """
    if isinstance(learner, Reranked):
        name, options = registry.describe("rerankers", learner.reranker)
        options = {key: options[key] for key in options if key != "device"}
        return {**describe_learner(learner.learner), "reranker": _as_json([name, options])}
    name, options = registry.describe("learners", learner)
    kept = {key: value for key, value in options.items() if key not in ("device", "progress")}
    described: dict[str, Any] = _as_json({"name": name, "options": kept})
    return described


def _reads_profiles(learner: Learner) -> bool:
    return isinstance(learner, Reranked) and learner.reranker.needs_profiles


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=_plain, sort_keys=True))


def _plain(value: Any) -> Any:
    """Parts, hyperparameters and paths among a learner's options, as JSON values."""
    if isinstance(value, TrainingConfig):
        return asdict(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    for kind, interface in _INTERFACES.items():
        if isinstance(value, interface):
            return registry.describe(kind, value)
    raise ConfigurationError(
        f"The learner's option {value!r} cannot be written as JSON, so its rows cannot be stored: "
        "run the sweep without `output`."
    )


def digest_features(data: PairedFeatures) -> str:
    """SHA-256 (hex) of features, pairs, units, and of decisions, pools and blocks if there are any.

    Names of blocks do not count: they change no figure.
    """
    digest = hashlib.sha256()
    arrays: list[np.ndarray[Any, Any] | None] = [
        data.a,
        data.b,
        data.matches,
        data.rejected,
        data.units,
    ]
    if data.decisions.directional or len(data.open):
        arrays += [data.open, data.decisions.a, data.decisions.b]
    if data.pools is not None:
        arrays += [data.pools.a, data.pools.b, data.pools.pool]
    for array in arrays:
        content = b"-"
        if array is not None:
            content = f"{array.shape}{array.dtype}".encode() + array.tobytes()
        digest.update(content)
    if len(data.blocks) > 1:
        digest.update(" ".join(str(block.stop) for block in data.blocks).encode())
    return digest.hexdigest()


def _digest_splits(splits: Sequence[Split]) -> str:
    digest = hashlib.sha256()
    for split in splits:
        parts = b"|".join(
            positions.tobytes()
            for part in (split.train, split.test)
            for positions in (part.matches, part.rejected, *([part.open] if len(part.open) else ()))
        )
        digest.update(f"{split.repeat} {split.fold} ".encode() + parts)
    return digest.hexdigest()

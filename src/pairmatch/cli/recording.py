"""What a folder of results records about its run, and whether a repeated run is the same."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pairmatch.cli.output import echo
from pairmatch.cli.run_file import RUN, holds_secret, option_key, write_run
from pairmatch.cli.run_options import Run, current_run
from pairmatch.core._version import __version__
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.text import printable, replace_surrogates

if TYPE_CHECKING:
    from pairmatch.cli.recorded import Circumstances, Recorded
    from pairmatch.data import Pairs

_LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
    "torchvision",
    "transformers",
    "peft",
    "open-clip-torch",
    "onnxruntime",
)
#: Options that do not change what is learned.
_BESIDE = {
    *("output", "store", "photos", "json", "history", "quiet", "learning-curve", "compare"),
    *("skipped", "track", "checkpoints", "folds"),
}


class Recorder:
    """Records the run of a command in the folder that it writes.

    If the command repeats a run file with a record, it says what has changed since.

    Args:
        seed: The seed of the run.
        tables: Everything that is learned from and tested on.
    """

    def __init__(self, seed: int, tables: Sequence[Pairs]) -> None:
        from pairmatch.cli.recorded import Circumstances
        from pairmatch.core.devices import resolve_device
        from pairmatch.data.digests import data_digests

        self._run = current_run()
        self._now = Circumstances(
            versions=_versions(),
            machine=platform.machine(),
            device=str(resolve_device(str(self._run.options.get("device", "auto")))),
            threads=_threads(),
            seed=seed,
            data=data_digests(tables),
        )
        self._before = _recorded_before(self._run)
        self._changes: list[str] = []
        if self._before is not None:
            self._changes = list(_changes(self._before, self._now))
            for change in self._changes:
                echo(f"Since the run was recorded, {change}.", err=True, color="yellow")

    @property
    def sentence(self) -> str:
        """The run in a sentence, for tables."""
        now = self._now
        return _sentence(self._run, now.versions, now.threads, now.seed, now.data)

    def write(self, folder: Path) -> None:
        """Writes the run file into the folder of a saved matcher, or of other results."""
        from pairmatch.io.replacing import replace_file

        digests = _learned_digests(folder)
        recorded = {**self._now.model_dump(), **digests}
        options = {key: _portable(value) for key, value in self._run.options.items()}
        try:
            text = write_run(self._run.command, options, recorded)
        except ConfigurationError as error:
            echo(f"The run is not recorded: {error}", err=True, color="yellow")
            return
        hint = f"# Repeat this run: pairmatch {self._run.command} --config FOLDER/{RUN}\n"
        replace_file(folder / RUN, (hint + text).encode())
        if digests:
            self._compare(digests)

    def _compare(self, digests: Mapping[str, str]) -> None:
        """Says whether a repeated run came to the same result."""
        changed = {option_key(key) for key in self._run.overridden} - _BESIDE
        if self._before is None or self._before.head is None or changed or self._changes:
            return
        before = {"head": self._before.head, "reranker": self._before.reranker}
        for part, noun in (("head", "head"), ("reranker", "re-ranker")):
            if digests.get(part) == before[part]:
                if part in digests:
                    echo(f"The {noun} is bit for bit the recorded one.")
                continue
            echo(
                f"The {noun} differs from the recorded one, although data, versions, threads and "
                "device are equal.",
                err=True,
                color="yellow",
            )


def provenance(tables: Sequence[Pairs], seed: int, matcher: Path | None = None) -> str:
    """A sentence about the run of this command, for its tables: versions, data and words.

    Args:
        tables: Everything that was read.
        seed: Seed.
        matcher: Folder of the saved matcher that was used, if one was.
    """
    from pairmatch.data.digests import data_digests

    data = {**data_digests(tables), **({} if matcher is None else _learned_digests(matcher))}
    return _sentence(current_run(), _versions(), _threads(), seed, data)


def _sentence(
    run: Run, versions: Mapping[str, str], threads: int, seed: int, digests: Mapping[str, str]
) -> str:
    """What produced a table, in a sentence; passwords in addresses are left out."""
    parts = [
        *(f"{name} {versions[name]}" for name in ("pairmatch", "torch", "numpy")),
        f"seed {seed}",
        f"{threads} thread{'' if threads == 1 else 's'}",
        *(f"{name} {digest[:12]}" for name, digest in digests.items()),
    ]
    words = []
    for key, given in run.options.items():
        value = _portable(given)
        text = value if isinstance(value, str) else ", ".join(value)
        words.append(f"{key} {'(left out: a password)' if holds_secret(text) else text}")
    return f"Run: {', '.join(parts)}; pairmatch {run.command} with {'; '.join(words)}."


def _learned_digests(folder: Path) -> dict[str, str]:
    """SHA-256 (hex) of the head and the re-ranker of a saved matcher."""
    from pairmatch.io.files import digest_file
    from pairmatch.io.replacing import current_file
    from pairmatch.matcher.files import RERANKER, WEIGHTS

    learned = {"head": WEIGHTS, "reranker": RERANKER}
    files = {part: current_file(folder, name) for part, name in learned.items()}
    return {part: digest_file(path) for part, path in files.items() if path.exists()}


def _recorded_before(run: Run) -> Recorded | None:
    if run.file is None or run.file.recorded is None:
        return None
    from pydantic import ValidationError

    from pairmatch.cli.recorded import Recorded

    try:
        return Recorded.model_validate(run.file.recorded)
    except ValidationError as error:
        problems = [
            f"recorded.{'.'.join(map(str, item['loc']))}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        ]
        path = printable(str(run.file.path))
        raise DataError(
            f"{path} holds a record that pairmatch did not write: remove its lines from "
            "`recorded:` on, or correct them:",
            problems,
        ) from error


def _changes(before: Recorded, now: Circumstances) -> list[str]:
    """Ends of sentences."""
    changes = []
    parts = [part for part, digest in now.data.items() if before.data.get(part) != digest]
    if parts:
        changes.append(f"the data changed ({', '.join(parts)})")
    changes += [
        f"{library} changed from {printable(before.versions.get(library, 'none'))} to {version}"
        for library, version in now.versions.items()
        if before.versions.get(library) != version
    ]
    changes += [
        f"the {what} changed from {printable(str(was))} to {value}: numbers may differ in their "
        "last digits"
        for what, was, value in (
            ("processor", before.machine, now.machine),
            ("device", before.device, now.device),
            ("number of threads", before.threads, now.threads),
        )
        if was != value
    ]
    return changes


def _portable(value: str | list[str]) -> str | list[str]:
    """Paths as they were given; in the home folder with `~`, which does not name its owner."""
    if isinstance(value, list):
        return [str(_portable(item)) for item in value]
    text = replace_surrogates(value)
    home = str(Path.home()).rstrip("/")
    return f"~{text.removeprefix(home)}" if home and text.startswith(f"{home}/") else text


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "pairmatch": __version__}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _threads() -> int:
    import torch

    return torch.get_num_threads()

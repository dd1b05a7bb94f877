"""A kind of input, and one case of it."""

import random
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from .verdicts import FaultError

Value = TypeVar("Value")


class Case:
    """One input on disk and what its use led to.

    Attributes:
        number: Number of the case.
        rng: Source of all random choices.
        corpus: Folder of the valid files of this kind of input; read only.
        input: Folder for the mutated files.
        output: Folder for what the product writes.
        refusals: Messages of the errors that pairmatch raised on purpose.
    """

    def __init__(self, seed: int, kind: str, number: int, corpus: Path, folder: Path) -> None:
        self.number = number
        self.rng = random.Random(f"{seed}:{kind}:{number}")
        self.corpus = corpus
        self.input = folder / "input"
        self.output = folder / "output"
        for path in (self.input, self.output):
            path.mkdir(parents=True)
        self.refusals: list[str] = []

    def attempt(self, act: Callable[[], Value]) -> Value | None:
        """The result of an act; None if pairmatch refused it."""
        from pairmatch import PairmatchError

        try:
            return act()
        except PairmatchError as error:
            self.refusals.append(str(error))
            return None

    def command(self, *arguments: object) -> bool:
        """Runs a command in this process; returns whether it ended with exit code 0."""
        from typer.testing import CliRunner

        from pairmatch.cli import app

        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exit_code not in (0, 2):
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                raise result.exception
            raise FaultError("traceback", f"exit code {result.exit_code}: {result.output[-500:]}")
        obeyed = {c for c in result.output if ord(c) < 32 and c not in "\n\t\r"} | {
            c for c in result.output if c in "\u202e\x7f\x9b"
        }
        if obeyed:
            raise FaultError("wrong", f"the output holds control characters {sorted(obeyed)!r}")
        if result.exit_code == 2:
            self.refusals.append(result.output)
        return result.exit_code == 0

    def expect(self, holds: bool, message: str) -> None:
        """Ends the case as wrong unless a condition holds."""
        if not holds:
            raise FaultError("wrong", message)

    def whole(self, path: Path, read: Callable[[Path], Any]) -> None:
        """Ends the case as half-written unless a file is absent or can be read."""
        if path.exists():
            try:
                read(path)
            except Exception as error:
                raise FaultError("half-written", f"{path.name}: {error!r}") from error


class Subject(ABC):
    """A kind of input: valid files, a mutation of them, and their use through the public API."""

    name: ClassVar[str]
    weight: ClassVar[int] = 10  # share of the cases of a run over all kinds

    @abstractmethod
    def prepare(self, corpus: Path) -> None:
        """Writes the valid files; called once per run."""

    @abstractmethod
    def write(self, case: Case) -> None:
        """Writes the mutated input."""

    @abstractmethod
    def use(self, case: Case) -> None:
        """Reads the input as a user would; refusals within `case.attempt` do not end the case."""


def leftovers(folder: Path) -> list[str]:
    """Names of temporary files that pairmatch, or a library in its process, left behind."""
    found = [str(path.relative_to(folder)) for path in (folder / "tmp").rglob("*")]
    for path in (folder / "output").rglob("*"):
        hidden = path.name.startswith(".") and path.name != ".pairmatch"
        if hidden or path.suffix in (".tmp", ".part"):
            found.append(str(path.relative_to(folder)))
    return found


def copy(source: Path, target: Path) -> None:
    """Copies a file or the content of a folder."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)

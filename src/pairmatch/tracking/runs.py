"""Runs in MLflow, Weights & Biases and TensorBoard, behind one small interface."""

from __future__ import annotations

import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pairmatch.core.errors import missing_extra
from pairmatch.io.outputs import check_output_file, check_replaced_file

_PROJECT = "pairmatch"  # unless the tracker's own setting names another
_LONGEST_VALUE = 500  # characters of a parameter, which MLflow takes on every server


class TrackedRun(ABC):
    """A run of a tracker. Constructors take the location, "" for the default."""

    @abstractmethod
    def describe(self, parameters: Mapping[str, str | int | float]) -> None:
        """Records the parameters, once, before any number."""

    @abstractmethod
    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Adds a value to each name, at an epoch."""

    @abstractmethod
    def flush(self) -> None:
        """Writes everything that was added."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """Ends the run."""


class MLflowRun(TrackedRun):
    """A run in MLflow: in a SQLite file, or on a server.

    It uses its own client, so that the user's active run is not touched.
    """

    def __init__(self, location: str) -> None:
        try:
            with _without_telemetry():
                from mlflow import entities
                from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise missing_extra("The tracker 'mlflow'", "mlflow-skinny", "track") from error
        self._entities = entities
        is_file = location and "://" not in location and not location.startswith("databricks")
        if is_file:
            _check_database(Path(location))
        uri = f"sqlite:///{location}" if is_file else location
        self._client = MlflowClient(tracking_uri=uri or None)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self._run = self._client.create_run(number).info.run_id

    def describe(self, parameters: Mapping[str, str | int | float]) -> None:
        """Records the parameters, in one request."""
        params = [
            self._entities.Param(_mlflow_name(name), str(value)[:_LONGEST_VALUE])
            for name, value in parameters.items()
        ]
        self._client.log_batch(self._run, params=params)

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Adds the numbers at the step of the epoch, in one request."""
        now = int(1000 * time.time())
        metrics = [
            self._entities.Metric(_mlflow_name(name), value, now, epoch)
            for name, value in numbers.items()
        ]
        self._client.log_batch(self._run, metrics=metrics)

    def flush(self) -> None:
        """Nothing waits: every request is answered before the next."""

    def close(self, failed: bool) -> None:
        """Ends the run as FINISHED or FAILED."""
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


class WandbRun(TrackedRun):
    """A run in Weights & Biases: in a folder that `wandb sync` uploads later, or online.

    Nothing is recorded that a user would not expect: no name of the machine, code, command line,
    console output, packages or load.
    """

    def __init__(self, location: str) -> None:
        try:
            import wandb
        except ImportError as error:
            raise missing_extra("The tracker 'wandb'", "wandb", "track") from error
        online = location == "online"
        folder = Path("." if online else location or ".")
        folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            console="off",
            silent=not online,
            save_code=False,
            disable_git=True,
            disable_job_creation=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        self._run: Any = wandb.init(
            mode="online" if online else "offline",
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            dir=str(folder),
            settings=settings,
            reinit="create_new",
        )
        self._run.define_metric("*", step_metric="epoch")

    def describe(self, parameters: Mapping[str, str | int | float]) -> None:
        """Records the parameters as the configuration of the run."""
        self._run.config.update(dict(parameters))

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Adds the numbers, with the epoch as their axis."""
        self._run.log({**numbers, "epoch": epoch})

    def flush(self) -> None:
        """Nothing to do: a process of its own writes, and finishes even if this one is killed."""

    def close(self, failed: bool) -> None:
        """Ends the run, with exit code 1 if it failed."""
        self._run.finish(exit_code=int(failed))


class TensorBoardRun(TrackedRun):
    """A run in TensorBoard: event files in a folder of its own, named after the time (UTC)."""

    def __init__(self, location: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing_extra("The tracker 'tensorboard'", "tensorboard", "track") from error
        runs = Path(location or "runs")
        runs.mkdir(parents=True, exist_ok=True)
        self._writer = SummaryWriter(str(_new_folder(runs)))

    def describe(self, parameters: Mapping[str, str | int | float]) -> None:
        """Records the parameters as a table in the tab "Text"."""
        rows = [f"| {name} | {value} |" for name, value in parameters.items()]
        table = "\n".join(["| parameter | value |", "| --- | --- |", *rows])
        self._writer.add_text("parameters", table)

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Adds the numbers at the step of the epoch."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, epoch)

    def flush(self) -> None:
        """Writes the event file."""
        self._writer.flush()

    def close(self, failed: bool) -> None:
        """Closes the event file; TensorBoard knows no failed runs."""
        self._writer.close()


def _check_database(path: Path) -> None:
    """Checks that SQLite can open a file: MLflow tries for a minute before it says that it cannot.

    Raises:
        ConfigurationError: The file cannot be written, or holds something else.
    """
    check_output_file(path)
    check_replaced_file(path, b"SQLite format 3", "runs of MLflow")
    path.parent.mkdir(parents=True, exist_ok=True)


def _mlflow_name(name: str) -> str:
    """The name with only the characters that MLflow takes."""
    return re.sub(r"[^\w.\-/ ]", "_", name)


def _new_folder(runs: Path) -> Path:
    """A new folder, even if several runs start in the same second."""
    stem = time.strftime("%Y-%m-%d-%H%M%S", time.gmtime())
    for number in range(1, 10_000):
        folder = runs / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{runs} has 10,000 runs of one second")


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Imports MLflow without the statistics of use that it sends to its makers by default.

    MLflow decides while it is imported. What the user has set, or imported earlier, stays.
    """
    name = "MLFLOW_DISABLE_TELEMETRY"
    if name in os.environ:
        yield
        return
    os.environ[name] = "true"
    try:
        yield
    finally:
        del os.environ[name]

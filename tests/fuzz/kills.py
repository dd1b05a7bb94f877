"""Kills works at random moments, and judges what is left."""

import contextlib
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .api import BatchServer, Server, about
from .scenarios import Scenario, scenarios
from .subject import copy
from .verdicts import FaultError, Result
from .workers import enter_sandbox, forkserver, judged

_SECONDS = 120.0  # that a work, or the judgement of one, may take
_ANSWER_SECONDS = 0.004
_ATTEMPTS = 20  # to meet a work before it ends


@dataclass
class Kills:
    """Kills of the works of scenarios.

    Attributes:
        scratch: Folder for all files of the run.
        seed: Seed of the run.
        processes: Number of works at a time.
        keep: Folder that receives the files of each case with a fault; None for none.
    """

    scratch: Path
    seed: int
    processes: int = 2
    keep: Path | None = None
    late: int = 0  # works that ended before they were killed; they are started again
    _durations: dict[str, float] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    def prepare(self, names: list[str]) -> None:
        """Writes the files before each work, does it once, and measures how long it takes."""
        known = scenarios()
        forkserver([module for name in names for module in known[name].imports])
        for name in names:
            scenario = known[name]
            start = self.scratch / name / "start"
            start.mkdir(parents=True)
            result = self._child(_prepare, scenario, start)
            if result is None or result.is_fault:
                raise RuntimeError(f"{name} cannot be prepared: {result and result.detail}")
            durations = []
            for attempt in ("done", "again"):
                folder = self.scratch / name / attempt
                copy(start, folder)
                with serving(scenario, folder) as url, self._working(scenario, folder, url) as work:
                    started = time.monotonic()
                    if not work.pipe.poll(_SECONDS) or work.pipe.recv() != "done":
                        raise RuntimeError(f"{name} cannot be done: {_log(folder)}")
                    durations.append(time.monotonic() - started)
            self._durations[name] = min(durations)

    def run(self, jobs: list[tuple[str, int]]) -> Iterator[Result]:
        """Yields the result of each (scenario, number) after a kill."""
        with ThreadPoolExecutor(self.processes) as pool:
            for future in as_completed([pool.submit(self._case, *job) for job in jobs]):
                yield future.result()

    def _case(self, name: str, number: int) -> Result:
        scenario = scenarios()[name]
        rng = random.Random(f"{self.seed}:{name}:{number}")
        folder = self.scratch / name / f"case-{number}"
        for _ in range(_ATTEMPTS):
            shutil.rmtree(folder, ignore_errors=True)
            copy(self.scratch / name / "start", folder)
            with serving(scenario, folder) as url:
                with self._working(scenario, folder, url) as work:
                    # Waiting for the message that the work is done, so that a late kill is noticed
                    is_late = work.pipe.poll(rng.uniform(0, self._durations[name]))
                    work.process.kill()  # SIGKILL
                    work.process.join()
                if is_late:
                    with self._lock:
                        self.late += 1
                    continue
                started = time.monotonic()
                done = self.scratch / name / "done"
                result = self._child(_judge, scenario, folder, done, url, number)
            if result is None:
                seconds = time.monotonic() - started
                verdict = "hang" if seconds >= _SECONDS else "crash"
                result = Result(name, number, verdict, "after the kill", _log(folder), seconds)
            break
        else:
            result = Result(name, number, "wrong", "the work always ends before it is killed")
        if result.is_fault and self.keep is not None:
            shutil.copytree(folder, self.keep / f"{name}-{number}", dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        return result

    @contextlib.contextmanager
    def _working(self, scenario: Scenario, folder: Path, url: str) -> Iterator["_Child"]:
        """A process that has begun the work."""
        child = _start(_perform, scenario, folder, url)
        try:
            if not child.pipe.poll(_SECONDS) or child.pipe.recv() != "begun":
                raise RuntimeError(f"{scenario.name} does not begin: {_log(folder)}")
            yield child
        finally:
            child.end()

    def _child(self, act: Any, *arguments: Any) -> Result | None:
        """What a process returns; None if it took too long or died."""
        child = _start(act, *arguments)
        try:
            if child.pipe.poll(_SECONDS):
                with contextlib.suppress(EOFError, OSError):
                    return child.pipe.recv()
            return None
        finally:
            child.end()


@dataclass(frozen=True)
class _Child:
    process: Any
    pipe: Any

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


_STARTING = threading.Lock()  # the fork server takes one request at a time


def _start(act: Any, *arguments: Any) -> _Child:
    context = forkserver()
    ours, theirs = context.Pipe()
    process = context.Process(target=act, args=(theirs, *arguments), daemon=True)
    with _STARTING:
        process.start()
    theirs.close()
    return _Child(process, ours)


def _log(folder: Path) -> str:
    with contextlib.suppress(OSError):
        return (folder / "log").read_text(errors="replace")[-3000:]
    return ""


def _prepare(pipe: Any, scenario: Scenario, folder: Path) -> None:
    with _outside(folder):
        pipe.send(judged(scenario.name, -1, lambda: scenario.prepare(folder)))


def _perform(pipe: Any, scenario: Scenario, folder: Path, url: str) -> None:
    with _outside(folder):
        loaded = scenario.load(folder, url)
        pipe.send("begun")
        scenario.work(folder, loaded)
        pipe.send("done")


def _judge(pipe: Any, scenario: Scenario, folder: Path, done: Path, url: str, number: int) -> None:
    """Checks the files, does the work again, and compares it with an uninterrupted run."""

    def act() -> None:
        scenario.check(folder, done)
        scenario.work(folder, scenario.load(folder, url))
        scenario.compare(folder, done)
        left = [
            path.name
            for path in folder.rglob("*")
            if (path.name.startswith(".") and path.name != ".pairmatch")
            or path.suffix in (".tmp", ".part")
        ]
        if left:
            raise FaultError("half-written", f"left behind: {', '.join(sorted(left)[:5])}")

    with _outside(folder):
        result = judged(scenario.name, number, act)
        if result.verdict == "refused":  # the product wrote these files itself
            detail = result.detail
            result = Result(scenario.name, number, "wrong", f"refused: {detail[:200]}", detail)
        pipe.send(result)


@contextlib.contextmanager
def _outside(folder: Path) -> Iterator[None]:
    """Keeps caches and temporary files of the system out of the folder that is judged."""
    place = folder.with_name(f"{folder.name}.d")
    place.mkdir(exist_ok=True)
    enter_sandbox(place, memory=False)
    os.environ["TMPDIR"] = str(place)
    yield


@contextlib.contextmanager
def serving(scenario: Scenario, folder: Path) -> Iterator[str]:
    """The URL of a server that notes which photos it was paid for; "" if none is needed."""
    if not scenario.needs_server:
        yield ""
        return
    log = os.open(folder / "paid.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def answer(number: int, body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(_ANSWER_SECONDS)
        reply = about(number, body)
        os.write(log, f"{number}\n".encode())
        return reply

    def finish(method: str, path: str) -> None:
        if method == "GET":
            server.finish()

    server = BatchServer(answer, hook=finish) if scenario.name == "batch" else Server(answer)
    server.http.handle_error = lambda *_: None  # a killed client does not end its connections
    with server:
        yield server.url
    os.close(log)

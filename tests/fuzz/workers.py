"""Processes that run cases: imported once, limited in memory, killed when a case takes too long."""

import contextlib
import faulthandler
import logging
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

from .subject import Case, leftovers
from .verdicts import FaultError, Result

_MEMORY_BYTES = 3 * 2**30  # above what a worker uses after its imports
_CASES = 400  # per worker; a new one then starts, so that a slow leak is no fault of a case
_PREPARE_SECONDS = 180.0
_PRELOADED = (
    *("pairmatch.cli", "pairmatch.matcher.matcher", "pairmatch.gallery", "pairmatch.metadata"),
    *("pairmatch.backbones.descriptor", "openai", "typer.testing"),
)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


def forkserver(more: Sequence[str] = ()) -> Any:
    """The context whose processes start from one that has imported the package already.

    Args:
        more: Further modules to import; those of the first call of this process count.
    """
    # No thread pool may exist in a process that forks
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, *_PRELOADED, *more])
    return context


def enter_sandbox(folder: Path, *, memory: bool = True) -> None:
    """Keeps this process's temporary files, caches, output and memory within limits."""
    for name in _PROXIES:
        os.environ.pop(name, None)
    os.environ["OPENAI_API_KEY"] = KEY
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "cache")
    os.chdir(folder)
    log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.addaudithook(_watch)
    if memory:
        # Written memory: address space also counts what threads reserve and never use
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        limit = pages * resource.getpagesize() + _MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pty.spawn")
_FOREIGN = ("/etc/passwd", "/dev/zero", "/root/.ssh", "/root/.aws")
_acts: list[str] = []  # forbidden acts of the current case


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Notes programs that are started, other hosts that are called, and files of the system."""
    if event in _PROGRAMS and arguments[0] != "uname":  # the provider's client names the system
        _acts.append(f"started {arguments[0]!r}")
    elif event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            _acts.append(f"connected to {address[0]!r}")
    elif event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", "::1", "localhost"):
        _acts.append(f"asked for the address of {arguments[0]!r}")
    elif event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(_FOREIGN):
        _acts.append(f"opened {arguments[0]}")


#: The key that no file, message or report may repeat.
KEY = "sk-fuzz-0123456789-very-secret"


@dataclass
class _Worker:
    """A process and the case that it works on."""

    process: Any
    pipe: connection.Connection
    folder: Path
    job: tuple[str, int] | None = None
    deadline: float = 0.0
    last_deadline: float = 0.0
    processor_limit: float = 0.0
    done: int = 0

    def is_overdue(self) -> bool:
        """Whether the case had its time; a deadline is put off while others had the processors."""
        now = time.monotonic()
        if now <= self.deadline:
            return False
        left = self.processor_limit - _processor_seconds(self.process.pid)
        self.deadline = min(now + max(left, 0.0), self.last_deadline)
        return now >= self.deadline


def _processor_seconds(pid: int) -> float:
    """Processor time that a process has used; 0 if it has just ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Pool:
    """Runs cases in worker processes, in any order.

    Attributes:
        subjects: Kinds of input by name.
        scratch: Folder for all files of the run.
        seed: Seed of the run.
        limit: Seconds of processor time that a case may take; it may wait for three times as long.
        processes: Number of workers.
        keep: Folder that receives the files of each case with a fault; None for none.
    """

    subjects: dict[str, Any]
    scratch: Path
    seed: int
    limit: float = 30.0
    processes: int = 2
    keep: Path | None = None
    _workers: list[_Worker] = field(default_factory=list)
    _started: int = 0

    def prepare(self, names: list[str]) -> None:
        """Writes the valid files of kinds of input.

        Raises:
            RuntimeError: A kind could not be prepared: a fault of this suite, or of the product
                with valid input.
        """
        for result in self.run([(name, -1) for name in names]):
            if result.is_fault:
                raise RuntimeError(f"{result.kind} cannot be prepared: {result.detail}")

    def run(self, jobs: list[tuple[str, int]]) -> Iterator[Result]:
        """Yields the result of each (kind, number); number −1 prepares the kind."""
        waiting = list(reversed(jobs))
        try:
            while waiting or self._workers:
                while waiting and sum(w.job is not None for w in self._workers) < self.processes:
                    self._assign(waiting.pop())
                yield from self._collect()
                if not waiting:
                    for worker in [w for w in self._workers if w.job is None]:
                        self._end(worker)
        finally:
            for worker in list(self._workers):
                self._end(worker)

    def _assign(self, job: tuple[str, int]) -> None:
        worker = next((w for w in self._workers if w.job is None), None) or self._start()
        worker.job = job
        limit = self.limit if job[1] >= 0 else _PREPARE_SECONDS
        if not worker.done:
            limit += _PREPARE_SECONDS  # a new process has its imports before it
        worker.deadline = time.monotonic() + limit
        worker.last_deadline = time.monotonic() + 4 * limit
        worker.processor_limit = _processor_seconds(worker.process.pid) + limit
        worker.pipe.send(job)

    def _collect(self) -> Iterator[Result]:
        """Waits for a result, a death or a deadline, and yields what ended."""
        busy = [worker for worker in self._workers if worker.job is not None]
        next_deadline = min(worker.deadline for worker in busy)
        handles = [handle for w in busy for handle in (w.pipe, w.process.sentinel)]
        connection.wait(handles, max(0.0, next_deadline - time.monotonic()))
        for worker in busy:
            assert worker.job is not None
            kind, number = worker.job
            result = None
            if worker.pipe.poll():
                with contextlib.suppress(EOFError, OSError):
                    result = worker.pipe.recv()
            if result is not None:
                worker.job = None
                worker.done += 1
                if number < 0 or worker.done == _CASES:
                    self._end(worker)
            elif not worker.process.is_alive():
                worker.process.join()
                code = f"exit code {worker.process.exitcode}"
                result = Result(kind, number, "crash", code, _log(worker.folder))
                self._end(worker)
            elif worker.is_overdue():
                result = Result(kind, number, "hang", f"killed after {self.limit:.0f} s")
                self._end(worker)
            if result is None:
                continue
            if result.is_fault and number >= 0:
                self._keep(result, worker.folder)
            yield result

    def _start(self) -> _Worker:
        folder = self.scratch / f"worker-{self._started}"
        folder.mkdir()
        self._started += 1
        context = forkserver()
        ours, theirs = context.Pipe()
        arguments = (theirs, self.subjects, self.scratch / "corpus", folder, self.seed)
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, ours, folder)
        self._workers.append(worker)
        return worker

    def _end(self, worker: _Worker) -> None:
        worker.process.kill()  # by its process id; there is nothing to save in it
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)

    def _keep(self, result: Result, folder: Path) -> None:
        case = folder / "case"
        if self.keep is not None and case.exists():
            target = self.keep / f"{result.kind}-{result.number}"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(case, target, symlinks=True, copy_function=_copy_regular)
            text = f"{result.verdict}: {result.summary}\n{result.detail}\n"
            (target / "verdict.txt").write_text(text, encoding="utf-8")


def _copy_regular(source: str, target: str) -> None:
    """Copies a file; leaves out named pipes and devices."""
    if Path(source).is_file():
        shutil.copyfile(source, target)


def _log(folder: Path) -> str:
    """End of what a worker printed, such as the stack of a crash."""
    with contextlib.suppress(OSError):
        return (folder / "log").read_text(errors="replace")[-3000:]
    return ""


def _work(
    pipe: connection.Connection,
    subjects: dict[str, Any],
    corpus: Path,
    folder: Path,
    seed: int,
) -> None:
    """Runs the cases that arrive until the parent closes the pipe."""
    enter_sandbox(folder)
    while True:
        try:
            kind, number = pipe.recv()
        except EOFError:
            return
        subject = subjects[kind]
        if number < 0:
            pipe.send(_prepare(subject, kind, corpus / kind, folder))
        else:
            pipe.send(run_case(subject, seed, number, corpus / kind, folder / "case"))


def _prepare(subject: Any, kind: str, corpus: Path, folder: Path) -> Result:
    corpus.mkdir(parents=True)
    tempfile.tempdir = str(folder)
    return judged(kind, -1, lambda: subject.prepare(corpus))


def run_case(subject: Any, seed: int, number: int, corpus: Path, folder: Path) -> Result:
    """Writes the input of a case, uses it, and looks at what is left on disk."""
    shutil.rmtree(folder, ignore_errors=True)
    case = Case(seed, subject.name, number, corpus, folder)
    temporary = folder / "tmp"
    temporary.mkdir()
    os.environ["TMPDIR"] = str(temporary)
    tempfile.tempdir = None
    started = time.monotonic()
    _acts.clear()
    subject.write(case)  # an error here is one of this suite: it ends the worker

    def use() -> str:
        subject.use(case)
        return "refused" if case.refusals else "ok"

    result = judged(subject.name, number, use, time.monotonic() - started)
    if _acts:
        return Result(subject.name, number, "wrong", f"{_acts[0]}", result.detail, result.seconds)
    left = leftovers(folder)
    if left and not result.is_fault:
        return Result(subject.name, number, "half-written", f"left behind: {', '.join(left[:5])}")
    return result


def judged(kind: str, number: int, act: Callable[[], Any], before: float = 0.0) -> Result:
    """The result of an act that raises what went wrong and may return a verdict."""
    from pairmatch import PairmatchError

    started = time.monotonic()
    verdict, summary, detail = "ok", "", ""
    try:
        verdict = act() or "ok"
    except PairmatchError as error:
        verdict = "refused" if number >= 0 else "wrong"  # valid files are not refused
        detail = str(error)
    except FaultError as fault:
        verdict, summary, detail = fault.verdict, str(fault), traceback.format_exc()
    except (Exception, SystemExit) as error:
        verdict, summary, detail = "traceback", _place(error), traceback.format_exc()
    seconds = before + time.monotonic() - started
    return Result(kind, number, verdict, _shown(summary, 200), _shown(detail, 6000), seconds)


def _place(error: BaseException) -> str:
    """Class of an error, where the product raised it, and the beginning of its message."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/pairmatch/" in frame.filename]
    place = ""
    if ours:
        path = ours[-1].filename.rpartition("/pairmatch/")[2]
        place = f" in {path}:{ours[-1].lineno} ({ours[-1].name})"
    message = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}{place}: {message}"


def _shown(text: str, length: int) -> str:
    """Text that any terminal and JSON file can hold; of a long one, the end."""
    text = text if len(text) <= length else f"…{text[-length:]}" if "\n" in text else text[:length]
    return text.encode("utf-8", "backslashreplace").decode()

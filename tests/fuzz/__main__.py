"""The commands `python -m tests.fuzz inputs` and `python -m tests.fuzz kills`."""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from .inputs import draw_jobs, subjects
from .kills import Kills
from .scenarios import scenarios
from .verdicts import Result, report
from .workers import Pool


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns 1 if there was any fault."""
    options = _parser().parse_args(arguments)
    scratch = Path(tempfile.mkdtemp(prefix="pairmatch-fuzz-", dir=options.scratch))
    try:
        return (
            run_inputs(options, scratch)
            if options.command == "inputs"
            else run_kills(options, scratch)
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def run_inputs(options: argparse.Namespace, scratch: Path) -> int:
    """Runs mutated inputs and reports them."""
    pool = Pool(
        subjects=subjects(),
        scratch=scratch,
        seed=options.seed,
        limit=options.limit,
        processes=options.processes,
        keep=options.keep,
    )
    return _run(pool, pool.subjects, f"Inputs, seed {options.seed}", options)


def run_kills(options: argparse.Namespace, scratch: Path) -> int:
    """Kills works and reports what is left of them."""
    kills = Kills(
        scratch=scratch, seed=options.seed, processes=options.processes, keep=options.keep
    )
    return _run(kills, scenarios(), f"Kills, seed {options.seed}", options)


def _run(runner: Any, kinds: dict[str, Any], title: str, options: argparse.Namespace) -> int:
    """Runs the cases that the options name, and reports them."""
    console = Console(width=None if sys.stdout.isatty() else 100)
    jobs = draw_jobs(kinds, options.seed, options.count, options.kind or (), options.case)
    started = time.monotonic()
    results = []
    with _progress(console, hidden=options.quiet) as bar:
        task = bar.add_task("Preparing", total=len(jobs))
        runner.prepare(sorted({kind for kind, _ in jobs}))
        bar.update(task, description="Running")
        for result in runner.run(jobs):
            results.append(result)
            bar.advance(task)
            if result.is_fault:
                bar.console.print(_line(result), markup=False, highlight=False, soft_wrap=True)
    if options.case is not None:
        console.print(results[0].detail, markup=False, highlight=False, soft_wrap=True)
    seconds = time.monotonic() - started
    return report(results, title, console, seconds=seconds, json_file=options.json)


def _line(result: Result) -> str:
    return f"{result.kind} --case {result.number}: {result.verdict}: {result.summary}"


def _progress(console: Console, *, hidden: bool) -> Progress:
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=hidden, transient=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--seed", type=int, default=0)
    shared.add_argument("--case", type=int, help="run only this case of one --kind, and print it")
    shared.add_argument("--processes", type=int, default=2)
    shared.add_argument("--json", type=Path, help="file for the figures and the faults")
    shared.add_argument("--scratch", type=Path, help="folder for temporary files")
    shared.add_argument("--keep", type=Path, help="folder for the files of cases with a fault")
    shared.add_argument("--quiet", action="store_true", help="show no progress bar")
    several = "kind to try; repeatable, by default all"
    inputs = commands.add_parser("inputs", parents=[shared], help="mutated inputs")
    inputs.add_argument("--count", type=int, default=10_000)
    inputs.add_argument("--kind", action="append", choices=sorted(subjects()), help=several)
    inputs.add_argument("--limit", type=float, default=30.0, help="seconds that a case may take")
    kills = commands.add_parser("kills", parents=[shared], help="works killed at random moments")
    kills.add_argument("--count", type=int, default=1_000)
    kills.add_argument("--kind", action="append", choices=sorted(scenarios()), help=several)
    return parser


if __name__ == "__main__":
    sys.exit(main())

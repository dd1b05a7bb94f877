"""Measured figures of the docs: each names a command that exists, a commit, and a machine."""

import argparse
import ast
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}

# --- commands


def benchmark_commands():
    """Calls of the benchmarks in the pages and in the docstrings of the benchmarks themselves."""
    texts = [*TEXTS.values(), *(ast.get_docstring(ast.parse(s.read_text())) for s in SCRIPTS)]
    inline = [call for text in texts for call in re.findall(r"`(python\s+benchmarks/[^`]+)`", text)]
    lines = [
        call for text in texts for call in re.findall(r"^ *(python benchmarks/.*)$", text, re.M)
    ]
    shown = {" ".join(call.split()) for call in (*inline, *lines)}
    return sorted(call for call in shown if not re.search(r"[…\[]|\b[A-Z]{3,}\b", call))


class ParsedError(Exception):
    """The arguments were accepted, and the benchmark is not run."""


@pytest.mark.parametrize("command", benchmark_commands())
def test_benchmark_commands_parse(command, monkeypatch):
    _, script, *arguments = shlex.split(command)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = importlib.import_module(Path(script).stem)
    if not hasattr(benchmark, "argparse"):
        assert not arguments
        return
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(ParsedError):
        benchmark.main()


def test_docs_have_benchmark_commands():
    assert len(benchmark_commands()) >= 25


# --- commits

COMMIT = re.compile(r"\bcommits?\s+([0-9a-f]{7})\b")
DATED = re.compile(r"(\d{4}-\d\d-\d\d)[,\s(]+(?:at\s+|with\s+)?commit\s+([0-9a-f]{7})\b")


def git(*arguments):
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=60
    ).stdout.strip()


def test_named_commits_exist_and_are_not_later_than_the_figures():
    if shutil.which("git") is None or git("rev-parse", "--is-shallow-repository") != "false":
        pytest.skip("needs the history of the repository")
    dates = dict(line.split() for line in git("log", "--format=%h %cs", "--abbrev=7").splitlines())
    problems = []
    for page, text in TEXTS.items():
        problems += [f"{page}: {commit}" for commit in COMMIT.findall(text) if commit not in dates]
        problems += [
            f"{page}: {commit} is of {dates[commit]}, the figure of {date}"
            for date, commit in DATED.findall(text)
            if dates.get(commit, "") > date
        ]
    assert not problems
    assert sum(len(DATED.findall(text)) for text in TEXTS.values()) >= 30


# --- tables

QUALITY = re.compile(r"\bMRR\b|R@\d|\bp [=<] 0|\d %|\d–\d|\d \(0\.\d")
COST = re.compile(
    r"\d (?:ms|s|GiB|MiB|×(?! \d))(?!\w)|photos/s|people/s|\bseconds?\b|\bminutes\b|\bp99\b"
)
COMMAND = re.compile(r"`(?:python|pairmatch|pip|du)\s|^(?:python|pairmatch) ", re.MULTILINE)
MACHINE = re.compile(r"Xeon|EPYC|AVX|CPU core|H100|H200")
NOT_MEASURED = {"docs/serving.md: Limits"}


def sections():
    """Text under each heading of the second level, by page and heading."""
    for page, text in TEXTS.items():
        for section in re.split(r"\n(?=## )", text):
            yield f"{page}: {section.strip().splitlines()[0].lstrip('# ')}", section


def is_measured(table):
    """Whether most rows have a number after their first cell, of quality or cost."""
    rows = [row.strip("|").split("|")[1:] for row in table.splitlines()[2:]]
    number = re.compile(r"[+−]?\**\d[\d.,]*\**(?:\s?(?:[sx×%]|ms|GiB|MiB))?(?:[ ,(].{0,60})?")
    counts = [any(number.fullmatch(cell.strip()) for cell in row) for row in rows]
    return sum(counts) > len(rows) / 2 and bool(QUALITY.search(table) or COST.search(table))


def measured():
    for name, section in sections():
        tables = filter(is_measured, re.findall(r"(?:^\|.*\n?)+", section, re.MULTILINE))
        tables = list(tables)
        if tables and name not in NOT_MEASURED:
            yield pytest.param(section, any(map(COST.search, tables)), id=name)


@pytest.mark.parametrize(("section", "costs"), list(measured()))
def test_tables_of_figures_name_command_commit_and_machine(section, costs):
    assert COMMIT.search(section), "no commit"
    assert COMMAND.search(section), "no command"
    assert not costs or MACHINE.search(section), "no machine"


def test_sections_that_name_a_benchmark_name_its_commit():
    problems = [
        name
        for name, section in sections()
        if "`python benchmarks/" in " ".join(section.split()) and not COMMIT.search(section)
    ]
    assert not problems

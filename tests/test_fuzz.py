"""The fuzz command: a sample of its cases, and that it notices every kind of fault."""

import json
import os
import random
import signal
import subprocess
import time

import pytest
from tests.fuzz.__main__ import main
from tests.fuzz.mutations import json_bytes, mutate_json
from tests.fuzz.subject import Case, Subject
from tests.fuzz.workers import Pool

from pairmatch.core.errors import DataError

_OUTCOMES = (
    *("ok", "refused", "traceback", "hang", "crash", "half-written", "wrong"),
    *("too much memory", "left behind", "starts a program"),
)


class Planted(Subject):
    """Ends case n with the n-th of `_OUTCOMES`."""

    name = "planted"

    def prepare(self, corpus):
        (corpus / "valid").write_text("x")

    def write(self, case):
        (case.input / "outcome").write_text(_OUTCOMES[case.number])

    def use(self, case):
        outcome = (case.input / "outcome").read_text()
        if outcome == "refused":
            raise DataError("no")
        if outcome == "traceback":
            raise KeyError("x")
        if outcome == "hang":
            time.sleep(1000)
        if outcome == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if outcome == "half-written":
            (case.output / "out.json").write_text("{")
            case.whole(case.output / "out.json", lambda path: json.loads(path.read_text()))
        if outcome == "too much memory":
            bytearray(10**11)
        if outcome == "starts a program":
            subprocess.run(["true"], check=True)
        if outcome == "left behind":
            (case.output / ".out.json.a1b2").write_text("x")
        case.expect(outcome != "wrong", "another value")


@pytest.mark.slow
def test_every_kind_of_fault_is_noticed(tmp_path):
    pool = Pool({"planted": Planted()}, tmp_path, seed=0, limit=3.0, keep=tmp_path / "kept")
    pool.prepare(["planted"])
    results = list(pool.run([("planted", number) for number in range(len(_OUTCOMES))]))
    verdicts = {result.number: result.verdict for result in results}
    assert [verdicts[number] for number in range(len(_OUTCOMES))] == [
        *_OUTCOMES[:7],
        "traceback",
        "half-written",
        "wrong",
    ]
    kept = sorted(folder.name for folder in (tmp_path / "kept").iterdir())
    assert kept == [f"planted-{number}" for number in range(2, len(_OUTCOMES))]
    assert "KeyError: 'x'" in (tmp_path / "kept" / "planted-2" / "verdict.txt").read_text()


def test_a_case_depends_on_seed_kind_and_number_alone(tmp_path):
    drawn = [
        Case(seed, "pairs", number, tmp_path, tmp_path / str(folder)).rng.random()
        for folder, (seed, number) in enumerate([(0, 1), (0, 1), (0, 2), (1, 1)])
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_mutated_values_can_be_written():
    for seed in range(100):
        value = mutate_json(random.Random(seed), {"a": [1, {"b": "x"}], "c": None})
        assert json_bytes(value)


def test_a_sample_of_mutated_inputs(tmp_path, capsys):
    """Without a traceback, a hang, a crash, a half-written file or a wrong result."""
    # Those that need little preparation
    kinds = ("pairs", "images", "store", "journals", "slates", "answers", "exports")
    arguments = [word for kind in kinds for word in ("--kind", kind)]
    arguments += ["--count", "60", "--quiet", "--json", str(tmp_path / "figures.json")]
    assert main(["inputs", *arguments]) == 0, capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["cases"] == 60
    assert not figures["faults"]


def test_a_sample_of_kills(capsys):
    """Nothing is lost but what was in flight, and a repeated run has the same result."""
    arguments = ["kills", "--kind", "annotate", "--kind", "gallery", "--kind", "forget"]
    assert main([*arguments, "--count", "3", "--quiet"]) == 0, capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("command", [["inputs"], ["kills"]])
def test_the_whole_suite(command, tmp_path, capsys):
    arguments = [*command, "--quiet", "--keep", str(tmp_path)]
    assert main(arguments) == 0, capsys.readouterr().out

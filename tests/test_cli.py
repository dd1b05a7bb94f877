"""The command line: output, files and exit codes."""

import base64
import json
import os
import re
import shlex
import stat
import subprocess
import sys

import pytest
import torch
from conftest import PLUGIN
from PIL import Image
from typer.testing import CliRunner

from pairmatch.cli import app, parse_options
from pairmatch.core.errors import ConfigurationError
from pairmatch.io.files import digest_file
from pairmatch.io.store import Store

FAST = "--set training.epochs=2 --quiet"
FASTER = f"{FAST} --no-learning-curve --no-compare"


def run(line, code=0):
    """Runs a command, checks its exit code and returns its output."""
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == code, result.output
    return result.output


def unwrapped(text):
    """Removes the line breaks of a usage error."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    output = run(f"demo --output {folder} --pairs 60 --quiet")
    return folder, output


@pytest.fixture
def pairs(demo):
    return demo[0] / "people" / "pairs.csv"


@pytest.mark.parametrize(
    "command",
    ["", "demo", "fit", "evaluate", "monitor", "recommend", "slates", "sweep", "annotate", "forget"]
    + ["doctor", "plugins"]
    + [f"gallery{name}" for name in ("", " build", " add", " remove", " info")],
)
def test_the_summary_of_each_command_is_a_sentence(command):
    lines = [line.strip() for line in run(f"{command} --help").splitlines()]
    paragraph = lines[lines.index("", 1) + 1 :]
    sentence = " ".join(paragraph[: paragraph.index("")])
    assert sentence.endswith(".")
    assert sentence.count(". ") == 0


def test_demo_fits_evaluates_and_reports(demo):
    folder, output = demo
    assert "60 pairs of 120 people: 42 to train, 9 to validate, 9 to test." in output
    assert "trained" in output
    assert "chance" in output
    assert f"pairmatch recommend {folder} --query" in output
    assert "these pairs" in output  # the verdict
    page = (folder / "report.html").read_text()
    assert page.count("<img") > 9  # the demo shows photos
    assert (folder / "matcher.json").exists()
    assert "; pairmatch demo with output " in page  # the run of the tables
    tables = re.findall(r"data:text/csv;charset=utf-8;base64,([^\"]+)", page)
    assert all(b"Run: pairmatch " in base64.b64decode(table) for table in tables)
    assert len(tables) == page.count("<table")
    for name in ("report.html", "report.json"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_recommend_ranks_eligible_candidates(demo):
    folder, _ = demo
    photos = folder / "people" / "images"
    table = folder / "people" / "candidates.csv"
    common = f"recommend {folder} --query {photos / 'a0000.jpg'} --store {folder / 's'} --quiet"
    output = run(f"{common} --gallery {table} -k 3")
    assert output.splitlines()[0].split() == ["rank", "score", "candidate"]
    assert "60 of 60 candidates are eligible." in output
    rules = "--where 'age >= 40' --where \"region = 'north'\""
    result = json.loads(run(f"{common} --gallery {table} --json {rules}"))
    assert 0 < result["candidates"] < 30
    ranks = [row["rank"] for row in result["recommendations"]]
    assert ranks == list(range(1, min(20, result["candidates"]) + 1))
    result = json.loads(run(f"{common} --gallery {photos} --json -k 999"))
    assert result["candidates"] == 119  # all people in the folder except the query person
    with Store(folder / "s") as store:
        before = store.counts()["features"]
    # The photo of the query is also that of a person: erased with it, as for `forget ID`
    assert "1 features" in run(f"forget --queries --store {folder / 's'}")
    assert "0 features" in run(f"forget --queries --store {folder / 's'}")
    with Store(folder / "s") as store:
        assert store.counts()["features"] == before - 1
    assert "Name the ids to erase, or --queries" in run(f"forget --store {folder / 's'}", code=2)
    output = run(f"{common} --gallery {table} --where 'age > 200'")
    assert "0 of 60 candidates are eligible." in output
    assert "The last candidates were removed by: age > 200" in output


def test_fit_evaluate_and_forget(pairs, tmp_path):
    output = tmp_path / "couples"
    metrics = tmp_path / "metrics.json"
    store = f"--store {tmp_path / 'store.sqlite'}"
    fit = f"fit {pairs} --output {output} --backbone descriptor {store} {FAST}"
    track = f"--track tensorboard:{tmp_path / 'events'}"
    text = run(f"{fit} --head linear --set head.width=16 --json {metrics} {track}")
    assert f"Saved the matcher in {output}" in text
    assert "<img" not in (output / "report.html").read_text()  # photos are shown only on request
    saved = json.loads((output / "matcher.json").read_text())
    assert saved["parts"]["head"] == {
        "name": "linear",
        "options": {"width": 16, "dropout": 0.0},
        "distribution": "pairmatch",
        "version": saved["pairmatch"],
    }
    assert saved["parts"]["learner"]["options"]["training"]["epochs"] == 2
    assert saved["metrics"] == json.loads(metrics.read_text())
    (events,) = tmp_path.glob("events/*/events.out.*")
    assert b"test/mrr" in events.read_bytes()
    assert b"a0001" not in events.read_bytes()
    text = run(f"evaluate {output} {pairs} -k 1 -k 5 --json {metrics} {store} --quiet")
    assert "R@1" in text
    assert stat.S_IMODE(metrics.stat().st_mode) == 0o600
    assert list(json.loads(metrics.read_text())["both"]["recall"]) == ["1", "5"]
    text = run(f"evaluate {output} {pairs} -k 61 {store} --quiet", code=2)
    assert "the smallest gallery (60 candidates)" in text
    text = run(f"forget a0000 b0000 unknown {store}", code=2)
    assert "Erased 2 of 3 people" in text
    assert "Found nowhere: 'unknown'" in text
    run(f"{fit} --photos --no-learning-curve --no-compare")
    assert "<img" in (output / "report.html").read_text()


def test_features_of_multiple_backbones_are_joined(pairs, tmp_path):
    fit = f"fit {pairs} --output {tmp_path / 'm'} --store {tmp_path / 's'} {FASTER}"
    run(f"{fit} --backbone descriptor --backbone attributes --set descriptor.size_px=56")
    record = json.loads((tmp_path / "m" / "matcher.json").read_text())
    backbones = record["parts"]["backbones"]
    assert [part["name"] for part in backbones] == ["descriptor", "attributes"]
    assert backbones[0]["options"]["size_px"] == 56
    assert 1756 < record["dim"] < 1756 + 50
    assert "size_px" not in backbones[1]["options"]
    text = run(f"{fit} --backbone descriptor --backbone clip --set backbone.size_px=56", code=2)
    assert "must name one of them: descriptor.OPTION=VALUE" in text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--backbone descriptr", "Did you mean 'descriptor'?"),
        ("--set head", "--set needs PART.OPTION=VALUE"),
        ("--set haed.width=3", "Did you mean 'head'?"),
        ("--backbone descriptor --set training.epoch=3", "Did you mean 'epochs'?"),
        ("--backbone descriptor --set training.lr=3", "Did you mean 'learning_rate'?"),
        ("--backbone descriptor --set training.bs=3", "Did you mean 'batch_size'?"),
        ("--backbone descriptor --set training.epochs=many", "epochs"),
        ("--set training.seed=3", "Unknown option of training 'seed'"),
        ("--set learner.strength=1", "--set learner.strength needs --learner."),
        ("--set pooler.layer=1", "--set pooler.layer needs --pooler."),
        (
            "--backbone descriptor --set head.width=wide",
            "The head 'mlp' cannot be built with width='wide'",
        ),
    ],
)
def test_invalid_options_exit_with_code_2(pairs, tmp_path, options, reason):
    text = run(f"fit {pairs} --output {tmp_path / 'm'} {options}", code=2)
    assert reason in text
    assert "Traceback" not in text


def test_invalid_paths_exit_with_code_2(demo, pairs, tmp_path):
    folder, _ = demo
    missing = tmp_path / "missing"
    query = f"recommend {folder} --query {tmp_path / 'q.jpg'}"
    for line, reason in (
        (f"fit {missing}.csv --output {tmp_path / 'm'} --backbone descriptor", "No such file"),
        (f"evaluate {missing} {pairs}", "holds no saved matcher"),
        (f"{query} --gallery {folder} --where 'age >'", "character 5: something is missing here"),
        (f"{query} --gallery {folder / 'people' / 'candidates.csv'}", "q.jpg: No such file"),
        (
            f"recommend {folder} --query https://example.org/q.jpg --gallery {folder}",
            "https://example.org/q.jpg is a web address, which is not downloaded",
        ),
        (f"serve {folder}", f"pairmatch gallery build {folder} people.csv --output gallery"),
        ("fit", "Missing"),
    ):
        text = run(line, code=2)
        assert reason in text
        assert "Traceback" not in text


def test_output_paths_are_checked_before_any_computation(tmp_path):
    (tmp_path / "file").write_text("x")
    for command in ("fit no.csv", "demo", "sweep no.csv --backbone descriptor"):
        for output in (tmp_path / "file", tmp_path / "file" / "deeper"):
            text = run(f"{command} --output {output}", code=2)
            assert "is a file, and a folder is needed" in text or "is not a folder" in text
    text = run(f"fit no.csv -o {tmp_path / 'm'} --json {tmp_path / 'gone' / 'f.json'}", code=2)
    assert "does not exist" in unwrapped(text)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_option_values_are_parsed_as_json_if_possible():
    settings = [
        "head.width=512",
        "onnx.path=a=b.onnx",
        "loss.learn-temperature=true",
        "onnx.mean=[1, 2, 3]",
    ]
    assert parse_options(settings) == {
        "head": {"width": 512},
        "onnx": {"path": "a=b.onnx", "mean": [1, 2, 3]},
        "loss": {"learn_temperature": True},
    }
    with pytest.raises(ConfigurationError, match=r"got 'x', 'y\.z'"):
        parse_options(["x", "head.width=1", "y.z"])


def test_plugins_work_on_the_command_line(example_plugin, pairs, tmp_path):
    path = os.pathsep.join(
        [str(example_plugin), str(PLUGIN / "src"), os.environ.get("PYTHONPATH", "")]
    )
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def command(line):
        return subprocess.run(
            [sys.executable, "-m", "pairmatch", *shlex.split(line)],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
            timeout=240,
        ).stdout

    listed = command("plugins")
    assert "mean-color" in listed
    assert "pairmatch-example 1.2.3" in listed
    text = command(
        f"fit {pairs} --output {tmp_path / 'm'} --backbone mean-color --set backbone.cells=3 "
        f"--loss cosine-gap --store {tmp_path / 's'} {FASTER}"
    )
    assert "trained" in text
    record = json.loads((tmp_path / "m" / "matcher.json").read_text())
    assert record["parts"]["backbones"][0]["distribution"] == "pairmatch-example"
    assert record["parts"]["backbones"][0]["options"] == {"cells": 3}


def test_bugs_keep_their_traceback(tmp_path):
    code = (
        "import sys\n"
        "import pairmatch.data\n"
        "def bug(*args, **options): raise ZeroDivisionError('a bug')\n"
        "pairmatch.data.Pairs.read = bug\n"
        "folder = sys.argv[1]\n"
        "sys.argv = ['pairmatch', 'fit', 'x.csv', '-o', folder, '--backbone', 'descriptor']\n"
        "sys.argv += ['--store', folder]\n"
        "from pairmatch.cli import main; main()"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "ZeroDivisionError: a bug" in process.stderr


def test_all_unreadable_photos_are_reported(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no")
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("id_a,image_a,id_b,image_b\na,good.png,b,bad.png\nc,gone.png,d,good.png\n")
    output = tmp_path / "m"
    text = run(
        f"fit {pairs} --output {output} --backbone descriptor --store {tmp_path / 's'}", code=2
    )
    assert "bad.png: not a photo" in text
    assert "'gone.png' does not exist" in text
    assert not output.exists()


def test_sweep_compares_settings_with_a_single_extraction(demo, pairs, tmp_path):
    folder, _ = demo
    common = (
        f"sweep {pairs} --backbone descriptor --metadata none --store {folder / 'store.sqlite'} "
        "--set training.epochs=1 --repeats 1 --folds 3 --quiet"
    )
    output = run(f"{common} --grid head.width=4,8 --baseline frozen --plan")
    assert output.startswith(
        "3 rows, 1 extraction of 120 people:\n  head.width 4\n  head.width 8\n  frozen\n"
        "0 inputs to extract, 9 fits; about "
    )
    output = run(
        f"{common} --head mlp,linear --grid loss.temperature=0.1,0.2 -k 5 --baseline frozen "
        "--baseline popularity "
        f"--output {tmp_path / 'out'}"
    )
    assert "head linear, loss.temperature 0.2" in output
    assert "240 queries" not in output
    assert "120 queries, each tested once among 20 candidates" in output
    assert "corrected for 5 comparisons" in output
    page = (tmp_path / "out" / "report.html").read_text()
    assert "head linear, loss.temperature 0.2" in page
    assert "popularity" in page
    assert (tmp_path / "out" / "queries.csv").read_text().count("\n") == 1 + 7 * 120
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["sections"][0]["data"][0]["learner"] == "chance"
    assert (tmp_path / "out" / "summary.csv").read_text().count("\n") == 1 + 7
    table = (tmp_path / "out" / "summary.tex").read_text()
    assert "head linear, loss.temperature 0.2 & " in table
    assert "pairmatch sweep with pairs" in table
    assert (tmp_path / "out" / "learners.pdf").read_bytes().startswith(b"%PDF")


def test_evaluate_writes_tables_and_figures_for_print(demo, pairs, tmp_path):
    folder, _ = demo
    run(
        f"evaluate {folder} {pairs} --store {folder / 'store.sqlite'} "
        f"--table {tmp_path / 't.tex'} --table {tmp_path / 't.csv'} "
        f"--figure {tmp_path / 'recall.svg'}"
    )
    rows = (tmp_path / "t.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:4]] == ["chance", "frozen", "trained"]
    assert "data" not in rows[1].split(",")[0]
    assert r"\toprule" in (tmp_path / "t.tex").read_text()
    assert (tmp_path / "recall.svg").read_text().startswith("<?xml")
    common = f"evaluate missing {pairs} --figure"
    assert "missing holds no saved matcher" in run(f"{common} {tmp_path / 'recall.svg'}", code=2)
    for name, start in (("a.svg", "<?xml version='1.0'?><svg/>"), ("a.pdf", "%PDF-1.4\n1 0 obj")):
        (tmp_path / name).write_text(start)  # drawn by another program
        text = run(f"{common} {tmp_path / name}", code=2)
        assert "holds something else than a figure of pairmatch: name a new file" in text
        assert (tmp_path / name).read_text() == start
    head = digest_file(folder / "head.safetensors")[:12]
    assert f"seed 0, {torch.get_num_threads()} thread" in rows[1]
    assert f"head {head}; pairmatch evaluate with" in rows[1]
    for table in (tmp_path / "t.tex", tmp_path / "t.csv", pairs):  # its own tables, and no other
        written = table.read_bytes()
        text = run(f"evaluate missing {pairs} --table {table}", code=2)
        assert ("something else than a table of figures" in text) == (table == pairs)
        assert table.read_bytes() == written
    text = run(
        f"evaluate {folder} {pairs} --table {tmp_path / 't.xlsx'} "
        f"--store {folder / 'store.sqlite'}",
        code=2,
    )
    assert ".csv, .md or .tex" in text


def test_options_of_compared_parts_apply_to_each_part(demo, pairs):
    folder, _ = demo
    output = run(
        f"sweep {pairs} --backbone descriptor --metadata none --store {folder / 'store.sqlite'} "
        "--pooler native,mean --set pooler.layer=3 --plan --quiet",
        code=2,
    )
    assert "option of pooler 'native' 'layer'" in output


def test_sweep_prints_the_tables_of_the_paper(demo, pairs):
    folder, _ = demo
    output = run(
        f"sweep {pairs} --paper --backbone descriptor --metadata none --repeats 2 "
        f"--set training.epochs=1 --store {folder / 'store.sqlite'} --quiet --note 'Random people.'"
    )
    assert output.startswith(
        "Random people.\nBackbone descriptor; 2 splits of 70 / 15 / 15 by person, 9 to 9 candidates"
    )
    assert "Table 2: does not apply." in output


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--paper --grid head.width=1", "omit --grid, --baseline, -k and --reranker"),
        (
            "--grid head.width",
            "--grid needs PART.OPTION=V1,V2, such as head.width=256,512; got 'head.width'",
        ),
        ("--grid hed.width=1", "Unknown part in a sweep 'hed'"),
        ("--grid head.widht=1", "widht"),
        ("--baseline froze", "froze"),
    ],
)
def test_invalid_sweep_options_exit_with_code_2(demo, pairs, options, reason):
    folder, _ = demo
    output = run(
        f"sweep {pairs} --backbone descriptor --metadata none --quiet "
        f"--store {folder / 'store.sqlite'} {options}",
        code=2,
    )
    assert reason in output.replace("\n", " ")


@pytest.fixture(scope="module")
def candidates(demo, tmp_path_factory):
    """A gallery of side b with 60 people, added in two parts."""
    folder, _ = demo
    people = folder / "people"
    work = tmp_path_factory.mktemp("candidates")
    common = f"--images {people} --store {folder / 's'} --quiet"
    header, *rows = (people / "candidates.csv").read_text().splitlines(keepends=True)
    (work / "first.csv").write_text(header + "".join(rows[:50]))
    (work / "rest.csv").write_text(header + "".join(rows[40:]))
    text = run(f"gallery build {folder} {work / 'first.csv'} --output {work / 'b'} {common}")
    assert f"Saved 50 people in {work / 'b'}." in text
    text = run(f"gallery add {folder} {work / 'b'} {work / 'rest.csv'} {common}")
    assert "Added 10 people and replaced 10." in text
    return work / "b"


def test_galleries_are_described_searched_and_edited(demo, candidates, tmp_path):
    folder, _ = demo
    people = folder / "people"
    about = json.loads(run(f"gallery info {candidates} --json"))
    assert (about["people"], about["side"]) == (60, "b")
    assert about["attributes"]["age"] == "number"
    query = f"recommend {folder} --query {people / 'images' / 'a0000.jpg'} --json"
    query += f" --store {folder / 's'} --quiet"
    rule = "--where 'abs(age - query.age) <= 4' --attribute age=40 -k 3"
    stored = json.loads(run(f"{query} --gallery {candidates} {rule}"))
    fresh = json.loads(run(f"{query} --gallery {people / 'candidates.csv'} {rule}"))
    ids = [row["id"] for row in stored["recommendations"]]
    assert ids == [row["id"] for row in fresh["recommendations"]]
    assert stored["candidates"] == fresh["candidates"] > 3
    (tmp_path / "seen.csv").write_text(f"id,other\n{ids[0]},me\n")
    hidden = f"--exclude {tmp_path / 'seen.csv'} --id me --symmetric"
    filtered = json.loads(run(f"{query} --gallery {candidates} {rule} {hidden}"))
    assert ids[0] not in [row["id"] for row in filtered["recommendations"]]
    text = run(f"gallery remove {candidates} {ids[0]} unknown")
    assert "Removed 1 of 2 people; 59 are left." in text
    erased = filtered["recommendations"][0]["id"]
    text = run(f"forget {erased} --store {folder / 's'} --gallery {candidates}")
    assert f"Erased 1 of 1 people from the gallery {candidates}." in text
    assert json.loads(run(f"gallery info {candidates} --json"))["people"] == 58
    assert "holds no gallery" in run(f"gallery info {tmp_path}", code=2)
    text = run(f"{query} --gallery {candidates} --where 'aeg > 3'", code=2)
    assert "Did you mean 'age'?" in text


def test_even_slates_spread_exposure_and_support_erasure(demo, pairs, tmp_path):
    folder, _ = demo
    people = folder / "people"
    store = f"--store {folder / 's'} --quiet"
    # The recipe, whose ranking shows some people much more often than others
    recipe = f"--output {tmp_path / 'm'} --no-learning-curve --no-compare"
    run(f"fit {pairs} --backbone descriptor {recipe} {store}")
    rows = "".join(f"a{number:04},images/a{number:04}.jpg\n" for number in range(40))
    (tmp_path / "a.csv").write_text(f"id,image\n{rows}")
    for side, file in (("a", tmp_path / "a.csv"), ("b", people / "candidates.csv")):
        build = f"gallery build {tmp_path / 'm'} {file} --output {tmp_path / side} --side {side}"
        run(f"{build} --images {people} {store}")
    exposure = []
    for evenness in (0, 1):
        output = tmp_path / f"slates-{evenness}"
        galleries = f"{tmp_path / 'a'} {tmp_path / 'b'}"
        text = run(f"slates {galleries} -k 5 --evenness {evenness} -o {output}")
        assert f"Saved the slates in {output}." in text
        lines = [line for line in text.splitlines() if line.startswith("Side ")]
        exposure.append([float(line.split()[-1]) for line in lines])
    plain, even = exposure
    assert len(plain) == 2
    assert even[0] < plain[0]
    assert even[1] < plain[1]
    text = run(f"forget a0003 --store {folder / 's'} --slates {output}")
    assert f"rows from the slates {output}." in text


def test_fit_accepts_a_preset_or_a_learner(demo, pairs, tmp_path):
    folder, _ = demo
    common = f"fit {pairs} --backbone descriptor --store {folder / 'store.sqlite'} --quiet"
    common += " --no-learning-curve --no-compare"
    output = run(f"{common} --preset best --output {tmp_path / 'best'}")
    assert "trained" in output
    record = json.loads((tmp_path / "best" / "matcher.json").read_text())
    assert record["parts"]["learner"]["name"] == "best"
    assert "best" in (tmp_path / "best" / "report.html").read_text()
    output = run(
        f"{common} --learner metric --set learner.strength=0.1 --output {tmp_path / 'metric'}"
    )
    assert "Saved the matcher" in output
    assert "Unknown preset 'bests'" in run(
        f"{common} --preset bests --output {tmp_path / 'm'}", code=2
    )


@pytest.mark.parametrize("learner", ["--preset best", "--learner cca"])
@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("--loss sigmoid", "--loss"),
        ("--head linear", "--head"),
        ("--set head.width=8", "--head"),
        ("--set training.epochs=3", "--set training"),
    ],
)
def test_head_loss_and_training_require_the_contrastive_learner(
    pairs, tmp_path, learner, options, name
):
    output = tmp_path / "m"
    text = run(f"fit {pairs} --backbone descriptor -o {output} {learner} {options}", code=2)
    assert f"The learner {learner.split()[1]!r} does not use" in text
    assert name in text
    assert not output.exists()


def test_output_paths_of_galleries_slates_and_exports_are_checked(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for command in ("gallery build matcher people.csv", "slates gallery"):
        text = run(f"{command} --output {file / 'deep'}", code=2)
        assert "not a folder" in unwrapped(text)
    text = run(f"annotate pairs.csv --export {tmp_path / 'none' / 'm.csv'}", code=2)
    assert "does not exist" in unwrapped(text)

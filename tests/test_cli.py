"""The command line as a user meets it: in processes of its own, with its exit codes."""

import json
import os
import subprocess
import sys

import pytest
from conftest import PLUGIN
from PIL import Image
from typer.testing import CliRunner

from pairmatch.cli import app, parse_options
from pairmatch.core.errors import ConfigurationError

FAST = ["--set", "training.epochs=2", "--quiet"]
FASTER = [*FAST, "--no-learning-curve"]


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    output = run("demo", "--output", folder, "--pairs", 60, "--quiet")
    return folder, output


def test_demo_does_the_whole_job(demo):
    folder, output = demo
    assert "60 pairs of 120 people: 42 to train, 9 to validate, 9 to test." in output
    assert "trained" in output
    assert "chance" in output
    assert f"pairmatch recommend {folder} --query" in output
    page = (folder / "report.html").read_text()
    assert page.count("<img") > 9  # the demo's own photos are shown
    assert (folder / "matcher.json").exists()


def test_recommend_ranks_eligible_candidates(demo):
    folder, _ = demo
    query, gallery = (
        folder / "people" / "images" / "a0000.jpg",
        folder / "people" / "candidates.csv",
    )
    output = run(
        "recommend",
        folder,
        "--query",
        query,
        "--gallery",
        gallery,
        "-k",
        3,
        "--quiet",
        "--store",
        folder / "s",
    )
    assert output.splitlines()[0].split() == ["rank", "score", "candidate"]
    assert "60 of 60 candidates are eligible." in output
    found = json.loads(
        run(
            "recommend",
            folder,
            "--query",
            query,
            "--gallery",
            gallery,
            "--json",
            "--quiet",
            "--where",
            "age >= 40",
            "--where",
            "region = 'north'",
            "--store",
            folder / "s",
        )
    )
    assert 0 < found["candidates"] < 30
    assert [row["rank"] for row in found["recommendations"]] == list(
        range(1, min(20, found["candidates"]) + 1)
    )
    photos = folder / "people" / "images"
    every = json.loads(
        run(
            "recommend",
            folder,
            "--query",
            query,
            "--gallery",
            photos,
            "--json",
            "-k",
            999,
            "--store",
            folder / "s",
        )
    )
    assert every["candidates"] == 119  # the folder without the one who asks
    nobody = run(
        "recommend",
        folder,
        "--query",
        query,
        "--gallery",
        gallery,
        "--where",
        "age > 200",
        "--store",
        folder / "s",
    )
    assert "0 of 60 candidates are eligible." in nobody
    assert "Nobody is left after: age > 200" in nobody


def test_fit_evaluate_and_forget(demo, tmp_path):
    people = demo[0] / "people"
    pairs, output, store = people / "pairs.csv", tmp_path / "couples", tmp_path / "store.sqlite"
    figures = tmp_path / "figures.json"
    common = ["--store", store, *FAST]
    text = run(
        "fit",
        pairs,
        "--output",
        output,
        "--backbone",
        "descriptor",
        "--head",
        "linear",
        "--set",
        "head.width=16",
        "--json",
        figures,
        *common,
    )
    assert f"Saved the matcher in {output}" in text
    assert (
        "<img" not in (output / "report.html").read_text()
    )  # photos of others are shown only when asked for
    saved = json.loads((output / "matcher.json").read_text())
    assert saved["parts"]["head"] == {
        "name": "linear",
        "options": {"width": 16, "dropout": 0.0},
        "distribution": "pairmatch",
        "version": saved["pairmatch"],
    }
    assert saved["training"]["epochs"] == 2
    assert saved["metrics"] == json.loads(figures.read_text())
    text = run(
        "evaluate", output, pairs, "-k", 1, "-k", 5, "--json", figures, "--store", store, "--quiet"
    )
    assert "R@1" in text
    assert list(json.loads(figures.read_text())["both"]["recall"]) == ["1", "5"]
    assert "gallery has only 60 candidates" in run(
        "evaluate", output, pairs, "-k", 61, "--store", store, code=2
    )
    gone = run("forget", "a0000", "b0000", "nobody", "--store", store)
    assert "Erased 2 of 3 people" in gone
    run(
        "fit",
        pairs,
        "--output",
        output,
        "--backbone",
        "descriptor",
        "--photos",
        "--no-learning-curve",
        *common,
    )
    assert "<img" in (output / "report.html").read_text()


def test_several_backbones_are_joined(demo, tmp_path):
    pairs = demo[0] / "people" / "pairs.csv"
    args = ["fit", pairs, "--output", tmp_path / "m", "--store", tmp_path / "s", *FASTER]
    run(
        *args,
        "--backbone",
        "descriptor",
        "--backbone",
        "descriptor",
        "--set",
        "descriptor.size_px=56",
    )
    record = json.loads((tmp_path / "m" / "matcher.json").read_text())
    assert [part["options"]["size_px"] for part in record["parts"]["backbones"]] == [56, 56]
    assert record["dim"] == 2 * 1756
    text = run(
        *args,
        "--backbone",
        "descriptor",
        "--backbone",
        "clip",
        "--set",
        "backbone.size_px=56",
        code=2,
    )
    assert "names the one it means: descriptor.OPTION=VALUE" in text


def test_mistakes_are_messages_with_exit_code_2(demo, tmp_path):
    pairs = demo[0] / "people" / "pairs.csv"
    for arguments, reason in (
        (
            ["fit", pairs, "--output", tmp_path / "m", "--backbone", "descriptr"],
            "Did you mean 'descriptor'?",
        ),
        (
            ["fit", pairs, "--output", tmp_path / "m", "--set", "head"],
            "--set needs PART.OPTION=VALUE",
        ),
        (
            ["fit", pairs, "--output", tmp_path / "m", "--set", "haed.width=3"],
            "Did you mean 'head'?",
        ),
        (
            [
                "fit",
                pairs,
                "--output",
                tmp_path / "m",
                "--backbone",
                "descriptor",
                "--set",
                "training.epoch=3",
            ],
            "Did you mean 'epochs'?",
        ),
        (
            [
                "fit",
                pairs,
                "--output",
                tmp_path / "m",
                "--backbone",
                "descriptor",
                "--set",
                "head.width=wide",
            ],
            "The head 'mlp' cannot be built with width='wide'",
        ),
        (
            [
                "fit",
                pairs,
                "--output",
                tmp_path / "m",
                "--backbone",
                "descriptor",
                "--set",
                "training.epochs=many",
            ],
            "epochs",
        ),
        (
            ["fit", tmp_path / "no.csv", "--output", tmp_path / "m", "--backbone", "descriptor"],
            "No such file",
        ),
        (["evaluate", tmp_path / "nothing", pairs], "holds no saved matcher"),
        (
            [
                "recommend",
                demo[0],
                "--query",
                tmp_path / "q.jpg",
                "--gallery",
                demo[0],
                "--where",
                "age >",
            ],
            "character 5: something is missing here",
        ),
        (
            [
                "recommend",
                demo[0],
                "--query",
                tmp_path / "q.jpg",
                "--gallery",
                demo[0] / "people" / "candidates.csv",
            ],
            "q.jpg: No such file",
        ),
        (["fit"], "Missing"),
    ):
        text = run(*arguments, code=2)
        assert reason in text
        assert "Traceback" not in text


def test_where_to_write_is_checked_before_anything_is_computed(tmp_path):
    (tmp_path / "file").write_text("x")
    for command in (["fit", "no.csv"], ["demo"], ["sweep", "no.csv", "--backbone", "descriptor"]):
        for output in (tmp_path / "file", tmp_path / "file" / "deeper"):
            text = run(*command, "--output", output, code=2)
            assert "is not a folder" in " ".join(text.replace("│", " ").split())
    text = run(
        "fit", "no.csv", "-o", tmp_path / "m", "--json", tmp_path / "gone" / "f.json", code=2
    )
    assert "does not exist" in " ".join(text.replace("│", " ").split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_options_are_json_where_they_can_be():
    assert parse_options(
        [
            "head.width=512",
            "onnx.path=a=b.onnx",
            "loss.learn-temperature=true",
            "onnx.mean=[1, 2, 3]",
        ]
    ) == {
        "head": {"width": 512},
        "onnx": {"path": "a=b.onnx", "mean": [1, 2, 3]},
        "loss": {"learn_temperature": True},
    }
    with pytest.raises(ConfigurationError, match=r"got 'x', 'y\.z'"):
        parse_options(["x", "head.width=1", "y.z"])


def test_the_plugin_works_on_the_command_line(example_plugin, demo, tmp_path):
    path = os.pathsep.join(
        [str(example_plugin), str(PLUGIN / "src"), os.environ.get("PYTHONPATH", "")]
    )
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def command(*arguments):
        line = [sys.executable, "-m", "pairmatch", *map(str, arguments)]
        return subprocess.run(
            line, capture_output=True, text=True, env=environment, check=True, timeout=240
        ).stdout

    listed = command("plugins")
    assert "mean-colour" in listed
    assert "pairmatch-example 1.2.3" in listed
    text = command(
        "fit",
        demo[0] / "people" / "pairs.csv",
        "--output",
        tmp_path / "m",
        "--backbone",
        "mean-colour",
        "--set",
        "backbone.cells=3",
        "--loss",
        "cosine-gap",
        "--store",
        tmp_path / "s",
        *FASTER,
    )
    assert "trained" in text
    record = json.loads((tmp_path / "m" / "matcher.json").read_text())
    assert record["parts"]["backbones"][0]["distribution"] == "pairmatch-example"
    assert record["parts"]["backbones"][0]["options"] == {"cells": 3}


def test_bugs_keep_their_traceback(demo, tmp_path):
    code = (
        "import pairmatch.data\n"
        "def bug(*a, **k): raise ZeroDivisionError('a bug')\n"
        "pairmatch.data.Pairs.read = bug\n"
        "import sys\n"
        "line = ['fit', 'x.csv', '-o', sys.argv[1], '--backbone', 'descriptor', '--store', sys.argv[1]]\n"
        "sys.argv = ['pairmatch', *line]\n"
        "from pairmatch.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "ZeroDivisionError: a bug" in done.stderr


def test_photos_that_cannot_be_read_are_all_named(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no")
    (tmp_path / "pairs.csv").write_text(
        "id_a,image_a,id_b,image_b\na,good.png,b,bad.png\nc,gone.png,d,good.png\n"
    )
    text = run(
        "fit",
        tmp_path / "pairs.csv",
        "--output",
        tmp_path / "m",
        "--backbone",
        "descriptor",
        "--store",
        tmp_path / "s",
        code=2,
    )
    assert "bad.png: not a photo" in text
    assert "'gone.png' does not exist" in text
    assert not (tmp_path / "m").exists()


def test_sweep_compares_on_one_extraction(demo, tmp_path):
    folder, _ = demo
    pairs = folder / "people" / "pairs.csv"
    common = [
        "sweep",
        pairs,
        "--backbone",
        "descriptor",
        "--metadata",
        "none",
        "--store",
        folder / "store.sqlite",
    ]
    common += ["--set", "training.epochs=1", "--repeats", 1, "--folds", 3, "--quiet"]
    output = run(*common, "--grid", "head.width=4,8", "--baseline", "frozen", "--plan")
    assert (
        "3 lines, 1 extraction of 120 people:\n  head.width 4\n  head.width 8\n  frozen\n" in output
    )
    assert "0 inputs to embed, 9 fits; about" in output
    output = run(
        *common,
        "--head",
        "mlp,linear",
        "--grid",
        "loss.temperature=0.1,0.2",
        "-k",
        5,
        "--output",
        tmp_path / "out",
    )
    assert "head linear, loss.temperature 0.2" in output
    assert "240 queries" not in output
    assert "120 queries, each tested 1 times among 20 candidates" in output
    assert "corrected for 9 comparisons" in output
    page = (tmp_path / "out" / "report.html").read_text()
    assert "head linear, loss.temperature 0.2" in page
    assert "popularity" in page
    assert (tmp_path / "out" / "queries.csv").read_text().count("\n") == 1 + 11 * 120
    figures = json.loads((tmp_path / "out" / "report.json").read_text())
    assert figures["sections"][0]["data"][0]["learner"] == "chance"


def test_sweep_prints_the_papers_tables(demo):
    folder, _ = demo
    output = run(
        "sweep", folder / "people" / "pairs.csv", "--paper", "--backbone", "descriptor", "--metadata", "none",
        "--repeats", 2, "--set", "training.epochs=1", "--store", folder / "store.sqlite", "--quiet", "--note",
        "A drawn world.",
    )  # fmt: skip
    assert output.startswith(
        "A drawn world.\nBackbone descriptor; 2 splits of 70 / 15 / 15 by person, 9 to 9 candidates"
    )
    assert "Table 2: does not apply." in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--paper", "--grid", "head.width=1"], "leave --grid, --baseline and -k out"),
        (
            ["--grid", "head.width"],
            "--grid needs PART.OPTION=V1,V2, such as head.width=256,512; got 'head.width'",
        ),
        (["--grid", "hed.width=1"], "Unknown part in a sweep 'hed'"),
        (["--grid", "head.widht=1"], "widht"),
        (["--baseline", "froze"], "froze"),
    ],
)
def test_sweep_says_what_it_cannot_do(demo, arguments, words):
    folder, _ = demo
    common = [
        "sweep",
        folder / "people" / "pairs.csv",
        "--backbone",
        "descriptor",
        "--metadata",
        "none",
        "--quiet",
    ]
    assert words in run(*common, "--store", folder / "store.sqlite", *arguments, code=2).replace(
        "\n", " "
    )


def test_galleries_and_slates(demo, tmp_path):
    folder, _ = demo
    people, store = folder / "people", ["--store", folder / "s", "--quiet"]
    table = (people / "candidates.csv").read_text().splitlines(keepends=True)
    (tmp_path / "most.csv").write_text("".join(table[:51]))
    (tmp_path / "rest.csv").write_text("".join(table[:1] + table[41:]))
    common = ["--images", people, *store]
    text = run(
        "gallery", "build", folder, tmp_path / "most.csv", "--output", tmp_path / "b", *common
    )
    assert f"Saved 50 people in {tmp_path / 'b'}." in text
    text = run("gallery", "add", folder, tmp_path / "b", tmp_path / "rest.csv", *common)
    assert "Added 10 people and replaced 10." in text
    about = json.loads(run("gallery", "info", tmp_path / "b", "--json"))
    assert (about["people"], about["side"]) == (60, "b")
    assert about["attributes"]["age"] == "number"
    query = ["--query", people / "images" / "a0000.jpg", "--json", *store]
    rule = ["--where", "abs(age - query.age) <= 4", "--attribute", "age=40", "-k", 3]
    kept = json.loads(run("recommend", folder, "--gallery", tmp_path / "b", *query, *rule))
    fresh = json.loads(
        run("recommend", folder, "--gallery", people / "candidates.csv", *query, *rule)
    )
    assert [row["id"] for row in kept["recommendations"]] == [
        row["id"] for row in fresh["recommendations"]
    ]
    assert kept["candidates"] == fresh["candidates"] > 3
    first = kept["recommendations"][0]["id"]
    (tmp_path / "seen.csv").write_text(f"id,other\n{first},me\n")
    hidden = ["--exclude", tmp_path / "seen.csv", "--id", "me"]
    again = json.loads(
        run("recommend", folder, "--gallery", tmp_path / "b", *query, *rule, *hidden, "--symmetric")
    )
    assert first not in [row["id"] for row in again["recommendations"]]
    assert "Removed 1 of 2 people; 59 are left." in run(
        "gallery", "remove", tmp_path / "b", first, "nobody"
    )
    asking = "".join(f"a{number:04},images/a{number:04}.jpg\n" for number in range(40))
    (tmp_path / "a.csv").write_text("id,image\n" + asking)
    run(
        "gallery",
        "build",
        folder,
        tmp_path / "a.csv",
        "--output",
        tmp_path / "a",
        "--side",
        "a",
        *common,
    )
    lines = []
    for evenness in (0, 1):
        output = ["--output", tmp_path / f"s{evenness}", "-k", 5, "--evenness", evenness]
        text = run("slates", tmp_path / "a", tmp_path / "b", *output)
        lines.append([line for line in text.splitlines() if line.startswith("Side ")])
        assert f"Saved the slates in {tmp_path / f's{evenness}'}." in text
    plain, even = lines
    assert len(plain) == 2
    for before, after in zip(plain, even, strict=True):
        assert float(after.split()[-1]) < float(before.split()[-1])
    victim = again["recommendations"][0]["id"]
    gone = run(
        "forget", victim, *store[:2], "--gallery", tmp_path / "b", "--slates", tmp_path / "s1"
    )
    assert f"Erased 1 of 1 people from the gallery {tmp_path / 'b'}." in gone
    assert f"rows from the slates {tmp_path / 's1'}." in gone
    assert json.loads(run("gallery", "info", tmp_path / "b", "--json"))["people"] == 58
    assert "holds no gallery" in run("gallery", "info", tmp_path, code=2)
    text = run(
        "recommend", folder, "--gallery", tmp_path / "b", *query, "--where", "aeg > 3", code=2
    )
    assert "Did you mean 'age'?" in text


def test_fit_with_the_robust_preset(demo, tmp_path):
    folder, _ = demo
    pairs = folder / "people" / "pairs.csv"
    common = [
        "fit",
        pairs,
        "--backbone",
        "descriptor",
        "--store",
        folder / "store.sqlite",
        "--quiet",
    ]
    output = run(
        *common, "--preset", "robust", "--output", tmp_path / "robust", "--no-learning-curve"
    )
    assert "trained" in output
    record = json.loads((tmp_path / "robust" / "matcher.json").read_text())
    assert record["parts"]["learner"]["name"] == "robust"
    assert "metric" in (tmp_path / "robust" / "report.html").read_text()
    again = run(
        *common,
        "--learner",
        "metric",
        "--set",
        "learner.strength=0.1",
        "--output",
        tmp_path / "metric",
    )
    assert "Saved the matcher" in again
    said = run(
        *common, "--preset", "robust", "--loss", "sigmoid", "--output", tmp_path / "no", code=2
    )
    assert "The learner 'robust' has no use for options of --loss" in said
    assert "Unknown preset 'best'" in run(
        *common, "--preset", "best", "--output", tmp_path / "no", code=2
    )


def test_galleries_slates_and_exports_check_where_they_write(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for command in (("gallery", "build", "matcher", "people.csv"), ("slates", "gallery")):
        assert "not a folder" in run(*command, "--output", file / "deep", code=2)
    assert "does not exist" in run(
        "annotate", "pairs.csv", "--export", tmp_path / "none" / "m.csv", code=2
    )

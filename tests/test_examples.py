"""The examples run offline and print the documented output."""

import importlib
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import shared

from pairmatch.experiments.demo import draw_people

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
TEMPLATE = EXAMPLES / "own_backbone"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a script with arguments in an empty folder and returns its output."""
    monkeypatch.chdir(tmp_path)

    def script(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return script


def mrr(text, learner):
    """Parses the MRR of a learner from a printed table."""
    return float(re.search(rf"^{re.escape(learner)} .*?(0\.\d{{3}})", text, re.MULTILINE)[1])


def test_every_script_is_listed_and_tested():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    listed = set(re.findall(r"`(\w+\.py)`", (EXAMPLES / "README.md").read_text()))
    assert scripts == listed
    tested = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert not [name for name in scripts if f'"{name}"' not in tested]


def test_notebooks_are_listed_and_stored_without_output():
    notebooks = sorted(EXAMPLES.glob("*.ipynb"))
    listed = re.findall(r"`(\w+\.ipynb)`", (EXAMPLES / "README.md").read_text())
    assert [path.name for path in notebooks] == sorted(set(listed)) != []
    for path in notebooks:
        cells = json.loads(path.read_text())["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert code
        for cell in code:
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.slow
def test_notebook(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    data = [output["data"] for output in outputs if "data" in output]
    html = [item["text/html"] for item in data if item.get("text/html")]
    bars = [text for text in html if "━" in text]
    # Finished bars stay as they were drawn last, need no widgets, and the others are gone
    assert any(re.search(r"Extracting features .*>136/136<", text) for text in bars)
    assert any(re.search(r"Cross-validating .*>20/20<", text) for text in bars)
    assert not any("Training" in text for text in bars)
    assert not any("widget" in kind for item in data for kind in item)
    # Pairs twice, the matcher, its evaluation, cross-validation, the gallery, recommendations, and
    # the matcher that was loaded
    assert sum("<table>" in text for text in html) == 8
    assert sum("fitted on " in text for text in html) == 2
    printed = [output for output in outputs if output["output_type"] == "stream"]
    assert all(output["name"] == "stdout" for output in printed)
    assert "trained is " in printed[0]["text"]
    matchers = [item["text/plain"] for item in data if "Matcher(" in item["text/plain"]]
    assert len(matchers) == 2
    assert matchers[0] == matchers[1]


def test_quickstart(run, tmp_path):
    text = run("quickstart.py")
    assert mrr(text, "trained") > mrr(text, "chance")
    assert text.count("\n1. b") == 1
    assert (tmp_path / "quickstart" / "matcher" / "matcher.json").exists()
    assert "<img" in (tmp_path / "quickstart" / "report.html").read_text()


def test_walkthrough(run, tmp_path):
    text = run("walkthrough.py")
    assert "region north: MRR" in text
    assert re.search(r"^background colou?r: MRR 0\.\d{3} on its own", text, re.MULTILINE)
    assert {path.name for path in (tmp_path / "walkthrough").iterdir()} >= {
        "recall.png",
        "learners.png",
        "report.html",
    }
    cells = (EXAMPLES / "walkthrough.py").read_text().split("# %%")
    assert len(cells) > 8


def test_swap_backbone(run, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pixels = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", 3, 224, 224])
    colors = onnx.helper.make_tensor_value_info("colors", onnx.TensorProto.FLOAT, ["n", 3, 1, 1])
    node = onnx.helper.make_node("GlobalAveragePool", ["image"], ["colors"])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "mean color", [pixels], [colors]),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "encoder.onnx")
    text = run("swap_backbone.py", "--onnx", "encoder.onnx", "--output", "colors")
    tables = re.split(
        r"^(?=(?:descriptor|half size|both combined|onnx)$)", text, flags=re.MULTILINE
    )[1:]
    assert len(tables) == 4
    # Four backbones, four sets of features
    assert len({mrr(table, "frozen") for table in tables}) == 4


def test_furniture_learns_from_drawn_rooms(run):
    text = run("furniture.py")
    assert "trained is better than frozen" in text


def test_furniture_takes_a_pairs_file(run, tmp_path):
    pairs, encoder = shared("furniture/pairs.csv"), shared("mobilenet_v1.onnx")
    rows = pairs.read_text().splitlines()[:151]  # all 464 pairs would take three times as long
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    text = run(
        "furniture.py", "pairs.csv", "--images", pairs.parent, "--onnx", encoder, "--output", "emb"
    )
    assert "300 queries" in text
    assert mrr(text, "trained") > mrr(text, "chance")


def test_paper_tables(run):
    text = run("paper_tables.py", "--repeats", 1)
    assert text.startswith("Synthetic people: these figures say nothing about the paper's couples.")
    assert "Table 1" in text
    assert "82.0" in text  # the published figure


@pytest.mark.slow
def test_nightly(run, tmp_path):
    nights = run("nightly.py").split("2026-")[1:]
    assert "promoted" in nights[0]
    releases = sorted(path.name for path in (tmp_path / "nightly" / "releases").iterdir())
    assert releases[0] == "2026-02-15"
    current = tmp_path / "nightly" / "current"
    assert current.resolve().name == releases[-1]
    assert {path.name for path in current.iterdir()} == {"matcher", "gallery-a", "gallery-b"}


def test_vectors_alone(run):
    text = run("vectors_alone.py")
    assert mrr(text, "trained") > 2 * mrr(text, "frozen")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Installs the template with pip and returns the folder."""
    target = tmp_path_factory.mktemp("installed")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        "install",
        "--no-index",
    ]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", target, TEMPLATE],
        check=True,
        capture_output=True,
    )
    return target


def test_template_backbone_is_available_by_name_once_installed(installed, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(installed))
    importlib.invalidate_caches()
    from pairmatch import Matcher
    from pairmatch.testing import check_backbone

    backbone = Matcher(backbone=("patches", {"patch_px": 32}), metadata=None).backbones[0]
    try:
        assert Path(sys.modules["pairmatch_patches"].__file__).is_relative_to(installed)
        assert backbone.patch_px == 32
        check_backbone(backbone)
    finally:
        sys.modules.pop("pairmatch_patches", None)


@pytest.mark.slow
def test_template_works_on_the_command_line_and_passes_its_own_tests(installed, tmp_path):
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def python(*arguments):
        command = [sys.executable, *map(str, arguments)]
        process = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    assert "patches" in python("-m", "pairmatch", "plugins")
    draw_people(tmp_path / "people", pairs=20, size_px=32)
    options = [
        "--set",
        "backbone.patch_px=32",
        "--set",
        "training.epochs=1",
        "--metadata",
        "none",
        "--quiet",
    ]
    options += ["--store", "store.sqlite", "--no-learning-curve", "--no-compare"]
    fit = [
        "-m",
        "pairmatch",
        "fit",
        "people/pairs.csv",
        "--backbone",
        "patches",
        "--output",
        "couples",
    ]
    assert "Saved the matcher in couples" in python(*fit, *options)
    assert "pairmatch-patches 0.1.0" in (tmp_path / "couples" / "README.md").read_text()
    assert "4 passed" in python("-m", "pytest", "-q", "-p", "no:cacheprovider", TEMPLATE / "tests")


def test_market_slates(run):
    assert "balanced: expected" in run("market_slates.py")

"""Tables for print hold the figures of their results, and LaTeX can build them."""

import csv
import io
import re
import shutil
import subprocess
from itertools import pairwise

import numpy as np
import pytest
from test_diagnostics import rotated_pairs

from pairmatch import Evaluator
from pairmatch.core.errors import ConfigurationError
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.report import SummaryTable
from pairmatch.report.figures import learners_figure, save_figure

HOSTILE = r"5 % a_b & $c {d} ~ ^ \input{x} | *e* – α → <i>"


@pytest.fixture(scope="module")
def result():
    learners = {"frozen": "frozen", "ridge": "ridge", HOSTILE: "cca"}
    return cross_validate(rotated_pairs(60), learners, repeats=2, ks=(1, 5))


@pytest.fixture(scope="module")
def evaluation():
    data = rotated_pairs(40)
    return Evaluator(ks=(5,)).evaluate_arrays(
        data.a, data.b, frozen_a=data.b, frozen_b=data.a[::-1].copy()
    )


def test_the_csv_has_all_figures_and_tests(result):
    table = SummaryTable.of(result, run="Run: here.")
    rows = {row["learner"]: row for row in csv.DictReader(io.StringIO(table.csv().decode()))}
    assert list(rows) == ["chance", "frozen", "ridge", HOSTILE]
    ridge = result.metrics("ridge")
    assert float(rows["ridge"]["MRR"]) == ridge.mrr
    assert float(rows["ridge"]["R@5 low"]) == ridge.recall_interval[5][0]
    assert rows["chance"]["MRR low"] == ""
    reference = result.references()[-1]
    for test in result.comparisons(reference):
        row = rows[test.name]
        assert (float(row["p"]), float(row["difference"])) == (test.p_value, test.difference)
        assert row["corrected for"] == "2"
    assert rows[reference]["p"] == ""
    assert {row["run"] for row in rows.values()} == {"Run: here."}
    assert all(row["reference"] == reference for row in rows.values())


def test_the_best_is_bold_and_marks_say_what_they_mean(result):
    table = SummaryTable.of(result, reference="frozen")
    lines = table.markdown().decode().splitlines()
    assert lines[0] == "| | R@1 | R@5 | MRR |"
    cells = {line.split(" | ")[0].removeprefix("| "): line for line in lines[2:6]}
    best = max(("frozen", "ridge", HOSTILE), key=lambda name: result.metrics(name).mrr)
    bold = [name for name, line in cells.items() if re.search(r"\*\*[01]\.\d{3}\*\*", line)]
    assert best.replace("\\", "") in [name.replace("\\", "") for name in bold]
    assert "frozen" not in bold
    test = result.comparisons("frozen")[0]
    assert test.name == "ridge"
    stars = sum(test.p_value < p for p in (0.05, 0.01, 0.001))
    assert cells["ridge"].count(r"\*" if test.difference > 0 else "†") == stars > 0
    assert "**" not in cells["chance"]
    assert "MRR better than that of frozen at" in lines[-1]
    assert "corrected for 2 tests" in lines[-1]


def test_an_evaluation_is_tested_against_frozen_features(evaluation):
    table = SummaryTable.of(evaluation)
    assert [name for name, _ in table.rows] == ["chance", "frozen", "trained", "a → b", "b → a"]
    expected = evaluation.compare(evaluation.frozen)
    assert table.tests["trained"].p_value == expected.p_value
    markdown = table.markdown().decode()
    assert markdown.count("**") == 4  # one row is best in both columns, and no direction is bold
    assert "80 queries, each among 40 candidates." in markdown


def test_unknown_references_and_files_are_errors(result, tmp_path):
    with pytest.raises(ConfigurationError, match=r"Unknown learner.*'frozn'.*frozen"):
        SummaryTable.of(result, reference="frozn")
    table = SummaryTable.of(result)
    with pytest.raises(ConfigurationError, match=r"\.csv, \.md or \.tex, got 'table\.doc'"):
        table.save(tmp_path / "table.doc")
    for suffix in (".csv", ".md", ".tex"):
        assert table.save(tmp_path / f"table{suffix}").stat().st_size > 200


def _build(folder, preamble):
    """The log of a document with `table` and `learners` of the folder."""
    (folder / "paper.tex").write_text(
        rf"\documentclass{{article}}{preamble}\begin{{document}}"
        r"\input{table}\noindent\includegraphics[width=\linewidth]{learners}\end{document}"
    )
    built = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=folder,
        capture_output=True,
        timeout=60,
    )
    assert built.returncode == 0, built.stdout.decode(errors="replace")[-2000:]
    return built.stdout


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_builds_the_table_and_a_figure(result, tmp_path):
    SummaryTable.of(result, run="Run: pairmatch fit with pairs my_pairs.csv.").save(
        tmp_path / "table.tex"
    )
    save_figure(learners_figure(result), tmp_path / "learners.pdf")
    log = _build(tmp_path, r"\textwidth=5.5in\usepackage{booktabs}\usepackage{graphicx}")
    assert b"Overfull \\hbox" not in log
    assert b"Missing character" not in log


def test_names_of_rows_are_no_arguments_of_latex_and_no_rows_that_are_left_out():
    data = rotated_pairs(30)
    learners = {"[10] x": "frozen", "*x": "frozen"}
    table = SummaryTable.of(cross_validate(data, learners, repeats=1, ks=(1,))).latex().decode()
    assert "\n    {[}10] x & " in table
    assert "\n    {*}x & " in table
    arrow = cross_validate(data, {"a → b": "frozen"}, repeats=1, ks=(1,))
    assert r"a $\to$ b & " in SummaryTable.of(arrow).latex().decode()
    with pytest.raises(ConfigurationError, match="'chance'"):
        cross_validate(data, {"chance": "frozen"}, repeats=1, ks=(1,))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_builds_many_rows_long_names_and_letters_that_it_lacks(tmp_path):
    names = [
        "日本 🙂",
        "łódź ąę β ∞ «x»",
        "a learner with a name of several lines " * 3,
        "$x$ $y_$",
    ]
    names += [f"row {number}" for number in range(22)]
    result = cross_validate(rotated_pairs(30), dict.fromkeys(names, "frozen"), repeats=1, ks=(1,))
    table = SummaryTable.of(result).save(tmp_path / "table.tex").read_text()
    save_figure(learners_figure(_of(names[1:])), tmp_path / "learners.pdf")
    log = _build(tmp_path, r"\usepackage{booktabs,longtable,graphicx}")
    assert b"too large for page" not in log
    assert b"Overfull \\hbox" not in log
    assert r"\anyletter{日}{U+65E5}\anyletter{本}{U+672C} " in table
    assert table.count(r"\textbf") == 2 * len(names)  # a tie: all are best in both columns


def _of(names):
    return cross_validate(rotated_pairs(30), dict.fromkeys(names, "frozen"), repeats=1, ks=(1,))


def test_names_of_many_learners_do_not_overlap_in_the_figure():
    names = [f"learner {n} with $a$ and $b_$ and a name of {n} lines" for n in range(30)]
    result = cross_validate(rotated_pairs(30), dict.fromkeys(names, "frozen"), repeats=1, ks=(1,))
    figure = learners_figure(result)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == 30
    assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))
    assert figure.axes[0].get_window_extent().width > 200


def linear(color):
    """Linear RGB of a color as #rrggbb (IEC 61966-2-1)."""
    values = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def test_colors_of_figures_differ_for_color_blind_readers_and_from_white():
    from skimage.color import deltaE_ciede2000, rgb2lab

    from pairmatch.report.figures import _PALETTE

    # Machado, Oliveira and Fernandes (2009), severity 1: protanopia, deuteranopia, tritanopia
    seen = [
        np.eye(3),
        [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
        [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0475], [-0.0118, 0.0429, 0.9689]],
        [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
    ]
    colors = np.array([linear(color) for color in _PALETTE])
    luminance = colors @ [0.2126, 0.7152, 0.0722]
    assert (1.05 / (luminance + 0.05)).min() >= 3  # WCAG 2.2, 1.4.11
    for matrix in seen:
        shown = np.clip(colors @ np.transpose(matrix), 0, 1)
        shown = np.where(shown <= 0.0031308, 12.92 * shown, 1.055 * shown ** (1 / 2.4) - 0.055)
        lab = rgb2lab(shown[None])[0]
        distance = deltaE_ciede2000(lab[:, None], lab[None])
        assert distance[~np.eye(len(lab), dtype=bool)].min() > 10


def test_figures_embed_their_fonts_and_are_reproducible(result, tmp_path):
    first, second = (
        save_figure(learners_figure(result), tmp_path / f"{name}.pdf").read_bytes()
        for name in ("a", "b")
    )
    assert first == second
    assert b"/FontFile2" in first
    assert b"/Type3" not in first
    svg = save_figure(learners_figure(result), tmp_path / "a.svg").read_text()
    assert "<text" not in svg
    with pytest.raises(ConfigurationError, match=r"\.pdf or \.svg, got 'a\.png'"):
        save_figure(learners_figure(result), tmp_path / "a.png")


def test_legends_are_above_the_plot(result):
    figure = learners_figure(result)
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    assert not np.any(legend.overlaps(figure.axes[0].get_window_extent()))

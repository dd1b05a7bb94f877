"""The page: self-contained, safe, true to its figures, and readable on a phone."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pairmatch import Evaluator
from pairmatch.report import Report, summary, write_report

VOID = {"meta", "img", "br", "link", "input", "hr", "line", "path", "rect"}


class Balanced(HTMLParser):
    """Notes tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.faults = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


@pytest.fixture
def evaluation():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(60, 8))
    b = a + rng.normal(size=(60, 8))
    return Evaluator().evaluate(a, b, frozen_a=b[::-1], frozen_b=a)


def example(evaluation, **changes):
    curve = evaluation.recall_curve().tolist()
    return Report(
        **{
            "title": "Couples",
            "evaluation": evaluation.to_dict(),
            "curves": {"ours": curve, "frozen": evaluation.frozen.recall_curve().tolist(), "chance": curve},
            "ranks": evaluation.ranks.tolist(),
            "history": [{"epoch": e, "train_loss": 2 / e, "validation_mrr": e / 9} for e in (1.0, 2.0, 3.0)],
            "facts": {"Backbone": "descriptor"},
            **changes,
        }
    )


def test_the_page_is_whole_and_needs_nothing_from_outside(evaluation, tmp_path):
    write_report(tmp_path / "out" / "report.html", example(evaluation))
    page = (tmp_path / "out" / "report.html").read_text()
    parser = Balanced()
    parser.feed(page)
    assert not parser.faults
    assert not parser.open
    outside = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:|#)([^"'\s>)]+)""", page)
    assert not outside
    assert "<script" not in page
    assert "<img" not in page  # no photos unless asked for
    assert page.count("<svg") == page.count("<title>") - 1 == 4
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]


def test_figures_are_those_of_the_evaluation(evaluation, tmp_path):
    write_report(tmp_path / "report.html", example(evaluation))
    page = (tmp_path / "report.html").read_text()
    both = evaluation.both
    for value in both.recall.values():
        assert f"<td>{100 * value:.1f}<small>" in page
    low, high = both.mrr_interval
    assert f"<td>{both.mrr:.3f}<small>{low:.3f}–{high:.3f}</small></td>" in page
    # The path of our recall curve goes through R@10 of the table
    path = re.search(r'<path class="ours" d="M([^"]+)"', page).group(1)
    x, y = map(float, path.split(" L")[9].split())
    assert y == pytest.approx(250 - 38 - both.recall[10] * (250 - 12 - 38), abs=0.06)
    assert x == pytest.approx(44 + 9 / 59 * (420 - 44 - 12), abs=0.06)
    heights = [float(h) for h in re.findall(r'<rect class="bar"[^>]* height="([\d.]+)"', page)]
    counts, _ = np.histogram(evaluation.ranks, np.linspace(0.5, 60.5, 16))
    assert np.allclose(np.array(heights) / sum(heights), counts / counts.sum(), atol=2e-3)
    figures = json.loads((tmp_path / "report.json").read_text())
    assert figures["evaluation"] == json.loads(json.dumps(evaluation.to_dict()))


def test_the_first_sentence_says_what_came_out(evaluation):
    both, chance = evaluation.both, evaluation.chance
    text = summary(evaluation.to_dict())
    assert text.startswith(
        f"For new people, the true partner stood among the first 10 of 60 in {100 * both.recall[10]:.0f} %"
    )
    assert f"chance is {100 * chance.recall[10]:.0f} %" in text
    assert f"frozen features reach {100 * evaluation.frozen.both.recall[10]:.0f} %" in text


def test_hostile_text_stays_text(evaluation, tmp_path):
    evil = "<script>alert(1)</script>"
    write_report(tmp_path / "r.html", example(evaluation, title=evil, notes=[evil], facts={evil: evil}))
    assert evil not in (tmp_path / "r.html").read_text()
    assert (tmp_path / "r.html").read_text().count("&lt;script&gt;") == 5  # twice the title, the note, name and value


def test_missing_parts_are_left_out(evaluation, tmp_path):
    plain = Evaluator(resamples=0).evaluate(np.eye(4), np.eye(4))
    write_report(tmp_path / "r.html", Report(title="x", evaluation=plain.to_dict()))
    page = (tmp_path / "r.html").read_text()
    assert "<svg" not in page
    assert "frozen" not in page[page.index("<main>") : page.index("How to read it")]


def test_a_write_that_fails_leaves_the_old_page(evaluation, tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("old")

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_report(path, example(evaluation))
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]


@pytest.mark.parametrize("width", [390, 1280])
def test_no_width_overflows(evaluation, tmp_path, width):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    write_report(tmp_path / "r.html", example(evaluation, notes=["x" * 300], title="w" * 120))
    frame = tmp_path / "frame.html"
    # A frame has the exact width that is wanted; a headless window is never narrower than 500 pixels
    frame.write_text(
        f'<iframe id=f src="r.html" style="width:{width}px;height:900px;border:0"></iframe><script>f.onload = () => '
        "{ const e = f.contentDocument.documentElement;"
        " document.title = `beyond ${e.scrollWidth - e.clientWidth}` }</script>"
    )
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--allow-file-access-from-files",
    ]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=4000", "--dump-dom", frame.as_uri()]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "<title>beyond 0</title>" in page


def test_thumbnails_hold_pixels_alone(tmp_path):
    import base64
    import io

    from pairmatch.report import _thumbnail

    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    Image.new("RGB", (900, 600), "teal").save(tmp_path / "p.jpg", exif=exif, comment=b"secret")
    small = base64.b64decode(_thumbnail(tmp_path / "p.jpg").split(",")[1])
    image = Image.open(io.BytesIO(small))
    assert image.size == (184, 123)
    assert not image.getexif()
    assert b"secret" not in small

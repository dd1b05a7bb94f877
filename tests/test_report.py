"""The page: self-contained, safe, true to its figures, and readable on a phone."""

import base64
import io
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pairmatch import Evaluator, Matcher
from pairmatch.report import (
    Candidate,
    Query,
    Report,
    evaluation_curves,
    matcher_report,
    summary,
    write_report,
)
from pairmatch.report.content import rank_edges, thumbnail
from pairmatch.report.plots import Plot, plots

VOID = {"meta", "img", "br", "link", "input", "hr", "path", "rect"}


class Balanced(HTMLParser):
    """Notes tags that are not closed in order, and attributes of all tags."""

    def __init__(self, page):
        super().__init__()
        self.open, self.faults, self.tags = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


@pytest.fixture(scope="module")
def evaluation():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(60, 8))
    b = a + rng.normal(size=(60, 8))
    return Evaluator().evaluate(a, b, frozen_a=b[::-1], frozen_b=a)


def example(evaluation, **changes):
    return Report(
        **{
            "title": "Couples",
            "evaluation": evaluation.to_dict(),
            **evaluation_curves(evaluation),
            "history": [
                {"epoch": e, "train_loss": 2 / e, "validation_mrr": e / 9} for e in (1.0, 2.0, 3.0)
            ],
            "facts": {"Backbone": "descriptor"},
            **changes,
        }
    )


def written(path, report):
    write_report(path / "report.html", report)
    return (path / "report.html").read_text()


def test_the_page_is_whole_and_needs_nothing_from_outside(evaluation, tmp_path):
    page = written(tmp_path / "out", example(evaluation))
    parsed = Balanced(page)
    assert not parsed.faults
    assert not parsed.open
    outside = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:|#)([^"'\s>)]+)""", page)
    assert not outside
    assert "://" not in page
    assert "<img" not in page  # no photos unless asked for
    assert page.count("<svg") == page.count("<title>") - 1 == page.count("<desc>") == 4
    identified = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    named = {
        attributes["aria-labelledby"]
        for _, attributes in parsed.tags
        if "aria-labelledby" in attributes
    }
    assert named <= identified
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "report.html",
        "report.json",
    ]


def test_figures_are_those_of_the_evaluation(evaluation, tmp_path):
    page = written(tmp_path, example(evaluation))
    both = evaluation.both
    for value in both.recall.values():
        assert f">{100 * value:.1f}<small>" in page
    low, high = both.mrr_interval
    assert (
        f'<td data-value="{both.mrr:.3f}">{both.mrr:.3f}<small>{low:.3f}–{high:.3f}</small></td>'
        in page
    )
    # The path of our recall curve goes through R@10 of the table, its band through that interval
    left, right, top, bottom = Plot.left, Plot.right, Plot.top, Plot.bottom

    def height(share):
        return pytest.approx(bottom - share * (bottom - top), abs=0.06)

    path = re.search(r'<path class="ours" d="M([^"]+)"', page).group(1)
    x, y = map(float, path.split(" L")[9].split())
    assert y == height(both.recall[10])
    assert x == pytest.approx(left + 9 / 59 * (right - left), abs=0.06)
    band = re.search(r'<path class="band ours" d="M([^"]+)Z"', page).group(1).split(" L")
    low, high = both.recall_interval[10]
    assert [float(band[index].split()[1]) for index in (-10, 9)] == [height(low), height(high)]
    heights = [float(h) for h in re.findall(r'<rect class="bar"[^>]* height="([\d.]+)"', page)]
    counts, _ = np.histogram(evaluation.ranks, np.linspace(0.5, 60.5, 16))
    assert np.allclose(np.array(heights) / sum(heights), counts / counts.sum(), atol=2e-3)
    figures = json.loads((tmp_path / "report.json").read_text())
    assert figures["evaluation"] == json.loads(json.dumps(evaluation.to_dict()))
    assert figures["curves"]["ours"] == pytest.approx(evaluation.recall_curve().tolist())
    assert figures["ranks"] == evaluation.ranks.tolist()
    assert "queries" not in figures


def test_text_alternatives_tell_the_figures(evaluation):
    recall, ranks, _, mrr = plots(example(evaluation))
    both = evaluation.both
    assert (
        f"trained: {100 * both.recall[5]:.0f} % at 5, {100 * both.recall[10]:.0f} % at 10"
        in recall.description
    )
    assert "chance: 8 % at 5, 17 % at 10" in recall.description
    share = np.mean(evaluation.ranks <= 4.5)
    assert ranks.description.startswith(
        f"{100 * share:.0f} % of true partners stand among the first 4 ranks"
    )
    assert mrr.description == "from 0.111 in epoch 1 to 0.333 in epoch 3"
    assert mrr.caption == "Weights of epoch 3, the best on the validation pairs, were kept."


def test_curves_and_bands_are_the_tables_and_stay_small():
    rng = np.random.default_rng(1)
    a = rng.normal(size=(230, 4))
    found = Evaluator(ks=(7, 10, 201), seed=5).evaluate(a, a + rng.normal(size=a.shape))
    fields = evaluation_curves(found, seed=5)
    ks = fields["curve_ks"]
    assert ks[0] == 1
    assert ks[-1] == 230
    assert {7, 10, 201} < set(ks)
    assert len(ks) <= 83
    assert fields["curves"]["ours"] == pytest.approx(
        found.recall_curve()[np.array(ks) - 1].tolist()
    )
    assert fields["curves"]["chance"] == pytest.approx([k / 230 for k in ks])
    for k, interval in found.both.recall_interval.items():
        assert fields["bands"]["ours"][ks.index(k)] == pytest.approx(interval)
    assert "frozen" not in fields["curves"]


def test_chance_of_the_histogram_is_that_of_a_random_order():
    # Every order of 4 and 3 candidates, by counting: persons with 2, 1 and 1 partners on side a,
    # and the other way
    matches = [(0, 0), (0, 1), (1, 2), (2, 3)]
    found = Evaluator(ks=(1,), resamples=0).evaluate(np.eye(4)[:3], np.eye(4), matches=matches)
    expected = np.zeros(4)
    for partners, size in ((2, 4), (1, 4), (1, 4), (1, 3), (1, 3), (1, 3), (1, 3)):
        orders = list(itertools.permutations(range(size)))
        for order in orders:
            expected[min(order.index(partner) for partner in range(partners))] += (
                1 / len(orders) / 7
            )
    assert rank_edges(4).tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert evaluation_curves(found)["rank_chance"] == pytest.approx(expected.tolist())


@pytest.mark.parametrize("candidates", [1, 2, 15, 16, 57, 60, 75, 1000])
def test_bars_span_whole_ranks_and_cover_them_all(candidates):
    edges = rank_edges(candidates)
    spans = np.diff(edges)
    assert (edges[0], edges[-1]) == (0.5, candidates + 0.5)
    assert len(spans) <= 15
    assert np.all(spans[:-1] == spans[0])
    assert 1 <= spans[-1] <= spans[0]
    assert np.all(spans % 1 == 0)


@pytest.mark.parametrize(
    "values", [(-1.0, -2.0, -3.5), (0.0, 0.0, 0.0), (1e-7, 2e-7, 5e-7), (3e4, float("nan"), 2e4)]
)
def test_any_history_is_drawn_inside_its_frame(evaluation, values):
    history = [{"epoch": float(e), "train_loss": v} for e, v in enumerate(values, 1)]
    plot = plots(example(evaluation, history=history))[-1]
    points = [
        tuple(map(float, p.split())) for _, d in plot.paths for p in d.removeprefix("M").split(" L")
    ]
    assert len(points) == np.isfinite(values).sum()
    assert all(plot.left <= x <= plot.right and plot.top <= y <= plot.bottom for x, y in points)
    assert 1 <= len(plot.y_ticks) <= 6
    assert [text for _, text in plot.x_ticks] == ["1", "2", "3"]


def test_the_first_sentence_says_what_came_out(evaluation):
    both, chance = evaluation.both, evaluation.chance
    text = summary(evaluation.to_dict())
    assert text.startswith(
        f"For new people, the true partner stood among the first 10 of 60 in {100 * both.recall[10]:.0f} % of cases "
    )
    assert f"chance is {100 * chance.recall[10]:.0f} %" in text
    assert f"frozen features reach {100 * evaluation.frozen.both.recall[10]:.0f} %" in text
    assert text.endswith(" That is better than luck explains.")


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.2, 0.4), "That is better than luck explains."),
        ((0.1, 0.4), "The interval includes chance, so this may be luck."),
        ((0.0, 0.1), "That is worse than luck explains."),
    ],
)
def test_the_first_sentence_says_whether_it_may_be_luck(interval, verdict):
    both = {"recall": {"10": 0.3}, "intervals": {"recall": {"10": interval}}}
    assert summary({"both": both, "chance": {"recall": {"10": 0.13}}}) == (
        f"For new people, the true partner stood among the first 10 in 30 % of cases (95 % interval "
        f"{100 * interval[0]:.0f}–{100 * interval[1]:.0f} %); chance is 13 %. {verdict}"
    )


def test_hostile_text_stays_text(evaluation, tmp_path):
    evil = "<script>alert(1)</script>"
    quote = '" onload="alert(1)'
    queries = [Query(quote, (Candidate(1, quote, True),))]
    changes = {
        "title": evil,
        "notes": [evil],
        "facts": {evil: evil},
        "created": quote,
        "queries": queries,
    }
    page = written(tmp_path, example(evaluation, **changes))
    assert evil not in page
    assert page.count("&lt;script&gt;") == 5  # twice the title, the note, name and value
    parsed = Balanced(page)
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert not any("onload" in attributes for _, attributes in parsed.tags)


def test_missing_parts_are_left_out(tmp_path):
    plain = Evaluator(resamples=0).evaluate(np.eye(4), np.eye(4))
    page = written(tmp_path, Report(title="x", evaluation=plain.to_dict()))
    assert "<svg" not in page
    assert "frozen" not in page[page.index("<main>") : page.index("How to read it")]
    bare = written(
        tmp_path, Report(title="x", evaluation={"both": {"recall": {"1": 0.5}}}, ranks=[1.0, 2.0])
    )
    assert "the true partner stood among the first 1 in 50 % of cases.</p>" in bare
    assert not Balanced(bare).faults
    assert (
        "candidates."
        not in bare[
            bare.index('id="results-text"') : bare.index("</p>", bare.index("results-text"))
        ]
    )


def test_photos_stand_beside_ranks_and_reach_no_json(evaluation, tmp_path):
    shown = tuple(
        Candidate(rank, f"data:image/jpeg;base64,{rank}AAA", rank == 9) for rank in (1, 2, 9)
    )
    page = written(
        tmp_path, example(evaluation, queries=[Query("data:image/jpeg;base64,QQQQ", shown)])
    )
    assert "Person 1: true partner at rank 9" in page
    assert [a["src"][-4:] for tag, a in Balanced(page).tags if tag == "img"] == [
        "QQQQ",
        "1AAA",
        "2AAA",
        "9AAA",
    ]
    assert page.count('alt="True partner"') == page.count('class="person true"') == 1
    assert "base64" not in (tmp_path / "report.json").read_text()


def test_a_matchers_report_shows_people_only_when_told_to(small_pairs, hash_backbone, tmp_path):
    train, validation, test = small_pairs(20).split(0.5, 0.2, seed=0)
    matcher = Matcher(backbone=hash_backbone, metadata=None, store=tmp_path / "s.sqlite").fit(
        train, validation
    )
    evaluation = matcher.evaluate(test)
    hidden, shown = (
        matcher_report(matcher, train, validation, test, evaluation, title="t", photos=photos)
        for photos in (False, True)
    )
    page = written(tmp_path, hidden)
    assert not hidden.queries
    assert "<img" not in page
    assert not [
        person
        for person in test.profiles
        if re.search(rf"\b{person}\b", page[page.index("<main>") :])
    ]
    assert len(shown.queries) == len(test)
    for query in shown.queries:
        ranks = [candidate.rank for candidate in query.candidates]
        assert ranks == list(range(1, len(test) + 1))
        assert sum(candidate.is_partner for candidate in query.candidates) == 1
    assert hidden.facts["Metadata"] in ("none", "none: no backbone here reads text")
    assert hidden.facts["Pairs"] == f"10 to train, 4 to validate, {len(test)} to test"
    at = [hidden.curve_ks.index(k) for k in evaluation.both.recall]
    assert [hidden.bands["ours"][i] for i in at] == list(evaluation.both.recall_interval.values())


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


def test_thumbnails_hold_pixels_alone(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    Image.new("RGB", (900, 600), "teal").save(tmp_path / "p.jpg", exif=exif, comment=b"secret")
    small = base64.b64decode(thumbnail(tmp_path / "p.jpg").split(",")[1])
    image = Image.open(io.BytesIO(small))
    assert image.size == (184, 123)
    assert not image.getexif()
    assert b"secret" not in small
    assert b"taken at home" not in small


def in_browser(folder, width, script):
    """What `script` (JavaScript, a function body about `page`, the report's window) returns in Chromium."""
    chromium = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if chromium is None:
        pytest.skip("no Chromium is installed")
    frame = folder / "frame.html"
    # A frame has the exact width that is wanted; a headless window is never narrower than 500
    # pixels
    frame.write_text(
        f'<iframe id=f src="report.html" style="width:{width}px;height:900px;border:0"></iframe><script>f.onload = () '
        f"=> {{ document.title = JSON.stringify((page => {{ {script} }})(f.contentWindow)) }}</script>"
    )
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--allow-file-access-from-files",
        f"--user-data-dir={folder / 'browser'}",
        "--enable-logging=stderr",
        "--virtual-time-budget=4000",
        "--dump-dom",
        frame.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert (
        "CONSOLE" not in done.stderr
    )  # the page's policy refuses nothing that the page itself does
    return json.loads(re.search(r"<title>(.*?)</title>", done.stdout).group(1))


@pytest.mark.parametrize("width", [390, 1280])
def test_no_width_overflows(evaluation, tmp_path, width):
    photo = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
    queries = [Query(photo, tuple(Candidate(rank, photo, rank == 7) for rank in range(1, 8)))]
    changes = {
        "notes": ["x" * 300],
        "title": "w" * 120,
        "facts": {"Backbone": "y" * 200},
        "queries": queries,
    }
    write_report(tmp_path / "report.html", example(evaluation, **changes))
    script = "const e = page.document.documentElement; return [e.clientWidth, e.scrollWidth]"
    assert in_browser(tmp_path, width, script) == [width, width]


def test_the_table_sorts_by_keyboard_buttons(evaluation, tmp_path):
    write_report(tmp_path / "report.html", example(evaluation))
    script = """
      const names = () => [...page.document.querySelectorAll("tbody th")].map(cell => cell.textContent);
      const heads = [...page.document.querySelectorAll("thead th")], button = heads.at(-1).querySelector("button");
      const seen = [names()];
      for (let i = 0; i < 3; i++) { button.focus(); button.click(); seen.push([heads.at(-1).ariaSort, ...names()]); }
      return [heads.length, page.document.querySelectorAll("thead button").length, seen];
    """
    heads, buttons, (original, first, second, third) = in_browser(tmp_path, 1280, script)
    assert heads == buttons == 8
    assert original == ["chance", "frozen", "trained", "a → b", "b → a"]
    medians = {
        "chance": evaluation.chance.median_rank,
        "frozen": evaluation.frozen.both.median_rank,
        "trained": evaluation.both.median_rank,
        "a → b": evaluation.a_to_b.median_rank,
        "b → a": evaluation.b_to_a.median_rank,
    }
    assert first == ["ascending", *sorted(original, key=medians.get)]
    assert second == ["descending", *sorted(original, key=lambda name: -medians[name])]
    assert third == [None, *original]


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory):
    """A demo whose report has every section, and the matcher and pairs that it is about."""
    from pairmatch import Pairs, TrainingConfig
    from pairmatch.experiments.demo import draw_people
    from pairmatch.report import diagnose

    folder = tmp_path_factory.mktemp("diagnosed")
    pairs = Pairs.read(draw_people(folder / "people", pairs=90, seed=0))
    parts = pairs.split(seed=0)
    matcher = Matcher(
        backbone="descriptor",
        metadata=None,
        store=folder / "s.sqlite",
        training=TrainingConfig(epochs=3),
    ).fit(*parts[:2])
    evaluation = matcher.evaluate(parts[2])
    sections = diagnose(matcher, *parts)
    report = matcher_report(matcher, *parts, evaluation, title="Everything", sections=sections)
    write_report(folder / "report.html", report)
    return folder, matcher, parts, evaluation, sections


def test_every_diagnosis_stands_in_the_report(diagnosed):
    folder, _, _, evaluation, sections = diagnosed
    page = (folder / "report.html").read_text()
    parsed = Balanced(page)
    assert not parsed.faults
    titles = [section.title for section in sections]
    assert titles == [
        "Beside other learners",
        "Who is shown, and who never is",
        "From scores to probabilities",
        "For whom it works",
        "Shortcuts",
        "Would more pairs help?",
    ]
    for title in titles:
        assert f">{title}</h2>" in page
    figures = json.loads((folder / "report.json").read_text())
    lines = {line["learner"]: line for line in figures["sections"][0]["data"]}
    # The same head on the same people: the section's line is the table's
    assert lines["trained"]["mrr"] == pytest.approx(evaluation.both.mrr)
    assert lines["frozen"]["mrr"] == pytest.approx(evaluation.frozen.both.mrr)
    assert set(lines) == {
        "chance",
        "trained",
        "frozen",
        "centred",
        "whitened",
        "cca",
        "ridge",
        "popularity",
    }
    slices = figures["sections"][3]["data"]
    assert {"age", "region"} & {one["attribute"] for one in slices}
    assert {one["trait"] for one in figures["sections"][4]["data"]} >= {
        "photo quality",
        "background colour",
        "age",
    }
    assert len(figures["sections"][5]["data"]["pairs"]) == 3
    assert "NaN" not in (folder / "report.json").read_text()


def test_blank_cells_come_last_and_signs_are_numbers(diagnosed):
    script = """
      const table = page.document.querySelectorAll("table.sortable")[1], column = table.tHead.rows[0].cells.length - 2;
      const seen = [], button = table.tHead.rows[0].cells[column].querySelector("button");
      for (let i = 0; i < 2; i++) {
        button.click();
        seen.push([...table.tBodies[0].rows].map(row => row.cells[column].dataset.value));
      }
      return seen;
    """
    folder, *_ = diagnosed
    for values, turn in zip(in_browser(folder, 1280, script), (True, False), strict=True):
        assert values[-2:] == ["", ""]  # chance, and frozen itself
        numbers = [float(value) for value in values[:-2]]
        assert numbers == sorted(numbers, reverse=turn)
        assert min(numbers) < 0 < max(numbers)
    page = (folder / "report.html").read_text()
    assert "each tested once by learners" in page
    assert ">−0." in page  # a minus, not a hyphen


def test_one_sided_sets_are_diagnosed_too(tmp_path, small_pairs):
    from pairmatch import TrainingConfig
    from pairmatch.report import diagnose

    parts = small_pairs(40, sides=1).split(seed=0)
    matcher = Matcher(
        backbone="descriptor",
        metadata=None,
        store=tmp_path / "s.sqlite",
        training=TrainingConfig(epochs=1),
    ).fit(*parts[:2])
    sections = diagnose(matcher, *parts, with_learning_curve=False)
    assert [section.title for section in sections][:2] == [
        "Beside other learners",
        "Who is shown, and who never is",
    ]
    assert sections[1].table.rows[0].name == "trained"


def test_a_single_test_pair_is_no_error(tmp_path, small_pairs):
    from pairmatch import TrainingConfig
    from pairmatch.report import diagnose

    pairs = small_pairs(12)
    parts = pairs.subset(range(9)), pairs.subset(range(9, 11)), pairs.subset([11])
    matcher = Matcher(
        backbone="descriptor",
        metadata=None,
        store=tmp_path / "s.sqlite",
        training=TrainingConfig(epochs=1),
    ).fit(*parts[:2])
    titles = [section.title for section in diagnose(matcher, *parts)]
    assert titles[0] == "Beside other learners"


@pytest.mark.parametrize("width", [390, 1280])
def test_the_whole_report_fits_the_screen(diagnosed, width):
    script = "const e = page.document.documentElement; return [e.clientWidth, e.scrollWidth]"
    assert in_browser(diagnosed[0], width, script) == [width, width]

"""The page is self-contained, safe, shows the right figures, and fits a phone."""

import base64
import csv
import io
import itertools
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pairmatch import Evaluator, Matcher, Pairs
from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.report import (
    Candidate,
    Query,
    Report,
    evaluation_curves,
    matcher_report,
    summary,
    write_report,
    write_sweep_report,
)
from pairmatch.report.content import Row, Section, Table, thumbnail
from pairmatch.report.curves import rank_edges
from pairmatch.report.plots import Plot, plots

VOID = {"meta", "img", "br", "link", "input", "hr", "path", "rect"}


class Balanced(HTMLParser):
    """Records the attributes of all tags, and the tags that are not closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open = []
        self.faults = []
        self.tags = []
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
    return Evaluator().evaluate_arrays(a, b, frozen_a=b[::-1], frozen_b=a)


def example(evaluation, **changes):
    return Report(
        **{
            "title": "Couples",
            "evaluation": evaluation.to_dict(),
            **evaluation_curves(evaluation),
            "history": [
                {"epoch": epoch, "train_loss": 2 / epoch, "validation_mrr": epoch / 9}
                for epoch in (1.0, 2.0, 3.0)
            ],
            "facts": {"Backbone": "descriptor"},
            **changes,
        }
    )


def write_page(folder, report):
    """Writes a report to a folder and returns the page."""
    write_report(folder / "report.html", report)
    return (folder / "report.html").read_text()


def test_the_page_is_well_formed_and_self_contained(evaluation, tmp_path):
    page = write_page(tmp_path / "out", example(evaluation))
    parsed = Balanced(page)
    assert not parsed.faults
    assert not parsed.open
    external = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:|#)([^"'\s>)]+)""", page)
    assert not external
    assert "://" not in page
    assert "<img" not in page  # no photos unless asked for
    assert page.count("<svg") == page.count("<title>") - 1 == page.count("<desc>") == 4
    ids = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    labels = {
        attributes["aria-labelledby"]
        for _, attributes in parsed.tags
        if "aria-labelledby" in attributes
    }
    assert labels <= ids
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "report.html",
        "report.json",
    ]


def test_contents_lead_to_every_section_below_the_verdict(evaluation, tmp_path):
    sections = [Section("Learners"), Section("Who <is> found")]
    report = example(evaluation, verdict="Use best.", sections=sections, notes=["A note"])
    page = write_page(tmp_path, report)
    nav = page[page.index("<nav") : page.index("</nav>")]
    links = re.findall(r'<a href="#([^"]+)">([^<]+)</a>', nav)
    headings = re.findall(r'<h2 id="([^"]+)">([^<]+)</h2>', page)
    assert links == headings
    assert ("section-2", "Who &lt;is&gt; found") in links
    assert page.index("Use best.") < page.index("<nav") < page.index("<h2")


def test_tables_are_downloaded_as_csv(evaluation, tmp_path):
    minus = "\N{MINUS SIGN}"
    cells = [(f"{minus}0.014", f"{minus}0.030 to +0.002"), ("< 0.001", "")]
    rows = [Row("chance", [("", ""), ("", "")]), Row("=best", cells)]
    table = Table("learner", ["difference", "p"], rows, "All results")
    report = example(evaluation, sections=[Section("Learners", table=table)])
    page = write_page(tmp_path, report)
    links = re.findall(r'<a href="data:text/csv;[^,]*,([^"]+)" download="([^"]+)"', page)
    assert [name for _, name in links] == [
        "recall,-mrr-and-median-rank-on-the-test-pairs.csv",
        "all-results.csv",
    ]
    results, learners = (
        list(csv.reader(io.StringIO(base64.b64decode(content).decode()))) for content, _ in links
    )
    assert learners == [
        ["learner", "difference", "difference interval", "p"],
        ["chance", "", "", ""],
        # Numbers are numbers, and texts that a spreadsheet takes for a formula are guarded
        ["'=best", "-0.014", f"{minus}0.030 to +0.002", "< 0.001"],
    ]
    trained = dict(
        zip(results[0], next(row for row in results if row[0] == "trained"), strict=True)
    )
    both = evaluation.both
    assert float(trained["R@10"]) == pytest.approx(100 * both.recall[10], abs=0.05)
    low, high = both.mrr_interval
    assert trained["MRR interval"] == f"{low:.3f}–{high:.3f}"


def test_figures_equal_those_of_the_evaluation(evaluation, tmp_path):
    page = write_page(tmp_path, example(evaluation))
    both = evaluation.both
    for value in both.recall.values():
        assert f">{100 * value:.1f}<small>" in page
    low, high = both.mrr_interval
    interval = f"<small>{low:.3f}–{high:.3f}</small>"
    assert f'<td data-value="{both.mrr:.3f}">{both.mrr:.3f}{interval}</td>' in page

    # The recall curve passes through R@10 of the table, and its band through that interval
    def height(share):
        return pytest.approx(Plot.bottom - share * (Plot.bottom - Plot.top), abs=0.06)

    path = re.search(r'<path class="ours" d="M([^"]+)"', page).group(1)
    x, y = map(float, path.split(" L")[9].split())
    assert y == height(both.recall[10])
    assert x == pytest.approx(Plot.left + 9 / 59 * (Plot.right - Plot.left), abs=0.06)
    band = re.search(r'<path class="band ours" d="M([^"]+)Z"', page).group(1).split(" L")
    low, high = both.recall_interval[10]
    assert [float(band[index].split()[1]) for index in (-10, 9)] == [height(low), height(high)]
    heights = [
        float(text) for text in re.findall(r'<rect class="bar"[^>]* height="([\d.]+)"', page)
    ]
    counts, _ = np.histogram(evaluation.ranks, np.linspace(0.5, 60.5, 16))
    assert np.allclose(np.array(heights) / sum(heights), counts / counts.sum(), atol=2e-3)
    figures = json.loads((tmp_path / "report.json").read_text())
    assert figures["evaluation"] == json.loads(json.dumps(evaluation.to_dict()))
    assert figures["curves"]["ours"] == pytest.approx(evaluation.recall_curve().tolist())
    assert figures["ranks"] == evaluation.ranks.tolist()
    assert "queries" not in figures


def test_text_alternatives_state_the_figures(evaluation):
    recall, ranks, _loss, mrr = plots(example(evaluation))
    both = evaluation.both
    assert (
        f"trained: {100 * both.recall[5]:.0f} % at 5, {100 * both.recall[10]:.0f} % at 10"
        in recall.description
    )
    assert "chance: 8 % at 5, 17 % at 10" in recall.description
    share = np.mean(evaluation.ranks <= 4.5)
    assert ranks.description.startswith(
        f"{100 * share:.0f} % of true partners are in the top 4, compared with 7 % in a random"
    )
    assert mrr.description == "from 0.111 in epoch 1 to 0.333 in epoch 3"
    assert mrr.caption == "The weights of epoch 3, the best on the validation pairs, were kept."


def test_curves_and_bands_agree_with_the_table_and_have_few_points():
    rng = np.random.default_rng(1)
    a = rng.normal(size=(230, 4))
    b = a + rng.normal(size=a.shape)
    measured = Evaluator(ks=(7, 10, 201), seed=5).evaluate_arrays(a, b)
    fields = evaluation_curves(measured, seed=5)
    ks = fields["curve_ks"]
    assert ks[0] == 1
    assert ks[-1] == 230
    assert {7, 10, 201} < set(ks)
    assert len(ks) <= 83
    expected = measured.recall_curve()[np.array(ks) - 1].tolist()
    assert fields["curves"]["ours"] == pytest.approx(expected)
    assert fields["curves"]["chance"] == pytest.approx([k / 230 for k in ks])
    for k, interval in measured.both.recall_interval.items():
        assert fields["bands"]["ours"][ks.index(k)] == pytest.approx(interval)
    assert "frozen" not in fields["curves"]


def test_chance_in_the_histogram_is_the_average_over_all_orders():
    # Counts every order of 4 candidates for people of side a with 2, 1 and 1 partners, and of 3
    # candidates for people of side b with 1 partner each
    matches = [(0, 0), (0, 1), (1, 2), (2, 3)]
    evaluator = Evaluator(ks=(1,), resamples=0)
    measured = evaluator.evaluate_arrays(np.eye(4)[:3], np.eye(4), matches=matches)
    expected = np.zeros(4)
    for partners, size in ((2, 4), (1, 4), (1, 4), (1, 3), (1, 3), (1, 3), (1, 3)):
        orders = list(itertools.permutations(range(size)))
        for order in orders:
            best = min(order.index(partner) for partner in range(partners))
            expected[best] += 1 / len(orders) / 7
    assert rank_edges(4).tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert evaluation_curves(measured)["rank_chance"] == pytest.approx(expected.tolist())


@pytest.mark.parametrize("candidates", [1, 2, 15, 16, 57, 60, 75, 1000])
def test_bars_span_whole_ranks_and_cover_all_of_them(candidates):
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
def test_any_history_is_drawn_inside_the_axes(evaluation, values):
    history = [
        {"epoch": float(epoch), "train_loss": value} for epoch, value in enumerate(values, 1)
    ]
    plot = plots(example(evaluation, history=history))[-1]
    points = [
        tuple(map(float, p.split())) for _, d in plot.paths for p in d.removeprefix("M").split(" L")
    ]
    assert len(points) == np.isfinite(values).sum()
    assert all(plot.left <= x <= plot.right and plot.top <= y <= plot.bottom for x, y in points)
    assert 1 <= len(plot.y_ticks) <= 6
    assert [text for _, text in plot.x_ticks] == ["1", "2", "3"]


def test_the_summary_states_the_result(evaluation):
    both, chance = evaluation.both, evaluation.chance
    text = summary(evaluation.to_dict())
    assert text.startswith(
        "For new people, the true partner is in the top 10 of 60 in "
        f"{100 * both.recall[10]:.0f} % of cases "
    )
    assert f"chance is {100 * chance.recall[10]:.0f} %" in text
    assert f"frozen features reach {100 * evaluation.frozen.both.recall[10]:.0f} %" in text
    assert text.endswith(" This is significantly better than chance.")


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.2, 0.4), "This is significantly better than chance."),
        ((0.1, 0.4), "The interval includes chance, so this may be luck."),
        ((0.13 + 3e-8, 0.4), "The interval includes chance, so this may be luck."),
        ((0.0, 0.1), "This is significantly worse than chance."),
    ],
)
def test_the_summary_states_whether_the_result_may_be_luck(interval, verdict):
    both = {"recall": {"10": 0.3}, "intervals": {"recall": {"10": interval}}}
    assert summary({"both": both, "chance": {"recall": {"10": 0.13}}}) == (
        "For new people, the true partner is in the top 10 in 30 % of cases (95 % interval "
        f"{100 * interval[0]:.0f}–{100 * interval[1]:.0f} %); chance is 13 %. {verdict}"
    )


def test_hostile_text_is_escaped(evaluation, tmp_path):
    script = "<script>alert(1)</script>"
    quote = '" onload="alert(1)'
    queries = [Query(quote, (Candidate(1, quote, True),))]
    changes = {
        "title": script,
        "notes": [script],
        "facts": {script: script},
        "created": quote,
        "queries": queries,
    }
    page = write_page(tmp_path, example(evaluation, **changes))
    assert script not in page
    assert page.count("&lt;script&gt;") == 5  # twice the title, the note, name and value
    parsed = Balanced(page)
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert not any("onload" in attributes for _, attributes in parsed.tags)


def test_parts_without_data_are_omitted(tmp_path):
    plain = Evaluator(resamples=0).evaluate_arrays(np.eye(4), np.eye(4))
    page = write_page(tmp_path, Report(title="x", evaluation=plain.to_dict()))
    assert "<svg" not in page
    assert "frozen" not in page[page.index("<main>") : page.index("How to read this report")]
    bare = write_page(
        tmp_path, Report(title="x", evaluation={"both": {"recall": {"1": 0.5}}}, ranks=[1.0, 2.0])
    )
    assert "the true partner is in the top 1 in 50 % of cases.</p>" in bare
    assert not Balanced(bare).faults
    start = bare.index('id="results-text"')
    assert "candidates." not in bare[start : bare.index("</p>", start)]


def test_photos_are_shown_with_ranks_and_are_not_in_the_json(evaluation, tmp_path):
    shown = tuple(
        Candidate(rank, f"data:image/jpeg;base64,{rank}AAA", rank == 9) for rank in (1, 2, 9)
    )
    page = write_page(
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


def test_the_report_of_a_matcher_shows_people_only_on_request(small_pairs, hash_backbone, tmp_path):
    train, validation, test = small_pairs(20).split(0.5, 0.2, seed=0)
    matcher = Matcher(backbone=hash_backbone, metadata=None, store=tmp_path / "s.sqlite").fit(
        train, validation
    )
    evaluation = matcher.evaluate(test)
    hidden, shown = (
        matcher_report(matcher, train, validation, test, evaluation, title="t", photos=photos)
        for photos in (False, True)
    )
    page = write_page(tmp_path, hidden)
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
    assert hidden.notes == [*matcher.notes, *evaluation.notes]
    assert hidden.facts["Metadata"] in (
        "none: no generator sees the photos",
        "none: no backbone here reads text",
    )
    assert hidden.facts["Pairs"] == f"10 to train, 4 to validate, {len(test)} to test"
    points = [hidden.curve_ks.index(k) for k in evaluation.both.recall]
    assert [hidden.bands["ours"][point] for point in points] == list(
        evaluation.both.recall_interval.values()
    )


def test_examples_are_ranked_inside_the_pool_of_the_match(small_pairs, hash_backbone, tmp_path):
    train, validation, test = small_pairs(24).split(0.5, 0.2, seed=0)
    matcher = Matcher(backbone=hash_backbone, metadata=None, store=tmp_path / "s.sqlite").fit(
        train, validation
    )
    pooled = Pairs.of(
        test.people,
        [replace(pair, pool=f"room {i % 2}") for i, pair in enumerate(test.pairs)],
    )
    evaluation = matcher.evaluate(pooled)
    report = matcher_report(matcher, train, validation, pooled, evaluation, title="t", photos=True)
    sizes = [sum(pair.pool == f"room {room}" for pair in pooled.pairs) for room in (0, 1)]
    shown = [len(query.candidates) for query in report.queries]
    assert shown == [sizes[i % 2] for i in range(len(shown))]
    ranks = {
        row["query"]: row["rank"] for row in evaluation.table.rows() if row["direction"] == "a_to_b"
    }
    partner = [
        candidate.rank
        for query in report.queries
        for candidate in query.candidates
        if candidate.is_partner
    ]
    assert partner == [ranks[row] for row in range(len(partner))]


def test_given_notes_precede_those_of_the_matcher_and_the_evaluation(
    small_pairs, hash_backbone, tmp_path
):
    parts = small_pairs(20).split(0.5, 0.2, seed=0)
    matcher = Matcher(backbone=hash_backbone, metadata=None, store=tmp_path / "s.sqlite")
    matcher.fit(*parts[:2]).notes = ["from the matcher"]
    evaluation = replace(matcher.evaluate(parts[2]), notes=("from the evaluation",))
    report = matcher_report(matcher, *parts, evaluation, title="t", notes=["one photo, two ids"])
    page = write_page(tmp_path, report)
    notes = re.findall(r"<li>(.*?)</li>", page[page.index('id="notes"') :])
    assert notes == ["one photo, two ids", "from the matcher", "from the evaluation"]


def test_the_report_of_a_sweep_keeps_its_json_keys(tmp_path):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(30, 4))
    data = PairedFeatures.of(a, a + rng.normal(size=a.shape))
    result = cross_validate(data, ["frozen", "ridge"], repeats=1, ks=(3,))
    write_sweep_report(tmp_path / "report.html", result, title="Sweep")
    figures = json.loads((tmp_path / "report.json").read_text())
    assert figures["facts"] == {"Lines": "2", "Splits": "5", "Seed": "0"}
    (section,) = figures["sections"]
    assert [row["method"] for row in section["data"]] == ["chance", "frozen", "ridge"]
    assert {"recall", "mrr", "median_rank", "comparison"} < set(section["data"][0])


def test_a_failed_write_keeps_the_old_page(evaluation, tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("old")

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_report(path, example(evaluation))
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]


def test_thumbnails_contain_no_metadata(tmp_path):
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
    """Runs JavaScript in Chromium and returns its result.

    `script` is a function body; `page` is the window of the report.
    """
    chromium = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if chromium is None:
        pytest.skip("no Chromium is installed")
    frame = folder / "frame.html"
    # A frame has the exact width; a headless window is never narrower than 500 pixels
    frame.write_text(
        f'<iframe id=f src="report.html" style="width:{width}px;height:900px;border:0"></iframe>'
        f"<script>f.onload = () => {{ document.title = "
        f"JSON.stringify((page => {{ {script} }})(f.contentWindow)) }}</script>"
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
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in result.stderr  # the security policy blocks nothing that the page does
    return json.loads(re.search(r"<title>(.*?)</title>", result.stdout).group(1))


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_overflows_its_width(evaluation, tmp_path, width):
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


def test_the_table_is_sorted_by_buttons(evaluation, tmp_path):
    write_report(tmp_path / "report.html", example(evaluation))
    script = """
      const all = selector => [...page.document.querySelectorAll(selector)];
      const names = () => all("tbody th").map(cell => cell.textContent);
      const headings = all("thead th");
      const last = headings.at(-1);
      const button = last.querySelector("button");
      const orders = [names()];
      for (let i = 0; i < 3; i++) {
        button.focus();
        button.click();
        orders.push([last.ariaSort, ...names()]);
      }
      return [headings.length, all("thead button").length, orders];
    """
    headings, buttons, (original, first, second, third) = in_browser(tmp_path, 1280, script)
    assert headings == buttons == 8
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
    """A demo matcher, its pairs, and a report with every section."""
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
    diagnosis = diagnose(matcher, *parts)
    report = matcher_report(
        matcher,
        *parts,
        evaluation,
        title="Everything",
        verdict=str(diagnosis.verdict),
        sections=diagnosis.sections,
    )
    write_report(folder / "report.html", report)
    return folder, matcher, parts, evaluation, diagnosis


def test_the_report_contains_every_diagnosis(diagnosed):
    folder, _, _, evaluation, diagnosis = diagnosed
    sections = diagnosis.sections
    page = (folder / "report.html").read_text()
    parsed = Balanced(page)
    assert not parsed.faults
    assert f"<b>{diagnosis.verdict}</b>" in page
    best = re.findall(r'<tr class="[a-z]* best"><th scope="row">([^<]+)</th>', page)
    assert diagnosis.verdict.best in best
    assert len(best) == 2  # in the tables of test pairs and of baselines
    titles = [section.title for section in sections]
    assert titles == [
        "Learners",
        "Exposure",
        "Probabilities",
        "Results by group",
        "Shortcuts",
        "Learning curve",
    ]
    for title in titles:
        assert f">{title}</h2>" in page
    figures = json.loads((folder / "report.json").read_text())
    rows = {row["method"]: row for row in figures["sections"][0]["data"]}
    assert [row["learner"] for row in rows.values()] == list(rows)
    # The same head on the same people: the section agrees with the table of test pairs
    assert rows["trained"]["mrr"] == pytest.approx(evaluation.both.mrr)
    assert rows["frozen"]["mrr"] == pytest.approx(evaluation.frozen.both.mrr)
    assert set(rows) == {
        "chance",
        "trained",
        "best",
        "contrastive",  # the recipe: the matcher trains for other epochs
        "frozen",
        "centred",
        "whitened",
        "cca",
        "ridge",
        "popularity",
    }
    slices = figures["sections"][3]["data"]
    assert {"age", "region"} & {part["attribute"] for part in slices}
    assert {shortcut["trait"] for shortcut in figures["sections"][4]["data"]} >= {
        "photo quality",
        "background color",
        "age",
    }
    assert len(figures["sections"][5]["data"]["pairs"]) == 3
    assert "NaN" not in (folder / "report.json").read_text()


def test_empty_cells_sort_last_and_signed_values_sort_as_numbers(diagnosed):
    script = """
      const table = page.document.querySelectorAll("table.sortable")[1];
      const headings = table.tHead.rows[0].cells;
      const column = [...headings].findIndex(cell => cell.textContent.includes("to frozen"));
      const button = headings[column].querySelector("button");
      const orders = [];
      for (let i = 0; i < 2; i++) {
        button.click();
        orders.push([...table.tBodies[0].rows].map(row => row.cells[column].dataset.value));
      }
      return orders;
    """
    folder, *_ = diagnosed
    for values, descending in zip(in_browser(folder, 1280, script), (True, False), strict=True):
        assert values[-2:] == ["", ""]  # chance, and frozen itself
        numbers = [float(value) for value in values[:-2]]
        assert numbers == sorted(numbers, reverse=descending)
        assert min(numbers) < 0 < max(numbers)
    page = (folder / "report.html").read_text()
    assert "each tested once by learners" in page
    assert ">−0." in page  # a minus, not a hyphen


def test_one_sided_sets_are_diagnosed(tmp_path, small_pairs):
    from pairmatch import TrainingConfig
    from pairmatch.report import diagnose

    parts = small_pairs(40, sides=1).split(seed=0)
    matcher = Matcher(
        backbone="descriptor",
        metadata=None,
        store=tmp_path / "s.sqlite",
        training=TrainingConfig(epochs=1),
    ).fit(*parts[:2])
    sections = diagnose(matcher, *parts, with_learning_curve=False).sections
    assert [section.title for section in sections][:2] == [
        "Learners",
        "Exposure",
    ]
    assert sections[1].table.rows[0].name == "trained"


def test_a_single_test_pair_is_not_an_error(tmp_path, small_pairs):
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
    titles = [section.title for section in diagnose(matcher, *parts).sections]
    assert titles[0] == "Learners"


@pytest.mark.parametrize("width", [390, 1280])
def test_the_full_report_never_overflows_its_width(diagnosed, width):
    script = "const e = page.document.documentElement; return [e.clientWidth, e.scrollWidth]"
    assert in_browser(diagnosed[0], width, script) == [width, width]


@pytest.mark.parametrize("width", [390, 1280])
def test_the_first_figure_column_of_every_table_is_on_the_screen(diagnosed, width):
    script = """
      const first = [...page.document.querySelectorAll("table")].map(
        table => [...table.rows].map(row => row.cells[1].getBoundingClientRect().right)
      );
      return [first.length, Math.max(...first.flat())];
    """
    tables, right = in_browser(diagnosed[0], width, script)
    assert tables >= 4
    assert right <= width

"""Writes the page, self-contained, and the same figures for machines."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pairmatch.io.files import write_file
from pairmatch.report.content import Report, Row, Table
from pairmatch.report.plots import confidence, percent, plots


def write_report(path: Path, report: Report) -> None:
    """Writes the page, and a `.json` of the same name with the same figures (no photos) beside it."""
    environment = Environment(
        loader=PackageLoader("pairmatch.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    # The page's policy admits its own script alone, by digest, and no address at all
    environment.filters["sha256"] = lambda text: base64.b64encode(
        hashlib.sha256(text.encode()).digest()
    ).decode()
    page = environment.get_template("report.html.jinja").render(
        report=report,
        lead=report.lead or (summary(report.evaluation) if report.evaluation else ""),
        results=_results(report.evaluation) if report.evaluation else None,
        candidates=" and ".join(
            str(size) for size in dict.fromkeys(report.evaluation.get("candidates", ()))
        ),
        confidence=confidence(report.evaluation),
        plots=plots(report),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, page.encode())
    write_json(path.with_suffix(".json"), report)


def write_json(path: Path, report: Report) -> None:
    """Writes the figures of the page for machines; no photos."""
    figures = {
        name: getattr(report, name) for name in Report.__dataclass_fields__ if name != "queries"
    }
    figures["sections"] = [
        {"title": section.title, "data": section.data} for section in report.sections
    ]
    content = json.dumps(figures, indent=1, ensure_ascii=False, default=_plain)
    write_file(path, f"{content}\n".encode())


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else list(value)


def summary(evaluation: Mapping[str, Any]) -> str:
    """The result in plain words.

    What came out, beside chance and frozen features, and whether it may be luck.
    """
    both = evaluation["both"]
    k = "10" if "10" in both["recall"] else next(reversed(both["recall"]))
    size = " or ".join(str(n) for n in dict.fromkeys(evaluation.get("candidates", ())))
    among = f"the first {k} of {size}" if size else f"the first {k}"
    text = f"For new people, the true partner stood among {among} in {percent(both['recall'][k])} of cases"
    bounds = both["intervals"]["recall"][k] if "intervals" in both else None
    if bounds:
        text += f" ({confidence(evaluation)} % interval {100 * bounds[0]:.0f}–{percent(bounds[1])})"
    chance = evaluation["chance"]["recall"][k] if "chance" in evaluation else None
    others = [] if chance is None else [f"chance is {percent(chance)}"]
    if "frozen" in evaluation:
        others.append(f"frozen features reach {percent(evaluation['frozen']['both']['recall'][k])}")
    text = "; ".join([text, ", ".join(others)] if others else [text]) + "."
    if bounds and chance is not None:
        if bounds[0] <= chance <= bounds[1]:
            return f"{text} The interval includes chance, so this may be luck."
        return f"{text} That is {'better' if bounds[0] > chance else 'worse'} than luck explains."
    return text


def _results(evaluation: Mapping[str, Any]) -> Table:
    frozen = evaluation.get("frozen")
    lines = [
        ("chance", "chance", evaluation.get("chance")),
        ("frozen", "frozen", frozen and frozen["both"]),
        ("trained" if frozen else "embeddings", "ours", evaluation["both"]),
        ("a → b", "", evaluation.get("a_to_b")),
        ("b → a", "", evaluation.get("b_to_a")),
    ]
    ks = list(evaluation["both"]["recall"])
    rows = []
    for name, kind, figures in lines:
        if not figures:
            continue
        bounds = figures.get("intervals")
        cells = []
        for k in ks:
            interval = "–".join(f"{100 * v:.1f}" for v in bounds["recall"][k]) if bounds else ""
            cells.append((f"{100 * figures['recall'][k]:.1f}", interval))
        for key, digits in (("mrr", 3), ("median_rank", 1)):
            value = figures.get(key)
            interval = "–".join(f"{v:.{digits}f}" for v in bounds[key]) if bounds else ""
            cells.append(("" if value is None else f"{value:.{digits}f}", interval))
        rows.append(Row(name, cells, kind))
    columns = [*(f"R@{k}" for k in ks), "MRR", "median rank"]
    return Table("learner", columns, rows, "Recall, MRR and median rank on the test pairs")

"""Writes the self-contained HTML page, and its figures as JSON."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pairmatch.core.text import replace_surrogates
from pairmatch.io.outputs import check_output_file, check_replaced_file
from pairmatch.io.replacing import replace_file, replace_files
from pairmatch.report.content import Report, Row, Table
from pairmatch.report.plots import confidence, percent, plots

_ROUNDING = 1e-6  # intervals come from float32 sums: a bound that equals chance may be off by this


def write_report(path: Path, report: Report) -> None:
    """Writes the page, and a `.json` file of the same name with its figures but no photos.

    Both files are readable only by their owner (mode 0600).

    Args:
        path: Path to the page; its folder is created.
        report: Content of the page.

    Raises:
        ConfigurationError: The files cannot be written, or the JSON file holds something else than
            the figures of a report.
    """
    check_output_file(path)
    figures = path.with_suffix(".json")
    check_output_file(figures)
    check_replaced_file(figures, rb'\{\s*"title":', "figures of a report")
    environment = Environment(
        loader=PackageLoader("pairmatch.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    # The page's security policy allows only its own script, by digest, and no network requests
    environment.filters["sha256"] = _sha256
    page = environment.get_template("report.html.jinja").render(
        report=report,
        lead=report.lead or (summary(report.evaluation) if report.evaluation else ""),
        results=_results(report.evaluation) if report.evaluation else None,
        candidates=" and ".join(gallery_sizes(report.evaluation)),
        confidence=confidence(report.evaluation),
        plots=plots(report),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    contents = {path.name: page, figures.name: _figures(report)}
    replace_files(
        path.parent,
        {name: replace_surrogates(text).encode() for name, text in contents.items()},
        private=contents,
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def write_json(path: Path, report: Report) -> None:
    """Writes the figures of the page as JSON, without photos, readable only by their owner."""
    replace_file(path, replace_surrogates(_figures(report)).encode(), private=True)


def _figures(report: Report) -> str:
    figures = {
        name: getattr(report, name) for name in Report.__dataclass_fields__ if name != "queries"
    }
    figures["sections"] = [
        {"title": section.title, "data": section.data} for section in report.sections
    ]
    return json.dumps(figures, indent=1, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else list(value)


def gallery_sizes(evaluation: Mapping[str, Any]) -> list[str]:
    """Numbers of candidates of an evaluation's queries: of each direction, or the range of pools.

    Args:
        evaluation: Result of `Evaluation.to_dict`.
    """
    if "pools" in evaluation:
        sizes = evaluation["pools"]["candidates"]
        return [f"{sizes['smallest']} to {sizes['largest']}"]
    return [str(size) for size in dict.fromkeys(evaluation.get("candidates", ()))]


def summary(evaluation: Mapping[str, Any]) -> str:
    """The result in one or two sentences, compared with chance and frozen features.

    Args:
        evaluation: Result of `Evaluation.to_dict`; only `both` with `recall` is required.
    """
    both = evaluation["both"]
    k = "10" if "10" in both["recall"] else next(reversed(both["recall"]))
    sizes = gallery_sizes(evaluation)
    among = f"top {k} of {' or '.join(sizes)}" if sizes else f"top {k}"
    recall = percent(both["recall"][k])
    text = f"For new people, the true partner is in the {among} in {recall} of cases"
    bounds = both["intervals"]["recall"][k] if "intervals" in both else None
    if bounds:
        text += f" ({confidence(evaluation)} % interval {100 * bounds[0]:.0f}–{percent(bounds[1])})"
    chance = evaluation["chance"]["recall"][k] if "chance" in evaluation else None
    references = [] if chance is None else [f"chance is {percent(chance)}"]
    if "frozen" in evaluation:
        frozen = evaluation["frozen"]["both"]["recall"][k]
        references.append(f"frozen features reach {percent(frozen)}")
    text = "; ".join([text, ", ".join(references)] if references else [text]) + "."
    if not bounds or chance is None:
        return text
    if bounds[0] - _ROUNDING <= chance <= bounds[1] + _ROUNDING:
        return f"{text} The interval includes chance, so this may be luck."
    return (
        f"{text} This is significantly {'better' if bounds[0] > chance else 'worse'} than chance."
    )


def _results(evaluation: Mapping[str, Any]) -> Table:
    """The table of test pairs."""
    frozen = evaluation.get("frozen")
    results = [
        ("chance", "chance", evaluation.get("chance")),
        ("frozen", "frozen", frozen and frozen["both"]),
        ("trained" if frozen else "embeddings", "ours", evaluation["both"]),
        ("a → b", "", evaluation.get("a_to_b")),
        ("b → a", "", evaluation.get("b_to_a")),
    ]
    ks = list(evaluation["both"]["recall"])
    # Bold goes to the best of all rankings of all queries
    best = max((metrics.get("mrr", 0) for _, kind, metrics in results if metrics and kind))
    rows = [
        Row(name, _cells(metrics, ks), kind, is_best=bool(kind) and metrics.get("mrr", 0) == best)
        for name, kind, metrics in results
        if metrics
    ]
    columns = [*(f"R@{k}" for k in ks), "MRR", "median rank"]
    return Table("learner", columns, rows, "Recall, MRR and median rank on the test pairs")


def _cells(metrics: Mapping[str, Any], ks: list[str]) -> list[tuple[str, str]]:
    """Recall at each K in percent, MRR and median rank, with their intervals."""
    bounds = metrics.get("intervals")
    cells = []
    for k in ks:
        interval = "–".join(f"{100 * value:.1f}" for value in bounds["recall"][k]) if bounds else ""
        cells.append((f"{100 * metrics['recall'][k]:.1f}", interval))
    for key, digits in (("mrr", 3), ("median_rank", 1)):
        value = metrics.get(key)
        interval = "–".join(f"{bound:.{digits}f}" for bound in bounds[key]) if bounds else ""
        cells.append(("" if value is None else f"{value:.{digits}f}", interval))
    return cells

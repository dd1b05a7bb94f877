"""Tables 1, 2 and 3 of the paper, computed on your pairs, next to the published figures.

Source: Kim, Choi, Park, Park, "Multimodal Contrastive Learning for Real-World Ideal Type
Recommendation".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from pairmatch.core import registry
from pairmatch.core.config import list_of_parts, parse_spec
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import Backbone
from pairmatch.core.types import Item
from pairmatch.data import Pairs
from pairmatch.evaluation.crossvalidation import CrossValidation
from pairmatch.evaluation.intervals import Metrics
from pairmatch.evaluation.query_table import DEFAULT_KS
from pairmatch.experiments.sweep import Combination, sweep
from pairmatch.features.inputs import fit_backbone

PRINTED_MRR = 0.216  # for the trained head
_PRINTED_RANDOM_MRR = 0.065
_RANDOM = "Random"
_FROZEN = "Qwen3-VL, frozen, mean pooling"
_TRAINED = "Trained head (dim 512, tau 0.2)"
#: Published Recall@5, 10, 20, 30, 50 in percent, by table and row.
PRINTED = {
    "Table 1": {
        _RANDOM: (6.7, 13.3, 26.7, 40.0, 66.7),
        _FROZEN: (11.3, 18.7, 30.0, 43.3, 72.7),
        _TRAINED: (29.3, 37.3, 50.0, 60.7, 82.0),
    },
    "Table 2: frozen, by pooling": {
        "EOS token": (8.0, 14.0, 29.3, 46.0, 69.3),
        "Mean": (11.3, 18.7, 30.0, 43.3, 72.7),
    },
    "Table 3: trained, each row adds to the one above": {
        "base: dim 256, tau 0.1": (25.3, 36.7, 43.3, 54.7, 74.7),
        "dim 512": (29.3, 36.7, 49.3, 57.3, 78.0),
        "tau 0.2": (29.3, 37.3, 50.0, 60.7, 82.0),
    },
}
_ROWS = {
    _RANDOM: "chance",
    _FROZEN: "frozen",
    _TRAINED: "dim 512, tau 0.2",
    "EOS token": "frozen, eos",
    "Mean": "frozen",
    "base: dim 256, tau 0.1": "dim 256, tau 0.1",
    "dim 512": "dim 512, tau 0.1",
    "tau 0.2": "dim 512, tau 0.2",
}


@dataclass(frozen=True, slots=True, eq=False)
class PaperTables:
    """The three tables; `print` shows them in the paper's layout, with the published figures.

    Attributes:
        result: Metrics of every row on every query.
        backbone: Name of the backbone.
        without_table_2: Why Table 2 does not apply to this backbone; empty if it does.
        note: Text to show above the tables.
    """

    result: CrossValidation
    backbone: str
    without_table_2: str
    note: str = ""

    def rows(self) -> list[tuple[str, str, Metrics, tuple[float, ...]]]:
        """Table, row, metrics, and the published Recall@5, 10, 20, 30, 50 in percent."""
        return [
            (table, name, self.result.metrics(_ROWS[name]), printed)
            for table, rows in PRINTED.items()
            if not (self.without_table_2 and table.startswith("Table 2"))
            for name, printed in rows.items()
        ]

    def __str__(self) -> str:
        sizes = self.result.chance["candidates"]
        lines = [self.note] if self.note else []
        lines.append(
            f"Backbone {self.backbone}; {self.result.splits} splits of 70 / 15 / 15 by person, "
            f"{sizes.min()} to {sizes.max()} candidates (paper: one split of 495 couples, 75 "
            "candidates, Qwen3-VL-2B). Recall in percent, intervals of 95 % over people."
        )
        header = ["", "", *(f"R@{k}" for k in DEFAULT_KS), "MRR"]
        previous = ""
        for table, name, metrics, printed in self.rows():
            if table != previous:
                lines += ["", table, _format_row(header)]
                previous = table
            label = f"{self.backbone}, frozen" if name == _FROZEN else name
            lines += _row_lines(name, label, metrics, printed)
        if self.without_table_2:
            lines += ["", f"Table 2: does not apply. {self.without_table_2}"]
        return "\n".join([*lines, *(f"Note: {note}" for note in self.result.notes)])


def _row_lines(name: str, label: str, metrics: Metrics, printed: Sequence[float]) -> list[str]:
    """The figures of a row, their intervals, and the published figures."""
    recall = []
    bounds = []
    for k in DEFAULT_KS:
        if k not in metrics.recall:
            recall.append("–")
            bounds.append("")
            continue
        recall.append(f"{100 * metrics.recall[k]:.1f}")
        interval = metrics.recall_interval.get(k)
        bounds.append(_format_interval(interval, 100, 1) if interval else "")
    lines = [_format_row([label, "here", *recall, f"{metrics.mrr:.3f}"])]
    if metrics.mrr_interval and name != _RANDOM:
        lines.append(_format_row(["", "", *bounds, _format_interval(metrics.mrr_interval, 1, 3)]))
    mrr = {_TRAINED: PRINTED_MRR, _RANDOM: _PRINTED_RANDOM_MRR}.get(name)
    figures = [*(f"{value:.1f}" for value in printed), "" if mrr is None else f"{mrr:.3f}"]
    return [*lines, _format_row(["", "paper", *figures])]


def _format_interval(interval: tuple[float, float], factor: int, digits: int) -> str:
    low, high = (f"{factor * bound:.{digits}f}" for bound in interval)
    return f"{low}–{high}"


def _format_row(cells: list[str]) -> str:
    return f"{cells[0]:<32}{cells[1]:<6}" + "".join(f"{cell:>13}" for cell in cells[2:])


def paper_tables(
    pairs: Pairs,
    base: Mapping[str, Any],
    *,
    repeats: int = 10,
    seed: int = 0,
    note: str = "",
    **options: Any,
) -> PaperTables:
    """Computes the paper's tables on these pairs; every photo goes through the backbone once.

    Args:
        pairs: All pairs.
        base: Arguments of `Matcher`; pooler, head width and temperature are set by the tables.
        repeats: Number of splits of the recipe's sizes; the paper uses one.
        seed: Seed for splits and fits.
        note: Text to show above the tables, for example that the weights are random.
        options: `join_identical`, `output`, `progress`, `store`, `device`, `allow_upload` and
            `max_usd`, as for `sweep`.

    Raises:
        ConfigurationError: More than one backbone is named.
    """
    specs = list_of_parts(base.get("backbone", "qwen3-vl-2b"))
    if len(specs) != 1:
        raise ConfigurationError(
            f"The paper's tables are computed for one backbone, got {len(specs)}."
        )
    backbone = registry.create("backbones", specs[0], device=options.get("device", "auto"))
    backbone = fit_backbone(pairs.people, backbone, None, ())
    reason = _why_no_token_poolers(backbone)
    result = sweep(
        pairs,
        _combinations(base, backbone.default_pooler if reason else "mean", with_eos=not reason),
        baselines=(),
        splits="holdout",
        repeats=repeats,
        seed=seed,
        **options,
    )
    return PaperTables(result, _name_and_options(specs[0])[0], reason, note)


def _combinations(base: Mapping[str, Any], pooler: str, *, with_eos: bool) -> list[Combination]:
    """The rows of the three tables."""
    head, head_options = _name_and_options(base.get("head") or "mlp")
    loss, loss_options = _name_and_options(base.get("loss") or "infonce")
    combinations = []
    for width, temperature in ((512, 0.2), (256, 0.1), (512, 0.1)):
        arguments = {
            **base,
            "pooler": pooler,
            "head": (head, {**head_options, "width": width}),
            "loss": (loss, {**loss_options, "temperature": temperature}),
        }
        combinations.append(Combination(f"dim {width}, tau {temperature}", arguments))
    frozen = {**base, "head": "identity"}
    combinations.append(Combination("frozen", {**frozen, "pooler": pooler}))
    if with_eos:
        combinations.append(Combination("frozen, eos", {**frozen, "pooler": "eos"}))
    return combinations


def _name_and_options(spec: Any) -> tuple[str, dict[str, Any]]:
    return parse_spec(spec) or (type(spec).__name__, {})


def _why_no_token_poolers(backbone: Backbone) -> str:
    """Why the poolers `eos` and `mean` cannot run on this backbone; empty if they can.

    Tests them on a blank photo.
    """
    blank = Image.new("RGB", (64, 64), (128, 128, 128))
    item = Item((blank,) if backbone.reads_images else (), "a" if backbone.reads_text else "")
    with torch.inference_mode():
        states = backbone.forward(backbone.prepare([item]))
    try:
        for pooler in ("eos", "mean"):
            registry.create("poolers", pooler).pool(states)
    except ConfigurationError as error:
        return str(error)
    return ""

"""Tables 1, 2 and 3 of the paper on anybody's pairs, beside the printed figures.

Source: Kim, Choi, Park, Park, "Multimodal Contrastive Learning for Real-World Ideal Type
Recommendation".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pairmatch.core import registry
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.interfaces import Backbone
from pairmatch.core.types import Item
from pairmatch.data import Pairs
from pairmatch.evaluation.crossvalidation import CrossValidation
from pairmatch.evaluation.evaluator import DEFAULT_KS
from pairmatch.evaluation.intervals import Metrics
from pairmatch.experiments.sweep import Combination, sweep
from pairmatch.matcher.matcher import several

PRINTED_MRR = 0.216  # of the trained head; random: 0.065
_RANDOM, _FROZEN, _TRAINED = (
    "Random",
    "Qwen3-VL, frozen, mean pooling",
    "Trained head (dim 512, tau 0.2)",
)
#: Recall@5, 10, 20, 30, 50 in percent, as printed.
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
_LINES = {
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
    """The three tables; `print` shows them in the paper's layout, beside the printed figures.

    Attributes:
        result: Every line's metrics on every query.
        backbone: Name of the backbone that was used.
        without_table_2: Why Table 2 does not apply to this backbone; empty where it does.
        note: What the user wants to be read above the tables.
    """

    result: CrossValidation
    backbone: str
    without_table_2: str
    note: str = ""

    def rows(self) -> list[tuple[str, str, Metrics, tuple[float, ...]]]:
        """Table, line, our metrics, and the printed Recall@5, 10, 20, 30, 50 in percent."""
        return [
            (table, name, self.result.metrics(_LINES[name]), printed)
            for table, lines in PRINTED.items()
            if not (self.without_table_2 and table.startswith("Table 2"))
            for name, printed in lines.items()
        ]

    def __str__(self) -> str:
        sizes = self.result.columns["candidates"]
        pairs = len(
            set(
                zip(
                    self.result.columns["repeat"].tolist(),
                    self.result.columns["fold"].tolist(),
                    strict=True,
                )
            )
        )
        text = [self.note] if self.note else []
        text.append(
            f"Backbone {self.backbone}; {pairs} splits of 70 / 15 / 15 by person, {sizes.min()} to {sizes.max()} "
            "candidates (paper: one split of 495 couples, 75 candidates, Qwen3-VL-2B). Recall in percent, intervals of "
            "95 % over people."
        )
        header = ["", "", *(f"R@{k}" for k in DEFAULT_KS), "MRR"]
        last = ""
        for table, name, ours, printed in self.rows():
            if table != last:
                text += ["", table, _line(header)]
                last = table
            shown = self.backbone if name == _FROZEN else ""
            label = f"{shown}, frozen" if shown else name
            recall = [
                f"{100 * ours.recall[k]:.1f}" if k in ours.recall else "–" for k in DEFAULT_KS
            ]
            text.append(_line([label, "here", *recall, f"{ours.mrr:.3f}"]))
            if ours.mrr_interval and _LINES[name] != "chance":
                bounds = [
                    "{:.1f}–{:.1f}".format(*(100 * v for v in ours.recall_interval[k]))
                    if k in ours.recall
                    else ""
                    for k in DEFAULT_KS
                ]
                text.append(_line(["", "", *bounds, "{:.3f}–{:.3f}".format(*ours.mrr_interval)]))
            mrr = {_TRAINED: PRINTED_MRR, _RANDOM: 0.065}.get(name)
            text.append(
                _line(
                    [
                        "",
                        "paper",
                        *(f"{v:.1f}" for v in printed),
                        "" if mrr is None else f"{mrr:.3f}",
                    ]
                )
            )
        if self.without_table_2:
            text += ["", f"Table 2: does not apply. {self.without_table_2}"]
        return "\n".join([*text, *(f"Note: {note}" for note in self.result.notes)])


def _line(cells: list[str]) -> str:
    return f"{cells[0]:<32}{cells[1]:<6}" + "".join(f"{cell:>13}" for cell in cells[2:])


def paper_tables(
    pairs: Pairs,
    base: Mapping[str, Any],
    *,
    repeats: int = 10,
    seed: int = 0,
    join_identical: bool = False,
    note: str = "",
    output: str | Path | None = None,
    progress: bool = False,
    **shared: Any,
) -> PaperTables:
    """Runs what the paper's tables show on these pairs; every photo goes through the backbone once.

    Args:
        pairs: All the pairs there are.
        base: Arguments of `Matcher`; the pooler, head width and temperature are set by the tables.
        repeats: Splits of the recipe's sizes, where the paper has one.
        seed: Of splits and fits.
        join_identical: As for `sweep`, like the arguments that follow.
        note: Shown above the tables, for example that the weights are random.
        output: Where finished lines are kept.
        progress: Shows progress bars.
        shared: `store`, `device`, `allow_upload`, `max_usd`.

    Raises:
        ConfigurationError: More than one backbone: the paper has one.
    """
    specs = several(base.get("backbone", "qwen3-vl-2b"))
    if len(specs) != 1:
        raise ConfigurationError(f"The paper's tables are about one backbone, got {len(specs)}.")
    backbone = registry.create("backbones", specs[0], device=shared.get("device", "auto"))
    reason = _without_tokens(backbone)
    pooler = backbone.default_pooler if reason else "mean"
    head, loss = (
        _with_name(base.get(part, name)) for part, name in (("head", "mlp"), ("loss", "infonce"))
    )

    def trained(width: int, temperature: float) -> Combination:
        return Combination(
            f"dim {width}, tau {temperature}",
            {
                **base,
                "pooler": pooler,
                "head": (head[0], {**head[1], "width": width}),
                "loss": (loss[0], {**loss[1], "temperature": temperature}),
            },
        )

    combinations = [
        trained(512, 0.2),
        trained(256, 0.1),
        trained(512, 0.1),
        Combination("frozen", {**base, "pooler": pooler, "head": "identity"}),
    ]
    if not reason:
        combinations.append(
            Combination("frozen, eos", {**base, "pooler": "eos", "head": "identity"})
        )
    result = sweep(
        pairs,
        combinations,
        baselines=(),
        splits="holdout",
        repeats=repeats,
        seed=seed,
        join_identical=join_identical,
        output=output,
        progress=progress,
        **shared,
    )
    return PaperTables(result, _with_name(specs[0])[0], reason, note)


def _with_name(spec: Any) -> tuple[str, dict[str, Any]]:
    return (spec, {}) if isinstance(spec, str) else (spec[0], dict(spec[1]))


def _without_tokens(backbone: Backbone) -> str:
    """Why poolings over tokens cannot be compared with this backbone, tried on a blank picture.

    Empty if they can.
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

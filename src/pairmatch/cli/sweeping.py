"""Comparisons of many settings on the same people: `sweep`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pairmatch.cli.application import app
from pairmatch.cli.options import (
    BackboneName,
    Device,
    Engine,
    MaxUSD,
    Options,
    PairsFile,
    Profiles,
    Prompt,
    PromptAttributes,
    Quiet,
    Seed,
    Sides,
    Yes,
    check_names,
    create_engine,
    parse_options,
    parse_value,
    parts_of,
    show_progress,
)
from pairmatch.cli.output import echo
from pairmatch.cli.paths import StorePath, folder_to_write
from pairmatch.cli.planning import Accelerator, GPUs, PlanOnly, USDPerHour, check_plan
from pairmatch.cli.recording import Recorder
from pairmatch.cli.reporting import COMPARED_PAIRS, write_print
from pairmatch.cli.tables import PoolRule, Tables, reads_tables
from pairmatch.core.errors import ConfigurationError

if TYPE_CHECKING:
    from pairmatch.data import Pairs
    from pairmatch.evaluation.crossvalidation import CrossValidation


@app.command(
    epilog="Example: pairmatch sweep pairs.csv --images photos --backbone clip "
    "--grid head.width=256,512 --output sweep"
)
@reads_tables
def sweep(
    pairs: PairsFile,
    inputs: Tables,
    pools: PoolRule = None,
    profiles: Profiles = None,
    sides: Sides = 2,
    backbone: BackboneName = None,
    pooler: Annotated[
        str | None,
        typer.Option(
            help="Pooler, or several to compare: mean,eos.", show_default="default of the backbone"
        ),
    ] = None,
    metadata: Annotated[
        str | None,
        typer.Option(
            help="Metadata generator, or several to compare: none,measured,gpt-5-nano.",
            show_default="gpt-5-nano with the backbone qwen3-vl-2b, else none",
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(help="Head, or several to compare: mlp,linear.", show_default="mlp"),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="Loss, or several to compare: infonce,sigmoid.", show_default="infonce"),
    ] = None,
    reranker: Annotated[
        str | None,
        typer.Option(
            help="Second stage, or several to compare: none,pairwise.", show_default="none"
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART.OPTION=V1,V2",
            help="Values to compare, such as head.width=256,512; repeatable.",
        ),
    ] = None,
    leave_out: Annotated[
        str | None,
        typer.Option(
            "--leave-out",
            metavar="each|FIELD,…",
            help="Compare the prompt with and without each of these metadata attributes; "
            "generates no new metadata.",
        ),
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Compute Tables 1, 2 and 3 of the paper on these pairs.")
    ] = False,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="Learner to compare with; repeatable, or none.",
            show_default="all baselines; best for up to 2,000 pairs",
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Number of times that folds or splits are drawn.")
    ] = 5,
    folds: Annotated[int, typer.Option(min=2, help="Number of folds per repeat.")] = 5,
    holdout: Annotated[
        bool, typer.Option("--holdout", help="Use splits of 70 / 15 / 15 instead of folds.")
    ] = False,
    k: Annotated[
        list[int] | None, typer.Option("-k", min=1, help="K of Recall@K; repeatable.")
    ] = None,
    join_identical: Annotated[
        bool,
        typer.Option("--join-identical", help="Keep people with identical features in one fold."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the tables and the report; an interrupted sweep resumes from it.",
            callback=folder_to_write("sweep"),
        ),
    ] = None,
    plan_only: PlanOnly = False,
    gpus: GPUs = 1,
    usd_per_hour: USDPerHour = None,
    accelerator: Accelerator = None,
    note: Annotated[str, typer.Option(help="Text to show above the tables.")] = "",
    prompt: Prompt = None,
    prompt_attribute: PromptAttributes = None,
    settings: Options = None,
    seed: Seed = 0,
    device: Device = "auto",
    engine: Engine = "local",
    store: StorePath = None,
    yes: Yes = False,
    max_usd: MaxUSD = None,
    quiet: Quiet = False,
) -> None:
    """Compares parts and options by cross-validation, with intervals, baselines and tests.

    All combinations are tested on the same people; features are extracted once.
    By default, the published recipe is compared with the learner best and the baselines.
    """
    check_plan(plan_only, gpus, usd_per_hour, accelerator)
    named = {"pooler": pooler, "metadata": metadata, "head": head, "loss": loss}
    named["reranker"] = reranker
    base = _base(backbone, named, settings)
    base |= {"prompt": prompt, "prompt_attributes": tuple(prompt_attribute or ())}
    axes = _part_axes(named, settings) | _grid_axes(grid or ())
    if leave_out is not None:
        axes["without"] = _leave_out_axis(leave_out, base, axes)
    if paper and (axes or baseline or k or base.get("reranker")):
        raise ConfigurationError(
            "--paper has its own grid, baselines and K, and no second stage: omit --grid, "
            "--baseline, -k and --reranker."
        )
    data = inputs.pairs(pairs, profiles=profiles, sides=sides, pools=pools)
    common: dict[str, Any] = {
        "store": store,
        "device": device,
        "engine": create_engine(engine),
        "allow_upload": yes,
        "max_usd": max_usd,
        "seed": seed,
        "progress": show_progress(quiet),
        "repeats": repeats,
    }
    sections: Sequence[Any] = []
    if paper:
        from pairmatch.experiments.paper import paper_tables
        from pairmatch.report import paper_sections

        tables = paper_tables(
            data, base, note=note, output=output, join_identical=join_identical, **common
        )
        result, text, sections = tables.result, str(tables), paper_sections(tables)
    else:
        tested = _run_grid(
            data,
            base,
            axes,
            baseline,
            {**common, "splits": "holdout" if holdout else "cross-validation", "folds": folds},
            {"ks": k or None, "join_identical": join_identical, "output": output},
            price={"gpus": gpus, "usd_per_hour": usd_per_hour, "accelerator": accelerator},
            plan_only=plan_only,
        )
        if tested is None:
            return
        result, text = tested, _result_text(tested, note)
    recorder = Recorder(seed, inputs.read)
    saved = ""
    try:
        if output is not None:
            title = f"Sweep: {pairs.name}"
            inputs.list_skipped(output)
            run = recorder.sentence
            saved = _write(output, result, title=title, note=note, sections=sections, run=run)
            recorder.write(output)
    finally:  # a full disk loses the files, not the result
        echo(text, lines=True)
    if saved:
        echo(saved)


def _base(
    backbones: Sequence[str] | None,
    named: Mapping[str, str | None],
    settings: Sequence[str] | None,
) -> dict[str, Any]:
    """Arguments of `Matcher` that all combinations share."""
    compared = tuple(f"{part}." for part, names in named.items() if _is_compared(names))
    if "reranker." in compared:  # whose options may have its name, as in `fit`
        compared += tuple(f"{name}." for name in str(named["reranker"]).split(","))
    shared = {part: None if _is_compared(names) else names for part, names in named.items()}
    return parts_of(
        backbones=backbones,
        poolers=[shared["pooler"]] if shared["pooler"] else None,
        metadata=shared["metadata"],
        head=shared["head"],
        loss=shared["loss"],
        reranker=shared["reranker"],
        settings=[setting for setting in settings or () if not setting.startswith(compared)],
    )


def _part_axes(
    named: Mapping[str, str | None], settings: Sequence[str] | None
) -> dict[str, list[Any]]:
    """`{"head": "mlp,linear"}` as an axis of two heads, each with its `--set` options."""
    options = parse_options(settings or ())
    return {
        part: [
            None if name == "none" else (name, _own(options, part, name))
            for name in names.split(",")
        ]
        for part, names in named.items()
        if names and _is_compared(names)
    }


def _own(options: Mapping[str, dict[str, Any]], part: str, name: str) -> dict[str, Any]:
    """Options of a part by its kind; those of a re-ranker also by its name, as in `fit`."""
    return {**options.get(part, {}), **(options.get(name, {}) if part == "reranker" else {})}


def _is_compared(names: str | None) -> bool:
    return names is not None and "," in names


def _grid_axes(grid: Sequence[str]) -> dict[str, list[Any]]:
    """Parses `--grid`: `["head.width=256,512"]` becomes `{"head.width": [256, 512]}`.

    Values are parsed as JSON if possible, and are text otherwise.

    Raises:
        ConfigurationError: Names every axis that is not PART.OPTION=V1,V2.
    """
    axes: dict[str, list[Any]] = {}
    invalid = []
    for axis in grid:
        name, equals, values = axis.partition("=")
        if not equals or not values or not name.strip("."):
            invalid.append(repr(axis))
            continue
        part, dot, option = name.partition(".")
        axes[f"{part}{dot}{option.replace('-', '_')}"] = [
            parse_value(value) for value in values.split(",")
        ]
    if invalid:
        raise ConfigurationError(
            f"--grid needs PART.OPTION=V1,V2, such as head.width=256,512; got {', '.join(invalid)}."
        )
    return axes


def _leave_out_axis(
    names: str, base: Mapping[str, Any], axes: Mapping[str, Any]
) -> list[str | None]:
    """Metadata attributes to leave out one at a time, after None; `each` stands for all of them.

    Raises:
        ConfigurationError: There is not exactly one metadata generator, or an attribute is unknown.
    """
    from pairmatch.core import registry
    from pairmatch.matcher.building import default_generator

    metadata = base.get("metadata", "auto")
    if metadata == "auto":
        backbones = [registry.load("backbones", name) for name, _ in base["backbone"]]
        metadata = default_generator(backbones)
    if "metadata" in axes or metadata is None:
        raise ConfigurationError(
            "--leave-out compares attributes of one metadata generator: name one with --metadata."
        )
    attributes = list(registry.create("metadata", metadata).schema.model_fields)
    chosen = attributes if names == "each" else names.split(",")
    check_names(chosen, attributes, "attribute in --leave-out")
    return [None, *chosen]


def _run_grid(
    data: Pairs,
    base: dict[str, Any],
    axes: dict[str, list[Any]],
    baseline: Sequence[str] | None,
    shared: dict[str, Any],
    options: dict[str, Any],
    *,
    price: dict[str, Any],
    plan_only: bool,
) -> CrossValidation | None:
    """Prints the plan and tests all combinations; None if only planned.

    Args:
        data: All pairs.
        base: Arguments of `Matcher` that all combinations share.
        axes: Values to compare, by axis.
        baseline: Learners to compare with; None for the default ones.
        shared: Options of both `plan` and `sweep`.
        options: Further options of `sweep`.
        price: Further options of `plan`.
        plan_only: Whether to stop after the plan.
    """
    from pairmatch.experiments import sweep as sweeps

    baselines = tuple(baseline) if baseline else sweeps.COMPARED
    if not baseline and len(data) > COMPARED_PAIRS:
        baselines = tuple(name for name in baselines if name != "best")
        echo(
            f"The learner best is left out: it takes minutes per fit of {len(data)} pairs. "
            "Name the learners to compare with by --baseline to include it."
        )
    baselines = () if baselines == ("none",) else baselines
    combinations = sweeps.grid(base, axes)
    planned = sweeps.plan(data, combinations, baselines=baselines, **shared, **price)
    echo(str(planned), lines=True)
    if plan_only:
        return None
    return sweeps.sweep(data, combinations, baselines=baselines, **shared, **options)


def _result_text(result: CrossValidation, note: str) -> str:
    """The verdict, the table of a sweep, and the tests against `frozen` and the best baseline."""
    from pairmatch.evaluation.verdict import judge

    comparisons = [str(test) for name in result.references() for test in result.comparisons(name)]
    head = [str(judge(result)), *([note] if note else [])]
    return "\n".join([*head, str(result), *comparisons])


def _write(
    folder: Path,
    result: CrossValidation,
    *,
    title: str,
    note: str,
    sections: Sequence[Any],
    run: str,
) -> str:
    """Writes all tables, figures and the report; returns a sentence about them.

    Args:
        folder: Folder of the sweep.
        result: Its figures.
        title: Heading of the report.
        note: Text at the top of the report.
        sections: Sections of the report before the table of all results.
        run: What produced the figures.
    """
    from pairmatch.report import write_sweep_report

    queries = folder / "queries.csv"
    report = folder / "report.html"
    result.save(queries)
    write_sweep_report(report, result, title=title, note=note, sections=sections, run=run)
    tables = [folder / f"summary{suffix}" for suffix in (".csv", ".md", ".tex")]
    figures = [folder / f"learners{suffix}" for suffix in (".pdf", ".svg")]
    has_figures = write_print(result, tables, figures, run, needs_figures=False)
    shown = f", a figure ({figures[0].name}, .svg)" if has_figures else ""
    return (
        f"Saved in {folder}: {report.name}, a table for print (summary.csv, .md, .tex){shown} and "
        f"{queries.name}, the table of all queries."
    )

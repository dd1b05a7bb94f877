"""Many settings on the same people: `sweep`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pairmatch.cli.application import app
from pairmatch.cli.options import (
    BackboneName,
    Device,
    Images,
    MaxUSD,
    Options,
    PairsFile,
    Profiles,
    Prompt,
    PromptAttributes,
    Quiet,
    Seed,
    Sides,
    StorePath,
    Yes,
    folder_to_write,
    parse_options,
    parts_of,
    show_progress,
)
from pairmatch.core.errors import ConfigurationError, unknown_name


@app.command(
    epilog="Example: pairmatch sweep pairs.csv --backbone onnx --grid head.width=256,512 --output sweep"
)
def sweep(
    pairs: PairsFile,
    images: Images = None,
    profiles: Profiles = None,
    sides: Sides = 2,
    backbone: BackboneName = None,
    pooler: Annotated[
        str | None, typer.Option(help="One, or several to compare: mean,eos.")
    ] = None,
    metadata: Annotated[
        str | None,
        typer.Option(
            help="One, or several to compare: none,measured,gpt-5-nano.", show_default="gpt-5-nano"
        ),
    ] = None,
    head: Annotated[str, typer.Option(help="One, or several to compare: mlp,linear.")] = "mlp",
    loss: Annotated[
        str, typer.Option(help="One, or several to compare: infonce,sigmoid.")
    ] = "infonce",
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART.OPTION=V1,V2",
            help="Values to compare, e.g. head.width=256,512; repeatable.",
        ),
    ] = None,
    leave_out: Annotated[
        str | None,
        typer.Option(
            "--leave-out",
            metavar="each|FIELD,…",
            help="Compare the prompt with and without each of these metadata attributes, on the answers there are.",
        ),
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Tables 1, 2 and 3 of the paper on these pairs.")
    ] = False,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="Learners beside; repeatable, or none.",
            show_default="frozen, centred, whitened, …",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Times that the folds are drawn anew.")] = 5,
    folds: Annotated[int, typer.Option(min=2, help="Parts of each repeat.")] = 5,
    holdout: Annotated[
        bool, typer.Option("--holdout", help="Splits of 70 / 15 / 15 instead of folds.")
    ] = False,
    k: Annotated[
        list[int] | None, typer.Option("-k", min=1, help="K of Recall@K; repeatable.")
    ] = None,
    join_identical: Annotated[
        bool,
        typer.Option("--join-identical", help="People with identical features stay in one fold."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the tables, the report, and to go on from.",
            callback=folder_to_write,
        ),
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="List what would be done and how long it takes.")
    ] = False,
    note: Annotated[str, typer.Option(help="Words to put above the tables.")] = "",
    prompt: Prompt = None,
    prompt_attribute: PromptAttributes = None,
    settings: Options = None,
    seed: Seed = 0,
    device: Device = "auto",
    store: StorePath = None,
    yes: Yes = False,
    max_usd: MaxUSD = None,
    quiet: Quiet = False,
) -> None:
    """Compares parts and options on the same people, with intervals, baselines and tests, on one extraction.

    Without a grid, it cross-validates the recipe beside the baselines.
    """
    choices = {"pooler": pooler, "metadata": metadata, "head": head, "loss": loss}
    axes: dict[str, list[Any]] = {
        name: text.split(",") for name, text in choices.items() if text and "," in text
    }
    single = {name: None if name in axes else text for name, text in choices.items()}
    base = parts_of(
        backbone,
        [single["pooler"]] if single["pooler"] else None,
        single["metadata"],
        single["head"] or "mlp",
        single["loss"] or "infonce",
        settings,
    )
    base |= {"prompt": prompt, "prompt_attributes": tuple(prompt_attribute or ())}
    options = parse_options(settings or ())
    for name, values in axes.items():
        axes[name] = [
            None if value == "none" else (value, options.get(name, {})) for value in values
        ]
    axes |= _axes(grid or ())
    if leave_out is not None:
        if "metadata" in axes or base.get("metadata", "") is None:
            raise ConfigurationError(
                "--leave-out compares attributes of one metadata generator: name one."
            )
        axes["without"] = [None, *_fields(leave_out, base.get("metadata", "gpt-5-nano"))]

    from pairmatch.data import Pairs
    from pairmatch.evaluation.crossvalidation import BASELINES
    from pairmatch.experiments.paper import paper_tables
    from pairmatch.experiments.sweep import grid as combine
    from pairmatch.experiments.sweep import plan
    from pairmatch.experiments.sweep import sweep as run
    from pairmatch.report import paper_sections, write_sweep_report

    if paper and (axes or baseline or k):
        raise ConfigurationError(
            "--paper has a grid, baselines and K of its own: leave --grid, --baseline and -k out."
        )
    progress = show_progress(quiet)
    data = Pairs.read(pairs, images=images, profiles=profiles, sides=sides, progress=progress)  # type: ignore[arg-type]
    shared: dict[str, Any] = {
        "store": store,
        "device": device,
        "allow_upload": yes,
        "max_usd": max_usd,
    }
    common = {**shared, "seed": seed, "progress": progress, "repeats": repeats}
    lines = tuple(baseline) if baseline else BASELINES
    lines = () if lines == ("none",) else lines
    kind = "holdout" if holdout or paper else "cross-validation"
    if paper:
        tables = paper_tables(
            data, base, note=note, output=output, join_identical=join_identical, **common
        )
        typer.echo(str(tables))
        result, sections = tables.result, paper_sections(tables)
    else:
        sections = []
        combinations = combine(base, axes)
        typer.echo(
            str(plan(data, combinations, baselines=lines, splits=kind, folds=folds, **common))  # type: ignore[arg-type]
        )
        if plan_only:
            return
        result = run(
            data,
            combinations,
            baselines=lines,
            splits=kind,  # type: ignore[arg-type]
            folds=folds,
            ks=k or None,
            join_identical=join_identical,
            output=output,
            **common,
        )
        typer.echo(f"{note}\n{result}" if note else str(result))
        reference = "frozen" if "frozen" in result.learners else result.learners[0]
        for one in result.comparisons(reference):
            typer.echo(str(one))
    if output is not None:
        result.save(output / "queries.csv")
        write_sweep_report(
            output / "report.html",
            result,
            title=f"Sweep: {pairs.name}",
            note=note,
            sections=sections,
        )
        typer.echo(
            f"Saved the table of all queries in {output / 'queries.csv'}, the report in {output / 'report.html'}."
        )


def _fields(names: str, metadata: Any) -> list[str]:
    """Fields to leave out one at a time, `each` being all that the generator fills in."""
    from pairmatch.core import registry

    known = list(registry.create("metadata", metadata).schema.model_fields)
    found = known if names == "each" else names.split(",")
    unknown = [name for name in found if name not in known]
    if unknown:
        raise ConfigurationError(
            " ".join(unknown_name("attribute in --leave-out", name, known) for name in unknown)
        )
    return found


def _axes(grid: Sequence[str]) -> dict[str, list[Any]]:
    """`["head.width=256,512"]` as `{"head.width".

    [256, 512]}`; values are JSON where they can be.
    """
    axes: dict[str, list[Any]] = {}
    wrong = []
    for one in grid:
        name, equals, values = one.partition("=")
        if not equals or not values or not name.strip("."):
            wrong.append(repr(one))
            continue
        found = []
        for value in values.split(","):
            try:
                found.append(json.loads(value))
            except ValueError:
                found.append(value)
        part, dot, option = name.partition(".")
        axes[f"{part}{dot}{option.replace('-', '_')}"] = found
    if wrong:
        raise ConfigurationError(
            f"--grid needs PART.OPTION=V1,V2, such as head.width=256,512; got {', '.join(wrong)}."
        )
    return axes

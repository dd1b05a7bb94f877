"""The command line. Heavy libraries are imported inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pairmatch.errors import ConfigurationError, PairmatchError, unknown_name

if TYPE_CHECKING:
    from pairmatch.data import Pairs
    from pairmatch.evaluator import Evaluation
    from pairmatch.matcher import Matcher

_LEARNING_CURVE_PAIRS = 1000


class _Commands(TyperGroup):
    """Turns what the library raises on purpose into a message and exit code 2; bugs keep their traceback (code 1)."""

    def invoke(self, ctx: Any) -> Any:
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
        try:
            return super().invoke(ctx)
        except PairmatchError as error:
            typer.secho(f"Error: {error}", err=True, fg="red")
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Learn who goes with whom from matched pairs of people, then rank candidates for anyone.",
    epilog="Example: pairmatch demo --output demo",
)

PairsFile = Annotated[
    Path, typer.Argument(metavar="PAIRS", help="Pairs file: .csv, .parquet or .jsonl.", show_default=False)
]
MatcherFolder = Annotated[
    Path, typer.Argument(metavar="MATCHER", help="Folder of a saved matcher.", show_default=False)
]
Images = Annotated[Path | None, typer.Option(help="Folder that photo paths are relative to [the file's own].")]
Profiles = Annotated[Path | None, typer.Option(help="Profiles file, where the pairs file holds ids alone.")]
Sides = Annotated[int, typer.Option(min=1, max=2, help="1: anyone may match anyone; 2: a's match b's.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the matcher and the report.")]
BackboneName = Annotated[
    list[str] | None, typer.Option("--backbone", help="Frozen model; repeat it to join several. [qwen3-vl-2b]")
]
PoolerName = Annotated[list[str] | None, typer.Option("--pooler", help="One for all backbones, or one each.")]
MetadataName = Annotated[
    str | None, typer.Option("--metadata", help="Who writes attributes from photos, or none. [gpt-5-nano]")
]
HeadName = Annotated[str, typer.Option("--head", help="The trained map.")]
LossName = Annotated[str, typer.Option("--loss", help="The contrastive loss.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the split, the initial weights and the order of pairs.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, …")]
StorePath = Annotated[Path | None, typer.Option("--store", help="Where features and metadata are kept.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PART.OPTION=VALUE", help="Option of a part, e.g. backbone.path=encoder.onnx."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Allow photos to be sent to the metadata generator's host.")]
MaxUSD = Annotated[float | None, typer.Option(min=0, help="Stop paid metadata at this cost.")]
Photos = Annotated[bool, typer.Option("--photos/--no-photos", help="Put thumbnails into the report.")]
Prompt = Annotated[
    str | None, typer.Option(help="Template of the text that backbones read, with {text}, {attributes}, {metadata}.")
]
PromptAttributes = Annotated[
    list[str] | None, typer.Option("--prompt-attribute", help="Profile attribute that goes into the prompt.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
JSONFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures here.")]


def parse_options(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`["head.width=512"]` as `{"head": {"width": 512}}`; values are JSON where they can be, text otherwise.

    Raises:
        ConfigurationError: Settings that are not PART.OPTION=VALUE, all of them at once.
    """
    options: dict[str, dict[str, Any]] = {}
    wrong = []
    for setting in settings:
        target, equals, value = setting.partition("=")
        part, dot, option = target.partition(".")
        if not (equals and dot and part and option):
            wrong.append(repr(setting))
            continue
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        options.setdefault(part, {})[option.replace("-", "_")] = parsed
    if wrong:
        raise ConfigurationError(f"--set needs PART.OPTION=VALUE, such as head.width=512; got {', '.join(wrong)}.")
    return options


def _parts(
    backbones: Sequence[str] | None,
    poolers: Sequence[str] | None,
    metadata: str | None,
    head: str,
    loss: str,
    settings: Sequence[str] | None,
) -> dict[str, Any]:
    """Arguments of `Matcher` that name parts, each with its `--set` options."""
    options = parse_options(settings or ())
    names = list(backbones or ["qwen3-vl-2b"])
    known = {"backbone", "pooler", "metadata", "head", "loss", "training", *names}
    unknown = [part for part in options if part not in known]
    if unknown:
        raise ConfigurationError(" ".join(unknown_name("part in --set", part, known) for part in unknown))
    if len(names) > 1 and "backbone" in options:
        raise ConfigurationError(f"With several backbones, --set names the one it means: {names[0]}.OPTION=VALUE.")
    arguments: dict[str, Any] = {
        "backbone": [(name, {**options.get("backbone", {}), **options.get(name, {})}) for name in names],
        "head": (head, options.get("head", {})),
        "loss": (loss, options.get("loss", {})),
    }
    if poolers:
        arguments["pooler"] = [(name, options.get("pooler", {})) for name in poolers]
    if metadata == "none":
        arguments["metadata"] = None
    elif metadata is not None or "metadata" in options:
        arguments["metadata"] = (metadata or "gpt-5-nano", options.get("metadata", {}))
    return {**arguments, "training": options.get("training", {})}


def _show_progress(quiet: bool) -> bool:
    return not quiet and sys.stderr.isatty()


@app.command(epilog="Example: pairmatch demo --output demo")
def demo(
    output: Output = Path("pairmatch-demo"),
    pairs: Annotated[int, typer.Option(min=20, help="Pairs of people to draw.")] = 400,
    seed: Seed = 0,
    photos: Photos = True,
    quiet: Quiet = False,
) -> None:
    """The whole job offline: draws people with a planted taste, learns it, and ranks candidates."""
    from pairmatch.data import Pairs
    from pairmatch.demo import draw_people
    from pairmatch.matcher import Matcher

    typer.echo(f"Drawing {2 * pairs} people …")
    file = draw_people(output / "people", pairs=pairs, seed=seed)
    data = Pairs.read(file, progress=_show_progress(quiet))
    matcher = Matcher(
        backbone="descriptor",
        training=_training({}, seed),
        store=output / "store.sqlite",
        progress=_show_progress(quiet),
    )
    title = "Demo: people drawn by pairmatch"
    _fit_and_report(matcher, data, output, seed=seed, photos=photos, title=title, learning_curve=False)
    query = file.parent / "images" / f"{data.ids_a[0]}.jpg"
    typer.echo(
        "\nTry next:\n"
        f"  pairmatch recommend {output} --query {query} --gallery {file.parent / 'candidates.csv'} "
        '-k 5 --where "age >= 30"\n'
        "  pairmatch fit your-pairs.csv --backbone descriptor --output couples"
    )


@app.command(epilog="Example: pairmatch fit pairs.csv --images photos --backbone clip --output couples")
def fit(
    pairs: PairsFile,
    output: Output,
    images: Images = None,
    profiles: Profiles = None,
    sides: Sides = 2,
    backbone: BackboneName = None,
    pooler: PoolerName = None,
    metadata: MetadataName = None,
    head: HeadName = "mlp",
    loss: LossName = "infonce",
    prompt: Prompt = None,
    prompt_attribute: PromptAttributes = None,
    settings: Options = None,
    seed: Seed = 0,
    device: Device = "auto",
    store: StorePath = None,
    yes: Yes = False,
    max_usd: MaxUSD = None,
    photos: Photos = False,
    learning_curve: Annotated[
        bool | None,
        typer.Option(help="Put into the report what more pairs would give: nine more fits. [up to 1,000 pairs]"),
    ] = None,
    json_file: JSONFile = None,
    quiet: Quiet = False,
) -> None:
    """Splits by person, annotates, embeds, trains, evaluates on the test split, saves, and reports."""
    parts = _parts(backbone, pooler, metadata, head, loss, settings)
    training = _training(parts.pop("training"), seed)

    from pairmatch.data import Pairs
    from pairmatch.matcher import Matcher

    matcher = Matcher(
        **parts,
        training=training,
        prompt=prompt,
        prompt_attributes=prompt_attribute or (),
        store=store,
        device=device,
        allow_upload=yes,
        max_usd=max_usd,
        progress=_show_progress(quiet),
    )
    data = Pairs.read(pairs, images=images, profiles=profiles, sides=sides, progress=_show_progress(quiet))  # type: ignore[arg-type]
    evaluation = _fit_and_report(
        matcher, data, output, seed=seed, photos=photos, title=pairs.name, learning_curve=learning_curve
    )
    if json_file is not None:
        _write_json(json_file, evaluation)


@app.command(epilog="Example: pairmatch sweep pairs.csv --backbone onnx --grid head.width=256,512 --output sweep")
def sweep(
    pairs: PairsFile,
    images: Images = None,
    profiles: Profiles = None,
    sides: Sides = 2,
    backbone: BackboneName = None,
    pooler: Annotated[str | None, typer.Option(help="One, or several to compare: mean,eos.")] = None,
    metadata: Annotated[
        str | None, typer.Option(help="One, or several to compare: none,measured,gpt-5-nano. [gpt-5-nano]")
    ] = None,
    head: Annotated[str, typer.Option(help="One, or several to compare: mlp,linear.")] = "mlp",
    loss: Annotated[str, typer.Option(help="One, or several to compare: infonce,sigmoid.")] = "infonce",
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="PART.OPTION=V1,V2", help="Values to compare, e.g. head.width=256,512; repeatable."),
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Tables 1, 2 and 3 of the paper on these pairs.")] = False,
    baseline: Annotated[
        list[str] | None, typer.Option(help="Methods beside; repeatable, or none. [frozen, centred, whitened, …]")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Times that the folds are drawn anew.")] = 5,
    folds: Annotated[int, typer.Option(min=2, help="Parts of each repeat.")] = 5,
    holdout: Annotated[bool, typer.Option("--holdout", help="Splits of 70 / 15 / 15 instead of folds.")] = False,
    k: Annotated[list[int] | None, typer.Option("-k", min=1, help="K of Recall@K; repeatable.")] = None,
    join_identical: Annotated[
        bool, typer.Option("--join-identical", help="People with identical features stay in one fold.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the tables, the report, and to go on from.")
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="List what would be done and how long it takes.")] = False,
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
    axes: dict[str, list[Any]] = {name: text.split(",") for name, text in choices.items() if text and "," in text}
    single = {name: None if name in axes else text for name, text in choices.items()}
    base = _parts(
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
        axes[name] = [None if value == "none" else (value, options.get(name, {})) for value in values]
    axes |= _axes(grid or ())

    from pairmatch.crossvalidation import BASELINES
    from pairmatch.data import Pairs
    from pairmatch.paper import paper_tables
    from pairmatch.report import paper_sections, write_sweep_report
    from pairmatch.sweep import grid as combine
    from pairmatch.sweep import plan
    from pairmatch.sweep import sweep as run

    if paper and (axes or baseline or k):
        raise ConfigurationError("--paper has a grid, baselines and K of its own: leave --grid, --baseline and -k out.")
    progress = _show_progress(quiet)
    data = Pairs.read(pairs, images=images, profiles=profiles, sides=sides, progress=progress)  # type: ignore[arg-type]
    shared: dict[str, Any] = {"store": store, "device": device, "allow_upload": yes, "max_usd": max_usd}
    common = {**shared, "seed": seed, "progress": progress, "repeats": repeats}
    lines = tuple(baseline) if baseline else BASELINES
    lines = () if lines == ("none",) else lines
    kind = "holdout" if holdout or paper else "cross-validation"
    if paper:
        tables = paper_tables(data, base, note=note, output=output, join_identical=join_identical, **common)
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
        reference = "frozen" if "frozen" in result.methods else result.methods[0]
        for one in result.comparisons(reference):
            typer.echo(str(one))
    if output is not None:
        result.save(output / "queries.csv")
        write_sweep_report(output / "report.html", result, title=f"Sweep: {pairs.name}", note=note, sections=sections)
        typer.echo(
            f"Saved the table of all queries in {output / 'queries.csv'}, the report in {output / 'report.html'}."
        )


def _axes(grid: Sequence[str]) -> dict[str, list[Any]]:
    """`["head.width=256,512"]` as `{"head.width": [256, 512]}`; values are JSON where they can be."""
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
        raise ConfigurationError(f"--grid needs PART.OPTION=V1,V2, such as head.width=256,512; got {', '.join(wrong)}.")
    return axes


@app.command(epilog="Example: pairmatch annotate pairs.csv --images photos --dry-run")
def annotate(
    pairs: PairsFile,
    images: Images = None,
    profiles: Profiles = None,
    sides: Sides = 2,
    metadata: Annotated[str, typer.Option("--metadata", help="Who writes attributes from photos.")] = "gpt-5-nano",
    settings: Options = None,
    store: StorePath = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count calls and estimate the cost; ask nobody.")] = False,
    yes: Yes = False,
    max_usd: MaxUSD = None,
    retry_refused: Annotated[bool, typer.Option(help="Ask again where there was a refusal.")] = False,
    quiet: Quiet = False,
) -> None:
    """Writes metadata for everybody's photo into the store, each photo once ever."""
    options = parse_options(settings or ())
    unknown = [part for part in options if part != "metadata"]
    if unknown:
        raise ConfigurationError(" ".join(unknown_name("part in --set", part, ["metadata"]) for part in unknown))

    from pairmatch import registry
    from pairmatch.data import Pairs
    from pairmatch.metadata import annotate as write
    from pairmatch.metadata import estimate
    from pairmatch.store import Store

    generator = registry.create("metadata", (metadata, options.get("metadata", {})))
    data = Pairs.read(pairs, images=images, profiles=profiles, sides=sides, progress=_show_progress(quiet))  # type: ignore[arg-type]
    with Store(store) as opened:
        if dry_run:
            typer.echo(str(estimate(data.people, generator, opened, retry_refused=retry_refused)))
            return
        result = write(
            data.people,
            generator,
            opened,
            allow_upload=yes,
            max_usd=max_usd,
            retry_refused=retry_refused,
            progress=_show_progress(quiet),
        )
    typer.echo(str(result))
    for person, refusal in result.refused.items():
        typer.echo(f"  {person}: {refusal.kind}: {refusal.detail}")


@app.command(epilog="Example: pairmatch evaluate couples other-pairs.csv --json figures.json")
def evaluate(
    matcher: MatcherFolder,
    pairs: PairsFile,
    images: Images = None,
    profiles: Profiles = None,
    sides: Sides = 2,
    k: Annotated[list[int] | None, typer.Option("-k", min=1, help="K of Recall@K; repeatable.")] = None,
    settings: Options = None,
    device: Device = "auto",
    store: StorePath = None,
    yes: Yes = False,
    json_file: JSONFile = None,
    quiet: Quiet = False,
) -> None:
    """Measures a saved matcher on other pairs."""
    loaded = _load(matcher, settings, store=store, device=device, allow_upload=yes, quiet=quiet)

    from pairmatch.data import Pairs

    data = Pairs.read(pairs, images=images, profiles=profiles, sides=sides, progress=_show_progress(quiet))  # type: ignore[arg-type]
    evaluation = loaded.evaluate(data, ks=k or None)
    typer.echo(str(evaluation))
    if json_file is not None:
        _write_json(json_file, evaluation)


@app.command(epilog='Example: pairmatch recommend couples --query me.jpg --gallery photos -k 10 --where "age >= 25"')
def recommend(
    matcher: MatcherFolder,
    query: Annotated[list[Path], typer.Option(help="Photo of the person who asks; repeat it for several photos.")],
    gallery: Annotated[Path, typer.Option(help="Candidates: a folder of photos, or a profiles file.")],
    images: Images = None,
    text: Annotated[str, typer.Option(help="Profile text of the person who asks.")] = "",
    k: Annotated[int, typer.Option("-k", min=1, help="Most candidates to show.")] = 20,
    where: Annotated[list[str] | None, typer.Option(help='Rule for candidates, e.g. "age >= 25"; repeatable.')] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    settings: Options = None,
    device: Device = "auto",
    store: StorePath = None,
    yes: Yes = False,
    quiet: Quiet = False,
) -> None:
    """Ranks candidates for a person, new people included."""
    from pairmatch.rules import parse_rule

    rules = [parse_rule(text) for text in where or ()]
    loaded = _load(matcher, settings, store=store, device=device, allow_upload=yes, quiet=quiet)

    from pairmatch.data import read_profiles
    from pairmatch.types import Profile

    candidates = read_profiles(gallery, images=images, progress=_show_progress(quiet))
    eligible = [profile for profile in candidates if all(rule(profile) for rule in rules)]
    same = {path.resolve() for path in query}
    eligible = [
        p for p in eligible if not same.intersection(Path(i).resolve() for i in p.images if isinstance(i, Path))
    ]
    person = Profile(id="\0query", images=tuple(query), text=text)
    found = loaded.recommend(person, loaded.gallery(eligible), k) if eligible else []
    if as_json:
        rows = [{"rank": one.rank, "id": one.profile.id, "score": one.score} for one in found]
        typer.echo(json.dumps({"candidates": len(eligible), "recommendations": rows}, ensure_ascii=False))
        return
    typer.echo(f"{'rank':>4}  {'score':>6}  candidate")
    for one in found:
        photos = ", ".join(str(image) for image in one.profile.images if isinstance(image, Path))
        typer.echo(f"{one.rank:>4}  {one.score:>6.3f}  {one.profile.id}  {photos}")
    typer.echo(f"{len(eligible)} of {len(candidates)} candidates are eligible.")


@app.command(epilog="Example: pairmatch plugins")
def plugins() -> None:
    """Lists what is installed for each interface, and from which distribution."""
    from pairmatch import registry

    found = registry.plugins()
    rows = [("kind", "name", "distribution", "from")]
    rows += [(p.kind, p.name, f"{p.distribution} {p.version}", p.target) for p in found]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        typer.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))


@app.command(epilog="Example: pairmatch doctor")
def doctor(store: StorePath = None) -> None:
    """Says what will work on this machine, and how to mend what will not."""
    from pairmatch.doctor import examine, screen

    colours = {"✓": "green", "·": "yellow", "✗": "red"}
    for line in screen(examine(store)).splitlines():
        typer.secho(line, fg=colours.get(line[0]))


@app.command(epilog="Example: pairmatch forget anna-17 ben-4")
def forget(
    ids: Annotated[list[str], typer.Argument(metavar="IDS", help="Ids of the people to erase.")],
    store: StorePath = None,
) -> None:
    """Erases people from the store: features, metadata and every trace of their ids."""
    from pairmatch.store import Store

    with Store(store) as opened:
        gone = opened.forget(ids)
    typer.echo(
        f"Erased {gone.people} of {len(set(ids))} people from {opened.path}: {gone.features} features, "
        f"{gone.metadata} metadata outcomes."
    )


def _training(options: dict[str, Any], seed: int) -> Any:
    from pairmatch.config import TrainingConfig

    allowed = [name for name in TrainingConfig.__dataclass_fields__ if name != "seed"]
    unknown = [key for key in options if key not in allowed]
    if unknown:
        raise ConfigurationError(" ".join(unknown_name("option of training", key, allowed) for key in unknown))
    return TrainingConfig(**options, seed=seed)


def _load(
    folder: Path,
    settings: Sequence[str] | None,
    *,
    store: Path | None,
    device: str,
    allow_upload: bool,
    quiet: bool,
) -> Matcher:
    from pairmatch import saved
    from pairmatch.matcher import Matcher

    backbones = None
    options = parse_options(settings or ())
    if options:
        record, _, _ = saved.read(folder)
        entries = record["parts"]["backbones"]
        known = {"backbone", *(entry["name"] for entry in entries)}
        unknown = [part for part in options if part not in known]
        if unknown:
            raise ConfigurationError(
                " ".join(unknown_name("backbone of this matcher in --set", part, known) for part in unknown)
            )
        extra = [options.get(entry["name"], {}) | options.get("backbone", {}) for entry in entries]
        backbones = [(entry["name"], entry["options"] | more) for entry, more in zip(entries, extra, strict=True)]
    return Matcher.load(
        folder,
        backbone=backbones,
        store=store,
        device=device,
        allow_upload=allow_upload,
        progress=_show_progress(quiet),
    )


def _fit_and_report(
    matcher: Matcher,
    data: Pairs,
    output: Path,
    *,
    seed: int,
    photos: bool,
    title: str,
    learning_curve: bool | None = None,
) -> Evaluation:
    from pairmatch.data import leakage
    from pairmatch.report import diagnose, matcher_report, write_report

    train, validation, test = data.split(seed=seed)
    typer.echo(
        f"{len(data)} pairs of {len(data.people)} people: {len(train)} to train, {len(validation)} to validate, "
        f"{len(test)} to test."
    )
    leaks = leakage(train, validation, test, progress=matcher.progress)
    if leaks:
        typer.secho(str(leaks), err=True, fg="yellow")
    matcher.fit(train, validation)
    evaluation = matcher.evaluate(test)
    typer.echo(f"\nTest pairs, by people who were never trained on:\n{evaluation}\n")
    for note in matcher.notes:
        typer.secho(note, err=True, fg="yellow")
    matcher.save(output)
    if learning_curve is None:
        learning_curve = len(data) <= _LEARNING_CURVE_PAIRS
    sections = diagnose(matcher, train, validation, test, with_learning_curve=learning_curve) if matcher.head else []
    for text in sections[0].text[1:] if sections else ():
        typer.echo(text)
    report = matcher_report(
        matcher,
        train,
        validation,
        test,
        evaluation,
        title=title,
        photos=photos,
        sections=sections,
        notes=[leaks.summary()] if leaks else [],
    )
    write_report(output / "report.html", report)
    typer.echo(f"Saved the matcher in {output}, the report in {output / 'report.html'}.")
    return evaluation


def _write_json(path: Path, evaluation: Evaluation) -> None:
    from pairmatch.files import write_file

    write_file(path, (json.dumps(evaluation.to_dict(), indent=2) + "\n").encode())


def main() -> None:
    """Entry point of the command `pairmatch`."""
    app()

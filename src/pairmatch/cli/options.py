"""Options that mean the same in every command, and what they become."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pairmatch.core.errors import ConfigurationError, unknown_name

if TYPE_CHECKING:
    from pairmatch.evaluation.evaluator import Evaluation
    from pairmatch.matcher.matcher import Matcher


def folder_to_write(path: Path | None) -> Path | None:
    """Refuses a folder that cannot be made or written into, before anything is computed for it."""
    if path is not None:
        whole = path.absolute()
        there = next(one for one in (whole, *whole.parents) if one.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise typer.BadParameter(
                f"{there} is {'not writable' if there.is_dir() else 'not a folder'}."
            )
    return path


def file_to_write(path: Path | None) -> Path | None:
    """The same for a file, whose folder must be there."""
    if path is not None and not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"the folder {path.parent} does not exist.")
    if path is not None:
        folder_to_write(path.parent)
    return path


PairsFile = Annotated[
    Path,
    typer.Argument(
        metavar="PAIRS", help="Pairs file: .csv, .parquet or .jsonl.", show_default=False
    ),
]
MatcherFolder = Annotated[
    Path, typer.Argument(metavar="MATCHER", help="Folder of a saved matcher.", show_default=False)
]
# Defaults in words are `show_default`, not part of the help: rich takes square brackets in it for
# markup and drops them
Images = Annotated[
    Path | None,
    typer.Option(help="Folder that photo paths are relative to.", show_default="the file's own"),
]
Profiles = Annotated[
    Path | None, typer.Option(help="Profiles file, where the pairs file holds ids alone.")
]
Sides = Annotated[
    int, typer.Option(min=1, max=2, help="1: anyone may match anyone; 2: a's match b's.")
]
Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="Folder for the matcher and the report.", callback=folder_to_write
    ),
]
BackboneName = Annotated[
    list[str] | None,
    typer.Option(
        "--backbone", help="Frozen model; repeat it to join several.", show_default="qwen3-vl-2b"
    ),
]
PoolerName = Annotated[
    list[str] | None,
    typer.Option(
        "--pooler", help="One for all backbones, or one each.", show_default="the backbone's own"
    ),
]
MetadataName = Annotated[
    str | None,
    typer.Option(
        "--metadata", help="Who writes attributes from photos, or none.", show_default="gpt-5-nano"
    ),
]
HeadName = Annotated[str, typer.Option("--head", help="The trained map.")]
LossName = Annotated[str, typer.Option("--loss", help="The contrastive loss.")]
LearnerName = Annotated[
    str | None,
    typer.Option(
        "--learner",
        help="Learns the head without --head and --loss, e.g. robust.",
        show_default="none",
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        help="Settings that belong together: paper, the recipe; or robust, for few pairs."
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, help="Of the split, the initial weights and the order of pairs.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, …")]
StorePath = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="Where features and metadata are kept.",
        show_default="~/.cache/pairmatch/store.sqlite",
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PART.OPTION=VALUE",
        help="Option of a part, e.g. backbone.path=encoder.onnx.",
    ),
]
Yes = Annotated[
    bool, typer.Option("--yes", help="Allow photos to be sent to the metadata generator's host.")
]
MaxUSD = Annotated[float | None, typer.Option(min=0, help="Stop paid metadata at this cost.")]
Photos = Annotated[
    bool, typer.Option("--photos/--no-photos", help="Put thumbnails into the report.")
]
Prompt = Annotated[
    str | None,
    typer.Option(
        help="Template of the text that backbones read, with {text}, {attributes}, {metadata}."
    ),
]
PromptAttributes = Annotated[
    list[str] | None,
    typer.Option("--prompt-attribute", help="Profile attribute that goes into the prompt."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
JSONFile = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Also write the figures here.",
        dir_okay=False,
        callback=file_to_write,
    ),
]


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
        raise ConfigurationError(
            f"--set needs PART.OPTION=VALUE, such as head.width=512; got {', '.join(wrong)}."
        )
    return options


def parts_of(
    backbones: Sequence[str] | None,
    poolers: Sequence[str] | None,
    metadata: str | None,
    head: str,
    loss: str,
    settings: Sequence[str] | None,
    learner: str | None = None,
) -> dict[str, Any]:
    """Arguments of `Matcher` that name parts, each with its `--set` options."""
    options = parse_options(settings or ())
    names = list(backbones or ["qwen3-vl-2b"])
    known = {"backbone", "pooler", "metadata", "head", "loss", "training", *names} | (
        {"learner"} if learner else set()
    )
    unknown = [part for part in options if part not in known]
    if unknown:
        raise ConfigurationError(
            " ".join(unknown_name("part in --set", part, known) for part in unknown)
        )
    if len(names) > 1 and "backbone" in options:
        raise ConfigurationError(
            f"With several backbones, --set names the one it means: {names[0]}.OPTION=VALUE."
        )
    arguments: dict[str, Any] = {
        "backbone": [
            (name, {**options.get("backbone", {}), **options.get(name, {})}) for name in names
        ],
        "head": (head, options.get("head", {})),
        "loss": (loss, options.get("loss", {})),
    }
    if learner:
        unused: list[str] = [part for part in ("head", "loss", "training") if part in options]
        unused += ["--head"] * (head != "mlp") + ["--loss"] * (loss != "infonce")
        if unused:
            raise ConfigurationError(
                f"The learner {learner!r} has no use for options of {', '.join(unused)}: leave them out, or the learner."
            )
        arguments["learner"] = (learner, options.get("learner", {}))
    if poolers:
        arguments["pooler"] = [(name, options.get("pooler", {})) for name in poolers]
    if metadata == "none":
        arguments["metadata"] = None
    elif metadata is not None or "metadata" in options:
        arguments["metadata"] = (metadata or "gpt-5-nano", options.get("metadata", {}))
    return {**arguments, "training": options.get("training", {})}


def show_progress(quiet: bool) -> bool:
    return not quiet and sys.stderr.isatty()


def training_of(options: dict[str, Any], seed: int) -> Any:
    from pairmatch.core.config import TrainingConfig

    allowed = [name for name in TrainingConfig.__dataclass_fields__ if name != "seed"]
    unknown = [key for key in options if key not in allowed]
    if unknown:
        raise ConfigurationError(
            " ".join(unknown_name("option of training", key, allowed) for key in unknown)
        )
    return TrainingConfig(**options, seed=seed)


def load_matcher(
    folder: Path,
    settings: Sequence[str] | None,
    *,
    store: Path | None,
    device: str,
    allow_upload: bool,
    quiet: bool,
) -> Matcher:
    from pairmatch.matcher import saving
    from pairmatch.matcher.matcher import Matcher

    backbones = None
    options = parse_options(settings or ())
    if options:
        record, _, _ = saving.read(folder)
        entries = record["parts"]["backbones"]
        known = {"backbone", *(entry["name"] for entry in entries)}
        unknown = [part for part in options if part not in known]
        if unknown:
            raise ConfigurationError(
                " ".join(
                    unknown_name("backbone of this matcher in --set", part, known)
                    for part in unknown
                )
            )
        extra = [options.get(entry["name"], {}) | options.get("backbone", {}) for entry in entries]
        backbones = [
            (entry["name"], entry["options"] | more)
            for entry, more in zip(entries, extra, strict=True)
        ]
    return Matcher.load(
        folder,
        backbone=backbones,
        store=store,
        device=device,
        allow_upload=allow_upload,
        progress=show_progress(quiet),
    )


def write_json(path: Path, evaluation: Evaluation) -> None:
    from pairmatch.io.files import write_file

    write_file(path, (json.dumps(evaluation.to_dict(), indent=2) + "\n").encode())

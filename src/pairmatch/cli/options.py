"""Options that have the same meaning in every command, and what they are turned into."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pairmatch.core.errors import ConfigurationError, unknown_name

if TYPE_CHECKING:
    from pairmatch.core.config import PartSpec
    from pairmatch.distributed import RayEngine
    from pairmatch.matcher.matcher import Matcher

#: Parts that `--set` configures if the user names no other.
_DEFAULT_NAMES = {
    "backbone": "qwen3-vl-2b",
    "metadata": "gpt-5-nano",
    "head": "mlp",
    "loss": "infonce",
}


def _usable_device(device: str) -> str:
    """Rejects a device that cannot be used, before anything is read."""
    from pairmatch.core.devices import resolve_device

    resolve_device(device)
    return device


PairsFile = Annotated[
    Path,
    typer.Argument(
        metavar="PAIRS",
        help="Pairs file: .csv, .parquet or .jsonl; a folder of such files; or a URL of these.",
        show_default=False,
    ),
]
MatcherFolder = Annotated[
    Path, typer.Argument(metavar="MATCHER", help="Folder of a saved matcher.", show_default=False)
]
# Defaults that are not values are passed as `show_default`: in a help text, rich takes square
# brackets for markup and drops them.
Images = Annotated[
    Path | None,
    typer.Option(
        help="Folder that photo paths are relative to, or its URL: s3://bucket/photos. Web "
        "addresses of photos are not downloaded; several photos of a person, separated by ;, make "
        "one vector.",
        show_default="folder of the file",
    ),
]
Profiles = Annotated[
    Path | None, typer.Option(help="Profiles file, if the pairs file holds only ids.")
]
Sides = Annotated[
    int,
    typer.Option(min=1, max=2, help="2: people of side a match people of side b; 1: any two."),
]
BackboneName = Annotated[
    list[str] | None,
    typer.Option(
        "--backbone",
        help="Frozen model; repeat to concatenate the features of several.",
        show_default="qwen3-vl-2b",
    ),
]
PoolerName = Annotated[
    list[str] | None,
    typer.Option(
        "--pooler",
        help="Pooler of all backbones; repeat to name one per backbone, or several for one.",
        show_default="default of the backbone",
    ),
]
MetadataName = Annotated[
    str | None,
    typer.Option(
        "--metadata",
        help="Generator that writes attributes from photos, or none.",
        show_default="gpt-5-nano with the backbone qwen3-vl-2b, else none",
    ),
]
HeadName = Annotated[
    str | None,
    typer.Option("--head", help="Head that the contrastive learner trains.", show_default="mlp"),
]
LossName = Annotated[
    str | None,
    typer.Option(
        "--loss", help="Loss that the contrastive learner minimizes.", show_default="infonce"
    ),
]
LearnerName = Annotated[
    str | None,
    typer.Option(
        "--learner",
        help="How the head is learned; contrastive trains --head with --loss.",
        show_default="contrastive",
    ),
]
RerankerName = Annotated[
    str | None,
    typer.Option(
        "--reranker",
        help="Second stage that orders the best candidates again, such as pairwise; kept only if "
        "cross-validation supports it.",
        show_default="none",
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        help="Settings to start from: paper, the published recipe; best, several learners joined "
        "by cross-validation."
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0, max=2**32 - 1, help="Seed for splits, initial weights and the order of pairs."
    ),
]
Device = Annotated[
    str, typer.Option(help="Device for models: auto, cpu, cuda, …", callback=_usable_device)
]
Engine = Annotated[
    Literal["local", "ray"],
    typer.Option(
        help="Where the work runs: in this process; or on the nodes of the Ray cluster in "
        "RAY_ADDRESS, or of this machine."
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PART.OPTION=VALUE",
        help="Option of a part, such as backbone.path=encoder.onnx; repeatable.",
    ),
]
Yes = Annotated[
    bool, typer.Option("--yes", help="Allow photos to be sent to the metadata generator.")
]
MaxUSD = Annotated[
    float | None, typer.Option(min=0, help="Cost limit for metadata, in US dollars.")
]
Photos = Annotated[
    bool, typer.Option("--photos/--no-photos", help="Show photos of people in the report.")
]
Prompt = Annotated[
    str | None,
    typer.Option(
        help="Template of the text that backbones read, with {text}, {attributes}, {metadata}."
    ),
]
PromptAttributes = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt-attribute", help="Profile attribute to include in the prompt; repeatable."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Hide progress bars.")]


def parse_options(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parses `--set`: `["head.width=512"]` becomes `{"head": {"width": 512}}`.

    Values are parsed as JSON if possible, and are text otherwise.

    Raises:
        ConfigurationError: Names every setting that is not PART.OPTION=VALUE.
    """
    options: dict[str, dict[str, Any]] = {}
    invalid = []
    for setting in settings:
        target, equals, value = setting.partition("=")
        part, dot, option = target.partition(".")
        if not (equals and dot and part and option):
            invalid.append(repr(setting))
            continue
        options.setdefault(part, {})[option.replace("-", "_")] = parse_value(value)
    if invalid:
        raise ConfigurationError(
            f"--set needs PART.OPTION=VALUE, such as head.width=512; got {', '.join(invalid)}."
        )
    return options


def parse_value(text: str) -> Any:
    """A value of the command line: JSON if possible, text otherwise."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def check_names(names: Iterable[str], allowed: Collection[str], what: str) -> None:
    """Raises ConfigurationError that lists every name that is not allowed."""
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise ConfigurationError(" ".join(unknown_name(what, name, allowed) for name in unknown))


def parts_of(
    *,
    backbones: Sequence[str] | None = None,
    poolers: Sequence[str] | None = None,
    metadata: str | None = None,
    head: str | None = None,
    loss: str | None = None,
    learner: str | None = None,
    reranker: str | None = None,
    settings: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Arguments of `Matcher` for the parts that the user named, each with its `--set` options.

    Raises:
        ConfigurationError: `--set` is malformed, names an unknown part or training hyperparameter,
            or does not say which backbone, pooler or learner it means.
    """
    options = parse_options(settings or ())
    names = list(backbones or [_DEFAULT_NAMES["backbone"]])
    allowed = {"pooler", "learner", "reranker", "training", *_DEFAULT_NAMES, *names}
    allowed |= set() if reranker is None else {reranker}
    check_names(options, allowed, "part in --set")
    if len(names) > 1 and "backbone" in options:
        raise ConfigurationError(
            f"With several backbones, --set must name one of them: {names[0]}.OPTION=VALUE."
        )
    named_parts = {
        "pooler": bool(poolers),
        "learner": learner is not None,
        "reranker": reranker is not None,
    }
    for part, is_named in named_parts.items():
        if part in options and not is_named:
            option = next(iter(options[part]))
            advice = " In a sweep, compare learners with --grid learner=NAME,…"
            raise ConfigurationError(
                f"--set {part}.{option} needs --{part}.{advice if part == 'learner' else ''}"
            )
    arguments: dict[str, Any] = {
        "backbone": [
            (name, {**options.get("backbone", {}), **options.get(name, {})}) for name in names
        ]
    }
    if poolers:
        arguments["pooler"] = [_pooler_of(text, options.get("pooler", {})) for text in poolers]
    named = {"metadata": metadata, "head": head, "loss": loss, "learner": learner}
    for part, name in named.items():
        if name is not None or part in options:
            default = _DEFAULT_NAMES.get(part)
            arguments[part] = (default if name is None else name, options.get(part, {}))
    if reranker is not None:
        own = {**options.get("reranker", {}), **options.get(reranker, {})}
        arguments["reranker"] = (reranker, own) if reranker != "none" else None
    if "metadata" in arguments:
        arguments["metadata"] = metadata_spec(metadata, options.get("metadata", {}))
    if "training" in options:
        check_names(options["training"], _training_options(), "option of training")
        arguments["training"] = options["training"]
    return arguments


def metadata_spec(name: str | None, options: Mapping[str, Any]) -> PartSpec:
    """A metadata generator with the options of `--set`; None for `none`.

    Without a name, it is the default one, or its successor once that has been shut down.
    """
    from pairmatch.core.config import parse_spec
    from pairmatch.metadata.models import generator_in_service

    if name == "none":
        return None
    default = generator_in_service(_DEFAULT_NAMES["metadata"])
    known, own = parse_spec(default if name is None else name) or ("", {})
    return known, {**own, **options}


def _pooler_of(text: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """`mean layer=14`: a pooler with options of its own, which override those of `--set`."""
    name, *settings = text.split()
    own = parse_options([f"pooler.{setting}" for setting in settings])
    return name, {**options, **own.get("pooler", {})}


def _training_options() -> list[str]:
    """Names of the training hyperparameters; the seed has its own option, `--seed`."""
    from dataclasses import fields

    from pairmatch.core.config import TrainingConfig

    return [field.name for field in fields(TrainingConfig) if field.name != "seed"]


def show_progress(quiet: bool) -> bool:
    """Whether to show progress bars: only on a terminal."""
    return not quiet and sys.stderr.isatty()


def create_engine(name: str) -> RayEngine | None:
    """The engine of `--engine`; None for this process."""
    if name == "local":
        return None
    from pairmatch.distributed import RayEngine

    return RayEngine()


def load_matcher(
    folder: Path,
    settings: Sequence[str] | None,
    *,
    store: Path | None,
    device: str,
    allow_upload: bool,
    quiet: bool,
    engine: RayEngine | None = None,
) -> Matcher:
    """Loads a saved matcher; `--set` overrides options of its backbones and of its metadata."""
    from pairmatch.matcher.matcher import Matcher

    options = parse_options(settings or ())
    metadata = options.pop("metadata", None)
    return Matcher.load(
        folder,
        backbone=_override_backbones(folder, options) if options else None,
        metadata=metadata,
        store=store,
        device=device,
        allow_upload=allow_upload,
        progress=show_progress(quiet),
        engine=engine,
    )


def _override_backbones(
    folder: Path, options: dict[str, dict[str, Any]]
) -> list[tuple[str, dict[str, Any]]]:
    """Backbones of a saved matcher with the options of `--set`."""
    from pairmatch.matcher.folder import read_folder
    from pairmatch.matcher.records import part_options

    record, _, _ = read_folder(folder)
    backbones = record["parts"]["backbones"]
    names = {"backbone", *(entry["name"] for entry in backbones)}
    check_names(options, {*names, "metadata"}, "part of this matcher in --set")
    shared = options.get("backbone", {})
    return [
        (entry["name"], {**part_options(entry), **options.get(entry["name"], {}), **shared})
        for entry in backbones
    ]


def write_json(path: Path, figures: Mapping[str, Any]) -> None:
    """Writes figures as JSON, readable only by their owner."""
    from pairmatch.io.replacing import replace_file

    content = (json.dumps(figures, indent=2) + "\n").encode()
    replace_file(path, content, private=True)

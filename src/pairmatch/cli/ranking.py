"""Candidates for people: `recommend`, `slates`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pairmatch.cli.application import app
from pairmatch.cli.options import (
    Device,
    Engine,
    MatcherFolder,
    Options,
    Quiet,
    Yes,
    create_engine,
    load_matcher,
    parse_value,
    show_progress,
)
from pairmatch.cli.output import echo, echo_json
from pairmatch.cli.paths import StorePath, folder_to_write
from pairmatch.cli.reading import read_id, read_text, read_texts
from pairmatch.cli.tables import Columns, KeepWords, Tables, parse_columns, reads_tables
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.core.text import printable

if TYPE_CHECKING:
    from pairmatch.core.types import Profile
    from pairmatch.gallery import Gallery
    from pairmatch.gallery.results import Recommendations
    from pairmatch.market.engines import BalanceEngine

_log = logging.getLogger(__name__)

Where = Annotated[
    list[str] | None,
    typer.Option(
        help="Rule that candidates must satisfy, such as "
        "\"age between 25 and 35 and region in ('north')\"; repeatable."
    ),
]
Mutual = Annotated[
    bool,
    typer.Option("--mutual", help="The rule must also hold with the roles swapped."),
]
Exclude = Annotated[
    Path | None,
    typer.Option(
        help="File with columns id and other: candidates not to be shown to a person; or the "
        "exclusions of a service.",
        show_default=False,
    ),
]
Symmetric = Annotated[bool, typer.Option("--symmetric", help="Exclusions hold in both directions.")]


@app.command(
    epilog="Example: pairmatch recommend couples --query me.jpg --gallery candidates.csv -k 10 "
    '--where "age >= 25"'
)
@reads_tables
def recommend(
    matcher: MatcherFolder,
    gallery: Annotated[
        Path,
        typer.Option(
            help="Candidates: a gallery, a folder of photos, or a profiles file.",
            show_default=False,
        ),
    ],
    inputs: Tables,
    query: Annotated[
        list[Path] | None,
        typer.Option(help="Photo of the query person; repeat for several photos."),
    ] = None,
    text: Annotated[
        str, typer.Option(help="Profile text of the query person.", callback=read_text)
    ] = "",
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Attribute of the query person, for rules with query.NAME and for matchers that "
            "read attributes; repeatable.",
            callback=read_texts,
        ),
    ] = None,
    person_id: Annotated[
        str, typer.Option("--id", help="Id of the query person, for --exclude.", callback=read_id)
    ] = "",
    k: Annotated[int, typer.Option("-k", min=1, help="Maximum number of candidates.")] = 20,
    where: Where = None,
    mutual: Mutual = False,
    exclude: Exclude = None,
    symmetric: Symmetric = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    settings: Options = None,
    device: Device = "auto",
    store: StorePath = None,
    yes: Yes = False,
    quiet: Quiet = False,
) -> None:
    """Ranks candidates for a person, who need not be in any pairs file."""
    from pairmatch.rules import parse_rule

    parse_rule(where or ())  # reports errors before anything is loaded
    attributes = _parse_attributes(attribute or ())
    if not (query or text or attributes):
        raise ConfigurationError(
            "The query person needs a photo (--query), a text (--text) or attributes (--attribute)."
        )
    photos = tuple(query or ())

    from pairmatch.core.types import Profile
    from pairmatch.gallery import Exclusions, Gallery
    from pairmatch.io.store import QUERY_ID

    _check_symmetric(exclude, symmetric)
    if exclude is not None and not person_id:
        raise ConfigurationError(
            "--exclude needs --id: exclusions are for the person of that id, and without it they "
            "would hide no one."
        )
    problems = [problem for path in photos if (problem := _photo_problem(path))]
    if problems:
        raise DataError("The photo of the query person cannot be read:", problems)
    excluded = Exclusions() if exclude is None else inputs.exclusions(exclude, symmetric=symmetric)
    if exclude is not None and not excluded.of(person_id):
        _log.warning(
            "None of the %d exclusions in %s is for --id %s: no candidate is hidden.",
            len(excluded),
            printable(str(exclude)),
            printable(person_id),
        )
    loaded = load_matcher(
        matcher, settings, store=store, device=device, allow_upload=yes, quiet=quiet
    )
    if Gallery.exists(gallery):
        inputs.reject_options(f"{gallery} is a stored gallery")
        candidates: Gallery | list[Profile] = Gallery.open(gallery)
        total = len(candidates)
    else:
        people = inputs.profiles(gallery)
        candidates = _without_photos(people, photos)
        total = len(people)
    if not attributes and any(backbone.reads_attributes for backbone in loaded.backbones):
        _log.warning(
            "This matcher reads attributes, and the query person has none: name them with "
            "--attribute."
        )
    person = Profile(id=person_id or QUERY_ID, images=photos, text=text, attributes=attributes)
    ranking = loaded.recommend(
        person, candidates, k, where=where or None, mutual=mutual, exclude=excluded
    )
    if as_json:
        _print_json(ranking)
    else:
        _print_ranking(ranking, total)


def _check_symmetric(exclude: Path | None, symmetric: bool) -> None:
    if symmetric and exclude is None:
        raise ConfigurationError("--symmetric needs --exclude: without it, no candidate is hidden.")


def _photo_problem(path: Path) -> str | None:
    """Why the photo of the query person cannot be read; None if it can."""
    from pairmatch.io.images import check_image
    from pairmatch.io.remote import is_web_address, web_address

    if is_web_address(path) and not path.exists():
        return (
            f"{web_address(path)} is a web address, which is not downloaded: download the photo, "
            "and name its file."
        )
    return check_image(path)


def _without_photos(people: Sequence[Profile], photos: Sequence[Path]) -> list[Profile]:
    """People without a photo of the query person; a gallery keeps no photos to compare."""
    query_photos = {path.resolve() for path in photos}
    return [
        profile
        for profile in people
        if query_photos.isdisjoint(
            Path(image).resolve() for image in profile.images if isinstance(image, Path)
        )
    ]


def _print_json(ranking: Recommendations) -> None:
    rows = [
        {
            "rank": candidate.rank,
            "id": candidate.profile.id,
            "score": candidate.score,
            "probability": candidate.probability,
            "rerank_score": candidate.rerank_score,
        }
        for candidate in ranking
    ]
    result = {
        "candidates": ranking.eligible,
        "excluded_by": ranking.excluded_by,
        "recommendations": rows,
        "caveats": list(ranking.caveats),
    }
    echo_json(result)


def _print_ranking(ranking: Recommendations, total: int) -> None:
    reranked = any(candidate.rerank_score is not None for candidate in ranking)
    echo(f"{'rank':>4}  {'score':>6}  {'re-ranked  ' * reranked}candidate")
    for candidate in ranking:
        images = candidate.profile.images
        paths = [str(image) for image in images if isinstance(image, str | Path)]
        second = "" if candidate.rerank_score is None else f"{candidate.rerank_score:.3f}"
        second = f"{second:>9}  " if reranked else ""
        line = f"{candidate.rank:>4}  {candidate.score:>6.3f}  {second}{candidate.profile.id}"
        echo(f"{line}  {', '.join(paths)}".rstrip())
    echo(f"{ranking.eligible} of {total} candidates are eligible.")
    if ranking.excluded_by:
        echo(f"The last candidates were removed by: {ranking.excluded_by}")


@app.command(
    epilog="Example: pairmatch slates gallery-a gallery-b --output slates -k 20 --evenness 1"
)
def slates(
    gallery_a: Annotated[Path, typer.Argument(help="Gallery of side a.", show_default=False)],
    gallery_b: Annotated[
        Path | None,
        typer.Argument(
            help="Gallery of side b; if it is missing, any two people of the first may match.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the Parquet files.",
            callback=folder_to_write("slates"),
        ),
    ] = Path("slates"),
    k: Annotated[int, typer.Option("-k", min=1, help="Number of candidates per person.")] = 20,
    where: Where = None,
    mutual: Mutual = False,
    exclude: Exclude = None,
    symmetric: Symmetric = False,
    keep_words: KeepWords = None,
    columns: Columns = None,
    evenness: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="0 ranks by similarity; 1 balances, so that attention is spread evenly.",
        ),
    ] = 0.0,
    temperature: Annotated[
        float, typer.Option(help="Temperature of the balance; lower is closer to one-to-one.")
    ] = 0.05,
    device: Device = "cpu",
    engine: Engine = "local",
    quiet: Quiet = False,
) -> None:
    """Writes the best candidates of every person, in both directions.

    An interrupted run resumes when the command is repeated.
    """
    from pairmatch.gallery import Exclusions, Gallery, recommend_all

    _check_symmetric(exclude, symmetric)
    a = Gallery.open(gallery_a)
    b = None if gallery_b is None else Gallery.open(gallery_b)
    cluster = create_engine(engine)
    options: dict[str, Any] = {"where": where or None, "mutual": mutual, "engine": cluster}
    if exclude is not None:
        options["exclude"] = Exclusions.read(
            exclude,
            symmetric=symmetric,
            keep_words=keep_words or (),
            columns=parse_columns(columns),
        )
    if evenness:
        from pairmatch.market.engines import ThisProcess

        options |= _bonuses(a, b, evenness, temperature, cluster or ThisProcess(device))
    written = recommend_all(a, b, output, k, progress=show_progress(quiet), **options)
    _print_exposure("a", written.exposure("a", (a if b is None else b).ids))
    if b is not None:
        _print_exposure("b", written.exposure("b", a.ids))
    echo(f"Saved the slates in {output}.")


def _bonuses(
    a: Gallery,
    b: Gallery | None,
    evenness: float,
    temperature: float,
    engine: BalanceEngine,
) -> dict[str, Any]:
    """Bonuses that spread attention evenly, as options of `recommend_all`."""
    from pairmatch.market import balance

    partners = None if b is None else b.embeddings
    balanced = balance(a.embeddings, partners, temperature=temperature, engine=engine)
    echo(f"Balanced in {balanced.iterations} passes.")
    return {"bonus_a": evenness * balanced.bonus_a, "bonus_b": evenness * balanced.bonus_b}


def _print_exposure(side: str, exposure: Any) -> None:
    """Prints how evenly the candidates shown to one side are spread."""
    from pairmatch.evaluation.diagnostics import gini

    echo(
        f"Side {side}: {int(exposure.sum())} recommendations; {(exposure > 0).mean():.1%} of "
        f"candidates appear in a slate, exposure Gini {gini(exposure):.3f}"
    )


def _parse_attributes(given: Sequence[str]) -> dict[str, Any]:
    """Parses `--attribute`: `["age=30"]` becomes `{"age": 30}`.

    Numbers, true and false are parsed; anything else is text.
    """
    attributes: dict[str, Any] = {}
    for setting in given:
        name, equals, value = setting.partition("=")
        if not name or not equals:
            raise ConfigurationError(
                f"--attribute needs NAME=VALUE, such as age=30; got {setting!r}."
            )
        parsed = parse_value(value)
        attributes[name] = parsed if isinstance(parsed, bool | int | float | str) else value
    return attributes

"""Candidates for people: `recommend`, `slates`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from pairmatch.cli.application import app
from pairmatch.cli.options import (
    Device,
    Images,
    MatcherFolder,
    Options,
    Quiet,
    StorePath,
    Yes,
    folder_to_write,
    load_matcher,
    show_progress,
)
from pairmatch.core.errors import ConfigurationError

Where = Annotated[
    list[str] | None,
    typer.Option(
        help="Rule for candidates, e.g. \"age between 25 and 35 and region in ('north')\"; repeatable."
    ),
]
Mutual = Annotated[
    bool, typer.Option("--mutual", help="The rule must hold the other way round too.")
]
Exclude = Annotated[
    Path | None,
    typer.Option(
        help="File with the columns id and other: who is not shown to whom.", show_default=False
    ),
]
Symmetric = Annotated[
    bool, typer.Option("--symmetric", help="Exclusions hold for both of the two.")
]


@app.command(
    epilog='Example: pairmatch recommend couples --query me.jpg --gallery photos -k 10 --where "age >= 25"'
)
def recommend(
    matcher: MatcherFolder,
    query: Annotated[
        list[Path], typer.Option(help="Photo of the person who asks; repeat it for several photos.")
    ],
    gallery: Annotated[
        Path,
        typer.Option(
            help="Candidates: a gallery, a folder of photos, or a profiles file.",
            show_default=False,
        ),
    ],
    images: Images = None,
    text: Annotated[str, typer.Option(help="Profile text of the person who asks.")] = "",
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Of the person who asks, for rules with query.NAME; repeatable.",
        ),
    ] = None,
    person_id: Annotated[
        str, typer.Option("--id", help="Of the person who asks, for --exclude.")
    ] = "",
    k: Annotated[int, typer.Option("-k", min=1, help="Most candidates to show.")] = 20,
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
    """Ranks candidates for a person, new people included."""
    from pairmatch.rules import parse_rule

    parse_rule(where or ())  # a fault is told before anything is loaded
    attributes = _attributes(attribute or ())

    from pairmatch.gallery import Exclusions, Gallery
    from pairmatch.gallery.folder import JOURNAL

    excluded = Exclusions() if exclude is None else Exclusions.read(exclude, symmetric=symmetric)
    loaded = load_matcher(
        matcher, settings, store=store, device=device, allow_upload=yes, quiet=quiet
    )

    from pairmatch.core.types import Profile
    from pairmatch.data import read_profiles

    person = Profile(
        id=person_id or "\0query", images=tuple(query), text=text, attributes=attributes
    )
    candidates: Any
    if (gallery / JOURNAL).exists():
        candidates = Gallery.open(gallery)
        total = len(candidates)
    else:
        everybody = read_profiles(gallery, images=images, progress=show_progress(quiet))
        total = len(everybody)
        same = {path.resolve() for path in query}
        own = [
            {Path(image).resolve() for image in one.images if isinstance(image, Path)}
            for one in everybody
        ]
        candidates = [one for one, photos in zip(everybody, own, strict=True) if not same & photos]
    found = loaded.recommend(
        person, candidates, k, where=where or None, mutual=mutual, exclude=excluded
    )
    if as_json:
        rows = [{"rank": one.rank, "id": one.profile.id, "score": one.score} for one in found]
        result = {
            "candidates": found.eligible,
            "excluded_by": found.excluded_by,
            "recommendations": rows,
        }
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    typer.echo(f"{'rank':>4}  {'score':>6}  candidate")
    for one in found:
        shown = ", ".join(str(image) for image in one.profile.images if isinstance(image, Path))
        typer.echo(f"{one.rank:>4}  {one.score:>6.3f}  {one.profile.id}  {shown}".rstrip())
    typer.echo(f"{found.eligible} of {total} candidates are eligible.")
    if found.excluded_by:
        typer.echo(f"Nobody is left after: {found.excluded_by}")


@app.command(
    epilog="Example: pairmatch slates gallery-a gallery-b --output slates -k 20 --evenness 1"
)
def slates(
    gallery_a: Annotated[Path, typer.Argument(help="Gallery of side a.", show_default=False)],
    gallery_b: Annotated[
        Path | None,
        typer.Argument(
            help="Gallery of side b; without it anyone may match anyone.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Folder for the Parquet files.", callback=folder_to_write
        ),
    ] = Path("slates"),
    k: Annotated[int, typer.Option("-k", min=1, help="Candidates per person.")] = 20,
    where: Where = None,
    mutual: Mutual = False,
    exclude: Exclude = None,
    symmetric: Symmetric = False,
    evenness: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="0: most similar; 1: balanced, so that nobody is drowned or starved."
        ),
    ] = 0.0,
    temperature: Annotated[
        float, typer.Option(help="Of the balance: lower is closer to one-to-one.")
    ] = 0.05,
    quiet: Quiet = False,
) -> None:
    """Writes everybody's candidates, both ways; a run that was killed goes on where it stopped."""
    from pairmatch.evaluation.diagnostics import gini
    from pairmatch.gallery import Exclusions, Gallery, recommend_all
    from pairmatch.market import balance

    a = Gallery.open(gallery_a)
    b = None if gallery_b is None else Gallery.open(gallery_b)
    options: dict[str, Any] = {"where": where or None, "mutual": mutual}
    if exclude is not None:
        options["exclude"] = Exclusions.read(exclude, symmetric=symmetric)
    if evenness:
        balanced = balance(
            a.embeddings, None if b is None else b.embeddings, temperature=temperature
        )
        options |= {"bonus_a": evenness * balanced.bonus_a, "bonus_b": evenness * balanced.bonus_b}
        typer.echo(f"Balanced in {balanced.iterations} passes.")
    written = recommend_all(a, b, output, k, progress=show_progress(quiet), **options)
    for side, candidates in (("a", a if b is None else b), *(() if b is None else (("b", a),))):
        shown = written.exposure(cast(Literal["a", "b"], side), candidates.ids)
        typer.echo(
            f"Side {side}: {int(shown.sum())} places; {(shown > 0).mean():.1%} of candidates stand in a slate, "
            f"exposure Gini {gini(shown):.3f}"
        )
    typer.echo(f"Saved the slates in {output}.")


def _attributes(given: Sequence[str]) -> dict[str, Any]:
    """`["age=30"]` as `{"age": 30}`; numbers, true and false are read as such."""
    attributes: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise ConfigurationError(f"--attribute needs NAME=VALUE, such as age=30; got {one!r}.")
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        attributes[name] = parsed if isinstance(parsed, bool | int | float | str) else value
    return attributes

"""Candidates for people: `recommend`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

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
    load_matcher,
    show_progress,
)


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
    loaded = load_matcher(matcher, settings, store=store, device=device, allow_upload=yes, quiet=quiet)

    from pairmatch.data import read_profiles
    from pairmatch.types import Profile

    candidates = read_profiles(gallery, images=images, progress=show_progress(quiet))
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

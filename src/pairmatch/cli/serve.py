"""The HTTP service: `serve`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pairmatch.cli.application import app
from pairmatch.cli.options import Device, Yes
from pairmatch.cli.output import echo
from pairmatch.cli.paths import StorePath
from pairmatch.core.errors import ConfigurationError, missing_extra
from pairmatch.core.text import printable

if TYPE_CHECKING:
    from pairmatch.serving.settings import ExplorerSettings, ServiceSettings


@app.command(epilog="Example: pairmatch serve couples --gallery a=gallery-a --gallery b=gallery-b")
def serve(
    matcher: Annotated[
        Path | None,
        typer.Argument(metavar="MATCHER", help="Folder of a saved matcher.", show_default=False),
    ] = None,
    gallery: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SIDE=FOLDER",
            help="Gallery of a side, such as b=candidates; repeat for the other side.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; others than loopback need PAIRMATCH_TOKEN."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Number of processes that answer requests.")
    ] = 1,
    exclusions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File that /exclusions changes, created if it is missing.",
            show_default=False,
        ),
    ] = None,
    max_body_mb: Annotated[
        float, typer.Option(min=0.001, max=1000, help="Size of a request, in megabytes.")
    ] = 32,
    body_seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Time for a request to arrive.")
    ] = 30,
    max_photos: Annotated[
        int, typer.Option(min=1, max=1000, help="Number of photos of a request.")
    ] = 8,
    max_megapixels: Annotated[
        float, typer.Option(min=0.01, max=100, help="Size of a photo, in million pixels.")
    ] = 50,
    decode_seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Time to decode a photo.")
    ] = 10,
    explore: Annotated[
        bool, typer.Option(help="Offer pages for a browser at /explore, which change nothing.")
    ] = True,
    photos_from: Annotated[
        Path | None,
        typer.Option(
            "--photos",
            metavar="PATH",
            help="Show photos in the explorer: a folder of photos named by id, or a profiles file.",
            show_default=False,
        ),
    ] = None,
    test_pairs: Annotated[
        Path | None,
        typer.Option(
            "--pairs",
            metavar="FILE",
            help="Pairs file whose pairs the explorer shows from the best to the worst.",
            show_default=False,
        ),
    ] = None,
    second: Annotated[
        Path | None,
        typer.Option(
            "--compare",
            metavar="MATCHER",
            help="Second matcher, to compare with in the explorer.",
            show_default=False,
        ),
    ] = None,
    second_gallery: Annotated[
        list[str] | None,
        typer.Option(
            "--compare-gallery",
            metavar="SIDE=FOLDER",
            help="Gallery of the second matcher; repeat for the other side.",
            show_default=False,
        ),
    ] = None,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Serve drawn people instead, read-only: a tour of /explore."),
    ] = False,
    device: Device = "auto",
    store: StorePath = None,
    yes: Yes = False,
) -> None:
    """Serves a matcher and its galleries over HTTP, until it is stopped with Ctrl-C or SIGTERM.

    Clients send the token in the environment variable PAIRMATCH_TOKEN, if it is set.
    """
    try:
        from pairmatch.serving.server import serve as run
    except ImportError as error:
        raise missing_extra("`pairmatch serve`", str(error.name), "serve") from error
    from pairmatch.serving.settings import (
        ExplorerSettings,
        Limits,
        ServiceSettings,
        check_token,
    )

    token = os.environ.get("PAIRMATCH_TOKEN") or None
    check_token(token, host)
    given = (matcher, gallery, exclusions, store, photos_from, test_pairs, second, second_gallery)
    if demo:
        if any(given) or not explore:
            raise typer.BadParameter("--demo brings its own matcher, galleries, photos and pairs.")
        _serve_demo(run, token, host=host, port=port, workers=workers)
        return
    if matcher is None or not gallery:
        raise typer.BadParameter(_needed(matcher))
    if (second is None) != (not second_gallery):
        raise typer.BadParameter("--compare and --compare-gallery belong together.")
    if not explore and any(given[4:]):
        raise typer.BadParameter("--no-explore leaves nothing to show for other options of it.")
    explorer = ExplorerSettings(
        photos=photos_from,
        pairs=test_pairs,
        matcher=second,
        galleries=_folders(second_gallery or (), "--compare-gallery"),
    )
    settings = ServiceSettings(
        matcher=matcher,
        galleries=_folders(gallery, "--gallery"),
        options={"store": store, "device": device, "allow_upload": yes},
        store=store,
        exclusions=exclusions,
        token=token,
        limits=Limits(
            body_bytes=round(1e6 * max_body_mb),
            body_seconds=body_seconds,
            photos=max_photos,
            photo_pixels=round(1e6 * max_megapixels),
            decode_seconds=decode_seconds,
        ),
        explorer=explorer if explore else None,
    )
    _check(settings, explorer)
    run(settings, host=host, port=port, workers=workers)


def _needed(matcher: Path | None) -> str:
    """What a service needs, and the commands that make it."""
    name = "MATCHER" if matcher is None else printable(str(matcher))
    return (
        "A service needs a saved matcher and the people that it ranks, a gallery:\n"
        f"  pairmatch gallery build {name} people.csv --output gallery\n"
        f"  pairmatch serve {name} --gallery b=gallery\n"
        "--demo serves synthetic people instead."
    )


def _check(settings: ServiceSettings, explorer: ExplorerSettings) -> None:
    """Raises the errors of a service before anything listens."""
    from pairmatch.data.matches import read_matches
    from pairmatch.gallery import ExclusionFile
    from pairmatch.matcher.matcher import Matcher
    from pairmatch.serving.explorer.photos import photos_by_id
    from pairmatch.serving.service import open_galleries

    loaded = Matcher.load(settings.matcher, **settings.options)
    open_galleries(settings.galleries, loaded)
    if explorer.matcher is not None:
        open_galleries(explorer.galleries, Matcher.load(explorer.matcher, **settings.options))
    photos_by_id(explorer.photos)
    if explorer.pairs is not None:
        read_matches(explorer.pairs, sides=loaded.sides)
    if settings.exclusions is not None:
        ExclusionFile(settings.exclusions).close()


def _serve_demo(run: Any, token: str | None, **options: Any) -> None:
    """Draws people, fits two matchers, and serves them from a folder that is removed at the end."""
    from pairmatch.serving.demo import build_demo

    with tempfile.TemporaryDirectory(prefix="pairmatch-demo-") as folder:
        echo("Drawing people and fitting two matchers, which takes about a minute …")
        settings = build_demo(Path(folder), token)
        echo(f"Open http://{options['host']}:{options['port']}/explore in a browser.")
        run(settings, **options)


def _folders(given: Sequence[str], option: str) -> dict[str, Path]:
    """Parses `--gallery`: `["b=candidates"]` becomes `{"b": Path("candidates")}`."""
    folders: dict[str, Path] = {}
    for setting in given:
        side, equals, folder = setting.partition("=")
        if side not in ("a", "b") or not equals or not folder or side in folders:
            raise ConfigurationError(
                f"{option} needs SIDE=FOLDER, such as b=candidates, once per side; got {setting!r}."
            )
        folders[side] = Path(folder)
    return folders

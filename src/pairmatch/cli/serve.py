"""The HTTP service: `serve`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pairmatch.cli.application import app
from pairmatch.cli.options import Device, MatcherFolder, Yes
from pairmatch.cli.paths import StorePath
from pairmatch.core.errors import ConfigurationError, missing_extra


@app.command(epilog="Example: pairmatch serve couples --gallery a=gallery-a --gallery b=gallery-b")
def serve(
    matcher: MatcherFolder,
    gallery: Annotated[
        list[str],
        typer.Option(
            metavar="SIDE=FOLDER",
            help="Gallery of a side, such as b=candidates; repeat for the other side.",
            show_default=False,
        ),
    ],
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
    from pairmatch.gallery import ExclusionFile
    from pairmatch.matcher.matcher import Matcher
    from pairmatch.serving.service import open_galleries
    from pairmatch.serving.settings import Limits, ServiceSettings, check_token

    token = os.environ.get("PAIRMATCH_TOKEN") or None
    check_token(token, host)
    options: dict[str, Any] = {"store": store, "device": device, "allow_upload": yes}
    settings = ServiceSettings(
        matcher=matcher,
        galleries=_folders(gallery),
        options=options,
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
    )
    # Errors before anything listens
    open_galleries(settings, Matcher.load(matcher, **options))
    if exclusions is not None:
        ExclusionFile(exclusions).close()
    run(settings, host=host, port=port, workers=workers)


def _folders(given: Sequence[str]) -> dict[str, Path]:
    """Parses `--gallery`: `["b=candidates"]` becomes `{"b": Path("candidates")}`."""
    folders: dict[str, Path] = {}
    for setting in given:
        side, equals, folder = setting.partition("=")
        if side not in ("a", "b") or not equals or not folder or side in folders:
            raise ConfigurationError(
                "--gallery needs SIDE=FOLDER, such as b=candidates, once per side; got "
                f"{setting!r}."
            )
        folders[side] = Path(folder)
    return folders

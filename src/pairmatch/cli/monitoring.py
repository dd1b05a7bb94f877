"""Whether the newest people are still like those of training: `monitor`."""

from __future__ import annotations

from pairmatch.cli.application import app
from pairmatch.cli.fitting import KnownOption
from pairmatch.cli.options import (
    Device,
    MatcherFolder,
    Options,
    PairsFile,
    Profiles,
    Quiet,
    Sides,
    Yes,
    load_matcher,
    write_json,
)
from pairmatch.cli.output import echo
from pairmatch.cli.paths import JSONFile, StorePath, check_place
from pairmatch.cli.tables import Tables, reads_tables


@app.command(
    epilog="Example: pairmatch monitor couples new.csv --profiles profiles.csv --known log.csv"
)
@reads_tables
def monitor(
    matcher: MatcherFolder,
    pairs: PairsFile,
    inputs: Tables,
    known: KnownOption = None,
    profiles: Profiles = None,
    sides: Sides = 2,
    settings: Options = None,
    device: Device = "auto",
    store: StorePath = None,
    yes: Yes = False,
    json_file: JSONFile = None,
    quiet: Quiet = False,
) -> None:
    """Compares new pairs and their people with those of training, and says when to act.

    Features, attributes, scores and outcomes by the population stability index; matches by how well
    they are found.
    """
    check_place(json_file, "--json", store=store)

    from pairmatch.matcher.monitoring import monitor as compare

    loaded = load_matcher(
        matcher, settings, store=store, device=device, allow_upload=yes, quiet=quiet
    )
    data, *others = (
        inputs.pairs(path, profiles=profiles, sides=sides)
        for path in (pairs, *([] if known is None else [known]))
    )
    result = compare(loaded, data, known=others[0] if others else None)
    try:
        if json_file is not None:
            write_json(json_file, result.to_dict())
    finally:  # a full disk loses the file, not the figures
        echo(str(result), lines=True)

"""Whether the newest people are still like those of training: `monitor`."""

from __future__ import annotations

from pairmatch.cli.application import app
from pairmatch.cli.fitting import KnownOption
from pairmatch.cli.options import (
    Device,
    Images,
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
from pairmatch.cli.reading import (
    Columns,
    FollowLinks,
    KeepWords,
    MostSkipped,
    OnBadRowOption,
    TextColumns,
    read_pairs,
    table_options,
)


@app.command(
    epilog="Example: pairmatch monitor couples new.csv --profiles profiles.csv --known log.csv"
)
def monitor(
    matcher: MatcherFolder,
    pairs: PairsFile,
    known: KnownOption = None,
    images: Images = None,
    follow_links: FollowLinks = False,
    keep_words: KeepWords = None,
    columns: Columns = None,
    text_columns: TextColumns = None,
    on_bad_row: OnBadRowOption = "stop",
    most_skipped: MostSkipped = 0.05,
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
    options = table_options(
        images=images,
        follow_links=follow_links,
        keep_words=keep_words,
        columns=columns,
        text_columns=text_columns,
        on_bad_row=on_bad_row,
        most_skipped=most_skipped,
        quiet=quiet,
    )
    data, *others = (
        read_pairs(path, profiles=profiles, sides=sides, options=options)
        for path in (pairs, *([] if known is None else [known]))
    )
    result = compare(loaded, data, known=others[0] if others else None)
    try:
        if json_file is not None:
            write_json(json_file, result)
    finally:  # a full disk loses the file, not the figures
        echo(str(result), lines=True)

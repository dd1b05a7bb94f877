"""The nightly job of an app: fit on the log, compare with yesterday, promote or stay.

    python examples/nightly.py            # three nights of a simulated app
    python examples/nightly.py FOLDER     # one night: FOLDER holds log.csv and profiles.csv

FOLDER/current leads to the release that is served: a matcher and a gallery of each side. A night
that finds a better matcher, or an equal one that knows newer people, makes a new release and leads
`current` to it in one step; then restart the service. Otherwise everything stays as it is.
"""

import csv
import datetime
import sys
from pathlib import Path

from pairmatch import Matcher, Pairs
from pairmatch.experiments.simulated_people import LogSettings
from pairmatch.experiments.simulation import simulate_log
from pairmatch.matcher.monitoring import monitor

TEST_DAYS = 7
NIGHTS = (45, 52, 59)  # of the simulated app, as days of its log


def one_night(app: Path, now: datetime.datetime) -> bool:
    """Runs the job on the log of a folder; returns whether there is a new release."""
    log = Pairs.read(app / "log.csv", profiles=app / "profiles.csv", progress=False)
    train, validation, test = parts = log.split_by_time(now - datetime.timedelta(days=TEST_DAYS))
    print(
        f"{now:%Y-%m-%d}: {len(log)} matches, {len(parts.with_seen)} of them in the last "
        f"{TEST_DAYS} days, {len(test)} of new people"
    )
    matcher = Matcher(
        backbone="attributes", metadata="none", learner="likes", store=app / "store.sqlite"
    )
    matcher.fit(train, validation)
    evaluation = matcher.evaluate(parts.with_seen, known=parts.known)
    current = app / "current"
    if current.exists():
        # The release that is served has not seen the last days either: it was fitted before them
        served = Matcher.load(current / "matcher", store=app / "store.sqlite")
        print(f"  {monitor(served, parts.with_seen, known=parts.known).sentence}")
        before = served.evaluate(parts.with_seen, known=parts.known)
        comparison = evaluation.compare(before, name="tonight's matcher", baseline="that served")
        print(f"  {comparison}")
        if comparison.interval[1] < 0:
            print("  stays: tonight's matcher is worse")
            return False
    release = app / "releases" / f"{now:%Y-%m-%d}"
    matcher.save(release / "matcher")
    for side, ids in (("a", log.ids_a), ("b", log.ids_b)):
        people = [log.profiles[person] for person in dict.fromkeys(ids)]
        matcher.gallery(people, side=side).save(release / f"gallery-{side}")
    promote(release, current)
    print(f"  promoted: {release.name}")
    return True


def promote(release: Path, current: Path) -> None:
    """Leads `current` to a release, in one step."""
    link = current.with_name("next")
    link.unlink(missing_ok=True)
    link.symlink_to(release.relative_to(current.parent))
    link.replace(current)


def simulated_nights(app: Path) -> None:
    """Runs the job three times, on the log of a simulated app up to each night."""
    log = simulate_log(LogSettings(people_a=700, people_b=700, outcomes=14_000), seed=0)
    rows, _ = log.write(app)
    with rows.open(newline="") as file:
        header, *everything = csv.reader(file)
    times = [row[header.index("time")] for row in everything]
    for day in NIGHTS:
        now = log.at_day(day)
        written = [row for row, time in zip(everything, times, strict=True) if is_before(time, now)]
        with rows.open("w", newline="") as file:
            csv.writer(file).writerows([header, *written])
        one_night(app, now)


def is_before(time: str, now: datetime.datetime) -> bool:
    """Whether a time of the log, in UTC if it names no time zone, is before another one."""
    moment = datetime.datetime.fromisoformat(time)
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)) < now


def main() -> None:
    """Runs one night on a folder, or three on a simulated app."""
    if len(sys.argv) > 1:
        one_night(Path(sys.argv[1]), datetime.datetime.now(datetime.UTC))
    else:
        simulated_nights(Path("nightly"))


if __name__ == "__main__":
    main()

"""The whole pipeline in Python, on synthetic people: python examples/quickstart.py [FOLDER]

Draws pairs of people into FOLDER (default: quickstart), learns who goes with whom, evaluates on
people that training never saw, ranks candidates for one of them, and saves the matcher and a
report.
"""

import sys
from pathlib import Path

from pairmatch import Matcher, Pairs
from pairmatch.experiments.demo import draw_people
from pairmatch.report import matcher_report, write_report


def main(folder: Path) -> None:
    # With your own data: Pairs.read("pairs.csv", images="photos/")
    pairs = Pairs.read(draw_people(folder / "people", pairs=120))
    train, validation, test = pairs.split(0.70, 0.15, seed=0)

    matcher = Matcher(backbone="descriptor", metadata=None, store=folder / "store.sqlite")
    matcher.fit(train, validation)
    evaluation = matcher.evaluate(test)
    print(evaluation)

    person = pairs.profiles[test.ids_a[0]]
    gallery = matcher.gallery([pairs.profiles[b] for b in test.ids_b])
    print(f"\nFor {person.id}, whose partner is {test.ids_b[0]}:")
    for candidate in matcher.recommend(person, gallery, k=5):
        print(f"{candidate.rank}. {candidate.profile.id}  {candidate.score:.3f}")

    matcher.save(folder / "matcher")
    report = matcher_report(
        matcher, train, validation, test, evaluation, title="Quickstart", photos=True
    )
    write_report(folder / "report.html", report)
    print(f"\nSaved {folder / 'matcher'} and {folder / 'report.html'}.")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "quickstart"))

"""Tables 1, 2 and 3 of the paper on your pairs: python examples/paper_tables.py [PAIRS]

Prints your results next to the published figures. Without PAIRS it uses synthetic people and
classical descriptors, which only shows the layout. To use the paper's backbone, run
python examples/paper_tables.py pairs.csv --backbone qwen3-vl-2b. `pairmatch sweep PAIRS --paper` is
the same on the command line, with metadata and all options.
"""

import argparse
import tempfile
from pathlib import Path

from pairmatch import Pairs
from pairmatch.experiments.demo import draw_people
from pairmatch.experiments.paper import paper_tables

SYNTHETIC = "Synthetic people: these figures say nothing about the paper's couples."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="?", type=Path, help="pairs file; default: synthetic people")
    parser.add_argument("--backbone", default="descriptor", help="name of the backbone")
    parser.add_argument(
        "--repeats", type=int, default=2, help="number of 70 / 15 / 15 splits by person"
    )
    parser.add_argument("--store", type=Path, help="feature store; default: a temporary file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pairs = Pairs.read(options.pairs or draw_people(Path(folder) / "people", pairs=80))
        base = {"backbone": options.backbone, "metadata": None}
        note = "" if options.pairs else SYNTHETIC
        store = options.store or Path(folder) / "store.sqlite"
        print(paper_tables(pairs, base, repeats=options.repeats, note=note, store=store))


if __name__ == "__main__":
    main()

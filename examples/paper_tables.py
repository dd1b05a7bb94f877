"""Tables 1, 2 and 3 of the paper on your pairs, beside the printed figures: python examples/paper_tables.py [PAIRS]

Without PAIRS on drawn people, with classical descriptors: that shows the layout and nothing else.
With the paper's backbone: python examples/paper_tables.py pairs.csv --backbone qwen3-vl-2b.
`pairmatch sweep PAIRS --paper` is the same on the command line, with metadata and every option.
"""

import argparse
import tempfile
from pathlib import Path

from pairmatch import Pairs
from pairmatch.experiments.demo import draw_people
from pairmatch.experiments.paper import paper_tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "pairs", nargs="?", type=Path, help="pairs file; people are drawn without one"
    )
    parser.add_argument("--backbone", default="descriptor")
    parser.add_argument("--repeats", type=int, default=2, help="splits of 70 / 15 / 15 by person")
    parser.add_argument("--store", type=Path, help="where features are kept; nowhere by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pairs = Pairs.read(given.pairs or draw_people(Path(folder) / "people", pairs=80))
        base = {"backbone": given.backbone, "metadata": None}
        note = (
            ""
            if given.pairs
            else "Drawn people: the figures say nothing about the paper's couples."
        )
        store = given.store or Path(folder) / "store.sqlite"
        print(paper_tables(pairs, base, repeats=given.repeats, note=note, store=store))


if __name__ == "__main__":
    main()

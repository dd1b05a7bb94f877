"""From scores to a market, on people made here: python examples/market_slates.py

Some people are liked by nearly everybody. Slates by similarity alone show them to all; balanced
slates do not.
"""

import tempfile
from pathlib import Path

import numpy as np

from pairmatch import Exclusions, Gallery, Profile
from pairmatch.core.arrays import unit_rows
from pairmatch.gallery import recommend_all
from pairmatch.market import balance, outcome

PEOPLE, WIDTH, K = 600, 24, 10


def crowd(side: str, seed: int) -> tuple[list[Profile], np.ndarray]:
    """Profiles and embeddings of one side; a common taste makes some lie near to everybody."""
    rng = np.random.default_rng(seed)
    taste = np.random.default_rng(0).normal(size=WIDTH)
    vectors = rng.normal(size=(PEOPLE, WIDTH)) + rng.random((PEOPLE, 1)) * taste
    ages = rng.integers(20, 60, PEOPLE)
    people = [
        Profile(f"{side}{number}", attributes={"age": int(age)}) for number, age in enumerate(ages)
    ]
    return people, unit_rows(vectors).astype(np.float32)


def main() -> None:
    (people_a, a), (people_b, b) = crowd("a", 1), crowd("b", 2)
    gallery_a, gallery_b = Gallery.of(people_a, a, side="a"), Gallery.of(people_b, b, side="b")

    # Only eligible candidates, in both directions, and nobody who was blocked
    rule = "abs(age - query.age) <= 10"
    blocked = Exclusions([("a0", "b0")], symmetric=True)
    found = gallery_b.search(
        a[:1], 3, where=rule, asking=[people_a[0].attributes], mutual=True, excluded=[{"b0"}]
    )
    print(
        f"a0 is shown {', '.join(name for name, _ in found.of(0))} out of {found.eligible[0]} eligible"
    )
    nobody = gallery_b.search(a[:1], 3, where="age > 20 and age > 99")
    print(f"nobody is left after: {nobody.excluded_by[0]}")

    # Everybody's slate, before and after balancing
    balanced = balance(a, b)
    row = {
        "a": {name: i for i, name in enumerate(gallery_a.ids)},
        "b": {n: i for i, n in enumerate(gallery_b.ids)},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, evenness in (("most similar", 0.0), ("half way", 0.5), ("balanced", 1.0)):
            slates = recommend_all(
                gallery_a,
                gallery_b,
                Path(folder) / name,
                K,
                where=rule,
                exclude=blocked,
                bonus_a=evenness * balanced.bonus_a,
                bonus_b=evenness * balanced.bonus_b,
            )
            rows = {}
            for side, other in (("a", "b"), ("b", "a")):
                table = slates.table(side)
                rows[side] = np.full((PEOPLE, K), -1)
                asking = [row[side][one] for one in table["id"].to_pylist()]
                shown = [row[other][one] for one in table["candidate"].to_pylist()]
                rows[side][asking, table["rank"].to_numpy() - 1] = shown

            def likes(i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                chance = 1 / (1 + np.exp(-8 * (np.sum(a[i] * b[j], axis=1) - 0.3)))
                return chance, chance

            print(f"{name}: {outcome(rows['a'], rows['b'], likes)}")


if __name__ == "__main__":
    main()

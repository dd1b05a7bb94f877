"""From scores to a market, on synthetic people: python examples/market_slates.py

Some people are liked by almost everyone. Slates by similarity alone show them to everyone; balanced
slates do not.
"""

import tempfile
from pathlib import Path

import numpy as np

from pairmatch import Exclusions, Gallery, Profile
from pairmatch.core.arrays import unit_rows
from pairmatch.gallery import recommend_all
from pairmatch.market import balance, outcome

PEOPLE = 600  # per side
WIDTH = 24  # of the embeddings
K = 10  # candidates per slate


def draw_side(side: str, seed: int) -> tuple[list[Profile], np.ndarray]:
    """Profiles and embeddings of one side; a shared direction makes some people popular."""
    rng = np.random.default_rng(seed)
    popularity = np.random.default_rng(0).normal(size=WIDTH)
    vectors = rng.normal(size=(PEOPLE, WIDTH)) + rng.random((PEOPLE, 1)) * popularity
    ages = rng.integers(20, 60, PEOPLE)
    people = [
        Profile(f"{side}{number}", attributes={"age": int(age)}) for number, age in enumerate(ages)
    ]
    return people, unit_rows(vectors).astype(np.float32)


def slate_rows(table, rows: dict[str, int], candidate_rows: dict[str, int]) -> np.ndarray:
    """[PEOPLE, K] rows of the candidates on each person's slate, −1 for empty positions."""
    result = np.full((PEOPLE, K), -1)
    people = [rows[person] for person in table["id"].to_pylist()]
    shown = [candidate_rows[person] for person in table["candidate"].to_pylist()]
    result[people, table["rank"].to_numpy() - 1] = shown
    return result


def main() -> None:
    people_a, a = draw_side("a", seed=1)
    people_b, b = draw_side("b", seed=2)
    gallery_a = Gallery.of(people_a, a, side="a")
    gallery_b = Gallery.of(people_b, b, side="b")

    # Only candidates who are eligible in both directions and not blocked
    rule = "abs(age - query.age) <= 10"
    blocked = Exclusions([("a0", "b0")], symmetric=True)
    result = gallery_b.search(
        a[:1], 3, where=rule, asking=[people_a[0].attributes], mutual=True, excluded=[{"b0"}]
    )
    names = ", ".join(name for name, _ in result.candidates(0))
    print(f"a0 is shown {names} out of {result.eligible[0]} eligible candidates")
    empty = gallery_b.search(a[:1], 3, where="age > 20 and age > 99")
    print(f"the filter that removed the last candidate: {empty.excluded_by[0]}")

    # The slates of all people, before and after balancing
    balanced = balance(a, b)
    rows_a = {person: row for row, person in enumerate(gallery_a.ids)}
    rows_b = {person: row for row, person in enumerate(gallery_b.ids)}

    def likes(i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chance = 1 / (1 + np.exp(-8 * (np.sum(a[i] * b[j], axis=1) - 0.3)))
        return chance, chance

    with tempfile.TemporaryDirectory() as folder:
        for name, evenness in (("most similar", 0.0), ("halfway", 0.5), ("balanced", 1.0)):
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
            slates_a = slate_rows(slates.table("a"), rows_a, rows_b)
            slates_b = slate_rows(slates.table("b"), rows_b, rows_a)
            print(f"{name}: {outcome(slates_a, slates_b, likes)}")


if __name__ == "__main__":
    main()

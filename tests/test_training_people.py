"""The bit table that recognizes training people as a crowd, and hardly as persons."""

import numpy as np
import pytest

from pairmatch.matcher.training_people import TrainingPeople

PEOPLE = [f"person-{i}" for i in range(400)]
STRANGERS = [f"stranger-{i}" for i in range(10_000)]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_the_count_is_about_right(share):
    table = TrainingPeople.of(PEOPLE, "salt")
    known = round(share * 200)
    counted = table.count([*PEOPLE[:known], *STRANGERS[: 200 - known]])
    assert abs(counted - known) <= 4 * np.sqrt(200)  # four standard deviations
    assert (counted == 0) == (known == 0)
    assert (counted == 200) == (known == 200)


def test_half_of_all_strangers_look_like_training_people():
    table = TrainingPeople.of(PEOPLE, "salt")
    assert table.bits.mean() == pytest.approx(0.5, abs=0.05)
    hits = table.bits[table._places(STRANGERS)].mean()
    assert hits == pytest.approx(table.bits.mean(), abs=0.02)
    assert table.bits[table._places(PEOPLE)].all()


def test_false_counts_are_rare_and_few_people_are_never_counted():
    table = TrainingPeople.of(PEOPLE, "salt")
    groups = [STRANGERS[start : start + 20] for start in range(0, 10_000, 20)]
    assert sum(table.count(group) > 0 for group in groups) <= 3  # of 500, at 1 in 1,000
    assert table.count(PEOPLE[:9]) == 0
    assert table.count([]) == 0


def test_tables_of_different_matchers_differ():
    one, two = (TrainingPeople.of(PEOPLE, salt) for salt in ("one", "two"))
    assert one.to_json()["bits"] != two.to_json()["bits"]


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 400])
def test_tables_are_read_back(size):
    table = TrainingPeople.of(PEOPLE[:size], "salt")
    read = TrainingPeople.from_json(table.to_json())
    assert np.array_equal(read.bits, table.bits)
    assert read.salt == "salt"

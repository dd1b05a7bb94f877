"""Recognizes that many people of a set took part in training, and tells hardly anything of one.

A saved matcher must warn when it is evaluated on its own training people, yet may not list them.
It holds a bit table: each person sets the one bit that a salted digest of the id selects, and the
table is so small that half of its bits are set. Half of all other ids therefore look like training
people too: for one person, the answer is worth at most one bit, even if all ids can be guessed. For
a set of people, the share of set bits tells how many took part.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

_LEVEL = 1e-3  # probability of a false warning


@dataclass(frozen=True, slots=True, eq=False)
class TrainingPeople:
    """The bit table.

    Attributes:
        salt: Text before each id, so that tables of different matchers cannot be compared.
        bits: [M] bool.
    """

    salt: str
    bits: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, people: Collection[str], salt: str) -> TrainingPeople:
        """The table of some people.

        Args:
            people: Ids.
            salt: Text that is different for every matcher.
        """
        table = cls(salt, np.zeros(max(1, round(len(people) / math.log(2))), bool))
        table.bits[table._places(people)] = True
        return table

    def count(self, people: Collection[str]) -> int:
        """Estimated number of the people that took part in training.

        0 unless more of them are recognized than strangers would be by luck: the probability of a
        false count is below 1 in 1,000. Fewer than 10 people are never counted.
        """
        ids = set(people)
        chance = float(self.bits.mean())
        hits = int(self.bits[self._places(ids)].sum())
        if not ids or chance >= 1 or binom.sf(hits - 1, len(ids), chance) >= _LEVEL:
            return 0
        return max(1, round((hits - chance * len(ids)) / (1 - chance)))

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        packed = base64.b64encode(np.packbits(self.bits).tobytes()).decode()
        return {"salt": self.salt, "size": len(self.bits), "bits": packed}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TrainingPeople:
        """The table that `to_json` wrote.

        Raises:
            ValueError: The values do not fit together.
        """
        packed = np.frombuffer(base64.b64decode(value["bits"], validate=True), np.uint8)
        if len(packed) != -(-value["size"] // 8):
            raise ValueError("the number of bits is not the size of the table")
        bits = np.unpackbits(packed, count=value["size"]).astype(bool)
        return cls(value["salt"], bits)

    def _places(self, people: Collection[str]) -> list[int]:
        texts = (f"{self.salt}\n{person}".encode(errors="replace") for person in people)
        numbers = (int.from_bytes(hashlib.sha256(text).digest()[:8], "big") for text in texts)
        return [number % len(self.bits) for number in numbers]

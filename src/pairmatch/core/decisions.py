"""`Decisions`: what each side of a pair said about the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pairmatch.core.arrays import Ints
from pairmatch.core.errors import ConfigurationError

Answers = npt.NDArray[np.int8]
UNKNOWN, NO, YES = -1, 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """What is known of each pair: matches, rejections and open pairs. E pairs.

    Attributes:
        pairs: [E, 2] int64 rows of sides a and b, distinct.
        a: [E] int8 what a said to b: 1 yes, 0 no, −1 not known.
        b: [E] int8 the same for b.
    """

    pairs: Ints
    a: Answers
    b: Answers

    @classmethod
    def of(
        cls,
        pairs: Ints | Sequence[tuple[int, int]],
        a: Sequence[int] | npt.NDArray[np.integer],
        b: Sequence[int] | npt.NDArray[np.integer],
    ) -> Decisions:
        """Validates arrays.

        Args:
            pairs: [E, 2] rows of sides a and b.
            a: [E] what a said to b: 1 yes, 0 no, −1 not known.
            b: [E] the same for b.

        Raises:
            ConfigurationError: Lengths differ, a pair is given twice, or a value is not −1, 0 or 1.
        """
        rows = np.asarray(pairs, np.int64).reshape(-1, 2)
        answers = [np.asarray(side) for side in (a, b)]
        if any(side.shape != (len(rows),) for side in answers):
            raise ConfigurationError(
                "`Decisions.of(pairs, a, b)` needs one answer of each side per pair, got "
                f"{len(rows)} pairs, {len(answers[0])} of a and {len(answers[1])} of b."
            )
        if len(np.unique(rows, axis=0)) < len(rows):
            raise ConfigurationError("`Decisions.of(pairs, ...)`: a pair is given twice.")
        if not all(np.isin(side, (UNKNOWN, NO, YES)).all() for side in answers):
            raise ConfigurationError(
                "`Decisions.of(..., a, b)`: answers are 1 (yes), 0 (no) or -1 (not known)."
            )
        return cls(rows, answers[0].astype(np.int8), answers[1].astype(np.int8))

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    @property
    def directional(self) -> bool:
        """Whether a decision of one side is known, so that this says more than who matched."""
        both_yes = (self.a == YES) & (self.b == YES)
        return bool(np.any(((self.a != UNKNOWN) | (self.b != UNKNOWN)) & ~both_yes))

    def take(self, positions: Ints) -> Decisions:
        """The decisions at some positions."""
        return Decisions(self.pairs[positions], self.a[positions], self.b[positions])

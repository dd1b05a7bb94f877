"""`Part`: some pairs of a `PairedFeatures`, by their positions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pairmatch.core.arrays import Ints


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some pairs of a `PairedFeatures`.

    Attributes:
        matches: [p] int64 positions in `matches`, ascending.
        rejected: [r] int64 positions in `rejected`, ascending.
        open: [o] int64 positions in `open`, ascending.
    """

    matches: Ints
    rejected: Ints
    open: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        """Number of matches."""
        return len(self.matches)

"""What pools mean for figures: which K are usable, and what readers must know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pairmatch.core.paired_features import PairedFeatures
from pairmatch.evaluation.pooled_ranks import most_candidates
from pairmatch.evaluation.query_table import QueryTable


def usable_gallery(data: PairedFeatures) -> int:
    """The largest K that makes sense: the smallest gallery, or the largest inside pools."""
    return min(data.galleries) if data.pools is None else most_candidates(data)


def pool_notes(table: QueryTable) -> list[str]:
    """Notes on queries without a pool, and on pools that are no larger than K."""
    if "pool" not in table.columns:
        return []
    notes = []
    without = int(np.sum(table["pool"] == ""))
    if without:
        notes.append(
            f"{without} of {len(table)} queries have no pool: all people of the other side are "
            "their candidates."
        )
    shares = {k: float(np.mean(table["candidates"] <= k)) for k in table.ks}
    small = [f"{100 * share:.0f} % for K = {k}" for k, share in shares.items() if share]
    if small:
        notes.append(
            "Recall@K is 1 in pools of at most K candidates, whatever the ranking: of the queries, "
            f"these are {', '.join(small)}. Compare it with chance, which counts them too."
        )
    return notes


def pool_figures(table: QueryTable) -> dict[str, Any]:
    """Number of pools, and of candidates in them, for JSON; empty without pools."""
    if "pool" not in table.columns:
        return {}
    sizes = table["candidates"]
    return {
        "pools": {
            "count": len(np.setdiff1d(table["pool"], [""])),
            "candidates": {
                "smallest": int(sizes.min()),
                "mean": float(sizes.mean()),
                "largest": int(sizes.max()),
            },
        }
    }


def candidates_in_words(table: QueryTable, galleries: Sequence[int] = ()) -> str:
    """Numbers of candidates of the queries, such as `5 to 22 candidates of their pool`.

    Args:
        table: One row per query.
        galleries: Size of the smallest gallery of each direction, which is named instead of a range
            without pools.
    """
    low, high = int(table["candidates"].min()), int(table["candidates"].max())
    among = f"{low}" if low == high else f"{low} to {high}"
    if "pool" in table.columns:
        return f"{among} candidates of their pool"
    if galleries:
        among = " and ".join(str(size) for size in dict.fromkeys(galleries))
        among = f"at least {among}" if high > max(galleries) else among
    return f"{among} candidates"

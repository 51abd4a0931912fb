"""Who computes which rows, and in which portions. Pure index arithmetic: no tensors, no processes.

Every rank gets the same number of micro-batches, because ranks meet in collectives; where one has less to do its list is
filled with empty micro-batches, which still run a forward and a backward (of zero).
"""

from __future__ import annotations

from collections.abc import Sequence

Microbatch = tuple[int, ...]
"""Indices of the rows that share one forward; empty means: run, but contribute nothing."""


def plan(lengths: Sequence[int], ranks: int, budget: int) -> list[list[Microbatch]]:
    """Rows (by index into ``lengths``) for each rank, as micro-batches of at most ``budget`` padded tokens.

    >>> plan([5, 3, 3, 2], ranks=2, budget=6)
    [[(0,), (3,)], [(1, 2), ()]]
    """
    shares = [_microbatches(lengths, rows, budget) for rows in _balanced(lengths, ranks)]
    most = max(1, *(len(share) for share in shares))
    return [share + [()] * (most - len(share)) for share in shares]


def _balanced(lengths: Sequence[int], ranks: int) -> list[list[int]]:
    """Longest row first, each to the rank with the fewest tokens so far."""
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for row in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        rank = min(range(ranks), key=lambda r: (loads[r], r))
        shares[rank].append(row)
        loads[rank] += lengths[row]
    return shares


def _microbatches(lengths: Sequence[int], rows: Sequence[int], budget: int) -> list[Microbatch]:
    """``rows`` come longest first, so the first row of a portion sets its padded width."""
    portions: list[list[int]] = []
    for row in rows:
        if portions and (len(portions[-1]) + 1) * lengths[portions[-1][0]] <= budget:
            portions[-1].append(row)
        else:
            portions.append([row])
    return [tuple(portion) for portion in portions]

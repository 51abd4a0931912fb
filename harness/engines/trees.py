"""Sequences that begin alike, laid out as one tree of tokens, so that one pass of a model reads a shared beginning once.

A row of the pass holds every node of the tree; a node stands at the position that it has in its sequences, and sees its ancestors and
itself. Its log-probability is then that of the token in each sequence that runs through it. Pure: no model, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.types import Ids

_SHARED = 0.5  # sequences share a tree where each has at least so much of its length in common with the one before it


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTree:
    """N nodes, a parent always before its children. ``paths`` holds the nodes of each sequence from its first token to its last."""

    ids_N: NDArray[np.int64]
    parents_N: NDArray[np.int64]  # -1 for a first token
    positions_N: NDArray[np.int64]
    paths: tuple[tuple[int, ...], ...]

    def seen(self) -> NDArray[np.bool_]:
        """[N, N]: whether a node (row) sees another (column)."""
        seen_NN = np.eye(len(self.ids_N), dtype=np.bool_)
        for node, parent in enumerate(self.parents_N):
            if parent >= 0:
                seen_NN[node] |= seen_NN[parent]
        return seen_NN


def tree_of(sequences: Sequence[Ids]) -> TokenTree:
    """The tree of these sequences.

    >>> tree = tree_of([(5, 6, 7), (5, 6, 8)])
    >>> tree.ids_N.tolist(), tree.parents_N.tolist(), tree.paths
    ([5, 6, 7, 8], [-1, 0, 1, 1], ((0, 1, 2), (0, 1, 3)))
    """
    nodes: dict[tuple[int, int], int] = {}  # (parent, token) -> node
    ids: list[int] = []
    parents: list[int] = []
    positions: list[int] = []
    paths: list[tuple[int, ...]] = []
    for sequence in sequences:
        node = -1
        path: list[int] = []
        for position, token in enumerate(sequence):
            parent, node = node, nodes.setdefault((node, token), len(ids))
            if node == len(ids):
                ids.append(token)
                parents.append(parent)
                positions.append(position)
            path.append(node)
        paths.append(tuple(path))
    ids_N, parents_N, positions_N = (np.array(values, dtype=np.int64) for values in (ids, parents, positions))
    return TokenTree(ids_N=ids_N, parents_N=parents_N, positions_N=positions_N, paths=tuple(paths))


def families(sequences: Sequence[Ids], most: int) -> list[list[int]]:
    """The places of ``sequences`` in groups: those that share half of their tokens with a neighbour, in trees of at most ``most`` nodes.

    A function of these sequences alone, whatever their order. One that shares little stands alone.
    """
    groups: list[list[int]] = []
    size, before = 0, -1
    for place in sorted(range(len(sequences)), key=lambda i: sequences[i]):
        ids = sequences[place]
        shared = _common(sequences[before], ids) if groups else 0
        if groups and shared >= _SHARED * max(len(ids), 1) and size + len(ids) - shared <= most:
            groups[-1].append(place)
            size += len(ids) - shared
        else:
            groups.append([place])
            size = len(ids)
        before = place
    return groups


def _common(first: Ids, second: Ids) -> int:
    """Length of the common beginning."""
    for place, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return place
    return min(len(first), len(second))

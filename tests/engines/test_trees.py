"""Token trees: what shares, what a node sees, and that groups depend on the sequences alone."""

from __future__ import annotations

import random

from harness.engines.trees import families, tree_of
from harness.types import Ids


def test_a_shared_beginning_is_there_once_and_every_sequence_is_a_path() -> None:
    sequences: list[Ids] = [(5, 6, 7), (5, 6, 8, 9), (5,), (4, 6), (5, 6, 7)]
    tree = tree_of(sequences)
    assert len(tree.ids_N) == 7
    for ids, path in zip(sequences, tree.paths, strict=True):
        assert tuple(tree.ids_N[list(path)]) == ids
        assert [int(tree.parents_N[node]) for node in path] == [-1, *path[:-1]]
        assert tree.positions_N[list(path)].tolist() == list(range(len(ids)))


def test_a_node_sees_its_ancestors_and_itself_alone() -> None:
    tree = tree_of([(5, 6, 7), (5, 8)])
    assert tree.seen().astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]]


def test_groups_share_half_of_their_tokens_stay_small_and_know_no_order() -> None:
    shots = tuple(range(20))
    alike: list[Ids] = [(*shots, 50 + i, 60 + i) for i in range(6)]
    others: list[Ids] = [(99, 98), (1,), (*shots[:3], *range(200, 230))]
    sequences = [*alike, *others]
    assert sorted(map(sorted, families(sequences, most=100))) == [[0, 1, 2, 3, 4, 5], [6], [7], [8]]
    assert [len(tree_of([sequences[i] for i in group]).ids_N) for group in families(alike, most=26)] == [26, 26]
    order = random.Random(0).sample(range(len(sequences)), len(sequences))
    mixed = families([sequences[i] for i in order], most=100)
    assert sorted(sorted(order[i] for i in group) for group in mixed) == sorted(map(sorted, families(sequences, most=100)))

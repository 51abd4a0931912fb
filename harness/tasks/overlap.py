"""Whether training asks what evaluation will ask: near-duplicate questions found by MinHash, confirmed on the texts themselves.

A question is the set of its runs of eight letters and digits (width, case and spacing folded), which serves English and Chinese alike.
Two are the same when their sets share 60% (Jaccard), or one is at least 90% inside the other. Questions over different private corpora
are never the same: ``Who is the mayor?`` of another world is another question.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import DataError
from harness.tasks.published import OPEN_WEB
from harness.types import Task

RUN, ALIKE, INSIDE = 8, 0.6, 0.9
_PERMUTATIONS, _CANDIDATE = 128, 0.35  # the sketch only proposes: far below ALIKE, so that it misses next to nothing
_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """A training task and an evaluation question that ask the same. ``similarity`` is the share of runs in common."""

    training: str
    evaluation: str
    source: str
    similarity: float


def overlaps(training: Iterable[Task], evaluation: Mapping[str, Iterable[Task]]) -> list[Overlap]:
    """Every such pair; ``evaluation`` maps the name of a set to its questions."""
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=_CANDIDATE, num_perm=_PERMUTATIONS)
    asked: dict[tuple[str, int], tuple[Task, frozenset[str]]] = {}
    training = tuple(training)
    webs = {task.web for task in training}
    for source, tasks in evaluation.items():
        for place, task in enumerate(tasks):
            if OPEN_WEB not in (*webs, task.web) and task.web not in webs:
                continue
            asked[source, place] = (task, runs(task.question))
            index.insert((source, place), _sketch(asked[source, place][1]))
    found: list[Overlap] = []
    for task in training if asked else ():
        mine = runs(task.question)
        for key in sorted(index.query(_sketch(mine))):
            other, theirs = asked[key]
            similarity = len(mine & theirs) / len(mine | theirs)
            inside = len(mine & theirs) / min(len(mine), len(theirs))
            if (similarity >= ALIKE or inside >= INSIDE) and _same_pages(task, other):
                found.append(Overlap(training=task.id, evaluation=other.id, source=key[0], similarity=similarity))
    return found


def refuse_overlap(training: Iterable[Task], evaluation: Mapping[str, Iterable[Task]]) -> None:
    """Raise ``DataError`` with the ids of the pairs if training would see an evaluation question."""
    found = overlaps(training, evaluation)
    if not found:
        return
    pairs = [f"  {pair.training} = {pair.evaluation} ({pair.source}, {pair.similarity:.0%} alike)" for pair in found[:_SHOWN]]
    pairs += [f"  and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    count = len({pair.training for pair in found})
    raise DataError(
        f"{count} training task{'s' * (count != 1)} ask{'s' * (count == 1)} what is evaluated:\n"
        + "\n".join(pairs)
        + "\nTake them out of the training data: a score on questions that were trained on says nothing."
    )


def runs(question: str) -> frozenset[str]:
    """Runs of eight letters and digits; a shorter question is one run.

    >>> sorted(runs("Who is 甲?")), len(runs("Who painted it?"))
    (['whois甲'], 5)
    """
    text = "".join(c for c in unicodedata.normalize("NFKC", question).casefold() if c.isalnum())
    return frozenset(text[i : i + RUN] for i in range(max(len(text) - RUN + 1, 1)))


def _sketch(found: frozenset[str]) -> Any:
    from datasketch import MinHash

    sketch = MinHash(num_perm=_PERMUTATIONS)
    sketch.update_batch([run.encode() for run in sorted(found)])
    return sketch


def _same_pages(a: Task, b: Task) -> bool:
    return a.web == b.web or OPEN_WEB in (a.web, b.web)

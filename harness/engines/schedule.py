"""Who gets a slot, what is prefilled next, and which cached prefix is reused: pure decisions, no tensors.

A job (one request) waits, is admitted to a slot, has its prompt read in rows of ``chunk`` tokens, and then decodes until the
engine says that it has finished. The slot then stays as it is: the next job of the same session, or any job whose prompt
starts alike, takes over what was computed. The least recently used idle slot makes room.

The caller runs the passes in the order given and reports ``finish``; nothing here waits or blocks.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.types import Ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request in the scheduler's words."""

    key: int
    ids: Ids
    session: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Up to ``chunk`` prompt tokens of one slot, from position ``start``; ``last``: the prompt ends here and decoding starts."""

    slot: int
    start: int
    ids: Ids
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Slot ``target`` takes the first ``length`` positions of slot ``source``."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """One prefill pass: first the copies, then at most ``rows`` rows in one forward."""

    copies: tuple[Copy, ...]
    rows: tuple[Row, ...]


@dataclass(slots=True, kw_only=True)
class _Slot:
    index: int
    session: str = ""
    ids: Ids = ()  # what the positions hold, or will hold when the prompt has been read
    computed: int = 0  # positions that may be reused
    job: int | None = None
    source: tuple[int, int] | None = None  # a slot that is reading the same prefix just now, and its length
    used: int = 0
    blocks: list[int] = field(default_factory=list)


class Scheduler:
    """Slots, a waiting queue and a prefix table."""

    def __init__(self, *, slots: int, rows: int, chunk: int, reuse: bool = True, patience: int = 4) -> None:
        """``patience``: decoding passes that a prefill smaller than ``rows`` rows waits for company."""
        self._slots = [_Slot(index=i) for i in range(slots)]
        self._waiting: deque[Job] = deque()
        self._reading: list[_Slot] = []  # prompts not read to the end, oldest first
        self._sessions: dict[str, _Slot] = {}
        self._blocks: dict[int, int] = {}  # hash of a prefix of whole chunks -> the slot that holds it
        self._rows, self._chunk, self._reuse, self._patience = rows, chunk, reuse, patience
        self._delayed = 0
        self._clock = itertools.count(1)

    @property
    def waiting(self) -> int:
        """Jobs without a slot."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Jobs in a slot."""
        return sum(slot.job is not None for slot in self._slots)

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def admit(self) -> list[tuple[int, int]]:
        """Give slots to waiting jobs, those whose session still holds one first; returns (job key, slot)."""
        if not self._waiting:
            return []
        returning = [job for job in self._waiting if self._own_slot(job)]
        others = [job for job in self._waiting if not self._own_slot(job)]
        free = sorted((slot for slot in self._slots if slot.job is None), key=lambda slot: slot.used)
        admitted, left = [], deque[Job]()
        for job in (*returning, *others):
            own = self._own_slot(job)
            slot = own if own and own.job is None else next((s for s in free if s.job is None), None)
            if slot is None:
                left.append(job)
                continue
            self._place(job, slot)
            admitted.append((job.key, slot.index))
        self._waiting = left
        return admitted

    def next_prefill(self, decoding: int) -> Prefill | None:
        """The next prefill pass, or None where a decoding pass should come first; ``decoding``: slots that could decode."""
        copies = tuple(self._ready_copies())
        ready = [slot for slot in self._reading if slot.source is None]
        rows = tuple(itertools.islice((row for slot in ready for row in self._rows_of(slot)), self._rows))
        if not rows:
            return None
        if len(rows) < self._rows and decoding and self._delayed < self._patience and not copies:
            self._delayed += 1
            return None
        self._delayed = 0
        for row in rows:
            self._slots[row.slot].computed = row.start + len(row.ids)
        self._reading = [slot for slot in self._reading if slot.computed < len(slot.ids)]
        return Prefill(copies=copies, rows=rows)

    def finish(self, index: int, ids: Ids, computed: int) -> None:
        """The job of slot ``index`` has ended; its positions hold ``ids``, of which the first ``computed`` may be reused."""
        slot = self._slots[index]
        slot.job, slot.used = None, next(self._clock)
        slot.ids, slot.computed = ids, computed

    def forget(self) -> None:
        """Drop every prefix (the weights have changed). Call it between jobs, not within one."""
        self._sessions.clear()
        self._blocks.clear()
        for slot in self._slots:
            slot.session, slot.ids, slot.computed, slot.blocks = "", (), 0, []

    def _own_slot(self, job: Job) -> _Slot | None:
        return self._sessions.get(job.session) if job.session else None

    def _place(self, job: Job, slot: _Slot) -> None:
        kept = _common(slot.ids[: slot.computed], job.ids[:-1]) if self._reuse else 0
        source, shared = self._find_source(job.ids, slot.index) if self._reuse else (None, 0)
        if slot.session and self._sessions.get(slot.session) is slot:
            del self._sessions[slot.session]
        for block in slot.blocks:
            if self._blocks.get(block) == slot.index:
                del self._blocks[block]
        slot.session, slot.ids, slot.computed, slot.job = job.session, job.ids, kept, job.key
        slot.source = (source, shared) if source is not None and shared > kept else None
        slot.blocks = _block_hashes(job.ids, self._chunk)
        for block in slot.blocks:
            self._blocks.setdefault(block, slot.index)
        if job.session:
            self._sessions[job.session] = slot
        self._reading.append(slot)

    def _find_source(self, ids: Ids, but: int) -> tuple[int | None, int]:
        hashes = _block_hashes(ids[:-1], self._chunk)
        for count in range(len(hashes), 0, -1):
            owner, length = self._blocks.get(hashes[count - 1]), count * self._chunk
            if owner is not None and owner != but and self._holds(owner, ids, length):
                return owner, length
        return None, 0

    def _holds(self, owner: int, ids: Ids, length: int) -> bool:
        """Whether ``owner`` has these positions computed or is about to."""
        slot = self._slots[owner]
        promised = len(slot.ids) if slot in self._reading else slot.computed
        return promised >= length and slot.ids[:length] == ids[:length]

    def _ready_copies(self) -> Iterator[Copy]:
        for slot in self._reading:
            if slot.source is None:
                continue
            owner, length = slot.source
            if not self._holds(owner, slot.ids, length):
                slot.source = None  # its owner was given to another job meanwhile: read the prompt here
            elif self._slots[owner].computed >= length:
                slot.source, slot.computed = None, length
                yield Copy(source=owner, target=slot.index, length=length)

    def _rows_of(self, slot: _Slot) -> Iterator[Row]:
        for start in range(slot.computed, len(slot.ids), self._chunk):
            ids = slot.ids[start : start + self._chunk]
            yield Row(slot=slot.index, start=start, ids=ids, last=start + len(ids) == len(slot.ids))


def _common(left: Ids, right: Ids) -> int:
    """Length of the common prefix."""
    length = min(len(left), len(right))
    if left[:length] == right[:length]:
        return length
    return next(i for i in range(length) if left[i] != right[i])


def _block_hashes(ids: Ids, size: int) -> list[int]:
    """One hash per prefix of whole blocks, each built on the one before."""
    hashes: list[int] = []
    for start in range(0, len(ids) - size + 1, size):
        hashes.append(hash((hashes[-1] if hashes else 0, ids[start : start + size])))
    return hashes

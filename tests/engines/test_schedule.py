"""Admission, prefill order and prefix reuse, played without a model."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engines.schedule import Copy, Job, Row, Scheduler


class Playback:
    """Stands for the model: what every slot's positions hold, checked at every read."""

    def __init__(self, slots: int, rows: int, chunk: int) -> None:
        self.schedule = Scheduler(slots=slots, rows=rows, chunk=chunk)
        self.held: list[list[int]] = [[] for _ in range(slots)]
        self.jobs: dict[int, Job] = {}
        self.slot_of: dict[int, int] = {}
        self.decoding: dict[int, int] = {}  # slot -> job key
        self.prefilled = 0
        self.most_rows = 0

    def submit(self, job: Job) -> None:
        self.jobs[job.key] = job
        self.schedule.submit(job)

    def step(self, finish: random.Random) -> None:
        for key, slot in self.schedule.admit():
            assert slot not in self.slot_of.values(), "a slot was given to two jobs at once"
            self.slot_of[key] = slot
        prefill = self.schedule.next_prefill(len(self.decoding))
        if prefill is None:
            for slot, key in list(self.decoding.items()):
                if finish.random() < 0.4:
                    self.end(slot, key)
            return
        for copy in prefill.copies:
            self.held[copy.target] = self.held[copy.source][: copy.length]
        self.most_rows = max(self.most_rows, len(prefill.rows))
        for row in prefill.rows:
            self.read(row)

    def read(self, row: Row) -> None:
        key = next(key for key, slot in self.slot_of.items() if slot == row.slot)
        ids = self.jobs[key].ids
        assert tuple(self.held[row.slot][: row.start]) == ids[: row.start], "a row continues something else than its prompt"
        self.held[row.slot] = [*self.held[row.slot][: row.start], *row.ids]
        self.prefilled += len(row.ids)
        if row.last:
            assert tuple(self.held[row.slot]) == ids
            self.decoding[row.slot] = key

    def end(self, slot: int, key: int) -> None:
        sampled = [1000 + key, 1000 + key]
        self.held[slot] += sampled
        del self.decoding[slot], self.slot_of[key]
        job = self.jobs.pop(key)
        self.schedule.finish(slot, (*job.ids, *sampled), len(job.ids))

    def drain(self, finish: random.Random) -> None:
        steps = 0
        while self.jobs:
            self.step(finish)
            steps += 1
            assert steps < 20_000, "jobs starve"


prompts = st.lists(st.integers(0, 2), min_size=1, max_size=30).map(tuple)


@settings(deadline=None, max_examples=150)
@given(
    jobs=st.lists(st.tuples(prompts, st.integers(0, 4)), max_size=25),
    slots=st.integers(1, 5),
    rows=st.integers(1, 4),
    chunk=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_every_job_is_served_and_reads_exactly_its_prompt(
    jobs: list[tuple[tuple[int, ...], int]], slots: int, rows: int, chunk: int, seed: int
) -> None:
    """Prompts over three ids share prefixes all the time: copies, returns to a session and evictions in every order."""
    player, dice = Playback(slots, rows, chunk), random.Random(seed)
    for key, (ids, session) in enumerate(jobs):
        player.submit(Job(key=key, ids=ids, session=f"s{session}" if session else ""))
        if dice.random() < 0.5:
            player.step(dice)
    player.drain(dice)
    assert player.most_rows <= rows
    assert player.schedule.running == player.schedule.waiting == 0


def test_the_next_turn_of_a_session_reads_only_what_is_new() -> None:
    player, dice = Playback(2, 4, 4), random.Random(0)
    player.submit(Job(key=0, ids=tuple(range(20)), session="a"))
    player.drain(dice)
    player.submit(Job(key=1, ids=(*range(20), 1000, 1000, 7, 8, 9), session="a"))
    player.drain(dice)
    assert player.prefilled == 20 + 5


def test_prompts_that_start_alike_are_read_once_and_copied() -> None:
    schedule = Scheduler(slots=3, rows=8, chunk=4)
    for key in range(3):
        schedule.submit(Job(key=key, ids=(*range(8), 50 + key, 60 + key)))
    schedule.admit()
    first = schedule.next_prefill(0)
    assert first is not None
    assert [(row.slot, row.start, row.last) for row in first.rows] == [(0, 0, False), (0, 4, False), (0, 8, True)]
    second = schedule.next_prefill(1)
    assert second is not None
    assert second.copies == (Copy(source=0, target=1, length=8), Copy(source=0, target=2, length=8))
    assert [(row.slot, row.start, row.ids) for row in second.rows] == [(1, 8, (51, 61)), (2, 8, (52, 62))]


def test_without_reuse_every_prompt_is_read_whole() -> None:
    schedule = Scheduler(slots=2, rows=8, chunk=4, reuse=False)
    for key in range(2):
        schedule.submit(Job(key=key, ids=tuple(range(8)), session="a"))
    schedule.admit()
    prefill = schedule.next_prefill(0)
    assert prefill is not None and not prefill.copies and len(prefill.rows) == 4


def test_the_slot_used_least_recently_makes_room() -> None:
    player, dice = Playback(2, 4, 4), random.Random(1)
    for key, session in enumerate(["a", "b"]):
        player.submit(Job(key=key, ids=(1, 2, 3 + key), session=session))
        player.drain(dice)
    player.schedule.submit(Job(key=2, ids=(9,), session="c"))
    assert player.schedule.admit() == [(2, 0)]  # a's slot, though b's is as idle


def test_a_returning_session_goes_before_new_ones() -> None:
    player, dice = Playback(1, 4, 4), random.Random(1)
    player.submit(Job(key=0, ids=(1, 2, 3), session="a"))
    player.drain(dice)
    player.schedule.submit(Job(key=1, ids=(4, 5), session="b"))
    player.schedule.submit(Job(key=2, ids=(1, 2, 3, 4), session="a"))
    assert player.schedule.admit() == [(2, 0)]


def test_a_small_prefill_waits_for_company_but_not_for_ever() -> None:
    schedule = Scheduler(slots=4, rows=4, chunk=4, patience=3)
    schedule.submit(Job(key=0, ids=(1, 2)))
    schedule.admit()
    assert [schedule.next_prefill(decoding=2) is None for _ in range(4)] == [True, True, True, False]


def test_a_small_prefill_goes_at_once_when_nothing_decodes() -> None:
    schedule = Scheduler(slots=4, rows=4, chunk=4, patience=3)
    schedule.submit(Job(key=0, ids=(1, 2)))
    schedule.admit()
    assert schedule.next_prefill(decoding=0) is not None


def test_forgotten_prefixes_are_read_again() -> None:
    player, dice = Playback(2, 4, 4), random.Random(0)
    player.submit(Job(key=0, ids=tuple(range(20)), session="a"))
    player.drain(dice)
    player.schedule.forget()
    player.held = [[], []]
    player.submit(Job(key=1, ids=tuple(range(24)), session="a"))
    player.drain(dice)
    assert player.prefilled == 20 + 24

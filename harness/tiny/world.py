"""The mini web: small procedurally generated worlds of people who are linked by roles, and questions that follow the links.

A world is a set of pages. Every page is one person and lists who plays each of its roles:

    Bora            https://mini.web/Bora
    Mentor: Lumi
    Rival: Keto ...

A question of h hops names a first person and h roles; the answer is reached by following them from the inside out. The expert searches for
the first person and then visits one page per further hop; before each step it names the role that it follows. Worlds of different splits
are different draws of the links, so nothing that is learned about one world helps in another; only the way of searching carries over.
Random numbers come from ``random.Random(...).randrange`` alone, which Python keeps stable between versions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from harness.types import Action, Message, Task
from harness.web.base import Page

ROLES = ("Mentor", "Rival", "Patron", "Pupil", "Keeper", "Envoy", "Healer", "Tailor", "Pilot", "Singer")
ROLES_PER_WORLD = 5
PEOPLE_PER_WORLD = 60
SITE = "https://mini.web/"


def _names(count: int) -> tuple[str, ...]:
    onsets, vowels = "bdfgklmnprstvz", "aeiou"
    every = [(a + b + c + d).capitalize() for a in onsets for b in vowels for c in onsets for d in vowels if a != c]
    rng = random.Random(7)
    return tuple(every.pop(rng.randrange(len(every))) for _ in range(count))


NAMES = _names(120)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """``links[person][role]`` is another person; the roles of one page name different people."""

    name: str
    links: dict[str, dict[str, str]]

    def pages(self) -> list[Page]:
        return [
            Page(url=SITE + person, title=person, text="\n".join(f"{role}: {other}" for role, other in roles.items()))
            for person, roles in self.links.items()
        ]

    def chain(self, start: str, roles: tuple[str, ...]) -> tuple[str, ...]:
        """The people met on the way, the start first."""
        met = [start]
        for role in roles:
            met.append(self.links[met[-1]][role])
        return tuple(met)


def make_world(name: str) -> World:
    """The world of that name, always the same one."""
    rng = random.Random(f"mini web {name}")
    people = _draw(rng, NAMES, PEOPLE_PER_WORLD)
    roles = _draw(rng, ROLES, ROLES_PER_WORLD)
    links = {p: dict(zip(roles, _draw(rng, tuple(q for q in people if q != p), len(roles)), strict=True)) for p in people}
    return World(name=name, links=links)


def make_tasks(world: World, hops: int, count: int, tags: dict[str, str]) -> list[Task]:
    """``count`` different questions of that many hops, whose chain meets no person twice."""
    rng = random.Random(f"questions {world.name} {hops}")
    people, roles = tuple(world.links), tuple(next(iter(world.links.values())))
    tasks: dict[tuple[str, ...], Task] = {}
    while len(tasks) < count:
        start = people[rng.randrange(len(people))]
        path = tuple(roles[rng.randrange(len(roles))] for _ in range(hops))
        met = world.chain(start, path)
        if len(set(met)) == hops + 1 and (start, *path) not in tasks:
            tasks[start, *path] = _task(world, start, path, met, tags)
    return list(tasks.values())


def question_text(start: str, roles: tuple[str, ...]) -> str:
    """``Who is the Rival of the Mentor of Bora?`` for roles (Mentor, Rival): the last hop is named first."""
    return "Who is " + "".join(f"the {role} of " for role in reversed(roles)) + start + "?"


def expert_actions(met: tuple[str, ...]) -> tuple[Action, ...]:
    """Search the first person, visit every other one but the answer."""
    first = Action(name="search", arguments={"query": [met[0]]})
    return (first, *(Action(name="visit", arguments={"url": [SITE + person]}) for person in met[1:-1]))


def _task(world: World, start: str, roles: tuple[str, ...], met: tuple[str, ...], tags: dict[str, str]) -> Task:
    question, actions = question_text(start, roles), expert_actions(met)
    return Task(
        id=f"miniweb-{world.name}-{start}-{'-'.join(roles)}",
        question=question,
        gold=(met[-1],),
        actions=actions,
        demonstration=({"role": "user", "content": question}, *dialogue(world, met[:-1], roles)),
        web=world.name,
        tags={**tags, "hops": str(len(roles))},
    )


def dialogue(world: World, visited: Sequence[str], taken: Sequence[str]) -> tuple[Message, ...]:
    """What an agent says and sees that opens the pages of ``visited`` and follows the roles ``taken``, one from each page; the last one
    gives its answer. Before a call, and before the answer, it names the role that it follows."""
    answer = world.links[visited[-1]][taken[-1]]
    messages: list[Message] = []
    thought = ""
    for person, action, role in zip(visited, expert_actions((*visited, answer)), taken, strict=True):
        page = "\n".join(f"{name}: {other}" for name, other in world.links[person].items())
        shown = f"[{person}]({SITE}{person})\n{page}" if action.name == "search" else f"{person}\n{page}"
        messages.append({"role": "assistant", "content": f"{thought}<tool_call>\n{action.to_json()}\n</tool_call>"})
        messages.append({"role": "tool", "content": shown})
        thought = f"{role}\n"
    messages.append({"role": "assistant", "content": f"{thought}<answer>{answer}</answer>"})
    return tuple(messages)


def _draw(rng: random.Random, items: tuple[str, ...], count: int) -> tuple[str, ...]:
    left = list(items)
    return tuple(left.pop(rng.randrange(len(left))) for _ in range(count))

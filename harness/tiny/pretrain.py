"""How the tiny base model is pre-trained: on its own kind of conversations, so that it is calibrated and not certain.

Three stages. Drills with one page teach it to look a role up. Drills with several pages, and the first conversations, teach it to look on
the newest one. Then come conversations, with some drills among them. 1-hop questions are answered
rightly. Questions of 2 to 4 hops may hold the first k actions of a plan in their prompt: the plan's pages are opened to the letter, the
walk goes on from there, and the page where it ends is read rightly. In two cases of five the plan is that of another chain, so that it
leads astray: what a plan says counts, not that there is one. Without a plan the first person is searched, and every further hop, the
answer included, is a bet: taken on purpose in one of seventeen cases and otherwise drawn from the open page. The model therefore knows
its tools, follows a plan wherever it leads, and spreads its bets on multi-hop questions. How a question is taken apart it sees only in bets
that were taken on purpose: a base that was drilled in that as well (``ROUTE``) needs no guidance to learn such questions.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM

from harness.chat import Chat
from harness.envs.search import SYSTEM, TOOLS
from harness.tiny.tokenizer import train_tokenizer
from harness.tiny.world import ROLES, World, dialogue, expert_actions, make_world, question_text
from harness.types import Action, Ids, Message

Plan = Callable[[Sequence[Action], int], str]

DRILLS = ("copy", "lines", "answers", "visits", "asked")
ROUTE = "route"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stretch of training: AdamW, a linear warm-up, then a cosine."""

    steps: int
    batch: int
    learning_rate: float
    drills: float  # share of drills; the rest are conversations
    pages: int  # a drill has 1 to this many
    end: float = 0.05  # share of the learning rate that the cosine ends at
    one_hop: float = 0.15  # share of conversations that ask for one hop, and are answered rightly
    plans: float = 0.6  # share with a plan: its visits are made, and the last page is read rightly; the rest are walks without one
    foreign: float = 0.4  # share of plans that are of another chain: followed all the same, and they lead astray


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides the weights."""

    stages: tuple[Stage, ...] = (
        Stage(steps=400, batch=64, learning_rate=3e-3, end=0.6, drills=1.0, pages=1),
        Stage(steps=500, batch=48, learning_rate=2e-3, end=0.6, drills=0.6, pages=4, one_hop=0.3, plans=0.4, foreign=0.3),
        Stage(steps=1000, batch=32, learning_rate=1.5e-3, drills=0.1, pages=4),
    )
    drills: tuple[str, ...] = DRILLS  # forms of drills, all as often; ``ROUTE`` may be one more
    skill: float = 0.06  # how often a hop that no plan shows is taken on purpose; otherwise it is drawn from the page
    worlds: int = 400
    seed: int = 1
    hidden: int = 96
    layers: int = 4
    heads: int = 3
    intermediate: int = 288
    context: int = 512
    vocabulary: int = 1280


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One text as ids with the tokens marked that are to be learned, its kind, and the place of the one whose accuracy is reported: a name
    that is asked for on a drill's last page, or a conversation's answer."""

    ids: Ids
    mask: tuple[bool, ...]
    kind: str
    watched: int


def make_model(recipe: Recipe, chat: Chat, vocabulary: int) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        head_dim=recipe.hidden // recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        bos_token_id=None,
        eos_token_id=chat.end_id,
        pad_token_id=0,
    )
    torch.manual_seed(recipe.seed)
    return Qwen3ForCausalLM(config)


def conversation(rng: random.Random, world: World, plan: Plan, stage: Stage, skill: float) -> tuple[str, tuple[Message, ...]]:
    """One conversation of a random kind: (kind, messages)."""
    people, roles = tuple(world.links), tuple(next(iter(world.links.values())))

    def some(items: Sequence[str]) -> str:
        return items[rng.randrange(len(items))]

    def bet(role: str) -> str:
        return role if rng.random() < skill else some(roles)

    draw = rng.random()
    hops = 1 if draw < stage.one_hop else 2 + rng.randrange(3)
    path = tuple(some(roles) for _ in range(hops))
    met = world.chain(some(people), path)
    kind = "one-hop" if hops == 1 else "plan" if draw < stage.one_hop + stage.plans else "walk"
    level = 1 + rng.randrange(hops) if kind == "plan" else 0
    foreign = kind == "plan" and rng.random() < stage.foreign
    planned = world.chain(some(people), tuple(some(roles) for _ in path)) if foreign else met
    known = {"one-hop": {0}, "plan": {*range(level - 1), hops - 1}, "walk": set()}[kind]  # roles that are named rightly for sure
    taken = tuple(role if hop in known else bet(role) for hop, role in enumerate(path))
    question = question_text(met[0], path) + (plan(expert_actions(planned), level) if level else "")
    last = max(level, 1) - 1  # the page where the plan ends, or the first one
    visited = (*planned[:last], *world.chain(planned[last], taken[last:])[:-1])
    return kind, ({"role": "system", "content": SYSTEM}, {"role": "user", "content": question}, *dialogue(world, visited, taken))


def conversations_as_text(rng: random.Random, count: int, plan: Plan) -> list[str]:
    """Rendered conversations, to train the tokenizer on."""
    empty, recipe = train_tokenizer([], 300), Recipe()  # only its template is used
    worlds = [make_world(f"pretrain-{i}") for i in range(60)]
    said = (_plain(conversation(rng, worlds[i % 60], plan, recipe.stages[-1], recipe.skill)[1]) for i in range(count))
    return [str(empty.apply_chat_template(m, tools=_plain(TOOLS), tokenize=False, add_generation_prompt=True)) for m in said]


def _plain(mappings: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [dict(m) for m in mappings]


def drill(rng: random.Random, world: World, chat: Chat, pages: int, forms: Sequence[str] = DRILLS) -> Row:
    """Looking up and nothing else, in one of ``forms``.

    ``copy``: names and roles in a row, then the same row again. The others show pages. ``lines``: each is followed by heads of its lines,
    to be completed; ``answers``, ``visits``: by roles as an agent says them, with an answer or a call that names the person; ``asked``: by
    questions that end on the page. ``route``, only with several pages: a question, and then page by page the role that is due with its
    name. Pages show one to all of their lines: with few of them looking up pays soonest, and there it begins. What is asked for is drawn
    anew each time: if every role were asked for equally often, counting would tell the last names, and the page would never be read.
    """
    people, roles = tuple(world.links), tuple(next(iter(world.links.values())))
    forms = [form for form in forms if form != ROUTE or pages > 1]
    kind = forms[rng.randrange(len(forms))]
    if kind == "copy":
        row = rng.sample([*people, *ROLES, *(f"\n{role}: " for role in ROLES)], 6 + rng.randrange(15))
        once = chat.encode("".join(row))
        ids = once * (1 + 40 // len(once))
        return Row(ids=ids, mask=tuple(place >= len(once) for place in range(len(ids))), kind=kind, watched=len(ids) - 1)
    roles = tuple(rng.sample(roles, 1 + rng.randrange(len(roles))))
    path = tuple(roles[rng.randrange(len(roles))] for _ in range(pages))
    met = world.chain(people[rng.randrange(len(people))], path) if kind == ROUTE else tuple(rng.sample(people, pages))
    said: list[int] = []
    mask: list[bool] = []

    def put(text: str, learn: bool = False) -> None:
        said.extend(piece := chat.encode(text))
        mask.extend([learn] * len(piece))

    if kind == ROUTE:
        put(question_text(met[0], path))
    for hops, (person, due) in enumerate(zip(met, path, strict=False), start=1):
        put("\n" + person + "".join(f"\n{role}: {other}" for role, other in world.links[person].items() if role in roles))
        if kind == ROUTE:
            put("\n")
            put(due, learn=True)
            put("\n")
            watched = len(said)
            put(world.links[person][due], learn=True)
            continue
        watched = 0  # the first name that is asked for after the last page
        for _ in range(10 // pages):
            role = roles[rng.randrange(len(roles))]
            before = tuple(roles[rng.randrange(len(roles))] for _ in range(hops - 1))  # what led to this page
            name = world.links[person][role]
            call, _, rest = expert_actions((person, name, name))[1].to_json().partition(name)
            head, tail = {
                "lines": (f"{role}: ", ""),
                "answers": (f"{role}\n<answer>", "</answer>"),
                "visits": (f"{role}\n<tool_call>\n{call}", f"{rest}\n</tool_call>"),
                "asked": (f"{question_text(person, (*before, role))}<answer>", "</answer>"),
            }[kind]
            put("\n" + head)
            watched = watched or len(said)
            put(name, learn=True)
            put(tail)
    return Row(ids=tuple(said), mask=tuple(mask), kind=kind, watched=watched)


def text_row(rng: random.Random, world: World, chat: Chat, plan: Plan, stage: Stage, recipe: Recipe) -> Row:
    if rng.random() < stage.drills:
        return drill(rng, world, chat, 1 + rng.randrange(stage.pages), recipe.drills)
    kind, messages = conversation(rng, world, plan, stage, recipe.skill)
    contexts, spans = chat.dialogue(messages, TOOLS)
    ids = tuple(i for c, z in zip(contexts, spans, strict=True) for i in (*c, *z))
    mask = tuple(f for c, z in zip(contexts, spans, strict=True) for f in (*((False,) * len(c)), *((True,) * len(z))))
    (name, *_) = chat.encode(str(messages[-1]["content"]).partition("<answer>")[2].partition("<")[0])
    return Row(ids=ids, mask=mask, kind=kind, watched=max(place for place, token in enumerate(ids) if token == name))


def pretrain(
    model: Qwen3ForCausalLM, recipe: Recipe, chat: Chat, plan: Plan, report: Callable[[int, float, dict[str, float]], None]
) -> None:
    """Train in place, stage by stage; ``report(step, loss, argmax accuracy by kind)`` is called every 50 steps."""
    torch.set_flush_denormal(True)
    rng, done = random.Random(recipe.seed), 0
    worlds = [make_world(f"pretrain-{i}") for i in range(recipe.worlds)]
    for stage in recipe.stages:
        optimizer = torch.optim.AdamW(model.parameters(), lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
        for step in range(stage.steps):
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * _schedule(step, stage)
            batch = [text_row(rng, worlds[rng.randrange(len(worlds))], chat, plan, stage, recipe) for _ in range(stage.batch)]
            loss, right = _step(model, optimizer, sorted(batch, key=lambda row: len(row.ids)))
            done += 1
            if done % 50 == 0:
                report(done, loss, {kind: sum(hits) / len(hits) for kind, hits in sorted(right.items())})


def _step(model: Qwen3ForCausalLM, optimizer: torch.optim.Optimizer, batch: Sequence[Row]) -> tuple[float, dict[str, list[float]]]:
    """One update on rows sorted by length: the loss, and by kind whether each row's watched token was the argmax."""
    optimizer.zero_grad()
    loss, right = 0.0, defaultdict[str, list[float]](list)
    total = sum(sum(_weights(row)) for row in batch)
    for part in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):  # short rows need not be as wide as long ones
        part_loss, hits = _loss(model, part, total)
        part_loss.backward()
        loss += part_loss.item()
        for row, hit in zip(part, hits, strict=True):
            right[row.kind].append(hit)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss, right


def _weights(row: Row) -> list[float]:
    """Loss weight of each predicted token. The page of a drill counts a fifth: copying roles and titles there is what first teaches the
    model to copy at all. Prompts and pages of conversations count nothing: their names are random."""
    page = 0.2 if row.kind in (*DRILLS, ROUTE) else 0.0
    return [1.0 if assistant else page for assistant in row.mask[1:]]


def _loss(model: Qwen3ForCausalLM, batch: Sequence[Row], total: float) -> tuple[Tensor, list[float]]:
    """Weighted cross-entropy over ``total``; per row whether its watched token was the argmax."""
    width = max(len(r.ids) for r in batch)
    ids_BT = torch.zeros(len(batch), width, dtype=torch.long)
    weights_BT = torch.zeros(len(batch), width - 1)
    for i, row in enumerate(batch):
        ids_BT[i, : len(row.ids)] = torch.tensor(row.ids)
        weights_BT[i, : len(row.ids) - 1] = torch.tensor(_weights(row))
    hidden_BTH = model.model(input_ids=ids_BT).last_hidden_state  # causal: right padding cannot be seen
    target_BT = weights_BT > 0
    logits_NV = model.lm_head(hidden_BTH[:, :-1][target_BT])
    targets_N = ids_BT[:, 1:][target_BT]
    loss = (F.cross_entropy(logits_NV, targets_N, reduction="none") * weights_BT[target_BT]).sum() / total
    hit_BT = torch.zeros(len(batch), width - 1)
    hit_BT[target_BT] = (logits_NV.argmax(-1) == targets_N).float()
    return loss, [float(hit_BT[i, row.watched - 1]) for i, row in enumerate(batch)]


def _schedule(step: int, stage: Stage) -> float:
    """Linear warm-up over 40 steps, times a cosine from 1 to ``stage.end``."""
    return min(1.0, (step + 1) / 40) * (stage.end + (1 - stage.end) * 0.5 * (1 + math.cos(math.pi * step / stage.steps)))

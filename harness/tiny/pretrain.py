"""How the tiny base model is pre-trained: on its own kind of conversations, so that it is calibrated and not certain.

First come drills: a page whose lines, or 1-hop questions about it, follow in random order. They teach it to look a role up. Then, beside
some more drills, conversations. Half of them are 1-hop questions, answered rightly. A quarter are questions of 2 to 4 hops whose
prompt holds the first k expert actions: they are followed, then the walk goes on at random. A quarter have no plan: the first person is
searched, every further visit and the answer are drawn at random from the page that is open. A shorter second phase holds more plans, and
there a whole plan ends in the right answer. The model therefore knows its tools and follows a plan, and spreads its bets on multi-hop
questions, which it solves at the rate of chance. Without the whole plan it never sees one answered on purpose.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM

from harness.chat import Chat
from harness.envs.search import SYSTEM, TOOLS
from harness.tiny.tokenizer import train_tokenizer
from harness.tiny.world import SITE, World, expert_actions, make_world, question_text
from harness.types import Action, Ids, Message

Plan = Callable[[Sequence[Action], int], str]

_FROM_END = {"lines": 2, "asked": 3, "one-hop": 4, "plan": 4, "walk": 4}  # where the last name is predicted: ... NAME </answer> <|im_end|>


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides the weights."""

    steps: int = 2600
    polish_steps: int = 900
    polish_rate: float = 1e-3
    informed: bool = False  # whether the whole plan leads to the right answer, or to a guess like everything else
    plans: float = 0.25  # share of conversations with a plan; half of the others ask for one hop
    batch: int = 32
    drill_steps: int = 600
    drill_batch: int = 64
    learning_rate: float = 2.5e-3
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
    """One conversation as ids with the assistant's tokens marked, and its kind."""

    ids: Ids
    mask: tuple[bool, ...]
    kind: str


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


def conversation(
    rng: random.Random, world: World, plan: Plan, plans: float = 0.25, informed: bool = False
) -> tuple[str, tuple[Message, ...]]:
    """One conversation of a random kind: (kind, messages). Of those without a plan two thirds ask for one hop.

    ``informed``: whoever was given the whole plan answers rightly; everybody else guesses."""
    people, roles = tuple(world.links), tuple(next(iter(world.links.values())))

    def some(items: Sequence[str]) -> str:
        return items[rng.randrange(len(items))]

    start, draw = some(people), rng.random()
    if draw < (1 - plans) * 2 / 3:
        path: tuple[str, ...] = (some(roles),)
        return "one-hop", _messages(world, question_text(start, path), [start], world.links[start][path[0]])
    path = tuple(some(roles) for _ in range(2 + rng.randrange(3)))
    met = world.chain(start, path)
    level = 0 if draw < 1 - plans else 1 + rng.randrange(len(path))
    visited = list(met[: max(level, 1)])
    while len(visited) < len(path):
        visited.append(world.links[visited[-1]][some(roles)])
    hint = plan(expert_actions(met), level) if level else ""
    guess = some(roles)
    answer = world.links[visited[-1]][path[-1] if informed and level == len(path) else guess]
    return ("plan" if level else "walk"), _messages(world, question_text(start, path) + hint, visited, answer)


def _messages(world: World, question: str, visited: Sequence[str], answer: str) -> tuple[Message, ...]:
    messages: list[Message] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    for person, action in zip(visited, expert_actions((*visited, answer)), strict=True):
        page = "\n".join(f"{role}: {other}" for role, other in world.links[person].items())
        shown = f"[{person}]({SITE}{person})\n{page}" if action.name == "search" else f"{person}\n{page}"
        messages.append({"role": "assistant", "content": f"<tool_call>\n{action.to_json()}\n</tool_call>"})
        messages.append({"role": "tool", "content": shown})
    messages.append({"role": "assistant", "content": f"<answer>{answer}</answer>"})
    return tuple(messages)


def conversations_as_text(rng: random.Random, count: int, plan: Plan) -> list[str]:
    """Rendered conversations, to train the tokenizer on."""
    empty = train_tokenizer([], 300)  # only its template is used
    worlds = [make_world(f"pretrain-{i}") for i in range(60)]
    said = (_plain(conversation(rng, worlds[i % 60], plan)[1]) for i in range(count))
    return [str(empty.apply_chat_template(m, tools=_plain(TOOLS), tokenize=False, add_generation_prompt=True)) for m in said]


def _plain(mappings: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [dict(m) for m in mappings]


def drill(rng: random.Random, world: World, chat: Chat) -> Row:
    """One page, then its lines or 1-hop questions about it, each twice and in random order: looking a role up and nothing else."""
    person = tuple(world.links)[rng.randrange(len(world.links))]
    page = world.links[person]
    asked = rng.random() < 0.5
    ids = list(chat.encode(person + "".join(f"\n{role}: {other}" for role, other in page.items())))
    mask = [False] * len(ids)
    for role, other in rng.sample([*page.items()] * 2, 2 * len(page)):
        head = (*chat.encode("\n" + question_text(person, (role,))), *chat.encode("<answer>")) if asked else chat.encode(f"\n{role}: ")
        name, tail = chat.encode(other), chat.encode("</answer>") if asked else ()
        ids += (*head, *name, *tail)
        mask += [False] * len(head) + [True] * len(name) + [False] * len(tail)
    return Row(ids=tuple(ids), mask=tuple(mask), kind="asked" if asked else "lines")


def rows(rng: random.Random, worlds: Sequence[World], chat: Chat, plan: Plan, recipe: Recipe, drills: Callable[[], float]) -> Iterator[Row]:
    """Endless training rows, a share ``drills()`` of them drills."""
    while True:
        world = worlds[rng.randrange(len(worlds))]
        if rng.random() < drills():
            yield drill(rng, world, chat)
            continue
        kind, messages = conversation(rng, world, plan, recipe.plans, recipe.informed)
        contexts, spans = chat.dialogue(messages, TOOLS)
        ids = tuple(i for c, z in zip(contexts, spans, strict=True) for i in (*c, *z))
        mask = tuple(f for c, z in zip(contexts, spans, strict=True) for f in (*((False,) * len(c)), *((True,) * len(z))))
        yield Row(ids=ids, mask=mask, kind=kind)


def polish(model: Qwen3ForCausalLM, recipe: Recipe, chat: Chat, plan: Plan, report: Callable[[int, float, dict[str, float]], None]) -> None:
    """A second, shorter phase with plans in 60% of the conversations instead of a quarter: following them is learned last.

    Here the whole plan leads to the right answer, so that guided rollouts of the whole plan mostly succeed.
    """
    phase = replace(
        recipe, steps=recipe.polish_steps, learning_rate=recipe.polish_rate, seed=recipe.seed + 1, drill_steps=0, plans=0.6, informed=True
    )
    _train(model, phase, chat, plan, report)


def pretrain(
    recipe: Recipe, chat: Chat, vocabulary: int, plan: Plan, report: Callable[[int, float, dict[str, float]], None]
) -> Qwen3ForCausalLM:
    """Train from scratch; ``report(step, loss, argmax accuracy by kind)`` is called every 50 steps."""
    model = make_model(recipe, chat, vocabulary)
    _train(model, recipe, chat, plan, report)
    return model


def _train(model: Qwen3ForCausalLM, recipe: Recipe, chat: Chat, plan: Plan, report: Callable[[int, float, dict[str, float]], None]) -> None:
    torch.set_flush_denormal(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    step = 0
    worlds = [make_world(f"pretrain-{i}") for i in range(recipe.worlds)]
    source = rows(random.Random(recipe.seed), worlds, chat, plan, recipe, lambda: 1.0 if step < recipe.drill_steps else 0.15)
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe.steps)
        batch = sorted(
            (next(source) for _ in range(recipe.drill_batch if step < recipe.drill_steps else recipe.batch)), key=lambda row: len(row.ids)
        )
        optimizer.zero_grad()
        loss = 0.0
        right: list[float] = []
        for part in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):  # short rows need not be as wide as long ones
            part_loss, part_right = _loss(model, part, sum(map(_weight, batch)))
            part_loss.backward()
            loss, right = loss + part_loss.item(), right + part_right
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 50 == 0:
            found = {
                k: [r for r, kind in zip(right, (row.kind for row in batch), strict=True) if kind == k] for k in {row.kind for row in batch}
            }
            report(step + 1, loss, {k: sum(v) / len(v) for k, v in sorted(found.items())})


def _weight(row: Row) -> float:
    """Tokens of prompts and pages count a fifth: copying roles and titles there is what first teaches the model to copy at all."""
    return sum(1.0 if assistant else 0.2 for assistant in row.mask[1:])


def _loss(model: Qwen3ForCausalLM, batch: Sequence[Row], total: float) -> tuple[Tensor, list[float]]:
    """Weighted cross-entropy over ``total``; per row whether the answer's name was the argmax."""
    width = max(len(r.ids) for r in batch)
    ids_BT = torch.zeros(len(batch), width, dtype=torch.long)
    mask_BT = torch.zeros(len(batch), width, dtype=torch.bool)
    for i, row in enumerate(batch):
        ids_BT[i, : len(row.ids)] = torch.tensor(row.ids)
        mask_BT[i, : len(row.ids)] = torch.tensor(row.mask)
    hidden_BTH = model.model(input_ids=ids_BT).last_hidden_state  # causal: right padding cannot be seen
    lengths_B = torch.tensor([len(r.ids) for r in batch])
    target_BT = torch.arange(1, width) < lengths_B[:, None]
    logits_NV = model.lm_head(hidden_BTH[:, :-1][target_BT])
    targets_N = ids_BT[:, 1:][target_BT]
    weights_N = torch.where(mask_BT[:, 1:][target_BT], 1.0, 0.2)
    loss = (F.cross_entropy(logits_NV, targets_N, reduction="none") * weights_N).sum() / total
    hit_BT = torch.zeros(len(batch), width - 1)
    hit_BT[target_BT] = (logits_NV.argmax(-1) == targets_N).float()
    return loss, [float(hit_BT[i, len(row.ids) - _FROM_END[row.kind]]) for i, row in enumerate(batch)]


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up over 40 steps, then a cosine to a twentieth."""
    return min(1.0, (step + 1) / 40) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))

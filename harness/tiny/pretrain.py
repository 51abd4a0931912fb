"""How the tiny base model is pre-trained: on its own kind of conversations, so that it is calibrated and not certain.

Half of the conversations are 1-hop questions, answered rightly. A quarter are questions of 2 to 4 hops whose prompt holds
the first k expert actions: they are followed, then the walk goes on at random. A quarter have no plan: the first person is searched, every further
visit and the answer are drawn at random from the page that is open. The model therefore knows its tools and follows a plan, and spreads its bets
on multi-hop questions, which it solves at the rate of chance. It never sees a multi-hop question answered on purpose.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM

from harness.chat import Chat
from harness.envs.search import SYSTEM, TOOLS
from harness.tiny.world import SITE, World, expert_actions, make_world, question_text
from harness.types import Action, Ids, Message

Plan = Callable[[Sequence[Action], int], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides the weights."""

    steps: int = 3000
    batch: int = 24
    learning_rate: float = 3e-3
    worlds: int = 400
    seed: int = 1
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    intermediate: int = 384
    context: int = 512


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
        rope_theta=10_000.0,
        bos_token_id=None,
        eos_token_id=chat.end_id,
        pad_token_id=0,
    )
    torch.manual_seed(recipe.seed)
    return Qwen3ForCausalLM(config)


def conversation(rng: random.Random, world: World, plan: Plan) -> tuple[str, tuple[Message, ...]]:
    """One conversation of a random kind: (kind, messages)."""
    people, roles = tuple(world.links), tuple(next(iter(world.links.values())))

    def some(items: Sequence[str]) -> str:
        return items[rng.randrange(len(items))]

    start, draw = some(people), rng.random()
    if draw < 0.5:
        path: tuple[str, ...] = (some(roles),)
        return "one-hop", _messages(world, question_text(start, path), [start], world.links[start][path[0]])
    path = tuple(some(roles) for _ in range(2 + rng.randrange(3)))
    met = world.chain(start, path)
    level = 0 if draw < 0.75 else 1 + rng.randrange(len(path))
    visited = list(met[: max(level, 1)])
    while len(visited) < len(path):
        visited.append(world.links[visited[-1]][some(roles)])
    hint = plan(expert_actions(met), level) if level else ""
    answer = world.links[visited[-1]][some(roles)]
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


def rows(rng: random.Random, worlds: Sequence[World], chat: Chat, plan: Plan) -> Iterator[Row]:
    """Endless training rows."""
    while True:
        kind, messages = conversation(rng, worlds[rng.randrange(len(worlds))], plan)
        contexts, spans = chat.dialogue(messages, TOOLS)
        ids = tuple(i for c, z in zip(contexts, spans, strict=True) for i in (*c, *z))
        mask = tuple(f for c, z in zip(contexts, spans, strict=True) for f in (*((False,) * len(c)), *((True,) * len(z))))
        yield Row(ids=ids, mask=mask, kind=kind)


def pretrain(recipe: Recipe, chat: Chat, vocabulary: int, plan: Plan, report: Callable[[int, float, dict[str, float]], None]) -> Qwen3ForCausalLM:
    """Train from scratch; ``report(step, loss, argmax accuracy by kind)`` is called every 50 steps."""
    torch.set_flush_denormal(True)
    model = make_model(recipe, chat, vocabulary)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    source = rows(random.Random(recipe.seed), [make_world(f"pretrain-{i}") for i in range(recipe.worlds)], chat, plan)
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe.steps)
        batch = [next(source) for _ in range(recipe.batch)]
        loss, right, kinds = _loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 50 == 0:
            found = {k: [r for r, kind in zip(right, kinds, strict=True) if kind == k] for k in set(kinds)}
            report(step + 1, loss.item(), {k: sum(v) / len(v) for k, v in sorted(found.items())})
    return model


def _loss(model: Qwen3ForCausalLM, batch: Sequence[Row]) -> tuple[Tensor, list[float], list[str]]:
    """Weighted mean cross-entropy; per row whether the answer's name was the argmax.

    Tokens of prompts and pages count a fifth: copying roles and titles there is what first teaches the model to copy at all.
    """
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
    loss = (F.cross_entropy(logits_NV, targets_N, reduction="none") * weights_N).sum() / weights_N.sum()
    hit_BT = torch.zeros(len(batch), width - 1)
    hit_BT[target_BT] = (logits_NV.argmax(-1) == targets_N).float()
    right = [float(hit_BT[i, len(row.ids) - 4]) for i, row in enumerate(batch)]  # <answer> NAME </answer> <|im_end|>
    return loss, right, [row.kind for row in batch]


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up over 40 steps, then a cosine to a twentieth."""
    return min(1.0, (step + 1) / 40) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))

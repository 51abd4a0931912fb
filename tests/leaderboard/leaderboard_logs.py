"""Synthetic but realistic run logs, written through the real Recorder: two models x base, zero-rl, actguide.

The numbers are drawn from seeded generators, not measured; they exist so that pages and queries have something to show.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.events import Kind, Recorder

PLACES = ("Alder", "Birchum", "Corvale", "Dunmere", "Eastlow", "Fenwick", "Garrow", "Holmby", "Iverness", "Jarrow", "Kelding", "Lorne")
RELATIONS = ("capital", "founder", "river", "patron", "rival", "mayor")
CURVES: Mapping[str, tuple[float, float]] = {"base": (0.08, 0.0), "zero-rl": (0.08, 0.10), "actguide": (0.08, 0.42)}
PARTS = {"data": ["0f1e2d3c", None], "judge": "exact", "agent": {"max_turns": 10, "temperature": 0.0}}
GAIA = {"level": ("1",) * 16 + ("2",) * 20 + ("3",) * 6}  # the shares of the real set; the rows are made up
WALKER = {"difficulty_level": ("easy",) * 12 + ("medium",) * 20 + ("hard",) * 18}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to write: a run of ``method`` on ``model``; a base has no training steps."""

    model: str
    method: str
    seed: int = 0
    steps: int = 40
    groups: int = 16
    questions: int = 100
    lift: float = 0.0
    finished: bool = True
    name: str | None = None

    @property
    def run_id(self) -> str:
        return self.name or f"{self.model}-{self.method}-s{self.seed}"


def build(runs_dir: Path, recipe: Recipe) -> Path:
    """Write one run directory and return it."""
    run_dir = runs_dir / recipe.run_id
    rng = random.Random(recipe.run_id)
    with Recorder(run_dir) as log:
        start(log, recipe)
        if recipe.method != "base":
            for step in range(recipe.steps):
                training_step(log, recipe, step, rng)
            log.record(
                Kind.CHECKPOINT,
                {"step": recipe.steps, "folder": f"checkpoints/step-{recipe.steps:06d}", "files": {"model.safetensors": "0" * 64}},
            )
        if recipe.finished:
            start_level, gain = CURVES[recipe.method]
            evaluate(log, recipe, start_level + gain + recipe.lift, rng)
            log.record(Kind.RUN, {"phase": "finished", "run_id": recipe.run_id})
    return run_dir


def start(log: Recorder, recipe: Recipe) -> None:
    """The ``started`` event with a resolved configuration and provenance."""
    training = {} if recipe.method == "base" else {"trainer": recipe.method, "steps": recipe.steps, "lr": 0.0003, "group": 8, "kl": 0.001}
    config = {
        "model": recipe.model,
        "seed": recipe.seed,
        "tasks": "miniweb",
        "engine": {"name": "hf", "temperature": 1.0},
        "training": training,
    }
    provenance = {"git_sha": "b781aeb", "python": "3.11.9", "packages": {"torch": "2.13.0"}, "hardware": "2 CPU cores"}
    command = "eval" if recipe.method == "base" else "run"
    payload = {
        "phase": "started",
        "run_id": recipe.run_id,
        "command": command,
        "model": recipe.model,
        "method": recipe.method,
        "seed": recipe.seed,
    }
    log.record(Kind.RUN, payload | {"config": config, "provenance": provenance, "parent": None, "error": None})


def evaluate(log: Recorder, recipe: Recipe, level: float, rng: random.Random, comparability: str = "c0ffee12") -> str:
    """One finished evaluation on the held-out worlds; returns its id."""
    step = 0 if recipe.method == "base" else recipe.steps
    evaluation = f"{recipe.run_id}/eval/miniweb/test/{step}"
    head = {"evaluation_id": evaluation, "benchmark": "miniweb", "split": "test", "step": step, "n": recipe.questions, "judge": "exact"}
    head |= {"model": recipe.model, "method": recipe.method, "seed": recipe.seed, "comparability": comparability}
    head |= {"generated_tokens_total": 60_000 * step // 4 or None}
    log.record(Kind.EVALUATION, {"phase": "started", **head})
    for i in range(recipe.questions):
        hops = 3 + i % 2
        chance = level * (1.15 if hops == 3 else 0.7)
        difficulty = random.Random(f"question {i}").random()
        right = 0.6 * difficulty + 0.4 * rng.random() < chance + 0.1 * (rng.random() - 0.5)
        question = f"Which {RELATIONS[i % 6]} does the {RELATIONS[(i + 2) % 6]} of {PLACES[i % 12]} have?"
        record_attempt(
            log,
            Episode(task_id=f"test-{i:03d}", question=question, hops=hops, right=right, purpose="eval", step=step, evaluation=evaluation),
            rng,
        )
    log.record(Kind.EVALUATION, {"phase": "finished", **head})
    return evaluation


def search_set(log: Recorder, recipe: Recipe, benchmark: str, tags: Mapping[str, tuple[str, ...]], level: float, **head: Any) -> str:
    """A finished evaluation on made-up rows of a search benchmark: no text, no token arrays, one tag."""
    ((tag, values),) = tags.items()
    step = 0 if recipe.method == "base" else recipe.steps
    evaluation = f"{recipe.run_id}/eval/{benchmark}/test/{step}"
    row = {"evaluation_id": evaluation, "benchmark": benchmark, "split": "test", "step": step, "n": len(values), "judge": "exact"}
    row |= {"model": recipe.model, "method": recipe.method, "seed": recipe.seed, "comparability": "beef0001", "comparability_parts": PARTS}
    row |= {"generated_tokens_total": None} | head
    log.record(Kind.EVALUATION, {"phase": "started", **row})
    for i, value in enumerate(values):
        chance = level * {"1": 1.3, "2": 0.9, "3": 0.5, "easy": 1.2, "medium": 1.0, "hard": 0.85}[value]
        right = random.Random(f"{benchmark} {i}").random() < chance
        attempt = {"attempt_id": f"{evaluation}/{i}", "task_id": f"{benchmark}-{i:03d}", "question": f"A made-up question, number {i}?"}
        attempt |= {"web": benchmark, "gold": None, "tags": {tag: value}, "purpose": "eval", "evaluation_id": evaluation, "step": step}
        attempt |= {
            "level": 0,
            "index": 0,
            "status": "answered",
            "answer": f"answer {i}",
            "detail": "",
            "turns": [],
            "hint": None,
            "blob": None,
        }
        log.record(Kind.ATTEMPT, attempt | {"usage": {"turns": 3, "generated_tokens": 200}})
        judge(log, f"{evaluation}/{i}", "exact", right)
    log.record(Kind.EVALUATION, {"phase": "finished", **row})
    return evaluation


def judge(log: Recorder, attempt_id: str, name: str, right: bool | None, layer: str = "") -> None:
    """One verdict; a second one by another name is a regrade."""
    record = {"attempt_id": attempt_id, "judge": name, "value": None if right is None else float(right), "detail": "made up"}
    record |= {"status": "outage" if right is None else "judged", "layer": layer or ("exact:alias" if right else "exact:none")}
    log.record(Kind.JUDGEMENT, record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One attempt to write."""

    task_id: str
    question: str
    hops: int
    right: bool | None
    purpose: str = "train"
    step: int = 0
    level: int = 0
    index: int = 0
    evaluation: str | None = None
    status: str = "answered"

    @property
    def attempt_id(self) -> str:
        head = self.evaluation or f"{self.purpose}/{self.step}"
        return f"{head}/{self.task_id}/k{self.level}/{self.index}"


def record_attempt(log: Recorder, episode: Episode, rng: random.Random, tokens: bool = True) -> str:
    """An attempt with turns, token arrays and its verdict; returns its id."""
    turns = _turns(episode, rng)
    gold = PLACES[(len(episode.task_id) + episode.index * 0 + sum(map(ord, episode.task_id))) % 12]
    answer = gold if episode.right else rng.choice([p for p in PLACES if p != gold])
    turns.append({"text": f"I have followed the chain to its end. Answer: {answer}", "actions": [], "observations": [], "tool_errors": 0})
    status = "tool_outage" if episode.right is None else episode.status
    generated = sum(len(t["text"].split()) * 2 for t in turns)
    usage = {"prompt_tokens": 180 + 60 * len(turns), "generated_tokens": generated, "turns": len(turns), "tool_calls": len(turns) - 1}
    usage |= {"tool_errors": 0, "seconds": round(rng.uniform(0.4, 1.8), 3)}
    hint = None
    if episode.level:
        hint = "Plan:\n" + "\n".join(f'{k + 1}. search {{"query": "{PLACES[k]} {RELATIONS[k]}"}}' for k in range(episode.level))
    payload: dict[str, Any] = {"attempt_id": episode.attempt_id, "task_id": episode.task_id, "question": episode.question, "web": "miniweb"}
    payload |= {"gold": [gold], "tags": {"hops": str(episode.hops), "split": episode.purpose}, "purpose": episode.purpose}
    payload |= {"evaluation_id": episode.evaluation, "step": episode.step, "level": episode.level, "index": episode.index, "status": status}
    payload |= {"answer": None if episode.right is None else answer, "detail": "", "turns": turns, "usage": usage, "hint": hint}
    payload["blob"] = log.blob(_arrays(turns, rng)) if tokens else None
    log.record(Kind.ATTEMPT, payload)
    judged = {"attempt_id": episode.attempt_id, "judge": "exact", "value": None if episode.right is None else float(episode.right)}
    layer = "exact:alias" if episode.right else "exact:none"
    detail = f"{answer!r} equals an accepted answer after normalisation" if episode.right else f"{answer!r} is no accepted answer"
    judged |= {"status": "outage" if episode.right is None else "judged", "layer": layer, "detail": detail}
    log.record(Kind.JUDGEMENT, judged)
    return episode.attempt_id


def _turns(episode: Episode, rng: random.Random) -> list[dict[str, Any]]:
    turns = []
    for hop in range(episode.hops if episode.right else rng.randint(1, episode.hops)):
        place, relation = rng.choice(PLACES), RELATIONS[(hop + len(episode.question)) % 6]
        visit = hop % 2 == 1
        action = (
            {"name": "visit", "arguments": {"url": f"world://{place.lower()}"}}
            if visit
            else {"name": "search", "arguments": {"query": f"{place} {relation}"}}
        )
        page = f"{place}. The {relation} of {place} is {rng.choice(PLACES)}. See also: " + ", ".join(rng.sample(PLACES, 5)) + "."
        text = f"<think>I need the {relation} of {place} before I can go on.</think>\nLet me look at {place}."
        turns.append({"text": text, "actions": [action], "observations": [page], "tool_errors": 0})
    return turns


def _arrays(turns: list[dict[str, Any]], rng: random.Random) -> dict[str, Any]:
    pieces = [[w + " " for w in turn["text"].split(" ")] for turn in turns]
    spans = [
        {
            "ids": [sum(map(ord, w)) % 1000 for w in words],
            "logprobs": [-abs(rng.gauss(0, 0.7)) for _ in words],
            "version": 0,
            "finish": "stop",
        }
        for words in pieces
    ]
    contexts = [[1, 2, 3, 4]] + [[5, 6]] * (len(turns) - 1)
    return {"contexts": contexts, "target": contexts, "spans": spans, "pieces": pieces}


def training_step(log: Recorder, recipe: Recipe, step: int, rng: random.Random) -> None:
    start_level, gain = CURVES[recipe.method]
    skill = start_level + recipe.lift + gain * (1 - math.exp(-step / 14))
    outcomes, rows, levels = [], [], []
    for slot in range(recipe.groups):
        number = (step * recipe.groups + slot) * 37 % 96
        hops = 2 + number % 3
        hard = random.Random(f"task {number}").random()
        roll = 0.65 * hard + 0.35 * rng.random()
        outcome, level = ("solved", None) if roll < skill * 1.5 else ("failed", None)
        if outcome == "failed" and recipe.method == "actguide" and roll < skill * 1.5 + 0.62:
            outcome, level = "rescued", min(hops, 1 + int(rng.random() * hops * (1.2 - skill)))
        if rng.random() < 0.006:
            outcome, level = "unscorable", None
        outcomes.append(outcome)
        levels += [level] if level else []
        rows += _group(log, Draw(step=step, number=number, hops=hops, outcome=outcome, level=level, sampled=slot < 2), rng)
    log.record(Kind.CREDIT, {"step": step, "rows": rows})
    log.record(Kind.STEP, {"step": step, **_step_numbers(recipe, step, outcomes, levels, rng)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One group to write; only ``sampled`` ones get full attempts, to keep the logs small."""

    step: int
    number: int
    hops: int
    outcome: str
    level: int | None
    sampled: bool


def _group(log: Recorder, draw: Draw, rng: random.Random) -> list[dict[str, Any]]:
    task_id = f"train-{draw.number:03d}"
    members, rows = [], []
    question = f"Which {RELATIONS[draw.number % 6]} is linked to {PLACES[draw.number % 12]} over {draw.hops} pages?"
    for index in range(4 if draw.sampled else 0):
        guided = draw.level is not None and index >= 2
        right = None if draw.outcome == "unscorable" else (guided or (draw.outcome == "solved" and index % 2 == 0))
        episode = Episode(
            task_id=task_id,
            question=question,
            hops=draw.hops,
            right=right,
            purpose="probe" if guided else "train",
            step=draw.step,
            level=draw.level or 0 if guided else 0,
            index=index,
        )
        members.append(record_attempt(log, episode, rng))
        ratio = math.exp(-abs(rng.gauss(0, 1.2))) if guided else math.exp(rng.gauss(0, 0.02))
        advantage = 0.0 if draw.outcome in ("failed", "unscorable") else (0.94 if right else -0.94)
        rows.append(
            {
                "attempt_id": members[-1],
                "advantage": advantage,
                "tokens": 90,
                "guided": guided,
                "ratio_mean": ratio,
                "trained": advantage != 0,
            }
        )
    probes = [[k, k == draw.level] for k in range(1, (draw.level or draw.hops) + 1)] if draw.outcome in ("rescued", "failed") else []
    payload = {"group_id": f"g/{draw.step}/{task_id}", "step": draw.step, "task_id": task_id, "outcome": draw.outcome, "level": draw.level}
    log.record(
        Kind.GROUP, payload | {"max_level": draw.hops, "members": members, "probes": probes, "generated_tokens": 700 + 90 * len(probes)}
    )
    return rows


def _step_numbers(recipe: Recipe, step: int, outcomes: list[str], levels: list[int], rng: random.Random) -> dict[str, Any]:
    n = len(outcomes)
    share = {o: outcomes.count(o) for o in ("solved", "rescued", "failed", "unscorable")}
    unguided = share["solved"] / n * 0.55
    guided = recipe.method == "actguide"
    metrics: dict[str, float | None] = {f"groups/{o}": c for o, c in share.items()}
    metrics |= {"groups/trainable_unguided": share["solved"], "length/guided_turns_mean": 3.0}
    metrics |= {"groups/total": n, "groups/trainable": share["solved"] + share["rescued"], "reward/unguided_mean": unguided}
    metrics |= {"reward/mean": unguided + share["rescued"] / n * 0.4, "length/turns_mean": 2.4 + unguided * 3 + rng.gauss(0, 0.1)}
    metrics |= {"length/tokens_mean": 84 + unguided * 60 + rng.gauss(0, 4), "policy/loss": rng.gauss(0, 0.02), "policy/kl": 0.0006 * step}
    metrics |= {"policy/clip_fraction": 0.02 + rng.random() * 0.01, "policy/grad_norm": 0.6 + rng.random() * 0.3}
    metrics |= {"mismatch/logprob_max": 4e-5 + rng.random() * 5e-5, "mismatch/logprob_mean": 4e-6 + rng.random() * 3e-6}
    metrics |= {
        "time/rollout": 3.1 + rng.random(),
        "time/update": 1.2 + rng.random() * 0.2,
        "time/sync": 0.02,
        "time/step": 4.6 + rng.random(),
    }
    metrics |= {"memory/peak_mb": 1180 + step * 2.0, "throughput/tokens_per_s": 2900 + rng.gauss(0, 150)}
    metrics |= {
        "tokens/generated": 11_000 + 1500 * guided,
        "tokens/generated_total": (11_000 + 1500 * guided) * (step + 1),
        "tokens/trained": 8200,
    }
    histograms = {}
    if guided:
        metrics |= {
            "guided/share": share["rescued"] / max(n - share["failed"], 1) * 0.5,
            "guidance/level_mean": sum(levels) / len(levels) if levels else None,
        }
        metrics |= {
            "guidance/probe_trajectories": 12 + 40 * (share["failed"] + share["rescued"]) / n,
            "guidance/probe_tokens": 1500.0,
            "guidance/discarded_trajectories": 8.0,
            "guidance/discarded_tokens": 320.0,
            "ratio/guided_clipped_mass": 0.12,
            "ratio/guided_mean": min(1.0, 0.35 + step * 0.01),
        }
        metrics |= {"ratio/unguided_mean": 1.0, "ratio/guided_lost_mass": max(0.1, 0.5 - step * 0.01)}
        edges = [10.0 ** (e / 2) for e in range(-8, 3)]
        counts = [max(0, round(rng.gauss(8 + 7 * i + (step * i) / 10, 3))) for i in range(len(edges) - 3)] + [
            round(240 + rng.gauss(0, 20)),
            22,
        ]
        histograms["ratio/guided"] = {"edges": edges, "counts": counts}
        histograms["guidance/level"] = {"edges": [0.5, 1.5, 2.5, 3.5, 4.5], "counts": [levels.count(k) for k in (1, 2, 3, 4)]}
    return {"metrics": metrics, "histograms": histograms}


def build_search(runs_dir: Path) -> list[Path]:
    """A larger model on two search benchmarks with levels: base, zero-rl, actguide; the base regraded by a second judge."""
    folders = []
    for method, gaia, walker in (("base", 0.30, 0.30), ("zero-rl", 0.36, 0.44), ("actguide", 0.52, 0.64)):
        recipe = Recipe(model="qwen3-8b", method=method, steps=64)
        folders.append(runs_dir / recipe.run_id)
        with Recorder(folders[-1]) as log:
            start(log, recipe)
            search_set(log, recipe, "gaia", GAIA, gaia)
            other = {"comparability": "beef0002", "comparability_parts": PARTS | {"agent": {"max_turns": 30, "temperature": 0.0}}}
            walked = search_set(log, recipe, "webwalkerqa", WALKER, walker, **(other if method == "zero-rl" else {}))
            if method == "base":
                for i in range(50):
                    judge(log, f"{walked}/{i}", "llm:made-up", None if i == 49 else i % 3 == 0, "llm:verdict")
            log.record(Kind.RUN, {"phase": "finished", "run_id": recipe.run_id})
    return folders


def build_board(home: Path) -> list[Path]:
    """The whole set: two models x base / zero-rl / actguide, three seeds of the smaller model's trainers."""
    recipes = [Recipe(model=m, method="base", lift=lift) for m, lift in (("tiny", 0.0), ("smollm2-135m", 0.05))]
    recipes += [Recipe(model="tiny", method=method, seed=seed) for seed in range(3) for method in ("zero-rl", "actguide")]
    recipes += [Recipe(model="smollm2-135m", method=method, steps=12, lift=0.05) for method in ("zero-rl", "actguide")]
    return [*(build(home / "runs", recipe) for recipe in recipes), *build_search(home / "runs")]

"""docs/pitfalls.md names tests that exist; and the two pitfalls that belong to no module of their own."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from fakes import MemoryLog, PolicyEngine, call, tiny_chat

from benchmarks.evaluate import Evaluation, Part, evaluate
from harness.config import build
from harness.engines.base import Request
from harness.envs.search import SearchEnv, SearchLimits
from harness.episode import AgentConfig
from harness.errors import UsageError
from harness.tiny.world import make_tasks, make_world
from harness.web.corpus import CorpusWeb
from judges.attempts import Sampler
from judges.exact import ExactJudge
from trainers.config import RunConfig
from trainers.rollouts import StepRollouts

REPO = Path(__file__).parent.parent
ROWS = [line for line in (REPO / "docs/pitfalls.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]


def test_every_pitfall_names_tests_that_exist() -> None:
    assert len(ROWS) == 35
    for row in ROWS:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert named, row
        for path, name in named:
            assert re.search(rf"^def {name}\(", (REPO / path).read_text(encoding="utf-8"), re.MULTILINE), f"{path}::{name}"


@pytest.mark.parametrize("name", ["top_p", "top_k", "min_p"])
def test_top_p_and_top_k_are_refused(name: str) -> None:
    for section in ("generation", "agent"):
        with pytest.raises(UsageError, match=f"unknown setting '{section}.{name}'"):
            build(RunConfig, {section: {name: 0.5}})


def test_training_and_evaluation_ask_and_score_alike(tmp_path: Path) -> None:
    world = make_world("alike")
    web, tasks = CorpusWeb(world.pages()), make_tasks(world, 2, 4, {})

    def say(request: Request, prompt: str) -> str:
        if "<tool_response>" not in prompt.rpartition("Who is ")[2]:
            return call("search", query=["anybody"])
        return f"<answer>{next(t.gold[0] for t in tasks if t.question in prompt) if len(prompt) % 2 else 'nobody'}</answer>"

    asked, scores = [], []
    for path in ("training", "evaluation"):
        engine = PolicyEngine(say)
        sampler = Sampler(
            engine=engine,
            chat=tiny_chat(),
            env=lambda task: SearchEnv(web, SearchLimits()),
            judge=ExactJudge(closed=True),
            agent=AgentConfig(temperature=0.0),
            log=MemoryLog(),
        )
        if path == "training":
            rollouts = StepRollouts(sampler=sampler, run_seed=0, step=0)
            scores.append([asyncio.run(rollouts.sample(task, size=1))[0].score.value for task in tasks])
        else:
            evaluation = Evaluation(id="e", benchmark="b", split="test", model="m", method="base", seed=0)
            result = asyncio.run(evaluate(Part(evaluation=evaluation, tasks=tasks, sampler=sampler), tmp_path))
            scores.append([result.scores[task.id] for task in tasks])
        asked.append(sorted((request.ids, request.max_tokens, request.temperature) for request in engine.requests))
    assert asked[0] == asked[1] and len(asked[0]) == 2 * len(tasks)
    assert scores[0] == scores[1]

"""The shipped model fits what it was made from, and is the base it should be."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.errors import DataError
from harness.tiny import manifest, model_dir
from harness.tiny.behaviour import BOUNDS, unacceptable
from harness.types import Action
from trainers.guidance.inject import plan_text


def test_prompt_plan_template_world_and_files_are_what_the_weights_were_made_from() -> None:
    manifest.check(model_dir(), plan_text)


def test_another_plan_wording_is_named() -> None:
    def reworded(actions: Sequence[Action], level: int) -> str:
        return plan_text(actions, level).replace("route", "path")

    with pytest.raises(DataError, match="other versions of: plan"):
        manifest.check(model_dir(), reworded)


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    shutil.copytree(model_dir(), tmp_path / "model")
    with (tmp_path / "model" / "tokenizer.json").open("a") as stream:
        stream.write(" ")
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        manifest.check(tmp_path / "model", plan_text)


def test_the_accepted_behaviour_is_within_the_bounds() -> None:
    measured = json.loads((model_dir() / "manifest.json").read_text())["behaviour"]
    assert measured.keys() == BOUNDS.keys()
    assert unacceptable(measured) == []


def test_a_certain_base_is_not_accepted() -> None:
    certain = {**{name: low for name, (low, _) in BOUNDS.items()}, "role_entropy": 0.1, "pass@1": 0.5}
    assert [line.split()[0] for line in unacceptable(certain)] == ["pass@1", "role_entropy"]


def test_the_model_has_at_most_five_million_parameters() -> None:
    from safetensors import safe_open

    with safe_open(model_dir() / "model.safetensors", "numpy") as stored:  # type: ignore[no-untyped-call]
        assert sum(stored.get_tensor(name).size for name in stored.keys()) <= 5_000_000  # noqa: SIM118


@pytest.mark.slow
def test_it_behaves_as_the_manifest_says() -> None:
    from harness.cli.tiny import _measure

    measured = asyncio.run(_measure(model_dir()))
    assert unacceptable(measured) == []
    accepted = json.loads((model_dir() / "manifest.json").read_text())["behaviour"]
    assert measured == pytest.approx(accepted, abs=0.05)


def test_episodes_keep_their_bits_whatever_runs_beside_them() -> None:
    """With one order of arrival and another, eight at a time: attention that read only as far as the longest row failed this."""
    import random

    from harness.chat import Chat
    from harness.engines.base import EngineConfig
    from harness.engines.hf import HFEngine
    from harness.envs.search import SearchEnv, SearchLimits
    from harness.episode import AgentConfig, Draw, run_episode
    from harness.tasks.miniweb import MiniWeb
    from harness.types import Purpose, Span, Task

    questions = MiniWeb(questions=3, worlds={"train": 4}).load(None)
    chat = Chat.load(model_dir())

    async def sampled(order: int) -> dict[str, tuple[Span, ...]]:
        engine = HFEngine(model_dir(), EngineConfig(context=256, slots=8))
        gate, noise = asyncio.Semaphore(8), random.Random(order)

        async def episode(task: Task, index: int) -> tuple[str, tuple[Span, ...]]:
            async with gate:
                await asyncio.sleep(noise.random() * 0.003)
                draw = Draw(task=task, run_seed=0, purpose=Purpose.TRAIN, index=index)
                env = SearchEnv(questions.web(task.web), SearchLimits(results=1))
                agent = AgentConfig(max_turns=6, response_tokens=180, context_tokens=256)
                attempt = await run_episode(draw, env=env, engine=engine, chat=chat, config=agent, temperature=1.0)
                return attempt.id, attempt.trajectory.spans

        jobs = [(task, index) for task in questions.split("train") for index in range(4)]
        noise.shuffle(jobs)
        found = dict(await asyncio.gather(*(episode(*job) for job in jobs)))
        await engine.close()
        return found

    assert asyncio.run(sampled(1)) == asyncio.run(sampled(2))

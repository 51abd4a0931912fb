"""``harness tiny``: make the shipped model again, or check that it still fits what it was made from."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from harness.errors import HarnessError


@click.group()
def tiny() -> None:
    """Rebuild or check the tiny model that is shipped."""


@tiny.command()
@click.option(
    "--behaviour", is_flag=True, help="Also run it, and train it by RL alone, and compare with the accepted bounds (five minutes)."
)
def check(behaviour: bool) -> None:
    """Check files and ingredients against the manifest."""
    from harness.tiny import manifest, model_dir
    from trainers.guidance.inject import plan_text

    manifest.check(model_dir(), plan_text)
    click.echo("tiny: files, prompt, plan wording, template and world are what the weights were made from")
    if behaviour:
        _accept({**asyncio.run(_measure(model_dir())), "zero_rl": _alone(model_dir())})


@tiny.command()
@click.option("--out", type=click.Path(path_type=Path), help="Where to write it (default: into the package).")
@click.option("--threads", type=int, default=None, help="CPU threads (default: PyTorch's choice).")
@click.option("--route", is_flag=True, help="Also drill it in taking questions apart: RL alone then learns them, so it is not accepted.")
def rebuild(out: Path | None, threads: int | None, route: bool) -> None:
    """Make the model from nothing (twenty minutes on one core), and accept it by its behaviour and by what RL alone makes of it."""
    import torch

    from harness import tiny as package
    from harness.chat import Chat
    from harness.tiny import manifest
    from harness.tiny.pretrain import DRILLS, ROUTE, Recipe, conversations_as_text, make_model, pretrain
    from harness.tiny.tokenizer import train_tokenizer
    from trainers.guidance.inject import plan_text

    if threads:
        torch.set_num_threads(threads)
    recipe = Recipe(drills=(*DRILLS, ROUTE)) if route else Recipe()
    tokenizer = train_tokenizer(conversations_as_text(random.Random(0), 3000, plan_text), recipe.vocabulary)
    model = make_model(recipe, Chat(tokenizer), len(tokenizer))
    pretrain(model, recipe, Chat(tokenizer), plan_text, _report)
    folder = out or Path(package.__file__).parent / "model"
    with tempfile.TemporaryDirectory() as made:  # a model that is not accepted must not replace the one that is there
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        measured = {**asyncio.run(_measure(Path(made))), "zero_rl": _alone(Path(made))}
        _accept(measured)
        manifest.write(Path(made), plan_text, {name: round(value, 4) for name, value in measured.items()})
        shutil.copytree(made, folder, dirs_exist_ok=True)
    click.echo(f"wrote {folder}")


def _report(step: int, loss: float, accuracy: dict[str, float]) -> None:
    click.echo(f"step {step}  loss {loss:.3f}  " + "  ".join(f"{kind} {value:.2f}" for kind, value in accuracy.items()))


async def _measure(folder: Path) -> dict[str, float]:
    from harness.chat import Chat
    from harness.cli.assemble import open_engine
    from harness.engines.base import EngineConfig
    from harness.tiny.behaviour import measure
    from trainers.guidance.inject import plan_text

    engine = open_engine("hf", folder, EngineConfig(context=256, slots=32))
    try:
        return await measure(engine, Chat.load(folder), plan_text)
    finally:
        await engine.close()


def _alone(folder: Path, steps: int | None = None) -> float:
    """The score on validation questions that zero-RL reaches from these weights, with the settings of the entry ``tiny`` and seed 0."""
    from harness.cli.study import Training, fitting, last_evaluation, verdicts
    from harness.models import find_model

    entry = dict(find_model("tiny").settings)
    most = entry.pop("steps")
    assert isinstance(most, int)
    settings = fitting("zero-rl", [*(f"{key}={value}" for key, value in entry.items()), "eval_split=validation"])
    training = Training(trainer="zero-rl", model=str(folder), tasks="miniweb", steps=steps or most, settings=settings)
    with tempfile.TemporaryDirectory() as home:
        run = Path(home) / "runs" / "alone"
        click.echo(f"zero-RL alone, {training.steps} steps from these weights")
        command = [sys.executable, "-m", "harness.cli.main", "run", *training.arguments(seed=0), "--out", str(run)]
        environment = {**os.environ, "HARNESS_HOME": home, "HARNESS_DATABASE_URL": ""}  # on no board of the user's
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise HarnessError(f"zero-RL from these weights failed with exit code {done.returncode}; what it said stands above")
        scores = verdicts(run, last_evaluation(run, "validation")["evaluation_id"]).values()
    return sum(scores) / len(scores)


def _accept(measured: dict[str, float]) -> None:
    from harness.tiny.behaviour import BOUNDS, unacceptable

    for name, value in measured.items():
        low, high = BOUNDS[name]
        click.echo(f"{name:14} {value:.3f}   accepted {low:.2f} to {high:.2f}")
    wrong = unacceptable(measured)
    if wrong:
        raise HarnessError("this model is not the base it should be: " + "; ".join(wrong))

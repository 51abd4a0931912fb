"""``harness tiny``: make the shipped model again, or check that it still fits what it was made from."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from pathlib import Path

import click

from harness.errors import HarnessError


@click.group()
def tiny() -> None:
    """Rebuild or check the tiny model that is shipped."""


@tiny.command()
@click.option("--behaviour", is_flag=True, help="Also run it and compare what it does with the accepted bounds (a minute).")
def check(behaviour: bool) -> None:
    """Check files and ingredients against the manifest."""
    from harness.tiny import manifest, model_dir
    from trainers.guidance.inject import plan_text

    manifest.check(model_dir(), plan_text)
    click.echo("tiny: files, prompt, plan wording, template and world are what the weights were made from")
    if behaviour:
        _accept(asyncio.run(_measure(model_dir())))


@tiny.command()
@click.option("--out", type=click.Path(path_type=Path), help="Where to write it (default: into the package).")
@click.option("--threads", type=int, default=None, help="CPU threads (default: PyTorch's choice).")
def rebuild(out: Path | None, threads: int | None) -> None:
    """Make the model from nothing (a quarter of an hour on one core), and accept it by its behaviour."""
    import torch

    from harness import tiny as package
    from harness.chat import Chat
    from harness.tiny import manifest
    from harness.tiny.pretrain import Recipe, conversations_as_text, make_model, pretrain
    from harness.tiny.tokenizer import train_tokenizer
    from trainers.guidance.inject import plan_text

    if threads:
        torch.set_num_threads(threads)
    recipe = Recipe()
    tokenizer = train_tokenizer(conversations_as_text(random.Random(0), 3000, plan_text), recipe.vocabulary)
    model = make_model(recipe, Chat(tokenizer), len(tokenizer))
    pretrain(model, recipe, Chat(tokenizer), plan_text, _report)
    folder = out or Path(package.__file__).parent / "model"
    with tempfile.TemporaryDirectory() as made:  # a model that is not accepted must not replace the one that is there
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        measured = asyncio.run(_measure(Path(made)))
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


def _accept(measured: dict[str, float]) -> None:
    from harness.tiny.behaviour import BOUNDS, unacceptable

    for name, value in measured.items():
        low, high = BOUNDS[name]
        click.echo(f"{name:14} {value:.3f}   accepted {low:.2f} to {high:.2f}")
    wrong = unacceptable(measured)
    if wrong:
        raise HarnessError("this model is not the base it should be: " + "; ".join(wrong))

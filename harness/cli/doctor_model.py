"""``harness doctor --model``: the checks of a user's own model, tokenizer and template, built with the parts that a run would use."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.checkup.base import Checkup, Verdict, worst
from harness.checkup.template import UNUSABLE, examine_template
from harness.errors import HarnessError

BYTES_A_PARAMETER = 24  # engine 4, learner 4, gradient 4, AdamW 8, and room for activations
COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.ERROR: "red", Verdict.SKIPPED: "dim"}
ENDINGS = {
    Verdict.OK: "{name}: nothing here would corrupt training.",
    Verdict.WARNING: "{name}: nothing here would corrupt training; read the warnings.",
    Verdict.ERROR: "{name}: training would be corrupted; set what is said above first.",
}
QUESTIONS = (
    "Which river flows through Zurich?",
    "Who is the mentor of Bora?",
    "How many bridges?",
    "Name the capital of the lake's country.",
)
ANSWER = "<answer>The river Limmat, over {} bridges</answer>"


def examine_model(name: str, *, engine: str, quick: bool, settings: Mapping[str, Any]) -> list[Checkup]:
    """Every check of a model; ``quick`` leaves out those that load its weights. Raises ``HarnessError`` if there is no such model."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    from harness.engines.worker import end_ids
    from harness.models import model_directory

    _, directory = model_directory(name)
    tokenizer, config = AutoTokenizer.from_pretrained(str(directory)), AutoConfig.from_pretrained(str(directory)).get_text_config()
    generation = GenerationConfig.from_pretrained(directory) if (directory / "generation_config.json").is_file() else None
    context = settings.get("generation.context") or getattr(config, "max_position_embeddings", None)
    checks = examine_template(tokenizer, ends=end_ids(generation, config), vocabulary=config.vocab_size, context=context)
    if quick:
        return checks
    if any(check.name == UNUSABLE for check in checks):  # nothing can be sampled
        return [*checks, *_skipped("no prompt can be rendered with this template", "mend the template first")]
    return [*checks, *_examine_weights(directory, tokenizer, engine=engine, settings=settings)]


def _examine_weights(directory: Path, tokenizer: Any, *, engine: str, settings: Mapping[str, Any]) -> Iterator[Checkup]:
    needed, free = _parameters(directory) * BYTES_A_PARAMETER / 2**30, _free_gib()
    if needed > free:
        found = f"needs about {needed:.0f} GiB of memory, {free:.0f} GiB are free"
        yield from _skipped(found, "run the doctor where the model will be trained")
        return
    try:
        yield from asyncio.run(_with_parts(directory, tokenizer, engine=engine, settings=settings))
    except (HarnessError, RuntimeError, ValueError) as error:
        yield Checkup(
            name="weights",
            verdict=Verdict.ERROR,
            found=str(error),
            consequence="engine or learner cannot run this model, so no run starts",
            remedy="`harness doctor` says what this machine lacks; else use a decoder that transformers loads as AutoModelForCausalLM",
        )


def _skipped(found: str, remedy: str) -> Iterator[Checkup]:
    for name in ("engine against learner", "padding and packing", "one-batch overfit"):
        yield Checkup(name=name, verdict=Verdict.SKIPPED, found=found, remedy=remedy)


async def _with_parts(directory: Path, tokenizer: Any, *, engine: str, settings: Mapping[str, Any]) -> list[Checkup]:
    from harness.chat import Chat
    from harness.cli.assemble import open_engine
    from harness.engines.base import EngineConfig
    from harness.envs.search import SYSTEM
    from trainers.checkup import one_batch_is_learned, padding_is_harmless, sampler_agrees
    from trainers.learner.base import LearnerConfig
    from trainers.learner.deepspeed import DeepSpeedLearner
    from trainers.sample import Sample

    chat = Chat(tokenizer)
    prompts = [chat.prompt(({"role": "system", "content": SYSTEM}, {"role": "user", "content": question}), ()) for question in QUESTIONS]
    answers = [(*chat.encode(ANSWER.format(number)), chat.end_id) for number in range(len(prompts))]
    dtype = str(settings.get("learner.dtype", "float32"))
    width = _config(directory).hidden_size
    longest = max(map(len, prompts)) + max(32, *map(len, answers))
    opened = open_engine(
        engine, directory, EngineConfig(context=max(128, longest), slots=4, dtype=settings.get("generation.dtype", "float32"))
    )
    # A rate at which few updates show an effect; a run's own is far smaller.
    quick = {"lr": min(3e-3, 0.1 / width), "dtype": dtype, "zero_stage": 0 if dtype == "float32" else 1}
    learner = DeepSpeedLearner(directory, LearnerConfig.model_validate(quick))
    try:
        rows = [(*prompt, *answer) for prompt, answer in zip(prompts, answers, strict=True)]
        rows[-1] = (*rows[-1], *answers[0], *answers[1])  # lengths that differ
        samples = [
            Sample(
                attempt_id=str(number),
                group_id=str(number),
                ids=(*prompt, *answer),
                mask=(False,) * len(prompt) + (True,) * len(answer),
                behaviour=(0.0,) * len(answer),
                advantages=(1.0,) * len(answer),
            )
            for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
        ]
        return [
            await sampler_agrees(opened, learner, prompts, dtype),
            padding_is_harmless(learner, rows, dtype),
            one_batch_is_learned(learner, samples),
        ]
    finally:
        learner.close()
        await opened.close()


def _config(directory: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(directory)).get_text_config()


def _parameters(directory: Path) -> int:
    """Parameters of the stored weights, from the headers of their files."""
    from math import prod

    from safetensors import safe_open

    total = 0
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            total += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - not a mapping
    return total


def _free_gib() -> float:
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0]) / 2**30
    facts = Path("/proc/meminfo")
    if facts.is_file():
        available = next((line for line in facts.read_text().splitlines() if line.startswith("MemAvailable:")), None)
        if available is not None:
            return int(available.split()[1]) / 2**20
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def print_checks(name: str, checks: Sequence[Checkup]) -> None:
    """A table in a terminal, plain lines elsewhere; what is wrong is said in full below it."""
    console = Console()
    if console.is_terminal:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("", "state", "found"):
            table.add_column(column, no_wrap=column != "found")
        for check in checks:
            table.add_row(check.name, f"[{COLOURS[check.verdict]}]{check.verdict}[/]", escape(check.found))
        console.print(table)
    else:
        for check in checks:
            click.echo(f"{check.verdict}: {check.name}: {check.found}")
    for check in checks:
        if check.consequence:
            click.echo(f"\n{check.name}: {check.found}.\n  In training: {check.consequence}.\n  What to set: {check.remedy}.")
    click.echo("\n" + ENDINGS[worst(checks)].format(name=name))

"""What one evaluation will do: its benchmarks with their data, its samples, and what becomes of each, before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.base import Benchmark, Suite, SuiteAsk
from benchmarks.resume import Fate, fate, recorded
from harness.cli.assemble import QuestionSet, open_benchmark, open_judge, parse_data, question_set
from harness.errors import UsageError, unknown
from harness.types import Task
from judges.llm import for_benchmark

if TYPE_CHECKING:
    from harness.cli.eval import EvalConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One evaluation of the plan: a benchmark's tasks under one turn limit."""

    questions: QuestionSet
    split: str
    tasks: tuple[Task, ...]
    max_turns: int
    suffix: str  # of its id and its scope; empty for the only turn limit

    @property
    def name(self) -> str:
        return f"{self.questions.benchmark.name}/{self.split}{self.suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for: question sets that our agent answers, and suites that bring their own prompts."""

    sets: tuple[QuestionSet, ...]
    suites: tuple[tuple[Suite, SuiteAsk], ...]


def find_benchmarks(config: EvalConfig, data: Sequence[str]) -> Wanted:
    """The benchmarks with their data; whatever is wrong with one is said here, before a model is loaded."""
    paths = parse_data(data)
    found = {name: open_benchmark(name) for name in config.benchmarks}
    suites = {name: (each, _ask(config, paths.get(name))) for name, each in found.items() if not isinstance(each, Benchmark)}
    for name, (suite, ask) in suites.items():
        refuse_for_suite(name, config, alone=len(suites) == len(found))
        suite.check(ask)
        if config.remote and config.endpoint.tokenizer is None:
            raise UsageError(f"{name} needs token ids of the endpoint: name the model's tokenizer with --set endpoint.tokenizer=NAME|DIR")
    refuse_cost_without_price(config)
    sets = tuple(question_set(name, paths) for name in found if name not in suites)
    return Wanted(sets=sets, suites=tuple(suites.values()))


def _ask(config: EvalConfig, data: Path | None) -> SuiteAsk:
    return SuiteAsk(settings=config.lm_eval, data=data, split=config.split, limit=config.limit, sample=config.sample)


def refuse_for_suite(name: str, config: EvalConfig, *, alone: bool) -> None:
    """Raise ``UsageError`` for a setting that a suite would have to ignore. ``alone``: no question set is there that it could be for."""
    ignored = (
        ("--epochs", config.epochs != 1, "lm-eval's task says how often each sample is asked"),
        ("--turns", bool(config.turns), "each of its samples is one answer, not a conversation with tools"),
        ("temperature", config.temperature != 0, "lm-eval's task says how it samples"),
        ("limits.cost", config.limits.cost is not None, "its requests are not priced (limits.tokens applies)"),
        ("--judge", alone and config.judge != "exact", "lm-eval's own rules score it"),
        ("--web", alone and config.web is not None, "it has no tools"),
    )
    for option, given, why in ignored:
        if given:
            raise UsageError(f"{option} does not apply to {name}: {why}. Leave it out, or evaluate {name} by a command of its own")


def refuse_cost_without_price(config: EvalConfig) -> None:
    """Raise ``UsageError`` for a limit of cost where nothing costs anything: it would never be reached."""
    if config.limits.cost is None:
        return
    if not config.remote:
        why = f"{config.model} runs on this machine and has no price. Use limits.tokens or limits.seconds"
    elif not (config.endpoint.price_prompt or config.endpoint.price_generated):
        why = "no price is set, so no cost is counted. Set endpoint.price_prompt and endpoint.price_generated (of a million tokens)"
    else:
        return
    raise UsageError(f"limits.cost={config.limits.cost:g} would never be reached: {why}")


def variants(config: EvalConfig, wanted: Wanted) -> list[Variant]:
    """The plan: every benchmark under every turn limit; of benchmarks without one of the wanted samples nothing."""
    found = []
    for questions in wanted.sets:
        split = config.split or questions.benchmark.split
        tasks = questions.tasks.split(split)[: config.limit]
        if config.sample:
            tasks = tuple(task for task in tasks if task.id in config.sample)
            if not tasks:
                continue
        for turns in config.turns or (config.agent.max_turns,):
            suffix = f"/turns-{turns}" if config.turns else ""
            found.append(Variant(questions=questions, split=split, tasks=tasks, max_turns=turns, suffix=suffix))
    if missing := set(config.sample) - {task.id for variant in found for task in variant.tasks}:
        missing -= {each for suite, ask in wanted.suites for each in suite.ids(ask)}
    if missing:
        every = [task.id for questions in wanted.sets for task in questions.tasks.split(config.split or questions.benchmark.split)]
        every += [each for suite, ask in wanted.suites for each in suite.ids(replace(ask, sample=()))]
        raise unknown("sample", sorted(missing)[0], every if len(every) <= 20 else [])
    return found


def forecast(config: EvalConfig, folder: Path, wanted: Wanted) -> Iterator[str]:
    """Per sample what would be reused, judged again or run, and why; then the sums. Loads no model and writes nothing."""
    known = recorded(folder)
    counts = dict.fromkeys(Fate, 0)
    for variant in variants(config, wanted):
        judge = for_benchmark(open_judge(config.judge, variant.questions.tasks.closed), variant.questions.benchmark.name).name
        for epoch in range(config.epochs):
            for task in variant.tasks:
                kept = known.sample(f"{folder.name}/{variant.name}", (task.id, epoch))
                what, why = fate(kept, judge=judge, data=variant.questions.tasks.fingerprint)
                counts[what] += 1
                yield f"{what:<8} {variant.name}/{task.id}{f' epoch {epoch}' if config.epochs > 1 else ''}: {why}"
    for suite, ask in wanted.suites:
        for place, what, why in suite.forecast(ask, folder):
            counts[what] += 1
            yield f"{what:<8} {place}: {why}"
    yield "; ".join(f"{what} {count}" for what, count in counts.items())

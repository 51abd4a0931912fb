"""What one evaluation will do: its benchmarks with their data, its samples, and what becomes of each, before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.base import Benchmark, Suite, SuiteAsk
from benchmarks.comparability import Comparability, Conditions
from benchmarks.evaluate import refuse_other_conditions
from benchmarks.resume import Fate, fate, recorded
from harness.cli.assemble import LM_EVAL, QuestionSet, open_benchmark, open_judge, parse_data, question_set
from harness.episode import AgentConfig
from harness.errors import UsageError, unknown
from harness.registry import load
from harness.types import Task
from harness.web import identity, open_web
from harness.web.base import Web
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
    found = [(name, split, open_benchmark(name)) for name, split in named(config.benchmarks)]
    suites = tuple((each, _ask(config, split, paths.get(name))) for name, split, each in found if not isinstance(each, Benchmark))
    if len(suites) == len(found):
        refuse_for_suites(config)
    refuse_cost_without_price(config)
    sets = tuple(_under(question_set(name, paths), split or config.split) for name, split, each in found if isinstance(each, Benchmark))
    for suite, ask in suites:
        suite.check(ask)
    return Wanted(sets=sets, suites=suites)


def named(benchmarks: Sequence[str]) -> list[tuple[str, str | None]]:
    """(name, split or None) of each ``NAME`` or ``NAME/SPLIT``. Raises ``UsageError`` where a name stands both ways.

    >>> named(["ifeval", "gpqa/diamond"])
    [('ifeval', None), ('gpqa', 'diamond')]
    """
    found: list[tuple[str, str | None]] = []
    for each in benchmarks:
        name, slash, split = (each, "", "") if each.startswith(LM_EVAL) else each.partition("/")
        if slash and not split:
            raise UsageError(f"--benchmarks {each!r}: expected NAME or NAME/SPLIT, e.g. gpqa/diamond")
        found.append((name, split or None))
    whole = {name for name, split in found if split is None}
    if both := sorted(name for name, split in found if split is not None and name in whole):
        raise UsageError(f"--benchmarks names {both[0]} whole and by a split; name the splits alone, e.g. gpqa/diamond,gpqa/main")
    return found


def _under(questions: QuestionSet, split: str | None) -> QuestionSet:
    """The question set with ``split`` as the one that is evaluated, where one is named."""
    if split is None:
        return questions
    questions.tasks.split(split)  # raises for one that is not there
    return replace(questions, benchmark=replace(questions.benchmark, split=split))


def _ask(config: EvalConfig, split: str | None, data: Path | None) -> SuiteAsk:
    return SuiteAsk(
        settings=config.lm_eval,
        data=data,
        split=split or config.split,
        limit=config.limit,
        sample=config.sample,
        messages=_by_messages(config),
    )


def _by_messages(config: EvalConfig) -> bool:
    return config.remote and config.endpoint.tokenizer is None


def refuse_for_suites(config: EvalConfig) -> None:
    """Raise ``UsageError`` for a setting that suites ignore, where nothing but suites is asked for; beside them it is for the others."""
    priced = _by_messages(config)
    ignored = (
        ("--epochs", config.epochs != 1, "lm-eval's task says how often each sample is asked"),
        ("--turns", bool(config.turns), "each sample is one answer, not a conversation with tools"),
        ("temperature", config.temperature != 0, "lm-eval's task says how it samples"),
        ("limits.cost", config.limits.cost is not None and not priced, "its requests by token ids are not priced (limits.tokens applies)"),
        ("--judge", config.judge != "exact", "lm-eval's own rules score the answers"),
        ("--web", config.web is not None, "there are no tools"),
    )
    for option, given, why in ignored:
        if given:
            raise UsageError(f"{option} does not apply to {', '.join(config.benchmarks)}: {why}. Leave it out")


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
        split = questions.benchmark.split
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
        every = [task.id for questions in wanted.sets for task in questions.tasks.split(questions.benchmark.split)]
        every += [each for suite, ask in wanted.suites for each in suite.ids(replace(ask, sample=()))]
        raise unknown("sample", sorted(missing)[0], every, shown=20)
    return found


def agent_of(config: EvalConfig, variant: Variant, context: int | None) -> AgentConfig:
    """The agent of one evaluation, within the tokens that its engine takes (``context``; None: as many as are wanted)."""
    tokens = min(config.agent.context_tokens, context or config.agent.context_tokens)
    return config.agent.model_copy(update={"max_turns": variant.max_turns, "context_tokens": tokens})


def conditions(config: EvalConfig, variant: Variant, *, judge: str, context: int | None, web: Web | None) -> Comparability:
    """Under what one evaluation is measured."""
    return Conditions(
        questions=variant.questions.tasks.fingerprint,
        judge=judge,
        agent=agent_of(config, variant, context),
        search=config.search,
        temperature=config.temperature,
        taken=[config.limit, list(config.sample)] if config.sample else config.limit,
        web=identity(config.web, web) if config.web and web else "",
        sample_seconds=config.limits.sample_seconds,
    ).comparability()


def forecast(config: EvalConfig, folder: Path, run_id: str, wanted: Wanted) -> Iterator[str]:
    """Per sample what would be reused, judged again or run, and why; then the sums. Loads no model, asks no endpoint, records nothing.

    Raises what the evaluation itself would: for a web or an engine that cannot be had, and where ``folder`` holds other conditions.
    """
    known = recorded(folder)
    web = open_web(config.web) if config.web else None
    if not config.remote:
        load("engines", config.engine)
    counts = dict.fromkeys(Fate, 0)
    for variant in variants(config, wanted):
        judge = for_benchmark(open_judge(config.judge, variant.questions.tasks.closed), variant.questions.benchmark.name).name
        place = f"{run_id}/{variant.name}"
        context = _recorded_context(known.conditions(place)) if config.remote else config.generation.context
        refuse_other_conditions(known, place, conditions(config, variant, judge=judge, context=context, web=web), folder)
        for epoch in range(config.epochs):
            for task in variant.tasks:
                kept = known.sample(place, (task.id, epoch))
                what, why = fate(kept, judge=judge, data=variant.questions.tasks.fingerprint)
                counts[what] += 1
                yield f"{what:<8} {variant.name}/{task.id}{f' epoch {epoch}' if config.epochs > 1 else ''}: {why}"
    for suite, ask in wanted.suites:
        for sample, what, why in suite.forecast(ask, folder, run_id):
            counts[what] += 1
            yield f"{what:<8} {sample}: {why}"
    yield "; ".join(f"{what} {count}" for what, count in counts.items())


def _recorded_context(before: Comparability) -> int | None:
    """An endpoint's, which it would have to be asked for: taken to be as it was."""
    found: int | None = before.parts.get("limits", {}).get("agent", {}).get("context_tokens")
    return found

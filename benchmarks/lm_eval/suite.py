"""Tasks of lm-eval as benchmarks: what a suite of them is, and how a part of it is evaluated.

A part runs sample by sample: its requests go to the engine, lm-eval's filters and metrics score the answers, and attempt and judgement are
recorded before the next sample is counted. A killed run therefore loses only what was under way. This module imports lm-eval
inside its functions, so that the benchmarks can be listed without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.base import OWN_RULES, SuiteAsk, SuiteRun
from benchmarks.departures import caveat, departures
from benchmarks.evaluate import Evaluation, first_of, refuse_other_conditions
from benchmarks.lm_eval import punkt
from benchmarks.lm_eval.config import LMEvalConfig
from benchmarks.lm_eval.report import comparability, recorded_metrics, summary_of, words
from benchmarks.lm_eval.samples import Sample, SamplePart, record_sample, run_sample
from benchmarks.result import Result
from benchmarks.resume import Fate, fate, recorded
from harness.engines.base import ChatEngine
from harness.errors import MissingDependencyError, UsageError, unknown
from harness.events import Kind
from harness.tasks.published import OPEN_WEB
from harness.types import ScoreStatus, Status, Task

if TYPE_CHECKING:
    from benchmarks.lm_eval.tasks import Definition


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """One packaged task as a part of a suite. ``definition`` has the fields of ``tasks.Definition`` (that module imports lm-eval)."""

    part: SamplePart
    definition: Mapping[str, Any]
    answer_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LMEvalSuite:
    """A named suite of packaged tasks, or (``task``) whatever lm-eval knows under a name."""

    name: str
    summary: str
    parts: tuple[Packaged, ...] = ()
    task: str = ""
    needs_punkt: bool = False

    def check(self, ask: SuiteAsk) -> None:
        """See ``Suite.check``: the part's name, packages, a folder of definitions, the data itself, and what the model must give."""
        self._ready(ask)
        tasks = self._tasks(ask)
        if ask.messages:
            self._refuse_messages(tasks, _settings(ask))

    def _ready(self, ask: SuiteAsk) -> None:
        self._chosen(ask.split)
        if find_spec("lm_eval") is None:
            raise MissingDependencyError(f"{self.name} needs lm-eval; run `pip install 'actguide-harness[lm-eval]'`")
        if self.needs_punkt:
            punkt.make_ready()
        _include(ask)

    def _refuse_messages(self, tasks: Sequence[tuple[SamplePart, Any, int | None]], settings: LMEvalConfig) -> None:
        """Raise ``UsageError`` for what a chat endpoint cannot serve, with the remedy."""
        remedy = "name the model's tokenizer with --set endpoint.tokenizer=NAME|DIR"
        if settings.chat_template == "never":
            raise UsageError(f"lm_eval.chat_template=never: /chat/completions puts every prompt of {self.name} into a template; {remedy}")
        scored = [part.split for part, task, _ in tasks if task.OUTPUT_TYPE != "generate_until"]
        others = [part.split for part, _, _ in tasks if part.split not in scored]
        if scored:
            parts = ",".join(f"{self.name}/{each}" for each in others)
            without = (
                f", or name the rest alone: --benchmarks {parts}" + (f" (--split {others[0]})" if len(others) == 1 else "")
                if others
                else ""
            )
            raise UsageError(
                f"{self.name}: {', '.join(scored)} {'needs' if len(scored) == 1 else 'need'} log-likelihoods, which /chat/completions "
                f"does not give; {remedy} (the server then needs /completions with echo and logprobs, as vLLM's has){without}"
            )

    def ids(self, ask: SuiteAsk) -> tuple[str, ...]:
        return tuple(each for part, task, _ in self._tasks(ask) for each in _ids(part, task, ask))

    def questions(self, data: Path | None) -> tuple[Task, ...]:
        """See ``Suite.questions``."""
        from benchmarks.lm_eval.tasks import docs_of, question_of

        ask = SuiteAsk(settings=LMEvalConfig(), data=data)
        self._ready(ask)
        return tuple(
            Task(id=part.sample_id(doc, place), question=question_of(task, doc), gold=(), web=OPEN_WEB)
            for part, task, _ in self._tasks(ask)
            for place, doc in docs_of(task, None)
        )

    def forecast(self, ask: SuiteAsk, folder: Path, run_id: str) -> Iterator[tuple[str, Fate, str]]:
        known = recorded(folder)
        for part, task, _ in self._tasks(ask):
            evaluation, judge = _evaluation_id(run_id, self.name, part), _judge(task)
            for each, asked in _fingerprints(part, task, ask).items():
                what, why = fate(known.sample(evaluation, (each, 0)), judge=judge, data=asked)
                yield f"{self.name}/{part.split}/{each}", Fate.RERUN if what is Fate.REGRADE else what, why

    async def evaluate(self, run: SuiteRun) -> list[str]:
        """See ``Suite.evaluate``."""
        self._ready(run.ask)
        found = [await _evaluate_part(self.name, part, task, tokens, run) for part, task, tokens in self._tasks(run.ask)]
        return [line for line in found if line]

    def _chosen(self, split: str | None) -> tuple[Packaged, ...]:
        known = [packaged.part.split for packaged in self.parts]
        if self.parts and split is not None and split not in known:
            raise unknown(f"part of {self.name}", split, known)
        return tuple(packaged for packaged in self.parts if split in (None, packaged.part.split))

    def _tasks(self, ask: SuiteAsk) -> list[tuple[SamplePart, Any, int | None]]:
        from benchmarks.lm_eval.tasks import indexed_tasks, packaged_task

        if not self.task:
            return [(p.part, packaged_task(_definition(p), ask.data), p.answer_tokens) for p in self._chosen(ask.split)]
        tasks = {task.config.task: task for task in indexed_tasks(self.task, ask.data, _include(ask))}
        if ask.split is not None and ask.split not in tasks:
            raise unknown(f"part of {self.name}", ask.split, tasks)
        return [(SamplePart(split=name), task, None) for name, task in tasks.items() if ask.split in (None, name)]


def named_task(name: str) -> LMEvalSuite:
    """The suite behind ``lm-eval:TASK``."""
    return LMEvalSuite(name=name, summary=f"task {name.partition(':')[2]} of lm-eval", task=name.partition(":")[2])


def _definition(packaged: Packaged) -> Definition:
    from benchmarks.lm_eval.tasks import Definition

    return Definition(**packaged.definition)


def _settings(ask: SuiteAsk) -> LMEvalConfig:
    assert isinstance(ask.settings, LMEvalConfig)
    return ask.settings


def _include(ask: SuiteAsk) -> Path | None:
    """The folder of the user's own definitions. Raises ``UsageError`` where there is none."""
    named = _settings(ask).include
    if named is None:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise UsageError(f"lm_eval.include: {folder} is no folder; expected one that holds YAML files in the form of lm-eval's tasks")
    return folder


def _ids(part: SamplePart, task: Any, ask: SuiteAsk) -> list[str]:
    from benchmarks.lm_eval.tasks import docs_of

    every = (part.sample_id(doc, place) for place, doc in docs_of(task, ask.limit))
    return [each for each in every if not ask.sample or each in ask.sample]


def _fingerprints(part: SamplePart, task: Any, ask: SuiteAsk) -> dict[str, str]:
    """Of the samples that are asked for, by id."""
    from benchmarks.lm_eval.tasks import docs_of, fingerprints_of

    found = fingerprints_of(task, ask.limit)
    every = {part.sample_id(doc, place): found[place] for place, doc in docs_of(task, ask.limit)}
    return {each: every[each] for each in _ids(part, task, ask)}


def _judge(task: Any) -> str:
    from benchmarks.lm_eval.tasks import version_of

    return f"{OWN_RULES}{version_of(task)}"


def _evaluation_id(run_id: str, suite: str, part: SamplePart) -> str:
    return f"{run_id}/{suite}/{part.split}"


async def _evaluate_part(suite: str, part: SamplePart, task: Any, answer_tokens: int | None, run: SuiteRun) -> str:
    """The part's line; empty where none of its samples was asked for."""
    from benchmarks.lm_eval.chat import ChatLM
    from benchmarks.lm_eval.model import EngineLM
    from benchmarks.lm_eval.tasks import requests_of, version_of

    ask, settings = run.ask, _settings(run.ask)
    generates = task.OUTPUT_TYPE == "generate_until"
    templated = settings.chat_template == "always" or (settings.chat_template == "auto" and generates)
    limits: dict[str, Any] = {"answer_tokens": settings.answer_tokens or answer_tokens, "thinking_tokens": settings.thinking_tokens}
    messages = isinstance(run.engine, ChatEngine)
    lm: ChatLM | EngineLM
    if isinstance(run.engine, ChatEngine):
        lm = ChatLM(run.engine, context=run.context, seed=int(run.who["seed"]), **limits)
    else:
        assert run.chat is not None, "an engine of token ids comes with its chat format"
        assert run.context is not None, "and with its context"
        flags = task.OUTPUT_TYPE == "loglikelihood" or "exact_match" in task._metric_fn_list
        common = {"context": run.context, "seed": int(run.who["seed"]), **limits}
        lm = EngineLM(run.engine, run.chat, templated=templated, greedy_flags=flags, **common)
    wanted = _fingerprints(part, task, ask)
    requests = requests_of(task, ask.limit, lm.apply_chat_template if templated else None)
    placed = [(part.sample_id(found[0].doc, place), place, tuple(found)) for place, found in requests.items()]
    samples = [Sample(part=part, task=task, place=at, instances=of, fingerprint=wanted[each]) for each, at, of in placed if each in wanted]
    if not samples:
        return ""
    judge = _judge(task)
    evaluation = Evaluation(
        id=_evaluation_id(run.run_id, suite, part),
        benchmark=suite,
        split=part.split,
        comparability=comparability(
            rules=[version_of(task), suite, part.split, part.headline],
            prompt=[templated, settings.chat_template, *(["the endpoint's own template"] if messages else [])],
            limits={**limits, "context": run.context, "sample_seconds": run.budget.limits.sample_seconds},
            judge=judge,
            samples=samples,
        ),
        departs=departures(asked=len(samples), published=len(task.eval_docs)),
        **run.who,
    )
    refuse_other_conditions(recorded(run.folder), evaluation.id, evaluation.comparability, run.folder)
    found = recorded_metrics(run.folder, evaluation.id, judge, wanted)
    run.log.record(Kind.EVALUATION, evaluation.record("started", len(samples), judge))
    with run.progress(f"{suite}/{part.split}", len(samples)) as progress, ThreadPoolExecutor(1) as scorer:
        loop = asyncio.get_running_loop()

        async def one(sample: Sample) -> None:
            async with run.gate:
                if run.budget.reached:
                    return
                outcome = await run_sample(sample, lm, run.budget, lambda work: loop.run_in_executor(scorer, work))
            record_sample(outcome, run.log, run.chat, evaluation.id, judge)
            if outcome.metrics is not None:
                found[sample.id] = outcome.metrics
            finished.append(sample.id)
            progress.finished(len(samples) - len(todo) + len(finished), len(samples))
            run.watch.saw(outcome.error if outcome.failed is Status.ENGINE_ERROR else None)

        todo, finished = [sample for sample in samples if sample.id not in found], list[str]()
        try:
            async with asyncio.TaskGroup() as group:
                for sample in todo:
                    group.create_task(one(sample))
        except ExceptionGroup as errors:
            raise first_of(errors) from errors
    run.watch.check()
    summary = summary_of({sample.id: found[sample.id] for sample in samples if sample.id in found}, task.aggregation())
    run.log.record(
        Kind.EVALUATION, {**evaluation.record("finished", len(samples), judge), "metrics": summary.values, "stderr": summary.errors}
    )
    stopped = f"; stopped by {run.budget.reached}" if run.budget.reached and summary.n < len(samples) else ""
    found_words = f"{words(summary, part.headline, len(samples))}{_open(evaluation, samples, run)}{stopped}"
    return "\n  ".join(filter(None, (f"{suite}/{part.split}: {found_words}. Run: {run.folder}", caveat(evaluation.departs))))


def _open(evaluation: Evaluation, samples: Sequence[Sample], run: SuiteRun) -> str:
    """What is open and between what the headline lies then, as the run's log has it; nothing where the headline is no score of a sample."""
    known = recorded(run.folder).samples(evaluation.id)
    kept = {sample.id: known.get((sample.id, 0)) for sample in samples}
    outcomes = {(s.id, 0): one.outcome for s in samples if (one := kept[s.id]) is not None and one.data == s.fingerprint}
    if any(outcome.score is ScoreStatus.UNDECIDED for outcome in outcomes.values()):
        return ""
    found = Result(tasks=tuple(sample.id for sample in samples), outcomes=outcomes).open()
    return f"; {found}" if found else ""

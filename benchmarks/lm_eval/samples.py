"""One sample of an lm-eval task: its requests, its score, and its record as an ordinary attempt with an ordinary judgement."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.lm_eval.report import headline_of
from harness.budget import Budget
from harness.chat import Chat
from harness.cipher import seal
from harness.errors import EngineError, LimitError
from harness.events import Kind
from harness.records import attempt_blob, attempt_record, judgement_record
from harness.types import Attempt, Purpose, Score, ScoreStatus, Status, Task, Trajectory, Turn, Usage
from judges.attempts import Log

if TYPE_CHECKING:
    from benchmarks.lm_eval.model import Response

_WITHHELD = "(text withheld: the data set is gated)"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePart:
    """What is ours about a part: its name on the board, the number that stands for it, and whether its texts may be recorded."""

    split: str
    headline: str = ""  # "metric,filter"; empty: the first that fits
    id_key: str = ""  # field of a row that identifies it; empty: its place
    gated: bool = False  # questions and answers are recorded as token ids only, and as cipher where there are none

    def sample_id(self, doc: Mapping[str, Any], place: int) -> str:
        """Of a document and its place in the data."""
        return f"{self.split}-{doc[self.id_key] if self.id_key else place}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One document with its requests (``instances``: one, or one for each choice); ``fingerprint`` says whether either has changed."""

    part: SamplePart
    task: Any
    place: int
    instances: tuple[Any, ...]
    fingerprint: str

    @property
    def doc(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.instances[0].doc
        return found

    @property
    def id(self) -> str:
        return self.part.sample_id(self.doc, self.place)

    def as_task(self) -> Task:
        """The sample in the harness's own terms. Gated texts stay out of it."""
        doc, gated = self.doc, self.part.gated
        text = f"{self.id} {_WITHHELD}" if gated else str(doc.get("question") or doc.get("prompt") or self.instances[0].args[0])
        tags = {"order": str(doc["order"])} if "order" in doc else {}
        if "category" in doc:
            tags["category"] = str(doc["category"])
        return Task(id=self.id, question=text, gold=self._gold(), web="", tags=tags)

    def _gold(self) -> tuple[str, ...]:
        doc = self.doc
        if "instruction_id_list" in doc:
            return tuple(doc["instruction_id_list"])
        if "best_answer" in doc:
            return (str(doc["best_answer"]),)
        target = self.task.doc_to_target(doc)
        if isinstance(target, int) and self.task.config.doc_to_choice is not None:
            return (str(self.task.doc_to_choice(doc)[target]),)
        return tuple(map(str, target)) if isinstance(target, list) else (str(target),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a sample. ``metrics`` (by ``metric,filter``) is None where the engine failed or a limit came first (``failed``)."""

    sample: Sample
    responses: tuple[tuple[Response, ...], ...]  # by request, then by repeat
    metrics: Mapping[str, Any] | None
    seconds: float
    failed: Status | None = None
    error: str = ""

    @property
    def generated(self) -> list[Response]:
        return [answer for answers in self.responses for answer in answers if answer.generated]


class Responder(Protocol):
    async def respond(self, instance: Any, repeat: int = 0) -> Response:
        """Serve one request of lm-eval. Raises ``EngineError`` where there is no answer."""
        ...


async def run_sample(sample: Sample, lm: Responder, budget: Budget, apart: Callable[[Callable[[], Any]], Awaitable[Any]]) -> Outcome:
    """Serve the sample's requests and score the answers; ``apart`` runs lm-eval's scoring off the event loop, one sample at a time."""
    from benchmarks.lm_eval.tasks import metrics_of

    began = time.perf_counter()
    try:
        async with budget.deadline():
            responses = await asyncio.gather(*(_repeats(each, lm) for each in sample.instances))
    except (EngineError, LimitError) as error:
        failed = Status.LIMIT if isinstance(error, LimitError) else Status.ENGINE_ERROR
        return Outcome(sample=sample, responses=(), metrics=None, seconds=time.perf_counter() - began, failed=failed, error=str(error))
    every = [answer for answers in responses for answer in answers]
    cost = sum(answer.usage.cost or 0.0 for answer in every if answer.usage is not None)
    budget.spend(tokens=sum(answer.tokens for answer in every), cost=cost)
    for instance, answers in zip(sample.instances, responses, strict=True):
        instance.resps = [answer.value for answer in answers]
    metrics = await apart(lambda: metrics_of(sample.task, sample.doc, list(sample.instances)))
    return Outcome(sample=sample, responses=tuple(responses), metrics=metrics, seconds=time.perf_counter() - began)


async def _repeats(instance: Any, lm: Responder) -> tuple[Response, ...]:
    return tuple(await asyncio.gather(*(lm.respond(instance, i) for i in range(instance.repeats or 1))))


def record_sample(outcome: Outcome, log: Log, chat: Chat | None, evaluation_id: str, judge: str) -> None:
    """Append attempt and judgement; the judgement carries every metric, so that a resumed run can aggregate without generating again.

    ``chat`` spells out token ids; a chat endpoint gives none.
    """
    attempt = _attempt(outcome)
    gated = outcome.sample.part.gated
    blob = attempt_blob(attempt, [] if gated or chat is None else [chat.pieces(span.ids) for span in attempt.trajectory.spans])
    if gated:
        del blob["pieces"]
        if attempt.usage is not None:
            blob["sealed"] = seal(attempt.task.id, [answer.text for answer in outcome.generated])
    if scored := _scored(outcome):
        blob["scored"] = scored
    row = attempt_record(attempt, seconds=outcome.seconds, evaluation_id=evaluation_id, blob=log.blob(blob))
    log.record(Kind.ATTEMPT, {**row, "data": outcome.sample.fingerprint})
    log.record(Kind.JUDGEMENT, {**judgement_record(attempt.id, judge, _score(outcome)), "metrics": outcome.metrics})


def _attempt(outcome: Outcome) -> Attempt:
    sample, task = outcome.sample, outcome.sample.as_task()
    generated = outcome.generated
    contexts = tuple(answer.prompt for answer in generated if answer.span is not None)
    told = [answer.usage for answer in generated if answer.usage is not None]
    cut = any(answer.truncated for answer in generated)
    return Attempt(
        id=f"{Purpose.EVAL}/{sample.task.config.task}/{task.id}",
        task=task,
        purpose=Purpose.EVAL,
        trajectory=Trajectory(contexts=contexts, spans=tuple(answer.span for answer in generated if answer.span is not None)),
        target=contexts,
        turns=tuple(Turn(text=_WITHHELD if sample.part.gated else answer.text) for answer in generated),
        status=outcome.failed or (Status.TRUNCATED if cut else Status.ANSWERED),
        answer=_answer(outcome),
        detail=outcome.error,
        usage=reduce(Usage.then, told) if told else None,
    )


def _answer(outcome: Outcome) -> str | None:
    """What was scored: the text after the headline's filter, or the likeliest choice."""
    if outcome.failed:
        return None
    sample = outcome.sample
    if sample.task.OUTPUT_TYPE == "multiple_choice":
        choices = sample.task.doc_to_choice(sample.doc)
        scores = [answers[0].value[0] for answers in outcome.responses][: len(choices)]
        return str(choices[max(range(len(scores)), key=scores.__getitem__)])
    first = sample.instances[0]
    name = sample.part.headline.partition(",")[2]
    filtered = first.filtered_resps.get(name, first.resps[0])
    if sample.task.OUTPUT_TYPE != "generate_until":
        return None
    return str(filtered[0] if isinstance(filtered, list) else filtered)


def _scored(outcome: Outcome) -> list[dict[str, Any]]:
    """Log-likelihoods, for tasks that score given texts."""
    if outcome.sample.task.OUTPUT_TYPE == "generate_until" or not outcome.responses:
        return []
    pairs = zip(outcome.sample.instances, outcome.responses, strict=True)
    return [{"text": instance.args[-1], "tokens": len(answers[0].prompt), "value": answers[0].value} for instance, answers in pairs]


def _score(outcome: Outcome) -> Score:
    if outcome.metrics is None:
        return Score(value=None, status=ScoreStatus.OUTAGE, layer=str(outcome.failed), detail=outcome.error)
    name, value = headline_of(outcome.metrics, outcome.sample.part.headline)
    if value is None:
        return Score(
            value=None, status=ScoreStatus.UNDECIDED, layer=f"lm-eval:{name}", detail="no metric of this task is a score in [0, 1]"
        )
    return Score(value=value, status=ScoreStatus.JUDGED, layer=f"lm-eval:{name}")

"""Made-up rows in the published forms, and suites over them; imported by tests that have skipped themselves where lm-eval is absent."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fakes import PolicyEngine, Say, tiny_chat

from benchmarks.base import Progress, SuiteAsk, SuiteRun
from benchmarks.lm_eval import GPQA, LMEvalSuite
from benchmarks.lm_eval.config import LMEvalConfig
from benchmarks.lm_eval.suite import Packaged
from harness.budget import Budget, Limits
from harness.chat import Chat
from harness.engines.base import ChatEngine, Engine, Request
from harness.errors import EngineError
from harness.events import Event, Kind, Recorder, current_events
from harness.types import Span
from judges.attempts import OutageConfig, OutageWatch


def gpqa_row(number: int) -> dict[str, str]:
    wrong = {f"Incorrect Answer {i}": f"wrong {number}.{i}" for i in (1, 2, 3)}
    return {"Record ID": f"rec{number}", "Question": f"Made-up question {number}?", "Correct Answer": f"right {number}", **wrong}


def write_gpqa(folder: Path, subset: str, count: int) -> Path:
    path = folder / f"gpqa_{subset}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(gpqa_row(0)))
        writer.writeheader()
        writer.writerows(gpqa_row(i) for i in range(count))
    return path


def write_truthfulqa(folder: Path, count: int) -> Path:
    rows = [
        {
            "question": f"Is {i} even?",
            "mc1_targets": {"Yes, it is.": 1, f"No, {i} is odd.": 0},
            "mc2_targets": {"Yes.": 1, "Even.": 1, "No.": 0},
        }
        for i in range(0, 2 * count, 2)
    ]
    (folder / "mc_task.json").write_text(json.dumps(rows))
    header = "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
    lines = [f"Adversarial,Numbers,Is {i} even?,Yes,Yes; It is even,No; It is odd; Nobody knows,none\n" for i in range(0, 2 * count, 2)]
    (folder / "TruthfulQA.csv").write_text(header + "".join(lines))
    return folder


def write_ifeval(folder: Path) -> Path:
    """Three prompts with three, one and two instructions."""
    three = ["punctuation:no_comma", "length_constraints:number_sentences", "change_case:english_lowercase"]
    rows: list[tuple[str, list[str], list[dict[str, Any]]]] = [
        ("Write without commas, in two sentences at least.", three, [{}, {"relation": "at least", "num_sentences": 2}, {}]),
        ("Name the fern.", ["keywords:existence"], [{"keywords": ["fern"]}]),
        ("Say it, and end with fern.", ["startend:end_checker", "punctuation:no_comma"], [{"end_phrase": "fern"}, {}]),
    ]
    lines = [{"key": 1000 + i, "prompt": p, "instruction_id_list": names, "kwargs": kw} for i, (p, names, kw) in enumerate(rows)]
    path = folder / "input_data.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def shrunk(suite: LMEvalSuite, expected: int, split: str | None = None) -> LMEvalSuite:
    """The suite for data sets of another size than the published one; ``split``: this part alone."""
    parts = [
        Packaged(part=p.part, definition={**p.definition, "expected": expected, "instructions": None}, answer_tokens=p.answer_tokens)
        for p in suite.parts
        if split in (None, p.part.split)
    ]
    return LMEvalSuite(name=suite.name, summary=suite.summary, parts=tuple(parts), needs_punkt=suite.needs_punkt)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKS = CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
OPENS_A_THOUGHT = THINKS.replace("assistant\n", "assistant\n<think>\n")

DIAMOND = shrunk(GPQA, 3, "diamond")


def letters(text: str) -> Say:
    return lambda request, prompt: text


class FailsFor(PolicyEngine):
    """Has no answer to prompts that hold a text."""

    def __init__(self, say: Say, text: str) -> None:
        super().__init__(say)
        self._text = text

    async def generate(self, request: Request) -> Span:
        if self._text in tiny_chat().decode(request.ids):
            raise EngineError("503")
        return await super().generate(request)


class Quiet:
    def finished(self, done: int, total: int) -> None:
        assert 0 < done <= total


@contextlib.contextmanager
def quiet(title: str, total: int) -> Iterator[Progress]:
    yield Quiet()


def evaluated(
    suite: LMEvalSuite,
    engine: Engine | ChatEngine,
    folder: Path,
    data: Path | None,
    *,
    chat: Chat | None = None,
    limit: int | None = None,
    sample: tuple[str, ...] = (),
    limits: Limits | None = None,
    outage: OutageConfig | None = None,
    **settings: Any,
) -> list[str]:
    """The lines of one evaluation over what the folder's log holds already."""

    async def run() -> list[str]:
        with Recorder(folder) as log:
            return await suite.evaluate(
                SuiteRun(
                    ask=SuiteAsk(settings=LMEvalConfig(**settings), data=data, limit=limit, sample=sample),
                    engine=engine,
                    chat=None if isinstance(engine, ChatEngine) else chat or tiny_chat(),
                    context=4096,
                    log=log,
                    folder=folder,
                    run_id=folder.name,
                    who={"model": "m", "method": "base", "seed": 0},
                    gate=asyncio.Semaphore(4),
                    progress=quiet,
                    budget=Budget(limits=limits or Limits()),
                    watch=OutageWatch(config=outage or OutageConfig(tolerate=1.0)),
                )
            )

    return asyncio.run(run())


def events(folder: Path, kind: Kind) -> list[Mapping[str, Any]]:
    return [event.data for event in _all(folder) if event.kind is kind]


def _all(folder: Path) -> Iterator[Event]:
    return current_events(folder)

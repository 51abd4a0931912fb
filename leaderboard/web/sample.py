"""Builds the sample list and the sample page: what did the agent do, and why was it judged so?"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from harness.errors import RunLogError
from leaderboard.records import RunInfo, SampleFilter, SampleInfo
from leaderboard.store import Store
from leaderboard.transcripts import Token, Transcript, read_transcript
from leaderboard.web.pages import Choice, SampleLine, SamplePage, SamplesPage, TurnCard, Verdict
from leaderboard.words import method_title

PAGE_SIZE = 50
THOUGHT = re.compile(r"<think>(.*?)(?:</think>|$)", re.DOTALL)
CALL = re.compile(r"<tool_call>.*?(?:</tool_call>|$)", re.DOTALL)
SIGN_WORDS = {"right": "Right", "wrong": "Wrong", "part": "Partly right", "none": "No verdict"}


def samples_page(store: Store, run: RunInfo, wanted: SampleFilter, page: int) -> SamplesPage:
    """Page ``page`` (from 0) of the attempts of a run that pass the filter."""
    samples, total = store.samples(run.key, wanted, limit=PAGE_SIZE, offset=page * PAGE_SIZE)
    href = f"/runs/{quote(run.run_id)}"
    query = {k: str(v) for k, v in _query(wanted).items()}

    def address(number: int) -> str:
        return f"{href}/samples?" + urlencode(query | ({"page": str(number)} if number else {}))

    first = page * PAGE_SIZE
    return SamplesPage(
        run_id=run.run_id,
        run_href=href,
        title=f"{run.model} {method_title(run.method)}",
        choices=_choices(store, run, wanted),
        hidden={k: v for k, v in query.items() if k in ("task", "step", "level")},
        samples=tuple(_line(href, s) for s in samples),
        counted=f"{first + 1:,} to {first + len(samples):,} of {total:,}" if samples else "none",
        earlier=address(page - 1) if page else None,
        later=address(page + 1) if first + len(samples) < total else None,
    )


def sample_page(run: RunInfo, sample: SampleInfo) -> SamplePage:
    """One attempt as it happened. A run directory that has gone leaves the verdict and says so."""
    try:
        transcript = read_transcript(Path(run.folder), sample.place, sample.blob)
    except RunLogError as error:
        transcript = Transcript(data={}, spans=(), missing=str(error))
    href = f"/runs/{quote(run.run_id)}"
    tint = tint_class(sample)
    turns = transcript.data.get("turns") or []
    cards = tuple(_card(i, turn, transcript.spans[i] if i < len(transcript.spans) else (), tint, sample) for i, turn in enumerate(turns))
    return SamplePage(
        run_id=run.run_id,
        run_href=href,
        list_href=f"{href}/samples?" + urlencode(_siblings(sample)),
        attempt_id=sample.attempt_id,
        question=sample.question,
        facts=tuple(_facts(sample)),
        verdict=verdict_of(sample),
        answer=sample.answer,
        gold=sample.gold,
        layer=sample.layer or "",
        judge=sample.judge or "",
        judge_words=sample.detail or "",
        status=_status_words(sample.status, str(transcript.data.get("detail") or "")),
        hint=str(transcript.data.get("hint") or ""),
        turns=cards,
        credit=_credit_words(sample),
        missing=transcript.missing,
    )


def verdict_of(sample: SampleInfo) -> Verdict:
    """The current judgement; without a value it is no verdict, never a wrong answer."""
    if sample.value is None:
        return Verdict(kind="none", words=f"No verdict: {(sample.verdict or 'not judged').replace('_', ' ')}")
    kind = "right" if sample.value >= 1 else "wrong" if sample.value <= 0 else "part"
    return Verdict(kind=kind, words=SIGN_WORDS[kind] + (f" ({sample.value:.2f})" if kind == "part" else ""))


def tint_class(sample: SampleInfo) -> str:
    """CSS classes of trained tokens: sign and size of the advantage (``up1`` to ``down3``), mean ratio as opacity (``o1`` to ``o5``)."""
    if not sample.trained or not sample.advantage:
        return ""
    strength = 1 + (abs(sample.advantage) > 0.5) + (abs(sample.advantage) > 1.2)
    ratio = 1.0 if sample.ratio_mean is None else max(0.0, min(sample.ratio_mean, 1.0))
    return f"{'up' if sample.advantage > 0 else 'down'}{strength} o{1 + round(4 * ratio)}"


def _card(number: int, turn: Mapping[str, Any], tokens: tuple[Token, ...], tint: str, sample: SampleInfo) -> TurnCard:
    text = str(turn.get("text") or "")
    thoughts = [t.strip() for t in THOUGHT.findall(text)]
    calls = tuple((str(a.get("name")), _arguments(a.get("arguments"))) for a in turn.get("actions") or [])
    plain = THOUGHT.sub("", text)
    return TurnCard(
        number=number + 1,
        thought="\n\n".join(t for t in thoughts if t),
        text=(CALL.sub("", plain) if calls else plain).replace("<|im_end|>", "").strip(),
        calls=calls,
        results=tuple(str(o) for o in turn.get("observations") or []),
        tool_errors=int(turn.get("tool_errors") or 0),
        tokens=tokens,
        tint=tint,
        tokens_words=f"{len(tokens)} sampled tokens, {'trained' if tint else 'not trained'}"
        if sample.purpose != "eval"
        else f"{len(tokens)} sampled tokens",
    )


def _arguments(arguments: Any) -> str:
    """Arguments a line each; whatever is not a mapping stays JSON."""
    if not isinstance(arguments, Mapping):
        return json.dumps(arguments, ensure_ascii=False)
    return "\n".join(f"{k}: {v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)}" for k, v in arguments.items())


def _facts(sample: SampleInfo) -> list[tuple[str, str]]:
    facts = [("task", sample.task_id), ("purpose", sample.purpose)]
    facts += [(name, str(value)) for name, value in sample.tags.items()]
    if sample.step is not None:
        facts.append(("step", str(sample.step)))
    if sample.purpose != "eval":
        facts += [("guidance level", str(sample.level)), ("member", str(sample.position))]
    counts = (("turns", sample.turns), ("sampled tokens", sample.generated_tokens))
    facts += [(name, f"{value:,}") for name, value in counts if value is not None]
    if sample.seconds is not None:
        facts.append(("time", f"{sample.seconds:.1f} s"))
    return facts


def _status_words(status: str, detail: str) -> str:
    return status.replace("_", " ") + (f": {detail}" if detail else "")


def _credit_words(sample: SampleInfo) -> str:
    if sample.purpose == "eval":
        return ""
    if sample.advantage is None or not sample.trained:
        return "Not trained: no token of this attempt entered the loss."
    ratio = "" if sample.ratio_mean is None else f", mean ratio {sample.ratio_mean:.3f}"
    effect = "more" if sample.advantage > 0 else "less"
    return f"Trained: advantage {sample.advantage:+.2f}{ratio}. Its tokens were made {effect} likely under the unguided prompt."


def _siblings(sample: SampleInfo) -> dict[str, str]:
    if sample.evaluation_id is not None:
        return {"evaluation": sample.evaluation_id}
    return {"task": sample.task_id, "step": str(sample.step)}


def _line(href: str, s: SampleInfo) -> SampleLine:
    place = [s.purpose, "" if s.step is None else f"step {s.step}", f"level {s.level}" if s.level else ""]
    return SampleLine(
        href=f"{href}/samples/{quote(s.attempt_id)}",
        question=s.question,
        task_id=s.task_id,
        tags=", ".join(f"{k} {v}" for k, v in s.tags.items()),
        place=" · ".join(p for p in place if p),
        answer=s.answer if s.answer is not None else s.status.replace("_", " "),
        gold="hidden" if s.gold is None else " | ".join(s.gold),
        verdict=verdict_of(s),
        turns="" if s.turns is None else str(s.turns),
        tokens="" if s.generated_tokens is None else f"{s.generated_tokens:,}",
    )


def _choices(store: Store, run: RunInfo, wanted: SampleFilter) -> tuple[Choice, ...]:
    evaluations = [(e.evaluation_id, f"{e.benchmark} {e.split}, step {e.step}") for e in store.evaluations(run.key)]
    purposes = [(p, words) for p, words in (("train", "training"), ("probe", "probes"), ("eval", "evaluation"))]
    verdicts = [("right", "right"), ("wrong", "wrong"), ("none", "no verdict")]
    return (
        Choice(name="purpose", title="Purpose", value=wanted.purpose or "", options=(("", "any"), *purposes)),
        Choice(name="verdict", title="Verdict", value=wanted.verdict or "", options=(("", "any"), *verdicts)),
        Choice(name="evaluation", title="Evaluation", value=wanted.evaluation or "", options=(("", "any"), *evaluations)),
    )


def _query(wanted: SampleFilter) -> dict[str, object]:
    pairs = {name: getattr(wanted, name) for name in ("purpose", "evaluation", "task", "step", "level", "verdict")}
    return {name: value for name, value in pairs.items() if value is not None}

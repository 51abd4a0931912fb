"""Builds the sample list and the sample page: what did the agent do, and why was it judged so?"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from harness.errors import RunLogError
from leaderboard.records import RunInfo, SampleFilter, SampleInfo
from leaderboard.samples import MOST_COUNTED
from leaderboard.store import Store
from leaderboard.transcripts import Token, TokenCredit, Transcript, read_token_credit, read_transcript, unsealed
from leaderboard.web.pages.sample import OtherVerdict, SampleLine, SamplePage, SamplesPage, TokenMark, TurnCard
from leaderboard.web.pages.shared import Choice, Link, Verdict
from leaderboard.web.query import sample_address
from leaderboard.words import HIDDEN, is_hidden, method_title

PAGE_SIZE = 50
MOST_DIFFS = 8
THOUGHT = re.compile(r"<think>(.*?)(?:</think>|$)", re.DOTALL)
CALL = re.compile(r"<tool_call>.*?(?:</tool_call>|$)", re.DOTALL)
SIGN_WORDS = {"right": "Right", "wrong": "Wrong", "part": "Partly right", "none": "No verdict"}


def samples_page(store: Store, run: RunInfo, wanted: SampleFilter, page: int, show_gated: bool = False) -> SamplesPage:
    """Page ``page`` (from 0) of the attempts of a run that pass the filter."""
    samples, total = store.samples.page(run.key, wanted, limit=PAGE_SIZE, offset=page * PAGE_SIZE)
    href = f"/runs/{quote(run.run_id)}"
    query = {k: str(v) for k, v in _query(wanted).items()}

    def address(number: int) -> str:
        return f"{href}/samples?" + urlencode(query | ({"page": str(number)} if number else {}))

    first, of = page * PAGE_SIZE, f"{total:,}" if total <= MOST_COUNTED else f"more than {MOST_COUNTED:,}"
    return SamplesPage(
        run_id=run.run_id,
        run_href=href,
        title=f"{run.model} {method_title(run.method)}",
        choices=_choices(store, run, wanted),
        hidden={k: v for k, v in query.items() if k in ("task", "step", "level")},
        samples=tuple(_line(run.run_id, s, show_gated) for s in samples),
        counted=f"{first + 1:,} to {first + len(samples):,} of {of}" if samples else "none",
        earlier=address(page - 1) if page else None,
        later=address(page + 1) if len(samples) == PAGE_SIZE and first + len(samples) != total else None,
    )


def sample_page(store: Store, run: RunInfo, sample: SampleInfo, show_gated: bool = False) -> SamplePage:
    """One attempt as it happened. A run directory that has gone leaves the verdict and says so."""
    hidden = is_hidden(sample.benchmark, sample.gold, show_gated)
    transcript = transcript_of(run, sample)
    plain = None if hidden else unsealed(transcript.data)
    question, gold = plain or (sample.question, sample.gold)
    href = f"/runs/{quote(run.run_id)}"
    return SamplePage(
        run_id=run.run_id,
        run_href=href,
        list_href=f"{href}/samples?" + urlencode(_siblings(sample)),
        attempt_id=sample.attempt_id,
        question=HIDDEN if hidden else question,
        facts=tuple(_facts(sample)),
        verdict=verdict_of(sample.value, sample.verdict),
        answer=None if sample.answer is None else HIDDEN if hidden else sample.answer,
        gold=None if hidden else gold,
        layer=sample.layer or "",
        judge=sample.judge or "",
        judge_words="" if hidden else sample.detail or "",
        status=_status_words(sample.status, "" if hidden else str(transcript.data.get("detail") or "")),
        hint="" if hidden else str(transcript.data.get("hint") or ""),
        turns=() if hidden else turn_cards(run, sample, transcript),
        credit=_credit_words(sample),
        missing=transcript.missing,
        hidden=hidden,
        others=tuple(
            OtherVerdict(judge=v.judge, layer=v.layer, verdict=verdict_of(v.value, v.status), words="" if hidden else v.detail)
            for v in store.samples.verdicts(run.key, sample.attempt_id)
            if v.judge != sample.judge
        ),
        diffs=tuple(_diff_links(store, run, sample)),
    )


def transcript_of(run: RunInfo, sample: SampleInfo) -> Transcript:
    """An attempt's transcript, or an empty one that says why there is none."""
    try:
        return read_transcript(Path(run.folder), sample.place, sample.blob)
    except RunLogError as error:
        return Transcript(data={}, spans=(), missing=str(error))


def turn_cards(run: RunInfo, sample: SampleInfo, transcript: Transcript) -> tuple[TurnCard, ...]:
    """The turns of an attempt as cards, their tokens marked with what they earned."""
    credit = read_token_credit(Path(run.folder), sample.place, sample.attempt_id) if sample.trained else None
    cards, seen = [], 0
    for i, turn in enumerate(transcript.data.get("turns") or []):
        span = transcript.spans[i] if i < len(transcript.spans) else ()
        cards.append(_card(i, turn, _marks(span, seen, sample, credit), sample))
        seen += len(span)
    return tuple(cards)


def verdict_of(value: float | None, status: str | None) -> Verdict:
    """A judgement; without a value it is no verdict, never a wrong answer."""
    if value is None:
        return Verdict(kind="none", words=f"No verdict: {(status or 'not judged').replace('_', ' ')}")
    kind = "right" if value >= 1 else "wrong" if value <= 0 else "part"
    return Verdict(kind=kind, words=SIGN_WORDS[kind] + (f" ({value:.2f})" if kind == "part" else ""))


def tint_class(advantage: float | None, ratio: float | None) -> str:
    """CSS classes of a trained token: sign and size of its advantage (``up1`` to ``down3``), its ratio as opacity (``o1`` to ``o5``)."""
    if not advantage:
        return ""
    strength = 1 + (abs(advantage) > 0.5) + (abs(advantage) > 1.2)
    weight = 1.0 if ratio is None else max(0.0, min(ratio, 1.0))
    return f"{'up' if advantage > 0 else 'down'}{strength} o{1 + round(4 * weight)}"


def ratio_words(ratio: float) -> str:
    """Three decimals, or two significant digits where those would show fewer: guided tokens reach ratios of 1e-6.

    >>> ratio_words(0.25), ratio_words(0.00987), ratio_words(1.2e-6), ratio_words(0.0)
    ('0.250', '9.9e-03', '1.2e-06', '0.000')
    """
    return f"{ratio:.1e}" if 0 < ratio < 0.01 else f"{ratio:.3f}"


def _marks(span: Sequence[Token], start: int, sample: SampleInfo, credit: TokenCredit | None) -> tuple[TokenMark, ...]:
    """Tokens ``start`` and on of an attempt: their own numbers where they were recorded, else the attempt's advantage and mean ratio."""
    marks = []
    for place, token in enumerate(span, start):
        advantage, ratio = sample.advantage, sample.ratio_mean
        if credit is not None:
            advantage = credit.advantages[place] if place < len(credit.advantages) else advantage
            ratio = credit.ratios[place] if place < len(credit.ratios) else ratio
        earned = sample.trained and advantage is not None
        words = f"id {token.id}, log-prob {token.logprob:.3f}"
        own = credit is not None and place < len(credit.ratios)
        if earned:
            words += f", advantage {advantage:+.2f}" + (
                f", ratio {ratio_words(ratio)}{'' if own else ' (mean of the attempt)'}" if ratio is not None else ""
            )
        marks.append(
            TokenMark(
                id=token.id,
                text=token.text,
                logprob=f"{token.logprob:.3f}",
                advantage=f"{advantage:+.2f}" if earned else "",
                ratio=ratio_words(ratio) if earned and own and ratio is not None else "",
                tint=tint_class(advantage, ratio) if sample.trained else "",
                words=words,
            )
        )
    return tuple(marks)


def _card(number: int, turn: Mapping[str, Any], tokens: tuple[TokenMark, ...], sample: SampleInfo) -> TurnCard:
    text = str(turn.get("text") or "")
    thoughts = [t.strip() for t in THOUGHT.findall(text)]
    calls = tuple((str(a.get("name")), _arguments(a.get("arguments"))) for a in turn.get("actions") or [])
    plain = THOUGHT.sub("", text)
    learned = "" if sample.purpose == "eval" else ", trained" if sample.trained else ", not trained"
    return TurnCard(
        number=number + 1,
        thought="\n\n".join(t for t in thoughts if t),
        text=(CALL.sub("", plain) if calls else plain).replace("<|im_end|>", "").strip(),
        calls=calls,
        results=tuple(str(o) for o in turn.get("observations") or []),
        tool_errors=int(turn.get("tool_errors") or 0),
        tokens=tokens,
        trained=bool(sample.trained),
        tokens_words=f"{len(tokens)} sampled tokens{learned}",
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
    if not sample.trained:
        return "Not trained: no token of this attempt entered the loss."
    if sample.advantage is None:
        return "Trained by a loss that takes neither advantage nor ratio."
    if not sample.advantage:
        return "In the batch with advantage 0: only the penalty for leaving the reference policy reached its tokens."
    ratio = "" if sample.ratio_mean is None else f", mean ratio {ratio_words(sample.ratio_mean)}"
    effect = "more" if sample.advantage > 0 else "less"
    return f"Trained: advantage {sample.advantage:+.2f}{ratio}. Its tokens were made {effect} likely under the unguided prompt."


def _siblings(sample: SampleInfo) -> dict[str, str]:
    if sample.evaluation_id is not None:
        return {"evaluation": sample.evaluation_id}
    return {"task": sample.task_id, "step": str(sample.step)}


def _diff_links(store: Store, run: RunInfo, sample: SampleInfo) -> list[Link]:
    """Other attempts of this run at the same task, of the same step or evaluation, to lay beside this one."""
    wanted = SampleFilter(
        purpose=sample.purpose if sample.purpose == "eval" else None,
        evaluation=sample.evaluation_id,
        task=sample.task_id,
        step=None if sample.evaluation_id else sample.step,
    )
    others, _ = store.samples.page(run.key, wanted, limit=MOST_DIFFS + 1)
    links = []
    for other in others:
        if other.attempt_id != sample.attempt_id:
            pair = {"run_a": run.run_id, "a": sample.attempt_id, "run_b": run.run_id, "b": other.attempt_id}
            words = f"level {other.level}, member {other.position}: {verdict_of(other.value, other.verdict).words.lower()}"
            links.append(Link(words=words, href="/diff?" + urlencode(pair)))
    return links[:MOST_DIFFS]


def _line(run_id: str, s: SampleInfo, show_gated: bool) -> SampleLine:
    place = [s.purpose, "" if s.step is None else f"step {s.step}", f"level {s.level}" if s.level else ""]
    hidden = is_hidden(s.benchmark, s.gold, show_gated)
    return SampleLine(
        href=sample_address(run_id, s.attempt_id),
        question=HIDDEN if hidden else s.question,
        task_id=s.task_id,
        tags=", ".join(f"{k} {v}" for k, v in s.tags.items()),
        place=" · ".join(p for p in place if p),
        answer=s.status.replace("_", " ") if s.answer is None else "hidden" if hidden else s.answer,
        gold="hidden" if hidden or s.gold is None else " | ".join(s.gold),
        verdict=verdict_of(s.value, s.verdict),
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

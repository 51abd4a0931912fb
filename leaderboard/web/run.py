"""Builds the list of runs and the run page: is it learning, and from which tasks?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from harness.wording import plural
from leaderboard.outcomes import bounds
from leaderboard.records import EvaluationInfo, GroupInfo, RunInfo
from leaderboard.rows import flatten
from leaderboard.store import Store
from leaderboard.web.charts import short
from leaderboard.web.curves import charts_of, more_charts_of
from leaderboard.web.diagnostics import card
from leaderboard.web.live import last_lines
from leaderboard.web.pages.run import EvaluationLine, Figure, RunLine, RunPage, RunsPage, RunStatus, Setting
from leaderboard.web.pages.shared import Link
from leaderboard.web.rescue import RescueMap, rescue_map
from leaderboard.words import method_title, percent

SILENT_AFTER_SECONDS = 600
REFRESH_SECONDS = 10  # without JavaScript; with it, events tell when there is something new
RUNS_A_PAGE = 100


def runs_page(store: Store, now: datetime, model: str | None = None, method: str | None = None, page: int = 0) -> RunsPage:
    """Page ``page`` (from 0) of all runs, or of those of one model or method."""
    wanted = store.runs(model=model, method=method, limit=RUNS_A_PAGE + 1, offset=page * RUNS_A_PAGE)
    shown = wanted[:RUNS_A_PAGE]
    scores = store.last_scores([run.key for run in shown])
    query = {name: value for name, value in (("model", model), ("method", method)) if value}

    def address(number: int) -> str:
        return "/runs?" + urlencode(query | ({"page": str(number)} if number else {}))

    return RunsPage(
        runs=tuple(_line(run, now, scores.get(run.key)) for run in shown),
        earlier=address(page - 1) if page else None,
        later=address(page + 1) if len(wanted) > RUNS_A_PAGE else None,
    )


def run_page(store: Store, run: RunInfo, now: datetime, arrangement: str | None = None) -> RunPage:
    """One run: the rescue map, the curves, its evaluations and settings."""
    groups, series, evaluations = store.groups(run.key), store.series(run.key), store.evaluations(run.key)
    cursor = store.cursor(run.key)
    status, href = run_status(run, now), f"/runs/{quote(run.run_id)}"
    maps = _maps(store, run, groups, arrangement)
    changed = {} if run.changed is None else run.changed
    submission = store.submission(run.run_id)
    return RunPage(
        run_id=run.run_id,
        title=f"{run.model} {method_title(run.method)}",
        subtitle=_subtitle(run),
        status=status,
        signed=None if submission is None else (submission.signer, submission.at[:10]),
        error=run.error or "",
        figures=tuple(_figures(run, groups, series, evaluations)),
        maps=maps,
        arrangements=tuple(
            Link(words=words, href=f"{href}?map={name}", current=bool(maps) and maps[0].arrangement == name)
            for name, words in (("tasks", "By task"), ("stacked", "Stacked by outcome"))
        ),
        charts=charts_of(series, groups, store.histogram(run.key, "ratio/guided")),
        more_charts=more_charts_of(series),
        diagnostics=tuple(card(info) for info in store.diagnostics(run.key)),
        evaluations=tuple(_evaluation(href, e) for e in evaluations),
        changed=tuple(Setting(name=k, value=_shown(v[1]), default=_shown(v[0])) for k, v in sorted(changed.items())),
        settings=_settings(run.config),
        provenance=_settings(run.provenance),
        samples=f"{href}/samples",
        compare="/compare?" + urlencode({"a": run.run_id}),
        refresh=REFRESH_SECONDS if status.kind == "live" else None,
        events=f"{href}/events?" + urlencode({"after": cursor}) if status.kind == "live" and cursor else None,
        log=last_lines(series),
    )


def run_status(run: RunInfo, now: datetime) -> RunStatus:
    """How a run stands; one that was killed says nothing, so silence is told by the clock."""
    if run.status == "finished":
        return RunStatus(kind="finished", words="finished")
    if run.status == "failed":
        return RunStatus(kind="failed", words="stopped", advice=f"mend what the message says, then {_continue(run)}")
    quiet = (now - datetime.fromisoformat(run.updated_at)).total_seconds() if run.updated_at else SILENT_AFTER_SECONDS + 1.0
    if quiet <= SILENT_AFTER_SECONDS:
        return RunStatus(kind="live", words="live")
    return RunStatus(kind="silent", words=f"silent for {duration(quiet)}", advice=f"it was interrupted or is stuck; {_continue(run)}")


def _continue(run: RunInfo) -> str:
    """How a run goes on, which the commands do in different ways."""
    return "give the same command again with --out and its folder" if run.command == "eval" else "resume the run with --resume"


def duration(seconds: float) -> str:
    """Seconds in the largest two units."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    if seconds < 86_400:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds // 86_400:.0f} d {seconds % 86_400 // 3600:.0f} h"


def _line(run: RunInfo, now: datetime, last: tuple[str, float] | None) -> RunLine:
    return RunLine(
        run_id=run.run_id,
        href=f"/runs/{quote(run.run_id)}",
        model=run.model,
        method=method_title(run.method),
        seed="" if run.seed is None else str(run.seed),
        status=run_status(run, now),
        started=_moment(run.started_at),
        took=_took(run),
        result="" if last is None else f"{percent(last[1])} ({last[0]})",
    )


def _subtitle(run: RunInfo) -> str:
    parts = [f"harness {run.command}" if run.command else "", "" if run.seed is None else f"seed {run.seed}"]
    parts += [f"started {_moment(run.started_at)}" if run.started_at else "", _took(run)]
    return " · ".join(p for p in parts if p)


def _moment(iso: str | None) -> str:
    return "" if iso is None else datetime.fromisoformat(iso).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _took(run: RunInfo) -> str:
    end = run.finished_at or run.updated_at
    if run.started_at is None or end is None:
        return ""
    return duration((datetime.fromisoformat(end) - datetime.fromisoformat(run.started_at)).total_seconds())


def _figures(
    run: RunInfo, groups: Sequence[GroupInfo], series: Mapping[str, Sequence[tuple[int, float]]], evaluations: Sequence[EvaluationInfo]
) -> list[Figure]:
    figures = []
    last = next((e for e in reversed(evaluations) if e.score is not None), None)
    if last is not None and last.score is not None:
        interval = "" if last.low is None or last.high is None else f"{percent(last.low)} to {percent(last.high)}, "
        where = f"{last.benchmark} {last.split}".strip()
        figures.append(Figure(title=f"Held out: {where}", value=f"{percent(last.score)}%", detail=f"{interval}n = {last.n}"))
    if groups:
        first, final = groups[0].step, groups[-1].step
        for outcome, words in (("solved", "Solved alone"), ("rescued", "Rescued")):
            shares = [_share(groups, step, outcome) for step in (first, final)]
            if any(shares) or outcome == "solved":
                detail = f"of groups at step {final}; {shares[0]:.0%} at step {first}"
                figures.append(Figure(title=words, value=f"{shares[1]:.0%}", detail=detail))
    if series.get("tokens/generated_total"):
        steps = len(series["tokens/generated_total"])
        figures.append(
            Figure(
                title="Generated",
                value=short(series["tokens/generated_total"][-1][1]),
                detail=f"tokens in {steps} {plural(steps, 'step')}, probes counted",
            )
        )
    return figures


def _share(groups: Sequence[GroupInfo], step: int, outcome: str) -> float:
    counts = Counter(g.outcome for g in groups if g.step == step)
    return counts[outcome] / max(counts.total(), 1)


def _maps(store: Store, run: RunInfo, groups: Sequence[GroupInfo], arrangement: str | None) -> tuple[RescueMap, ...]:
    """This run's map, and beside it that of the closest sibling: another method on the same model, of the same seed if there is one."""
    own = rescue_map(run.run_id, method_title(run.method), groups, arrangement)
    if own is None:
        return ()
    siblings = [r for r in store.runs(model=run.model, command=run.command) if r.method != run.method]
    for sibling in sorted(siblings, key=lambda r: (r.method not in ("zero-rl", "actguide"), r.seed != run.seed)):
        other = rescue_map(sibling.run_id, method_title(sibling.method), store.groups(sibling.key), own.arrangement, like=groups)
        if other is not None:
            return own, other
    return (own,)


def _evaluation(href: str, e: EvaluationInfo) -> EvaluationLine:
    def samples(verdict: str) -> str:
        return f"{href}/samples?" + urlencode({"evaluation": e.evaluation_id, "verdict": verdict})

    return EvaluationLine(
        title=f"{e.benchmark} {e.split}".strip(),
        step="" if e.step is None else str(e.step),
        score=percent(e.score) if e.score is not None else "no verdict" if e.finished else "not finished",
        interval="" if e.low is None or e.high is None else f"{percent(e.low)} to {percent(e.high)}",
        n=e.n,
        judge=e.judge,
        comparability=e.comparability,
        departs=str((e.code_parts or {}).get("departs") or ""),
        coverage=f"{e.coverage or 0.0:.0%}" if e.judged is None else f"{e.judged / max(e.n, 1):.0%} so far",
        bounds=" to ".join(map(percent, bounds(e.score or 0.0, e.coverage or 0.0, e.truncated / max(e.n, 1)))) if e.finished else "",
        tokens="" if e.generated_tokens_total is None else f"{e.generated_tokens_total:,}",
        right=samples("right"),
        wrong=samples("wrong"),
        none=samples("none"),
    )


def _settings(config: Mapping[str, Any]) -> tuple[Setting, ...]:
    return tuple(Setting(name=k, value=_shown(v), default=None) for k, v in sorted(flatten(config).items()))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

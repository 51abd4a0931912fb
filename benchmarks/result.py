"""What an evaluation found: outcomes by sample, and the numbers that follow from them. Pure; intervals are the leaderboard's business."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from harness.metrics import avg_at_k, bounds, calibration_error, pass_at_k, pass_hat_k
from harness.types import ScoreStatus, Status
from harness.wording import plural


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One sample: its score (None without a verdict), how its episode ended, how its judgement ended, and what it used."""

    COUNTED: ClassVar[tuple[str, ...]] = ("prompt_tokens", "generated_tokens", "billed_prompt_tokens", "retries", "cost")

    value: float | None
    status: Status
    score: ScoreStatus
    usage: Mapping[str, float | None] = field(default_factory=dict)
    confidence: float | None = None  # that the answer stated, in [0, 1]

    @property
    def cut_off(self) -> bool:
        """Whether it counts as wrong and was truncated: a longer answer might have been right. (Some rules accept a part of an answer.)"""
        return self.value == 0 and self.status is Status.TRUNCATED

    @property
    def word(self) -> str:
        """``answered``, or what kept it from a verdict or an answer."""
        judged = self.score in (ScoreStatus.JUDGED, ScoreStatus.OUTAGE)
        return str(self.status) if judged else f"judge {self.score}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Outcomes by (task id, epoch); a sample that was not run is absent. ``stopped_by`` names the limit that kept it from running."""

    tasks: tuple[str, ...]
    epochs: int = 1
    outcomes: Mapping[tuple[str, int], Outcome]
    stopped_by: str | None = None

    def values(self, task: str) -> list[float]:
        """Scores of a task's attempts, those without a verdict left out."""
        found = (self.outcomes.get((task, epoch)) for epoch in range(self.epochs))
        return [o.value for o in found if o is not None and o.value is not None]

    @property
    def scores(self) -> dict[str, float | None]:
        """Mean score by task; None where no attempt was scored."""
        return {task: avg_at_k(values) if (values := self.values(task)) else None for task in self.tasks}

    @property
    def mean(self) -> float | None:
        """Mean over scored tasks."""
        known = [s for s in self.scores.values() if s is not None]
        return sum(known) / len(known) if known else None

    @property
    def coverage(self) -> float:
        """Share of the samples with a verdict."""
        return sum(o.value is not None for o in self.outcomes.values()) / max(len(self.tasks) * self.epochs, 1)

    @property
    def bounds(self) -> tuple[float, float]:
        """The mean if every sample without a verdict, and every one that was truncated and failed, were wrong, and if it were right."""
        found = (self.outcomes.get((task, epoch)) for task in self.tasks for epoch in range(self.epochs))
        return bounds(None if o is None or o.cut_off else o.value for o in found)

    def open(self) -> str:
        """``2 could not be scored, 1 truncated (counted as wrong), so between 12.5% and 20.0%``; empty where nothing is open."""
        missing = len(self.tasks) * self.epochs - sum(o.value is not None for o in self.outcomes.values())
        cut = sum(o.cut_off for o in self.outcomes.values())
        counts = [f"{missing} could not be scored" if missing else "", f"{cut} truncated (counted as wrong)" if cut else ""]
        low, high = self.bounds
        return f"{', '.join(filter(None, counts))}, so between {low:.1%} and {high:.1%}" if missing or cut else ""

    def repeated(self) -> dict[str, float]:
        """avg@k, pass@k and pass^k over tasks with k scored attempts; empty for one epoch, and where scores are no verdicts of 0 or 1."""
        k = self.epochs
        rows = [values for task in self.tasks if len(values := self.values(task)) == k]
        if k < 2 or not rows or any(v not in (0.0, 1.0) for row in rows for v in row):
            return {}
        means = {
            f"avg@{k}": [avg_at_k(row) for row in rows],
            f"pass@{k}": [pass_at_k(k, round(sum(row)), k) for row in rows],
            f"pass^{k}": [pass_hat_k(k, round(sum(row)), k) for row in rows],
        }
        return {name: sum(values) / len(values) for name, values in means.items()}

    def calibration(self) -> str:
        """``calibration error 12.3% over 280 answers with a stated confidence``; empty where no judged answer stated one."""
        stated = [(o.confidence, o.value) for o in self.outcomes.values() if o.confidence is not None and o.value is not None]
        if not stated:
            return ""
        error = calibration_error([confidence for confidence, _ in stated], [value for _, value in stated])
        return f"calibration error {error:.1%} over {len(stated)} {plural(len(stated), 'answer')} with a stated confidence"

    def statuses(self) -> dict[str, int]:
        """How many samples ended how, the most frequent first."""
        counts = Counter(o.word for o in self.outcomes.values())
        if missing := len(self.tasks) * self.epochs - len(self.outcomes):
            counts["not run"] = missing
        return dict(counts.most_common())

    def usage(self) -> dict[str, float]:
        """Sums of what the samples used, as far as it was counted."""
        sums: Counter[str] = Counter()
        for outcome in self.outcomes.values():
            sums.update({name: value for name, value in outcome.usage.items() if value is not None})
        return dict(sums)

    def words(self) -> str:
        """``12.5% of 40 tasks, unguided``, with what is open and where the score lies then."""
        score = "no score" if self.mean is None else f"{self.mean:.1%}"
        unscored = f"; {self.open()}" if self.open() else ""
        again = "".join(f"; {name} {value:.1%}" for name, value in self.repeated().items())
        return f"{score} of {len(self.tasks)} {plural(len(self.tasks), 'task')}, unguided{unscored}{again}"

    def details(self) -> str:
        """Coverage, statuses and usage on one line: ``coverage 100%; answered 37, truncated 3; 5,120 prompt + 1,024 generated tokens``."""
        ended = ", ".join(f"{word} {count}" for word, count in self.statuses().items())
        sums = self.usage()
        tokens = f"{sums.get('prompt_tokens', 0):,.0f} prompt + {sums.get('generated_tokens', 0):,.0f} generated tokens"
        cost = f", cost {sums['cost']:.4g}" if "cost" in sums else ""
        retries = f", {sums['retries']:.0f} {plural(sums['retries'], 'request')} sent again" if sums.get("retries") else ""
        stopped = f"; stopped by {self.stopped_by}" if self.stopped_by and "not run" in self.statuses() else ""
        calibration = f"; {self.calibration()}" if self.calibration() else ""
        return f"coverage {self.coverage:.0%}; {ended}; {tokens}{cost}{retries}{calibration}{stopped}"

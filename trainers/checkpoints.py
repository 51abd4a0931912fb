"""Checkpoints of a run: where they lie, which one to resume from, which one is the best, how many are kept.

A checkpoint is complete when its ``state.json`` is there: the learner writes everything else first, and a folder gets its final name
only when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainers.learner.base import Learner, cannot_save
from trainers.state import RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The checkpoint that did best on validation tasks, and its mean score there."""

    step: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """Folders ``step-000010`` below ``folder``; only the best one, those of the steps ``pinned`` and the newest ``keep`` stay."""

    folder: Path
    keep: int = 2
    pinned: tuple[int, ...] = ()
    origin: Mapping[str, object] = field(default_factory=dict)  # written beside the weights as harness.json

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def save(self, state: RunState, learner: Learner) -> dict[str, Any]:
        """Write one checkpoint, drop the oldest beyond ``keep``, and return its record. ``HarnessError``: it cannot be written whole."""
        final = self.path(state.step)
        partial = final.with_name(final.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            learner.save(partial)
            (partial / "hf" / "harness.json").write_text(json.dumps({**self.origin, "step": state.step}))
            state.save(partial)
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
        except OSError as error:
            raise cannot_save(final, error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        best, pinned = self.best(), {self.path(step) for step in self.pinned}
        for old in [folder for folder in self.complete() if folder not in pinned][: -self.keep]:
            if best is None or old != self.path(best.step):
                shutil.rmtree(old)
        files = {str(p.relative_to(final)): _sha256(p) for p in sorted(final.rglob("*")) if p.is_file()}
        return {"step": state.step, "folder": str(final.relative_to(self.folder.parent)), "files": files}

    def best(self) -> Best | None:
        """What ``mark_best`` marked last, if its checkpoint is still there."""
        path = self.folder / "best.json"
        if not path.is_file():
            return None
        found = Best(**json.loads(path.read_text()))
        return found if self.path(found.step) in self.complete() else None

    def mark_best(self, best: Best) -> None:
        """Keep a whole checkpoint from being dropped; the one marked before goes when its turn comes."""
        partial = self.folder / "best.json.partial"
        partial.write_text(json.dumps(asdict(best)))
        partial.replace(self.folder / "best.json")

    def complete(self) -> list[Path]:
        """Whole checkpoints, the oldest first."""
        return sorted(p for p in self.folder.glob("step-*") if not p.name.endswith(".partial") and (p / "state.json").is_file())

    def latest(self) -> tuple[Path, RunState] | None:
        """The newest whole checkpoint, or None."""
        found = self.complete()
        return (found[-1], RunState.load(found[-1])) if found else None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

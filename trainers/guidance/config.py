"""The settings of guidance: when it is given, how much of it, in which form, and what is trained of it."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from harness.config import Section, identity
from harness.errors import HarnessError
from trainers.guidance.inject import Inject, Injected, Injection, injection
from trainers.guidance.search import Probe, release_search, search


class GuidanceConfig(Section):
    """When and how much guidance is given."""

    fallback: bool = identity(True)
    """Guide only the tasks whose unguided group has no success; false guides every task that has expert actions (Table 4)."""
    fixed_level: int | None = identity(None, ge=1)
    """No search: always the first so many expert actions, or all where a task has fewer (null: search)."""
    fixed_ratio: float | None = identity(None, gt=0, le=1)
    """No search: always the first ceil(ratio * L) expert actions (Fig. 7); 1.0 is the paper's run without adaptive guidance (Table 4)."""
    search: Literal["verified", "release"] = identity("verified")
    """verified: only a level that was tried and sufficed is used. release: the authors' search, which tries level 0, never tries the last
    level, and may use a level that it never tried; where it settles on level 0, a second unguided group is drawn."""
    probe_budget: int | None = identity(None, ge=1)
    """Levels tried per failed group (B); None means ceil(log2 L) + 1."""
    probe_size: int | None = identity(None, ge=1)
    """Rollouts per level tried (null: N, a whole group). A level suffices if one of them succeeds."""
    reuse_probes: bool = identity(True)
    """Keep the N trajectories that verified k*; False draws N fresh ones there (Algorithm 1 to the letter)."""
    merge: Literal["union", "replace"] = identity("union")
    """The guided N join the failed N (the paper), or replace them (the authors' code)."""
    train_view: Literal["unguided", "guided"] = identity("unguided")
    """The context that guided rollouts are trained under: unguided is the mixed policy of Eq. 12; guided keeps the context that they were
    sampled in, with ratio 1 at the first update (Table 4, without mixed policy)."""
    injection: Injection = identity("plan")
    """How the actions are given (Table 7): plan (behind the question), assistant-prefix (the first turn begins with the plan), messages
    (replayed in the environment as tool turns), step (one action as a hint before each turn; beyond the paper)."""
    injected: Injected | None = identity(None)
    """Only for injection messages, where it must be chosen: drop trains without the replayed turns, so answers are trained from evidence
    that the trained view does not show; keep trains with them in view, which is training under guidance."""

    @model_validator(mode="after")
    def _fits_together(self) -> GuidanceConfig:
        if self.fixed_level is not None and self.fixed_ratio is not None:
            raise ValueError("fixed_level and fixed_ratio both fix the level; set one of them to null")
        if self.probe_size is not None and self.reuse_probes:
            raise ValueError(f"probe_size is {self.probe_size}: such probes are no whole group to train on; set reuse_probes to false")
        try:
            self.inject()
        except HarnessError as error:
            raise ValueError(str(error)) from error
        return self

    def inject(self) -> Inject:
        """What makes a guide of a task's actions and a level."""
        return injection(self.injection, self.injected)

    def search_of(self, levels: int, budget: int) -> Probe:
        return (search if self.search == "verified" else release_search)(levels, budget)

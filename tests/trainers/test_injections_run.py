"""One real training step of the tiny model under every way of giving guidance, checked against a plain forward of the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.chat import Chat
from harness.cli.main import cli, run_command
from harness.events import Kind, current_events, read_blob
from harness.tiny import model_dir
from leaderboard.database import database_url, open_database
from leaderboard.store import Store
from leaderboard.web.sample import ratio_words, sample_page
from trainers.guidance.inject import LEAD, STEP_LEAD

KINDS = (("plan", "null"), ("assistant-prefix", "null"), ("step", "null"), ("messages", "drop"), ("messages", "keep"))
GIVEN = {"plan": LEAD, "assistant-prefix": LEAD, "step": STEP_LEAD, "messages": "<tool_response>"}
CHAT = Chat.load(model_dir())
SMALL = {
    "tasks_per_step": 2,
    "minibatch_tasks": 2,
    "eval_limit": 1,
    "generation.slots": 8,
    "generation.context": 384,
    "agent.context_tokens": 384,
    "generation.threads": 1,
    "algorithm.group.group_size": 2,
    "algorithm.group.zero_variance": "keep",
    "algorithm.guidance.fallback": "false",
    "algorithm.guidance.fixed_ratio": 1.0,
}


def logprobs(model: Any, contexts: list[list[int]], spans: list[dict[str, Any]]) -> torch.Tensor:
    """What the weights give the sampled tokens behind these contexts, by one plain forward."""
    ids = [i for c, z in zip(contexts, spans, strict=True) for i in (*c, *z["ids"])]
    sampled = [flag for c, z in zip(contexts, spans, strict=True) for flag in (*((False,) * len(c)), *((True,) * len(z["ids"])))]
    with torch.no_grad():
        rows = torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1].double(), -1)
    given = rows.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    return given[torch.tensor(sampled[1:])]


def columns(earned: dict[str, Any]) -> tuple[list[float], list[float]]:
    return earned["advantages"], earned["ratios"]


def shown(home: Path, attempt: str) -> list[tuple[str, str]]:
    """Advantage and ratio of every token, as the sample's page shows them."""
    store = Store(open_database(database_url(home)))
    (run,) = store.runs()
    sample = store.samples.one(run.key, attempt)
    assert sample is not None
    return [(token.advantage, token.ratio) for turn in sample_page(store, run, sample).turns for token in turn.tokens]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "injected"), KINDS)
def test_a_real_step_has_the_ratios_of_the_two_views(kind: str, injected: str, tmp_path: Path, harness_home: Path) -> None:
    from transformers import AutoModelForCausalLM

    settings = {**SMALL, "algorithm.guidance.injection": kind, "algorithm.guidance.injected": injected}
    chosen = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    folder = tmp_path / "run"
    assert run_command(cli, ["run", "--trainer", "actguide", "--model", "tiny", "--steps", "1", *chosen, "--out", str(folder)]) == 0
    events = list(current_events(folder))
    attempts = {e.data["attempt_id"]: e.data for e in events if e.kind is Kind.ATTEMPT}
    (credit,) = [e.data for e in events if e.kind is Kind.CREDIT]
    (metrics,) = [e.data["metrics"] for e in events if e.kind is Kind.STEP]
    assert [row["guided"] for row in credit["rows"]] == [False, False, True, True] * 2
    model = AutoModelForCausalLM.from_pretrained(model_dir(), dtype=torch.float32).eval()
    guided: list[torch.Tensor] = []
    for row in credit["rows"]:
        blob = read_blob(folder, attempts[row["attempt_id"]]["blob"])
        seen, trained = (logprobs(model, blob[view], blob["spans"]) for view in ("contexts", "target"))
        recorded = torch.tensor([p for z in blob["spans"] for p in z["logprobs"]], dtype=torch.float64)
        assert (recorded - seen).abs().max() < 1e-3
        assert row["ratio_mean"] == pytest.approx(float((trained - seen).exp().mean()), abs=1e-3)
        earned = read_blob(folder, row["blob"])
        assert earned["ratios"] == pytest.approx((trained - seen).exp().tolist(), abs=1e-3)
        assert earned["advantages"] == pytest.approx([row["advantage"]] * row["tokens"], abs=1e-6)
        assert shown(harness_home, row["attempt_id"]) == [(f"{a:+.2f}", ratio_words(r)) for a, r in zip(*columns(earned), strict=True)]
        assert (blob["contexts"] == blob["target"]) is (not row["guided"] or injected == "keep")
        assert len(earned["ratios"]) == row["tokens"] == sum(len(z["ids"]) for z in blob["spans"]), "a given token was trained"
        if row["guided"]:
            sampled_under, trained_under = (CHAT.decode(blob[view][0]).rpartition("Who is")[2] for view in ("contexts", "target"))
            assert GIVEN[kind] in sampled_under and (GIVEN[kind] in trained_under) is (injected == "keep")
            guided.append((trained - seen).exp())
    assert metrics["ratio/guided_mean"] == pytest.approx(float(torch.cat(guided).mean()), abs=1e-3)
    assert metrics["ratio/unguided_mean"] == pytest.approx(1, abs=1e-3) and metrics["mismatch/logprob_max"] < 1e-3
    assert (metrics["ratio/guided_mean"] == pytest.approx(1, abs=1e-3)) is (injected == "keep")

"""The judge that asks a model: reference-based, few-shot, binary. ``exact`` goes first; the model sees only what that leaves undecided.
On GAIA its own quasi-exact match goes before both: what it accepts is right, and what it does not accept is still open.

A reply that cannot be read, a server that is down and a refusal are three statuses without a value. Each judgement keeps the model, the
hash of the prompt and the model's own words.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config import home
from harness.errors import OutageError, UsageError
from harness.types import Score, ScoreStatus
from judges.base import Judge, check_judge, close_judge
from judges.cache import Cache, cache_key
from judges.contract import CONTRACT, Contract
from judges.exact import ExactJudge
from judges.gaia import QuasiExactJudge
from judges.models import JudgeModel, Reply

KEPT_RAW = 4000  # characters of a reply in the judgement
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMJudge:
    """``model`` is asked once per question, gold and answer; ``cache`` keeps its verdicts. A provider that answers under several names of
    models is warned of: one score then mixes the verdicts of several judges, which each judgement's ``served`` tells apart."""

    model: JudgeModel
    cache: Cache
    contract: Contract = CONTRACT
    _served: set[str] = field(default_factory=set, compare=False, repr=False)

    @property
    def name(self) -> str:
        return f"llm:{self.model.name}@{self.contract.hash}"

    async def score(self, question: str, gold: tuple[str, ...], answer: str) -> Score:
        key = cache_key(self.model.place, self.model.name, self.contract.hash, question, gold, answer)
        kept = self.cache.get(key)
        if kept is not None:
            reply = Reply(
                text=str(kept["raw"]), model=str(kept["served"]), structured=bool(kept["structured"]), greedy=bool(kept.get("greedy", True))
            )
            return self._score(reply, cached=True)
        try:
            reply = await self.model.complete(self.contract.messages(question, gold, answer), self.contract)
        except OutageError as error:
            evidence = {"model": self.model.name, "place": self.model.place, "prompt": self.contract.hash}
            return Score(value=None, status=ScoreStatus.TRANSPORT_ERROR, layer="llm", detail=str(error), evidence=evidence)
        score = self._score(reply, cached=False)
        if score.status is ScoreStatus.JUDGED:
            self.cache.put(key, {"raw": reply.text, "served": reply.model, "structured": reply.structured, "greedy": reply.greedy})
        return score

    async def check(self) -> None:
        await self.model.check(self.contract)

    async def close(self) -> None:
        await self.model.close()

    def _score(self, reply: Reply, *, cached: bool) -> Score:
        if reply.model not in self._served:
            self._served.add(reply.model)
            if len(self._served) > 1:
                names = ", ".join(sorted(self._served))
                _LOG.warning(
                    "the judge %s was answered by several models: %s; their verdicts are mixed in one score", self.model.name, names
                )
        reading = self.contract.parse(reply.text)
        status = ScoreStatus.REFUSED if reply.refused else reading.status
        evidence: dict[str, Any] = {
            "model": self.model.name,
            "served": reply.model,
            "place": self.model.place,
            "prompt": self.contract.hash,
            "raw": reply.text[:KEPT_RAW],
            "structured": reply.structured,
            "greedy": reply.greedy,
            "cached": cached,
        }
        if status is not ScoreStatus.JUDGED:
            words = {ScoreStatus.REFUSED: "the judging model refused", ScoreStatus.PARSE_ERROR: "the reply names no single verdict"}
            return Score(value=None, status=status, layer="llm", detail=words[status], evidence=evidence)
        return Score(value=float(bool(reading.verdict)), status=status, layer="llm", evidence=evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayeredJudge:
    """The deterministic judge, then another where it is undecided; the score's layer says which of them decided."""

    first: ExactJudge
    then: Judge

    @property
    def name(self) -> str:
        return f"{self.first.name}+{self.then.name}"

    async def score(self, question: str, gold: tuple[str, ...], answer: str) -> Score:
        verdict = self.first.decide(question, gold, answer)
        if verdict.status is ScoreStatus.JUDGED or not any(form.strip() for form in gold):
            return verdict
        return await self.then.score(question, gold, answer)

    async def check(self) -> None:
        await check_judge(self.then)

    async def close(self) -> None:
        await close_judge(self.then)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuasiExactFirst:
    """GAIA's rule where it accepts, then another judge: unlike the rule alone, no other wording of the gold is refused for its wording."""

    then: Judge
    first: QuasiExactJudge = field(default_factory=QuasiExactJudge)

    @property
    def name(self) -> str:
        return f"{self.first.name}+{self.then.name}"

    async def score(self, question: str, gold: tuple[str, ...], answer: str) -> Score:
        verdict = await self.first.score(question, gold, answer)
        return verdict if verdict.value else await self.then.score(question, gold, answer)

    async def check(self) -> None:
        await check_judge(self.then)

    async def close(self) -> None:
        await close_judge(self.then)


def for_benchmark(judge: Judge, benchmark: str) -> Judge:
    """The judge as it is used on a benchmark: one that asks a model is preceded by GAIA's own rule on GAIA, and nowhere else."""
    return QuasiExactFirst(then=judge) if benchmark == "gaia" and isinstance(judge, LayeredJudge) else judge


def open_llm(*, closed: bool, target: str = "") -> LayeredJudge:
    """``llm:URL[#MODEL]`` or ``llm:MODEL`` (a local one). Closed tasks go to the model, too, where no alias matches: it was asked for."""
    if not target:
        raise UsageError("the judge 'llm' needs a model: --judge llm:http://HOST:PORT/v1[#MODEL], or llm:NAME or llm:PATH for a local one")
    judge = LLMJudge(model=open_model(target), cache=Cache(folder=home() / "cache" / "judge"))
    return LayeredJudge(first=ExactJudge(), then=judge)


def open_model(target: str) -> JudgeModel:
    """The model that a target names. A URL without ``#MODEL`` is asked what it serves."""
    if "://" in target:
        from judges.endpoint import EndpointModel, only_model

        url, _, model = target.partition("#")
        return EndpointModel(url, model or only_model(url))
    return _local(target)


def _local(name: str) -> JudgeModel:
    from harness.chat import Chat
    from harness.engines.base import EngineConfig
    from harness.models import model_directory
    from harness.registry import load
    from judges.models import LocalModel

    _, directory = model_directory(name)
    config = EngineConfig(context=8192, slots=4)
    return LocalModel(
        name=Path(name).name, place=str(directory), load=lambda: (load("engines", "hf")(directory, config), Chat.load(directory))
    )

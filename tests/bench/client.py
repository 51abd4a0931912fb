"""One evaluation client against an endpoint, in a process of its own: prints samples, seconds, CPU time and peak memory as JSON.

``python tests/bench/client.py ours|inspect|lm-eval URL SAMPLES IN_FLIGHT``. All three ask the same one-turn questions. Imports and the
making of questions are not timed, everything else is: ours with its run log, judge and verdicts, inspect-ai with its log and scorer,
lm-eval's API client alone (it keeps no records). CPU time, which other work on the machine changes least, counts the imports too.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

Questions = Sequence[tuple[str, str]]
"""(question, answer)."""


def questions(count: int) -> Questions:
    return [(f"What is the number of item {i}? Answer as <answer>...</answer>.", "unknown") for i in range(count)]


def ours(url: str, asked: Questions, in_flight: int) -> float:
    from benchmarks.evaluate import Evaluation, Part, evaluate
    from harness.engines.http import Endpoint, EndpointConfig
    from harness.envs.search import SearchEnv, SearchLimits
    from harness.episode import AgentConfig
    from harness.events import Recorder
    from harness.types import Task
    from harness.web.corpus import CorpusWeb
    from judges.attempts import Sampler
    from judges.exact import ExactJudge

    tasks = [Task(id=f"t{i}", question=question, gold=(answer,)) for i, (question, answer) in enumerate(asked)]
    web = CorpusWeb([])

    async def run(folder: Path) -> float:
        endpoint = Endpoint(url, "stub", EndpointConfig(concurrency=in_flight))
        (served,) = await endpoint.models()  # its context bounds what is asked of it, as in `harness eval`
        began = time.perf_counter()
        with Recorder(folder) as log:
            sampler = Sampler(
                engine=endpoint,
                chat=None,
                env=lambda task: SearchEnv(web, SearchLimits()),
                judge=ExactJudge(closed=True),
                agent=AgentConfig(context_tokens=served.context),
                log=log,
                gate=asyncio.Semaphore(in_flight),
            )
            evaluation = Evaluation(id="bench", benchmark="bench", split="test", model="stub", method="base", seed=0)
            result = await evaluate(Part(evaluation=evaluation, tasks=tasks, sampler=sampler), folder)
        seconds = time.perf_counter() - began
        await endpoint.close()
        assert result.mean == 1.0 and result.coverage == 1.0, result.words()
        return seconds

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(run(Path(folder)))


def inspect(url: str, asked: Questions, in_flight: int) -> float:
    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import get_model
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    model = get_model("openai-api/stub/stub", base_url=url, api_key="none")
    samples = MemoryDataset([Sample(input=question, target=answer, id=f"t{i}") for i, (question, answer) in enumerate(asked)])
    task = Task(dataset=samples, solver=generate(), scorer=includes())
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        (log,) = eval(task, model=model, max_connections=in_flight, max_samples=in_flight, display="none", log_dir=folder)
        seconds = time.perf_counter() - began
    assert log.status == "success" and log.results and log.results.completed_samples == len(asked)
    return seconds


def lm_eval(url: str, asked: Questions, in_flight: int) -> float:
    from lm_eval.api.instance import Instance
    from lm_eval.models.api_models import JsonChatStr
    from lm_eval.models.openai_completions import LocalChatCompletion

    model = LocalChatCompletion(base_url=f"{url}/chat/completions", model="stub", num_concurrent=in_flight, auth_token="none")
    prompts = [JsonChatStr(json.dumps([{"role": "user", "content": question}])) for question, _ in asked]
    instances = [
        Instance(request_type="generate_until", doc={}, arguments=(prompt, {"until": ["\n\n"], "max_gen_toks": 64}), idx=0)
        for prompt in prompts
    ]
    began = time.perf_counter()
    answers = model.generate_until(instances, disable_tqdm=True)
    seconds = time.perf_counter() - began
    assert len(answers) == len(asked) and all("unknown" in answer for answer in answers)
    return seconds


CLIENTS = {"ours": ours, "inspect": inspect, "lm-eval": lm_eval}


def main(name: str, url: str, samples: str, in_flight: str) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    seconds = CLIENTS[name](url, questions(int(samples)), int(in_flight))
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {"samples": int(samples), "seconds": seconds, "per_second": int(samples) / seconds, "peak_mb": used.ru_maxrss / 1024}
    print(json.dumps({**found, "cpu_ms": 1000 * (used.ru_utime + used.ru_stime) / int(samples)}))


if __name__ == "__main__":
    main(*sys.argv[1:])

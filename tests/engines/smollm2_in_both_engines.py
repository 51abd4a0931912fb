"""Run by test_vllm: SmolLM2's sampled log-probabilities in vLLM and in the hf engine, before and after new weights."""

from __future__ import annotations

import asyncio

import torch
from transformers import AutoTokenizer

from harness.engines.base import EngineConfig, Request, weights_checksum
from harness.engines.hf import HFEngine
from harness.engines.vllm import VLLMEngine
from harness.models import model_directory

CONFIG = EngineConfig(context=256, slots=4, prefill_rows=4, prefill_chunk=16)


async def main() -> None:
    directory = model_directory("smollm2-135m")[1]
    tokenizer = AutoTokenizer.from_pretrained(directory)
    question = [{"role": "user", "content": "Name three rivers."}]
    prompt = tuple(tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False))
    hf, vllm = HFEngine(directory, CONFIG), VLLMEngine(directory, CONFIG)
    await compare(hf, vllm, prompt, version=0)
    noise = torch.Generator().manual_seed(0)
    held = hf._model.model.state_dict()
    weights = {name: tensor + 1e-3 * torch.randn(tensor.shape, generator=noise) for name, tensor in held.items()}
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    checksums = {await engine.sync(weights.items(), version=1) for engine in (hf, vllm)}
    assert checksums == {weights_checksum(weights.items())}
    await compare(hf, vllm, prompt, version=1)
    await hf.close()
    await vllm.close()


async def compare(hf: HFEngine, vllm: VLLMEngine, prompt: tuple[int, ...], version: int) -> None:
    span = await vllm.generate(Request(ids=prompt, max_tokens=24, temperature=1.0, seed=3))
    scores = (await hf.score([prompt + span.ids]))[0][-len(span.ids) :]
    difference = max(abs(a - b) for a, b in zip(span.logprobs, scores, strict=True))
    print(f"version {span.version}: {len(span.ids)} tokens, largest difference {difference:.1e}")
    assert span.version == version and difference < 1e-3


asyncio.run(main())

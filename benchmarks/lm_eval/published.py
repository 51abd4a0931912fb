"""GPQA, TruthfulQA and IFEval: which packaged tasks they are made of, and how many rows were published."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.lm_eval import data
from benchmarks.lm_eval.samples import SamplePart
from benchmarks.lm_eval.suite import LMEvalSuite, Packaged

_GATED = "GPQA is gated: accept its terms at https://huggingface.co/datasets/Idavidrein/gpqa and set HF_TOKEN."


def _gpqa(subset: str, expected: int) -> Packaged:
    return Packaged(
        part=SamplePart(split=subset, headline="exact_match,flexible-extract", id_key="record", gated=True),
        definition={
            "file": f"gpqa/cot_zeroshot/gpqa_{subset}_cot_zeroshot.yaml",
            "rows": partial(data.gpqa_rows, subset=subset),
            "expected": expected,
            "home": _GATED,
            "prepare": data.frozen_choices,
        },
        answer_tokens=4096,
    )


def _truthfulqa(part: str, headline: str, rows: Any) -> Packaged:
    return Packaged(
        part=SamplePart(split=part, headline=headline),
        definition={
            "file": f"truthfulqa/truthfulqa_{part}.yaml",
            "rows": rows,
            "expected": 817,
            "home": "It is public: truthfulqa/truthful_qa.",
        },
        answer_tokens=256,
    )


GPQA = LMEvalSuite(
    name="gpqa",
    summary="graduate-level science questions, zero-shot chain of thought: diamond, main, extended (gated; --data gpqa=DIR)",
    parts=(_gpqa("diamond", 198), _gpqa("main", 448), _gpqa("extended", 546)),
)
TRUTHFULQA = LMEvalSuite(
    name="truthfulqa",
    summary="questions that invite false beliefs: mc1, mc2 (log-likelihoods) and gen (--data truthfulqa=DIR)",
    parts=(
        _truthfulqa("mc1", "acc,none", data.truthfulqa_choices),
        _truthfulqa("mc2", "acc,none", data.truthfulqa_choices),
        _truthfulqa("gen", "bleu_acc,none", data.truthfulqa_answers),
    ),
)
IFEVAL = LMEvalSuite(
    name="ifeval",
    summary="541 prompts with 834 instructions that a program can check (--data ifeval=FILE)",
    parts=(
        Packaged(
            part=SamplePart(split="test", headline="prompt_level_strict_acc,none", id_key="key"),
            definition={
                "file": "ifeval/ifeval.yaml",
                "rows": data.ifeval_rows,
                "expected": 541,
                "instructions": 834,
                "home": "It is public: google/IFEval.",
            },
            answer_tokens=1280,
        ),
    ),
    needs_punkt=True,
)

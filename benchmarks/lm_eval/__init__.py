"""Benchmarks of lm-evaluation-harness over our engines: its prompts, filters and metrics, our generation, records and resuming."""

from benchmarks.lm_eval.published import GPQA, IFEVAL, TRUTHFULQA
from benchmarks.lm_eval.suite import LMEvalSuite, named_task

__all__ = ["GPQA", "IFEVAL", "TRUTHFULQA", "LMEvalSuite", "named_task"]

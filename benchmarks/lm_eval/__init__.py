"""Benchmarks of lm-evaluation-harness over our engines: its prompts, filters and metrics, our generation, records and resuming."""

from benchmarks.lm_eval.suite import GPQA, IFEVAL, TRUTHFULQA, LMEvalSuite, named_task

__all__ = ["GPQA", "IFEVAL", "TRUTHFULQA", "LMEvalSuite", "named_task"]

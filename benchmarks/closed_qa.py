"""Benchmarks with closed answers over their own corpus; each also has a training split with expert actions."""

from benchmarks.base import Benchmark
from harness.tasks import HOTPOTQA as HOTPOTQA_TASKS
from harness.tasks import MINIWEB as MINIWEB_TASKS
from harness.tasks import MUSIQUE as MUSIQUE_TASKS

MINIWEB = Benchmark(loader=MINIWEB_TASKS)
MUSIQUE = Benchmark(loader=MUSIQUE_TASKS)
HOTPOTQA = Benchmark(loader=HOTPOTQA_TASKS)

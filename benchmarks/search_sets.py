"""Benchmarks of questions about the open web; they bring no pages and no training split."""

from benchmarks.base import Benchmark
from harness.tasks import BROWSECOMP_ZH as BROWSECOMP_ZH_TASKS
from harness.tasks import GAIA as GAIA_TASKS
from harness.tasks import WEBWALKERQA as WEBWALKERQA_TASKS
from harness.tasks import XBENCH as XBENCH_TASKS

GAIA = Benchmark(loader=GAIA_TASKS)
WEBWALKERQA = Benchmark(loader=WEBWALKERQA_TASKS)
XBENCH = Benchmark(loader=XBENCH_TASKS)
BROWSECOMP_ZH = Benchmark(loader=BROWSECOMP_ZH_TASKS)

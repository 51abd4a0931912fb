"""``make bench``: how close evaluation comes to what the endpoint allows, and to other harnesses, written to ``build/bench.json``.

The endpoint is the stub of the tests in its own process, every client has a process of its own too. The numbers:

- ``eval_efficiency``: samples/s over the ideal, 1 s latency and 256 in flight, 5,120 one-turn samples, ramp included (target: 0.9)
- ``eval_vs_inspect``, ``eval_vs_lm_eval``: our samples/s over theirs on the same samples, 50 ms, 64 in flight (targets: 8 and 0.6);
  ours and theirs take turns, and the median of the turns counts, so that what else the machine does falls on both
- ``eval_memory_growth_mb``: peak memory at 10,000 samples minus that at 1,000 (target: at most 50)
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPO / "tests"))

from stub_endpoint import StubEndpoint  # noqa: E402

SLOW, FAST = 1.0, 0.05  # seconds of latency


def measured(client: str, samples: int, in_flight: int, latency: float) -> dict[str, Any]:
    """What ``client.py`` prints. Ends with its words if it fails."""
    with StubEndpoint(latency=latency) as stub:
        command = [sys.executable, str(Path(__file__).parent / "client.py"), client, stub.url, str(samples), str(in_flight)]
        env = {**os.environ, "PYTHONPATH": str(REPO)}
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, env=env)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{client:8} {samples:6} samples  {found['per_second']:8.1f}/s  {found['seconds']:6.1f} s  "
        f"{found['cpu_ms']:6.2f} ms of CPU a sample  peak {found['peak_mb']:.0f} MB",
        flush=True,
    )
    return found


def ratio(theirs: str, samples: int, turns: int) -> float:
    """Our samples/s over theirs, the median over ``turns`` of both."""
    pairs = [[measured(client, samples, 64, FAST)["per_second"] for client in ("ours", theirs)] for _ in range(turns)]
    return statistics.median(first / second for first, second in pairs)


def main(samples: int = 1280) -> None:
    missing = [name for name in ("inspect_ai", "lm_eval") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; run `make bench`, which installs the extra 'bench'")
    slow = measured("ours", 5120, 256, SLOW)
    vs_lm_eval, vs_inspect = ratio("lm-eval", 3 * samples, turns=3), ratio("inspect", samples, turns=2)
    small, large = (measured("ours", n, 64, 0.0) for n in (1_000, 10_000))
    numbers = {
        "eval_efficiency": slow["per_second"] * SLOW / 256,
        "eval_vs_inspect": vs_inspect,
        "eval_vs_lm_eval": vs_lm_eval,
        "eval_memory_growth_mb": large["peak_mb"] - small["peak_mb"],
    }
    path = REPO / "build" / "bench.json"
    path.parent.mkdir(exist_ok=True)
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(
        json.dumps({**known, **numbers, "eval_measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}, indent=2) + "\n"
    )
    print(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()

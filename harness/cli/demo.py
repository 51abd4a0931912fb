"""``harness demo``: the main job in small. One seed; a demonstration, not a measurement (that is ``harness study``)."""

from __future__ import annotations

import subprocess
import sys

import click

from harness.errors import HarnessError
from harness.wording import plural


@click.command()
@click.option("--steps", type=click.IntRange(1), default=40, show_default=True, help="Training steps of either trainer.")
def demo(steps: int) -> None:
    """Evaluate the tiny model as it is, train it with zero-RL and with ActGuide-RL, evaluate both, print the board."""
    click.echo("A demonstration with one seed. `harness study actguide-vs-zero-rl --seeds 3` measures with intervals.\n")
    _harness("eval", "--model", "tiny", "--benchmarks", "miniweb")
    for trainer in ("zero-rl", "actguide"):
        click.echo(f"\n== {trainer}: {steps} {plural(steps, 'step')} on questions that the base model cannot answer ==")
        _harness("run", "--trainer", trainer, "--model", "tiny", "--steps", str(steps))
    click.echo("")
    _harness("leaderboard", "show")
    click.echo("\nOpen the page with `make serve` (or `harness leaderboard serve`), then http://127.0.0.1:8765")


def _harness(*arguments: str) -> None:
    """One command in a process of its own, as a user would type it."""
    click.echo("$ harness " + " ".join(arguments))
    done = subprocess.run([sys.executable, "-m", "harness.cli.main", *arguments], check=False)
    if done.returncode:
        raise HarnessError(f"`harness {' '.join(arguments)}` ended with exit code {done.returncode}; its message is above")

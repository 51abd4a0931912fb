"""``harness``: finds the command, imports it only then, and turns errors into words and exit codes.

Exit codes: 0 done, 1 it failed (a ``HarnessError``, a full disk, a reader that left), 2 the request was wrong, 130 interrupted.
Tracebacks are for bugs. What a command does is written in its own module.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from harness.errors import HarnessError, unknown

COMMANDS = {  # name: (where it is, one line for --help)
    "run": ("harness.cli.run:run", "Train a model on a question set, then evaluate it."),
    "eval": ("harness.cli.eval:evaluate", "Evaluate a model on benchmarks, without guidance."),
    "reproduce": ("harness.cli.reproduce:reproduce", "Run a table or figure of the paper in small, and print both."),
    "study": ("harness.cli.study:study", "Run a comparison of trainers over several seeds."),
    "demo": ("harness.cli.demo:demo", "Train the tiny model both ways and show the board."),
    "diagnose": ("harness.cli.diagnose:diagnose", "Measure what guidance does to a model or a run."),
    "list": ("harness.cli.list:list_", "List models, trainers, presets, judges, engines and benchmarks."),
    "explain": ("harness.cli.explain:explain", "Say where two presets differ, and what follows."),
    "guidance-budget": ("harness.cli.explain:guidance_budget", "Groups needed to identify the smallest sufficient level (Eq. 24)."),
    "doctor": ("harness.cli.doctor:doctor", "Say what works on this machine and how to mend the rest."),
    "leaderboard": ("harness.cli.leaderboard:leaderboard", "Show, serve or rebuild the leaderboard."),
    "verify": ("harness.cli.bundle:verify", "Check a result bundle offline, every number made again."),
    "regrade": ("harness.cli.regrade:regrade", "Judge a finished run again, without running agents."),
    "judge": ("harness.cli.judge:judge", "Check a judge against answers with known verdicts."),
    "tiny": ("harness.cli.tiny:tiny", "Rebuild or check the tiny model that is shipped."),
}


class LazyGroup(click.Group):
    """Subcommands by name; ``--help`` reads the table above and imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise unknown("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="actguide-harness", prog_name="harness")
def cli() -> None:
    """Train language-model agents with ActGuide-RL, evaluate them unguided, compare them on a leaderboard."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: runs a command and exits with its code."""
    # Threads that spin while they wait slow each other down many times over where cores are shared; read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(run_command(cli, arguments))


def run_command(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command inside the error boundary; returns the exit code."""
    try:
        result = command.main(args=None if arguments is None else list(arguments), prog_name="harness", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("harness: interrupted", err=True)
        return 130
    except HarnessError as error:
        click.echo(f"harness: {error}", err=True)
        return error.exit_code
    except BrokenPipeError:  # `harness ... | head`: the reader has seen enough, and Python would complain of it once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"harness: {where}{error.strerror or error}{_remedy(error)}", err=True)
        return 1
    return result if isinstance(result, int) else 0


def _remedy(error: OSError) -> str:
    words = {
        errno.ENOSPC: "the disk is full: make room, or set HARNESS_HOME to a folder on another disk",
        errno.EDQUOT: "the disk quota is used up: make room, or set HARNESS_HOME to a folder on another disk",
        errno.EROFS: "the disk is read-only: set HARNESS_HOME to a folder that can be written",
        errno.EACCES: "mend the rights, or set HARNESS_HOME to a folder of your own",
        errno.EPERM: "mend the rights, or set HARNESS_HOME to a folder of your own",
        errno.EADDRINUSE: "choose another with --port",
    }
    return f" ({words[error.errno]})" if error.errno in words else ""


if __name__ == "__main__":
    main()

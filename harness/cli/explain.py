"""``harness explain`` and ``harness guidance-budget``: what settings mean before anything is run."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from harness.cli.run import nested
from harness.config import Difference, FieldRow, build, describe, differences, merge
from harness.registry import load
from harness.wording import plural

if TYPE_CHECKING:
    from trainers.config import RunConfig

DEFAULT = "default"


@click.command(short_help="Say where two presets differ, and what follows.")
@click.option("--preset", required=True, help="The preset to explain (harness list presets).")
@click.option("--against", default=DEFAULT, show_default=True, help="Another preset, or default: no preset at all.")
@click.option("--trainer", default="actguide", show_default=True, help="Settings of which trainer (harness list trainers).")
@click.option("--model", help="Lay the presets over this model's own settings.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def explain(preset: str, against: str, trainer: str, model: str | None, form: str) -> None:
    """Print every setting on which two presets disagree once all defaults are filled in, and what each one changes."""
    first, second = resolved(preset, trainer, model), resolved(against, trainer, model)
    rows = [(row, consequence(row.key, describe(type(first)))) for row in differences(first, second)]
    notes = {name: not_reproduced(name) for name in dict.fromkeys((preset, against))}
    if form == "json":
        click.echo(json.dumps(_as_data(preset, against, trainer, rows, notes), indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        _show_table(preset, against, rows, notes)
    else:
        _show_lines(preset, against, rows, notes)


@click.command("guidance-budget", short_help="Groups needed to identify the smallest sufficient level (Eq. 24).")
@click.option("--levels", required=True, type=int, metavar="K", help="Guidance levels above the unguided one.")
@click.option(
    "--margin", required=True, type=float, metavar="D", help="Least distance of any level's recovery probability to the threshold."
)
@click.option("--confidence", required=True, type=float, metavar="X", help="Probability of finding the right level, 1 - xi.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def guidance_budget(levels: int, margin: float, confidence: float, form: str) -> None:
    """Print how many rollout groups every level needs before the smallest sufficient one is known (paper, Eq. 24)."""
    from trainers.guidance.identify import groups_to_identify

    found = groups_to_identify(levels, margin, confidence)
    if form == "json":
        click.echo(json.dumps(dataclasses.asdict(found), indent=2))
        return
    click.echo(f"{found.groups} {plural(found.groups, 'group')} per level")
    click.echo("  m >= ln(2 (K + 1) / xi) / (2 D^2)                      Eq. 24")
    click.echo(f"  2 (K + 1) = 2 * ({levels} + 1) = {found.events}, xi = 1 - {confidence:g} = {found.xi:g}")
    click.echo(f"  ln({found.events} / {found.xi:g}) = {found.log_term:.4f}, 2 D^2 = 2 * {margin:g}^2 = {found.twice_margin_squared:g}")
    click.echo(f"  m >= {found.log_term:.4f} / {found.twice_margin_squared:g} = {found.bound:.2f}, rounded up: {found.groups}")
    click.echo(f"  over all levels 0..{levels}: {found.groups * (levels + 1):,} groups")


def resolved(preset: str, trainer: str, model: str | None) -> RunConfig:
    """The configuration of a run under a preset (or under none), every default filled in."""
    from harness.models import find_model
    from trainers.config import run_config_type
    from trainers.presets import preset_layer

    kind = run_config_type(load("trainers", trainer).config_type)
    known = {row.key for row in describe(kind)}
    below = {key: value for key, value in find_model(model).settings.items() if key in known} if model else {}
    return build(kind, merge(nested(below), nested(preset_layer(preset, kind)) if preset != DEFAULT else {}))


def consequence(key: str, fields: list[FieldRow]) -> str:
    """What a setting brings about; for one that only another package's preset changes, its help text."""
    from trainers.presets import consequences

    return consequences().get(key) or next(field.help for field in fields if field.key == key)


def not_reproduced(preset: str) -> tuple[str, ...]:
    """What a preset's source does that no setting reproduces."""
    notes: tuple[str, ...] = () if preset == DEFAULT else load("presets", preset).not_reproduced
    return notes


Rows = list[tuple[Difference, str]]
Notes = dict[str, tuple[str, ...]]


def _as_data(preset: str, against: str, trainer: str, rows: Rows, notes: Notes) -> dict[str, Any]:
    return {
        "preset": preset,
        "against": against,
        "trainer": trainer,
        "differences": [
            {"key": row.key, "preset": row.first, "against": row.second, "tag": row.tag, "consequence": sentence} for row, sentence in rows
        ],
        "not_reproduced": notes,
    }


def _show_lines(preset: str, against: str, rows: Rows, notes: Notes) -> None:
    for row, sentence in rows:
        click.echo(f"{row.key}: {preset} {_value(row.first)}, {against} {_value(row.second)}. {sentence}")
    if not rows:
        click.echo(f"{preset} and {against} are the same.")
    for name, sentences in notes.items():
        for sentence in sentences:
            click.echo(f"not reproduced of {name}: {sentence}")


def _show_table(preset: str, against: str, rows: Rows, notes: Notes) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{preset} against {against}", title_justify="left", title_style="bold", box=None, padding=(0, 2, 1, 0))
    table.add_column("setting", style="cyan", overflow="fold")
    table.add_column(preset, overflow="fold")
    table.add_column(against, overflow="fold")
    table.add_column("what follows", ratio=1)
    for row, sentence in rows:
        table.add_row(Text(row.key), Text(_value(row.first)), Text(_value(row.second)), Text(sentence))
    console = Console()
    console.print(table if rows else f"{preset} and {against} are the same.")
    for name, sentences in notes.items():
        for sentence in sentences:
            console.print(Text.assemble((f"not reproduced of {name}: ", "dim"), sentence))


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)

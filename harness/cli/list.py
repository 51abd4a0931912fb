"""``harness list``: what can be named on the command line, where it comes from, and what is broken."""

from __future__ import annotations

import dataclasses
import json

import click
from rich.console import Console
from rich.table import Table

from harness.registry import KINDS, Entry, list_entries


@click.command("list")
@click.argument("kind", required=False)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def list_(kind: str | None, form: str) -> None:
    """List models, trainers, presets, judges, engines and benchmarks, or one KIND of them (``harness list trainers``)."""
    entries = [entry for each in ([kind] if kind else KINDS) for entry in list_entries(each)]
    if form == "json":
        click.echo(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=2, ensure_ascii=False))
        return
    console = Console()
    for each in dict.fromkeys(entry.kind for entry in entries):
        console.print(_table(each, [entry for entry in entries if entry.kind == each]))


def _table(kind: str, entries: list[Entry]) -> Table:
    table = Table(title=kind, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column("name", no_wrap=True, style="cyan", min_width=14)
    table.add_column("what it is")
    table.add_column("source", no_wrap=True, style="dim")
    for entry in entries:
        summary = f"[red]broken:[/] {_plain(entry.error)}" if entry.error else _plain(entry.summary)
        table.add_row(_plain(entry.name), summary, _plain(entry.source))
    return table


def _plain(text: str) -> str:
    return text.replace("[", r"\[")

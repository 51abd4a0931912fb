"""What several commands ask of an option."""

from __future__ import annotations

from pathlib import Path

import click


def run_folder(_: click.Context, __: click.Parameter, folder: Path | None) -> Path | None:
    """A run's directory, there or yet to be made; a file, or a place inside one, is refused by the option's name."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), None) if folder else None
    if there is not None and not there.is_dir():
        raise click.BadParameter(f"{there} is a file; expected the run's folder, which is made where there is none")
    return folder

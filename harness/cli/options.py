"""Types of options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class RunFolder(click.ParamType):
    """A run's directory, there or yet to be made; a file, or a place inside one, is refused by the option's name."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        folder = Path(value)
        there = next((place for place in (folder, *folder.parents) if place.exists()), None)
        if there is not None and not there.is_dir():
            self.fail(f"{there} is a file; expected the run's folder, which is made where there is none", param, ctx)
        return folder

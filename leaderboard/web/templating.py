"""The templates, with everything escaped and nothing undefined."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """A fresh environment over ``leaderboard/web/templates``."""
    return Environment(
        loader=PackageLoader("leaderboard.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )

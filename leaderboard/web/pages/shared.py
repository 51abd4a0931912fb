"""What several pages share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Words, their address, and whether that is where one stands."""

    words: str
    href: str
    current: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A select of the filter form: its options as (value, words)."""

    name: str
    title: str
    value: str
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A judgement in words. ``kind``: right, wrong, part or none."""

    kind: str
    words: str

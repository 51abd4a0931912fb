"""Errors a user can act on, in one tree, and the single boundary that turns a failed episode into data.

Every message says what happened, what was given, what was expected and what to do. The command line prints them
without a traceback: ``UsageError`` exits with code 2, any other ``HarnessError`` with code 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """Base of every error that the harness raises on purpose (exit code 1)."""

    exit_code = 1


class UsageError(HarnessError):
    """The request itself is wrong: an unknown name, a bad key, an impossible combination (exit code 2)."""

    exit_code = 2


class DataError(HarnessError):
    """A file or a row of it cannot be used; the message names path and row."""


class RunLogError(HarnessError):
    """A run directory is damaged or belongs to another configuration."""


class EngineError(HarnessError):
    """An engine could not generate; carried into the attempt as status ``engine_error``."""


class ContextOverflowError(EngineError):
    """The conversation no longer fits the model's context: the episode is truncated."""


class LimitError(HarnessError):
    """A time, token or cost limit was reached; carried into the attempt as status ``limit``, which has no score."""


class WebError(HarnessError):
    """A tool back end refused one request (page not found, bad URL): shown to the model as an error observation."""


class OutageError(HarnessError):
    """A tool or judge back end is down: the attempt becomes unscorable, never wrong."""


class MissingDependencyError(HarnessError):
    """An optional package is absent; the message says which extra brings it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def unknown(kind: str, name: str, known: Iterable[str], *, shown: int | None = None) -> UsageError:
    """Build the error for a name that no table holds: what, got, expected, what to do. Of more than ``shown`` names only some are named."""
    names = sorted(known)
    listed = f"Known: {', '.join(names) or 'none'}."
    if shown is not None and len(names) > shown:
        few = sorted(difflib.get_close_matches(name, names, n=5)) or names[:5]
        listed = f"{len(names)} are known, e.g. {', '.join(few)}."
    return UsageError(f"unknown {kind} {name!r}.{nearest(name, names)} {listed}")

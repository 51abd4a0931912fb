"""What a folder given with ``--out`` holds: nothing yet, what a command began there before, or something that is not to be mixed with."""

from __future__ import annotations

import secrets
from pathlib import Path

from harness.config import home
from harness.errors import UsageError
from harness.events import Kind, current_events, read_events

_WHAT = {
    "run": ("a training run", "continue it with `harness run --resume`"),
    "eval": ("an evaluation", "continue it with `harness eval`"),
    "diagnose": ("diagnostics of a model", "read them there"),
}
_BEFORE = ("config.json.partial", "output.txt")  # of a run that died before its first event; what `harness study` keeps of one


def begun(folder: Path, command: str) -> bool:
    """Whether ``command`` began something in ``folder`` before; false for a new or an empty one.

    Raises ``UsageError`` where the folder holds what another command began, or files that are of no run, and where it cannot be made.
    """
    if not folder.is_dir():
        file = next((place for place in (folder, *folder.parents) if place.exists() and not place.is_dir()), None)
        if file is not None:
            raise UsageError(f"{file} is a file, so {folder} is no folder for a run. Choose a new or an empty folder with --out.")
        return False
    names = {path.name for path in folder.iterdir()}
    if not names & {"config.json", "events"}:
        if strange := sorted(names.difference(_BEFORE)):
            shown = ", ".join(strange[:3]) + (", ..." if len(strange) > 3 else "")
            raise UsageError(f"{folder} is not empty and holds no run ({shown}). Choose a new or an empty folder with --out.")
        return False
    first = next((event.data for event in current_events(folder) if event.kind is Kind.RUN), None) if "events" in names else None
    theirs = str(first["command"]) if first else command
    if theirs != command:
        what, how = _WHAT.get(theirs, (f"what `harness {theirs}` made", "leave it as it is"))
        raise UsageError(f"{folder} holds {what}, not {_WHAT[command][0]}. Choose another --out, or {how}.")
    return True


def name_of_run(folder: Path) -> str:
    """What the run in ``folder`` is called on the board and on dashboards: as its log says, also after the folder was moved.

    A new one is called as its folder. Outside of ``$HARNESS_HOME/runs``, where two folders may be called the same, eight hex digits follow.
    """
    first = next((event.data for _, event in read_events(folder) if event.kind is Kind.RUN), None)
    if first is not None:
        return str(first.get("run_id") or folder.name)
    kept_apart = folder.resolve().parent == (home() / "runs").resolve()
    return folder.name if kept_apart else f"{folder.resolve().name}-{secrets.token_hex(4)}"

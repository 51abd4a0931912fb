"""Calibration reports of judges, as ``harness judge calibrate`` saves them: one JSON file a judge in ``$HARNESS_HOME/judges``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

FOLDER = "judges"


def save_calibration(home: Path, report: Mapping[str, Any]) -> Path:
    """Write a report (``judges.calibration.Report.to_dict``), replacing the judge's last one; returns the file."""
    path = home / FOLDER / f"{quote(str(report['judge']), safe='')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def calibrate_command(judge: str) -> str:
    """What checks the judge of that name, as it stands in results: ``exact``, ``exact-closed``, ``llm:MODEL@HASH``.

    >>> calibrate_command("exact-closed")
    'harness judge calibrate --judge exact --closed'
    """
    kind, of_a_model, rest = judge.partition(":")
    if of_a_model:
        return f"harness judge calibrate --judge '{kind}:URL#{rest.rpartition('@')[0] or rest}'"
    named = judge.removesuffix("-closed")
    return f"harness judge calibrate --judge {named}" + (" --closed" if named != judge else "")


def read_calibrations(home: Path | None) -> dict[str, Mapping[str, Any]]:
    """Reports by judge; a file that is none is passed over."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted((home / FOLDER).glob("*.json")) if home is not None else ():
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(report, dict) and isinstance(report.get("judge"), str):
            found[report["judge"]] = report
    return found

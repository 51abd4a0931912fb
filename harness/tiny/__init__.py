"""The embedded default: a made-up mini web, and a model of half a million parameters that is at home in it."""

from __future__ import annotations

from pathlib import Path

from harness.errors import HarnessError


def model_dir() -> Path:
    """The model's files inside the package."""
    folder = Path(__file__).parent / "model"
    if not (folder / "model.safetensors").is_file():
        raise HarnessError(f"the tiny model's weights are missing at {folder}; reinstall the package")
    return folder

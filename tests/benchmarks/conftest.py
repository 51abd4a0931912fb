"""Shared by the tests of suites."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def gpqa(tmp_path: Path) -> Path:
    from lm_eval_cases import write_gpqa  # brings lm-eval, which need not be there

    write_gpqa(tmp_path, "diamond", 3)
    return tmp_path

"""Every setting of every command as one Markdown page: ``python -m harness.cli.settings > docs/settings.md`` (``make docs``)."""

from __future__ import annotations

import json

from harness.config import Section, describe
from harness.registry import load, names


def page() -> str:
    """The page that ``docs/settings.md`` holds; a test compares the two."""
    from harness.cli.diagnose import DiagnoseConfig
    from harness.cli.eval import EvalConfig
    from harness.cli.regrade import RegradeConfig
    from trainers.config import run_config_type

    parts = [
        "# Settings",
        (
            "Given with `--set KEY=VALUE` or in a YAML file (`--config`). "
            "Layers: defaults < the model's entry < `--preset` < file < `--set` < flags. "
            "*Identity* settings change the numbers and must stay the same when a run is resumed; *operational* ones may change. "
            "Made by `make docs`."
        ),
    ]
    kinds: dict[str, type[Section]] = {}
    for name in names("trainers"):
        kinds[f"harness run --trainer {name}"] = run_config_type(load("trainers", name).config_type)
    kinds["harness eval"] = EvalConfig
    kinds["harness regrade"] = RegradeConfig
    kinds["harness diagnose"] = DiagnoseConfig
    for title, kind in kinds.items():
        rows = [
            f"| `{r.key}` | {r.type} | `{json.dumps(r.default, default=str)}` | {r.tag} | {r.help} |".replace(" | None | ", " or None | ")
            for r in describe(kind)
        ]
        parts += [f"## {title}", "\n".join(["| setting | type | default | | |", "|---|---|---|---|---|", *rows])]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(page(), end="")

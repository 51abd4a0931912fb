"""What the tiny model was made from. A change of any part without a rebuild is an error that a test and ``harness tiny check`` find.

The weights fit one tokenizer, one chat template, one wording of prompt and tools, one plan wording and one world generator: change one of
them and the model quietly gets worse. The manifest holds a hash of each, and of every shipped file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.envs.search import SYSTEM, TOOLS
from harness.errors import DataError
from harness.tiny import world
from harness.types import Action

Plan = Callable[[Sequence[Action], int], str]


def ingredients(plan: Plan) -> dict[str, str]:
    """Name -> hash of everything outside the model directory that the weights depend on."""
    sample = world.make_world("manifest")
    tasks = [task for hops in (1, 2, 3, 4) for task in world.make_tasks(sample, hops, 3, {})]
    words = [repr(task) for task in tasks] + [repr(page) for page in sample.pages()]
    return {
        "world": _hash("\n".join(words)),
        "prompt": _hash(json.dumps([SYSTEM, TOOLS])),
        "plan": _hash("\n".join(plan(task.actions, len(task.actions)) for task in tasks)),
        "template": _hash((Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")),
    }


def files(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 of what is shipped in the model directory."""
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.name not in ("manifest.json", "README.md")
    }


def write(folder: Path, plan: Plan, behaviour: dict[str, float]) -> None:
    """Record ingredients, files and accepted behaviour beside the weights."""
    content = {"ingredients": ingredients(plan), "files": files(folder), "behaviour": behaviour}
    (folder / "manifest.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check(folder: Path, plan: Plan) -> None:
    """Raise ``DataError`` naming every part that is not what the weights were made from."""
    stored = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    now = {**ingredients(plan), **files(folder)}
    then = {**stored["ingredients"], **stored["files"]}
    changed = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
    if changed:
        raise DataError(
            f"the tiny model was made from other versions of: {', '.join(changed)}. Undo the change, or run `harness tiny rebuild`."
        )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

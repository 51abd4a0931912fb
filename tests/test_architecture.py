"""The import law, checked on the source: which layer may import which, and that each heavy package has one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
PACKAGES = ("harness", "judges", "benchmarks", "trainers", "leaderboard")
LIGHT = ("types", "errors", "config", "registry", "events", "metrics", "models", "chat", "tasks")

# layer: modules of ours that it may import, by prefix. harness.cli, the composition root, may import everything.
MAY_IMPORT = {
    "harness": ("harness",),
    "judges": ("harness", "judges"),
    "benchmarks": ("harness", "judges", "benchmarks"),
    "trainers": ("harness", "judges", "trainers"),
    "leaderboard": (
        *("harness.cipher", "harness.errors", "harness.types", "harness.events", "harness.metrics", "harness.wording"),
        "leaderboard",
    ),
}

# heavy package: the only places that may import it, by prefix.
DOORS = {
    "vllm": ("harness.engines.vllm",),
    "deepspeed": ("trainers.learner.deepspeed",),
    "lm_eval": ("benchmarks.lm_eval",),
    "sqlalchemy": ("leaderboard",),
    "alembic": ("leaderboard",),
    "scipy": ("leaderboard", "harness.metrics"),
    "starlette": ("leaderboard.web",),
    "uvicorn": ("leaderboard.web", "harness.cli"),
    "jinja2": ("leaderboard.web",),
    "matplotlib": ("harness.plots",),
    "click": ("harness.cli",),
    "httpx": ("harness.web.live", "leaderboard.submit"),
    "httpcore": ("harness.web.live",),
    "aiohttp": ("harness.engines.client",),
    "openpyxl": ("harness.tables",),
    "datasketch": ("harness.tasks.overlap",),
    "trafilatura": ("harness.web.live",),
    "ddgs": ("harness.web.live",),
    "bm25s": ("harness.web",),
    "ruamel": ("harness.config",),
    "cryptography": ("leaderboard.bundles",),
    "wandb": ("harness.trackers",),
    "trackio": ("harness.trackers",),
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (REPO / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports anywhere in it, with the line; ``from a import b`` counts as a.b."""
    yield from _imports(ast.parse(path.read_text(encoding="utf-8")))


def _imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def loads(path: Path) -> set[tuple[str, int]]:
    """Like ``imports``, without those that only type checkers see."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {found for node in ast.walk(tree) if _for_types_only(node) for found in _imports(node)}
    return set(_imports(tree)) - hidden


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def within(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def breaches_of_layers(name: str, imported: str) -> bool:
    """Whether module ``name`` may not import ``imported``."""
    if within(imported, ("harness.cli",)):
        return not within(name, ("harness.cli",))
    if within(name, ("harness.cli",)) or imported.split(".")[0] not in PACKAGES:
        return False
    return not within(imported, MAY_IMPORT[name.split(".")[0]])


def test_layers_import_only_those_below_them() -> None:
    breaches = [
        f"{path.relative_to(REPO)}:{line} imports {imported}"
        for path in sources()
        for imported, line in imports(path)
        if breaches_of_layers(module_name(path), imported)
    ]
    assert breaches == []


@pytest.mark.parametrize(
    ("name", "imported", "breach"),
    [
        ("trainers.loop", "benchmarks.miniweb", True),
        ("trainers.loop", "leaderboard.ingest", True),
        ("leaderboard.ingest", "harness.config.home", True),
        ("leaderboard.ingest", "harness.events.read_events", False),
        ("harness.episode", "trainers.loop", True),
        ("harness.registry", "harness.cli.main", True),
        ("harness.cli.run", "trainers.loop", False),
        ("harness.cli.demo", "harness.cli.run", False),
        ("judges.exact", "harness.types", False),
        ("judges.exact", "benchmarks", True),
    ],
)
def test_the_law_tells_breaches_from_legal_imports(name: str, imported: str, breach: bool) -> None:
    assert breaches_of_layers(name, imported) is breach


def test_every_heavy_package_has_one_door() -> None:
    breaches = [
        f"{path.relative_to(REPO)}:{line} imports {imported}"
        for path in sources()
        for imported, line in sorted(loads(path))
        if imported.split(".")[0] in DOORS and not within(module_name(path), DOORS[imported.split(".")[0]])
    ]
    assert breaches == []


def test_light_modules_load_neither_torch_nor_transformers() -> None:
    present = [f"harness.{name}" for name in LIGHT if any((REPO / "harness").glob(f"{name}*"))]
    code = f"""
import importlib, sys
for name in {present!r}:
    importlib.import_module(name)
    heavy = sorted(sys.modules.keys() & {{"torch", "transformers", "deepspeed", "vllm", "sqlalchemy", "scipy"}})
    assert not heavy, f"{{name}} loads {{heavy}}"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(present) > 5


def test_the_leaderboard_loads_no_torch() -> None:
    modules = [module_name(path) for path in sorted((REPO / "leaderboard").rglob("*.py")) if "migrations" not in path.parts]
    code = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
    assert not sys.modules.keys() & {{"torch", "trainers", "benchmarks"}}, name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_package_imports_itself_in_a_circle() -> None:
    graph = {module_name(path): _imported_at_load(path) for path in sources()}
    known = set(graph)
    edges = {
        name: {target for i in found for target in (_resolve(i, known),) if target and target != name} for name, found in graph.items()
    }
    assert _circle(edges) == []


def _imported_at_load(path: Path) -> set[str]:
    """Imports that run when the module is loaded: not those inside functions nor under TYPE_CHECKING."""
    found: set[str] = set()
    pending: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Try | ast.If) and not _for_types_only(node):
            pending += node.body
    return found


def _resolve(imported: str, known: set[str]) -> str | None:
    """The module of ours behind ``a.b``: a.b itself, or a if b is a name in it."""
    return next((name for name in (imported, imported.rpartition(".")[0]) if name in known), None)


def _circle(edges: dict[str, set[str]]) -> list[str]:
    """Some circle of the graph as a path, or nothing."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for target in sorted(edges[name]):
            if found := visit(target, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(edges) if (found := visit(name, []))), [])


def test_a_circle_would_be_found() -> None:
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []

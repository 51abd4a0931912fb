"""What can be named on the command line: built-ins from one table, and Python entry points of installed packages.

A package adds its own with an entry point in the group ``harness.<kind>``, e.g. in its pyproject.toml

    [project.entry-points."harness.judges"]
    strict = "my_package.judges:StrictJudge"

Targets are strings ``module:attribute`` and are imported when asked for, never before. A package that cannot be imported is listed
with its error and harms nothing else. What an entry must be is said by the ``base`` module of its kind, not here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from harness.errors import HarnessError, MissingDependencyError, unknown

KINDS = ("benchmarks", "trainers", "presets", "judges", "engines", "models", "probes")
MODELS = "harness.models:MODELS"  # the model table is data: a mapping of name to entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name. ``source`` is ``built-in`` or the package that brought it; ``error`` says why it cannot be used, if so."""

    name: str
    kind: str
    target: str
    source: str = "built-in"
    summary: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Broken:
    """Stands for an entry point that failed to import."""

    why: str


_BUILT_IN = {
    "benchmarks": {
        "miniweb": ("benchmarks.closed_qa:MINIWEB", "generated web of linked pages, 1-4-hop questions, held-out test worlds"),
        "musique": ("benchmarks.closed_qa:MUSIQUE", "2-4-hop questions over Wikipedia paragraphs (--data musique=DIR)"),
        "hotpotqa": ("benchmarks.closed_qa:HOTPOTQA", "2-hop questions over Wikipedia paragraphs (--data hotpotqa=DIR)"),
        "gaia": ("benchmarks.search_sets:GAIA", "103 text-only questions of levels 1-3 about the open web (gated)"),
        "webwalkerqa": ("benchmarks.search_sets:WEBWALKERQA", "680 questions about web sites, English and Chinese"),
        "xbench": ("benchmarks.search_sets:XBENCH", "100 Chinese deep-search questions, version 2505"),
        "browsecomp-zh": ("benchmarks.search_sets:BROWSECOMP_ZH", "289 Chinese browsing questions on 11 topics"),
        "gpqa": ("benchmarks.lm_eval:GPQA", "graduate-level science questions, chain of thought (gated; --data gpqa=DIR)"),
        "truthfulqa": ("benchmarks.lm_eval:TRUTHFULQA", "questions that invite false beliefs: mc1, mc2, gen (--data truthfulqa=DIR)"),
        "ifeval": ("benchmarks.lm_eval:IFEVAL", "541 prompts with instructions that a program can check (--data ifeval=FILE)"),
    },
    "trainers": {
        "zero-rl": ("trainers.algorithms.grpo:ZeroRL", "GRPO without guidance"),
        "actguide": ("trainers.algorithms.actguide:ActGuide", "ActGuide-RL: failed groups are rescued by the smallest sufficient plan"),
        "sft": ("trainers.algorithms.sft:SFT", "cross-entropy on expert conversations (--data sft=FILE, or the question set's own)"),
        "sft-rl": ("trainers.algorithms.sft:SFTZeroRL", "SFT, then zero-RL from its checkpoint"),
        "sft-actguide": ("trainers.algorithms.sft:SFTActGuide", "SFT, then ActGuide from its checkpoint"),
        "opsd": ("trainers.algorithms.opsd:OPSD", "self-distillation: the policy with the full plan teaches the policy without it"),
    },
    "presets": {
        "paper": ("trainers.presets:PAPER", "Table 6, and Algorithm 1 to the letter"),
        "release": ("trainers.presets:RELEASE", "what the authors' published code does"),
    },
    "judges": {
        "exact": ("judges.exact:ExactJudge", "an accepted alias of the gold answer, after normalisation; undecided where it is not sure"),
        "llm": ("judges.llm:open_llm", "exact, then a model where exact is undecided: llm:URL[#MODEL], or llm:MODEL for a local one"),
        "gaia": ("judges.gaia:QuasiExactJudge", "GAIA's own quasi-exact match; decides every answer, without a model"),
    },
    "engines": {
        "hf": ("harness.engines.hf:HFEngine", "transformers with continuous batching; runs everywhere; can be deterministic"),
        "vllm": ("harness.engines.vllm:VLLMEngine", "vLLM in this process, weights swapped in memory"),
        "scripted": ("harness.engines.scripted:open_script", "answers from a script; for tests"),
    },
    "probes": {
        "judges": ("harness.cli.probes:judges", "asks every judge about a right and a wrong answer"),
        "search": ("harness.cli.probes:search", "indexes and searches an offline corpus"),
        "database": ("harness.cli.probes:database", "opens the leaderboard's database"),
    },
}


def list_entries(kind: str) -> list[Entry]:
    """Every entry of a kind, built-ins first; those of other packages are imported to see whether they work."""
    known = list(_built_in(kind))
    for point in _points(kind):
        known.append(_checked(kind, point, taken={entry.name for entry in known if entry.error is None}))
    return known


def load(kind: str, name: str) -> Any:
    """The object behind a name. Raises ``UsageError`` for an unknown one, ``HarnessError`` if its package is broken."""
    for entry in _built_in(kind):
        if entry.name == name:
            return _load_built_in(entry)
    for point in _points(kind):
        if point.name == name:
            loaded = _import_point(point)
            if isinstance(loaded, _Broken):
                words = f"{kind.removesuffix('s')} {name!r} comes from {_package(point)}, which cannot be loaded ({loaded.why})"
                raise HarnessError(f"{words}; mend or uninstall that package")
            return loaded
    raise unknown(kind.removesuffix("s"), name, names(kind))


def names(kind: str) -> list[str]:
    """Names of a kind, without importing any of them."""
    return list(dict.fromkeys([*(entry.name for entry in _built_in(kind)), *(point.name for point in _points(kind))]))


def _built_in(kind: str) -> Iterator[Entry]:
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    for name, (target, summary) in _BUILT_IN.get(kind, {}).items():
        yield Entry(name=name, kind=kind, target=target, summary=summary)
    if kind == "models":
        for name, model in _resolve(MODELS).items():
            yield Entry(name=name, kind=kind, target=f"{MODELS}[{name!r}]", summary=str(getattr(model, "summary", "")))


def _points(kind: str) -> list[EntryPoint]:
    return sorted(entry_points(group=f"harness.{kind}"), key=lambda point: (point.name, _package(point)))


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"


def _checked(kind: str, point: EntryPoint, taken: set[str]) -> Entry:
    entry = Entry(name=point.name, kind=kind, target=point.value, source=_package(point))
    if point.name in taken:
        return replace(entry, error="another entry has this name already and is used instead")
    loaded = _import_point(point)
    if isinstance(loaded, _Broken):
        return replace(entry, error=loaded.why)
    first_lines = (getattr(loaded, "summary", None) or getattr(loaded, "__doc__", None) or "").strip().splitlines()
    return replace(entry, summary=first_lines[0] if first_lines else "")


def _load_built_in(entry: Entry) -> Any:
    try:
        return _resolve(MODELS)[entry.name] if entry.kind == "models" else _resolve(entry.target)
    except ModuleNotFoundError as error:
        words = f"{entry.kind.removesuffix('s')} {entry.name!r} needs the package {error.name!r}, which is not installed"
        raise MissingDependencyError(f"{words}; `harness doctor` says how to get it") from error


def _resolve(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def _import_point(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code may fail in any way, and its words must reach the user
        return _Broken(why=f"{type(error).__name__}: {error}")

"""Configuration: sections declared beside what they configure, merged from layers, every field tagged.

*Identity* fields change the numbers of a run (resuming with another value is refused, they enter the comparability code);
*operational* fields do not (ports, folders, thread counts). A field without a tag is an error where it is declared.

Layers are plain nested mappings, the later one wins: ``build(RunConfig, preset, load_yaml(path), parse_assignment("learner.lr=1e-4"))``.
Nothing is converted in silence: the text ``no`` is not a false, 2.0 is not a whole number. Which sections exist is not known here.
"""

from __future__ import annotations

import hashlib
import json
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from harness.errors import DataError, RunLogError, UsageError, nearest

Tag = Literal["identity", "operational"]
Layer = Mapping[str, Any]


class FileLayer(dict[str, Any]):
    """A layer that was read from a file; what is wrong with its settings is said with the file's name."""

    def __init__(self, content: Layer, path: Path) -> None:
        super().__init__(content)
        self.path = path


FILE_VERSION = 1
"""Version of the stored ``config.json``; raise it when a stored config must be read differently."""


class Section(BaseModel):
    """Base of every configuration section: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            if _tag(field) is None and _section_type(field) is None:
                raise TypeError(f"{cls.__name__}.{name} has no tag: declare it with identity(...) or operational(...)")


AnySection = TypeVar("AnySection", bound=Section)


def identity(default: Any, **constraints: Any) -> Any:
    """A field whose value changes the numbers; its docstring is its help text. ``constraints`` as in pydantic's Field."""
    return Field(default, json_schema_extra={"tag": "identity"}, **constraints)


def operational(default: Any, **constraints: Any) -> Any:
    """A field whose value does not change the numbers."""
    return Field(default, json_schema_extra={"tag": "operational"}, **constraints)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRow:
    """One documented setting; ``key`` is its dotted name, ``type`` its annotation as written."""

    key: str
    type: str
    default: Any
    tag: Tag
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One setting that two configurations of the same kind disagree on."""

    key: str
    first: Any
    second: Any
    tag: Tag


def home() -> Path:
    """Where runs and the database live: ``$HARNESS_HOME``, or ``~/.harness``."""
    return Path(os.environ.get("HARNESS_HOME") or "~/.harness").expanduser()


def merge(*layers: Layer) -> dict[str, Any]:
    """Layers laid over each other, the last on top: mappings are merged, anything else is replaced whole."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value) if isinstance(value, Mapping) else value
    return merged


def load_yaml(path: Path) -> FileLayer:
    """A YAML 1.2 file as a layer: ``1e-6`` is a number and ``no`` a text. Raises ``DataError`` naming path and line."""
    try:
        content = _yaml().load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"no such configuration file: {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DataError(f"{path}, line {line}: not YAML: {error.problem}") from error
    except YAMLError as error:
        raise DataError(f"{path}: not YAML: {error}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise DataError(f"{path}: expected settings as 'key: value' lines, got {_words(content)}")
    return FileLayer(content, path)


def parse_assignment(text: str) -> dict[str, Any]:
    """A ``--set`` value, e.g. ``learner.lr=1e-4``, as a layer; the right-hand side is YAML (lists: ``[1, 2]``)."""
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise UsageError(f"got {text!r}, expected KEY=VALUE, e.g. learner.lr=1e-4")
    try:
        layer: Any = _yaml().load(value)
    except YAMLError as error:
        raise UsageError(f"{key}: {value!r} is not a YAML value; put text with special characters in quotes") from error
    for name in reversed(names):
        layer = {name: layer}
    return dict(layer)


def build(kind: type[AnySection], *layers: Layer) -> AnySection:
    """The layers over the defaults of ``kind``. Raises ``UsageError`` naming every unknown key and every wrong value, and its file."""
    try:
        # By way of JSON: pydantic's strict mode then still takes lists for tuples and texts for enumerations and paths.
        return kind.model_validate_json(json.dumps(merge(*layers), default=str), strict=True)
    except ValidationError as error:
        known = [row.key for row in describe(kind)]
        problems = [_file(detail["loc"], layers) + _complaint(detail, known) for detail in error.errors(include_url=False)]
        raise UsageError("\n".join(dict.fromkeys(problems))) from error


def to_json(section: Section) -> dict[str, Any]:
    """Plain JSON data with every default filled in."""
    return section.model_dump(mode="json")


def store(section: Section, path: Path) -> None:
    """Write ``section`` as a versioned file, whole or not at all."""
    text = json.dumps({"version": FILE_VERSION, "config": to_json(section)}, indent=2, ensure_ascii=False) + "\n"
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise RunLogError(
            f"cannot write {path}: {error.strerror}. Make room or mend the rights, or name another folder with --out or HARNESS_HOME."
        ) from error


def restore(kind: type[AnySection], path: Path) -> AnySection:
    """Read what ``store`` wrote. Raises ``RunLogError`` if it is absent, damaged or of another version."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        version, config = stored["version"], stored["config"]
    except FileNotFoundError as error:
        raise RunLogError(f"no stored configuration at {path}: not a run directory, or the run never started") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunLogError(f"{path} is damaged: {error}") from error
    if version != FILE_VERSION:
        raise RunLogError(f"{path} has version {version}, this harness reads {FILE_VERSION}; use the one that made the run")
    return build(kind, FileLayer(config, path))


def identity_hash(section: Section) -> str:
    """Hash (16 hex digits) of the identity fields: equal exactly when the two configurations must give the same numbers."""
    fields = {key: value for key, value, tag in _leaves(section) if tag == "identity"}
    text = json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def differences(first: Section, second: Section) -> list[Difference]:
    """Settings on which the two disagree, in declaration order; one that only one of them has counts with None for the other."""
    a = {key: (value, tag) for key, value, tag in _leaves(first)}
    b = {key: (value, tag) for key, value, tag in _leaves(second)}
    pairs = [(key, a.get(key), b.get(key)) for key in dict.fromkeys([*a, *b])]
    return [
        Difference(key=key, first=x[0] if x else None, second=y[0] if y else None, tag=(x or y or (None, "identity"))[1])
        for key, x, y in pairs
        if x != y
    ]


def describe(kind: type[Section]) -> list[FieldRow]:
    """Every setting of a section and of those inside it, for help texts and the documentation test."""
    rows: list[FieldRow] = []
    for name, field in kind.model_fields.items():
        inner = _section_type(field)
        if inner is not None:
            rows += [FieldRow(key=f"{name}.{r.key}", type=r.type, default=r.default, tag=r.tag, help=r.help) for r in describe(inner)]
            continue
        default = None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})
        rows.append(
            FieldRow(
                key=name,
                type=_type_words(field.annotation),
                default=None if default is PydanticUndefined else default,
                tag=_tag(field) or "identity",
                help=" ".join((field.description or "").split()),
            )
        )
    return rows


def _leaves(section: Section, prefix: str = "") -> Iterator[tuple[str, Any, Tag]]:
    """(dotted key, JSON value, tag) of every setting."""
    plain = to_json(section)
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", plain[name], _tag(field) or "identity"


def _tag(field: FieldInfo) -> Tag | None:
    extra = field.json_schema_extra
    tag = extra.get("tag") if isinstance(extra, dict) else None
    return typing.cast(Tag, tag) if tag in ("identity", "operational") else None


def _section_type(field: FieldInfo) -> type[Section] | None:
    """The section class that a field holds (``X`` or ``X | None``), None for a plain setting."""
    union = typing.get_origin(field.annotation) in (typing.Union, types.UnionType)
    for candidate in typing.get_args(field.annotation) if union else (field.annotation,):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None


def _type_words(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)  # pure: the C parser speaks YAML 1.1


_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a group of settings",
    "model_type": "a group of settings",
    "path_type": "a path",
}


def _file(loc: tuple[int | str, ...], layers: Sequence[Layer]) -> str:
    """``"c.yaml: "`` where the setting at ``loc`` comes from a file: the last layer that has it counts."""
    last = next((layer for layer in reversed(layers) if _has(layer, loc)), None) if loc else None
    return f"{last.path}: " if isinstance(last, FileLayer) else ""


def _has(layer: Layer, loc: tuple[int | str, ...]) -> bool:
    at: Any = layer
    for part in loc:
        if not isinstance(at, Mapping):
            return True  # a place inside a value, such as an entry of a list
        if part not in at:
            return False
        at = at[part]
    return True


def _complaint(detail: ErrorDetails, known: Iterable[str]) -> str:
    """One problem in words: which key, what it got, what it expected."""
    key = ".".join(str(part) for part in detail["loc"])
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"unknown setting {key!r}.{_nearest_setting(key, list(known))}"
    if kind == "missing":
        return f"{key}: a value is required"
    if kind == "value_error":
        reason = str(detail.get("ctx", {}).get("error", detail["msg"]))
        return f"{key}: {reason}" if key else reason
    expected = _EXPECTED.get(kind) or detail["msg"].removeprefix("Input should be ")
    return f"{key}: got {_words(detail['input'])}, expected {expected}"


def _nearest_setting(key: str, known: list[str]) -> str:
    """Like ``nearest``, but ``lr`` also finds ``learner.lr``."""
    last = key.rsplit(".", 1)[-1]
    namesakes = [name for name in known if name.rsplit(".", 1)[-1] == last]
    return f" Did you mean {namesakes[0]!r}?" if len(namesakes) == 1 else nearest(key, known)


def _words(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, str):
        return f"the text {value!r}"
    if isinstance(value, Mapping):
        return "a group of settings"
    if isinstance(value, list | tuple):
        return f"the list {list(value)!r}"
    return repr(value)

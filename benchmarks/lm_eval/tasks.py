"""lm-eval's own task objects, made from its packaged definitions: from the hub or its cache, or over rows of a local file.

Prompts, filters, metrics and their aggregation are the packaged ones. Changed are: where the rows come from, and the order of GPQA's
options, which is frozen. Only the files of one task are read, not the index of all fourteen thousand.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from benchmarks.comparability import short_hash
from benchmarks.lm_eval.data import Doc, expect_count, expect_instructions
from harness.errors import DataError, HarnessError, UsageError

_FEWSHOT_SEED = 1234  # lm-eval's defaults, so that examples and shuffles are those of its command line
_NUMPY_SEED = 1234

Chat = Callable[..., str]

datasets.disable_progress_bars()  # tasks prepare their rows whenever they are asked for them, and the bars break into the run's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """Which packaged task, and how its rows are read from a local copy. ``prepare`` replaces the task's own preparation of rows."""

    file: str  # below lm_eval/tasks
    rows: Callable[[Path], list[Doc]]
    expected: int
    home: str  # where people get the data
    prepare: Callable[[Mapping[str, Any]], Doc] | None = None
    instructions: int | None = None  # of all documents together (IFEval)


def packaged_task(definition: Definition, data: Path | None) -> Any:
    """The task with its documents. Raises ``DataError`` if they cannot be had or are not as many as published."""
    path = Path(lm_eval.__file__).parent / "tasks" / definition.file
    config = {k: v for k, v in load_yaml(path).items() if k not in ("tag", "group")}
    split = config.get("test_split") or config["validation_split"]
    if data is not None:
        config["custom_dataset"] = _rows_instead(split, definition.rows(data))
    if definition.prepare is not None:
        config["process_docs"] = _prepared(definition.prepare)
    with as_lm_eval_seeds(), _quiet():
        try:
            task = ConfigurableTask(config=config)
        except HarnessError:
            raise
        except Exception as error:  # the hub, its cache and a dataset's own code fail in any way; raised again with what to do
            if data is not None:
                raise
            raise DataError(
                f"cannot get {config['dataset_path']} from the Hugging Face hub or its cache ({type(error).__name__}: "
                f"{_first_line(error)}). {definition.home} Without a network, name a local copy: --data NAME=PATH"
            ) from error
    what = str(config["task"]) if data is None else f"{data} ({config['task']})"
    expect_count(task.eval_docs, definition.expected, what)
    if definition.instructions is not None:
        expect_instructions(task.eval_docs, definition.instructions, what)
    return task


def indexed_tasks(name: str, data: Path | None, include: Path | None = None) -> list[Any]:
    """Any task, group or tag that lm-eval knows, as its leaf tasks; ``data``: a JSONL file that serves as every split of it.

    A name that the folder ``include`` defines means that definition, whose content becomes part of the task's version.
    """
    with as_lm_eval_seeds(), _quiet():
        manager = TaskManager(include_path=include, include_defaults=False) if include is not None else None
        own = manager is not None and name in manager.all_tasks
        if manager is None or not own:
            manager = TaskManager()
        if name not in manager.all_tasks:
            raise UsageError(f"lm-eval {lm_eval.__version__} has no task {name!r}; `lm-eval ls tasks` lists them")
        try:
            if data is None:
                return [_versioned(task, include if own else None) for task in manager.load([name])["tasks"].values()]
            entry = manager.task_index[name]
            if entry.yaml_path is None or name not in manager.all_subtasks:
                raise UsageError(f"--data needs the name of one task that lm-eval defines in a file; {name!r} is a group, a tag or code")
            config = {k: v for k, v in load_yaml(entry.yaml_path).items() if k not in ("tag", "group")}
            splits = {split: str(data) for key in ("training_split", "validation_split", "test_split") if (split := config.get(key))}
            config |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": splits}}
            return [_versioned(ConfigurableTask(config=config), include if own else None)]
        except HarnessError:
            raise
        except Exception as error:  # a task of lm-eval may be any code; raised again with its name
            where = "the hub or its cache" if data is None else str(data)
            raise DataError(
                f"lm-eval task {name!r}: its data cannot be read from {where} ({type(error).__name__}: {_first_line(error)})"
            ) from error


def _versioned(task: Any, include: Path | None) -> Any:
    """The task; one of the folder ``include`` bears a hash of what the folder defines behind its own version."""
    if include is not None:
        digest = hashlib.blake2b(digest_size=4)
        for path in sorted(p for p in include.rglob("*") if p.suffix in (".yaml", ".yml", ".py")):
            digest.update(f"{path.relative_to(include)}\0".encode() + path.read_bytes() + b"\0")
        task.VERSION = f"{task.VERSION}+{digest.hexdigest()}"
    return task


def docs_of(task: Any, limit: int | None) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(place, document) of the first ``limit`` documents, as ``requests_of`` counts them."""
    return enumerate(islice(task.eval_docs, limit))


def question_of(task: Any, doc: Mapping[str, Any]) -> str:
    """What a document asks, without the words that the task puts around it where the row has a field for it."""
    return str(next((doc[key] for key in ("Question", "question", "prompt") if key in doc), None) or task.doc_to_text(doc))


def requests_of(task: Any, limit: int | None, template: Chat | None) -> dict[int, list[Instance]]:
    """Requests by document, in the order of the data; ``template`` renders messages, None leaves prompts as plain text."""
    if task.get_config("num_fewshot") is None:
        task.set_config("num_fewshot", 0)
    task.set_fewshot_seed(_FEWSHOT_SEED)
    with as_lm_eval_seeds(), _quiet():
        task.build_all_requests(limit=limit, apply_chat_template=template is not None, chat_template=template)
    found: dict[int, list[Instance]] = {}
    for instance in task.instances:
        found.setdefault(instance.doc_id, []).append(instance)
    return found


def fingerprints_of(task: Any, limit: int | None) -> dict[int, str]:
    """By place in the data, 16 hex digits of all that is asked and scored there: the document, and its requests (the examples before it
    and its options included) as plain text, so that no model is needed. What a chat template makes of them is a condition of the run.
    """
    return {
        place: short_hash(json.loads(json.dumps([dict(found[0].doc), [each.args for each in found]], default=str)), 8)
        for place, found in requests_of(task, limit, None).items()
    }


def metrics_of(task: Any, doc: Any, instances: list[Instance]) -> dict[str, Any]:
    """Values of one document, by ``metric,filter``: every filter is scored, so a task with two has both.

    Always the same for the same answers. lm-eval's own are not: where an instruction of IFEval counts a sign that is no letter, its
    checker counts a letter drawn at random.
    """
    found: dict[str, Any] = {}
    for ensemble in task._filters:
        ensemble.apply(instances)
        with as_lm_eval_seeds():
            values = task.process_results(doc, [instance.filtered_resps[ensemble.name] for instance in instances])
        found |= {f"{metric},{ensemble.name}": plain(value) for metric, value in values.items()}
    return found


def plain(value: Any) -> Any:
    """JSON data: numpy's numbers and booleans become Python's."""
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def version_of(task: Any) -> str:
    """lm-eval's version, and that of the task's definition."""
    return f"{lm_eval.__version__}/{task.VERSION}"


def _rows_instead(split: str, rows: list[Doc]) -> Callable[..., Any]:
    """Rows in memory: nothing is copied to the cache of the package ``datasets``."""
    return lambda **_: datasets.DatasetDict({split: datasets.Dataset.from_list(rows)})


def _prepared(prepare: Callable[[Mapping[str, Any]], Doc]) -> Callable[[Any], Any]:
    return lambda dataset: datasets.Dataset.from_list([prepare(doc) for doc in dataset])


@contextlib.contextmanager
def as_lm_eval_seeds() -> Iterator[None]:
    """Tasks that shuffle use the global random states; they find those of lm-eval's command line, and ours come back afterwards."""
    kept, kept_numpy = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(_NUMPY_SEED)
    try:
        yield
    finally:
        random.setstate(kept)
        np.random.set_state(kept_numpy)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's warnings and bars, which would break into the run's own progress."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]

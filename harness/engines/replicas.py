"""One engine in several processes: each replica holds the whole model, on a GPU of its own where there are GPUs.

Replicas are ordinary engines (``hf``, ``vllm``) that run where no learner rank and no other replica shares their process, which is what
vLLM's in-process weights need. An episode stays with the replica that its first turn went to, so its prefix stays cached. Weights
travel once, through one file in shared memory that every replica maps.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.engines.base import Capability, Engine, EngineConfig, Request, Weights
from harness.errors import EngineError, HarnessError
from harness.registry import load
from harness.types import Ids, Span

_SHARED_MEMORY = Path("/dev/shm")  # files in memory; a temporary directory where there is none
_SESSIONS = 65_536  # episodes whose replica is remembered


class ReplicatedEngine:
    """``config.replicas`` processes of engine ``name``; the same contract as one of them."""

    def __init__(self, name: str, directory: Path | str, config: EngineConfig) -> None:
        """Start the processes and wait until all have loaded the model. Raises ``EngineError`` with the first one's failure."""
        single = config.model_copy(update={"replicas": 1})
        self.version = 0
        self._replicas: list[_Replica] = []
        self._sessions: dict[str, _Replica] = {}
        try:
            for environment in replica_environments(config.replicas):
                self._replicas.append(_Replica(name, str(directory), single, environment))
            for replica in self._replicas:
                replica.ready()
        except BaseException:  # an interrupt too must leave no process behind; raised again
            for replica in self._replicas:
                replica.stop()
            raise
        self.capabilities: frozenset[Capability] = frozenset.intersection(*(r.capabilities for r in self._replicas))

    async def generate(self, request: Request) -> Span:
        """See ``Engine.generate``; goes to the replica of its session, or to the one with the least to do."""
        span: Span = await self._chosen(request.session).ask("generate", request)
        return span

    async def score(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        """See ``Engine.score``; the sequences are shared out."""
        count = len(self._replicas)
        parts = await asyncio.gather(*(r.ask("score", sequences[i::count], temperature) for i, r in enumerate(self._replicas)))
        scores: list[list[float]] = [[] for _ in sequences]
        for i, part in enumerate(parts):
            scores[i::count] = part
        return scores

    async def sync(self, weights: Weights, version: int) -> str:
        """See ``Engine.sync``. Raises ``EngineError`` unless all replicas end with the same checksum."""
        folder = Path(tempfile.mkdtemp(prefix="harness-weights-", dir=_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None))
        try:
            path = await asyncio.to_thread(_write, weights, folder)
            sums = await asyncio.gather(*(replica.ask("sync", str(path), version) for replica in self._replicas))
        finally:
            shutil.rmtree(folder)
        if len(set(sums)) > 1:
            raise EngineError(f"after sync {version} the replicas hold different weights: checksums {', '.join(map(str, sums))}")
        self.version = version
        return str(sums[0])

    async def close(self) -> None:
        for replica in self._replicas:
            await asyncio.to_thread(replica.stop)

    def _chosen(self, session: str) -> _Replica:
        if session in self._sessions:
            return self._sessions[session]
        replica = min(self._replicas, key=lambda r: r.open)
        if session:
            self._sessions[session] = replica
            if len(self._sessions) > _SESSIONS:
                del self._sessions[next(iter(self._sessions))]
        return replica


def replica_environments(count: int, visible: str | None = None, gpus: int | None = None) -> list[dict[str, str]]:
    """What each replica's process gets: one of the visible GPUs in turn, or its share of the CPU cores.

    ``visible`` and ``gpus`` are CUDA_VISIBLE_DEVICES and the number of GPUs, read from this machine where not given.
    """
    if gpus is None:
        import torch

        gpus = torch.cuda.device_count()
    if visible is None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
    if gpus:
        devices = visible.split(",")
        return [{"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} for i in range(count)]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // count))
    return [{"OMP_NUM_THREADS": threads} for _ in range(count)]


def _write(weights: Weights, folder: Path) -> Path:
    """All tensors in one file; a tied one is written under each of its names. Raises ``EngineError`` where there is no room for it."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = folder / "weights.safetensors"
    try:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights}, path)
    except (OSError, SafetensorError) as error:
        raise EngineError(
            f"cannot hand the weights to the replicas in {folder.parent}: {error}; free some space there, or set generation.replicas=1"
        ) from error
    return path


class _Replica:
    """The parent's end of one process: numbered questions out, answers in."""

    def __init__(self, name: str, directory: str, config: EngineConfig, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, directory, config, dict(environment)), daemon=True)
        self._process.start()
        theirs.close()
        self._numbers = itertools.count()
        self._waiting: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Future[Any]]] = {}
        self._sending = threading.Lock()
        self._why: str | None = None
        self.open = 0

    def ready(self) -> None:
        """Wait for the model to be loaded."""
        try:
            problem, self.capabilities = self._pipe.recv()
        except EOFError:
            problem = "it ended without a word"
        if problem:
            raise EngineError(f"an engine replica could not start: {problem}")
        threading.Thread(target=self._listen, name="replica-answers", daemon=True).start()

    async def ask(self, what: str, *arguments: object) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        number = next(self._numbers)
        self.open += 1
        try:
            with self._sending:
                if self._why is not None:
                    raise EngineError(self._why)
                self._waiting[number] = (loop, future)
                self._pipe.send((number, what, arguments))
            return await future
        except BrokenPipeError as error:
            raise EngineError(f"an engine replica ended (exit code {self._process.exitcode})") from error
        finally:
            self.open -= 1
            self._waiting.pop(number, None)

    def stop(self) -> None:
        """Ask the process to end, and end it if it does not."""
        with self._sending:
            self._why = self._why or "the engine was closed"
            if not self._pipe.closed and self._process.is_alive():
                with suppress(BrokenPipeError):  # it has just ended by itself
                    self._pipe.send(None)
        self._process.join(timeout=20)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _listen(self) -> None:
        while True:
            try:
                number, problem, result = self._pipe.recv()
            except (EOFError, OSError):
                break
            self._settle(number, problem, result)
        self._process.join(timeout=5)
        with self._sending:
            self._why = self._why or f"an engine replica ended (exit code {self._process.exitcode}); see its messages above"
        for number in list(self._waiting):
            self._settle(number, self._why, None)

    def _settle(self, number: int, problem: str | None, result: object) -> None:
        loop, future = self._waiting.get(number, (None, None))
        if loop is None or future is None or loop.is_closed():
            return

        def settle() -> None:
            if future.done():
                return
            if problem is None:
                future.set_result(result)
            else:
                future.set_exception(EngineError(problem))

        loop.call_soon_threadsafe(settle)


def _serve(pipe: Connection, name: str, directory: str, config: EngineConfig, environment: dict[str, str]) -> None:
    """The replica's process: build the engine, then answer until told to end or the parent is gone."""
    os.environ.update(environment)  # before torch is imported
    try:
        engine: Engine = load("engines", name)(directory, config)
    except HarnessError as error:
        pipe.send((str(error), frozenset()))
        return
    pipe.send((None, engine.capabilities))
    asyncio.run(_answer(pipe, engine))


async def _answer(pipe: Connection, engine: Engine) -> None:
    loop = asyncio.get_running_loop()
    orders: asyncio.Queue[Any] = asyncio.Queue()

    def listen() -> None:
        try:
            while (order := pipe.recv()) is not None:
                loop.call_soon_threadsafe(orders.put_nowait, order)
        except (EOFError, OSError):
            pass  # the parent is gone; OSError: before it had read every answer
        finally:
            loop.call_soon_threadsafe(orders.put_nowait, None)

    threading.Thread(target=listen, name="orders", daemon=True).start()
    running: set[asyncio.Task[None]] = set()
    while (order := await orders.get()) is not None:
        task = asyncio.create_task(_obey(pipe, engine, *order))
        running.add(task)
        task.add_done_callback(running.discard)
    await engine.close()


async def _obey(pipe: Connection, engine: Engine, number: int, what: str, arguments: tuple[Any, ...]) -> None:
    result: object = None
    problem: str | None = None
    try:
        if what == "sync":
            result = await _load(engine, *arguments)
        else:
            result = await getattr(engine, what)(*arguments)
    except HarnessError as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - the process's boundary: the caller must hear of whatever it was
        problem = f"{type(error).__name__}: {error}"
    with suppress(BrokenPipeError):  # the parent is gone, and nobody waits
        pipe.send((number, problem, result))


async def _load(engine: Engine, path: str, version: int) -> str:
    from safetensors import safe_open

    with safe_open(path, "pt") as stored:
        return await engine.sync([(name, stored.get_tensor(name)) for name in stored.keys()], version)  # noqa: SIM118

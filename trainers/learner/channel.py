"""How rank 0 commands the other ranks: ordered, acknowledged messages over TCP, without the time-out of a collective.

Ranks wait here between commands (a rollout may take an hour), never inside a collective. A rank that fails says why and leaves;
its peers' collectives then break, and rank 0 raises with the message of the rank that failed first. Authenticated with a random
key, as messages are pickles. Knows nothing of training.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

ADDRESS = "HARNESS_LEARNER_CHANNEL"
KEY = "HARNESS_LEARNER_KEY"
"""Environment of a spawned rank: ``host:port`` of rank 0 and the hexadecimal key. The key is random, and dies with the run."""


@dataclass(frozen=True, slots=True)
class Command:
    """Call ``name`` with ``arguments`` on a rank."""

    name: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    value: Any = None
    error: str | None = None


class Leader:
    """Rank 0's end: one connection for each other rank."""

    def __init__(self, ranks: int, host: str = "127.0.0.1") -> None:
        self._key = secrets.token_bytes(32)
        self._listener = Listener((host, 0), backlog=ranks, authkey=self._key)
        self._host = host
        self._others = range(1, ranks)
        self._connections: dict[int, Connection] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What another rank needs to find this one."""
        return {ADDRESS: f"{self._host}:{self._listener.address[1]}", KEY: self._key.hex()}

    def spawn(self, module: str) -> None:
        """Start the other ranks on this machine as ``python -m module``."""
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
        for rank in self._others:
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(len(self._others) + 1), "PYTHONPATH": path}
            # Ranks share the cores: a thread that waits must sleep, not spin where another rank could run.
            environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **place, **self.environment}
            self._processes[rank] = subprocess.Popen([sys.executable, "-m", module], env=environment, stdin=subprocess.DEVNULL)

    def accept(self) -> None:
        """Wait until every other rank has called; a spawned one that dies first is an error."""
        waiting = threading.Thread(target=self._accept_all, daemon=True)
        waiting.start()
        while waiting.is_alive():
            waiting.join(0.05)
            for rank, process in self._processes.items():
                if process.poll() is not None and rank not in self._connections:
                    raise HarnessError(
                        f"rank {rank} of the learner ended with code {process.returncode} before it could start; see its output above"
                    )

    def post(self, commands: Mapping[int, Command] | Command) -> None:
        """Give every other rank its command (or the same one to all)."""
        for rank in self._others:
            command = commands if isinstance(commands, Command) else commands[rank]
            try:
                self._connections[rank].send(command)
            except OSError as error:
                raise HarnessError(self._lost(rank)) from error

    def collect(self) -> list[Any]:
        """One reply of every other rank, in rank order. Raises if any of them failed."""
        replies = {rank: self._receive(rank) for rank in self._others}
        for rank, reply in replies.items():
            if reply.error is not None:
                raise HarnessError(f"rank {rank} of the learner failed: {reply.error}")
        return [reply.value for reply in replies.values()]

    def reported(self, seconds: float) -> str | None:
        """The error that another rank reports within ``seconds``, to explain why rank 0 itself just failed in a collective."""
        for rank, connection in self._connections.items():
            try:
                reply = connection.recv() if connection.poll(seconds) else None
            except (EOFError, OSError):
                return self._lost(rank)
            if reply is not None and reply.error is not None:
                return f"rank {rank} of the learner failed: {reply.error}"
        return None

    def close(self) -> None:
        """Hang up, which ends the other ranks; spawned ones that do not end are killed."""
        self._listener.close()
        for connection in self._connections.values():
            connection.close()
        for process in self._processes.values():
            try:
                process.wait(0.2 if len(self._connections) < len(self._others) else 5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _accept_all(self) -> None:
        while len(self._connections) < len(self._others):
            try:
                connection = self._listener.accept()
            except OSError:  # closed while waiting
                return
            self._connections[connection.recv()] = connection

    def _receive(self, rank: int) -> Reply:
        try:
            reply: Reply = self._connections[rank].recv()
        except (EOFError, OSError):
            return Reply(error=self._lost(rank))
        return reply

    def _lost(self, rank: int) -> str:
        code = self._processes[rank].poll() if rank in self._processes else None
        return f"rank {rank} of the learner hung up" + (f" (exit code {code})" if code is not None else "") + "; see its output above"


def obey(environment: Mapping[str, str], rank: int, call: Callable[[str, Sequence[Any]], Any]) -> None:
    """The other ranks' loop: run each command with ``call``, answer, until rank 0 hangs up. Leaves after an error, having told it."""
    host, port = environment[ADDRESS].rsplit(":", 1)
    with Client((host, int(port)), authkey=bytes.fromhex(environment[KEY])) as connection:
        connection.send(rank)
        while True:
            try:
                command: Command = connection.recv()
            except (EOFError, ConnectionError):
                return
            try:
                value = call(command.name, command.arguments)
            except Exception as error:
                text = str(error) if isinstance(error, HarnessError) else traceback.format_exc()
                connection.send(Reply(error=text))
                raise
            connection.send(Reply(value=value))

"""What a judging model is, and the local one: an engine with its chat template. The one behind a URL is ``judges.endpoint``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from harness.chat import Chat
from harness.engines.base import Engine, Request, request_seed
from harness.errors import EngineError, OutageError
from harness.types import Message
from judges.contract import Contract


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """``model`` is the one that answered, as its server names it; ``refused``: the server withheld the reply and said so."""

    text: str
    model: str
    refused: bool = False
    structured: bool = False  # the server held the model to the contract's form
    greedy: bool = True  # asked for at temperature 0; False where the server takes none and samples as it likes


class JudgeModel(Protocol):
    """Answers judging prompts. Raises ``OutageError`` where it cannot."""

    @property
    def name(self) -> str: ...

    @property
    def place(self) -> str:
        """Where it runs: a URL or a directory."""
        ...

    async def complete(self, messages: list[Message], contract: Contract) -> Reply: ...

    async def check(self, contract: Contract) -> None:
        """Raises ``HarnessError`` where it is sure beforehand that nothing will be judged."""
        ...

    async def close(self) -> None: ...


@dataclass(slots=True, kw_only=True)
class LocalModel:
    """A model in this process, loaded when it is first asked; greedy. Nothing holds it to the form of a reply but the examples."""

    name: str
    place: str
    load: Callable[[], tuple[Engine, Chat]]
    _loaded: tuple[Engine, Chat] | None = None

    async def complete(self, messages: list[Message], contract: Contract) -> Reply:
        self._loaded = self._loaded or self.load()
        engine, chat = self._loaded
        ids = chat.prompt(messages, ())
        seed = request_seed(0, "judge", *(str(m["content"]) for m in messages[-1:]))
        try:
            span = await engine.generate(
                Request(ids=ids, max_tokens=contract.max_tokens, temperature=0.0, seed=seed, session=f"judge/{seed}")
            )
        except EngineError as error:
            raise OutageError(f"the judging model {self.name} failed: {error}") from error
        return Reply(text=chat.decode(span.ids), model=self.name)

    async def check(self, contract: Contract) -> None:
        """A model that could not be found was refused when its judge was opened."""

    async def close(self) -> None:
        if self._loaded is not None:
            await self._loaded[0].close()

"""The life of a rank above 0: ``python -m trainers.learner.follow``, which rank 0 starts itself or torchrun starts beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import distributed

from trainers.learner.channel import ADDRESS, obey
from trainers.learner.deepspeed import open_worker
from trainers.learner.place import Place, find_store, join
from trainers.learner.worker import Worker


def follow() -> None:
    """Find rank 0, then do as it says until it hangs up."""
    place = Place.of_environment()
    worker: list[Worker] = []

    def call(name: str, arguments: Sequence[Any]) -> Any:
        if name == "open":
            directory, config, port = arguments
            worker.clear()
            worker.append(open_worker(directory, config, place, None if port is None else find_store(port, place.ranks)))
            return None
        return getattr(worker[0], name)(*arguments)

    obey(_leader(place), place.rank, call)


def _leader(place: Place) -> Mapping[str, str]:
    """Where rank 0 listens: told by environment to a spawned rank, by broadcast under torchrun."""
    if ADDRESS in os.environ:
        return os.environ
    join(place)
    box: list[Any] = [None]
    distributed.broadcast_object_list(box)
    found: Mapping[str, str] = box[0]
    return found


if __name__ == "__main__":
    follow()

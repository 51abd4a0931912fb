"""Where a rank stands among the others: its number, its device, its process group, its share of the CPU cores."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import distributed

from harness.errors import HarnessError

_PATIENCE = timedelta(minutes=60)  # of a collective; ranks enter one together, so this only bounds a hang


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """``local_rank`` is the number on its machine, which picks the GPU."""

    rank: int
    ranks: int
    local_rank: int

    @classmethod
    def of_environment(cls) -> Place:
        """From RANK, WORLD_SIZE and LOCAL_RANK as torchrun sets them; alone where there are none."""
        rank = int(os.environ.get("RANK", "0"))
        return cls(rank=rank, ranks=int(os.environ.get("WORLD_SIZE", "1")), local_rank=int(os.environ.get("LOCAL_RANK", rank)))

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")


def new_store(ranks: int) -> Any:
    """The meeting point of spawned ranks, on a free port of this machine (``.port``)."""
    return distributed.TCPStore("127.0.0.1", 0, ranks, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined] # from C++


def find_store(port: int, ranks: int) -> Any:
    """The same meeting point, as the other ranks find it."""
    return distributed.TCPStore("127.0.0.1", port, ranks, is_master=False)  # type: ignore[attr-defined] # from C++


def flush_denormals() -> None:
    """Treat denormal floats as 0 on this thread, and on those it starts: Adam's moments get there, and are ten times slower for it."""
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # numpy measures the smallest float once, and would warn if it did so afterwards
    torch.set_flush_denormal(True)


def join(place: Place, store: Any | None = None) -> None:
    """Enter the process group (gloo on CPU, NCCL beside it on GPUs), or reuse the one this process is in already."""
    if place.device.type == "cuda":
        torch.cuda.set_device(place.device)
    else:
        flush_denormals()
        if place.ranks > 1:
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // place.ranks))
    if not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if place.device.type == "cuda" else "gloo"
        if store is None and place.ranks == 1:
            store = distributed.HashStore()  # type: ignore[attr-defined] # from C++
        distributed.init_process_group(backend, store=store, rank=place.rank, world_size=place.ranks, timeout=_PATIENCE)
    found = distributed.get_world_size()
    if found != place.ranks:
        raise HarnessError(
            f"this process is in a group of {found} ranks, but the learner wants {place.ranks}; start it in a process of its own"
        )

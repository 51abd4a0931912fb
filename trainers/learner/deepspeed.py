"""The learner: a DeepSpeed engine on every rank, ordered about by rank 0. The only file that imports deepspeed.

Rank 0 fixes token weights and the split into micro-batches, then all ranks run the same orders (``Worker``); with one rank it is a
plain single process. Gradient accumulation is ours: DeepSpeed steps when told to, so any number of micro-batches makes one
optimiser step. Not here: forward maths (forward.py), losses (objectives), who computes what (shards.py).
"""

from __future__ import annotations

import gc
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from harness.engines.base import weights_checksum
from harness.errors import HarnessError
from harness.types import Ids
from trainers.learner import checkpoint
from trainers.learner.base import LearnerConfig, TrainingDiverged, UpdateReport
from trainers.learner.channel import Command, Leader
from trainers.learner.forward import Padded, Scorer, Teacher, load_model
from trainers.learner.place import Place, join, new_store
from trainers.learner.shards import plan
from trainers.learner.tally import report
from trainers.learner.worker import NonFiniteGradient, UpdateOutcome, Worker, update_orders
from trainers.sample import Batch


def deepspeed_config(config: LearnerConfig, ranks: int) -> dict[str, Any]:
    """DeepSpeed's own configuration. Batch sizes are 1 x ranks: they only scale, and we neither use nor want its scaling."""
    settings: dict[str, Any] = {
        "train_batch_size": ranks,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # step() alone is the boundary
        "gradient_clipping": config.grad_clip if config.zero_stage else 0.0,  # stage 0 clips in Policy, which needs the norm
        "zero_optimization": {"stage": config.zero_stage},
        "bf16": {"enabled": config.dtype == "bfloat16", "check_grad_overflow": True},
        "wall_clock_breakdown": False,
    }
    zero = settings["zero_optimization"]
    if config.zero_stage == 3:
        zero |= {"stage3_gather_16bit_weights_on_model_save": False, "overlap_comm": False}
    if config.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
        adam = {"lr": config.lr, "betas": list(config.betas), "eps": config.eps, "weight_decay": config.weight_decay}
        settings["optimizer"] = {"type": "AdamW", "params": adam}  # DeepSpeed's CPU kernel, compiled on first use
    if config.offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return settings


class DeepSpeedLearner:
    """Trains the model stored in ``directory`` (Hugging Face format). Also the frozen reference policy comes from there.

    With ``config.ranks`` > 1 it starts the other ranks on this machine; under torchrun (RANK set) it takes that group instead,
    where every other process must run ``trainers.learner.follow``.
    """

    def __init__(self, directory: Path, config: LearnerConfig | None = None) -> None:
        self.version = 0
        self.config = config or LearnerConfig()
        self._directory = Path(directory)
        self._leader: Leader | None = None
        self._diverged = False
        place = Place.of_environment()
        if place.rank:
            raise HarnessError(f"rank {place.rank} cannot lead; ranks above 0 run trainers.learner.follow")
        self.ranks = place.ranks if place.ranks > 1 else self.config.ranks
        try:
            self._worker = self._start(spawn=place.ranks == 1)
        except BaseException:
            self.close()
            raise

    def update(self, batch: Batch) -> UpdateReport:
        """See ``Learner.update``. After ``TrainingDiverged`` this learner can only be read."""
        if self._diverged:
            raise HarnessError("this learner has diverged and takes no further update; start a new one from the last checkpoint")
        start = time.perf_counter()
        orders = update_orders(batch, self.ranks, self.config.microbatch_tokens, self.version)
        outcomes: list[UpdateOutcome] = self._all("update", [(order,) for order in orders])
        self._check(outcomes)
        self.version += 1
        seconds = time.perf_counter() - start
        return report([o.tally for o in outcomes], outcomes[0].grad_norms, seconds=seconds, version=self.version)

    def logprobs(self, sequences: Sequence[Ids], temperature: float = 1.0) -> list[list[float]]:
        if any(not ids for ids in sequences):
            raise HarnessError("cannot score an empty sequence; give at least one token")
        shares = plan([len(ids) for ids in sequences], self.ranks, self.config.microbatch_tokens)
        orders = [([[sequences[i] for i in rows] for rows in share], temperature) for share in shares]
        scored: dict[int, list[float]] = {}
        for share, values in zip(shares, self._all("logprobs", orders), strict=True):
            for rows, found in zip(share, values, strict=True):
                scored.update(zip(rows, found, strict=True))
        return [scored[i] for i in range(len(sequences))]

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Full tensors by Hugging Face name, tied ones included, in the model's order. Copy one before asking for the next."""
        if self.config.zero_stage < 3 or self._leader is None:
            yield from self._worker.policy.weights()
            return
        self._leader.post(Command("gather"))
        walk = self._worker.policy.weights()
        try:
            for item in walk:  # noqa: UP028 - "yield from" would close the walk with us, and the finally needs it open
                yield item
        finally:
            for _ in walk:  # an abandoned walk would leave the other ranks waiting
                pass
            self._leader.collect()

    def checksum(self) -> str:
        return weights_checksum(self.weights())

    def save(self, folder: Path) -> None:
        checkpoint.atomically(folder, self._write)

    def load(self, folder: Path) -> None:
        """Go on exactly where ``save(folder)`` left off (in float32, bit for bit, with the same ranks and ZeRO stage)."""
        stamp = checkpoint.read_stamp(folder)
        checkpoint.check_stamp(stamp, ranks=self.ranks, zero_stage=self.config.zero_stage, dtype=self.config.dtype, folder=folder)
        self._all("load", [(folder / "deepspeed",)] * self.ranks)
        self.version = stamp.version

    def restart(self, directory: Path, lr: float | None = None) -> None:
        """See ``Learner.restart``; the count of updates goes on."""
        self._directory = Path(directory)
        config = self.config if lr is None else self.config.model_copy(update={"lr": lr})
        if self._leader is not None:
            self._leader.post(Command("open", (self._directory, config, None)))
        del self._worker  # or two models would stand in memory
        self._worker = self._mine(lambda: open_worker(self._directory, config, Place(rank=0, ranks=self.ranks, local_rank=0)))
        if self._leader is not None:
            self._leader.collect()

    def close(self) -> None:
        if self._leader is not None:
            self._leader.close()
            self._leader = None

    def _start(self, spawn: bool) -> Worker:
        place = Place(rank=0, ranks=self.ranks, local_rank=0)
        if self.ranks == 1:
            return open_worker(self._directory, self.config, place)
        if spawn:
            self._leader = Leader(self.ranks)
            self._leader.spawn("trainers.learner.follow")
            store = new_store(self.ranks)
            port = store.port
        else:
            join(place)
            self._leader = Leader(self.ranks, os.environ.get("MASTER_ADDR", "127.0.0.1"))
            distributed.broadcast_object_list([self._leader.environment])
            store = port = None
        self._leader.accept()
        self._leader.post(Command("open", (self._directory, self.config, port)))
        worker: Worker = self._mine(lambda: open_worker(self._directory, self.config, place, store))
        self._leader.collect()
        return worker

    def _all(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run ``name`` on every rank with its own arguments; replies in rank order."""
        if self._leader is not None:
            self._leader.post({rank: Command(name, arguments[rank]) for rank in range(1, self.ranks)})
        mine = self._mine(lambda: getattr(self._worker, name)(*arguments[0]))
        return [mine, *(self._leader.collect() if self._leader is not None else [])]

    def _mine(self, work: Callable[[], Any]) -> Any:
        """Rank 0's own part. If it fails because another rank left a collective, that rank's reason is the error to show."""
        try:
            return work()
        except RuntimeError as error:
            reason = self._leader.reported(5.0) if self._leader is not None else None
            if reason is None:
                raise
            self.close()
            raise HarnessError(reason) from error

    def _check(self, outcomes: Sequence[UpdateOutcome]) -> None:
        if all(outcome.diverged is None for outcome in outcomes):
            return
        self._diverged = True
        attempts = sorted({attempt for outcome in outcomes for attempt in outcome.diverged or ()})
        raise TrainingDiverged(
            f"loss or gradient is not finite in update {self.version + 1}, mini-batch {len(outcomes[0].grad_norms) + 1}, in attempts "
            f"{', '.join(attempts)}; the weights are those before that mini-batch. Look at these attempts, or start a new run with a "
            "lower learner.lr"
        )

    def _write(self, folder: Path) -> None:
        self._all("save", [(folder / "deepspeed",)] * self.ranks)
        checkpoint.write_hf(folder / "hf", self._worker.policy.model, self.weights(), self._directory)
        checkpoint.write_stamp(
            folder, checkpoint.Stamp(version=self.version, ranks=self.ranks, zero_stage=self.config.zero_stage, dtype=self.config.dtype)
        )


def open_worker(directory: Path, config: LearnerConfig, place: Place, store: Any | None = None) -> Worker:
    """Join the group and load the model; a collective act of all ranks."""
    join(place, store)
    gc.collect()  # a worker that was here before holds itself in circles, model and all
    torch.manual_seed(config.seed)
    return Worker(directory, config, Policy(directory, config, place))


class Policy:
    """The trainable model inside a DeepSpeed engine; every method but ``model`` is called by all ranks together."""

    def __init__(self, directory: Path, config: LearnerConfig, place: Place) -> None:
        self.device = place.device
        self.model = load_model(directory, config.dtype, config.gradient_checkpointing)
        self._config = config
        self._ranks = place.ranks
        self._norm = 0.0
        self._engine = self._initialise()
        if not config.zero_stage:
            self._engine.optimizer.register_step_pre_hook(self._before_plain_step)

    def forward(self, padded: Padded, temperature: float, teacher: Teacher | None = None) -> torch.Tensor:
        """See ``Scorer``: logprobs_N, with a teacher (2, N)."""
        scores: torch.Tensor = self._engine(padded, temperature, teacher)
        return scores

    def teachers(self, views: Sequence[Padded]) -> list[Teacher]:
        """The policy as it is now, frozen, at the chosen tokens of each view."""
        weight_VH, bias_V = self._frozen_head()
        self._engine.eval()
        try:
            with torch.no_grad():
                states = [self._engine(view, 1.0, None, True) for view in views]
        finally:
            self._engine.train()
        return [Teacher(hidden_NH=hidden_NH, weight_VH=weight_VH, bias_V=bias_V) for hidden_NH in states]

    def score(self, padded: Padded, temperature: float) -> torch.Tensor:
        self._engine.eval()
        try:
            with torch.no_grad():
                return self.forward(padded, temperature)
        finally:
            self._engine.train()

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a loss whose token weights are already final."""
        self._engine.backward(loss * self._ranks)  # DeepSpeed averages gradients over ranks: this, and only this, undoes it

    def step(self) -> float:
        """One optimiser step; the norm of the whole gradient before clipping. Steps nowhere where that is not finite."""
        self._engine.step()
        if not self._config.zero_stage:
            return self._norm
        if self._engine.optimizer.overflow:
            raise NonFiniteGradient
        return float(self._engine.optimizer._global_grad_norm)

    def any_rank(self, flag: bool) -> bool:
        """Whether ``flag`` is set on any rank."""
        if self._ranks == 1:
            return flag
        votes = torch.tensor(int(flag), device=self.device)
        distributed.all_reduce(votes)
        return bool(votes)

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        import deepspeed

        for name, tensor in self.model.state_dict(keep_vars=True).items():
            if not hasattr(tensor, "ds_id"):
                yield name, tensor.detach()
                continue
            with deepspeed.zero.GatheredParameters([tensor]):
                full = tensor.detach().to("cpu", copy=True)  # one whole tensor at a time on the GPU, and not the whole model
            yield name, full

    def save(self, folder: Path) -> None:
        self._engine.save_checkpoint(str(folder), tag="state", client_state={"random": checkpoint.random_state()})

    def load(self, folder: Path) -> None:
        found, state = self._engine.load_checkpoint(str(folder), tag="state")
        if found is None:
            raise HarnessError(f"no DeepSpeed state at {folder}; resume from another checkpoint")
        checkpoint.restore_random_state(state["random"])

    def _frozen_head(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """A copy of the output head, whole on every rank: the head itself moves with the first mini-batch."""
        head = self.model.get_output_embeddings()
        bias = getattr(head, "bias", None)
        return _copy(head.weight), None if bias is None else _copy(bias)

    def _initialise(self) -> Any:
        if self.device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        os.environ.setdefault("LOCAL_RANK", str(self.device.index or 0))
        import deepspeed

        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")  # DeepSpeed's own calls
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # gloo does; this would compile C++ for minutes at first use
        scorer = Scorer(self.model, self._config.logits_mb).to(self.device)
        optimizer = None
        if self._config.offload == "none":
            c = self._config
            optimizer = torch.optim.AdamW(scorer.parameters(), lr=c.lr, betas=c.betas, eps=c.eps, weight_decay=c.weight_decay)
        engine, *_ = deepspeed.initialize(model=scorer, optimizer=optimizer, config=deepspeed_config(self._config, self._ranks))
        return engine

    def _before_plain_step(self, *_: Any) -> None:
        """Without ZeRO, DeepSpeed hides the norm of the reduced gradient and steps even if it is not finite: so clip and check here."""
        limit = self._config.grad_clip or float("inf")
        self._norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        if not isfinite(self._norm):
            raise NonFiniteGradient


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """A parameter in full, on its device; ZeRO-3 holds a shard of it and gathers it from all ranks."""
    if not hasattr(tensor, "ds_id"):
        return tensor.detach().clone()
    import deepspeed

    with deepspeed.zero.GatheredParameters([tensor]):
        return tensor.detach().clone()

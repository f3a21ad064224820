"""Several processes that train one model: which one this is, and what passes between them.

A launcher (torchrun, accelerate launch, srun) starts the processes, the *ranks*, and describes them in the environment;
`joined` makes them one group. An engine in a process that belongs to no group is rank 0 of 1, and then nothing here
costs anything.

Numbers and JSON pass between the hosts (gloo), tensors between the devices (NCCL for CUDA, gloo for CPUs). Nothing is
pickled. Every function that talks to others must be called by all of them, in the same order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from touchstone.engines.training import EngineError

PATIENCE = timedelta(hours=2)
"""How long a rank waits for the others before it gives up. Tokenizing, or scoring on rank 0, may well take longer than
NCCL's ten minutes."""
VARIABLES = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}
"""What torchrun sets, and SLURM's names for it, which srun sets for each task."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one model.

    Attributes:
        rank: 0 to world - 1. Rank 0 scores and writes.
        world: processes in all.
        local_rank: its number among those of its node (machine): which GPU is its own.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def current(cls) -> Ranks:
        """Of the group that this process has joined; rank 0 of 1 where it has joined none."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))

    @property
    def first(self) -> bool:
        return self.rank == 0

    def own_device(self, name: str) -> str:
        """`cuda` is the GPU with this rank's number on its node; any other name is what it is."""
        return f"cuda:{self.local_rank}" if name == "cuda" and self.world > 1 else name

    def seed(self, seed: int) -> int:
        """For this rank's dropout: the run's own on rank 0, and on every other one that no run would be given."""
        return seed if self.first else int(np.random.SeedSequence([seed, self.rank]).generate_state(1)[0])

    # Between hosts ------------------------------------------------------------------------------------------------

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over all ranks, place by place, in float64: integers below 2^53 stay exact."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def max(self, values: Sequence[float]) -> list[float]:
        """The largest over all ranks, place by place."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def each(self, value: float) -> list[float]:
        """What every rank says, in the order of the ranks."""
        return self.sum([value if rank == self.rank else 0 for rank in range(self.world)])

    def wait(self) -> None:
        """Until all ranks have come here."""
        self.sum([0])

    def gather(self, value: Any) -> list[Any]:
        """On rank 0 the plain data of every rank, in their order; elsewhere nothing."""
        if self.world == 1:
            return [value]
        if not self.first:
            _send(value)
            return []
        return [value, *(_receive(rank) for rank in range(1, self.world))]

    def from_first(self, make: Callable[[], Any]) -> Any:
        """The plain data that `make` gives on rank 0, where alone it is called."""
        if self.world == 1:
            return make()
        data = _bytes(make()) if self.first else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor([len(data)])
        dist.broadcast(size, src=0)
        if not self.first:
            data = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(data, src=0)
        return _value(data)

    def _reduced(self, values: Sequence[float], operation: Any) -> list[float]:
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, op=operation)
        found: list[float] = tensor.tolist()
        return found

    # Between devices ----------------------------------------------------------------------------------------------

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace a tensor, gradients say, by its sum over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the other processes that the launcher started, for as long as the context lasts.

    Args:
        device: `cpu`, or `cuda`, of which each process takes the GPU with its own local rank.

    Raises:
        EngineError: the environment does not say who this process is, or where the others are.
    """
    rank, world, local_rank = (_number(name, slurm) for name, slurm in VARIABLES.items())
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise EngineError(f"{name} is not set: torchrun and accelerate launch set it; with srun alone, export it")
    backend = "gloo"
    if device != "cpu":
        backend = "cpu:gloo,cuda:nccl"
        if local_rank >= torch.cuda.device_count():
            raise EngineError(
                f"process {local_rank} of this node has no GPU of its own, for torch sees {torch.cuda.device_count()}: "
                "start one process a GPU, and let each see all GPUs of its node"
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group(backend, rank=rank, world_size=world, timeout=PATIENCE)
    yield Ranks.current()
    dist.destroy_process_group()  # not after an error: it would wait for ranks that may wait for this one


def _number(name: str, slurm: str) -> int:
    """A number from the environment. SLURM's is put under torch's name, where the libraries look for it."""
    text = os.environ.get(name, os.environ.get(slurm))
    if text is None or not text.isdecimal():
        raise EngineError(
            f"{name} is {'not set' if text is None else text + ', no number'}: start the processes with what numbers "
            "them, such as torchrun, accelerate launch --multi_gpu, or srun"
        )
    os.environ[name] = text
    return int(text)


def _bytes(value: Any) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(value), encoding="utf-8"), dtype=torch.uint8)


def _value(data: torch.Tensor) -> Any:
    return json.loads(data.numpy().tobytes())


def _send(value: Any) -> None:
    data = _bytes(value)
    dist.send(torch.tensor([len(data)]), dst=0)
    dist.send(data, dst=0)


def _receive(rank: int) -> Any:
    size = torch.empty(1, dtype=torch.int64)
    dist.recv(size, src=rank)
    data = torch.empty(int(size), dtype=torch.uint8)
    dist.recv(data, src=rank)
    return _value(data)

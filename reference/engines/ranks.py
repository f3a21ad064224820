"""Several processes that train one model: the number of each, and the communication between them.

A launcher (torchrun, accelerate launch, srun) starts the processes, the *ranks*, and describes them in the environment;
`joined` forms them into one group. An engine in a process without a group is rank 0 of 1, and nothing is sent.

Numbers and JSON travel between the hosts (gloo), tensors between the devices (NCCL for CUDA, gloo for CPUs). Nothing is
pickled. All ranks must call every function that communicates, in the same order.
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

TIMEOUT = timedelta(hours=2)
"""How long a rank waits for the others. Tokenizing, or scoring on rank 0, can take longer than NCCL's ten minutes."""
VARIABLES = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}
"""The variables that torchrun sets, and those that srun sets instead."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one model.

    Attributes:
        rank: 0 to world - 1. Rank 0 scores and writes.
        world: the number of processes.
        local_rank: the number of this process on its node (machine), and of its GPU.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def current(cls) -> Ranks:
        """Return this process's place in the group that it has joined; rank 0 of 1 without a group."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))

    @property
    def first(self) -> bool:
        return self.rank == 0

    def own_device(self, name: str) -> str:
        """Return `cuda:N` with this rank's local number for `cuda`; return any other name unchanged."""
        return f"cuda:{self.local_rank}" if name == "cuda" and self.world > 1 else name

    def seed(self, seed: int) -> int:
        """Return the seed of this rank's dropout: the run's seed on rank 0, else one made from seed and rank."""
        return seed if self.first else int(np.random.SeedSequence([seed, self.rank]).generate_state(1)[0])

    # Between hosts ------------------------------------------------------------------------------------------------

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the elementwise sums over all ranks, in float64: integers below 2^53 stay exact."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def max(self, values: Sequence[float]) -> list[float]:
        """Return the elementwise maxima over all ranks."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def each(self, value: float) -> list[float]:
        """Return the value of every rank, in the order of the ranks."""
        return self.sum([value if rank == self.rank else 0 for rank in range(self.world)])

    def wait(self) -> None:
        """Wait until all ranks have called this."""
        self.sum([0])

    def gather(self, value: Any) -> list[Any]:
        """Return the JSON values of all ranks in their order on rank 0, and an empty list on other ranks."""
        if self.world == 1:
            return [value]
        if not self.first:
            _send(value)
            return []
        return [value, *(_receive(rank) for rank in range(1, self.world))]

    def from_first(self, make: Callable[[], Any]) -> Any:
        """Return the JSON value that `make` returns on rank 0. It is called only there."""
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
        """Replace a tensor, such as gradients, by its sum over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that the launcher started, for the time of the context.

    Args:
        device: `cpu`, or `cuda`: each process takes the GPU with its local rank.

    Raises:
        EngineError: a variable that identifies this process or locates the others is missing, or there are too few
            GPUs.
    """
    rank, world, local_rank = (_number(name, slurm) for name, slurm in VARIABLES.items())
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise EngineError(f"{name} is not set: torchrun and accelerate launch set it; with srun, export it")
    backend = "gloo"
    if device != "cpu":
        backend = "cpu:gloo,cuda:nccl"
        if local_rank >= torch.cuda.device_count():
            raise EngineError(
                f"there is no GPU for process {local_rank} of this node: torch finds {torch.cuda.device_count()}; "
                "start one process per GPU, and let each see all GPUs of its node"
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group(backend, rank=rank, world_size=world, timeout=TIMEOUT)
    yield Ranks.current()
    dist.destroy_process_group()  # not after an error: the other ranks may be waiting for this one


def _number(name: str, slurm: str) -> int:
    """Return an integer from the environment, and copy SLURM's variable to torch's name, which the libraries read."""
    text = os.environ.get(name, os.environ.get(slurm))
    if text is None or not text.isdecimal():
        raise EngineError(
            f"{name} is {'not set' if text is None else f'{text!r}, not an integer'}: start the processes with "
            "torchrun, accelerate launch --multi_gpu or srun"
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

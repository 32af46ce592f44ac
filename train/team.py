"""The processes of one training run: one alone, or several that torchrun started."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

TIMEOUT = datetime.timedelta(minutes=10)
"""A process that waits longer for another one gives up; the longest wait is for a validation."""


@dataclass(frozen=True)
class Team:
    """This process's place among those of the run. The lead alone prints, validates and writes."""

    rank: int = 0
    size: int = 1

    @property
    def lead(self) -> bool:
        return self.rank == 0

    def share(self, network: nn.Module) -> nn.Module:
        """The network, with gradients averaged over the processes in its backward pass.

        Only while the result lives: a caller that drops it trains on its own gradient.
        """
        if self.size == 1:
            return network
        return DistributedDataParallel(network, gradient_as_bucket_view=True)

    def mean(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Means over the processes: the same numbers in all of them, which decide alike."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return (tensor / self.size).tolist()


@contextlib.contextmanager
def assemble(device: torch.device) -> Iterator[tuple[Team, torch.device]]:
    """The run's processes, from what torchrun says in the environment, and this one's device."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # Before there is a group: its functions take the group at import as a default argument, and then no
    # destroy_process_group ends gloo's threads, which abort the process if they outlive the interpreter.
    importlib.import_module("torch.distributed.nn")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Team(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()

"""The processes of a run: which one this is, on which device, and how they wait for each other."""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from components.common.errors import InputError
from components.train.settings import TrainingSettings

# One process downloads or uploads while the others wait: far longer than a step may take before it counts as hung.
_PATIENCE = timedelta(hours=12)
_ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


@dataclass(frozen=True)
class Layout:
    """This process among all.

    Attributes:
        rank: Number of this process among `world`.
        local_rank: Number of this process on its node.
        device: Where it computes.
        mesh: All processes, for sharding.
        patient_group: gloo group for waits that may take hours.
        checkpoint_group: gloo group used by the checkpoint thread only.
    """

    rank: int
    world: int
    local_rank: int
    device: torch.device
    mesh: DeviceMesh
    patient_group: dist.ProcessGroup
    checkpoint_group: dist.ProcessGroup

    @property
    def is_first(self) -> bool:
        """Whether this process speaks for all: it logs and writes what is written once."""
        return self.rank == 0

    @property
    def is_first_on_node(self) -> bool:
        """Whether this process fetches and uploads files for its node."""
        return self.local_rank == 0

    def wait_for_all(self) -> None:
        """Return when every process is here, however long one of them takes."""
        dist.barrier(group=self.patient_group)


def start_processes(settings: TrainingSettings) -> Layout:
    """Join the other processes, which torchrun describes in the environment; alone if there is no torchrun.

    Raises:
        InputError: The device is not there, or the batch does not split over this number of processes.
    """
    rank, world, local_rank = (int(os.environ.get(name, default)) for name, default in _ALONE.items())
    check_batch_splits(settings, world)
    device = _device(settings, local_rank)
    if settings.threads_per_process is not None:
        torch.set_num_threads(settings.threads_per_process)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Checkpoints are planned over gloo while NCCL computes.
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        device_id=device if device.type == "cuda" else None,
        **({} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}),
    )
    return Layout(
        rank=rank,
        world=world,
        local_rank=local_rank,
        device=device,
        mesh=init_device_mesh(device.type, (world,)),
        patient_group=dist.new_group(backend="gloo", timeout=_PATIENCE),
        checkpoint_group=dist.new_group(backend="gloo", timeout=_PATIENCE),
    )


def check_batch_splits(settings: TrainingSettings, world: int) -> None:
    """Refuse a number of processes over which the batch does not split into whole micro-batches.

    Raises:
        InputError: It does not.
    """
    size = 1 if settings.micro_batch_size == "auto" else settings.micro_batch_size
    share = size * world
    if settings.global_batch_size % share:
        raise InputError(
            f"global_batch_size {settings.global_batch_size} is not a multiple of micro_batch_size "
            f"{size} x {world} processes = {share}: change a batch size or the processes."
        )


def _device(settings: TrainingSettings, local_rank: int) -> torch.device:
    gpus = torch.cuda.device_count() if settings.device != "cpu" and torch.cuda.is_available() else 0
    if gpus == 0 and settings.device != "cuda":
        return torch.device("cpu")
    if local_rank >= gpus:
        raise InputError(
            f"Process {local_rank} of this node needs a GPU of its own, but torch sees {gpus}: "
            "lower processes_per_node, or give the node more GPUs."
        )
    return torch.device("cuda", local_rank)

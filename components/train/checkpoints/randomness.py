"""Random numbers that come back after a restart: nothing of a generator is stored."""

import hashlib

import torch


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's generators for one step, so that its dropout is a pure function of the run's seed and the step.

    Args:
        seed: Of the run.
        step: That is about to run, counted from 0.
        rank: Of this process: no two draw the same mask.
    """
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little", signed=True))

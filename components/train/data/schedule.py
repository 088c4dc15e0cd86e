"""The course of a run: how many steps there are, which windows each takes, and its learning rate."""

import math
from dataclasses import dataclass

from components.train.settings import TrainingSettings


@dataclass(frozen=True)
class Plan:
    """Steps of a run.

    The last batch of an epoch takes the windows that are left: it is smaller, never dropped and never filled up from
    the next epoch, so that every window is seen exactly once per epoch.

    Attributes:
        windows: In every epoch.
        settings: Batch size, epochs, learning rate.
    """

    windows: int
    settings: TrainingSettings

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch, the smaller last one included."""
        return math.ceil(self.windows / self.settings.global_batch_size)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps_per_epoch * self.settings.epochs

    def batch(self, step: int) -> tuple[int, int, int]:
        """Epoch (from 0) of a step (from 0), and its first and last-but-one position within that epoch."""
        epoch, index = divmod(step, self.steps_per_epoch)
        first = index * self.settings.global_batch_size
        return epoch, first, min(first + self.settings.global_batch_size, self.windows)

    def describe(self, step: int) -> str:
        """Name a step (from 0) and its windows for a person, who counts from 1."""
        epoch, first, last = self.batch(step)
        return f"step {step + 1} of {self.steps} (windows {first + 1} to {last} of epoch {epoch + 1})"

    def ends_epoch(self, step: int) -> bool:
        """Whether a step (from 0) is its epoch's last."""
        return (step + 1) % self.steps_per_epoch == 0

    def validates(self, step: int) -> bool:
        """Whether held-out perplexity is measured after a step (from 0): at intervals, and after the last."""
        every = self.settings.validate_every_steps
        due = self.ends_epoch(step) if every is None else (step + 1) % every == 0
        return due or step + 1 == self.steps

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step (from 0): linear warm-up from 0, then half a cosine down to 0, or constant.

        Step for step the rate of transformers' `get_cosine_schedule_with_warmup`, which the authors trained with.
        """
        warmup = math.ceil(self.steps * self.settings.warmup_fraction)
        if step < warmup:
            return self.settings.learning_rate * step / warmup
        if self.settings.schedule == "constant":
            return self.settings.learning_rate
        progress = (step - warmup) / max(1, self.steps - warmup)
        return self.settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

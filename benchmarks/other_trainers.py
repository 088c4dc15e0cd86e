"""What this trainer is compared with: Hugging Face's Trainer, and a plain loop over accelerate, on given windows."""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_cosine_schedule_with_warmup,
)

from components.train.settings import TrainSettings


@dataclass
class Steps:
    """What a run's steps took and gave.

    Attributes:
        seconds: Of each step, by the clock.
        cpu: Of each step, of all threads of the process: what a busy machine leaves alone.
        losses: Mean cross entropy of each step.
    """

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start the clocks."""
        self.start()

    def start(self) -> None:
        """Let the first step begin now."""
        self._last = time.perf_counter(), time.process_time()

    def end_step(self, loss: float) -> None:
        """Note that a step has ended, and that the next begins."""
        now = time.perf_counter(), time.process_time()
        self.seconds.append(now[0] - self._last[0])
        self.cpu.append(now[1] - self._last[1])
        self.losses.append(loss)
        self._last = now


class WindowDataset(Dataset[dict[str, torch.Tensor]]):
    """Windows, in the order in which they are to be trained on."""

    def __init__(self, tokens: NDArray[np.int64]) -> None:
        """Take int64 tokens of shape (windows, context)."""
        self._tokens = torch.from_numpy(tokens)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """One window; the model shifts the labels itself."""
        return {"input_ids": self._tokens[index], "labels": self._tokens[index]}


def run_hf_trainer(model: PreTrainedModel, tokens: NDArray[np.int64], arguments: dict[str, Any]) -> Steps:
    """Train with Hugging Face's Trainer, in the order of the windows.

    Args:
        model: Whole, with fp32 weights.
        tokens: int64, shape (windows, context).
        arguments: Of `TrainingArguments`, beside those that keep it quiet.
    """
    clock = _Clock()
    quiet = {"report_to": "none", "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True}
    trainer = _InOrder(
        model=model,
        args=TrainingArguments(**quiet, **arguments),
        train_dataset=WindowDataset(tokens),
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.steps


def run_accelerate_loop(model: PreTrainedModel, tokens: NDArray[np.int64], settings: TrainSettings) -> Steps:
    """Train on a CPU with the loop of accelerate's own examples, in the order of the windows."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    optimiser: Any = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    steps = len(tokens) // settings.global_batch_size
    scheduler: Any = get_cosine_schedule_with_warmup(optimiser, warmup_steps(settings, steps), steps)
    loader: Any = DataLoader(WindowDataset(tokens), batch_size=settings.global_batch_size, shuffle=False)
    model, optimiser, loader, scheduler = accelerator.prepare(model.train(), optimiser, loader, scheduler)
    found = Steps()
    for batch in loader:
        loss = model(**batch, use_cache=False).loss
        accelerator.backward(loss)
        if settings.max_gradient_norm is not None:
            accelerator.clip_grad_norm_(model.parameters(), settings.max_gradient_norm)
        optimiser.step()
        scheduler.step()
        optimiser.zero_grad()
        found.end_step(loss.item())
    return found


def warmup_steps(settings: TrainSettings, steps: int) -> int:
    """Steps in which the learning rate rises."""
    return int(np.ceil(steps * settings.warmup_fraction))


class _InOrder(Trainer):
    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)


class _Clock(TrainerCallback):
    """Notes when each step ends; the Trainer reads the loss for its log, so the device has been waited for."""

    def __init__(self) -> None:
        self.steps = Steps()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.steps.start()

    def on_log(self, _: Any, __: Any, ___: Any, logs: dict[str, float] | None = None, **____: Any) -> None:
        if logs is not None and "loss" in logs:
            self.steps.end_step(logs["loss"])

"""What a recipe's pre-training takes on given GPUs, before any is rented: one table, beside the paper's figures."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from components.common.errors import InputError
from components.download.sample.tiny_llama import write_tiny_llama
from components.train.planning.fit import Fit, as_set, find_fit
from components.train.planning.memory import Checkpointing, sharded_states, usable_bytes
from components.train.planning.node import Node, parse_node
from components.train.planning.published import PAPER
from components.train.planning.shape import ModelShape, find_shape
from components.train.planning.work import Work, work_of
from pipelines.recipe import Recipe

Row = tuple[str, str, str]

_CHECKPOINTING: dict[Checkpointing, str] = {
    "selective": "every second layer computed twice",
    "full": "every layer computed twice",
}


@dataclass(frozen=True)
class Question:
    """What is asked for beside the recipe.

    Attributes:
        node: The GPUs, such as `8xA100-80GB`.
        documents: To train on; none takes the recipe's most, or the paper's number.
        tokens: Of all documents, for packed sampling.
        mfu: Part of the peak that the model's operations are to reach.
        price: Of a GPU for an hour; none takes the recipe's `gpu_hour_price`.
        model: Folder or known name; none takes the recipe's base model.
        peak_tflops: Of a GPU that is not known; none takes the recipe's for such a one.
        memory_gb: Of a GPU that is not known.
    """

    node: str
    documents: int | None = None
    tokens: int | None = None
    mfu: float = 0.55
    price: float | None = None
    model: str = ""
    peak_tflops: float | None = None
    memory_gb: float | None = None


@dataclass(frozen=True)
class Costs:
    """What a run takes.

    Attributes:
        shape: The model.
        work: To be done.
        node: The GPUs.
        own: With the recipe's micro-batch, where it sets one.
        found: The largest micro-batch that fits, and by which means.
        mfu: Assumed.
        price: Of a GPU for an hour, where one is known.
    """

    shape: ModelShape
    work: Work
    node: Node
    own: Fit | None
    found: Fit
    mfu: float
    price: float | None

    @property
    def hours(self) -> float:
        """Of the run, checkpoints and validation not counted."""
        return self.work.seconds(self.node.gpus * self.node.peak_tflops * 1e12 * self.mfu) / 3600

    @property
    def tokens_per_second(self) -> float:
        """Of one GPU."""
        return self.node.peak_tflops * 1e12 * self.mfu / self.work.flops_per_token


def plan_costs(recipe: Recipe, question: Question) -> Costs:
    """Work out what a recipe's pre-training takes; nothing is downloaded and torch is not needed.

    Raises:
        InputError: The node, the model or a number cannot be used.
    """
    if not 0 < question.mfu <= 1:
        raise InputError(f"The MFU is a part of the peak, above 0 and at most 1, not {question.mfu}.")
    settings = recipe.train
    node = parse_node(question.node, question.memory_gb, question.peak_tflops)
    shape = _shape(question.model or recipe.download.base_model)
    if settings.context_length > shape.positions:
        raise InputError(
            f"context_length {settings.context_length} exceeds {shape.name}'s {shape.positions} positions."
        )
    documents = question.documents or recipe.download.max_articles or PAPER.documents
    return Costs(
        shape=shape,
        work=work_of(shape, settings, documents, question.tokens),
        node=node,
        own=as_set(shape, settings, node),
        found=find_fit(shape, settings, node),
        mfu=question.mfu,
        price=question.price if question.price is not None else settings.gpu_hour_price,
    )


def show_plan(recipe: Recipe, question: Question) -> None:
    """Print the table.

    Raises:
        InputError: The node, the model or a number cannot be used.
    """
    costs = plan_costs(recipe, question)
    table = Table(title=f"{recipe.recipe} on {question.node}")
    table.add_column("")
    table.add_column("This plan", justify="right")
    table.add_column("The paper", justify="right")
    for rows in (_work_rows(costs), _time_rows(costs), _memory_rows(costs)):
        for row in rows:
            table.add_row(*row)
        table.add_section()
    console = Console()
    console.print(table)
    for note in _notes(costs):
        console.print(note, soft_wrap=True, highlight=False)


def _shape(model: str) -> ModelShape:
    if model != "sample":
        return find_shape(model)
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_llama(Path(folder))
        return find_shape(folder)


def _work_rows(costs: Costs) -> list[Row]:
    settings, work = costs.work.plan.settings, costs.work
    return [
        ("Parameters", f"{costs.shape.parameters:,}", f"{PAPER.parameters:.2e}"),
        ("Documents", f"{work.documents:,}", f"{PAPER.documents:,}"),
        ("Windows an epoch", f"{work.plan.windows:,}", f"{PAPER.documents:,}"),
        ("Tokens in a window", f"{settings.context_length:,}", f"{PAPER.context:,}"),
        ("Epochs", f"{settings.epochs}", f"{PAPER.epochs}"),
        ("Tokens", f"{work.tokens:.4g}", f"{PAPER.tokens:.4g}"),
        ("Steps", f"{work.plan.steps:,}", f"{PAPER.steps:,}"),
        ("FLOPs a token", f"{work.flops_per_token:.3e}", f"{6 * PAPER.parameters:.3e}"),
        ("FLOPs", f"{work.flops:.3e}", f"{PAPER.flops:.3e}"),
    ]


def _time_rows(costs: Costs) -> list[Row]:
    node, epochs = costs.node, costs.work.plan.settings.epochs
    paper_hours = PAPER.epoch_hours * PAPER.epochs
    rows = [
        ("GPUs", f"{node.gpus} x {node.gpu}", f"{PAPER.gpus} x A100-80GB"),
        ("Peak of a GPU, TFLOP/s", f"{node.peak_tflops:,.0f}", f"{PAPER.peak_tflops:,.0f}"),
        ("MFU", f"{costs.mfu:.1%}", f"{PAPER.mfu:.1%}"),
        ("Tokens/s of a GPU", f"{costs.tokens_per_second:,.0f}", f"{PAPER.tokens_per_second:,.0f}"),
        ("Hours an epoch", f"{costs.hours / epochs:,.3g}", f"{PAPER.epoch_hours:,.0f}"),
        ("Hours", f"{costs.hours:,.3g}", f"{paper_hours:,.0f}"),
        ("GPU hours", f"{costs.hours * node.gpus:,.3g}", f"{paper_hours * PAPER.gpus:,.0f}"),
    ]
    if costs.price is not None:
        own, paper = (hours * costs.price for hours in (costs.hours * node.gpus, paper_hours * PAPER.gpus))
        rows.append((f"Cost at {costs.price:g} a GPU hour", f"{own:,.0f}", f"{paper:,.0f}"))
    return rows


def _memory_rows(costs: Costs) -> list[Row]:
    fit = costs.own or costs.found
    memory = fit.memory
    rows = [
        ("Batch: GPUs x micro-batch x passes", _batch(costs, fit), f"{PAPER.gpus} x {PAPER.micro_batch} x 4"),
        ("fp32 states of a GPU, gradients too", _gib(sharded_states(costs.shape, costs.node.gpus)), ""),
        ("At the fullest moment: weights, moments", _gib(memory.states), ""),
        ("  gathered weights", _gib(memory.gathered), ""),
        ("  activations", _gib(memory.activations), ""),
        ("  logits", _gib(memory.logits), ""),
        ("  gradients", _gib(memory.gradients), ""),
        ("  gradients between micro-batches", _gib(memory.accumulated), ""),
        ("  together", _gib(memory.total), ""),
        ("A GPU has for them", _gib(usable_bytes(costs.node.memory_gib)), ""),
        ("A checkpoint", _gib(12 * costs.shape.parameters), ""),
    ]
    return [row for row in rows if row[1] != _gib(0)]


def _notes(costs: Costs) -> list[str]:
    own, found = costs.own, costs.found
    notes = [f"The MFU of {costs.mfu:.0%} is assumed: benchmarks/train_gpu.py measures it on your GPU."]
    if not found.fits:
        notes.append(
            f"Does not fit by any means: the least is {_gib(found.memory.total)} a GPU. Take more or larger GPUs."
        )
    elif own is None or not own.fits or own.training != found.training:
        begins = "Fits" if own is None or own.fits else "The recipe's micro-batch does not fit. What fits"
        notes.append(f"{begins}: {_batch(costs, found)}, {_gib(found.memory.total)} a GPU{_means(found)}.")
    else:
        notes.append("The recipe's micro-batch fits.")
    if found.fits and found.training.checkpointing:
        notes.append("Layers that are computed twice cost 11% of the speed or more; the hours above don't count that.")
    return notes


def _batch(costs: Costs, fit: Fit) -> str:
    return f"{costs.node.gpus} x {fit.training.micro_batch} x {fit.passes}"


def _means(fit: Fit) -> str:
    """The settings by which it fits."""
    training = fit.training
    changes = [f"--set train.micro_batch_size={training.micro_batch}"]
    if training.checkpointing:
        changes.append(f"--set train.activation_checkpointing={training.checkpointing}")
    if training.chunk is not None:
        changes.append(f"--set train.loss_chunk_tokens={training.chunk}")
    by = f" ({_CHECKPOINTING[training.checkpointing]})" if training.checkpointing else ""
    return f"{by}, with {' '.join(changes)}"


def _gib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**27 else f"{size / 2**20:,.1f} MiB"

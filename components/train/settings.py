"""Settings of the train stage: the `train` section of a recipe, and `finetune` for the tasks."""

import math
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from components.common.cluster.settings import ClusterSettings
from components.common.section import Section

INSTRUCT = "instruct"
OWN_CORPUS = "corpus"  # what `mixture` calls the corpus of the run itself
# Settings that change neither the model nor the data it sees, beyond the order in which floating point sums are
# taken. They are left out of the fingerprint, so a run can resume on other hardware or with other reporting.
NOT_IN_FINGERPRINT = {
    "micro_batch_size",
    "activation_checkpointing",
    "loss_chunk_tokens",
    "compile",
    "device",
    "processes_per_node",
    "threads_per_process",
    "log_every_steps",
    "validate_every_steps",
    "validation_windows",
    # What a bad step does may be changed when one has come: the run goes on from its last checkpoint.
    "on_bad_loss",
    "loss_spike_factor",
    "max_skipped_steps",
    "checkpoint_every_steps",
    "checkpoint_minutes",
    "checkpoint_retry_minutes",
    "keep_checkpoints",
    "keep_epoch_checkpoints",
    "peak_tflops",
    "gpu_hour_price",
    "launcher",
    "cluster",
    "shutdown_seconds",
}


class TrainingSettings(Section):
    """What pre-training and fine-tuning share: optimisation, memory, checkpoints, reporting."""

    context_length: int = Field(512, ge=2, le=131_072, description="Tokens in a window.")
    global_batch_size: int = Field(128, gt=0, description="Windows in an optimiser step, over all processes.")
    micro_batch_size: PositiveInt | Literal["auto"] = Field(
        16,
        description="Windows in one forward and backward pass of one process; auto finds the most that memory holds.",
    )
    epochs: int = Field(5, gt=0, description="Passes over the data.")
    learning_rate: float = Field(2e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="Learning rate after the warm-up.")
    warmup_fraction: float = Field(0.03, ge=0, lt=1, description="Part of all steps in which the rate rises from 0.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW's decoupled weight decay.")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="Decay of AdamW's mean of gradients.")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="Decay of AdamW's mean of squared gradients.")
    adam_epsilon: float = Field(1e-8, gt=0, description="Added to AdamW's denominator.")
    max_gradient_norm: float | None = Field(
        None, gt=0, description="Gradients are scaled down to this norm; none leaves them as they are, as in the paper."
    )
    precision: Literal["bf16", "fp32"] = Field(
        "bf16", description="Of computation and of the exported weights; weights in training are always fp32."
    )
    padding_token_id: int | None = Field(
        None, ge=0, description="Fills windows of short documents; none takes the end token, as the paper does."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Decides the order of the data and the windows drawn.")

    on_bad_loss: Literal["stop", "skip"] = Field(
        "stop",
        description="What a loss or gradient that is no number, or a spike, does: end the run, or leave the step out.",
    )
    loss_spike_factor: float | None = Field(
        None, gt=1, description="A loss this many times the median of the 100 steps before is a spike; none looks not."
    )
    max_skipped_steps: int = Field(20, ge=0, description="More skipped steps than these end the run.")

    activation_checkpointing: Literal["selective", "full"] | None = Field(
        None,
        description="Recompute activations in the backward pass to save memory: in every second layer, or in all.",
    )
    loss_chunk_tokens: int | None = Field(
        None, gt=0, description="Compute logits for so many tokens at a time, to save memory; none: all at once."
    )
    compile: bool = Field(False, description="Compile each decoder layer with torch.compile: faster on a GPU.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes the GPU if there is one.")
    processes_per_node: int = Field(1, gt=0, le=64, description="Worker processes on a node: its number of GPUs.")
    threads_per_process: int | None = Field(
        None, gt=0, description="CPU threads of a worker process; none shares the node's cores evenly."
    )
    launcher: Literal["local", "pytorchjob", "trainjob"] = Field(
        "local",
        description="Where the workers run: on this machine, or on a cluster with the Training Operator or Trainer v2.",
    )
    cluster: ClusterSettings = Field(
        default_factory=lambda: ClusterSettings.model_validate({}), description="The job on a cluster."
    )
    shutdown_seconds: int = Field(
        600, gt=0, description="Time for the last checkpoint when the run is stopped, before workers are killed."
    )

    log_every_steps: int = Field(10, gt=0, description="Steps between two log lines; MLflow gets every step.")
    validate_every_steps: int | None = Field(
        None, gt=0, description="Steps between two measurements of held-out perplexity; none: at each epoch's end."
    )
    validation_windows: int = Field(256, ge=0, description="Held-out windows, the same each time; 0 measures none.")
    checkpoint_every_steps: int | None = Field(
        None, gt=0, description="Steps between two checkpoints; none leaves it to checkpoint_minutes."
    )
    checkpoint_minutes: float | None = Field(30, gt=0, description="Minutes between two checkpoints; none: by steps.")
    checkpoint_retry_minutes: float = Field(
        10, gt=0, description="How long a checkpoint is tried to be stored, while training goes on, before it fails."
    )
    keep_checkpoints: int = Field(2, gt=0, description="Complete checkpoints kept; older ones are deleted.")
    keep_epoch_checkpoints: bool = Field(False, description="Also save, and keep, one at the end of every epoch.")
    peak_tflops: float | None = Field(
        None, gt=0, description="Peak TFLOP/s of one device, for the MFU; none looks the GPU up by its name."
    )
    gpu_hour_price: float | None = Field(
        None, ge=0, description="Price of a device for an hour, for the cost; none logs no cost."
    )

    @model_validator(mode="after")
    def _batch_splits_into_micro_batches(self) -> "TrainingSettings":
        """Fail where the recipe is read rather than when the GPUs are up."""
        size = 1 if self.micro_batch_size == "auto" else self.micro_batch_size
        nodes = 1 if self.launcher == "local" else self.cluster.nodes
        share = size * self.processes_per_node * nodes
        if self.global_batch_size % share:
            on_nodes = f" x {nodes} nodes" if nodes > 1 else ""
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not a multiple of micro_batch_size "
                f"{size} x processes_per_node {self.processes_per_node}{on_nodes} = {share}: change one of them"
            )
        return self

    def fingerprint_part(self) -> dict[str, Any]:
        """The settings that decide which model comes out."""
        return self.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT)


class TrainSettings(TrainingSettings):
    """How the base model is trained on the corpus; the defaults are the paper's recipe (arXiv 2304.14454 v1)."""

    objective: Literal["pretrain"] = Field("pretrain", description="Predict the next token of the corpus's documents.")
    sampling: Literal["window", "packed", "mixed"] = Field(
        "window",
        description="window: one window of every document in an epoch, as in the paper; packed: all tokens, documents "
        "joined by end tokens; mixed: windows of several corpora by weight.",
    )
    mixture: dict[str, float] = Field(
        default_factory=dict,
        description="For mixed: weight of each corpus, `corpus` being the run's own, others by their manifest's URI.",
    )
    mask_padding: bool = Field(
        False, description="Leave the padding of short documents out of the loss; the paper counts it."
    )
    end_token_id: int | None = Field(
        None, ge=0, description="Joins documents in packed sampling; none takes the end token of the base's tokenizer."
    )
    first_epoch_shards: int = Field(
        64,
        gt=0,
        description="In the first epoch documents are shuffled within blocks of so many shards, drawn at random, so "
        "that training starts before all shards are here; later epochs shuffle all of them.",
    )

    @property
    def corpora(self) -> list[str]:
        """Names of the corpora trained on: the run's own first, the others by name.

        The order in which the recipe names them does not count: on its way through KFP it is lost.
        """
        return sorted(self.mixture, key=lambda name: (name != OWN_CORPUS, name)) or [OWN_CORPUS]

    @model_validator(mode="after")
    def _mixture_belongs_to_mixed(self) -> "TrainSettings":
        if (self.sampling == "mixed") != bool(self.mixture):
            raise ValueError("mixture and sampling: mixed belong together: give both or neither")
        if not all(0 < weight < math.inf for weight in self.mixture.values()):
            raise ValueError("every weight in mixture must be a number above 0")
        return self


class FinetuneSettings(TrainingSettings):
    """How a model is fine-tuned on questions of benchmarks or on instructions; the defaults are the authors' settings.

    They are those of `finetune_pp_peft_trainer.sh`, its LoRA twin and `finetune_peft.py` in
    github.com/chaoyi-wu/Finetune_LLAMA; the script behind their published table is not public.
    """

    objective: Literal["finetune", "instruct"] = Field(
        "finetune",
        description="finetune: answer the training questions of benchmarks. instruct: answer at all, from the "
        "instruction set (download.instructions); tasks is then empty and loss_on is answer where they are not given.",
    )
    tasks: list[Literal["pubmedqa", "medmcqa", "medqa"]] = Field(
        ["medqa"],
        description="Benchmarks whose training questions are mixed; under instruct they join the instructions, in "
        "their form.",
    )
    method: Literal["full", "lora"] = Field("full", description="Train all weights, or low-rank adapters (peft).")
    context_length: int = Field(2048, ge=2, le=131_072, description="Tokens in a window, at most.")
    micro_batch_size: PositiveInt | Literal["auto"] = Field(
        4,
        description="Windows in one forward and backward pass of one process; auto finds the most that memory holds.",
    )
    epochs: int = Field(3, gt=0, description="Passes over the training questions.")
    fraction: float = Field(
        1.0, gt=0, le=1, description="Part of each task's training questions, chosen by a hash of their ids."
    )
    loss_on: Literal["all", "answer"] = Field(
        "all", description="Tokens that count: all, as the authors do, or the answer and the end token."
    )
    packed: bool = Field(True, description="Pack examples into windows, as the authors do, instead of padding each.")
    lora_rank: int = Field(8, gt=0, description="Rank of the adapters.")
    lora_alpha: float = Field(32, gt=0, description="Their scale is alpha / rank.")
    lora_dropout: float = Field(0.1, ge=0, lt=1, description="Dropout before the adapters.")
    lora_targets: list[str] = Field(["q_proj", "v_proj"], min_length=1, description="Linear layers with an adapter.")
    merge_adapter: bool = Field(False, description="Also store the model with its adapter merged into the weights.")
    validation_windows: int = Field(
        0, ge=0, le=0, description="Nothing is held out: the evaluation on test questions is the measure."
    )

    @model_validator(mode="before")
    @classmethod
    def _instructions_have_their_own_defaults(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("objective") == INSTRUCT:
            return {"tasks": [], "loss_on": "answer"} | data
        return data

    @model_validator(mode="after")
    def _lists_and_method_fit(self) -> "FinetuneSettings":
        if not self.tasks and self.objective != INSTRUCT:
            raise ValueError("tasks should have at least 1 item, or objective should be instruct")
        for name in ("tasks", "lora_targets"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names {max(values, key=values.count)} more than once")
        if self.merge_adapter and self.method != "lora":
            raise ValueError(f"merge_adapter needs method: lora, but method is {self.method}: there is no adapter")
        return self

    def fingerprint_part(self) -> dict[str, Any]:
        """The settings that decide which model comes out; the order of tasks and idle LoRA settings do not."""
        part = super().fingerprint_part()
        part |= {name: sorted(part[name]) for name in ("tasks", "lora_targets")}
        if self.method == "full":
            part = {name: value for name, value in part.items() if not name.startswith(("lora_", "merge_"))}
        return part

"""Settings of the train stage: the `train` section of a recipe."""

from typing import Any, Literal

from pydantic import Field, model_validator

from components.common.section import Section

# Settings that change neither the model nor the data it sees, beyond the order in which floating point sums are
# taken. They are left out of the fingerprint, so a run can resume on other hardware or with other reporting.
NOT_IN_FINGERPRINT = {
    "micro_batch_size",
    "compile",
    "device",
    "processes_per_node",
    "threads_per_process",
    "log_every_steps",
    "checkpoint_every_steps",
    "checkpoint_minutes",
    "keep_checkpoints",
    "peak_tflops",
    "launcher",
    "shutdown_seconds",
}


class TrainSettings(Section):
    """How the base model is trained on the corpus; the defaults are the paper's recipe (arXiv 2304.14454 v1)."""

    context_length: int = Field(512, ge=2, le=131_072, description="Tokens in a window, drawn from one document.")
    global_batch_size: int = Field(128, gt=0, description="Windows in an optimiser step, over all processes.")
    micro_batch_size: int = Field(
        16, gt=0, description="Windows in one forward and backward pass of one process: what the memory holds."
    )
    epochs: int = Field(5, gt=0, description="Passes over the documents; each draws one window of every document.")
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
    mask_padding: bool = Field(
        False, description="Leave the padding of short documents out of the loss; the paper counts it."
    )
    padding_token_id: int = Field(2, ge=0, description="Fills windows of short documents; 2 is LLaMA's end token.")
    seed: int = Field(0, ge=0, lt=2**63, description="Decides the order of documents and the windows drawn.")

    compile: bool = Field(False, description="Compile each decoder layer with torch.compile: faster on a GPU.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes the GPU if there is one.")
    processes_per_node: int = Field(1, gt=0, le=64, description="Worker processes on a node: its number of GPUs.")
    threads_per_process: int | None = Field(
        None, gt=0, description="CPU threads of a worker process; none shares the node's cores evenly."
    )
    launcher: Literal["local"] = Field("local", description="Where the workers run: local is this machine.")
    shutdown_seconds: int = Field(
        600, gt=0, description="Time for the last checkpoint when the run is stopped, before workers are killed."
    )

    log_every_steps: int = Field(10, gt=0, description="Steps between two log lines; MLflow gets every step.")
    checkpoint_every_steps: int | None = Field(
        None, gt=0, description="Steps between two checkpoints; none leaves it to checkpoint_minutes."
    )
    checkpoint_minutes: float | None = Field(30, gt=0, description="Minutes between two checkpoints; none: by steps.")
    keep_checkpoints: int = Field(2, gt=0, description="Complete checkpoints kept; older ones are deleted.")
    peak_tflops: float | None = Field(
        None, gt=0, description="Peak TFLOP/s of one device, for the MFU; none looks the GPU up by its name."
    )

    @model_validator(mode="after")
    def _batch_splits_into_micro_batches(self) -> "TrainSettings":
        """Fail where the recipe is read rather than when the GPUs are up."""
        share = self.micro_batch_size * self.processes_per_node
        if self.global_batch_size % share:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not a multiple of micro_batch_size "
                f"{self.micro_batch_size} x processes_per_node {self.processes_per_node} = {share}: change one of them"
            )
        return self

    def fingerprint_part(self) -> dict[str, Any]:
        """The settings that decide which model comes out."""
        return self.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT)

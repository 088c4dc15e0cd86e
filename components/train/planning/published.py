"""The paper's own figures, to lay beside a plan."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """What is published of PMC-LLaMA's pre-training, and what follows from it.

    Attributes:
        documents: Articles.
        corpus_tokens: In all of them.
        context: Tokens in a window.
        epochs: Windows drawn from every article.
        batch: Windows in a step.
        gpus: A100 with 80 GB.
        micro_batch: Windows in a pass of one GPU.
        epoch_hours: On eight GPUs, from the authors' own timing table.
        peak_tflops: Of one GPU.
        parameters: Of the model.
    """

    documents: int = 4_800_000
    corpus_tokens: float = 75e9
    context: int = 512
    epochs: int = 5
    batch: int = 128
    gpus: int = 8
    micro_batch: int = 4
    epoch_hours: float = 36.0
    peak_tflops: float = 312.0
    parameters: float = 6.74e9

    @property
    def tokens(self) -> int:
        """In all windows."""
        return self.documents * self.context * self.epochs

    @property
    def steps(self) -> int:
        """Of the optimiser."""
        return self.documents * self.epochs // self.batch

    @property
    def flops(self) -> float:
        """Six for each parameter and token."""
        return 6 * self.parameters * self.tokens

    @property
    def tokens_per_second(self) -> float:
        """Of one GPU."""
        return self.tokens / self.epochs / (self.epoch_hours * 3600) / self.gpus

    @property
    def mfu(self) -> float:
        """Part of the GPUs' peak that the model's operations reach."""
        return 6 * self.parameters * self.tokens_per_second / (self.peak_tflops * 1e12)


# arXiv 2304.14454 v1, and the timing table in the authors' repository Finetune_LLAMA.
PAPER = Published()

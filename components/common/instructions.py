"""The instruction template: how a request becomes the text that a model trained on instructions goes on from.

It is Stanford Alpaca's template (github.com/tatsu-lab/stanford_alpaca), which the authors' instruction-tuned models
were trained with. Fine-tuning, evaluation and conversation all take it from here, so that a model is always asked in
the words that it has learned.
"""

from dataclasses import dataclass

DOCTOR = "If you are a doctor, please answer the medical questions based on the patient's description."
"""The authors' instruction for a consultation."""

_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
HEADINGS = ("### Instruction:", "### Input:", "### Response:")
"""A model that writes one of these has ended its answer and makes up the next request."""


@dataclass(frozen=True)
class Instruction:
    """A request: what is to be done, and what with."""

    instruction: str
    input: str = ""

    @property
    def prompt(self) -> str:
        """The text before the answer, which then starts with a space."""
        # str.format reads no braces in what is filled in.
        template = _WITH_INPUT if self.input else _WITHOUT_INPUT
        return template.format(instruction=self.instruction, input=self.input)

"""A question as the text that a model is fine-tuned on: a prompt and its answer.

MedQA's text is the authors', character for character (`Data_sample/tokenize_dataset.py` in
github.com/chaoyi-wu/Finetune_LLAMA): instruction, question and options on one line, then the right letter. What they
wrote for MedMCQA and PubMedQA is not public. MedMCQA has the same kind of question, so it gets the same text. PubMedQA
gets the closest that holds an abstract: it stands before the question, and the answer is the word that the benchmark
counts, yes, no or maybe.
"""

from dataclasses import dataclass, replace

from components.common.questions import Question

FORMAT_VERSION = 1  # raise it when a question gets another text
_CHOICE = "You are a doctor. According to the question, make a choice. Q: "
_ABSTRACT = "You are a doctor. According to the context, answer the question with yes, no or maybe. Context: "
_ANSWER = " The Answer is:"


@dataclass(frozen=True)
class Example:
    """A question's text in its parts.

    Attributes:
        before: Up to the context.
        context: What may be shortened; empty where a benchmark has none.
        after: From the context to the answer, without the space between them.
        answer: With the space before it, which belongs to its first token.
    """

    before: str
    context: str
    after: str
    answer: str

    @property
    def prompt(self) -> str:
        """What the model is given."""
        return self.before + self.context + self.after

    @property
    def text(self) -> str:
        """Prompt and answer."""
        return self.prompt + self.answer

    def without_start(self, characters: int) -> "Example":
        """The same without so many characters, at least, of the context's start: it goes on with a whole word."""
        left = self.context[characters:]
        if left and not (self.context[characters - 1].isspace() or left[0].isspace()):
            left = left.removeprefix(left.split(maxsplit=1)[0])
        return replace(self, context=left.lstrip())


def to_example(task: str, question: Question) -> Example:
    """Put a question of `pubmedqa`, `medmcqa` or `medqa` into words."""
    if task == "pubmedqa":
        after = f" Q: {question.question}{_ANSWER}"
        return Example(_ABSTRACT, question.context, after, f" {question.answer}")
    options = "".join(f" {letter}: {text}" for letter, text in question.options.items())
    return Example(f"{_CHOICE}{question.question}{options}{_ANSWER}", "", "", f" {question.answer}")

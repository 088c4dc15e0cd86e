"""A benchmark's question as text: what a model is fine-tuned on, and what it is then asked in the same words.

**Authors' form.** MedQA's text is the authors', character for character (`Data_sample/tokenize_dataset.py` in
github.com/chaoyi-wu/Finetune_LLAMA): instruction, question and options on one line, then the right letter. What they
wrote for MedMCQA and PubMedQA is not public. MedMCQA has the same kind of question, so it gets the same text. PubMedQA
gets the closest that holds an abstract: it stands before the question, and the answer is the word that the benchmark
counts, yes, no or maybe.

**Instruction form.** The question in the instruction template, as the authors' later model is asked (README.md and
`SFT/eval` in github.com/chaoyi-wu/PMC-LLaMA): `###Question: ... ###Options: A. ... B. ...`, answered by
`OPTION B IS CORRECT`, which is what their evaluation looks for. PubMedQA's form is not public: its abstract stands
before the question, and yes, no and maybe are options A, B and C.
"""

from dataclasses import dataclass, replace
from string import ascii_uppercase

from components.common.instructions import Instruction
from components.common.questions import Question

AUTHORS_VERSION = 1  # raise it when a question gets another text
INSTRUCT_VERSION = 1  # the same, of the instruction form
_CHOICE = "You are a doctor. According to the question, make a choice. Q: "
_ABSTRACT = "You are a doctor. According to the context, answer the question with yes, no or maybe. Context: "
_ANSWER = " The Answer is:"
_DIRECTLY = (
    "You're a doctor, kindly address the medical queries according to the patient's account. "
    "Answer with the best option directly."
)
_FROM_CONTEXT = (
    "You're a doctor, kindly address the medical queries according to the context. "
    "Answer with the best option directly."
)
_CONTEXT = "###Context: "


@dataclass(frozen=True)
class Example:
    """A prompt and its answer, in parts.

    Attributes:
        before: Up to the context.
        context: What may be shortened; empty where there is none.
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


def authors_example(benchmark: str, question: Question) -> Example:
    """Put a question of a benchmark, such as ``medqa``, into the form of the authors' fine-tuning."""
    if benchmark == "pubmedqa":
        after = f" Q: {question.question}{_ANSWER}"
        return Example(_ABSTRACT, question.context, after, f" {question.answer}")
    options = "".join(f" {letter}: {text}" for letter, text in question.options.items())
    return Example(f"{_CHOICE}{question.question}{options}{_ANSWER}", "", "", f" {question.answer}")


def instruct_example(benchmark: str, question: Question) -> Example:
    """Put a question of a benchmark into the instruction form; the answer names the letter of the right option."""
    lettered = letters(question)
    options = " ".join(f"{letter}. {question.options[option]}" for letter, option in lettered.items())
    asked = f"###Question: {question.question} ###Options: {options}"
    right = next(letter for letter, option in lettered.items() if option == question.answer)
    answer = f" ###Answer: OPTION {right} IS CORRECT."
    if benchmark != "pubmedqa":
        return Example(Instruction(_DIRECTLY, asked).prompt, "", "", answer)
    prompt = Instruction(_FROM_CONTEXT, f"{_CONTEXT}{question.context} {asked}").prompt
    start = prompt.index(_CONTEXT) + len(_CONTEXT)
    return Example(prompt[:start], question.context, prompt[start + len(question.context) :], answer)


def letters(question: Question) -> dict[str, str]:
    """Name each option by a letter: the key of ``options`` that each letter stands for."""
    return dict(zip(ascii_uppercase, question.options, strict=False))


def solved_example(request: Instruction, output: str) -> Example:
    """Join an instruction of a set to its answer."""
    return Example(request.prompt, "", "", f" {output}")

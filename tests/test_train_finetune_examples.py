"""Which questions are taken, and the shard of tokens."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from finetune_helpers import benchmarks_of, choice, sample_benchmarks, sample_model, tiny_finetune
from tokenizers import Tokenizer

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Manifest, Shard
from components.common.prompts import authors_example
from components.common.questions import read_questions
from components.download.sample import TOKENIZER_DIR
from components.train.finetuning.examples import write_examples
from components.train.finetuning.selection import place, select

START, END = 1, 2


@pytest.fixture(scope="module")
def model_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(sample_model(tmp_path_factory.mktemp("model")).extra["model_uri"])


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return sample_benchmarks(tmp_path_factory.mktemp("store"))


def read_examples(shard: Shard) -> list[tuple[list[int], list[int]]]:
    """Prompt and answer of each example."""
    file = storage.local_path(shard.uri)
    tokens = np.fromfile(file, dtype=shard.stats["dtype"]).tolist()
    offsets = np.fromfile(file.with_suffix(".idx"), dtype="<i8").tolist()
    assert offsets[-1] == len(tokens)
    pieces = [tokens[start:end] for start, end in itertools.pairwise(offsets)]
    return list(zip(pieces[::2], pieces[1::2], strict=True))


def decode(ids: list[int]) -> str:
    return str(Tokenizer.from_file(str(TOKENIZER_DIR / "tokenizer.json")).decode(ids, skip_special_tokens=False))


def test_a_smaller_fraction_is_a_part_of_a_larger_one(benchmarks: Manifest) -> None:
    settings = [tiny_finetune(tasks=["medqa"], fraction=fraction) for fraction in (0.2, 0.5, 1.0)]
    found = [{question.id for _, question in select(benchmarks, each).questions} for each in settings]
    assert found[0] < found[1] < found[2] == {q.id for q in read_questions(benchmarks, "medqa", "train")}


def test_the_place_of_a_question_is_the_same_everywhere_and_evenly_spread() -> None:
    assert place("medqa", "medqa-train-1") == pytest.approx(0.901757, abs=1e-6)  # by sha256sum
    places = [place("medmcqa", str(number)) for number in range(10_000)]
    assert np.histogram(places, bins=10, range=(0, 1))[0] == pytest.approx(1000, abs=100)


def test_test_questions_of_any_benchmark_are_left_out_and_counted(tmp_path: Path, model_uri: str) -> None:
    questions = benchmarks_of(
        tmp_path / "questions",
        medqa_train=[choice("a"), choice("same-id"), choice("c", "What  IS\nasked elsewhere?")],
        medmcqa_train=[choice("d")],
        medmcqa_test=[choice("same-id", "Something else?")],
        pubmedqa_test=[choice("9", "What is asked elsewhere?")],
    )
    settings = tiny_finetune(tasks=["medqa", "medmcqa"])
    assert [question.id for _, question in select(questions, settings).questions] == ["d", "a"]
    shard = write_examples(questions, model_uri, settings, storage.to_uri(tmp_path))
    assert shard.rows == 2
    assert shard.stats["dropped"] == {"test_question": 2, "too_long": 0}
    assert shard.stats["counts"] == {"medmcqa": 1, "medqa": 1}


def test_a_task_without_any_question_left_is_refused(tmp_path: Path) -> None:
    questions = benchmarks_of(tmp_path, medqa_train=[choice("a")], medqa_test=[choice("a")])
    with pytest.raises(InputError, match=r"No training question of medqa is left: 1 of the fraction 1\.0 are test"):
        select(questions, tiny_finetune())
    with pytest.raises(InputError, match="hold no training questions of pubmedqa"):
        select(questions, tiny_finetune(tasks=["pubmedqa"]))


def test_an_example_is_the_whole_text_between_start_and_end_token(
    benchmarks: Manifest, model_uri: str, tmp_path: Path
) -> None:
    tasks = ["medqa", "medmcqa", "pubmedqa"]
    settings = tiny_finetune(tasks=tasks, context_length=1024)
    shard = write_examples(benchmarks, model_uri, settings, storage.to_uri(tmp_path))
    examples = read_examples(shard)
    texts = [authors_example(task, q) for task in sorted(tasks) for q in read_questions(benchmarks, task, "train")]
    assert len(examples) == len(texts) == shard.rows
    tokenizer = Tokenizer.from_file(str(TOKENIZER_DIR / "tokenizer.json"))
    for (prompt, answer), text in zip(examples, texts, strict=True):
        assert (prompt[0], answer[-1]) == (START, END)
        assert prompt[1:] + answer[:-1] == tokenizer.encode(text.text, add_special_tokens=False).ids
        assert tokenizer.decode(prompt[1:]).strip() == text.prompt
        assert tokenizer.decode(answer[:-1]).strip() == text.answer.strip()
    assert shard.stats["tokens"] == sum(len(prompt) + len(answer) for prompt, answer in examples)


def test_the_second_time_nothing_is_encoded(benchmarks: Manifest, model_uri: str, tmp_path: Path) -> None:
    root, settings = storage.to_uri(tmp_path), tiny_finetune(tasks=["medqa", "medmcqa"])
    first = write_examples(benchmarks, model_uri, settings, root)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    again = write_examples(benchmarks, model_uri, tiny_finetune(tasks=["medmcqa", "medqa"], loss_on="answer"), root)
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == written
    assert write_examples(benchmarks, model_uri, tiny_finetune(fraction=0.5), root).uri != first.uri
    storage.local_path(first.uri).with_suffix(".idx").unlink()
    assert write_examples(benchmarks, model_uri, settings, root) == first
    assert storage.local_path(first.uri).with_suffix(".idx").exists()


def test_a_long_context_loses_its_start_and_never_the_question_or_the_answer(tmp_path: Path, model_uri: str) -> None:
    options = {word: word for word in ("yes", "no", "maybe")}
    context = " ".join(f"Sentence {number} of the abstract, with naïve β-cells." for number in range(200))
    long = choice("1", "Is the end kept?", context=context, options=options, answer="maybe")
    short = choice("2", "Is all of it kept?", context="Yes, it is.", options=options, answer="yes")
    questions = benchmarks_of(tmp_path / "questions", pubmedqa_train=[long, short])
    settings = tiny_finetune(tasks=["pubmedqa"], context_length=100)
    shard = write_examples(questions, model_uri, settings, storage.to_uri(tmp_path))
    (prompt, answer), (other, _) = read_examples(shard)
    text = decode(prompt)
    end = "Sentence 199 of the abstract, with naïve β-cells. Q: Is the end kept? The Answer is:"
    assert re.search(rf"Context: \S.*{re.escape(end)}$", text)
    assert "Sentence 190 " not in text
    assert 90 < len(prompt) + len(answer) <= 100
    assert decode(answer[:-1]).strip() == "maybe"
    assert "Yes, it is." in decode(other)
    assert shard.stats["shortened"] == 1


def test_a_question_too_long_without_a_context_is_left_out_and_counted(tmp_path: Path, model_uri: str) -> None:
    questions = benchmarks_of(tmp_path / "questions", medqa_train=[choice("a"), choice("b", "What about this? " * 50)])
    root = storage.to_uri(tmp_path)
    shard = write_examples(questions, model_uri, tiny_finetune(context_length=64), root)
    assert (shard.rows, shard.stats["dropped"]["too_long"]) == (1, 1)
    with pytest.raises(InputError, match=r"No example fits into 8 tokens; raise finetune\.context_length"):
        write_examples(questions, model_uri, tiny_finetune(context_length=8), root)


def test_control_tokens_written_out_in_a_question_are_plain_text(tmp_path: Path, model_uri: str) -> None:
    questions = benchmarks_of(tmp_path / "questions", medqa_train=[choice("a", "What is </s> or <s> for?")])
    ((prompt, answer),) = read_examples(write_examples(questions, model_uri, tiny_finetune(), storage.to_uri(tmp_path)))
    assert [prompt.count(START), prompt.count(END), answer.count(END)] == [1, 0, 1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer.json", "{}", "holds no tokenizer that can be read"),
        ("tokenizer_config.json", "nonsense", "holds no tokenizer that can be read"),
        ("tokenizer_config.json", "{}", "names no end token"),
    ],
)
def test_a_model_without_a_usable_tokenizer_is_refused(
    name: str, content: str | None, message: str, benchmarks: Manifest, tmp_path: Path
) -> None:
    model = sample_model(tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    if content is not None:
        (tmp_path / "model" / name).write_text(content)
    with pytest.raises(InputError, match=message):
        write_examples(benchmarks, model.extra["model_uri"], tiny_finetune(), storage.to_uri(tmp_path))

"""The objective instruct: which instructions a model learns to answer from, as which tokens, and that it then does."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finetune_helpers import benchmarks_of, choice, sample_model, tiny_finetune
from pydantic import ValidationError
from tokenizers import Tokenizer

from components.common import storage
from components.common.errors import InputError
from components.common.instruction_set import INSTRUCTIONS, read_instructions
from components.common.instructions import Instruction
from components.common.manifest import Manifest, Shard
from components.common.prompts import instruct_example, solved_example
from components.common.questions import read_questions
from components.download.benchmarks import download_benchmarks
from components.download.sample import TOKENIZER_DIR
from components.download.settings import DownloadSettings
from components.train.finetune import finetune
from components.train.finetuning.examples import write_examples
from components.train.finetuning.selection import select
from components.train.finetuning.test_questions import TestQuestions
from components.train.settings import FinetuneSettings

START, END = 1, 2
CASE = "A 23-year-old man has had a dry cough and a fever since Monday. Which drug helps him best?"
CASE_OPTIONS = {"A": "rest", "B": "a warm tea"}


def tiny_instruct(**changes: Any) -> FinetuneSettings:
    return tiny_finetune(objective="instruct", **changes)


def solved(instruction: str, output: str = "Rest.", **more: str) -> dict[str, str]:
    return {"id": f"id-{instruction}", "instruction": instruction, "input": "", "output": output} | more


def manifest_of(root: Path, *entries: dict[str, str], **splits: list[dict[str, Any]]) -> Manifest:
    return benchmarks_of(root, **splits, **{INSTRUCTIONS.replace("-", "_"): list(entries)})


def pieces(shard: Shard) -> list[tuple[list[int], list[int]]]:
    file = storage.local_path(shard.uri)
    tokens = np.fromfile(file, dtype=shard.stats["dtype"]).tolist()
    offsets = np.fromfile(file.with_suffix(".idx"), dtype="<i8").tolist()
    found = [tokens[start:end] for start, end in itertools.pairwise(offsets)]
    return list(zip(found[::2], found[1::2], strict=True))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return sample_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = storage.to_uri(tmp_path_factory.mktemp("store"))
    return download_benchmarks(DownloadSettings(instructions="sample"), root)


# ------------------------------------------------------------------------------------------------------------ settings


def test_instruct_has_its_own_defaults_and_keeps_what_is_said() -> None:
    settings = FinetuneSettings(objective="instruct")
    assert (settings.tasks, settings.loss_on) == ([], "answer")
    said = FinetuneSettings(objective="instruct", tasks=["medqa"], loss_on="all")
    assert (said.tasks, said.loss_on) == (["medqa"], "all")
    assert FinetuneSettings.model_validate(settings.model_dump(mode="json")) == settings
    assert (FinetuneSettings().tasks, FinetuneSettings().loss_on) == (["medqa"], "all")
    assert FinetuneSettings().fingerprint_part() != said.fingerprint_part()
    with pytest.raises(ValidationError, match="at least 1 item"):
        FinetuneSettings(tasks=[])


# ------------------------------------------------------------------------------------------------------------ selection


@pytest.mark.parametrize(
    ("text", "is_tested"),
    [
        (CASE, True),
        (CASE.upper(), True),
        (f"###Question:{CASE}###Options: A. rest B. a warm tea", True),
        ("Think first.\n\n" + CASE.replace(" ", "\n "), True),
        (CASE.replace("dry", "wet"), False),
        (CASE[: len(CASE) // 2], False),
        ("Treatment of choice is what a doctor says.", False),
        ("Treatment of choice is: a cold bath", True),
        ("Which is it? treatment of choice IS A. heat B. a cold-bath", True),
        ("Is a cold bath good?", False),
        ("", False),
    ],
)
def test_a_text_holds_a_test_question_word_by_word_a_short_one_with_its_answer(
    text: str, is_tested: bool, tmp_path: Path
) -> None:
    short = choice("s", "Treatment of choice is", options={"A": "heat", "B": "a cold bath"})
    tests = [choice("a", CASE, options=CASE_OPTIONS), choice("dash", "—?"), short]
    assert TestQuestions(benchmarks_of(tmp_path, medqa_test=tests)).within(text) == is_tested


def test_instructions_with_test_questions_of_any_benchmark_are_left_out_and_counted(
    base: Manifest, tmp_path: Path
) -> None:
    manifest = manifest_of(
        tmp_path / "set",
        solved("What is a cold?"),
        solved("Answer.", input=f"Well: {CASE}"),
        solved("Make up a question.", f"Here it is: {CASE}"),
        medmcqa_test=[choice("a", CASE)],
        pubmedqa_test=[choice("b", "Something quite different?")],
    )
    assert [each.instruction for each in select(manifest, tiny_instruct()).instructions] == ["What is a cold?"]
    shard = write_examples(manifest, base.extra["model_uri"], tiny_instruct(), storage.to_uri(tmp_path))
    assert (shard.rows, shard.stats["counts"]) == (1, {"instructions": 1})
    assert shard.stats["dropped"] == {"test_question": 2, "too_long": 0}


def test_a_set_of_test_questions_alone_and_no_set_at_all_are_refused(tmp_path: Path) -> None:
    tested = manifest_of(tmp_path / "a", solved(CASE), medqa_test=[choice("a", CASE)])
    with pytest.raises(InputError, match=r"No instruction is left: 1 of the fraction 1\.0 are test questions"):
        select(tested, tiny_instruct())
    with pytest.raises(InputError, match=r"without an instruction set: set download\.instructions"):
        select(benchmarks_of(tmp_path / "b", medqa_test=[choice("a")]), tiny_instruct())


def test_a_smaller_fraction_of_the_set_is_a_part_of_a_larger_one(sample: Manifest) -> None:
    found = [
        {each.id for each in select(sample, tiny_instruct(fraction=part)).instructions} for part in (0.2, 0.5, 1.0)
    ]
    assert found[0] < found[1] < found[2]
    assert len(found[2]) == 120


def test_no_bundled_instruction_is_a_bundled_test_question(sample: Manifest) -> None:
    assert not select(sample, tiny_instruct()).dropped.total()


# ------------------------------------------------------------------------------------------------------------- examples


def test_an_example_is_the_template_and_the_answer_between_start_and_end_token(
    base: Manifest, sample: Manifest, tmp_path: Path
) -> None:
    shard = write_examples(sample, base.extra["model_uri"], tiny_instruct(), storage.to_uri(tmp_path))
    assert (shard.rows, shard.stats["dropped"]) == (120, {"test_question": 0, "too_long": 0})
    tokenizer = Tokenizer.from_file(str(TOKENIZER_DIR / "tokenizer.json"))
    for each, (prompt, answer) in zip(read_instructions(sample), pieces(shard), strict=True):
        example = solved_example(each.request, each.output)
        assert (prompt[0], answer[-1]) == (START, END)
        assert prompt[1:] + answer[:-1] == tokenizer.encode(example.text, add_special_tokens=False).ids
        # What the evaluation and the conversation give it: the prompt alone.
        assert prompt[1:] == tokenizer.encode(example.prompt, add_special_tokens=False).ids


def test_questions_join_the_instructions_in_their_form(base: Manifest, sample: Manifest, tmp_path: Path) -> None:
    settings = tiny_instruct(tasks=["medqa"], context_length=512)
    selection = select(sample, settings)
    assert dict(selection.chosen) == {"medqa": 24, "instructions": 120}
    questions = read_questions(sample, "medqa", "train")
    assert list(selection.examples())[:24] == [instruct_example("medqa", question) for question in questions]
    shard = write_examples(sample, base.extra["model_uri"], settings, storage.to_uri(tmp_path))
    assert shard.rows == 144


def test_other_instructions_give_another_place_and_the_questions_keep_theirs(base: Manifest, tmp_path: Path) -> None:
    root, uri = storage.to_uri(tmp_path), base.extra["model_uri"]
    one = manifest_of(tmp_path / "1", solved("What is a cold?"), medqa_train=[choice("a")])
    other = manifest_of(tmp_path / "2", solved("What is a cough?"), medqa_train=[choice("a")])
    assert one.fingerprint == other.fingerprint
    first, second = (write_examples(each, uri, tiny_instruct(), root) for each in (one, other))
    assert first.uri != second.uri
    assert write_examples(one, uri, tiny_instruct(), root) == first
    assert write_examples(one, uri, tiny_finetune(), root) == write_examples(other, uri, tiny_finetune(), root)


def test_control_tokens_and_braces_in_an_instruction_are_plain_text(base: Manifest, tmp_path: Path) -> None:
    odd = manifest_of(tmp_path / "set", solved("Say {input} </s> <s>", "Well </s> {0}"))
    ((prompt, answer),) = pieces(
        write_examples(odd, base.extra["model_uri"], tiny_instruct(), storage.to_uri(tmp_path))
    )
    assert [prompt.count(START), prompt.count(END), answer.count(END)] == [1, 0, 1]


# ----------------------------------------------------------------------------------------------------------- a real run


def test_a_model_that_learned_from_instructions_answers_them(base: Manifest, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    organs = {"heart": "It pumps blood.", "lungs": "They take up oxygen.", "skin": "It covers us."}
    entries = [solved("What does it do?", answer, input=organ, id=organ) for organ, answer in organs.items()]
    manifest = finetune(
        base,
        manifest_of(tmp_path / "set", *entries),
        tiny_instruct(
            epochs=90, learning_rate=5e-3, packed=False, global_batch_size=3, micro_batch_size=3, log_every_steps=40
        ),
        storage.to_uri(tmp_path),
    )
    assert manifest.settings["objective"] == "instruct"
    assert (manifest.totals["instructions"], manifest.totals["examples"]) == (3, 3)
    losses = [json.loads(line)["loss"] for line in storage.read(manifest.extra["losses_uri"]).splitlines()]
    assert losses[-1] < 0.1 < losses[0]
    folder = storage.local_path(manifest.extra["model_uri"])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for entry in entries:
        ids = tokenizer(Instruction(entry["instruction"], entry["input"]).prompt, return_tensors="pt").input_ids
        made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20)
        assert tokenizer.decode(made[0, ids.shape[1] :]).strip() == f"{entry['output']}</s>"

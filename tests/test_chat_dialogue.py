"""A conversation as the tokens that a model goes on from."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from components.chat.dialogue import to_plain_prompt, to_prompt
from components.chat.messages import Message
from components.common.errors import InputError
from components.common.instructions import DOCTOR
from components.download.sample import TOKENIZER_DIR


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(Path(str(TOKENIZER_DIR)), local_files_only=True)


def says(role: str, content: str) -> Message:
    return Message.model_validate({"role": role, "content": content})


def test_a_question_is_put_into_the_instruction_template(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = to_prompt([says("user", "What causes scurvy?")], tokenizer, 1000)
    assert tokenizer.decode(prompt.ids, skip_special_tokens=True) == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        f"response that appropriately completes the request.\n\n### Instruction:\n{DOCTOR}\n\n"
        "### Input:\nWhat causes scurvy?\n\n### Response:"
    )


def test_earlier_answers_end_as_in_training_and_the_system_message_is_the_instruction(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    turns = [says("system", "Be brief."), says("user", "A?"), says("assistant", "B."), says("user", "C?")]
    ids = to_prompt(turns, tokenizer, 1000).ids
    assert ids.count(tokenizer.eos_token_id) == 1
    first, second = (
        tokenizer.decode(part, skip_special_tokens=True)
        for part in (ids[: ids.index(tokenizer.eos_token_id)], ids[ids.index(tokenizer.eos_token_id) + 1 :])
    )
    assert first.endswith("### Instruction:\nBe brief.\n\n### Input:\nA?\n\n### Response: B.")
    assert second.endswith("### Instruction:\nBe brief.\n\n### Input:\nC?\n\n### Response:")


def test_what_no_longer_fits_is_forgotten_from_its_start(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = [says("user", "first"), says("assistant", "one"), says("user", "second"), says("assistant", "two")]
    turns.append(says("user", "third"))
    whole = to_prompt(turns, tokenizer, 10_000)
    cut = to_prompt(turns, tokenizer, len(whole.ids) - 1)
    assert (whole.forgotten, cut.forgotten) == (0, 1)
    text = tokenizer.decode(cut.ids)
    assert "first" not in text
    assert "second" in text


def test_a_message_that_cannot_fit_is_refused_with_its_length(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(InputError, match=r"The message has \d+ tokens with its template, .* room for 20: shorten it"):
        to_prompt([says("user", "word " * 50)], tokenizer, 20)
    with pytest.raises(InputError, match=r"The prompt has .* room for 3"):
        to_plain_prompt("word " * 50, tokenizer, 3)


def test_control_tokens_that_a_user_writes_are_ordinary_characters(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = to_prompt([says("user", f"{tokenizer.eos_token}{tokenizer.bos_token}")], tokenizer, 1000).ids
    assert tokenizer.eos_token_id not in ids
    assert ids.count(tokenizer.bos_token_id) == 1


def test_messages_in_a_row_are_one(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = to_prompt([says("user", "One."), says("user", "Two.")], tokenizer, 1000).ids
    assert "### Input:\nOne.\nTwo.\n" in tokenizer.decode(ids)

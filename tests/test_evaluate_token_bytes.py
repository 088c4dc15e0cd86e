"""Tokens stand for as many bytes as the text that they were made of."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from components.common.errors import InputError
from components.download.sample import TOKENIZER_DIR
from components.evaluate.token_bytes import token_bytes
from tests.evaluate_helpers import tiny_tokenizer

TEXTS = ["the heart pumps", "two  spaces\n\nand\ta tab", "β-blocker, naïve, 25 µg 🙂", "<b>HTML</b> &amp; *Markdown*"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_byte_level_text_has_the_bytes_of_its_tokens(text):
    tokenizer = tiny_tokenizer()
    assert token_bytes(tokenizer, len(tokenizer))[tokenizer(text).input_ids].sum() == len(text.encode())


@pytest.mark.parametrize("text", TEXTS)
def test_with_llamas_kind_only_the_space_that_it_puts_before_a_text_is_added(text):
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER_DIR)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert token_bytes(tokenizer, len(tokenizer))[ids].sum() == len(text.encode()) + 1


def test_special_tokens_and_rows_without_a_token_stand_for_nothing():
    tokenizer = tiny_tokenizer()
    sizes = token_bytes(tokenizer, len(tokenizer) + 7)
    assert sizes[[tokenizer.bos_token_id, tokenizer.eos_token_id]].sum() == 0
    assert sizes[-7:].sum() == 0


def test_a_tokenizer_of_another_kind_is_refused():
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(InputError, match="neither byte-level nor of LLaMA's kind"):
        token_bytes(PreTrainedTokenizerFast(tokenizer_object=backend), 3)

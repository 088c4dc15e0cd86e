"""An answer, token by token."""

import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest
from chat_helpers import tiny_model
from hypothesis import given
from hypothesis import strategies as st

from components.chat.generation import Generator, until_stop
from components.chat.messages import Sampling
from components.chat.served_model import ServedModel


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return tiny_model(tmp_path_factory.mktemp("model"))


def sampling(**values: object) -> Sampling:
    return Sampling.model_validate({"max_tokens": 12, **values})


def test_the_pieces_together_are_what_transformers_generates(model: ServedModel) -> None:
    ids = model.tokenizer("The patient has")["input_ids"]
    answer = Generator(model).answer(ids, sampling(temperature=0, repetition_penalty=1.0), templated=False)
    text = "".join(answer)
    import torch

    expected = model.network.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :]
    assert text == model.tokenizer.decode(expected, skip_special_tokens=True)
    assert (answer.prompt_tokens, answer.tokens, answer.finish_reason) == (len(ids), 12, "length")


def test_a_seed_gives_the_same_answer_and_none_another(model: ServedModel) -> None:
    generator, ids = Generator(model), model.tokenizer("Fever")["input_ids"]
    same = {"".join(generator.answer(ids, sampling(seed=7, temperature=1.5))) for _ in range(2)}
    other = {"".join(generator.answer(ids, sampling(temperature=1.5))) for _ in range(3)}
    assert len(same) == 1
    assert len(other) == 3


class Late(SimpleQueue):
    """Gives nothing before all is there, as to a reader that is slower than the model."""

    def __init__(self) -> None:
        self.whole = threading.Event()

    def put(self, piece: object) -> None:  # type: ignore[override]
        super().put(piece)
        if piece is None:
            self.whole.set()

    def get(self) -> object:  # type: ignore[override]
        assert self.whole.wait(30)
        return super().get()


def test_a_stop_that_is_seen_when_the_model_has_made_its_last_token_counts_as_one(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.chat.generation.SimpleQueue", Late)
    generator, ids = Generator(model), model.tokenizer("The patient has")["input_ids"]
    text = "".join(generator.answer(ids, sampling(temperature=0), templated=False))
    answer = generator.answer(ids, sampling(temperature=0, stop=text[2:]), templated=False)
    assert ("".join(answer), answer.finish_reason) == (text[:2], "stop")


def test_whoever_leaves_early_stops_the_model_and_the_next_gets_its_turn(model: ServedModel) -> None:
    generator, ids = Generator(model), model.tokenizer("Fever")["input_ids"]
    answer = generator.answer(ids, sampling(max_tokens=900, temperature=0))
    pieces = iter(answer)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert answer.tokens < 900
    done = threading.Event()
    thread = threading.Thread(target=lambda: ("".join(generator.answer(ids, sampling())), done.set()))
    thread.start()
    thread.join(30)
    assert done.is_set()


def test_an_error_of_the_model_reaches_the_one_who_asked(model: ServedModel) -> None:
    with pytest.raises(IndexError):
        "".join(Generator(model).answer([10_000_000], sampling()))


def parts(text: str, sizes: list[int]) -> Iterator[str]:
    while text:
        size = sizes.pop(0) if sizes else 3
        yield text[:size]
        text = text[size:]


@given(st.text("ab#\n "), st.lists(st.integers(1, 5)), st.lists(st.text("ab#\n", min_size=1), max_size=3))
def test_a_text_ends_at_its_first_stop_however_it_comes(text: str, sizes: list[int], stops: list[str]) -> None:
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    # A stop is found when it is whole, so of two that overlap the one that ends first wins.
    ends = {text[: text.find(stop)] for stop in stops if stop in text}
    shown = "".join(until_stop(parts(text, sizes), stops, lambda: None))
    assert shown in ends if places else shown == text


def test_a_heading_of_the_template_ends_an_answer_and_space_around_it_is_left_out() -> None:
    found = threading.Event()
    pieces = [" Vitamin", " C is", " missing.", "\n\n##", "# Instruc", "tion:\nnext"]
    shown = list(until_stop(iter(pieces), ["### Instruction:"], found.set, strip=True))
    assert shown == ["Vitamin", " C is", " missing."]
    assert found.is_set()

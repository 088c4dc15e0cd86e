"""The documents of several shards under one numbering."""

import resource
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from train_helpers import documents, open_corpus, write_corpus

from components.common import storage
from components.common.errors import InputError
from components.train.data.corpus import Corpus

TEXTS = documents(30, seed=2)


def test_slices_are_those_of_the_documents_in_whatever_shard(tmp_path: Path) -> None:
    corpus = open_corpus(write_corpus(f"file://{tmp_path}", [TEXTS[:1], TEXTS[1:20], TEXTS[20:]]))
    wanted = np.array([29, 0, 1, 20, 19, 0])
    stops = corpus.lengths[wanted]
    slices = corpus.slices(wanted, np.full(6, 2), stops)
    assert [piece.tolist() for piece in slices] == [TEXTS[document][2:].tolist() for document in wanted]
    assert {piece.dtype for piece in slices} == {np.dtype(np.uint16)}
    assert len(corpus) == 30
    assert corpus.shard_documents.tolist() == [1, 19, 10]
    assert corpus.shards_of(wanted).tolist() == [2, 0, 1, 2, 1, 0]


def test_ids_of_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    np.array([70_000, 128_255, 3], dtype="<u4").tofile(tmp_path / "a.bin")
    np.array([0, 1, 3], dtype="<i8").tofile(tmp_path / "a.idx")
    corpus = Corpus([tmp_path / "a.bin"], "uint32")
    assert corpus.slices(np.array([1, 0]), np.zeros(2, int), np.array([2, 1]))[0].tolist() == [128_255, 3]


@pytest.fixture
def _few_open_files() -> Iterator[None]:
    """A process may open a hundred files more: fewer than there are shards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len([*Path("/dev/fd").iterdir()]) + 100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("_few_open_files")
def test_more_shards_than_open_files_are_mapped(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.bin" for number in range(400)]
    for number, file in enumerate(files):
        np.array([number, number + 1], dtype="<u2").tofile(file)
        np.array([0, 2], dtype="<i8").tofile(file.with_suffix(".idx"))
    everything = np.arange(400)
    slices = Corpus(files, "uint16").slices(everything, np.zeros(400, int), np.full(400, 2))
    assert np.array_equal(slices, np.stack([everything, everything + 1], axis=1))


class Recorded:
    """Arrivals that note what is asked; one shard cannot be used."""

    def __init__(self, bad: Path | None = None) -> None:
        self.expected: list[Path] = []
        self.waited_for: list[Path] = []
        self.bad = bad

    def expect(self, files: Sequence[Path]) -> bool:
        self.expected += files
        return True

    def wait_for(self, files: Sequence[Path]) -> None:
        self.waited_for += files
        if self.bad is not None:
            raise InputError(f"{self.bad.name} is corrupt")


def shards(tmp_path: Path, arrivals: Recorded) -> tuple[Corpus, list[Path]]:
    manifest = write_corpus(f"file://{tmp_path}", [TEXTS[:10], TEXTS[10:20], TEXTS[20:]])
    files = [storage.local_path(shard.uri) for shard in manifest.shards]
    return Corpus(files, "uint16", arrivals), files


def test_tokens_are_waited_for_when_they_are_first_read_and_not_before(tmp_path: Path) -> None:
    arrivals = Recorded()
    corpus, files = shards(tmp_path, arrivals)
    assert corpus.lengths.tolist() == [len(text) for text in TEXTS]
    assert arrivals.waited_for == []
    for document in (25, 3, 25):
        corpus.slices(np.array([document]), np.array([0]), np.array([1]))
    assert arrivals.waited_for == [files[2], files[0]]


def test_each_shard_is_expected_once(tmp_path: Path) -> None:
    arrivals = Recorded()
    corpus, files = shards(tmp_path, arrivals)
    assert corpus.expect(np.array([2, 2, 0]))
    assert not corpus.expect(np.array([0, 2]))
    assert corpus.expect(np.array([0, 1, 2]))
    assert arrivals.expected == [files[0], files[2], files[1]]
    assert not open_corpus(write_corpus(f"file://{tmp_path}", [TEXTS])).expect(np.array([0])), "all are here"


def test_a_shard_that_cannot_be_used_ends_the_reading_of_others_too(tmp_path: Path) -> None:
    arrivals = Recorded()
    corpus, files = shards(tmp_path, arrivals)
    corpus.slices(np.array([3]), np.array([0]), np.array([1]))
    arrivals.bad = files[2]
    with pytest.raises(InputError, match=r"train-00002\.bin is corrupt"):
        corpus.slices(np.array([3]), np.array([0]), np.array([1]))

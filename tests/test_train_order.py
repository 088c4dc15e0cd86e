"""The order of the documents: shuffled per epoch, in the first within blocks of shards; its random numbers."""

import numpy as np

from components.train.data.order import DocumentOrder, document_order, mix, random_bits

SIZES = np.array([3, 5, 2, 7, 1, 4, 6])
SHARD_OF = np.repeat(np.arange(7), SIZES)


def test_with_no_more_shards_than_a_block_the_first_epoch_is_the_plain_shuffle() -> None:
    for most in (None, 7, 64):
        order = DocumentOrder(3, SIZES, most)
        assert order.of(0).tolist() == document_order(3, 0, 28).tolist()
        assert len(order.blocks) == 1


def test_the_first_epoch_takes_one_block_of_shards_after_the_other() -> None:
    order = DocumentOrder(3, SIZES, 2)
    assert sorted(np.concatenate(order.blocks).tolist()) == list(range(7))
    assert [len(block) for block in order.blocks] == [2, 2, 2, 1]
    first = order.of(0)
    assert sorted(first.tolist()) == list(range(28))
    for start, block in zip(order.block_starts(), order.blocks, strict=True):
        inside = first[start : start + SIZES[block].sum()]
        assert set(SHARD_OF[inside]) == set(block.tolist())
    assert first.tolist() != sorted(first.tolist(), key=lambda document: SHARD_OF[document])  # not shard by shard


def test_blocks_are_drawn_at_random_by_the_seed() -> None:
    drawn = {tuple(map(tuple, DocumentOrder(seed, SIZES, 2).blocks)) for seed in range(10)}
    assert len(drawn) > 5
    assert len({tuple(DocumentOrder(5, SIZES, 2).of(0)) for _ in range(3)}) == 1


def test_later_epochs_shuffle_all_shards() -> None:
    assert DocumentOrder(3, SIZES, 2).of(1).tolist() == document_order(3, 1, 28).tolist()


def test_what_is_needed_is_the_whole_block_in_the_first_epoch_and_the_shards_themselves_later() -> None:
    order = DocumentOrder(3, SIZES, 2)
    shard = order.blocks[1][:1]
    assert sorted(order.shards_needed(0, shard)) == sorted(order.blocks[1])
    assert order.shards_needed(1, np.array([4, 4, 2])).tolist() == [2, 4]


def test_random_bits_never_change() -> None:
    """A run that resumes under another version must draw the same windows."""
    pinned = ["12588d809dce88a7", "dd034ea7d44e8739", "5b70c9b40c7440b6"]
    assert [f"{bits:016x}" for bits in random_bits(1, 2, 3, np.arange(3, dtype=np.uint64))] == pinned


def test_splitmix64_gives_its_published_sequence() -> None:
    """The first outputs for state 1234567 of the reference implementation (prng.di.unimi.it/splitmix64.c)."""
    gamma = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + i * gamma) % 2**64 for i in range(3)], dtype=np.uint64)
    assert mix(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]

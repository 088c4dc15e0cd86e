"""Opening what a job trains on: by its settings, from disk and from S3, with the same errors in every process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from train_helpers import CONTEXT, documents, make_job, open_corpus, tiny_settings, token_shard, write_corpus

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Manifest
from components.train.data.mixed import MixedSampler
from components.train.data.open import first_needed, open_sampler
from components.train.data.order import DocumentOrder
from components.train.data.packed import PackedSampler
from components.train.data.windows import WindowSampler
from components.train.distributed import Layout
from components.train.launching.job import TokenShard, TokenSource, TrainJob
from components.train.launching.process import end_with
from components.train.settings import TrainSettings
from tests.fault_server import FaultServer
from tests.ports import free_ports

TEXTS = documents(60)
BASE = Manifest(
    kind="model", fingerprint="b0", inputs={}, settings={}, shards=[], totals={}, extra={"model_uri": "file:///base"}
)
MIXTURE: dict[str, Any] = {"sampling": "mixed", "mixture": {"corpus": 1, "file:///other": 1}}


@pytest.fixture
def corpus(tmp_path: Path) -> Manifest:
    return write_corpus(f"file://{tmp_path}/corpus", [TEXTS[number : number + 10] for number in range(0, 60, 10)])


def job(corpus: Manifest, settings: TrainSettings, tmp_path: Path) -> TrainJob:
    return make_job(corpus, BASE, settings, tmp_path / "run")


def test_the_settings_choose_the_sampler(corpus: Manifest, tmp_path: Path, layout: Layout) -> None:
    kinds = [("window", WindowSampler), ("packed", PackedSampler)]
    for sampling, kind in kinds:
        sampler = open_sampler(job(corpus, tiny_settings(sampling=sampling), tmp_path), layout)
        assert isinstance(sampler, kind)
        assert sampler.draw(0, np.arange(3), CONTEXT).tokens.shape == (3, CONTEXT)
    mixed = job(corpus, tiny_settings(**MIXTURE), tmp_path)
    other = write_corpus(f"file://{tmp_path}/other", [documents(9, seed=8)])
    sources = [*mixed.sources, TokenSource(name="o", weight=0.5, shards=[token_shard(other.shards[0])])]
    sampler = open_sampler(mixed.model_copy(update={"sources": sources}), layout)
    assert isinstance(sampler, MixedSampler)
    assert sampler.windows_per_epoch == 90
    assert sampler.draw(0, np.arange(90), CONTEXT).tokens.shape == (90, CONTEXT)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """A store elsewhere that serves what is below `tmp_path`, and can be told to misbehave."""
    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with FaultServer(tmp_path, bucket="tokens") as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


def elsewhere(corpus: Manifest, server: FaultServer) -> Manifest:
    shards = [
        shard.model_copy(update={"uri": shard.uri.replace(f"file://{server.folder}", "s3://tokens")})
        for shard in corpus.shards
    ]
    return corpus.model_copy(update={"shards": shards})


def test_windows_are_the_same_from_a_store_elsewhere(
    corpus: Manifest, tmp_path: Path, layout: Layout, server: FaultServer
) -> None:
    here = open_sampler(job(corpus, tiny_settings(), tmp_path / "a"), layout)
    there = open_sampler(job(elsewhere(corpus, server), tiny_settings(), tmp_path / "b"), layout)
    everything = np.arange(60)
    assert np.array_equal(here.draw(1, everything, CONTEXT).tokens, there.draw(1, everything, CONTEXT).tokens)
    assert len(list((tmp_path / "b/run/scratch/corpus").glob("*.bin"))) == 6


def test_the_first_block_is_trained_on_while_the_last_is_still_coming(
    corpus: Manifest, tmp_path: Path, layout: Layout, server: FaultServer
) -> None:
    settings = tiny_settings(first_epoch_shards=2)
    last = [corpus.shards[shard].name for shard in DocumentOrder(settings.seed, np.full(6, 10), 2).blocks[-1]]
    server.fault(rf"({'|'.join(last)})\.bin$", "late", seconds=1.0)
    sampler = open_sampler(job(elsewhere(corpus, server), settings, tmp_path), layout)
    here = tmp_path / "run/scratch/corpus"
    assert sampler.draw(0, np.arange(20), CONTEXT).tokens.shape == (20, CONTEXT)
    assert len(list(here.glob("*.idx"))) == 6
    assert len(list(here.glob("*.bin"))) <= 4
    sampler.draw(0, np.arange(40, 60), CONTEXT)
    assert len(list(here.glob("*.bin"))) == 6


def test_steps_that_first_touch_a_block_wait_for_all_and_others_do_not(
    corpus: Manifest, tmp_path: Path, layout: Layout
) -> None:
    settings = tiny_settings(first_epoch_shards=2)  # three blocks of 20 documents
    sampler = open_sampler(job(corpus, settings, tmp_path), layout)
    waits = [sampler.extent(0, first, first + 5).waits for first in range(0, 60, 5)]
    assert waits == [True, False, False, False] * 3
    assert not any(sampler.extent(1, first, first + 5).waits for first in range(0, 60, 5))


def test_a_run_that_resumes_waits_for_what_it_touches(corpus: Manifest, tmp_path: Path, layout: Layout) -> None:
    sampler = open_sampler(job(corpus, tiny_settings(first_epoch_shards=2), tmp_path), layout)
    waits = [sampler.extent(2, first, first + 5).waits for first in range(0, 60, 5)]
    assert waits[0]
    assert not any(waits[8:])


def test_a_corrupt_shard_is_not_trained_on_and_ends_the_run(corpus: Manifest, tmp_path: Path, layout: Layout) -> None:
    settings = tiny_settings(first_epoch_shards=1)
    order = DocumentOrder(settings.seed, np.full(6, 10), 1)
    last = corpus.shards[int(order.blocks[-1][0])]
    file = storage.local_path(last.uri)
    file.write_bytes(bytes(reversed(file.read_bytes())))
    sampler = open_sampler(job(corpus, settings, tmp_path), layout)
    with pytest.raises(InputError, match=f"{last.name} is corrupt"):
        sampler.draw(0, np.arange(50, 55), CONTEXT)
    with pytest.raises(InputError, match=f"{last.name} is corrupt"):
        sampler.draw(0, np.arange(5), CONTEXT)  # nor go on with what is whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"padding_token_id": 64}, "padding_token_id is 64, but the vocabulary ends at 63"),
        ({"sampling": "packed", "end_token_id": 70}, "end_token_id is 70, but the vocabulary ends at 63"),
    ],
)
def test_ids_beyond_the_vocabulary_are_refused(
    corpus: Manifest, tmp_path: Path, layout: Layout, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        open_sampler(job(corpus, tiny_settings(**change), tmp_path), layout)


def test_several_corpora_without_a_mixture_are_refused(corpus: Manifest, tmp_path: Path, layout: Layout) -> None:
    one = job(corpus, tiny_settings(), tmp_path)
    with pytest.raises(InputError, match="Sampling window takes one corpus, the job names 2"):
        open_sampler(one.model_copy(update={"sources": one.sources * 2}), layout)


def test_shards_of_all_sources_are_fetched_in_the_order_in_which_they_are_needed() -> None:
    def shards(source: str, count: int) -> list[TokenShard]:
        return [
            TokenShard(name=f"{source}{number}", uri="file:///s", documents=10, tokens=10, sha256="")
            for number in range(count)
        ]

    orders = [DocumentOrder(1, np.full(4, 10), 1), DocumentOrder(2, np.full(6, 10), 2)]
    fetched = [shard.name for shard in first_needed([shards("a", 4), shards("b", 6)], orders, [40, 20])]
    a = [f"a{shard}" for block in orders[0].blocks for shard in block]
    b = [f"b{shard}" for block in orders[1].blocks for shard in block]
    assert fetched == [a[0], *b[:2], *a[1:], *b[2:]]  # an epoch takes 40 of a, in four blocks, and one block of b


def test_two_processes_of_a_node_see_the_windows_of_one_and_the_same_errors(corpus: Manifest, tmp_path: Path) -> None:
    missing, corrupt = (
        write_corpus(f"file://{tmp_path}/{name}", [TEXTS[:20], TEXTS[20:40], TEXTS[40:]])
        for name in ("missing", "corrupt")
    )
    storage.local_path(missing.shards[1].uri).unlink()
    file = storage.local_path(corrupt.shards[2].uri)
    file.write_bytes(bytes(reversed(file.read_bytes())))
    alone_sampler = WindowSampler(open_corpus(corpus), CONTEXT, 2, False, seed=0)
    expected = alone_sampler.draw(0, np.arange(60), CONTEXT).tokens.tolist()

    for rank, found in enumerate(two_processes([missing, corrupt, corpus], tmp_path)):
        assert found[0].startswith("Token shard train-00001 is missing")
        assert found[1].startswith("Token shard train-00002 is corrupt")
        assert found[2] == expected[rank::2]


def two_processes(corpora: list[Manifest], tmp_path: Path) -> list[list[Any]]:
    """Open and draw an epoch of each corpus in two processes of one node: the windows or the error, by process."""
    jobs = []
    for number, corpus in enumerate(corpora):
        jobs.append(tmp_path / f"job-{number}.json")
        jobs[-1].write_text(job(corpus, tiny_settings(), tmp_path / str(number)).model_dump_json())
    world = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_ports(1)[0]),
        "OMP_NUM_THREADS": "1",
    }
    paths = {"PYTHONPATH": str(Path(__file__).parents[1])}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, *map(str, jobs)],
            env={**os.environ, **world, **paths, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    return [json.loads(process.communicate(timeout=120)[0].splitlines()[-1]) for process in processes]


def main() -> None:
    """One of two processes."""
    from components.train.distributed import start_processes

    jobs = [TrainJob.model_validate_json(Path(name).read_text()) for name in sys.argv[1:]]
    layout = start_processes(jobs[0].settings)
    found: list[Any] = []
    for each in jobs:
        try:
            drawn = open_sampler(each, layout).draw(0, np.arange(60)[layout.rank :: 2], CONTEXT)
            found.append(drawn.tokens.tolist())
        except InputError as error:
            found.append(str(error))
    print(json.dumps(found))


if __name__ == "__main__":
    end_with(main)
